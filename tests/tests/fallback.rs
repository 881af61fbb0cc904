//! `onUnreachable: Baseline`: where no leg can be had the baseline answers, and only there.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, Origin, Request, Scene,
    lab::{BBR, RENO},
    scene::{KEY, OTHER_KEY, PORT, Via},
    wait_for,
};
use std::{
    io::{ErrorKind, Read as _},
    net::SocketAddr,
    time::Duration,
};

/// `KEY` leads to these and falls back; the scene's other routes stay.
fn start<'lab>(scene: &'lab Scene, endpoints: &[SocketAddr]) -> Result<Agent<'lab>> {
    let agent = Agent::start(&scene.lab, &scene.routes().fork_or_baseline(KEY, endpoints))?;
    agent.wait_attached(["client"])?;
    Ok(agent)
}

fn served(http: &mut Http, agent: &Agent, key: Option<&str>, by: &str) -> Result<()> {
    let body = format!("{key:?}").into_bytes();
    let response = http.exchange(&Request::post("/echo", body.clone()).maybe_key(key));
    response.with_context(|| agent.explain())?.verify_echo(by, &body)
}

#[rstest]
fn a_fork_that_refuses_is_replaced_by_the_baseline_whoever_served_before(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::Endpoint6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("instead", congestion)? else { return Ok(()) };
    let agent = start(&scene, &[scene.fork_pod.v4_port(9), scene.fork_pod.v6_port(9)])?;
    let histories: [&[Option<&str>]; 3] = [&[], &[None], &[None, Some(OTHER_KEY)]];
    for history in histories {
        let mut http = scene.client.http(scene.address(via))?;
        for &key in history {
            served(&mut http, &agent, key, Scene::owner(key))?;
        }
        for key in [Some(KEY), None, Some(OTHER_KEY), Some(KEY), Some(KEY)] {
            let by = if key == Some(KEY) { "base" } else { Scene::owner(key) };
            served(&mut http, &agent, key, by).with_context(|| format!("after {history:?}"))?;
        }
    }
    ensure!(agent.counter("baseline_instead")? == 9, "{}", agent.explain());
    ensure!(scene.fork.journal().count() == 0);
    agent.no_errors()
}

#[test]
fn a_fork_that_is_back_serves_again_and_a_route_that_says_fail_never_falls_back() -> Result<()> {
    let Some(mut scene) = Scene::open("instead-back", BBR)? else { return Ok(()) };
    let endpoints = Scene::endpoints(&scene.fork_pod);
    scene.fork.stop();
    let agent = Agent::start(&scene.lab, &scene.routes().fork_or_baseline(KEY, &endpoints))?;
    agent.wait_attached(["client"])?;
    let mut http = scene.client.http(scene.service.v4)?;
    served(&mut http, &agent, Some(KEY), "base")?;
    scene.fork = Origin::start(&scene.fork_pod, "fork", PORT)?;
    served(&mut http, &agent, Some(KEY), "fork")?;
    served(&mut http, &agent, None, "base")?;
    agent.set_routes(&scene.routes().fork(KEY, &[scene.fork_pod.v4_port(9)]))?;
    let outcome = http.exchange(&Request::get("/").key(KEY));
    ensure!(outcome.is_err(), "{outcome:?}: the route says no more that the baseline may serve it");
    agent.no_errors()
}

/// A head that nobody has answered for is in the ring buffer when a new agent comes. Meanwhile it has gone on, and another one's
/// beginning stands where its own did.
#[test]
fn a_new_agent_says_nothing_of_a_later_head_to_the_fork_of_an_earlier_one() -> Result<()> {
    let Some(scene) = Scene::open("instead-late", BBR)? else { return Ok(()) };
    let fork = scene.fork_pod.listen(8090)?;
    fork.set_nonblocking(true)?;
    let mut agent = start(&scene, &[scene.fork_pod.v4_port(8090), scene.fork_pod.v6_port(8090)])?;
    let mut http = scene.http()?;
    served(&mut http, &agent, None, "base")?;
    agent.kill9()?;
    let mut in_two_parts = |request: &Request, between: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let wire = request.wire();
        let end = wire.windows(4).position(|four| four == b"\r\n\r\n").context("a head")?;
        http.send(&wire[..end])?;
        http.settle()?;
        between()?;
        http.send(&wire[end..])?;
        ensure!(http.response(request)?.served_by() == "base");
        Ok(())
    };
    in_two_parts(&Request::get("/bytes/10").key(KEY), &mut || Ok(()))?;
    let later = Request::post("/echo", b"later".to_vec()).header("x-padding", &"p".repeat(200));
    in_two_parts(&later, &mut || {
        agent.restart()?;
        ensure!(scene.http()?.exchange(&Request::get("/bytes/10").key(OTHER_KEY))?.served_by() == "other");
        Ok(())
    })?;
    ensure!(agent.counter("baseline_instead")? == 1, "{}", agent.explain());
    match fork.accept() {
        Ok((mut stream, _)) => {
            stream.set_nonblocking(false)?;
            let mut got = Vec::new();
            _ = stream.read_to_end(&mut got);
            ensure!(got.is_empty(), "the fork has got {:?}", String::from_utf8_lossy(&got));
        }
        Err(error) => ensure!(error.kind() == ErrorKind::WouldBlock, "{error}"),
    }
    agent.no_errors()
}

#[test]
fn the_baseline_serves_although_its_leg_has_idled_out() -> Result<()> {
    let Some(scene) = Scene::open("instead-idle", BBR)? else { return Ok(()) };
    let config = scene.lab.dir().join("config.yaml");
    std::fs::write(&config, "apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\nspec: {parkedIdle: 1s}\n")?;
    let routes = scene.routes().fork_or_baseline(KEY, &Scene::endpoints(&scene.fork_pod));
    let agent = Agent::start_with(&scene.lab, &routes, &["--config", &config.to_string_lossy()])?;
    agent.wait_attached(["client"])?;
    let mut http = scene.client.http(scene.service.v4)?;
    served(&mut http, &agent, Some(KEY), "fork")?;
    let alone = || {
        let flows = agent.flows().ok()?;
        let legs = flows["items"][0]["leg_items"].as_array()?;
        (legs.len() == 1 && legs[0]["kind"] == "fork").then_some(())
    };
    wait_for("the baseline's leg to idle out", Duration::from_secs(10), alone)?;
    agent.set_routes(&scene.routes().fork_or_baseline(KEY, &[scene.fork_pod.v4_port(9)]))?;
    served(&mut http, &agent, Some(KEY), "base")?;
    served(&mut http, &agent, None, "base")?;
    ensure!(agent.counter("baseline_instead")? == 1, "{}", agent.explain());
    agent.no_errors()
}
