//! Pods that speak ECN (RFC 3168) or no SACK (RFC 2018): a leg has what its client and the baseline have agreed on, and no more.

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{Request, Scene, lab::RENO, scene::KEY};

/// Exchanges of all owners over one connection, with bodies both ways.
fn all_are_served(scene: &Scene, v6: bool) -> Result<()> {
    let agent = scene.agent()?;
    let mut http = scene.client.http(if v6 { scene.service.v6 } else { scene.service.v4 })?;
    for key in [None, Some(KEY), Some(KEY), None, Some(KEY)] {
        let request = Request::get("/bytes/100000").maybe_key(key);
        let response = http.exchange(&request).with_context(|| agent.explain())?;
        response.verify_bytes(Scene::owner(key), 100_000)?;
        let upload = vec![b'u'; 100_000];
        let response = http.exchange(&Request::post("/echo", upload.clone()).maybe_key(key))?;
        response.verify_echo(Scene::owner(key), &upload)?;
    }
    ensure!(agent.counter("reset_unreachable")? == 0, "{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}

/// `tcp_ecn`: 0 neither, 1 asks and agrees, 2 agrees alone, which is the default.
#[rstest]
fn a_leg_has_ecn_where_its_client_has(
    #[values(0, 1)] client: u8,
    #[values(0, 2)] baseline: u8,
    #[values(0, 1, 2)] fork: u8,
    #[values(false, true)] v6: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("ecn", RENO)? else { return Ok(()) };
    for (pod, ecn) in [(&scene.client, client), (&scene.base_pod, baseline), (&scene.fork_pod, fork)] {
        pod.sysctl("net/ipv4/tcp_ecn", &ecn.to_string())?;
    }
    all_are_served(&scene, v6)
}

#[rstest]
fn a_leg_has_sack_where_its_client_has(
    #[values("client", "base", "fork")] without: &str,
    #[values(false, true)] v6: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("sack", RENO)? else { return Ok(()) };
    let pods = [&scene.client, &scene.base_pod, &scene.fork_pod];
    let pod = pods.into_iter().find(|pod| pod.name() == without).context("one of the cast")?;
    pod.sysctl("net/ipv4/tcp_sack", "0")?;
    all_are_served(&scene, v6)
}
