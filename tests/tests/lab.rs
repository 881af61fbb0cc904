//! The lab itself, without an agent: what the other tests rely on.

use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    HttpError, Lab, Load, Nginx, Origin, Request, Scene,
    digest::{Digest, body},
    gate::{self, Need},
    lab::{BBR, RENO},
    origin::PIECE,
    probe::{Counters, Hook},
    scene::Via,
};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// A scene, or nothing where the machine cannot make one.
fn scene(name: &str, congestion: &str) -> Result<Option<Scene>> {
    gate::open(&[Need::Lab]).then(|| Scene::new(name, congestion)).transpose()
}

#[rstest]
fn every_address_of_a_service_reaches_its_endpoint(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = scene("addresses", congestion)? else { return Ok(()) };
    for via in Via::ALL {
        let mut http = scene.client.http(scene.address(via))?;
        let response = http.exchange(&Request::post("/echo", body("x", 100)))?;
        response.verify_echo("base", &body("x", 100))?;
        let seen = scene.base.journal().requests().pop().expect("the origin remembers what it answered");
        ensure!(seen.client.ip().to_canonical() == scene.client.ip_like(scene.address(via)), "{via:?}: {seen:?}");
    }
    Ok(())
}

#[test]
fn every_namespace_has_the_congestion_control_asked_for() -> Result<()> {
    let Some(scene) = scene("congestion", RENO)? else { return Ok(()) };
    for pod in [&scene.client, &scene.base_pod] {
        let path = "/proc/sys/net/ipv4/tcp_congestion_control";
        let set = pod.enter(|| std::fs::read_to_string(path))??;
        ensure!(set.trim() == RENO, "{}: {set}", pod.name());
    }
    Ok(())
}

#[rstest]
fn several_endpoints_share_the_connections(#[values(false, true)] ipv6: bool) -> Result<()> {
    let Some(scene) = scene("endpoints", BBR)? else { return Ok(()) };
    let endpoints = [Scene::endpoints(&scene.fork_pod), Scene::endpoints(&scene.other_pod)].concat();
    let service = scene.lab.service("shop/stock", 20, 80, &endpoints)?;
    let to = if ipv6 { service.v6 } else { service.v4 };
    let load = Load::new(to).requests(40).requests_per_connection(1).key(None, &["fork", "other"]);
    let report = load.run(&scene.client)?;
    report.all_well()?;
    ensure!(report.count(None, "fork") > 0 && report.count(None, "other") > 0, "{:?}", report.served);
    Ok(())
}

#[test]
fn labs_do_not_meet_each_other_or_the_machine() -> Result<()> {
    if !gate::open(&[Need::Lab]) {
        return Ok(());
    }
    let before = names();
    let first = std::thread::spawn(|| -> Result<Vec<String>> {
        let lab = Lab::new("first")?;
        lab.pod("alpha", 10)?;
        Ok(names())
    });
    let second = std::thread::spawn(|| -> Result<Vec<String>> {
        let lab = Lab::new("second")?;
        lab.pod("beta", 10)?;
        Ok(names())
    });
    ensure!(first.join().expect("no panic")? == ["alpha", "node"]);
    ensure!(second.join().expect("no panic")? == ["beta", "node"]);
    ensure!(names() == before);
    Ok(())
}

#[test]
fn the_thread_is_back_where_it_was_when_the_lab_is_gone() -> Result<()> {
    if !gate::open(&[Need::Lab]) {
        return Ok(());
    }
    let mounts = || std::fs::read_link("/proc/thread-self/ns/mnt");
    let (before, directory) = (mounts()?, std::env::current_dir()?);
    let lab = Lab::new("back")?;
    ensure!(mounts()? != before);
    drop(lab);
    ensure!(mounts()? == before);
    ensure!(std::env::current_dir()? == directory);
    Ok(())
}

#[test]
fn children_die_with_the_lab() -> Result<()> {
    if !gate::open(&[Need::Lab]) {
        return Ok(());
    }
    let lab = Lab::new("children")?;
    let pod = lab.pod("pod", 10)?;
    let mut command = Command::new("sleep");
    command.arg("1000");
    let process = pod.spawn(command)?;
    let id = process.id();
    // Nobody is left to kill it but the kernel.
    std::mem::forget(process);
    drop((pod, lab));
    let state = || std::fs::read_to_string(format!("/proc/{id}/stat")).ok();
    let ended = || state().is_none_or(|stat| stat.contains(") Z ")).then_some(());
    sidetrack_tests::wait_for("the child to end", Duration::from_secs(5), ended)
}

