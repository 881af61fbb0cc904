//! Pods whose own rules ask for connection tracking.

use anyhow::{Context, Result, ensure};
use sidetrack_tests::{Request, Scene, lab::RENO, scene::KEY, wait_for};
use std::time::Duration;

/// How long what has ended may take to be forgotten: TIME-WAIT's 60 s, and a sweep or two of a machine under load.
const FORGOTTEN: Duration = Duration::from_secs(80);

/// Half of them own at the end, the others are parked.
#[test]
fn legs_that_have_ended_are_not_tracked_by_their_pod() -> Result<()> {
    const LEGS: usize = 100;
    let Some(scene) = Scene::open("tracking", RENO)? else { return Ok(()) };
    scene.client.track()?;
    let agent = scene.agent()?;
    let mut open = Vec::new();
    for number in 0..LEGS {
        let mut http = scene.client.http(if number % 4 < 2 { scene.service.v4 } else { scene.service.v6 })?;
        let keys = [None, Some(KEY), None];
        for key in &keys[..if number % 2 == 0 { 2 } else { 3 }] {
            let request = Request::get("/bytes/20000").maybe_key(*key);
            let response = http.exchange(&request).with_context(|| agent.explain())?;
            response.verify_bytes(Scene::owner(*key), 20_000)?;
        }
        open.push(http);
    }
    let tracked = || scene.client.tracked(&Scene::endpoints(&scene.fork_pod));
    let seen = tracked()?;
    ensure!(seen.len() == LEGS, "{seen:#?}");
    drop(open);
    let forgotten = || tracked().is_ok_and(|tracked| tracked.is_empty()).then_some(());
    wait_for("the legs to be forgotten", FORGOTTEN, forgotten).with_context(|| format!("{:#?}", tracked()))?;
    ensure!(scene.fork.clients().is_empty(), "{:?}", scene.fork.clients());
    scene.isolated()?;
    agent.no_errors()
}
