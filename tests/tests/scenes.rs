//! The scenes of the demo, over both families, by ClusterIP and by endpoint, under both congestion controls.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, HttpError, Lab, Nginx, Request, Routes, Scene,
    digest::body,
    gate::{self, Need},
    lab::{BBR, RENO},
    scene::{FAIL_KEY, KEY, OTHER_KEY, PORT, UNKNOWN_KEY, Via},
};
use std::time::{Duration, Instant};

#[rstest]
fn requests_reach_their_owner_on_a_fresh_connection(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("fresh", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    for via in Via::ALL {
        for key in [None, Some(KEY), Some(OTHER_KEY), Some(UNKNOWN_KEY)] {
            let mut http = scene.client.http(scene.address(via))?;
            let request = Request::post("/echo", body("up", 300)).maybe_key(key);
            let response = http.exchange(&request).with_context(|| format!("{via:?} {key:?}\n{}", agent.explain()))?;
            response.verify_echo(Scene::owner(key), &body("up", 300)).with_context(|| format!("{via:?} {key:?}"))?;
            let seen = scene.origin(key).journal().requests().pop().context("the server remembers nothing")?;
            let address = scene.client.ip_like(scene.address(via));
            ensure!(seen.client.ip().to_canonical() == address, "{via:?} {key:?} came from {}", seen.client);
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn requests_reach_their_owner_on_a_reused_connection(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("reused", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    for via in Via::ALL {
        let mut http = scene.client.http(scene.address(via))?;
        for key in [None, Some(KEY), None, Some(KEY), Some(KEY), Some(OTHER_KEY), Some(UNKNOWN_KEY), Some(OTHER_KEY)] {
            let response = http.exchange(&Request::get("/bytes/2000").maybe_key(key));
            let response = response.with_context(|| format!("{via:?} {key:?}\n{}", agent.explain()))?;
            response.verify_bytes(Scene::owner(key), 2000).with_context(|| format!("{via:?} {key:?}"))?;
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn a_mebibyte_goes_up_and_down(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("mebibyte", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    let upload = body("up", 1 << 20);
    for via in Via::ALL {
        let mut http = scene.client.http(scene.address(via))?;
        for key in [Some(KEY), None, Some(KEY)] {
            let context = || format!("{via:?} {key:?}");
            let request = Request::post("/echo", upload.clone()).maybe_key(key);
            http.exchange(&request).with_context(context)?.verify_echo(Scene::owner(key), &upload)?;
            let request = Request::get("/bytes/1048576").maybe_key(key);
            http.exchange(&request).with_context(context)?.verify_bytes(Scene::owner(key), 1 << 20)?;
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[rstest]
fn a_key_whose_route_fails_is_refused_by_a_reset(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("fail", congestion)? else { return Ok(()) };
    let agent = scene.agent()?;
    for via in Via::ALL {
        for before in [None, Some(None), Some(Some(KEY))] {
            let mut http = scene.client.http(scene.address(via))?;
            if let Some(key) = before {
                http.exchange(&Request::get("/").maybe_key(key))?;
            }
            let began = Instant::now();
            let outcome = http.exchange(&Request::get("/").key(FAIL_KEY));
            ensure!(matches!(outcome, Err(HttpError::Reset)), "{via:?} after {before:?}: {outcome:?}");
            ensure!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
    }
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn every_carrier_of_the_default_configuration_is_read() -> Result<()> {
    let Some(scene) = Scene::open("carriers", BBR)? else { return Ok(()) };
    let _agent = scene.agent()?;
    let carriers = [
        ("baggage", "sidetrack=pr-1"),
        ("Baggage", "a=b ,  sidetrack = pr-1 ; p=1 , c=d"),
        ("baggage", "sidetrack=%70r-1"),
        ("baggage", "sd-routing-key=pr-1"),
        ("baggage", "sd-sandbox=pr-1"),
        ("tracestate", "vendor=x,sd-routing-key=pr-1"),
        ("X-Sidetrack-Key", "pr-1"),
        ("ot-baggage-sd-routing-key", "pr-1"),
        ("uberctx-sd-routing-key", "pr-1"),
        ("sd-routing-key", "pr-1"),
        ("baggage", "mirrord-session=pr-1"),
        ("baggage", "okteto-divert=pr-1"),
    ];
    let others = [
        ("baggage", "xsidetrack=pr-1"),
        ("baggage", "sidetrack2=pr-1"),
        ("baggage", "sidetrack=pr-"),
        ("baggage", "sidetrack=pr-1x"),
        ("baggage", "sidetrack="),
        ("baggage", "sidetrack=pr/1"),
        ("tracestate", "sidetrack=pr-1"),
        ("x-other", "baggage: sidetrack=pr-1"),
        ("cookie", "sidetrack=pr-1"),
    ];
    let mut reused = scene.http()?;
    let cases = carriers.map(|header| (header, "fork")).into_iter().chain(others.map(|header| (header, "base")));
    for ((name, value), owner) in cases {
        let request = Request::get("/?x=/baggage:sidetrack=pr-12").header(name, value);
        for http in [&mut scene.http()?, &mut reused] {
            let response = http.exchange(&request).with_context(|| format!("{name}: {value}"))?;
            ensure!(response.served_by() == owner, "{name}: {value} was served by {}", response.served_by());
        }
    }
    Ok(())
}

#[test]
fn the_first_carrier_whose_key_has_a_route_decides() -> Result<()> {
    let Some(scene) = Scene::open("first-carrier", BBR)? else { return Ok(()) };
    let _agent = scene.agent()?;
    let mut http = scene.http()?;
    let both = Request::get("/").header("x-sidetrack-key", OTHER_KEY).header("baggage", "sidetrack=pr-1");
    ensure!(http.exchange(&both)?.served_by() == "fork");
    let unrouted = Request::get("/").header("baggage", "sidetrack=nobodys").header("x-sidetrack-key", OTHER_KEY);
    ensure!(http.exchange(&unrouted)?.served_by() == "other");
    let two = Request::get("/").header("baggage", "a=b").header("baggage", "sidetrack=pr-1,sidetrack=pr-12");
    ensure!(http.exchange(&two)?.served_by() == "fork");
    Ok(())
}

#[rstest]
fn nginx_and_curl_see_nothing_unusual(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    if !gate::open(&[Need::Lab, Need::Agent, Need::Nginx, Need::Curl]) {
        return Ok(());
    }
    let lab = Lab::with_congestion("nginx", congestion)?;
    let client = lab.pod("client", 10)?;
    let (base_pod, fork_pod) = (lab.pod("base", 11)?, lab.pod("fork", 12)?);
    let servers = [Nginx::start(&base_pod, "base", PORT)?, Nginx::start(&fork_pod, "fork", PORT)?];
    for server in &servers {
        server.file(1 << 20)?;
    }
    let service = lab.service("web", 10, 80, &Scene::endpoints(&base_pod))?;
    let routes = Routes::new().service(&service).fork(KEY, &Scene::endpoints(&fork_pod));
    let agent = Agent::start(&lab, &routes)?;
    agent.wait_attached(["client", "base", "fork"])?;
    for to in [service.v4, service.v6, base_pod.v4_port(PORT), base_pod.v6_port(PORT)] {
        let url = format!("http://{to}/");
        let header = format!("baggage: sidetrack={KEY}");
        let context = || format!("curl to {to}\n{}", agent.explain());
        ensure!(client.curl([&url]).with_context(context)? == "base\n");
        ensure!(client.curl(["-H", &header, &url]).with_context(context)? == "fork\n");
        // Two URLs share one connection.
        ensure!(
            client.curl([&url, &url, "--next", "-H", &header, &url]).with_context(context)? == "base\nbase\nfork\n"
        );
        let mut http = client.http(to)?;
        for key in [None, Some(KEY), None, Some(KEY)] {
            let request = Request::get("/bytes/1048576").maybe_key(key);
            http.exchange(&request).with_context(context)?.verify_bytes(Scene::owner(key), 1 << 20)?;
            let request = Request::post("/upload", body("up", 1 << 20)).maybe_key(key);
            let response = http.exchange(&request).with_context(context)?;
            ensure!(response.served_by() == Scene::owner(key) && response.body == b"1048576\n", "{response:?}");
        }
    }
    agent.no_errors()
}
