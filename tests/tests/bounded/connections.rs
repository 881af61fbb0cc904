//! Connections that come and go.

use std::thread;

use anyhow::{Context, Result, ensure};
use sidetrack_tests::{
    Http, Request, Scene,
    lab::BBR,
    scene::{KEY, OTHER_KEY},
};

use crate::level::Level;

const THREADS: usize = 4;
/// Sockets that are made ahead for a pod's next dial: one of either family.
const SPARE: usize = 2;
/// In all.
const CONNECTIONS: usize = 10_000;

/// Opens connections one after another, some keyed, some reset, some closed, and none left open.
fn churn(scene: &Scene, connections: usize) -> Result<()> {
    let one = |n: usize| -> Result<()> {
        let key = [None, Some(KEY), None, Some(OTHER_KEY)][n % 4];
        let to = if (n / 4).is_multiple_of(2) { scene.service.v4 } else { scene.service.v6 };
        let mut http = Http::dial((scene.client.ip_like(to), 0).into(), to)?;
        let response = http.exchange(&Request::get("/bytes/100").maybe_key(key))?;
        ensure!(response.served_by() == Scene::owner(key), "{key:?} was served by {}", response.served_by());
        if n % 8 >= 4 {
            // Back to the baseline, with a leg beside it.
            ensure!(http.exchange(&Request::get("/"))?.served_by() == "base");
        }
        if n.is_multiple_of(3) { Ok(http.abort()?) } else { Ok(()) }
    };
    let part =
        || scene.client.enter(|| (0..connections / THREADS).try_for_each(|n| one(n).with_context(|| n.to_string())))?;
    thread::scope(|scope| {
        let parts: Vec<_> = (0..THREADS).map(|_| scope.spawn(part)).collect();
        parts.into_iter().try_for_each(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() -> Result<()> {
    let Some(scene) = Scene::open("connections", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let empty = Level::now(&scene, &agent)?;
    ensure!(empty.maps["connections"] + empty.maps["legs"] == 0, "{empty:?}");
    churn(&scene, CONNECTIONS / 2).with_context(|| agent.explain())?;
    let full = Level::now(&scene, &agent)?;
    ensure!(full.maps["connections"] > 1_000 && full.maps["legs"] > 1_000, "they were followed: {full:?}");
    // What an allocator has had it may keep. Sockets made ahead for the pod's next dial are there from its first one on.
    let once = Level { memory: u64::MAX / 2, descriptors: empty.descriptors + SPARE, ..empty }.back(&scene, &agent)?;
    churn(&scene, CONNECTIONS / 2).with_context(|| agent.explain())?;
    once.back(&scene, &agent)?;
    let tracked = agent.counter("tracked")?;
    ensure!(tracked >= CONNECTIONS as u64, "{tracked} connections were followed");
    scene.isolated()?;
    agent.no_errors()
}