#[test]
fn a_deleted_pod_is_gone_and_its_address_can_be_given_again() -> Result<()> {
    let Some(scene) = scene("deleted", BBR)? else { return Ok(()) };
    let pod = scene.lab.pod("late", 30)?;
    let to = pod.v4_port(8080);
    let origin = Origin::start(&pod, "late", 8080)?;
    ensure!(scene.client.http(to)?.exchange(&Request::get("/"))?.served_by() == "late");
    drop(origin);
    pod.clone().delete()?;
    ensure!(!pod.exists());
    let pod = scene.lab.pod("again", 30)?;
    let _origin = Origin::start(&pod, "again", 8080)?;
    ensure!(scene.client.http(to)?.exchange(&Request::get("/"))?.served_by() == "again");
    Ok(())
}

#[test]
fn a_black_hole_and_an_unplugged_pod_answer_nothing_a_closed_port_refuses() -> Result<()> {
    let Some(scene) = scene("silence", BBR)? else { return Ok(()) };
    let to = scene.base_pod.v4_port(8080);
    let mut http = scene.client.http(to)?;
    http.patience(Duration::from_millis(300))?;
    http.exchange(&Request::get("/"))?;
    for silence in [true, false] {
        if silence {
            scene.base_pod.black_hole(8080)?;
        } else {
            scene.base_pod.unplug()?;
        }
        let outcome = http.exchange(&Request::get("/"));
        ensure!(matches!(outcome, Err(HttpError::Timeout)), "{outcome:?}");
        if silence {
            scene.base_pod.unfilter()?;
            http.response(&Request::get("/"))?;
        }
    }
    let refused = scene.client.http(scene.fork_pod.v6_port(9));
    ensure!(matches!(refused, Err(HttpError::Refused)), "{refused:?}");
    Ok(())
}

#[test]
fn every_behaviour_of_the_origin_is_framed_as_it_says() -> Result<()> {
    let Some(scene) = scene("origin", BBR)? else { return Ok(()) };
    let mut http = scene.http()?;
    for length in [0, 1, 1447, 100_000, 5_000_000] {
        http.exchange(&Request::get(&format!("/bytes/{length}")))?.verify_bytes("base", length)?;
        http.exchange(&Request::get(&format!("/chunked/{length}/7")))?.verify_bytes("base", length)?;
        let head = Request::head(&format!("/bytes/{length}"));
        ensure!(http.exchange(&head)?.head.has("content-length", &length.to_string()));
        let upload = body("up", length);
        http.exchange(&Request::post("/echo", upload.clone()))?.verify_echo("base", &upload)?;
        http.exchange(&Request::post("/echo", upload.clone()).chunked(1000))?.verify_echo("base", &upload)?;
    }
    http.exchange(&Request::head("/chunked/100/3"))?;
    let began = Instant::now();
    http.exchange(&Request::get("/drip/5/20"))?.verify_bytes("base", 5 * PIECE)?;
    ensure!(began.elapsed() >= Duration::from_millis(100));
    http.exchange(&Request::get("/dripchunked/3/1"))?.verify_bytes("base", 3 * PIECE)?;
    for status in [204, 304, 500] {
        ensure!(http.exchange(&Request::get(&format!("/status/{status}")))?.status() == status);
    }
    ensure!(http.exchange(&Request::get("/hints"))?.interim == [103]);
    ensure!(http.exchange(&Request::post("/early", body("up", 1000)))?.answer()?.length == 0);
    ensure!(http.exchange(&Request::get("/slow/20"))?.served_by() == "base");
    ensure!(!http.exchange(&Request::get("/close"))?.head.headers.is_empty() && !http.is_open());
    http.end()?;
    let mut http = scene.http()?;
    http.exchange(&Request::get("/rest/100000"))?.verify_bytes("base", 100_000)?;
    let mut http = scene.http()?;
    let reset = http.exchange(&Request::get("/reset"));
    ensure!(matches!(reset, Err(HttpError::Reset)), "{reset:?}");
    Ok(())
}

#[test]
fn an_expecting_client_gets_its_100_or_a_final_refusal() -> Result<()> {
    let Some(scene) = scene("expect", BBR)? else { return Ok(()) };
    let mut http = scene.http()?;
    let upload = body("up", 3000);
    let request = Request::post("/echo", upload.clone()).header("Expect", "100-continue");
    http.send(&request.head_bytes())?;
    ensure!(http.head()?.status == 100);
    http.send(&request.body_bytes())?;
    http.response(&request)?.verify_echo("base", &upload)?;
    let request = Request::post("/refuse", upload).header("Expect", "100-continue");
    http.send(&request.head_bytes())?;
    ensure!(http.response(&request)?.status() == 417);
    Ok(())
}

