//! Connections that are older than the agent, or than their service's entry: their next requests are steered, from a place where a
//! request must begin; what else they carry is not touched.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, Request, Routes, Scene,
    lab::{BBR, RENO},
    scene::{KEY, OTHER_KEY, Via},
    wait_for,
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn served(http: &mut Http, agent: &Agent, key: Option<&str>) -> Result<()> {
    let body = format!("{key:?}").into_bytes();
    let response = http.exchange(&Request::post("/echo", body.clone()).maybe_key(key));
    response.with_context(|| agent.explain())?.verify_echo(Scene::owner(key), &body)
}

/// Connections as a pool has them: never used, used once, used many times.
fn pool(scene: &Scene, via: Via) -> Result<Vec<Http>> {
    let mut all = Vec::new();
    for uses in [0, 1, 20] {
        let mut http = scene.client.http(scene.address(via))?;
        for _ in 0..uses {
            // A key that leads nowhere yet.
            http.exchange(&Request::get("/chunked/3000/7").key(KEY))?.verify_bytes("base", 3000)?;
        }
        all.push(http);
    }
    Ok(all)
}

/// Each connection's next requests go where their keys lead.
fn steered(pool: &mut [Http], agent: &Agent) -> Result<()> {
    for (n, http) in pool.iter_mut().enumerate() {
        // Each has another first one.
        let keys = [Some(KEY), None, Some(OTHER_KEY), Some(KEY), None];
        for key in keys.into_iter().cycle().skip(n).take(8) {
            served(http, agent, key).with_context(|| format!("connection {n}"))?;
        }
    }
    Ok(())
}

