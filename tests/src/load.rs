//! Many connections with random keys, every answer checked: whose it is, and each byte of it.

use crate::{
    digest::{Dice, body},
    http::{Http, Request},
    lab::Pod,
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What to send, and who may answer.
#[derive(Clone, Debug)]
pub struct Load {
    to: Vec<SocketAddr>,
    connections: usize,
    requests: Option<usize>,
    requests_per_connection: usize,
    keys: Vec<(Option<String>, Vec<String>)>,
    seed: u64,
}

/// An exchange that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When, counted from the start.
    pub at: Duration,
    /// Which of the parallel connections.
    pub connection: usize,
    /// The client's address, where it was connected.
    pub client: Option<SocketAddr>,
    /// How many exchanges had gone well on it.
    pub exchanges: usize,
    /// The request's key.
    pub key: Option<String>,
    /// What happened.
    pub error: String,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Exchanges that went well.
    pub done: u64,
    /// Those that did not.
    pub failures: Vec<Failure>,
    /// Exchanges by key and server.
    pub served: BTreeMap<(Option<String>, String), u64>,
    /// Connections that were opened.
    pub connections: u64,
    /// The longest exchange.
    pub slowest: Duration,
}

impl Report {
    /// Fails, naming the first failures, unless every exchange went well and there was one.
    ///
    /// # Errors
    /// Names the first failures.
    pub fn all_well(&self) -> Result<()> {
        let first: Vec<_> = self.failures.iter().take(5).collect();
        ensure!(
            first.is_empty(),
            "{} of {} failed: {first:#?}",
            self.failures.len(),
            self.done + self.failures.len() as u64
        );
        ensure!(self.done > 0, "no exchange was made");
        Ok(())
    }

    /// How many exchanges with this key were served by this server.
    #[must_use]
    pub fn count(&self, key: Option<&str>, server: &str) -> u64 {
        self.served.get(&(key.map(str::to_owned), server.to_owned())).copied().unwrap_or(0)
    }
}

impl Load {
    /// Requests to `to` over one connection, without end and without keys, until one is given.
    #[must_use]
    pub fn new(to: SocketAddr) -> Self {
        Self {
            to: vec![to],
            connections: 1,
            requests: None,
            requests_per_connection: usize::MAX,
            keys: Vec::new(),
            seed: 1,
        }
    }

    /// Dials this address too: connections take turns.
    #[must_use]
    pub fn also_to(mut self, to: SocketAddr) -> Self {
        self.to.push(to);
        self
    }

    /// How many connections in parallel.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Ends after so many requests on each of the parallel connections.
    #[must_use]
    pub fn requests(mut self, requests: usize) -> Self {
        self.requests = Some(requests);
        self
    }

    /// Opens a new connection after so many requests.
    #[must_use]
    pub fn requests_per_connection(mut self, requests: usize) -> Self {
        self.requests_per_connection = requests;
        self
    }

    /// Some requests carry this key (or none), and one of `servers` has to answer.
    #[must_use]
    pub fn key(mut self, key: Option<&str>, servers: &[&str]) -> Self {
        self.keys.push((key.map(str::to_owned), servers.iter().map(|&server| server.to_owned()).collect()));
        self
    }

    /// Another sequence of choices.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When the pod cannot be entered. Failed exchanges are in the report.
    ///
    /// # Panics
    /// When no number of requests is given: it would not end.
    pub fn run(self, client: &Pod) -> Result<Report> {
        assert!(self.requests.is_some(), "a load without an end has to be started and stopped");
        self.start(client)?.join()
    }