#[test]
fn the_journal_knows_requests_bodies_and_unfinished_heads() -> Result<()> {
    let Some(scene) = scene("journal", BBR)? else { return Ok(()) };
    let mut http = scene.http()?;
    let request = Request::post("/echo?a", body("up", 10)).key("pr-7");
    http.exchange(&request)?;
    let seen = scene.base.journal().requests();
    ensure!(seen.len() == 1 && seen[0].target == "/echo?a" && seen[0].mentions("pr-7"), "{seen:?}");
    ensure!(seen[0].length == 10 && seen[0].digest == Some(Digest::of(&body("up", 10))), "{seen:?}");
    let wire = Request::get("/half").wire();
    http.send(&wire[..20])?;
    let arrived = || scene.base.journal().fragments().first().filter(|f| f.bytes == wire[..20]).map(|f| f.ended);
    ensure!(!sidetrack_tests::wait_for("the fragment", Duration::from_secs(5), arrived)?);
    http.abort()?;
    let ended = || scene.base.journal().fragments().first().filter(|f| f.ended).map(drop);
    sidetrack_tests::wait_for("the end of the connection", Duration::from_secs(5), ended)?;
    ensure!(scene.base.journal().count() == 1);
    Ok(())
}

#[test]
fn a_client_notices_bytes_that_nobody_asked_for() -> Result<()> {
    let Some(scene) = scene("surplus", BBR)? else { return Ok(()) };
    let mut http = scene.http()?;
    http.send(&[Request::get("/bytes/1").wire(), Request::get("/bytes/2").wire()].concat())?;
    http.response(&Request::get("/"))?;
    let outcome = sidetrack_tests::wait_for("the second answer", Duration::from_secs(5), || http.quiet().err())?;
    ensure!(matches!(outcome, HttpError::Framing(_)), "{outcome:?}");
    Ok(())
}

#[test]
fn a_port_can_be_used_again_at_once() -> Result<()> {
    let Some(scene) = scene("port", BBR)? else { return Ok(()) };
    for _ in 0..3 {
        let mut http = scene.client.http_from(scene.service.v4, 40_000)?;
        http.exchange(&Request::get("/"))?;
        ensure!(http.local()?.port() == 40_000);
        http.abort()?;
    }
    Ok(())
}

#[rstest]
fn load_verifies_every_answer(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = scene("load", congestion)? else { return Ok(()) };
    let load = Load::new(scene.service.v4).also_to(scene.service.v6).connections(8);
    let report = load.clone().requests(50).key(None, &["base"]).key(Some("pr-1"), &["base"]).run(&scene.client)?;
    report.all_well()?;
    ensure!(report.done == 400, "{report:?}");
    let wrong = load.requests(5).key(None, &["fork"]).run(&scene.client)?;
    ensure!(wrong.done == 0 && wrong.failures.len() == 40);
    Ok(())
}

#[test]
fn nginx_and_curl_work_in_pods() -> Result<()> {
    if !gate::open(&[Need::Lab, Need::Nginx, Need::Curl]) {
        return Ok(());
    }
    let lab = Lab::new("nginx")?;
    let client = lab.pod("client", 10)?;
    let pod = lab.pod("base", 11)?;
    let nginx = Nginx::start(&pod, "base", 8080)?;
    nginx.file(1 << 20)?;
    let service = lab.service("web", 10, 80, &[pod.v4_port(8080), pod.v6_port(8080)])?;
    for to in [service.v4, service.v6] {
        ensure!(client.curl([format!("http://{to}/")])? == "base\n");
        let mut http = client.http(to)?;
        http.exchange(&Request::get(&format!("/bytes/{}", 1 << 20)))?.verify_bytes("base", 1 << 20)?;
        let upload = http.exchange(&Request::post("/upload", body("up", 1 << 20)))?;
        ensure!(upload.served_by() == "base" && upload.body == b"1048576\n", "{upload:?}");
    }
    Ok(())
}

#[rstest]
#[case(Hook::Tcx)]
#[case(Hook::Clsact)]
fn foreign_programs_count_what_passes(#[case] hook: Hook) -> Result<()> {
    if !gate::open(&[Need::Lab, Need::Tc]) {
        return Ok(());
    }
    let scene = Scene::new("foreign", BBR)?;
    let mut counters = Counters::attach(&scene.client, hook)?;
    scene.http()?.exchange(&Request::get("/"))?;
    ensure!(counters.egress()? >= 3 && counters.ingress()? >= 2, "{counters:?}");
    counters.detach()?;
    let (egress, ingress) = (counters.egress()?, counters.ingress()?);
    scene.http()?.exchange(&Request::get("/"))?;
    ensure!((counters.egress()?, counters.ingress()?) == (egress, ingress), "it counts after it was detached");
    Ok(())
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(Path::new("/run/netns")).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
