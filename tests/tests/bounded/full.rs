//! Maps that are full while an agent is at work.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use rstest::rstest;
use sidetrack_splice::abi::{
    ABI,
    addr::Tuple,
    record::{Dial, Handshake, Leg},
};
use sidetrack_tests::{Agent, Http, HttpError, Request, Scene, lab::BBR, scene::KEY, wait_for};
use zerocopy::{Immutable, IntoBytes};

/// The least that can be set.
const CONNECTIONS: usize = 256;
const SOON: Duration = Duration::from_secs(20);
/// A time that has not come: nothing is too old by it.
const NEVER: u64 = u64::MAX;

type Key = [u8; size_of::<Tuple>()];

/// A pinned map, with as many entries of nobody as there is room for.
struct Filled<const V: usize> {
    map: HashMap<MapData, Key, [u8; V]>,
    keys: Vec<Key>,
}

impl<const V: usize> Filled<V> {
    fn fill(scene: &Scene, name: &str, value: &(impl IntoBytes + Immutable)) -> Result<Self> {
        let path = scene.lab.pin_dir().join(format!("v{ABI}")).join(name);
        let mut map = HashMap::try_from(Map::HashMap(MapData::from_pin(path)?))?;
        let value: [u8; V] = value.as_bytes().try_into()?;
        let mut keys = Vec::new();
        for number in 0_u32.. {
            let [a, b, c, d] = number.to_be_bytes();
            let local: SocketAddr = ([240, b, c, d], 1 + u16::from(a)).into();
            let key: Key = Tuple::new(local, ([240, 0, 0, 1], 1).into()).as_bytes().try_into()?;
            if map.insert(key, value, 0).is_err() {
                break;
            }
            keys.push(key);
        }
        ensure!(keys.len() >= CONNECTIONS, "map {name} takes {} entries", keys.len());
        Ok(Self { map, keys })
    }

    /// There is room again.
    fn empty(mut self) -> Result<()> {
        self.keys.iter().try_for_each(|key| Ok(self.map.remove(key)?))
    }
}

fn counted(agent: &Agent, name: &str) -> Result<()> {
    counted_times(agent, name, 1)
}

fn counted_times(agent: &Agent, name: &str, times: u64) -> Result<()> {
    let counted = || (agent.counter(name).ok()? >= times).then_some(());
    wait_for(&format!("{name} to be counted"), SOON, counted).with_context(|| agent.explain())
}

fn unkeyed_goes_on(http: &mut Http, scene: &Scene) -> Result<()> {
    http.exchange(&Request::get("/bytes/3000"))?.verify_bytes("base", 3000)?;
    scene.http()?.exchange(&Request::get("/bytes/3000"))?.verify_bytes("base", 3000)
}

/// An agent that follows as few connections as can be set.
fn small(scene: &Scene) -> Result<Agent<'_>> {
    following(scene, CONNECTIONS)
}

/// An agent that follows as many connections, with a service `shop/cart` that has no routes beside the usual one.
fn following(scene: &Scene, connections: usize) -> Result<Agent<'_>> {
    let config = scene.lab.dir().join("config.yaml");
    let spec = format!("spec: {{limits: {{connections: {connections}}}}}");
    std::fs::write(&config, format!("apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\n{spec}\n"))?;
    let config = config.to_str().context("a path in UTF-8")?;
    let cart = scene.lab.service("shop/cart", 20, 80, &Scene::endpoints(&scene.base_pod))?;
    // Their endpoints are one and the same: only virtual addresses tell the two apart.
    let routes = scene.routes().addresses(&cart.name, &[cart.v4, cart.v6]);
    let agent = Agent::start_with(&scene.lab, &routes, &["--config", config])?;
    agent.wait_attached(["client", "base", "fork"])?;
    Ok(agent)
}

