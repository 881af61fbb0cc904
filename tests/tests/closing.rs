//! How connections close: one side first, both at once, with the last segment lost, and what follows on the same ports.

use anyhow::{Context, Result, anyhow, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, HttpError, Pod, Request, Scene,
    lab::{BBR, RENO},
    scene::{KEY, OTHER_KEY, PORT, Via},
    wait_for,
};
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::Command,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// What is told at once is known within this time.
const SOON: Duration = Duration::from_secs(2);
/// What came before, on one connection.
const HISTORIES: [&[Option<&str>]; 4] = [&[], &[None], &[Some(KEY)], &[None, Some(KEY), Some(OTHER_KEY), None]];

/// A pod's sockets in one of these states.
fn sockets(pod: &Pod, states: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new("ss");
    command.arg("-Htn");
    for state in states {
        command.args(["state", state]);
    }
    Ok(pod.run(command)?.lines().map(str::to_owned).collect())
}

/// Every socket of both ends has come to its end, but for the rest of TIME-WAIT.
fn all_ended(scene: &Scene, agent: &Agent) -> Result<()> {
    let ending = ["established", "fin-wait-1", "fin-wait-2", "close-wait", "last-ack", "closing"];
    for pod in [&scene.base_pod, &scene.fork_pod, &scene.other_pod, &scene.client] {
        let ended = || sockets(pod, &ending).ok()?.is_empty().then_some(());
        wait_for("sockets to end", Duration::from_secs(5), ended)
            .with_context(|| format!("{}: {:?}\n{}", pod.name(), sockets(pod, &ending), agent.explain()))?;
    }
    Ok(())
}

/// The client ends its side behind its last request, also where that has to wait for its fork.
#[rstest]
fn a_client_that_ends_its_side_gets_its_answer(
    #[values(BBR, RENO)] congestion: &str,
    #[values(None, Some(KEY))] last: Option<&str>,
) -> Result<()> {
    let Some(scene) = Scene::open("half-close", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    for (via, history) in Via::ALL.into_iter().flat_map(|via| HISTORIES.map(|history| (via, history))) {
        let context = || format!("{via:?} after {history:?}\n{}", agent.explain());
        let mut http = scene.client.http(scene.address(via))?;
        for &key in history {
            http.exchange(&Request::get("/").maybe_key(key)).with_context(context)?;
        }
        let request = Request::post("/slow/30", b"all of it".to_vec()).maybe_key(last);
        http.send(&request.wire())?;
        http.finish()?;
        let response = http.response(&request).with_context(context)?;
        response.verify_echo(Scene::owner(last), b"all of it").with_context(context)?;
        http.patience(SOON)?;
        http.end().with_context(context)?;
    }
    all_ended(&scene, &agent)?;
    scene.isolated()?;
    agent.no_errors()
}

/// Reads up to the empty line behind a head.
fn head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        ensure!(stream.read(&mut byte)? == 1, "the connection ended");
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}

/// One connection of a server of few words: it answers a request, and `end` does the rest.
fn serve<T>(listener: &TcpListener, end: impl FnOnce(TcpStream) -> Result<T>) -> Result<T> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    head(&mut stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nx-served-by: raw\r\ncontent-length: 0\r\n\r\n")?;
    end(stream)
}

/// The server ends its side and reads on: what the client still has to say to it gets there, and nobody else can answer any more.
#[rstest]
fn a_server_that_ends_its_side_is_heard_to_the_end(#[values(None, Some(KEY))] owner: Option<&str>) -> Result<()> {
    let Some(scene) = Scene::open("server-half", BBR)? else { return Ok(()) };
    let pod = if owner.is_some() { &scene.fork_pod } else { &scene.base_pod };
    let listener = pod.listen(9000)?;
    let (base, fork) = match owner {
        Some(_) => (scene.base_pod.v4_port(PORT), scene.fork_pod.v4_port(9000)),
        None => (scene.base_pod.v4_port(9000), scene.fork_pod.v4_port(PORT)),
    };
    let routes = sidetrack_tests::Routes::new().addresses("shop/half", &[base]).fork(KEY, &[fork]);
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    for another in [false, true] {
        let mut http = scene.client.http(base)?;
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                serve(&listener, |mut stream| {
                    stream.shutdown(Shutdown::Write)?;
                    let mut rest = Vec::new();
                    // Where the client is reset, so is the server.
                    let end = stream.read_to_end(&mut rest).map_err(|error| error.kind());
                    Ok((String::from_utf8(rest)?, end.is_ok()))
                })
            });
            let response = http.exchange(&Request::get("/").maybe_key(owner)).with_context(|| agent.explain())?;
            ensure!(response.served_by() == "raw");
            http.end().context("the server's end")?;
            let to = if another { if owner.is_some() { None } else { Some(KEY) } } else { owner };
            let wire = Request::get("/behind").maybe_key(to).wire();
            http.send(&wire)?;
            if another {
                let end = http.response(&Request::get("/behind"));
                ensure!(matches!(end, Err(HttpError::Closed(0) | HttpError::Reset)), "{end:?}");
            } else {
                http.finish()?;
            }
            let (rest, in_order) = server.join().map_err(|_| anyhow!("the server has panicked"))??;
            if another {
                ensure!(rest.is_empty(), "the owner was given what is another's: {rest}");
            } else {
                ensure!(in_order && rest.as_bytes() == wire, "the server was given {rest:?}\n{}", agent.explain());
            }
            anyhow::Ok(())
        })?;
    }
    for origin in [&scene.base, &scene.fork] {
        ensure!(origin.journal().matching(|seen| seen.target == "/behind").is_empty(), "another has answered");
    }
    agent.no_errors()
}

