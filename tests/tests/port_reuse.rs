//! A client port used again at once is a new connection.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    HttpError, Request, Scene,
    lab::{BBR, RENO},
    scene::{KEY, OTHER_KEY, Via},
    wait_for,
};
use std::{collections::BTreeSet, io::ErrorKind, time::Duration};

/// How the first connection ends so that its port is free at once.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The client resets it.
    Reset,
    /// The server closes first: TIME-WAIT is the server's.
    ServerCloses,
}

#[rstest]
fn a_port_used_again_at_once_is_a_new_connection(
    #[values(BBR, RENO)] congestion: &str,
    #[values(End::Reset, End::ServerCloses)] end: End,
) -> Result<()> {
    let Some(scene) = Scene::open("port", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    for via in Via::ALL {
        let owners = [Some(KEY), None, Some(KEY), Some(OTHER_KEY), None, None, Some(OTHER_KEY), Some(KEY), None];
        for (round, key) in owners.into_iter().enumerate() {
            let context = || format!("{via:?}, round {round}, {key:?}\n{}", agent.explain());
            // Until the server has acknowledged its FIN, the client's old socket has the port (LAST-ACK).
            let mut http = wait_for("the port to be free", Duration::from_secs(2), || {
                let dialled = scene.client.http_from(scene.address(via), 40_000);
                let taken = matches!(&dialled, Err(HttpError::Io(e)) if e.kind() == ErrorKind::AddrNotAvailable);
                (!taken).then_some(dialled)
            })
            .with_context(context)?
            .with_context(context)?;
            let request = Request::get("/bytes/2000").maybe_key(key);
            http.exchange(&request)
                .with_context(context)?
                .verify_bytes(Scene::owner(key), 2000)
                .with_context(context)?;
            match end {
                End::Reset => http.abort()?,
                End::ServerCloses => {
                    let request = Request::get("/close").maybe_key(key);
                    ensure!(http.exchange(&request).with_context(context)?.served_by() == Scene::owner(key));
                    http.end().with_context(context)?;
                }
            }
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

/// A pod that gets another address is attached anew: which ports of its legs are in use, or rest, is known as before.
#[test]
fn a_pod_that_changes_uses_no_port_of_a_leg_again_too_early() -> Result<()> {
    let Some(scene) = Scene::open("pod-changes", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let attached = || {
        let is = |line: &String| line.contains("\"attached\"") && line.contains("\"pod\":\"client\"");
        agent.output().map_or(0, |output| output.lines().iter().filter(|line| is(line)).count())
    };
    let rounds = 6;
    for round in 0..rounds {
        let before = attached();
        let mut http = scene.http()?;
        http.exchange(&Request::get("/").key(KEY)).with_context(|| format!("round {round}\n{}", agent.explain()))?;
        drop(http);
        wait_for("the leg to end", Duration::from_secs(5), || scene.fork.clients().is_empty().then_some(()))
            .with_context(|| agent.explain())?;
        scene.client.ip(&format!("address add 10.99.1.{}/32 dev eth0", round + 1))?;
        wait_for("the pod to be attached anew", Duration::from_secs(5), || (attached() > before).then_some(()))
            .with_context(|| agent.explain())?;
    }
    let ports: BTreeSet<_> = scene.fork.journal().requests().iter().map(|seen| seen.client.port()).collect();
    ensure!(ports.len() == rounds, "{rounds} legs had ports {ports:?}");
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn ports_from_a_small_range_are_used_again_and_again() -> Result<()> {
    let Some(scene) = Scene::open("small-range", BBR)? else { return Ok(()) };
    // The agent's own dials find room beside it.
    scene.client.sysctl("net/ipv4/ip_local_port_range", "40000 40009")?;
    let agent = scene.agent()?;
    for round in 0..200 {
        let key = [Some(KEY), None, Some(OTHER_KEY)][round % 3];
        let mut http = scene.http().with_context(|| format!("round {round}"))?;
        let response = http.exchange(&Request::get("/bytes/500").maybe_key(key));
        let response = response.with_context(|| format!("round {round}, {key:?}\n{}", agent.explain()))?;
        response.verify_bytes(Scene::owner(key), 500).with_context(|| format!("round {round}, {key:?}"))?;
        http.abort()?;
    }
    scene.isolated()?;
    agent.no_errors()
}
