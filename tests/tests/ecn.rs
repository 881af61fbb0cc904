//! Pods that speak ECN (RFC 3168): a leg has what its client has agreed on.

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{Request, Scene, lab::RENO, scene::KEY};

/// `tcp_ecn`: 1 asks and agrees, 2 agrees alone, which is the default.
#[rstest]
fn a_client_that_asks_for_ecn_is_steered(#[values(1, 2)] fork: u8, #[values(false, true)] v6: bool) -> Result<()> {
    let Some(scene) = Scene::open("ecn", RENO)? else { return Ok(()) };
    scene.client.sysctl("net/ipv4/tcp_ecn", "1")?;
    scene.fork_pod.sysctl("net/ipv4/tcp_ecn", &fork.to_string())?;
    let agent = scene.agent()?;
    let mut http = scene.client.http(if v6 { scene.service.v6 } else { scene.service.v4 })?;
    for key in [None, Some(KEY), Some(KEY), None, Some(KEY)] {
        let request = Request::get("/bytes/100000").maybe_key(key);
        let response = http.exchange(&request).with_context(|| agent.explain())?;
        response.verify_bytes(Scene::owner(key), 100_000)?;
    }
    ensure!(agent.counter("reset_unreachable")? == 0, "{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}
