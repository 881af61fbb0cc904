//! One side ends a connection, or speaks unasked, at a moment when others have a part in it.

use anyhow::{Context, Result, anyhow, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, HttpError, Pod, Request, Routes, Scene,
    lab::{BBR, RENO},
    scene::{KEY, OTHER_KEY, PORT, Via},
    wait_for,
};
use socket2::SockRef;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::mpsc::{self, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What is told at once is known within this time.
const SOON: Duration = Duration::from_secs(2);

/// A server that answers one request on its first connection as `first`, ends that in its own way when it is told to, and answers as
/// `second` on the next.
struct Twice {
    tell: Sender<()>,
    served: JoinHandle<Result<()>>,
}

impl Twice {
    /// `end` returns the connection if it stays open.
    fn start(
        pod: &Pod,
        port: u16,
        end: impl FnOnce(TcpStream) -> Result<Option<TcpStream>> + Send + 'static,
    ) -> Result<Self> {
        let listener = pod.listen(port)?;
        let (tell, told) = mpsc::channel();
        let served = thread::spawn(move || {
            let (mut first, _) = listener.accept()?;
            answer(&mut first, "first")?;
            told.recv()?;
            let _open = end(first)?;
            let (mut second, _) = listener.accept()?;
            answer(&mut second, "second")
        });
        Ok(Self { tell, served })
    }

    /// It ends a connection by a reset.
    fn resetting(pod: &Pod, port: u16) -> Result<Self> {
        Self::start(pod, port, |first| {
            SockRef::from(&first).set_linger(Some(Duration::ZERO))?;
            Ok(None)
        })
    }

    /// Ends the first connection while a head with this key is held: its fork's answer to the SYN takes until the SYN comes again. The
    /// fork answers in the end.
    fn end_under_hold(&self, agent: &Agent, http: &mut Http, key: &str, fork: &Pod) -> Result<()> {
        let held = agent.counter("hold_dial")? + 1;
        fork.black_hole(PORT)?;
        http.send(&Request::get("/").key(key).wire())?;
        wait_for("the head to be held", SOON, || (agent.counter("hold_dial").ok()? == held).then_some(()))?;
        self.tell.send(())?;
        wait_for("its end to be kept", SOON, || (agent.counter("held_kept").ok()? >= 1).then_some(()))?;
        fork.unfilter()?;
        let response = http.response(&Request::get("/")).with_context(|| agent.explain())?;
        ensure!(response.served_by() == Scene::owner(Some(key)), "{}", response.served_by());
        Ok(())
    }

    fn join(self) -> Result<()> {
        self.served.join().map_err(|_| anyhow!("the server has panicked"))?
    }
}

/// A service whose baseline is such a server, and whose key leads to the fork. Returns the agent, and a client whose first
/// request the server has answered.
fn with_baseline(scene: &Scene, port: u16) -> Result<(Agent<'_>, Http)> {
    let at = scene.base_pod.v4_port(port);
    let routes = Routes::new().addresses("shop/late", &[at]).fork(KEY, &Scene::endpoints(&scene.fork_pod));
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    let mut http = scene.client.http(at)?;
    ensure!(http.exchange(&Request::get("/"))?.served_by() == "first");
    Ok((agent, http))
}

fn answer(stream: &mut TcpStream, server: &str) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        ensure!(stream.read(&mut byte)? == 1, "the connection ended");
        head.push(byte[0]);
    }
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nx-served-by: {server}\r\n\r\n{server}", server.len());
    Ok(stream.write_all(text.as_bytes())?)
}

#[test]
fn what_an_owner_says_while_a_head_is_held_stays_away_from_the_client() -> Result<()> {
    let Some(scene) = Scene::open("late", BBR)? else { return Ok(()) };
    let server = Twice::start(&scene.base_pod, 9000, |mut first| {
        first.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate")?;
        Ok(Some(first))
    })?;
    let (agent, mut http) = with_baseline(&scene, 9000)?;
    server.end_under_hold(&agent, &mut http, KEY, &scene.fork_pod)?;
    // It comes again, and finds its leg parked: nothing can follow on that, so the next request gets another.
    wait_for("the leg to be closed", SOON, || (agent.counter("parked_closed").ok()? >= 1).then_some(()))?;
    ensure!(http.exchange(&Request::get("/"))?.served_by() == "second");
    server.join()?;
    agent.no_errors()
}

/// The same of its reset, which comes once: the next request for it gets another leg.
#[test]
fn an_owner_that_resets_while_a_head_is_held_is_dialled_again_when_needed() -> Result<()> {
    let Some(scene) = Scene::open("reset-under-hold", RENO)? else { return Ok(()) };
    let server = Twice::resetting(&scene.fork_pod, 9000)?;
    let at = scene.base_pod.v4_port(PORT);
    let routes = Routes::new().addresses("shop/late", &[at]).fork(KEY, &[scene.fork_pod.v4_port(9000)]);
    let agent = Agent::start(&scene.lab, &routes.fork(OTHER_KEY, &Scene::endpoints(&scene.other_pod)))?;
    agent.wait_attached(["client"])?;
    let mut http = scene.client.http(at)?;
    ensure!(http.exchange(&Request::get("/"))?.served_by() == Scene::owner(None));
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "first");
    server.end_under_hold(&agent, &mut http, OTHER_KEY, &scene.other_pod)?;
    ensure!(agent.counter("held_kept")? == 1, "{}", agent.explain());
    let response = http.exchange(&Request::get("/").key(KEY)).with_context(|| agent.explain())?;
    ensure!(response.served_by() == "second", "{}", response.served_by());
    server.join()?;
    agent.no_errors()
}

