//! An agent with another ABI beside the records of this one: what is new is the successor's, what is open goes on as it was.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, Load, Request, Scene,
    digest::Dice,
    gate::{self, Need},
    lab::BBR,
    scene::{KEY, OTHER_KEY, Via},
    wait_for,
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn scene(name: &str) -> Result<Option<Scene>> {
    gate::open(&[Need::Lab, Need::Agent, Need::Successor]).then(|| Scene::new(name, BBR)).transpose()
}

/// Settings with this time for what is drained.
fn drain_timeout(scene: &Scene, timeout: &str) -> Result<String> {
    let path = scene.lab.dir().join("config.yaml");
    let text =
        format!("apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\nspec: {{drainTimeout: {timeout}}}\n");
    std::fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

/// Starts the successor beside `old` and waits until it is at work everywhere.
fn succeed<'lab>(scene: &Scene, old: &Agent<'lab>, timeout: &str) -> Result<Agent<'lab>> {
    let config = drain_timeout(scene, timeout)?;
    let mut new = old.succeeding(&["--config", &config]);
    new.restart()?;
    new.wait_routes(&scene.routes())?;
    new.wait_attached(["client", "base", "fork", "other"])?;
    let takes = || new.status().is_ok_and(|status| status["agent"]["draining"] == false).then_some(());
    wait_for("the successor to take new connections on", PATIENCE, takes)?;
    Ok(new)
}

fn asks(http: &mut Http, keys: &[Option<&str>]) -> Result<()> {
    for &key in keys {
        let response = http.exchange(&Request::get("/bytes/2000").maybe_key(key))?;
        response.verify_bytes(Scene::owner(key), 2000)?;
    }
    Ok(())
}

/// How many connections an agent's records follow; `None` where there are none.
fn follows(agent: &Agent) -> Option<usize> {
    Some(agent.flows().ok()?["items"].as_array()?.len())
}

const ALL: [Option<&str>; 5] = [None, Some(KEY), None, Some(OTHER_KEY), Some(KEY)];

#[rstest]
fn what_is_open_goes_on_with_its_agent_and_what_is_new_is_the_successors(
    #[values(false, true)] without_tcx: bool,
) -> Result<()> {
    let Some(scene) = scene("upgrade")? else { return Ok(()) };
    let mut old = if without_tcx {
        Agent::start_without_tcx(&scene.lab, &scene.routes())?
    } else {
        Agent::start(&scene.lab, &scene.routes())?
    };
    old.wait_attached(["client", "base", "fork", "other"])?;
    let (mut spliced, mut plain) = (scene.http()?, scene.http()?);
    asks(&mut spliced, &[Some(KEY), None])?;
    asks(&mut plain, &[None])?;
    let new = succeed(&scene, &old, "10m")?;
    let tracked = old.counter("tracked")?;
    // The old ones are served by their agent, new legs too; nothing is reset.
    asks(&mut spliced, &ALL)?;
    asks(&mut plain, &ALL)?;
    let mut fresh = scene.http()?;
    asks(&mut fresh, &ALL)?;
    ensure!(old.counter("tracked")? == tracked && follows(&old) == Some(2), "{}", old.explain());
    ensure!(new.counter("tracked")? == 1 && new.counter("adopted")? == 0, "{}", new.explain());
    ensure!(old.status()?["agent"]["draining"] == true && new.status()?["agent"]["draining"] == false);
    // Being told to end does not end what is open.
    old.signal_term()?;
    asks(&mut plain, &[Some(OTHER_KEY), None])?;
    drop((spliced, plain));
    old.wait_end(PATIENCE + Duration::from_mins(1)).context("the last connection has ended")?;
    ensure!(follows(&old).is_none(), "its records are gone");
    asks(&mut fresh, &ALL)?;
    asks(&mut scene.http()?, &ALL)?;
    scene.isolated()?;
    new.no_errors()
}

#[test]
fn nothing_is_reset_before_the_deadline_and_what_was_diverted_is_then() -> Result<()> {
    let Some(scene) = scene("upgrade-deadline")? else { return Ok(()) };
    let mut old = scene.agent()?;
    let (mut spliced, mut plain) = (scene.http()?, scene.http()?);
    asks(&mut spliced, &[Some(KEY), None])?;
    asks(&mut plain, &[None])?;
    let began = Instant::now();
    let new = succeed(&scene, &old, "6s")?;
    while began.elapsed() < Duration::from_secs(4) {
        asks(&mut spliced, &ALL)?;
    }
    old.wait_end(PATIENCE).context("the deadline has passed")?;
    ensure!(began.elapsed() >= Duration::from_secs(6));
    ensure!(spliced.exchange(&Request::get("/")).is_err(), "a connection that was diverted is reset");
    // What was not is the successor's, and its next request is steered.
    asks(&mut plain, &ALL)?;
    ensure!(new.counter("adopted")? == 1, "{}", new.explain());
    scene.isolated()?;
    new.no_errors()
}