/// Both sides close at one moment, whoever owns the connection.
#[rstest]
fn both_sides_may_close_at_once(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("both-close", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    for round in 0..200 {
        let via = Via::ALL[round % 4];
        let mut http = scene.client.http(scene.address(via)).with_context(|| agent.explain())?;
        let history = HISTORIES[1 + round / 4 % 3];
        for &key in history {
            http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
        }
        let owner = scene.origin(history[history.len() - 1]);
        let together = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                together.wait();
                owner.close_connections();
            });
            together.wait();
            drop(http);
        });
    }
    all_ended(&scene, &agent)?;
    scene.isolated()?;
    agent.no_errors()
}

/// The owner resets in the middle of its response: the client learns it at once, and so do the others.
#[rstest]
fn a_reset_in_the_middle_of_a_response_is_seen_at_once(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("cut", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    for (via, owner) in Via::ALL.into_iter().flat_map(|via| [None, Some(KEY)].map(|owner| (via, owner))) {
        for history in HISTORIES {
            let context = || format!("{via:?}, {owner:?} after {history:?}\n{}", agent.explain());
            let mut http = scene.client.http(scene.address(via))?;
            for &key in history {
                http.exchange(&Request::get("/").maybe_key(key)).with_context(context)?;
            }
            let began = Instant::now();
            let end = http.exchange(&Request::get("/cut/5000").maybe_key(owner));
            ensure!(matches!(end, Err(HttpError::Reset)), "{end:?}: {}", context());
            ensure!(began.elapsed() < SOON, "{:?}: {}", began.elapsed(), context());
        }
    }
    all_ended(&scene, &agent)?;
    scene.isolated()?;
    agent.no_errors()
}

/// The client has closed, and its last acknowledgement is lost: its kernel, which remembers the connection in TIME-WAIT alone,
/// acknowledges the server's FIN when that comes again, and the right server gets it.
#[rstest]
fn a_last_acknowledgement_that_is_lost_comes_again_to_the_right_server(
    #[values(None, Some(KEY))] owner: Option<&str>,
) -> Result<()> {
    let Some(scene) = Scene::open("last-ack", BBR)? else { return Ok(()) };
    let pod = if owner.is_some() { &scene.fork_pod } else { &scene.base_pod };
    let listener = pod.listen(9000)?;
    let (base, fork) = match owner {
        Some(_) => (scene.base_pod.v4_port(PORT), scene.fork_pod.v4_port(9000)),
        None => (scene.base_pod.v4_port(9000), scene.fork_pod.v4_port(PORT)),
    };
    let routes = sidetrack_tests::Routes::new().addresses("shop/last", &[base]).fork(KEY, &[fork]);
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            serve(&listener, |mut stream| {
                ensure!(stream.read(&mut [0])? == 0, "more than one request");
                pod.black_hole(9000)
            })
        });
        let mut http = scene.client.http(base)?;
        // Both have had a part in it, so that numbers differ.
        let other = if owner.is_some() { None } else { Some(KEY) };
        if owner.is_some() {
            http.exchange(&Request::get("/").maybe_key(other))?;
        }
        let response = http.exchange(&Request::get("/").maybe_key(owner)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == "raw");
        drop(http);
        server.join().map_err(|_| anyhow!("the server has panicked"))?
    })?;
    let waiting = || sockets(pod, &["last-ack"]);
    wait_for("the server's FIN to be sent", SOON, || (waiting().ok()?.len() == 1).then_some(()))?;
    let again = || -> Result<u32> {
        let segments = pod.kernel_counters()?.get("Tcp:RetransSegs").copied();
        Ok(u32::try_from(segments.context("the kernel counts them")?)?)
    };
    let before = again()?;
    wait_for("the FIN to come again", SOON, || (again().ok()? >= before + 2).then_some(()))?;
    ensure!(waiting()?.len() == 1, "it was acknowledged: {:?}", waiting()?);
    pod.unfilter()?;
    wait_for("the server to know that it is over", Duration::from_secs(10), || {
        waiting().ok()?.is_empty().then_some(())
    })
    .with_context(|| format!("{:?}\n{}", waiting(), agent.explain()))?;
    agent.no_errors()
}

/// A minute later nothing is left of a connection whose client closed first, neither in its kernel nor in the tables: the port is a
/// new connection's.
#[test]
fn a_port_used_again_after_time_wait_is_a_new_connection() -> Result<()> {
    let Some(scene) = Scene::open("after-61s", RENO)? else { return Ok(()) };
    let agent = scene.agent()?;
    let owners = [None, Some(KEY), Some(OTHER_KEY)];
    let ports = || (0..).map(|number| 40_000 + number).zip(Via::ALL.into_iter().cycle()).take(24);
    let round = |turn: usize| -> Result<()> {
        for (number, (port, via)) in ports().enumerate() {
            let context = || format!("turn {turn}, port {port}, {via:?}\n{}", agent.explain());
            let mut http = scene.client.http_from(scene.address(via), port).with_context(context)?;
            for step in 0..3 {
                let key = owners[(number + step * (1 + turn)) % 3];
                let response = http.exchange(&Request::get("/bytes/900").maybe_key(key)).with_context(context)?;
                response.verify_bytes(Scene::owner(key), 900).with_context(context)?;
            }
        }
        Ok(())
    };
    round(0)?;
    let time_wait = || sockets(&scene.client, &["time-wait"]);
    ensure!(!time_wait()?.is_empty(), "no client closed first");
    wait_for("TIME-WAIT to end", Duration::from_secs(75), || time_wait().ok()?.is_empty().then_some(()))?;
    round(1)?;
    all_ended(&scene, &agent)?;
    scene.isolated()?;
    agent.no_errors()
}