#[rstest]
fn the_next_request_of_an_idle_connection_is_steered_when_an_agent_comes(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::ClusterIp6, Via::Endpoint4, Via::Endpoint6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("older", congestion)? else { return Ok(()) };
    let mut pool = pool(&scene, via)?;
    scene.base.journal().clear();
    let agent = scene.agent()?;
    steered(&mut pool, &agent)?;
    ensure!(agent.counter("adopted")? == 3 && agent.counter("opaque_older")? == 0, "{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn the_next_request_of_an_idle_connection_is_steered_when_its_service_is_routed() -> Result<()> {
    let Some(scene) = Scene::open("older-service", BBR)? else { return Ok(()) };
    let agent = Agent::start(&scene.lab, &Routes::new())?;
    agent.wait_attached(["client"])?;
    let mut pools = [pool(&scene, Via::ClusterIp4)?, pool(&scene, Via::Endpoint6)?];
    scene.base.journal().clear();
    // A socket that has just got an answer is too young to tell.
    std::thread::sleep(Duration::from_millis(250));
    agent.set_routes(&scene.routes())?;
    for pool in &mut pools {
        steered(pool, &agent)?;
    }
    ensure!(agent.counter("adopted")? == 6, "{}", agent.explain());
    scene.isolated()
}

#[test]
fn a_busy_connection_is_steered_from_the_end_of_its_exchange_on() -> Result<()> {
    let Some(scene) = Scene::open("older-busy", BBR)? else { return Ok(()) };
    let (mut answered, mut asking) = (scene.http()?, scene.http()?);
    // In the middle of an answer, and in the middle of a request.
    let drip = Request::get("/drip/40/50");
    answered.send(&drip.wire())?;
    let head = answered.head()?;
    let upload = vec![b'u'; 60_000];
    let post = Request::post("/echo", upload.clone());
    let wire = post.wire();
    asking.send(&wire[..wire.len() / 2])?;
    let agent = scene.agent()?;
    asking.send(&wire[wire.len() / 2..])?;
    asking.response(&post)?.verify_echo("base", &upload)?;
    answered.body(&head, false)?;
    for http in [&mut answered, &mut asking] {
        for key in [Some(KEY), None, Some(OTHER_KEY)] {
            served(http, &agent, key)?;
        }
    }
    ensure!(agent.counter("adopted")? == 2, "{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn a_body_that_looks_like_a_request_is_not_taken_for_one() -> Result<()> {
    let Some(scene) = Scene::open("older-bait", BBR)? else { return Ok(()) };
    let bait = Request::get("/smuggled").key(KEY).wire();
    let mut http = scene.http()?;
    let post = Request::post("/echo", bait.clone());
    http.send(&post.head_bytes())?;
    let seen =
        || (!scene.base.journal().fragments().is_empty() || scene.base.journal().connections() == 1).then_some(());
    wait_for("the head to be there", PATIENCE, seen)?;
    let agent = scene.agent()?;
    http.send(&bait)?;
    http.response(&post)?.verify_echo("base", &bait)?;
    ensure!(agent.counter("opaque_older")? == 1, "{}", agent.explain());
    served(&mut http, &agent, Some(KEY))?;
    ensure!(scene.fork.journal().matching(|seen| seen.target == "/smuggled").is_empty());
    agent.no_errors()
}

#[rstest]
fn behind_an_interim_response_no_request_begins(
    #[values("100 Continue", "103 Early Hints")] interim: &str,
) -> Result<()> {
    let Some(scene) = Scene::open("older-interim", BBR)? else { return Ok(()) };
    let listener = scene.base_pod.listen(9000)?;
    let address = scene.base_pod.v4_port(9000);
    let mut http = scene.client.http(address)?;
    let (mut server, _) = listener.accept()?;
    http.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\nExpect: 100-continue\r\n\r\n")?;
    let mut head = vec![0; 70];
    server.read_exact(&mut head)?;
    let routes = Routes::new().addresses("shop/raw", &[address]).fork(KEY, &Scene::endpoints(&scene.fork_pod));
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    write!(server, "HTTP/1.1 {interim}\r\n\r\n")?;
    ensure!(http.head()?.status < 200);
    let mut bait = Request::get("/smuggled").key(KEY).wire();
    bait.resize(60, b' ');
    http.send(&bait)?;
    let mut body = vec![0; 60];
    server.read_exact(&mut body)?;
    ensure!(body == bait);
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    ensure!(http.head()?.status == 200);
    ensure!(agent.counter("adopted")? == 0, "{}", agent.explain());
    let response = http.exchange(&Request::get("/bytes/100").key(KEY)).with_context(|| agent.explain())?;
    response.verify_bytes("fork", 100)?;
    ensure!(scene.fork.journal().count() == 1);
    agent.no_errors()
}

#[test]
fn an_older_connection_that_is_not_http_is_not_touched() -> Result<()> {
    let Some(scene) = Scene::open("older-raw", BBR)? else { return Ok(()) };
    let listener = scene.base_pod.listen(9000)?;
    let address = scene.base_pod.v4_port(9000);
    let dial = || -> Result<(TcpStream, TcpStream)> {
        let stream = scene.client.enter(|| TcpStream::connect(address))??;
        Ok((stream, listener.accept()?.0))
    };
    let mut pairs = [dial()?, dial()?];
    let say = |(client, server): &mut (TcpStream, TcpStream), text: &[u8]| -> Result<()> {
        let mut got = vec![0; text.len()];
        client.write_all(text)?;
        server.read_exact(&mut got)?;
        ensure!(got == text);
        server.write_all(text)?;
        client.read_exact(&mut got)?;
        ensure!(got == text);
        Ok(())
    };
    say(&mut pairs[1], b"\x16\x03\x01\x02\x00\x01 hello")?;
    let routes = Routes::new().addresses("shop/raw", &[address]).fork(KEY, &Scene::endpoints(&scene.fork_pod));
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    for pair in &mut pairs {
        for text in [&b"\x01\x02\x03 bytes"[..], b"GET / HTTP/1.1\r\nsidetrack-key: pr-1\r\n\r\n", &[7; 9000]] {
            say(pair, text)?;
        }
    }
    ensure!(agent.counter("opaque_not_http")? == 2, "{}", agent.explain());
    agent.no_errors()
}

#[test]
fn what_is_known_of_older_connections_goes_with_them() -> Result<()> {
    let Some(scene) = Scene::open("older-end", BBR)? else { return Ok(()) };
    let mut pool: Vec<Http> = (0..4).map(|_| scene.http()).collect::<Result<_, _>>()?;
    for http in &mut pool[..2] {
        http.exchange(&Request::get("/"))?;
    }
    let agent = scene.agent()?;
    let known = || Some(agent.flows().ok()?["items"].as_array()?.len());
    ensure!(known() == Some(4), "{:?}", agent.flows());
    served(&mut pool[3], &agent, Some(KEY))?;
    for (n, http) in pool.into_iter().enumerate() {
        if n % 2 == 0 { http.abort()? } else { drop(http) }
    }
    wait_for("the records to go", PATIENCE, || (known() == Some(0)).then_some(()))?;
    agent.no_errors()
}

/// Acknowledgements of keep-alive probes are younger than any answer.
#[test]
fn a_pool_that_probes_is_steered_like_any_other() -> Result<()> {
    let Some(scene) = Scene::open("older-probes", BBR)? else { return Ok(()) };
    let probes = socket2::TcpKeepalive::new().with_time(Duration::from_secs(1)).with_interval(Duration::from_secs(1));
    let mut all = Vec::new();
    for _ in 0..10 {
        let mut http = scene.http()?;
        socket2::SockRef::from(http.stream()).set_tcp_keepalive(&probes)?;
        // Within one tick of the clock that a socket's times are told in.
        http.exchange(&Request::get("/status/204"))?;
        all.push(http);
    }
    let acknowledged = || {
        let counters = scene.client.kernel_counters().ok()?;
        (counters.get("TcpExt:TCPKeepAlive").copied().unwrap_or_default() >= 10).then_some(())
    };
    wait_for("each of them to be probed", PATIENCE, acknowledged)?;
    let agent = scene.agent()?;
    let followed = || (agent.flows().ok()?["items"].as_array()?.len() == all.len()).then_some(());
    wait_for("each of them to be followed", PATIENCE, followed)?;
    // Where the order of request and answer is not to be told, a second of silence tells that nothing is under way.
    std::thread::sleep(Duration::from_millis(1600));
    for http in &mut all {
        served(http, &agent, Some(KEY))?;
    }
    ensure!(agent.counter("adopted")? == 10 && agent.counter("opaque_older")? == 0, "{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}

/// Neither program sees the SYN, nor the agent a connection: its answer waits in the server's pod, where nobody is asked for the next hop.
#[rstest]
fn a_connection_whose_syn_is_under_way_is_steered_from_its_first_request_on(
    #[values(false, true)] agent_first: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("older-syn", BBR)? else { return Ok(()) };
    // Between the second SYN that is sent again and the third lie four seconds.
    _ = scene.client.sysctl("net/ipv4/tcp_syn_linear_timeouts", "0");
    let early = agent_first.then(|| Agent::start(&scene.lab, &Routes::new())).transpose()?;
    if let Some(early) = &early {
        early.wait_attached(["client"])?;
    }
    let hears = |ignores: &str| -> Result<()> {
        let mut command = std::process::Command::new("sysctl");
        command.args(["-w", &format!("net.ipv4.conf.{}.arp_ignore={ignores}", scene.base_pod.host_interface())]);
        scene.lab.run_on_node(command).map(drop)
    };
    scene.base_pod.sysctl("net/ipv4/neigh/eth0/retrans_time_ms", "50")?;
    scene.base_pod.sysctl("net/ipv4/neigh/eth0/mcast_solicit", "1000")?;
    scene.http()?.exchange(&Request::get("/"))?;
    hears("8")?;
    scene.base_pod.ip("neighbour flush dev eth0")?;
    scene.base.journal().clear();
    let before = scene.client.kernel_counters()?.get("TcpExt:TCPSynRetrans").copied().unwrap_or_default();
    let dial = || -> Result<TcpStream> {
        let socket = scene.client.enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&scene.service.v4.into()) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
                connected => connected?,
            }
            socket.set_nonblocking(false)?;
            std::io::Result::Ok(socket)
        })??;
        Ok(socket.into())
    };
    let (one, given_up) = (dial()?, dial()?);
    let waits = || (scene.client.kernel_counters().ok()?.get("TcpExt:TCPSynRetrans")? - before >= 4).then_some(());
    wait_for("the SYNs to be sent again", PATIENCE, waits)?;
    let agent = if let Some(early) = early {
        early.set_routes(&scene.routes())?;
        early
    } else {
        scene.agent()?
    };
    let follows = |count: usize| (agent.flows().ok()?["items"].as_array()?.len() == count).then_some(());
    wait_for("both to be followed", PATIENCE, || follows(2)).with_context(|| agent.explain())?;
    ensure!(agent.counter("tracked")? == 0, "their SYNs were seen: {}", agent.explain());
    drop(given_up);
    hears("0")?;
    let mut http = Http::over(one)?;
    for key in [Some(KEY), None, Some(OTHER_KEY), Some(KEY), None] {
        served(&mut http, &agent, key)?;
    }
    ensure!(agent.counter("adopted")? == 1 && agent.counter("opaque_older")? == 0, "{}", agent.explain());
    wait_for("the one that was given up to be forgotten", PATIENCE, || follows(1)).with_context(|| agent.explain())?;
    scene.isolated()?;
    agent.no_errors()
}
