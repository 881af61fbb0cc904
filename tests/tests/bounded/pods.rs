//! Pods that come and go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sidetrack_tests::{
    Agent, Pod, Request, Scene,
    lab::BBR,
    scene::{KEY, OTHER_KEY},
    wait_for,
};

use crate::level::Level;

const WAVES: usize = 50;
const IN_A_WAVE: u8 = 20;
const SOON: Duration = Duration::from_mins(1);

/// Waits until all these pods are shown as attached: one look at a time at all of them.
fn attached(agent: &Agent, pods: &[Pod]) -> Result<()> {
    let all = || {
        let status = agent.status().ok()?;
        let items = status["items"].as_array()?;
        let is = |pod: &Pod| items.iter().any(|item| item["name"] == pod.name() && item["outcome"] == "attached");
        pods.iter().all(is).then_some(())
    };
    wait_for("the pods to be attached", SOON, all).with_context(|| agent.explain())
}

/// Makes some pods, steers a request of one to each fork, and deletes them all.
fn wave(scene: &Scene, agent: &Agent, number: usize) -> Result<()> {
    let make = |n: u8| scene.lab.pod(&format!("pod-{number}-{n}"), 30 + n);
    let pods = (0..IN_A_WAVE).map(make).collect::<Result<Vec<_>>>()?;
    attached(agent, &pods)?;
    let one = &pods[number % pods.len()];
    let mut http = one.http(scene.service.v4)?;
    for key in [Some(KEY), None, Some(OTHER_KEY)] {
        let response = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == Scene::owner(key), "{key:?} was served by {}", response.served_by());
    }
    drop(http);
    pods.into_iter().try_for_each(Pod::delete)
}

#[test]
fn a_thousand_pods_leave_nothing_behind() -> Result<()> {
    let Some(scene) = Scene::open("many-pods", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut before = Level::now(&scene, &agent)?;
    for number in 0..WAVES {
        wave(&scene, &agent, number).with_context(|| format!("wave {number}"))?;
        if number == WAVES / 5 {
            before.memory = Level::now(&scene, &agent)?.memory;
        }
    }
    before.back(&scene, &agent)?;
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn pods_that_go_while_no_agent_runs_are_forgotten_by_the_next_one() -> Result<()> {
    let Some(scene) = Scene::open("gone-meanwhile", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let before = Level::now(&scene, &agent)?;
    let pods = (30..40).map(|n| scene.lab.pod(&format!("pod-{n}"), n)).collect::<Result<Vec<_>>>()?;
    attached(&agent, &pods)?;
    let names = pods.iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>();
    agent.kill9()?;
    pods.into_iter().try_for_each(Pod::delete)?;
    ensure!(names.iter().all(|name| agent.pod(name).is_some()), "their records outlive the agent");
    agent.restart()?;
    let gone = || names.iter().all(|name| agent.pod(name).is_none()).then_some(());
    wait_for("the pods to be gone from status", SOON, gone).with_context(|| agent.explain())?;
    // Another process: its memory and descriptors are its own.
    let level = Level::now(&scene, &agent)?;
    Level { maps: before.maps, links: before.links, ..level }.back(&scene, &agent)?;
    Ok(())
}
