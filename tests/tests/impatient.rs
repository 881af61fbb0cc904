//! Servers that close connections by themselves, as they are shipped: after a number of requests, after some time without any.

use anyhow::{Context, Result, ensure};
use rstest::rstest;
use sidetrack_tests::{
    Agent, Http, Lab, Nginx, Pod, Request, Routes, Service,
    gate::{Need, open},
    lab::BBR,
    nginx::Patience,
    scene::{KEY, PORT},
};
use std::time::{Duration, Instant};

/// A client, and two real servers behind one service: the baseline, and the fork of [`KEY`].
struct Shop {
    client: Pod,
    service: Service,
    routes: Routes,
    _servers: [Nginx; 2],
    lab: Lab,
}

impl Shop {
    fn open(name: &str, base: Patience, fork: Patience) -> Result<Option<Self>> {
        if !open(&[Need::Lab, Need::Nginx, Need::Agent]) {
            return Ok(None);
        }
        let lab = Lab::with_congestion(name, BBR)?;
        let (client, base_pod, fork_pod) = (lab.pod("client", 10)?, lab.pod("base", 11)?, lab.pod("fork", 12)?);
        let servers =
            [Nginx::start_with(&base_pod, "base", PORT, base)?, Nginx::start_with(&fork_pod, "fork", PORT, fork)?];
        let service = lab.service("shop/orders", 10, 80, &[base_pod.v4_port(PORT), base_pod.v6_port(PORT)])?;
        let routes = Routes::new().service(&service).fork(KEY, &[fork_pod.v4_port(PORT), fork_pod.v6_port(PORT)]);
        Ok(Some(Self { client, service, routes, _servers: servers, lab }))
    }

    fn agent(&self) -> Result<Agent<'_>> {
        let agent = Agent::start(&self.lab, &self.routes)?;
        agent.wait_attached(["client", "base", "fork"])?;
        Ok(agent)
    }
}

/// One request, which the right server answers.
fn ask(agent: &Agent, http: &mut Http, key: Option<&str>) -> Result<()> {
    let response = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
    let owner = if key.is_some() { "fork" } else { "base" };
    ensure!(response.served_by() == owner, "{key:?} was served by {}", response.served_by());
    Ok(())
}

/// nginx closes behind its thousandth answer, and says so in it. On one connection each server counts for itself; whoever comes to
/// its thousandth first, the client opens another connection, and no request fails.
#[rstest]
#[case::both_alike(1000, 1000)]
#[case::the_baseline_first(100, 1000)]
#[case::the_fork_first(1000, 100)]
fn a_server_that_closes_after_a_number_of_requests_costs_none(#[case] base: u32, #[case] fork: u32) -> Result<()> {
    let patience = |requests| Patience { requests, ..Patience::default() };
    let Some(shop) = Shop::open("thousandth", patience(base), patience(fork))? else { return Ok(()) };
    let agent = shop.agent()?;
    for to in [shop.service.v4, shop.service.v6] {
        let mut connections = 0;
        let mut left = 3500;
        while left > 0 {
            let mut http = shop.client.http(to)?;
            connections += 1;
            let mut asked = [0, 0];
            while left > 0 && http.is_open() {
                // Two of three for the fork.
                let key = (left % 3 != 0).then_some(KEY);
                ask(&agent, &mut http, key).with_context(|| format!("connection {connections}, after {asked:?}"))?;
                asked[usize::from(key.is_some())] += 1;
                left -= 1;
            }
            let full = asked[0] == base || asked[1] == fork;
            ensure!(full || left == 0, "closed after {asked:?}");
            if full {
                http.patience(Duration::from_secs(2))?;
                http.end().with_context(|| agent.explain())?;
            }
        }
        ensure!(connections > 1, "nobody has closed");
    }
    agent.no_errors()
}

/// Whoever is parked for longer than it keeps idle connections closes, and is dialled again; its client has a connection that never
/// idled.
#[rstest]
fn a_server_that_closes_what_idles_is_dialled_again(#[values(None, Some(KEY))] parked: Option<&str>) -> Result<()> {
    let short = Patience { idle: Duration::from_millis(500), ..Patience::default() };
    let (base, fork) = if parked.is_none() { (short, Patience::default()) } else { (Patience::default(), short) };
    let Some(shop) = Shop::open("idles", base, fork)? else { return Ok(()) };
    let agent = shop.agent()?;
    let owner = if parked.is_none() { Some(KEY) } else { None };
    for to in [shop.service.v4, shop.service.v6] {
        let mut http = shop.client.http(to)?;
        ask(&agent, &mut http, owner)?;
        for round in 1..4 {
            ask(&agent, &mut http, parked)?;
            let closed = agent.counter("parked_closed")?;
            let began = Instant::now();
            while agent.counter("parked_closed")? == closed {
                ensure!(began.elapsed() < Duration::from_secs(10), "it does not close\n{}", agent.explain());
                ask(&agent, &mut http, owner).with_context(|| format!("round {round}"))?;
            }
        }
        ask(&agent, &mut http, parked)?;
    }
    agent.no_errors()
}

/// The owner closes what idles: its client learns it, and the connection is over.
#[rstest]
fn a_server_that_closes_what_its_client_idles_on_closes_for_it(
    #[values(None, Some(KEY))] owner: Option<&str>,
) -> Result<()> {
    let short = Patience { idle: Duration::from_millis(500), ..Patience::default() };
    let Some(shop) = Shop::open("idle-owner", short, short)? else { return Ok(()) };
    let agent = shop.agent()?;
    for to in [shop.service.v4, shop.service.v6] {
        for history in [&[owner][..], &[None, Some(KEY), owner]] {
            let mut http = shop.client.http(to)?;
            for &key in history {
                ask(&agent, &mut http, key)?;
            }
            http.patience(Duration::from_secs(5))?;
            http.end().with_context(|| agent.explain())?;
            ask(&agent, &mut shop.client.http(to)?, owner)?;
        }
    }
    agent.no_errors()
}
