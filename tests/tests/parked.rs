//! Legs that are not the owner: what their servers notice of it, and what follows when these end them.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, Request, Routes, Scene, TcpFigures,
    lab::{BBR, RENO},
    scene::{KEY, OTHER_KEY, Via},
    wait_for,
};
use socket2::{SockRef, TcpKeepalive};
use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

/// What is told at once is known within this time.
const SOON: Duration = Duration::from_secs(2);

/// One exchange, answered in one segment: its acknowledgement waits for the next request.
fn exchange(agent: &Agent, http: &mut Http, key: Option<&str>) -> Result<()> {
    let served = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
    ensure!(served.served_by() == Scene::owner(key), "{key:?} was served by {}", served.served_by());
    Ok(())
}

/// Owners take turns on one connection, ten thousand times without a pause, and then with a client that is busy elsewhere for up to a
/// second. However long a server is parked, its last segment was acknowledged when it was: it sends nothing again, its window does
/// not shrink, and the time that it was parked is not taken for a round trip.
#[rstest]
fn a_server_that_is_parked_sends_nothing_again_and_keeps_its_window(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::ClusterIp6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("turns", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.client.http(scene.address(via))?;
    for key in [None, Some(KEY), None] {
        exchange(&agent, &mut http, key)?;
    }
    let fork = || -> Result<TcpFigures> {
        let figures = scene.fork.figures()?;
        ensure!(figures.len() == 1, "{} connections at the fork", figures.len());
        Ok(figures[0])
    };
    let before = fork()?;
    for (parked_for, rounds) in [(0, 5000), (50, 20), (300, 5), (1000, 2)] {
        let context = || format!("parked for {parked_for} ms: {:?}\n{}", fork(), agent.explain());
        for _ in 0..rounds {
            exchange(&agent, &mut http, Some(KEY))?;
            let parked = Instant::now();
            exchange(&agent, &mut http, None)?;
            // The client is busy meanwhile: behind a pause, a kernel acknowledges the first answer at once.
            while parked.elapsed() < Duration::from_millis(parked_for) {
                exchange(&agent, &mut http, None)?;
            }
        }
        wait_for("its last segment to be acknowledged", SOON, || (fork().ok()?.unacknowledged == 0).then_some(()))
            .with_context(context)?;
        let after = fork()?;
        ensure!((after.retransmitted, after.timeouts, after.threshold) == (0, 0, before.threshold), "{}", context());
        ensure!(after.window >= before.window, "{}", context());
        // Of what is parked for 300 ms it would be more than the shortest time-out, and that would be longer from then on.
        ensure!(after.round_trip < 100_000, "{}", context());
    }
    for pod in [&scene.base_pod, &scene.fork_pod] {
        let counters = pod.kernel_counters()?;
        for name in ["Tcp:RetransSegs", "TcpExt:TCPTimeouts", "TcpExt:TCPLossProbes"] {
            ensure!(counters.get(name) == Some(&0), "{}: {name}: {:?}", pod.name(), counters.get(name));
        }
    }
    ensure!(agent.counter("parked_acked")? == 0 && agent.counter("splice_cold")? == 1, "{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}

/// How a server ends a connection.
#[derive(Clone, Copy, Debug)]
enum End {
    Closes,
    Resets,
}

/// Whoever is parked may end its leg at any time: what acknowledges its last segment leaves it a window for that. The client learns
/// nothing of it, and the next request for that server gets another leg.
#[rstest]
fn what_a_parked_server_ends_is_dialled_again(
    #[values(BBR, RENO)] congestion: &str,
    #[values(End::Closes, End::Resets)] end: End,
    #[values(None, Some(KEY))] parked: Option<&str>,
) -> Result<()> {
    let Some(scene) = Scene::open("parked-ends", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let (server, owner) = (scene.origin(parked), if parked.is_some() { None } else { Some(KEY) });
    for via in Via::ALL {
        let mut http = scene.client.http(scene.address(via))?;
        for round in 0..4 {
            let context = || format!("{via:?}, round {round}\n{}", agent.explain());
            for key in [parked, owner, Some(OTHER_KEY), parked, owner] {
                exchange(&agent, &mut http, key).with_context(context)?;
            }
            let closed = agent.counter("parked_closed")?;
            match end {
                End::Closes => server.close_connections(),
                End::Resets => server.reset_connections()?,
            }
            // The other rounds' connections are theirs: this one has one leg to the server.
            wait_for("the leg to be closed", SOON, || (agent.counter("parked_closed").ok()? > closed).then_some(()))
                .with_context(context)?;
            exchange(&agent, &mut http, owner).with_context(context)?;
            let dialled = server.journal().connections();
            exchange(&agent, &mut http, parked).with_context(context)?;
            ensure!(server.journal().connections() == dialled + 1, "{}", context());
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn a_parked_server_that_probes_is_answered() -> Result<()> {
    let Some(scene) = Scene::open("parked-probes", BBR)? else { return Ok(()) };
    let listener = scene.base_pod.listen(9000)?;
    let at = scene.base_pod.v4_port(9000);
    let routes = Routes::new().addresses("shop/probes", &[at]).fork(KEY, &Scene::endpoints(&scene.fork_pod));
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    let mut http = scene.client.http(at)?;
    let (mut server, _) = listener.accept()?;
    // Dead after four seconds without an answer.
    let second = Duration::from_secs(1);
    let probes = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(3);
    SockRef::from(&server).set_tcp_keepalive(&probes)?;
    let mut answers = |http: &mut Http| -> Result<()> {
        http.send(&Request::get("/").wire())?;
        ensure!(server.read(&mut [0; 4096])? > 0);
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        http.response(&Request::get("/")).with_context(|| agent.explain())?;
        Ok(())
    };
    answers(&mut http)?;
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    let acked = agent.counter("parked_acked")?;
    let answered = || (agent.counter("parked_acked").ok()? >= acked + 6).then_some(());
    wait_for("six probes to be answered", Duration::from_secs(20), answered).with_context(|| agent.explain())?;
    answers(&mut http).context("on the leg that was parked")?;
    agent.no_errors()
}