#[test]
fn a_dead_agents_records_are_drained_too() -> Result<()> {
    let Some(scene) = scene("upgrade-dead")? else { return Ok(()) };
    let mut old = scene.agent()?;
    let mut spliced = scene.http()?;
    asks(&mut spliced, &ALL)?;
    old.kill9()?;
    let new = succeed(&scene, &old, "10m")?;
    // Its legs are there.
    asks(&mut spliced, &ALL)?;
    asks(&mut scene.http()?, &ALL)?;
    drop(spliced);
    wait_for("the records to go", Duration::from_secs(90), || follows(&old).is_none().then_some(()))?;
    asks(&mut scene.http()?, &ALL)?;
    scene.isolated()?;
    new.no_errors()
}

/// The ordinary rollout: the old agent has ended before the new one begins.
#[rstest]
fn idle_connections_of_an_agent_that_has_ended_are_the_successors(
    #[values(false, true)] without_tcx: bool,
) -> Result<()> {
    let Some(scene) = scene("upgrade-inherit")? else { return Ok(()) };
    let mut old = if without_tcx {
        Agent::start_without_tcx(&scene.lab, &scene.routes())?
    } else {
        Agent::start(&scene.lab, &scene.routes())?
    };
    old.wait_attached(["client", "base", "fork", "other"])?;
    let mut pool = Vec::new();
    for uses in [0, 1, 20] {
        for to in [scene.service.v4, scene.service.v6, scene.address(Via::Endpoint4)] {
            let mut http = scene.client.http(to)?;
            asks(&mut http, &vec![None; uses])?;
            pool.push(http);
        }
    }
    let (mut spliced, mut busy) = (scene.http()?, scene.http()?);
    asks(&mut spliced, &[Some(KEY), None])?;
    let drip = Request::get("/drip/60/50");
    busy.send(&drip.wire())?;
    let head = busy.head()?;
    old.term()?;
    let new = succeed(&scene, &old, "10m")?;
    wait_for("the idle ones to be taken over", PATIENCE, || (follows(&old)? <= 2).then_some(()))
        .with_context(|| new.explain())?;
    for http in &mut pool {
        asks(http, &[Some(OTHER_KEY), None, Some(KEY), None])?;
    }
    ensure!(new.counter("adopted")? == 9 && new.counter("opaque_older")? == 0, "{}", new.explain());
    // Another is taken over when it has become idle; one that was diverted goes on with the legs that it has.
    busy.body(&head, false)?;
    wait_for("the busy one to be taken over", PATIENCE, || (follows(&old)? == 1).then_some(()))
        .with_context(|| new.explain())?;
    asks(&mut busy, &[Some(KEY), None])?;
    asks(&mut spliced, &[Some(KEY), None])?;
    ensure!(old.counter("reset_agent_dead")? == 0, "{}", old.explain());
    drop(spliced);
    wait_for("the records to go", Duration::from_secs(90), || follows(&old).is_none().then_some(()))?;
    for http in pool.iter_mut().chain([&mut busy]) {
        asks(http, &ALL)?;
    }
    scene.isolated()?;
    new.no_errors()
}

