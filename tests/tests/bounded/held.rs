//! Bytes that the agent holds, of all connections together. What one connection may have held the programs bound.

use std::time::Duration;

use anyhow::{Context, Result};
use sidetrack_tests::{
    Agent, Http, Request, Scene,
    digest::body,
    lab::BBR,
    scene::{KEY, PORT},
    wait_for,
};

/// As many as send some 14 KB each before their first acknowledgement, more than may be held.
const CLIENTS: usize = 220;
const BODY: usize = 20_000;
const CONFIG: &str = "apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\n\
                      spec: {limits: {heldBytes: 2097152}, dialTimeout: 30s}\n";

#[test]
fn beyond_the_bytes_that_may_be_held_frames_come_again_and_none_is_lost() -> Result<()> {
    let Some(scene) = Scene::open("held-bytes", BBR)? else { return Ok(()) };
    let config = scene.lab.dir().join("config.yaml");
    std::fs::write(&config, CONFIG)?;
    let config = config.to_str().context("a path in UTF-8")?;
    let agent = Agent::start_with(&scene.lab, &scene.routes(), &["--config", config])?;
    agent.wait_attached(["client", "base", "fork"])?;
    // Dials hang, so that what they wait with adds up.
    scene.fork_pod.black_hole(PORT)?;
    let upload = body("upload", BODY);
    let request = Request::post("/echo", upload.clone()).key(KEY);
    let send = |_| -> Result<Http> {
        let mut http = scene.http()?;
        http.patience(Duration::from_mins(1))?;
        http.send(&request.wire())?;
        Ok(http)
    };
    let clients = (0..CLIENTS).map(send).collect::<Result<Vec<_>>>()?;
    let full = || (agent.counter("held_full").ok()? > 0).then_some(());
    wait_for("the agent to hold as much as it may", Duration::from_secs(20), full).with_context(|| agent.explain())?;
    scene.http()?.exchange(&Request::get("/bytes/5000"))?.verify_bytes("base", 5000)?;
    scene.fork_pod.unfilter()?;
    for mut http in clients {
        http.response(&request).with_context(|| agent.explain())?.verify_echo("fork", &upload)?;
    }
    scene.isolated()?;
    agent.no_errors()
}
