//! Routes that come, change and go while requests run.

use anyhow::{Context, Result, ensure};
use nix::{sys::stat::Mode, unistd::mkfifo};
use rstest::rstest;
use sidetrack_tests::{
    Agent, HttpError, Load, Request, Routes, Scene,
    lab::{BBR, RENO},
    scene::{FAIL_KEY, KEY, OTHER_KEY, PORT},
    wait_for,
};
use std::{
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

/// Connections of the old days ask for [`KEY`]; each of `servers` may answer while a change is under way.
fn keyed(scene: &Scene, servers: &[&str]) -> Load {
    Load::new(scene.service.v4).also_to(scene.service.v6).connections(6).key(Some(KEY), servers)
}

/// The change has happened: from here on, on old connections and new ones, only `server` answers.
fn settled(scene: &Scene, agent: &Agent, server: &str) -> Result<()> {
    let report = keyed(scene, &[server]).requests(20).requests_per_connection(5).run(&scene.client)?;
    report.all_well().with_context(|| agent.explain())
}

#[rstest]
fn a_route_added_changed_and_removed_under_load(#[values(BBR, RENO)] congestion: &str) -> Result<()> {
    let Some(scene) = Scene::open("changes", congestion)? else { return Ok(()) };
    let without = scene.routes().without(KEY);
    let agent = Agent::start(&scene.lab, &without)?;
    agent.wait_attached(["client", "base", "fork", "other"])?;
    let unkeyed = Load::new(scene.service.v4).connections(4).key(None, &["base"]).key(Some(OTHER_KEY), &["other"]);
    let unkeyed = unkeyed.start(&scene.client)?;
    let changing = keyed(&scene, &["base", "fork", "other"]).start(&scene.client)?;
    let mut old = scene.http()?;
    let mut ask = |server: &str| -> Result<()> {
        let response = old.exchange(&Request::get("/bytes/2000").key(KEY)).with_context(|| agent.explain())?;
        response.verify_bytes(server, 2000)
    };
    ask("base")?;
    let to_fork = scene.routes();
    let to_other = scene.routes().fork(KEY, &Scene::endpoints(&scene.other_pod));
    for (routes, server) in [(&to_fork, "fork"), (&to_other, "other"), (&without, "base"), (&to_fork, "fork")] {
        agent.set_routes(routes)?;
        ask(server)?;
        settled(&scene, &agent, server)?;
        changing.more(200)?;
        unkeyed.more(200)?;
    }
    changing.stop()?.all_well().with_context(|| agent.explain())?;
    unkeyed.stop()?.all_well().with_context(|| agent.explain())?;
    agent.no_errors()
}

#[test]
fn an_exchange_under_way_ends_where_it_began() -> Result<()> {
    let Some(scene) = Scene::open("under-way", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    let slow = Request::get("/drip/10/60").key(KEY);
    http.send(&slow.wire())?;
    let head = http.head()?;
    agent.set_routes(&scene.routes().without(KEY))?;
    let (bytes, _) = http.body(&head, false).with_context(|| agent.explain())?;
    ensure!(bytes == sidetrack_tests::digest::body("fork", bytes.len()));
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "base");
    Ok(())
}

#[test]
fn an_exchange_with_an_endpoint_that_leaves_has_a_time_of_grace() -> Result<()> {
    let Some(scene) = Scene::open("grace", BBR)? else { return Ok(()) };
    let config = scene.lab.dir().join("config.yaml");
    std::fs::write(&config, "apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\nspec: {endpointGrace: 3s}\n")?;
    let agent = Agent::start_with(&scene.lab, &scene.routes(), &["--config", &config.to_string_lossy()])?;
    agent.wait_attached(["client"])?;
    let (mut short, mut long, mut idle) = (scene.http()?, scene.http()?, scene.http()?);
    idle.exchange(&Request::get("/").key(KEY))?;
    let drip = |pieces: u32| Request::get(&format!("/drip/{pieces}/100")).key(KEY);
    short.send(&drip(15).wire())?;
    long.send(&drip(300).wire())?;
    let heads = (short.head()?, long.head()?);
    let left = Instant::now();
    agent.set_routes(&scene.routes().fork(KEY, &Scene::endpoints(&scene.other_pod)))?;
    // No further exchange goes there, and what is under way goes on.
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "other");
    ensure!(idle.exchange(&Request::get("/").key(KEY))?.served_by() == "other");
    short.body(&heads.0, false).context("an exchange that ends within the grace")?;
    ensure!(short.exchange(&Request::get("/").key(KEY))?.served_by() == "other");
    let cut = long.body(&heads.1, false);
    ensure!(cut.is_err() && left.elapsed() >= Duration::from_secs(3), "{:?} after {:?}", cut.err(), left.elapsed());
    ensure!(left.elapsed() < Duration::from_secs(10), "it was cut after {:?}", left.elapsed());
    ensure!(agent.counter("reset_endpoint_left")? == 1, "{}", agent.explain());
    agent.no_errors()
}