#[test]
fn with_connections_full_a_service_with_routes_refuses_and_one_without_goes_on() -> Result<()> {
    let Some(scene) = Scene::open("connections-full", BBR)? else { return Ok(()) };
    let agent = small(&scene)?;
    let mut open = Vec::new();
    while open.len() < CONNECTIONS {
        let mut http = scene.http()?;
        http.exchange(&Request::get("/"))?;
        open.push(http);
    }
    let refused = scene.http();
    ensure!(matches!(refused, Err(HttpError::Refused)), "{refused:?}\n{}", agent.explain());
    counted(&agent, "refused_full")?;
    let cart: SocketAddr = "10.96.0.20:80".parse()?;
    let mut http = scene.client.http(cart)?;
    http.exchange(&Request::get("/bytes/3000").key(KEY))?.verify_bytes("base", 3000)?;
    // Those that are followed are steered as ever.
    ensure!(open[0].exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    open[1].exchange(&Request::get("/bytes/3000"))?.verify_bytes("base", 3000)?;
    open.truncate(2);
    let room = || scene.http().ok()?.exchange(&Request::get("/").key(KEY)).ok();
    let response = wait_for("room for a connection", SOON, room).with_context(|| agent.explain())?;
    ensure!(response.served_by() == "fork");
    agent.no_errors()
}

#[test]
fn with_legs_full_a_keyed_request_is_reset_and_unkeyed_ones_go_on() -> Result<()> {
    let Some(scene) = Scene::open("legs-full", BBR)? else { return Ok(()) };
    let agent = small(&scene)?;
    let mut steady = scene.http()?;
    let leg = Leg { opened: NEVER, ..Leg::default() };
    let filled = Filled::<{ size_of::<Leg>() }>::fill(&scene, "legs", &leg)?;
    let reset = scene.http()?.exchange(&Request::get("/").key(KEY));
    ensure!(matches!(reset, Err(HttpError::Reset)), "{reset:?}\n{}", agent.explain());
    // The baseline of the connection that is given up, too.
    for name in ["reset_legs_full", "legs_full"] {
        counted(&agent, name)?;
    }
    unkeyed_goes_on(&mut steady, &scene)?;
    filled.empty()?;
    ensure!(steady.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn with_dials_full_a_keyed_request_waits_and_is_served_when_there_is_room() -> Result<()> {
    let Some(scene) = Scene::open("dials-full", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut steady = scene.http()?;
    let filled = Filled::<{ size_of::<Dial>() }>::fill(&scene, "dials", &Dial::default())?;
    let mut waiting = scene.http()?;
    let request = Request::get("/bytes/3000").key(KEY);
    waiting.send(&request.wire())?;
    counted(&agent, "dials_full")?;
    unkeyed_goes_on(&mut steady, &scene)?;
    filled.empty()?;
    waiting.response(&request).with_context(|| agent.explain())?.verify_bytes("fork", 3000)?;
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn with_handshakes_full_a_keyed_request_is_reset_and_unkeyed_ones_go_on() -> Result<()> {
    let Some(scene) = Scene::open("handshakes-full", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut steady = scene.http()?;
    let seen = Handshake { at: NEVER, ..Handshake::default() };
    let filled = Filled::<{ size_of::<Handshake>() }>::fill(&scene, "handshakes", &seen)?;
    let reset = scene.http()?.exchange(&Request::get("/").key(KEY));
    ensure!(matches!(reset, Err(HttpError::Reset)), "{reset:?}\n{}", agent.explain());
    for name in ["handshakes_full", "reset_unreachable"] {
        counted(&agent, name)?;
    }
    ensure!(agent.counter("reset_redirected")? == 0, "{}", agent.explain());
    unkeyed_goes_on(&mut steady, &scene)?;
    filled.empty()?;
    ensure!(steady.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    scene.isolated()?;
    agent.no_errors()
}

/// Heads in parts that there is room for.
const HEADS: usize = 256;

/// A connection on which a part of a head has come.
fn part(scene: &Scene, to: SocketAddr) -> Result<Http> {
    let mut http = scene.client.http(to)?;
    http.send(b"GET / HTTP/1.1\r\nhost: or")?;
    Ok(http)
}

/// As many as there is room for.
fn parts(scene: &Scene, agent: &Agent) -> Result<Vec<Http>> {
    let gathered = || agent.counter("head_partial").is_ok_and(|n| n >= HEADS as u64).then_some(());
    let parts = (0..HEADS).map(|_| part(scene, scene.service.v4)).collect::<Result<_>>()?;
    wait_for("the parts to be gathered", SOON, gathered).with_context(|| agent.explain())?;
    Ok(parts)
}

#[test]
fn with_heads_full_a_head_in_parts_is_reset_and_whole_ones_go_on() -> Result<()> {
    let Some(scene) = Scene::open("heads-full", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut steady = scene.http()?;
    let part = || part(&scene, scene.service.v4);
    let mut parts = parts(&scene, &agent)?;
    let reset = part()?.end();
    ensure!(matches!(reset, Err(HttpError::Reset)), "{reset:?}\n{}", agent.explain());
    counted(&agent, "heads_full")?;
    unkeyed_goes_on(&mut steady, &scene)?;
    ensure!(steady.exchange(&Request::get("/").key(KEY))?.served_by() == "fork", "a whole head is steered");
    // And the parts are heads yet, if their ends come.
    let mut first = parts.swap_remove(0);
    first.send(b"ders\r\n\r\n")?;
    ensure!(first.response(&Request::get("/"))?.served_by() == "base");
    drop(parts);
    let mut again = part()?;
    again.send(format!("ders\r\nbaggage: sidetrack={KEY}\r\n\r\n").as_bytes())?;
    ensure!(again.response(&Request::get("/"))?.served_by() == "fork", "there is room again");
    agent.no_errors()
}

/// Who has asked nobody to fork anything notices nothing; and where somebody does, the connection is steered as any other.
#[rstest]
fn with_heads_full_a_head_in_parts_to_a_service_without_routes_goes_on(
    #[values(0, 3)] before: usize,
    #[values(false, true)] v6: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("heads-full-plain", BBR)? else { return Ok(()) };
    let agent = following(&scene, 4 * HEADS)?;
    let cart: SocketAddr = if v6 { "[fd00:96::20]:80" } else { "10.96.0.20:80" }.parse()?;
    let mut http = scene.client.http(cart)?;
    for _ in 0..before {
        http.exchange(&Request::get("/bytes/3000").key(KEY))?.verify_bytes("base", 3000)?;
    }
    let _parts = parts(&scene, &agent)?;
    for (round, rest) in
        ["ders\r\n\r\n".to_owned(), format!("ders\r\nbaggage: sidetrack={KEY}\r\n\r\n")].iter().enumerate()
    {
        http.send(b"GET /bytes/3000 HTTP/1.1\r\nhost: or")?;
        counted_times(&agent, "opaque_heads_full", round as u64 + 1)?;
        http.send(rest.as_bytes())?;
        http.response(&Request::get("/")).with_context(|| agent.explain())?.verify_bytes("base", 3000)?;
        // A whole head is read again, and needs no room.
        http.exchange(&Request::get("/bytes/3000"))?.verify_bytes("base", 3000)?;
        ensure!(agent.counter("adopted")? == round as u64 + 1, "{}", agent.explain());
    }
    ensure!(agent.counter("heads_full")? == 0, "{}", agent.explain());
    // In the middle of an unread head somebody forks the service.
    http.send(b"GET /bytes/3000 HTTP/1.1\r\nhost: or")?;
    counted_times(&agent, "opaque_heads_full", 3)?;
    let cart = [([10, 96, 0, 20], 80).into(), "[fd00:96::20]:80".parse()?];
    let routes = scene.routes().addresses("shop/cart", &cart);
    agent.set_routes(&routes.fork(KEY, &Scene::endpoints(&scene.fork_pod)))?;
    http.send(b"ders\r\n\r\n")?;
    http.response(&Request::get("/"))?.verify_bytes("base", 3000)?;
    for key in [Some(KEY), None, Some(KEY)] {
        let response = http.exchange(&Request::get("/bytes/3000").maybe_key(key)).with_context(|| agent.explain())?;
        response.verify_bytes(Scene::owner(key), 3000)?;
    }
    agent.no_errors()
}
