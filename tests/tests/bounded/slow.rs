//! An agent that does nothing for seconds, as on a node without any time for it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sidetrack_tests::{
    Agent, Http, HttpError, Load, Request, Scene,
    digest::body,
    lab::BBR,
    scene::{KEY, OTHER_KEY},
    wait_for,
};

/// How long it does nothing.
const STOPPED: Duration = Duration::from_secs(4);
/// Within which a thawed agent's heart is heard: five beats.
const HEARD: Duration = Duration::from_secs(1);
/// More than fill the smallest ring with heads of some 14 KB.
const CLIENTS: usize = 100;

/// Answered by its own server, or refused; nothing else, and nobody waits for ever.
fn served_or_refused(http: &mut Http, request: &Request, server: &str) -> Result<bool> {
    match http.response(request) {
        Ok(response) if response.served_by() == server => Ok(true),
        Ok(response) => bail!("served by {}, not by {server}", response.served_by()),
        Err(HttpError::Reset) => Ok(false),
        Err(error) => bail!("neither served nor refused: {error}"),
    }
}

/// A thawed agent serves again as soon as its heart has been heard once (it beats five times a second); until then a
/// keyed request that needs it is refused, as by the rule of a dead agent.
fn served_again(scene: &Scene, request: &Request, server: &str) -> Result<()> {
    let answered = || -> Result<bool> {
        let mut http = scene.http()?;
        http.send(&request.wire())?;
        served_or_refused(&mut http, request, server)
    };
    let within = Instant::now() + HEARD;
    while !answered()? {
        ensure!(Instant::now() < within, "refused {HEARD:?} after the agent went on");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn while_the_agent_is_stopped_unkeyed_and_spliced_requests_go_on_and_keyed_ones_are_served_or_refused() -> Result<()> {
    let Some(scene) = Scene::open("slow", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let unkeyed = Load::new(scene.service.v4).also_to(scene.service.v6).connections(2).requests_per_connection(5);
    let unkeyed = unkeyed.key(None, &["base"]).start(&scene.client)?;
    let spliced = Load::new(scene.service.v4).connections(2).key(Some(KEY), &["fork"]).start(&scene.client)?;
    spliced.more(50)?;
    agent.freeze()?;
    let stopped = Instant::now();
    let request = Request::post("/echo", body("slow", 3000)).key(OTHER_KEY);
    let send = |_| -> Result<Http> {
        let mut http = scene.http()?;
        http.send(&request.wire())?;
        Ok(http)
    };
    let mut waiting = (0..10).map(send).collect::<Result<Vec<_>>>()?;
    while stopped.elapsed() < STOPPED {
        unkeyed.more(20)?;
        spliced.more(20)?;
    }
    ensure!(agent.counter("hold_dial")? >= 10, "they are held: {}", agent.explain());
    agent.thaw()?;
    for http in &mut waiting {
        served_or_refused(http, &request, "other").with_context(|| agent.explain())?;
    }
    // And all is as before.
    served_again(&scene, &request, "other").with_context(|| agent.explain())?;
    unkeyed.stop()?.all_well().with_context(|| agent.explain())?;
    spliced.stop()?.all_well().with_context(|| agent.explain())?;
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn a_full_ring_is_counted_and_no_request_is_lost_in_it() -> Result<()> {
    let Some(scene) = Scene::open("full-ring", BBR)? else { return Ok(()) };
    let config = scene.lab.dir().join("config.yaml");
    let text = "apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\nspec: {limits: {ringBufferBytes: 262144}}\n";
    std::fs::write(&config, text)?;
    let config = config.to_str().context("a path in UTF-8")?;
    let agent = Agent::start_with(&scene.lab, &scene.routes(), &["--config", config])?;
    agent.wait_attached(["client", "base", "fork"])?;
    agent.freeze()?;
    let upload = body("ring", 20_000);
    let request = Request::post("/echo", upload.clone()).key(KEY);
    let send = |_| -> Result<Http> {
        let mut http = scene.http()?;
        http.patience(Duration::from_mins(1))?;
        http.send(&request.wire())?;
        Ok(http)
    };
    let mut clients = (0..CLIENTS).map(send).collect::<Result<Vec<_>>>()?;
    let full = || (agent.counter("ring_full").ok()? > 0).then_some(());
    wait_for("the ring to be full", Duration::from_secs(20), full).with_context(|| agent.explain())?;
    scene.http()?.exchange(&Request::get("/bytes/5000"))?.verify_bytes("base", 5000)?;
    agent.thaw()?;
    let mut served = 0;
    for http in &mut clients {
        served += usize::from(served_or_refused(http, &request, "fork").with_context(|| agent.explain())?);
    }
    eprintln!("{served} of {CLIENTS} served");
    served_again(&scene, &request, "fork").with_context(|| agent.explain())?;
    scene.isolated()?;
    agent.no_errors()
}
