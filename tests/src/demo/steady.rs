//! Requests that never stop, while something happens to the agent.

use super::{
    report::{Connection, Row},
    visitor::{Ask, conclude, dial, path},
};
use crate::{Http, Request, lab, lab::Pod};
use anyhow::{Context, Result, ensure};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// One request after the other from a thread of its own.
#[derive(Debug)]
pub struct Steady {
    row: Row,
    shared: Arc<Shared>,
    thread: JoinHandle<Outcome>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
}

/// Times of the exchanges that went well, and how it ended.
#[derive(Debug)]
struct Outcome {
    times: Vec<Duration>,
    answered: Vec<String>,
    end: Result<()>,
}

impl Steady {
    /// Starts it in `pod`, over one connection or each time over a new one.
    pub fn start(pod: &Pod, to: SocketAddr, ask: Ask, connection: Connection) -> Self {
        let by: Vec<String> = ask.by.iter().map(|&server| server.to_owned()).collect();
        let row = Row {
            sent: format!("GET {}", ask.target),
            key: ask.key.map(str::to_owned),
            connection,
            expected: by.clone(),
            ..Row::default()
        };
        let shared = Arc::new(Shared::default());
        let (inside, pod) = (Arc::clone(&shared), pod.clone());
        let request = Request::get(ask.target).maybe_key(ask.key);
        let thread = std::thread::spawn(move || {
            let mut outcome = Outcome { times: Vec::new(), answered: Vec::new(), end: Ok(()) };
            outcome.end = lab::join(pod.netns()).and_then(|()| {
                let mut kept = None;
                while !inside.stop.load(Ordering::Relaxed) {
                    if connection == Connection::New {
                        kept = None;
                    }
                    let began = Instant::now();
                    outcome.answered = ask_once(&mut kept, to, &request)?;
                    ensure!(outcome.answered == by, "answered by {}", outcome.answered.join(", "));
                    outcome.times.push(began.elapsed());
                    inside.done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
            outcome
        });
        Self { row, shared, thread }
    }

    /// Waits until so many more requests were answered, or one of them was not as it has to be.
    pub fn more(&self, requests: u64) -> Result<()> {
        let done = || self.shared.done.load(Ordering::Relaxed);
        let until = done() + requests;
        let there = || (done() >= until || self.thread.is_finished()).then_some(());
        crate::wait_for("requests to be answered", Duration::from_secs(30), there)
    }

    /// Ends it after the exchange that is under way.
    pub fn stop(self) -> Row {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut row = self.row;
        let mut outcome = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        row.times(&mut outcome.times);
        row.answered = outcome.answered;
        let after = row.count;
        conclude(&mut row, outcome.end.map(|()| None).with_context(|| format!("after {after} answers")));
        row
    }
}

fn ask_once(kept: &mut Option<Http>, to: SocketAddr, request: &Request) -> Result<Vec<String>> {
    let mut http = match kept.take() {
        Some(http) => http,
        None => dial(to)?,
    };
    let response = http.exchange(request)?;
    ensure!(response.status() == 200, "status {}", response.status());
    *kept = Some(http);
    Ok(path(&response))
}
