//! Forks that refuse, swallow, die, and servers that close: never the wrong side, never a hang.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, HttpError, Origin, Request, Scene, TcpFigures,
    lab::{BBR, RENO},
    scene::{KEY, OTHER_KEY, PORT, Via},
    wait_for,
};
use std::{
    io::Read as _,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

/// A client whose fork cannot be reached learns it within this time.
const SOON: Duration = Duration::from_secs(2);
/// A leg that dies without a word is given up within this time of the first retransmission that gets no answer.
const DEAD_LEG: Duration = Duration::from_secs(2);

/// The client gets a reset soon, and no server was given anything.
fn refused(scene: &Scene, agent: &Agent, http: &mut Http, key: &str) -> Result<()> {
    let before: Vec<_> = [&scene.base, &scene.fork, &scene.other].map(|origin| origin.journal().count()).into();
    let began = Instant::now();
    let outcome = http.exchange(&Request::post("/echo", b"secret".to_vec()).key(key));
    ensure!(matches!(outcome, Err(HttpError::Reset)), "{outcome:?}\n{}", agent.explain());
    ensure!(began.elapsed() < SOON, "the reset took {:?}", began.elapsed());
    let after: Vec<_> = [&scene.base, &scene.fork, &scene.other].map(|origin| origin.journal().count()).into();
    ensure!(before == after, "somebody was given the request");
    for fragment in scene.base.journal().fragments() {
        ensure!(!String::from_utf8_lossy(&fragment.bytes).contains("\r\n\r\n"), "{fragment:?}");
    }
    scene.isolated()
}

/// On a fresh connection, on one that the baseline has served, and on one that another fork has served.
fn everywhere(scene: &Scene, agent: &Agent, to: SocketAddr, key: &str) -> Result<()> {
    let histories: [&[Option<&str>]; 4] = [&[], &[None], &[Some(OTHER_KEY)], &[None, Some(OTHER_KEY), None]];
    for history in histories {
        let mut http = scene.client.http(to)?;
        for &key in history {
            ensure!(http.exchange(&Request::get("/").maybe_key(key))?.served_by() == Scene::owner(key));
        }
        refused(scene, agent, &mut http, key).with_context(|| format!("{to} after {history:?}"))?;
    }
    // Nobody else notices.
    let mut http = scene.client.http(to)?;
    for key in [None, Some(OTHER_KEY), None] {
        ensure!(http.exchange(&Request::get("/").maybe_key(key))?.served_by() == Scene::owner(key));
    }
    Ok(())
}

#[rstest]
fn a_fork_that_refuses_is_a_reset_for_its_clients_only(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::ClusterIp6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("refused", congestion)? else { return Ok(()) };
    let closed = [scene.fork_pod.v4_port(9), scene.fork_pod.v6_port(9)];
    let agent = Agent::start(&scene.lab, &scene.routes().fork(KEY, &closed))?;
    agent.wait_attached(["client"])?;
    everywhere(&scene, &agent, scene.address(via), KEY)?;
    agent.no_errors()
}

#[rstest]
fn a_fork_that_swallows_is_a_reset_within_two_seconds(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::ClusterIp6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("black-hole", congestion)? else { return Ok(()) };
    scene.fork_pod.black_hole(PORT)?;
    let agent = scene.agent()?;
    everywhere(&scene, &agent, scene.address(via), KEY)?;
    scene.fork_pod.unfilter()?;
    ensure!(scene.client.http(scene.address(via))?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    agent.no_errors()
}

#[test]
fn a_fork_without_an_endpoint_of_the_family_is_unreachable_in_that_family() -> Result<()> {
    let Some(scene) = Scene::open("family", BBR)? else { return Ok(()) };
    let routes = scene.routes().fork(KEY, &[scene.fork_pod.v4_port(PORT)]);
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    ensure!(scene.client.http(scene.service.v4)?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    for via in [Via::ClusterIp6, Via::Endpoint6] {
        everywhere(&scene, &agent, scene.address(via), KEY)?;
    }
    Ok(())
}

#[test]
fn a_fork_that_is_back_is_found_by_the_next_request() -> Result<()> {
    let Some(mut scene) = Scene::open("back", BBR)? else { return Ok(()) };
    let routes = scene.routes();
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    let mut http = scene.http()?;
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    ensure!(http.exchange(&Request::get("/"))?.served_by() == "base");
    scene.fork.stop();
    refused(&scene, &agent, &mut scene.http()?, KEY)?;
    scene.fork = Origin::start(&scene.fork_pod, "fork", PORT)?;
    for http in [&mut http, &mut scene.http()?] {
        let response = http.exchange(&Request::get("/").key(KEY)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == "fork");
    }
    Ok(())
}

#[rstest]
fn a_parked_fork_that_closes_is_dialled_again(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("parked-closes", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    for round in 1..6 {
        for key in [Some(KEY), None] {
            let response = http.exchange(&Request::get("/bytes/2000").maybe_key(key));
            let response = response.with_context(|| format!("round {round}, {key:?}\n{}", agent.explain()))?;
            response.verify_bytes(Scene::owner(key), 2000)?;
        }
        ensure!(scene.fork.journal().connections() == round);
        scene.fork.close_connections();
        wait_for("the fork to be closed", SOON, || scene.fork.clients().is_empty().then_some(()))?;
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn a_baseline_that_closes_while_a_fork_serves_is_dialled_again(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("baseline-closes", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    for round in 1..6 {
        for key in [None, Some(KEY)] {
            let response = http.exchange(&Request::get("/bytes/2000").maybe_key(key));
            let response = response.with_context(|| format!("round {round}, {key:?}\n{}", agent.explain()))?;
            response.verify_bytes(Scene::owner(key), 2000)?;
        }
        scene.base.close_connections();
        wait_for("the baseline to be closed", SOON, || scene.base.clients().is_empty().then_some(()))?;
        // The client must not learn of it: the fork serves on.
        for _ in 0..3 {
            let response = http.exchange(&Request::get("/bytes/2000").key(KEY));
            response
                .with_context(|| format!("round {round}, after\n{}", agent.explain()))?
                .verify_bytes("fork", 2000)?;
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn an_owner_that_closes_closes_for_its_client(#[values(None, Some(KEY))] key: Option<&str>) -> Result<()> {
    let Some(scene) = Scene::open("owner-closes", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    http.exchange(&Request::get("/").maybe_key(key))?;
    scene.origin(key).close_connections();
    http.patience(SOON)?;
    http.end().with_context(|| agent.explain())?;
    let mut http = scene.http()?;
    http.exchange(&Request::get("/close").maybe_key(key))?;
    http.end().with_context(|| agent.explain())?;
    let mut http = scene.http()?;
    let reset = http.exchange(&Request::get("/reset").maybe_key(key));
    ensure!(matches!(reset, Err(HttpError::Reset)), "{reset:?}\n{}", agent.explain());
    scene.isolated()
}

#[rstest]
fn a_client_that_closes_closes_every_leg(#[values(false, true)] with_reset: bool) -> Result<()> {
    let Some(scene) = Scene::open("client-closes", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    for owner in [None, Some(KEY), Some(OTHER_KEY)] {
        let mut http = scene.http()?;
        for key in [None, Some(KEY), Some(OTHER_KEY), owner] {
            http.exchange(&Request::get("/").maybe_key(key))?;
        }
        if with_reset {
            http.abort()?;
        } else {
            drop(http);
        }
        let origins = [&scene.base, &scene.fork, &scene.other];
        let closed = || origins.iter().all(|origin| origin.clients().is_empty()).then_some(());
        wait_for("every leg to be closed", Duration::from_secs(5), closed)
            .with_context(|| format!("{:?}\n{}", origins.map(Origin::clients), agent.explain()))?;
    }
    scene.isolated()
}

#[rstest]
fn a_hot_leg_that_dies_without_a_word_is_given_up(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("dead-leg", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut owner = scene.http()?;
    owner.exchange(&Request::get("/").key(KEY))?;
    let mut parked = scene.http()?;
    parked.exchange(&Request::get("/").key(KEY))?;
    parked.exchange(&Request::get("/"))?;
    scene.fork_pod.unplug()?;
    for (http, which) in [(&mut owner, "owner"), (&mut parked, "parked")] {
        let before = TcpFigures::of(http.stream())?.retransmitted;
        let request = Request::get("/").key(KEY);
        http.send(&request.wire())?;
        let stream = http.stream().try_clone()?;
        wait_for("a retransmission", Duration::from_secs(5), || {
            (TcpFigures::of(&stream).ok()?.retransmitted > before).then_some(())
        })?;
        let first = Instant::now();
        let outcome = http.response(&request);
        ensure!(matches!(outcome, Err(HttpError::Reset)), "{which}: {outcome:?}\n{}", agent.explain());
        ensure!(first.elapsed() < DEAD_LEG, "{which}: the reset took {:?}", first.elapsed());
    }
    ensure!(agent.counter("reset_leg_dead")? == 2, "{}", agent.explain());
    ensure!(scene.http()?.exchange(&Request::get("/"))?.served_by() == "base");
    scene.isolated()
}

#[test]
fn a_parked_leg_that_idles_is_closed_and_dialled_again_when_needed() -> Result<()> {
    let Some(scene) = Scene::open("idle", BBR)? else { return Ok(()) };
    let config = scene.lab.dir().join("config.yaml");
    let text = "apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\nspec:\n  parkedIdle: 1s\n";
    std::fs::write(&config, text)?;
    let agent = Agent::start_with(&scene.lab, &scene.routes(), &["--config", &config.to_string_lossy()])?;
    agent.wait_attached(["client"])?;
    let mut http = scene.http()?;
    http.exchange(&Request::get("/").key(KEY))?;
    http.exchange(&Request::get("/"))?;
    let closed = || scene.fork.clients().is_empty().then_some(());
    wait_for("the idle leg to be closed", Duration::from_secs(10), closed).with_context(|| agent.explain())?;
    let response = http.exchange(&Request::get("/").key(KEY)).with_context(|| agent.explain())?;
    ensure!(response.served_by() == "fork" && scene.fork.journal().connections() == 2);
    scene.isolated()
}

/// As a mesh's sidecar does: what the pod sends to the fork is turned round to a port of the pod itself, before it gets to eth0.
#[rstest]
fn a_dial_that_is_redirected_inside_the_pod_is_refused_and_named(
    #[values(Via::ClusterIp4, Via::ClusterIp6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("redirected", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let sidecar = scene.client.listen(15_001)?;
    scene.client.redirect(PORT, 15_001)?;
    let mut http = scene.client.http(scene.address(via))?;
    ensure!(http.exchange(&Request::get("/"))?.served_by() == Scene::owner(None));
    refused(&scene, &agent, &mut http, KEY)?;
    ensure!(agent.counter("reset_redirected")? == 1, "{}", agent.explain());
    // Only the handshake got there: what it is given is its end.
    let (mut caught, _) = sidecar.accept()?;
    caught.set_read_timeout(Some(SOON))?;
    let mut byte = [0];
    ensure!(!matches!(caught.read(&mut byte), Ok(1)), "the sidecar was given bytes");
    // Without the redirect, the same connection's successor is spliced.
    scene.client.unfilter()?;
    let mut http = scene.client.http(scene.address(via))?;
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == Scene::owner(Some(KEY)));
    Ok(())
}

/// A connection that only the baseline has served is given up: the baseline must not wait for what never comes.
#[rstest]
fn the_baseline_of_a_connection_that_is_given_up_is_reset() -> Result<()> {
    let Some(scene) = Scene::open("given-up", BBR)? else { return Ok(()) };
    let closed = [scene.fork_pod.v4_port(9), scene.fork_pod.v6_port(9)];
    let agent = Agent::start(&scene.lab, &scene.routes().fork(KEY, &closed))?;
    agent.wait_attached(["client"])?;
    let mut http = scene.client.http(scene.address(Via::ClusterIp4))?;
    ensure!(http.exchange(&Request::get("/"))?.served_by() == Scene::owner(None));
    let open = || -> Result<usize> {
        let mut command = Command::new("ss");
        command.args(["-Htn", "state", "established", "sport", "=", &format!(":{PORT}")]);
        Ok(scene.base_pod.run(command)?.lines().count())
    };
    ensure!(open()? == 1, "{} connections at the baseline", open()?);
    refused(&scene, &agent, &mut http, KEY)?;
    wait_for("the baseline's connection to end", SOON, || (open().ok()? == 0).then_some(()))
        .with_context(|| agent.explain())
}

#[test]
fn a_pod_without_a_port_for_legs_is_named_once_with_endpoint_cause_and_what_to_do() -> Result<()> {
    let Some(scene) = Scene::open("no-port", BBR)? else { return Ok(()) };
    // Legs have ports outside the pod's own range, from 16384 on, of which each request tries some: servers of the pod have them.
    scene.client.sysctl("net/ipv4/ip_local_port_range", "16464 65500")?;
    let agent = scene.agent()?;
    let outside = (16384..16464).chain(65501..=65535);
    let servers = outside.map(|port| scene.client.listen(port)).collect::<Result<Vec<_>>>()?;
    for _ in 0..5 {
        let refused = scene.http()?.exchange(&Request::get("/").key(KEY));
        ensure!(matches!(refused, Err(HttpError::Reset)), "{refused:?}");
    }
    ensure!(agent.counter("reset_unreachable")? == 5, "{}", agent.explain());
    let lines = agent.output().context("it was started")?.lines();
    let warned: Vec<_> = lines.iter().filter(|line| line.contains("no local port")).collect();
    ensure!(warned.len() == 1, "{warned:#?}");
    for words in
        ["\"WARN\"", "\"pod\":\"client\"", "\"endpoint\":\"10.99.0.12:8080\"", "belong to other sockets", "ss -tan"]
    {
        ensure!(warned[0].contains(words), "no {words} in {}", warned[0]);
    }
    // Another endpoint has ports of its own in the book, but the same sockets of the pod are in their way.
    let refused = scene.http()?.exchange(&Request::get("/").key(OTHER_KEY));
    ensure!(matches!(refused, Err(HttpError::Reset)), "{refused:?}");
    let other =
        || agent.output()?.lines().iter().any(|line| line.contains("\"endpoint\":\"10.99.0.13:8080\"")).then_some(());
    wait_for("the other endpoint to be named", Duration::from_secs(2), other).with_context(|| agent.explain())?;
    drop(servers);
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    scene.isolated()
}