/// Whatever moment it is taken over at.
#[test]
fn a_pool_that_is_used_now_and_then_does_not_notice_that_it_is_taken_over() -> Result<()> {
    let Some(scene) = scene("upgrade-now-and-then")? else { return Ok(()) };
    let mut old = scene.agent()?;
    let mut pool = (0..40).map(|_| scene.http()).collect::<Result<Vec<_>, _>>()?;
    for http in &mut pool {
        asks(http, &[None])?;
    }
    old.term()?;
    let over = AtomicBool::new(false);
    let new = std::thread::scope(|threads| {
        let users: Vec<_> = pool
            .chunks_mut(5)
            .enumerate()
            .map(|(n, pool)| {
                let over = &over;
                threads.spawn(move || {
                    let mut dice = Dice::new(n as u64);
                    while !over.load(Ordering::Relaxed) {
                        for http in &mut *pool {
                            asks(http, &[None])?;
                            std::thread::sleep(Duration::from_millis(40 + dice.below(60) as u64));
                        }
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        let new = succeed(&scene, &old, "10m");
        let taken = new.as_ref().map_err(|error| format!("{error:#}")).and_then(|_| {
            let gone = || follows(&old).is_none_or(|n| n == 0).then_some(());
            wait_for("all of them to be taken over", PATIENCE, gone).map_err(|error| format!("{error:#}"))
        });
        over.store(true, Ordering::Relaxed);
        for user in users {
            user.join().expect("no panic").context("a request without a key")?;
        }
        taken.map_err(anyhow::Error::msg)?;
        new
    })?;
    for http in &mut pool {
        asks(http, &[Some(KEY), None, Some(OTHER_KEY)]).with_context(|| new.explain())?;
    }
    scene.isolated()?;
    new.no_errors()
}

#[test]
fn a_load_does_not_notice_the_upgrade() -> Result<()> {
    let Some(scene) = scene("upgrade-load")? else { return Ok(()) };
    let mut old = scene.agent()?;
    let keys = [None, Some(KEY), Some(OTHER_KEY)];
    let all = |load: Load| keys.into_iter().fold(load, |load, key| load.key(key, &[Scene::owner(key)]));
    let reused = all(Load::new(scene.service.v4).also_to(scene.service.v6)).connections(6).start(&scene.client)?;
    let fresh = all(Load::new(scene.service.v4)).connections(2).requests_per_connection(5).start(&scene.client)?;
    reused.more(200)?;
    let new = succeed(&scene, &old, "10m")?;
    reused.more(300)?;
    fresh.more(200)?;
    reused.stop()?.all_well()?;
    fresh.stop()?.all_well()?;
    old.wait_end(PATIENCE + Duration::from_mins(1))?;
    scene.isolated()?;
    new.no_errors()
}

/// A rollout that is taken back: the agent of the smaller number starts while that of the greater one still lives.
#[test]
fn what_is_taken_back_gives_way_to_the_agent_before_it() -> Result<()> {
    let Some(scene) = scene("upgrade-back")? else { return Ok(()) };
    let mut old = scene.agent()?;
    let mut new = succeed(&scene, &old, "10m")?;
    old.wait_end(PATIENCE + Duration::from_mins(1))?;
    asks(&mut scene.http()?, &ALL).with_context(|| new.explain())?;
    old.restart()?;
    old.wait_attached(["client", "base", "fork", "other"])?;
    let drains = |agent: &Agent| agent.status().ok()?["agent"]["draining"].as_bool();
    wait_for("it to leave new connections to the greater", PATIENCE, || (drains(&old)?).then_some(()))?;
    asks(&mut scene.http()?, &ALL).with_context(|| new.explain())?;
    ensure!(new.term()?.success(), "{}", new.explain());
    wait_for("it to take new connections on", PATIENCE, || (!drains(&old)?).then_some(()))?;
    asks(&mut scene.http()?, &ALL).with_context(|| old.explain())?;
    scene.isolated()?;
    old.no_errors()
}

#[test]
fn a_successor_that_starts_again_leaves_no_connection_unsteered() -> Result<()> {
    let Some(scene) = scene("upgrade-again")? else { return Ok(()) };
    let old = scene.agent()?;
    let mut open = scene.http()?;
    asks(&mut open, &ALL)?;
    let mut new = succeed(&scene, &old, "10m")?;
    let fresh = Load::new(scene.service.v4).connections(2).requests_per_connection(1).key(Some(KEY), &["fork"]);
    let fresh = fresh.start(&scene.client)?;
    for _ in 0..3 {
        fresh.more(50)?;
        new.kill9()?;
        new.restart()?;
        fresh.more(50)?;
    }
    fresh.stop()?.all_well().with_context(|| new.explain())?;
    asks(&mut open, &ALL)?;
    ensure!(new.counter("draining")? == 0, "{}", new.explain());
    scene.isolated()?;
    new.no_errors()
}

#[test]
fn of_two_that_start_at_one_moment_one_takes_new_connections_on() -> Result<()> {
    let Some(scene) = scene("upgrade-both")? else { return Ok(()) };
    let mut old = scene.agent()?;
    let mut open = scene.http()?;
    asks(&mut open, &ALL)?;
    let mut new = succeed(&scene, &old, "10m")?;
    for _ in 0..5 {
        old.kill9()?;
        new.kill9()?;
        old.launch()?;
        new.launch()?;
        old.wait_alive()?;
        new.wait_alive()?;
        let one = || {
            let drains = |agent: &Agent| agent.status().ok()?["agent"]["draining"].as_bool();
            (drains(&old)? != drains(&new)?).then_some(())
        };
        wait_for("one of them to take new connections on", PATIENCE, one)?;
        asks(&mut scene.http()?, &ALL).with_context(|| new.explain())?;
    }
    scene.isolated()?;
    new.no_errors()
}