/// The same of the baseline, where no other leg has served yet: the held request goes to its fork. The acknowledgement that the
/// baseline gets then is answered by a reset, too, so that the next request for it gets another leg.
#[test]
fn a_baseline_that_resets_while_the_first_head_is_held_does_not_end_that() -> Result<()> {
    let Some(scene) = Scene::open("reset-before", RENO)? else { return Ok(()) };
    let server = Twice::resetting(&scene.base_pod, 9000)?;
    let (agent, mut http) = with_baseline(&scene, 9000)?;
    server.end_under_hold(&agent, &mut http, KEY, &scene.fork_pod)?;
    ensure!(agent.counter("held_kept")? == 1, "{}", agent.explain());
    wait_for("the leg to be closed", SOON, || (agent.counter("parked_closed").ok()? >= 1).then_some(()))
        .with_context(|| agent.explain())?;
    let response = http.exchange(&Request::get("/")).with_context(|| agent.explain())?;
    ensure!(response.served_by() == "second", "{}", response.served_by());
    server.join()?;
    agent.no_errors()
}

/// A fork resets a connection that others have served before: it is over, for them too.
#[test]
fn what_a_fork_resets_is_over_at_once_for_every_leg() -> Result<()> {
    let Some(scene) = Scene::open("reset-by-fork", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let (mut ending, rounds) = (Duration::ZERO, 3 * Via::ALL.len() as u32);
    for via in Via::ALL.into_iter().cycle().take(rounds as usize) {
        let mut http = scene.client.http(scene.address(via))?;
        for key in [None, Some(OTHER_KEY), Some(KEY)] {
            http.exchange(&Request::get("/").maybe_key(key))?;
        }
        let began = Instant::now();
        let end = http.exchange(&Request::get("/reset").key(KEY));
        ensure!(matches!(end, Err(HttpError::Reset)), "{end:?}");
        let gone = || [&scene.base, &scene.other].iter().all(|origin| origin.clients().is_empty()).then_some(());
        wait_for("the other legs to be reset", Duration::from_secs(2), gone).with_context(|| agent.explain())?;
        ending += began.elapsed();
        ensure!(agent.flows()?["items"].as_array().is_some_and(Vec::is_empty), "it is shown as if it were alive");
    }
    // Each round begins when the one before has ended: where nothing but the sweep, once a second, ended the legs, each would take a
    // second.
    ensure!(ending < Duration::from_millis(400) * rounds, "{ending:?} for {rounds} rounds\n{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}

/// The client's reset meets the agent's dial, and the switch to its leg, at every moment. With `parts` the baseline has got a part
/// of the head.
#[rstest]
fn clients_that_reset_in_the_middle_of_a_hold_leave_nothing(#[values(false, true)] parts: bool) -> Result<()> {
    let Some(scene) = Scene::open("reset-in-hold", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let clients = 4;
    thread::scope(|scope| {
        let (scene, agent) = (&scene, &agent);
        let client = |number: u64| {
            move || -> Result<()> {
                for round in 0..400_u64 {
                    let via = Via::ALL[(round % 4) as usize];
                    let context = || format!("{via:?}, round {round}\n{}", agent.explain());
                    let mut http = scene.client.http(scene.address(via)).with_context(context)?;
                    // A connection that was diverted and has come back, or a fresh one.
                    if round % 3 == 0 {
                        for key in [Some(OTHER_KEY), None] {
                            http.exchange(&Request::get("/").maybe_key(key)).with_context(context)?;
                        }
                    }
                    let wire = Request::get("/").key(KEY).wire();
                    let pause = Duration::from_micros((round * 37 + number * 400) % 1500);
                    // Once the connection is given up, what is written meets a reset.
                    let cut = if parts { wire.len() - 20 } else { 0 };
                    if parts {
                        drop(http.send(&wire[..cut]));
                        thread::sleep(pause / 2);
                    }
                    drop(http.send(&wire[cut..]));
                    thread::sleep(pause);
                    http.abort()?;
                }
                Ok(())
            }
        };
        let running: Vec<_> = (0..clients).map(|number| scope.spawn(client(number))).collect();
        running.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    let gone =
        || [&scene.base, &scene.fork, &scene.other].iter().all(|origin| origin.clients().is_empty()).then_some(());
    wait_for("servers to have no connection", Duration::from_secs(5), gone).with_context(|| agent.explain())?;
    ensure!(agent.counter("heads_full")? == 0, "parts of heads outlive their connections\n{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}