#[test]
fn a_service_comes_and_goes() -> Result<()> {
    let Some(scene) = Scene::open("service", BBR)? else { return Ok(()) };
    let agent = Agent::start(&scene.lab, &Routes::new())?;
    agent.wait_attached(["client"])?;
    let ask = |server: &str| -> Result<()> {
        let response = scene.http()?.exchange(&Request::get("/").key(KEY)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == server, "served by {}", response.served_by());
        Ok(())
    };
    ask("base")?;
    for _ in 0..3 {
        agent.set_routes(&scene.routes())?;
        ask("fork")?;
        agent.set_routes(&Routes::new())?;
        ask("base")?;
    }
    Ok(())
}

#[test]
fn a_connection_of_a_removed_service_goes_on_with_its_owner_or_is_reset() -> Result<()> {
    let Some(scene) = Scene::open("removed-service", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    for key in [None, Some(KEY)] {
        agent.set_routes(&scene.routes())?;
        let mut http = scene.http()?;
        http.exchange(&Request::get("/").maybe_key(key))?;
        agent.set_routes(&Routes::new())?;
        // Nobody has a route any more: all is the baseline's.
        let response = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == "base", "{key:?} was served by {}", response.served_by());
    }
    Ok(())
}

#[test]
fn a_fork_that_becomes_ready_is_no_longer_refused() -> Result<()> {
    let Some(scene) = Scene::open("ready", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let refused = scene.http()?.exchange(&Request::get("/").key(FAIL_KEY));
    ensure!(matches!(refused, Err(HttpError::Reset)), "{refused:?}");
    let mut http = scene.http()?;
    http.exchange(&Request::get("/"))?;
    agent.set_routes(&scene.routes().fork(FAIL_KEY, &Scene::endpoints(&scene.fork_pod)))?;
    ensure!(http.exchange(&Request::get("/").key(FAIL_KEY))?.served_by() == "fork");
    agent.set_routes(&scene.routes())?;
    let refused = http.exchange(&Request::get("/").key(FAIL_KEY));
    ensure!(matches!(refused, Err(HttpError::Reset)), "{refused:?}");
    Ok(())
}

/// While the agent still dials a fork that swallows SYNs, the route comes to lead elsewhere: the request that waits goes there.
#[rstest]
fn a_request_that_waits_goes_where_its_route_leads_by_then(
    #[values("changed", "made anew", "removed")] change: &str,
) -> Result<()> {
    let Some(scene) = Scene::open("waiting", BBR)? else { return Ok(()) };
    let config = scene.lab.dir().join("config.yaml");
    std::fs::write(&config, "apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\nspec: {dialTimeout: 15s}\n")?;
    let config = config.to_str().context("a path in UTF-8")?;
    let agent = Agent::start_with(&scene.lab, &scene.routes(), &["--config", config])?;
    agent.wait_attached(["client"])?;
    scene.fork_pod.black_hole(PORT)?;
    let mut http = scene.http()?;
    http.exchange(&Request::get("/"))?;
    let request = Request::get("/bytes/2000").key(KEY);
    http.send(&request.wire())?;
    let dialled = || agent.counter("dial_syn").is_ok_and(|count| count > 0).then_some(());
    wait_for("the agent to dial", Duration::from_secs(5), dialled).with_context(|| agent.explain())?;
    let elsewhere = scene.routes().fork(KEY, &Scene::endpoints(&scene.other_pod));
    if change != "changed" {
        agent.set_routes(&scene.routes().without(KEY))?;
    }
    if change != "removed" {
        agent.set_routes(&elsewhere)?;
    }
    http.patience(Duration::from_secs(8))?;
    let response = http.response(&request).with_context(|| agent.explain())?;
    // Where the client has sent it once more while its key had no route, it was the baseline's.
    let unrouted = response.served_by() == "base" && agent.counter("key_unrouted")? > 0;
    let server = if change == "removed" || (change == "made anew" && unrouted) { "base" } else { "other" };
    response.verify_bytes(server, 2000)?;
    http.exchange(&Request::get("/bytes/300"))?.verify_bytes("base", 300)?;
    agent.no_errors()
}

#[test]
fn several_endpoints_share_by_connection() -> Result<()> {
    let Some(scene) = Scene::open("several", BBR)? else { return Ok(()) };
    let both = [Scene::endpoints(&scene.fork_pod), Scene::endpoints(&scene.other_pod)].concat();
    let agent = Agent::start(&scene.lab, &scene.routes().fork(KEY, &both))?;
    agent.wait_attached(["client"])?;
    let mut owners = Vec::new();
    for _ in 0..30 {
        let mut http = scene.http()?;
        let first = http.exchange(&Request::get("/").key(KEY))?.served_by().to_owned();
        for _ in 0..4 {
            let next = http.exchange(&Request::get("/").key(KEY))?;
            ensure!(next.served_by() == first, "one connection, two forks");
        }
        owners.push(first);
    }
    ensure!(owners.contains(&"fork".to_owned()) && owners.contains(&"other".to_owned()), "{owners:?}");
    // The one that leaves serves no further exchange.
    let mut old: Vec<_> = (0..10).map(|_| scene.http()).collect::<Result<_, _>>()?;
    for http in &mut old {
        http.exchange(&Request::get("/").key(KEY))?;
    }
    agent.set_routes(&scene.routes())?;
    for http in &mut old {
        ensure!(http.exchange(&Request::get("/").key(KEY)).with_context(|| agent.explain())?.served_by() == "fork");
    }
    Ok(())
}

#[test]
fn an_invalid_file_changes_nothing_and_says_where_and_why() -> Result<()> {
    let Some(scene) = Scene::open("invalid", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let before = agent.routes()?;
    let good = scene.routes().yaml();
    let broken = [
        good.replace("kind: RouteTable", "kind: RoutTable"),
        good.replace("10.99.0.12:8080", "10.99.0.12"),
        good.replace("key: \"pr-1\"", "key: \"pr 1\""),
        good.replace("key: \"pr-12\"", "key: \"pr-1\""),
        good.replace("addresses:", "adresses:"),
        good[..good.len() / 2].to_owned() + "\n {",
        String::new(),
    ];
    // The same file as an editor that writes Latin-1 leaves it.
    let latin1 = [good.as_bytes(), b"# caf\xe9\n".as_slice()].concat();
    for text in broken.map(String::into_bytes).into_iter().chain([latin1]) {
        let lines = || agent.output().map_or(0, |output| output.lines().len());
        let (seen, name) = (lines(), "routes.yaml");
        agent.write(&text)?;
        let complained = || {
            let output = agent.output()?.lines();
            // `file:line:column: field ...`
            let about = |line: &&String| {
                let at = line.split_once(&format!("{name}:")).map(|(_, rest)| rest);
                at.is_some_and(|at| at.starts_with(|c: char| c.is_ascii_digit()))
            };
            output.iter().skip(seen).find(about).cloned()
        };
        wait_for("the agent to complain with file and line", Duration::from_secs(5), complained)
            .with_context(|| format!("{}\n{}", text.escape_ascii(), agent.explain()))?;
        ensure!(agent.routes()? == before, "an invalid file changed the routes: {}", text.escape_ascii());
        ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    }
    agent.set_routes(&scene.routes().without(KEY))?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "base");
    Ok(())
}

#[test]
fn a_pipe_in_the_place_of_the_file_changes_nothing_and_the_agent_ends_when_told() -> Result<()> {
    let Some(scene) = Scene::open("pipe", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let before = agent.routes()?;
    let swap = |make: fn(&Path) -> Result<()>| -> Result<()> {
        let odd = agent.routes_file().with_extension("odd");
        make(&odd)?;
        Ok(std::fs::rename(odd, agent.routes_file())?)
    };
    let pipe = |path: &Path| Ok(mkfifo(path, Mode::S_IRWXU)?);
    swap(pipe)?;
    let said = || {
        let lines = agent.output()?.lines();
        lines
            .iter()
            .any(|line| line.contains("this is a FIFO") && line.contains("expected a regular file"))
            .then_some(())
    };
    wait_for("the agent to say what it found", Duration::from_secs(5), said).with_context(|| agent.explain())?;
    ensure!(agent.routes()? == before, "a pipe changed the routes");
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    // It goes on with the next file, and with a pipe in its place it ends when it is told to.
    agent.set_routes(&scene.routes().without(KEY))?;
    swap(pipe)?;
    ensure!(agent.term()?.success());
    Ok(())
}

#[test]
fn the_file_may_be_replaced_as_a_config_map_is() -> Result<()> {
    let Some(scene) = Scene::open("config-map", BBR)? else { return Ok(()) };
    let mut agent = Agent::idle(&scene.lab, &[]);
    let file = agent.routes_file().to_owned();
    let directory = file.parent().context("the file lies in a directory")?.to_owned();
    // Kubelet makes a directory for each version and swaps one symbolic link.
    let publish = |version: &str, routes: &Routes| -> Result<()> {
        std::fs::create_dir_all(directory.join(version))?;
        std::fs::write(directory.join(version).join("routes.yaml"), routes.yaml())?;
        symlink(version, directory.join("..data_tmp"))?;
        Ok(std::fs::rename(directory.join("..data_tmp"), directory.join("..data"))?)
    };
    publish("..1", &scene.routes())?;
    symlink("..data/routes.yaml", &file)?;
    agent.restart()?;
    agent.wait_routes(&scene.routes())?;
    agent.wait_attached(["client"])?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    let next = scene.routes().fork(KEY, &Scene::endpoints(&scene.other_pod));
    publish("..2", &next)?;
    std::fs::remove_dir_all(directory.join("..1"))?;
    agent.wait_routes(&next)?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "other");
    Ok(())
}

#[test]
fn an_address_that_changes_its_service_takes_its_open_connections_along() -> Result<()> {
    let Some(scene) = Scene::open("renamed", BBR)? else { return Ok(()) };
    let (fork, other) = (Scene::endpoints(&scene.fork_pod), Scene::endpoints(&scene.other_pod));
    let all = scene.service.addresses();
    let named = |name: &str| Routes::new().addresses(name, &all).fork(KEY, &fork);
    let agent = Agent::start(&scene.lab, &named("shop/orders"))?;
    agent.wait_attached(["client"])?;
    let (mut plain, mut spliced) = (scene.http()?, scene.http()?);
    plain.exchange(&Request::get("/"))?;
    spliced.exchange(&Request::get("/").key(KEY))?;
    let mut asks = |key: Option<&str>, by: &str| -> Result<()> {
        for http in [&mut plain, &mut spliced, &mut scene.http()?] {
            let response = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
            ensure!(response.served_by() == by, "{key:?} was served by {}", response.served_by());
        }
        Ok(())
    };
    asks(Some(KEY), "fork")?;
    agent.set_routes(&named("shop/orders-v2"))?;
    asks(None, "base")?;
    asks(Some(KEY), "fork")?;
    // Some of its addresses become another service, with routes of its own.
    let (v6, v4): (Vec<_>, Vec<_>) = all.iter().partition(|address| address.is_ipv6());
    let split = Routes::new().addresses("shop/orders-v2", &v6).fork(KEY, &fork);
    agent.set_routes(&split.addresses("shop/orders-v4", &v4).fork(KEY, &other).fork(OTHER_KEY, &other))?;
    asks(Some(KEY), "other")?;
    asks(None, "base")?;
    asks(Some(OTHER_KEY), "other")?;
    agent.no_errors()
}

/// The first SYN of the dial is lost; by its second the endpoint has left.
#[test]
fn an_endpoint_that_leaves_while_it_is_dialled_gets_no_request() -> Result<()> {
    let Some(scene) = Scene::open("left-dialled", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.http()?;
    for _ in 0..20 {
        // Its client waits no longer than the dial for an acknowledgement.
        http.exchange(&Request::get("/"))?;
    }
    scene.fork_pod.black_hole(PORT)?;
    let request = Request::get("/bytes/2000").key(KEY);
    let begun = Instant::now();
    http.send(&request.wire())?;
    wait_for("the head to be held", Duration::from_secs(1), || (agent.counter("dial_syn").ok()? > 0).then_some(()))?;
    std::thread::sleep(Duration::from_millis(850).saturating_sub(begun.elapsed()));
    agent.set_routes(&scene.routes().fork(KEY, &Scene::endpoints(&scene.other_pod)))?;
    scene.fork_pod.unfilter()?;
    http.response(&request).with_context(|| agent.explain())?.verify_bytes("other", 2000)?;
    ensure!(scene.fork.journal().count() == 0, "the endpoint that has left got a request");
    agent.no_errors()
}
