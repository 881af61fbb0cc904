//! Pods that come and go, and namespaces that are odd.

use anyhow::{Context, Result, ensure};
use sidetrack_tests::{
    Agent, Http, HttpError, Load, Origin, Request, Scene,
    lab::BBR,
    scene::{KEY, OTHER_KEY, PORT},
    wait_for,
};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

/// Waits until `status` gives this pod this outcome.
fn outcome(agent: &Agent, pod: &str, wanted: &str) -> Result<()> {
    let shown = || agent.pod(pod).filter(|item| item["outcome"] == wanted).map(drop);
    wait_for(&format!("{pod} to be shown as {wanted}"), SOON, shown).with_context(|| agent.explain())
}

#[test]
fn a_pod_added_is_steered_and_a_pod_deleted_is_let_go() -> Result<()> {
    let Some(scene) = Scene::open("added", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let others = Load::new(scene.service.v4).connections(4).key(None, &["base"]).key(Some(KEY), &["fork"]);
    let others = others.start(&scene.client)?;
    for round in 0..4 {
        let pod = scene.lab.pod("late", 30)?;
        agent.wait_attached(["late"])?;
        let mut http = pod.http(scene.service.v4)?;
        for key in [Some(KEY), None, Some(OTHER_KEY)] {
            let response = http.exchange(&Request::get("/").maybe_key(key));
            let response = response.with_context(|| format!("round {round}\n{}", agent.explain()))?;
            ensure!(response.served_by() == Scene::owner(key));
        }
        if round % 2 == 0 {
            drop(http);
            pod.delete()?;
        } else {
            // A runtime that crashed leaves connections behind.
            pod.delete()?;
            drop(http);
        }
        let gone = || agent.pod("late").is_none().then_some(());
        wait_for("the pod to be gone from status", SOON, gone).with_context(|| agent.explain())?;
    }
    others.stop()?.all_well()?;
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn a_deleted_pods_namespace_is_not_kept_alive() -> Result<()> {
    let Some(scene) = Scene::open("kept-alive", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let pod = scene.lab.pod("late", 30)?;
    agent.wait_attached(["late"])?;
    let mut http = pod.http(scene.service.v4)?;
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    drop(http);
    let host = pod.host_interface();
    drop(pod);
    // Only the name goes. A veth goes with the namespace of its other end, if nobody holds that.
    scene.lab.delete_namespace("late")?;
    let gone = || scene.lab.ip(&format!("link show {host}")).is_err().then_some(());
    wait_for("the namespace to be destroyed", SOON, gone).with_context(|| agent.explain())
}

#[test]
fn a_client_attached_in_the_middle_of_a_connection_leaves_it_alone() -> Result<()> {
    let Some(scene) = Scene::open("mid-connection", BBR)? else { return Ok(()) };
    let mut http = scene.http()?;
    http.exchange(&Request::get("/"))?;
    let agent = scene.agent()?;
    // Its SYN was not seen: it belongs to the baseline for good.
    for _ in 0..3 {
        http.exchange(&Request::get("/bytes/3000").key("nobodys"))?.verify_bytes("base", 3000)?;
    }
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    agent.no_errors()
}

#[test]
fn a_namespace_without_a_default_route_is_shown_and_attached_when_it_has_one() -> Result<()> {
    let Some(scene) = Scene::open("no-route", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    scene.lab.bare_namespace("bare")?;
    outcome(&agent, "bare", "no_default_route")?;
    let pod = scene.lab.pod("late", 30)?;
    agent.wait_attached(["late"])?;
    for family in ["", "-6 "] {
        pod.ip(&format!("{family}route del default"))?;
    }
    outcome(&agent, "late", "no_default_route")?;
    pod.ip("route add default via 169.254.1.1 dev eth0")?;
    agent.wait_attached(["late"])?;
    ensure!(pod.http(scene.service.v4)?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    Ok(())
}

#[test]
fn a_namespace_with_two_ways_out_is_shown_and_not_attached() -> Result<()> {
    let Some(scene) = Scene::open("two-ways", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    scene.lab.bare_namespace("two")?;
    for (interface, number) in [("eth0", 1), ("net1", 2)] {
        scene.lab.ip(&format!("-n two link add {interface} type veth peer name peer{number}"))?;
        scene.lab.ip(&format!("-n two address add 10.50.{number}.2/24 dev {interface}"))?;
        scene.lab.ip(&format!("-n two link set peer{number} up"))?;
        scene.lab.ip(&format!("-n two link set {interface} up"))?;
        scene.lab.ip(&format!("-n two route add default via 10.50.{number}.1 dev {interface} metric {number}"))?;
    }
    outcome(&agent, "two", "several_default_routes")?;
    scene.lab.ip("-n two route del default via 10.50.2.1 dev net1 metric 2")?;
    agent.wait_attached(["two"])
}

#[test]
fn a_second_pod_with_an_address_is_refused_and_takes_its_turn() -> Result<()> {
    let Some(scene) = Scene::open("duplicate", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let first = scene.lab.pod("first", 30)?;
    agent.wait_attached(["first"])?;
    scene.lab.bare_namespace("second")?;
    scene.lab.ip("-n second link add eth0 type veth peer name peer0")?;
    for words in ["link set peer0 up", "link set eth0 up", "address add 10.99.0.30/32 dev eth0"] {
        scene.lab.ip(&format!("-n second {words}"))?;
    }
    scene.lab.ip("-n second route add 169.254.1.1/32 dev eth0")?;
    scene.lab.ip("-n second route add default via 169.254.1.1 dev eth0")?;
    outcome(&agent, "second", "address_taken")?;
    let shown = agent.pod("second").context("it is shown")?;
    let detail = shown["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("10.99.0.30") && detail.contains("first"), "{shown}");
    ensure!(agent.is_attached("first"));
    first.delete()?;
    agent.wait_attached(["second"])
}

#[test]
fn a_file_that_is_no_namespace_is_shown_and_disturbs_nobody() -> Result<()> {
    let Some(scene) = Scene::open("no-namespace", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let path = std::path::Path::new(sidetrack_tests::lab::NETNS_DIR).join("junk");
    std::fs::write(&path, "junk")?;
    outcome(&agent, "junk", "not_a_namespace")?;
    std::fs::remove_file(&path)?;
    let gone = || agent.pod("junk").is_none().then_some(());
    wait_for("the file to be gone from status", SOON, gone)?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    Ok(())
}

#[test]
fn the_same_address_given_to_a_new_pod_is_a_new_pod() -> Result<()> {
    let Some(scene) = Scene::open("address-again", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let ask = |http: &mut Http, key| -> Result<()> {
        let response = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == Scene::owner(key), "{key:?} was served by {}", response.served_by());
        Ok(())
    };
    let first = scene.lab.pod("first", 30)?;
    agent.wait_attached(["first"])?;
    ask(&mut first.http_from(scene.service.v4, 45_000)?, Some(KEY))?;
    first.delete()?;
    let second = scene.lab.pod("second", 30)?;
    agent.wait_attached(["second"])?;
    // The same four-tuple, by another pod.
    let mut http = second.http_from(scene.service.v4, 45_000)?;
    ask(&mut http, None)?;
    ask(&mut http, Some(OTHER_KEY))?;
    // And as a server behind the service.
    let _origin = Origin::start(&second, "base", PORT)?;
    scene.isolated()
}

/// The programs are away while its connections may go on: none of them hangs when they come back.
#[test]
fn a_pod_that_loses_its_default_route_and_gets_it_back_has_no_connection_that_hangs() -> Result<()> {
    let Some(scene) = Scene::open("flaps", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let client = &scene.client;
    client.ip("route add 10.0.0.0/8 via 169.254.1.1 dev eth0")?;
    for pause in [Duration::from_millis(300), Duration::from_secs(3)] {
        let (mut plain, mut busy) = (scene.http()?, scene.http()?);
        let (mut at_fork, mut back) = (scene.http()?, scene.http()?);
        for (http, keys) in [
            (&mut plain, &[None][..]),
            (&mut busy, &[None]),
            (&mut at_fork, &[Some(KEY)]),
            (&mut back, &[Some(KEY), None]),
        ] {
            for &key in keys {
                http.exchange(&Request::get("/").maybe_key(key))?;
            }
        }
        client.ip("-6 route del default via fe80::1 dev eth0")?;
        client.ip("route del default via 169.254.1.1 dev eth0")?;
        outcome(&agent, "client", "no_default_route")?;
        let begun = Instant::now();
        while begun.elapsed() < pause {
            busy.exchange(&Request::get("/")).context("while the programs are away")?;
        }
        client.ip("route add default via 169.254.1.1 dev eth0")?;
        client.ip("-6 route add default via fe80::1 dev eth0")?;
        agent.wait_attached(["client"])?;
        for http in [&mut plain, &mut busy] {
            for key in [None, Some(KEY)] {
                let served = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
                ensure!(served.served_by() == Scene::owner(key), "{key:?} was served by {}", served.served_by());
            }
        }
        // Nobody has translated for these: they have ended, and say so.
        for http in [&mut at_fork, &mut back] {
            http.patience(Duration::from_secs(2))?;
            let outcome = http.exchange(&Request::get("/"));
            ensure!(matches!(outcome, Err(HttpError::Reset | HttpError::Closed(_))), "{outcome:?}");
        }
    }
    scene.isolated()?;
    agent.no_errors()
}