    /// Starts it in the background.
    ///
    /// # Errors
    /// When the pod cannot be entered.
    ///
    /// # Panics
    /// When no key was given, not even none.
    pub fn start(self, client: &Pod) -> Result<Running> {
        assert!(!self.keys.is_empty(), "say which keys to send, and who has to answer");
        let shared = Arc::new(Shared { started: Instant::now(), ..Shared::default() });
        let load = Arc::new(self);
        let threads = (0..load.connections)
            .map(|number| {
                let (load, shared, pod) = (Arc::clone(&load), Arc::clone(&shared), client.clone());
                std::thread::spawn(move || {
                    crate::lab::join(pod.netns())?;
                    Worker { load: &load, shared: &shared, number, pod: &pod }.run();
                    Ok(())
                })
            })
            .collect();
        Ok(Running { shared, threads })
    }
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    stop: AtomicBool,
    done: AtomicU64,
    report: Mutex<Report>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            stop: AtomicBool::default(),
            done: AtomicU64::default(),
            report: Mutex::default(),
        }
    }
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load under way. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Running {
    /// Exchanges so far that went well.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// How many exchanges have failed so far.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.shared.report().failures.len()
    }

    /// Waits until so many further exchanges went well.
    ///
    /// # Errors
    /// When that takes more than 20 s, naming the first failures.
    pub fn more(&self, exchanges: u64) -> Result<()> {
        let until = self.done() + exchanges;
        let progress =
            crate::wait_for("exchanges under load", Duration::from_secs(20), || (self.done() >= until).then_some(()));
        progress.with_context(|| {
            let report = self.shared.report();
            format!(
                "{} went well, first failures: {:#?}",
                report.done,
                report.failures.iter().take(3).collect::<Vec<_>>()
            )
        })
    }

    /// Ends it after the exchanges that are under way.
    ///
    /// # Errors
    /// When a thread could not enter the pod.
    pub fn stop(self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(mut self) -> Result<Report> {
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(self.shared.report().clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

struct Worker<'a> {
    load: &'a Load,
    shared: &'a Shared,
    number: usize,
    pod: &'a Pod,
}

impl Worker<'_> {
    fn run(&self) {
        let mut dice = Dice::new(self.load.seed.wrapping_mul(1_000_003) + self.number as u64);
        let to = self.load.to[self.number % self.load.to.len()];
        let mut connection: Option<(Http, usize)> = None;
        let mut made = 0;
        while !self.shared.stop.load(Ordering::Relaxed) && self.load.requests.is_none_or(|limit| made < limit) {
            made += 1;
            let (key, servers) = dice.pick(&self.load.keys).clone();
            let began = Instant::now();
            let outcome = self.exchange(&mut connection, to, key.as_deref(), &servers, &mut dice);
            let mut report = self.shared.report();
            match outcome {
                Ok(server) => {
                    report.done += 1;
                    report.slowest = report.slowest.max(began.elapsed());
                    *report.served.entry((key, server)).or_default() += 1;
                    self.shared.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    let (http, exchanges) = connection.take().unzip();
                    report.failures.push(Failure {
                        at: self.shared.started.elapsed(),
                        connection: self.number,
                        client: http.and_then(|http| http.local().ok()),
                        exchanges: exchanges.unwrap_or(0),
                        key,
                        error: format!("{error:#}"),
                    });
                }
            }
        }
    }

    /// One exchange of a random kind; who served it.
    fn exchange(
        &self,
        connection: &mut Option<(Http, usize)>,
        to: SocketAddr,
        key: Option<&str>,
        servers: &[String],
        dice: &mut Dice,
    ) -> Result<String> {
        if connection.as_ref().is_some_and(|(_, used)| *used >= self.load.requests_per_connection) {
            *connection = None;
        }
        if connection.is_none() {
            let http = Http::dial(SocketAddr::new(self.pod.ip_like(to), 0), to).context("cannot connect")?;
            self.shared.report().connections += 1;
            *connection = Some((http, 0));
        }
        let (http, used) = connection.as_mut().context("a connection was just made")?;
        let length = *dice.pick(&[0, 1, 90, 1400, 1500, 9000, 70_000]);
        let path = match dice.below(6) {
            0 => format!("/chunked/{length}/5"),
            _ => format!("/bytes/{length}"),
        };
        let upload = body("load", length);
        let (request, kind) = match dice.below(8) {
            0 => (Request::head(&path), Kind::Head),
            1 => (Request::post("/echo", upload.clone()), Kind::Upload),
            2 => (Request::post("/echo", upload.clone()).chunked(1000), Kind::Upload),
            3 => (Request::get("/status/204"), Kind::Head),
            _ => (Request::get(&path), Kind::Bytes),
        };
        let response = http.exchange(&request.maybe_key(key)).with_context(|| format!("{kind:?} of {length} bytes"))?;
        let server = response.served_by().to_owned();
        ensure!(servers.contains(&server), "served by {server:?}, not by one of {servers:?}");
        match kind {
            Kind::Head => ensure!(response.body.is_empty(), "a body where there is none"),
            Kind::Upload => response.verify_echo(&server, &upload)?,
            Kind::Bytes => response.verify_bytes(&server, length)?,
        }
        *used += 1;
        if !http.is_open() {
            *connection = None;
        }
        Ok(server)
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Head,
    Upload,
    Bytes,
}
