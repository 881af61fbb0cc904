//! Many keys on one connection: as many legs as there are slots, and what gives way to one more.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_splice::abi::LEGS;
use sidetrack_tests::{
    Agent, Http, Origin, Request, Routes, Scene,
    lab::{BBR, RENO},
    scene::Via,
    wait_for,
};
use std::{collections::VecDeque, time::Duration};

/// What a sweep of the agent's ends, a second apart.
const SWEPT: Duration = Duration::from_secs(4);
/// Forks that one connection has slots for: all but the baseline's.
const SLOTS: usize = LEGS - 1;
const _: () = assert!(SLOTS >= 8, "eight keys are the least that a connection must have room for");

fn key(number: usize) -> String {
    format!("pr-{number}")
}

fn name(number: usize) -> String {
    format!("fork-{number}")
}

/// As many forks as are asked for, each the one of its key: servers of one pod.
fn forks(scene: &Scene, count: usize) -> Result<(Vec<Origin>, Routes)> {
    let port = |number: usize| 9000 + number as u16;
    let forks =
        (0..count).map(|number| Origin::start(&scene.fork_pod, &name(number), port(number))).collect::<Result<_>>()?;
    let routes = (0..count).fold(Routes::new().service(&scene.service), |routes, number| {
        routes.fork(&key(number), &[scene.fork_pod.v4_port(port(number)), scene.fork_pod.v6_port(port(number))])
    });
    Ok((forks, routes))
}

/// One request for a fork, or for the baseline.
fn ask(agent: &Agent, http: &mut Http, fork: Option<usize>) -> Result<()> {
    let (key, owner) = (fork.map(key), fork.map_or_else(|| "base".to_owned(), name));
    let request = Request::get("/bytes/700").maybe_key(key.as_deref());
    let response = http.exchange(&request).with_context(|| format!("{key:?}\n{}", agent.explain()))?;
    response.verify_bytes(&owner, 700)
}

#[rstest]
fn as_many_keys_as_there_are_slots_share_one_connection(
    #[values(BBR, RENO)] congestion: &str,
    #[values(Via::ClusterIp4, Via::ClusterIp6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("many-keys", congestion)? else { return Ok(()) };
    let (forks, routes) = forks(&scene, SLOTS)?;
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    let mut http = scene.client.http(scene.address(via))?;
    for round in 0..5 {
        ask(&agent, &mut http, None)?;
        for number in 0..SLOTS {
            ask(&agent, &mut http, Some((number * (2 * round + 1)) % SLOTS))?;
            ask(&agent, &mut http, Some(number))?;
        }
    }
    for origin in forks.iter().chain([&scene.base]) {
        ensure!(origin.journal().connections() == 1, "{} was dialled again\n{}", origin.name(), agent.explain());
    }
    agent.no_errors()
}

/// One key more than there are slots: the leg that has idled longest gives way. Its server is told at once, nobody else
/// notices, and the next request for its key is dialled anew, in the slot of the next.
#[rstest]
fn one_key_more_ends_the_leg_that_has_idled_longest(
    #[values(Via::ClusterIp4, Via::ClusterIp6)] via: Via,
) -> Result<()> {
    let Some(scene) = Scene::open("one-more", BBR)? else { return Ok(()) };
    let (forks, routes) = forks(&scene, SLOTS + 1)?;
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    let mut http = scene.client.http(scene.address(via))?;
    for number in 0..SLOTS {
        ask(&agent, &mut http, Some(number))?;
    }
    // The oldest is used again: it is the youngest.
    ask(&agent, &mut http, Some(0))?;
    let mut idle: VecDeque<usize> = (1..SLOTS).chain([0]).collect();
    let mut next = SLOTS;
    for turn in 0..2 * SLOTS {
        let gone = idle.pop_front().context("somebody idles")?;
        let open =
            || forks.iter().filter(|fork| !fork.clients().is_empty()).map(Origin::name).collect::<Vec<_>>().join(" ");
        let context =
            || format!("turn {turn}: {} for {}; open: {}\n{}", name(next), name(gone), open(), agent.explain());
        let dialled = forks[next].journal().connections();
        ask(&agent, &mut http, Some(next)).with_context(context)?;
        ensure!(forks[next].journal().connections() == dialled + 1, "{}", context());
        wait_for("the leg that gives way to end", SWEPT, || forks[gone].clients().is_empty().then_some(()))
            .with_context(context)?;
        for (number, fork) in forks.iter().enumerate().filter(|(number, _)| *number != gone) {
            ensure!(fork.clients().len() == 1, "{}: {:?}, {}", name(number), fork.clients(), context());
        }
        if turn % 4 == 3 {
            ask(&agent, &mut http, None).with_context(context)?;
        }
        // Whoever has just been ended is the next to be asked.
        idle.push_back(next);
        next = gone;
    }
    drop(http);
    let ended = || forks.iter().all(|fork| fork.clients().is_empty()).then_some(());
    wait_for("every leg to end", SWEPT, ended).with_context(|| agent.explain())?;
    let maps =
        || agent.status().ok()?["maps"].as_array()?.iter().find(|map| map["name"] == "legs")?["entries"].as_u64();
    // The owner's stays as long as its connection is remembered.
    wait_for("the legs to be forgotten", SWEPT, || (maps()? <= 1).then_some(()))
        .with_context(|| format!("{:?}\n{}", maps(), agent.explain()))?;
    agent.no_errors()
}

/// However fast the keys change, no more legs are open than there are slots, but for the one that is being ended.
#[test]
fn a_hundred_keys_in_a_second_leave_no_crowd_of_legs() -> Result<()> {
    let Some(scene) = Scene::open("crowd-of-keys", BBR)? else { return Ok(()) };
    let (forks, routes) = forks(&scene, 120)?;
    let agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    let mut http = scene.http()?;
    let mut most = 0;
    for number in 0..forks.len() {
        ask(&agent, &mut http, Some(number))?;
        most = most.max(forks.iter().map(|fork| fork.clients().len()).sum());
    }
    // Its server's threads have to come to know of it, too.
    ensure!(most <= SLOTS + 3, "{most} legs were open at one moment\n{}", agent.explain());
    agent.no_errors()
}
