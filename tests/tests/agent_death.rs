//! The agent dies, ends, comes back: what is spliced does not notice.

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{HashMap, Map, MapData};
use rstest::rstest;
use sidetrack_splice::abi::{ABI, addr::Tuple, record::Leg};
use sidetrack_tests::{
    Agent, Http, HttpError, Load, Request, Scene,
    lab::{BBR, RENO},
    scene::{FAIL_KEY, KEY, OTHER_KEY, UNKNOWN_KEY, Via},
    wait_for,
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};
use zerocopy::FromBytes as _;

/// How long a death may be noticed late.
const NOTICED: Duration = Duration::from_secs(15);

/// Connections that live through the death, with one kind of owner each.
fn steady(scene: &Scene, key: Option<&str>) -> Load {
    Load::new(scene.service.v4).also_to(scene.service.v6).connections(6).key(key, &[Scene::owner(key)])
}

#[rstest]
fn spliced_and_unkeyed_requests_go_on_when_the_agent_is_killed(
    #[values(BBR, RENO)] congestion: &str,
    #[values(false, true)] gently: bool,
) -> Result<()> {
    let Some(scene) = Scene::open("killed", congestion)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let spliced = steady(&scene, Some(KEY)).start(&scene.client)?;
    let unkeyed = steady(&scene, None).start(&scene.client)?;
    let fresh = Load::new(scene.service.v4).connections(2).requests_per_connection(1);
    let fresh = fresh.key(None, &["base"]).key(Some(UNKNOWN_KEY), &["base"]).start(&scene.client)?;
    // Every connection has its leg.
    let legs = || (scene.fork.journal().connections() >= 6).then_some(());
    wait_for("all connections to be spliced", NOTICED, legs).with_context(|| agent.explain())?;
    for load in [&spliced, &unkeyed, &fresh] {
        load.more(100)?;
    }
    if gently {
        let status = agent.term()?;
        ensure!(status.success(), "{status}");
    } else {
        agent.kill9()?;
    }
    for load in [&spliced, &unkeyed, &fresh] {
        load.more(500)?;
    }
    for load in [spliced, unkeyed, fresh] {
        load.stop()?.all_well()?;
    }
    scene.isolated()
}

#[rstest]
fn no_request_fails_when_the_agent_is_killed_and_restarted_within_two_seconds(
    #[values(BBR, RENO)] congestion: &str,
) -> Result<()> {
    let Some(scene) = Scene::open("restarted", congestion)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let keys = [None, Some(KEY), Some(OTHER_KEY), Some(UNKNOWN_KEY)];
    let all = |load: Load| keys.into_iter().fold(load, |load, key| load.key(key, &[Scene::owner(key)]));
    let reused = all(Load::new(scene.service.v4)).connections(6).start(&scene.client)?;
    let fresh = Load::new(scene.service.v4).also_to(scene.service.v6).connections(4).requests_per_connection(3);
    let fresh = all(fresh).start(&scene.client)?;
    for _ in 0..3 {
        reused.more(200)?;
        fresh.more(50)?;
        let died = Instant::now();
        agent.kill9()?;
        agent.restart()?;
        ensure!(died.elapsed() < Duration::from_secs(2), "the agent took {:?} to be back", died.elapsed());
    }
    reused.more(500).with_context(|| agent.explain())?;
    fresh.more(100).with_context(|| agent.explain())?;
    reused.stop()?.all_well().with_context(|| agent.explain())?;
    fresh.stop()?.all_well().with_context(|| agent.explain())?;
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn a_transfer_under_way_survives_the_death() -> Result<()> {
    let Some(scene) = Scene::open("transfer", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    for key in [Some(KEY), None] {
        let mut http = scene.http()?;
        let request = Request::get("/bytes/50000000").maybe_key(key);
        http.send(&request.wire())?;
        let head = http.head()?;
        agent.kill9()?;
        let (bytes, _) = http.body(&head, false)?;
        ensure!(bytes == sidetrack_tests::digest::body(Scene::owner(key), 50_000_000));
        agent.restart()?;
    }
    scene.isolated()
}

#[test]
fn a_held_request_is_answered_by_the_next_agent() -> Result<()> {
    let Some(scene) = Scene::open("held", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let mut http = scene.http()?;
    http.exchange(&Request::get("/"))?;
    agent.kill9()?;
    // Nobody is there to dial: the head is the client's to retransmit.
    let request = Request::post("/echo", b"held".to_vec()).key(KEY);
    http.send(&request.wire())?;
    agent.restart()?;
    http.response(&request).with_context(|| agent.explain())?.verify_echo("fork", b"held")?;
    scene.isolated()
}

#[test]
fn a_new_agent_adopts_connections_legs_and_routes() -> Result<()> {
    let Some(scene) = Scene::open("adopts", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let mut http = scene.http()?;
    let both = |http: &mut Http, agent: &Agent| -> Result<()> {
        for key in [Some(KEY), None] {
            let request = Request::get("/bytes/2000").maybe_key(key);
            let response = http.exchange(&request).with_context(|| agent.explain())?;
            response.verify_bytes(Scene::owner(key), 2000)?;
        }
        Ok(())
    };
    both(&mut http, &agent)?;
    let before = agent.routes()?;
    for gently in [true, false] {
        if gently {
            agent.term()?;
        } else {
            agent.kill9()?;
        }
        both(&mut http, &agent)?;
        agent.restart()?;
        agent.wait_attached(["client", "base", "fork", "other"])?;
        ensure!(agent.routes()? == before, "routes and their numbers outlive the agent");
        both(&mut http, &agent)?;
    }
    ensure!(scene.fork.journal().connections() == 1, "the leg outlives the agent");
    ensure!(agent.status()?["programs"].as_array().is_some_and(|programs| programs.len() == 2));
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn a_route_file_changed_while_no_agent_ran_holds_when_one_starts() -> Result<()> {
    let Some(scene) = Scene::open("changed-meanwhile", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let mut http = scene.http()?;
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    agent.kill9()?;
    let routes = scene.routes().fork(KEY, &Scene::endpoints(&scene.other_pod)).without(OTHER_KEY);
    agent.write(routes.yaml())?;
    agent.restart()?;
    agent.wait_routes(&routes)?;
    for (key, server) in [(KEY, "other"), (OTHER_KEY, "base")] {
        let response = http.exchange(&Request::get("/").key(key)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == server, "{key} was served by {}", response.served_by());
    }
    Ok(())
}

#[test]
fn tools_work_while_the_agent_is_dead() -> Result<()> {
    let Some(scene) = Scene::open("tools-dead", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let mut http = scene.http()?;
    http.exchange(&Request::get("/").key(KEY))?;
    let routes = agent.routes()?;
    agent.kill9()?;
    let dead = || (agent.status().ok()?["agent"]["alive"] == false).then_some(());
    wait_for("status to say that the agent is dead", NOTICED, dead)?;
    ensure!(agent.routes()? == routes);
    let flows = agent.flows()?;
    let client = http.local()?.to_string();
    let ours = flows["items"].as_array().and_then(|items| items.iter().find(|item| item["client"] == client));
    ensure!(ours.is_some_and(|flow| flow["owner"] == "fork"), "{flows}");
    ensure!(agent.is_attached("client"));
    Ok(())
}

#[test]
fn a_second_agent_waits_says_so_and_takes_over() -> Result<()> {
    let Some(scene) = Scene::open("second", BBR)? else { return Ok(()) };
    let mut first = scene.agent()?;
    let mut second = Agent::idle(&scene.lab, &[]);
    second.launch()?;
    let said = || {
        let lines = second.output()?.lines();
        lines.iter().any(|line| line.to_lowercase().contains("wait")).then_some(())
    };
    wait_for("the second agent to say that it waits", NOTICED, said).with_context(|| second.explain())?;
    let status = first.status()?;
    ensure!(status["agent"]["alive"] == true, "{status}");
    let mut http = scene.http()?;
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    first.kill9()?;
    second.wait_alive()?;
    let mut fresh = scene.http()?;
    for http in [&mut http, &mut fresh] {
        let response = http.exchange(&Request::get("/").key(OTHER_KEY)).with_context(|| second.explain())?;
        ensure!(response.served_by() == "other");
    }
    Ok(())
}

#[rstest]
fn purge_leaves_nothing_behind(#[values(false, true)] running: bool) -> Result<()> {
    let Some(scene) = Scene::open("purge", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let mut http = scene.http()?;
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    if running {
        // A running agent is in the way, or is told to go: either is fine, leaving half of it is not.
        if let Err(refused) = agent.purge() {
            let words = format!("{refused:#}");
            ensure!(words.contains("agent"), "{words}");
            ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
        }
        agent.kill9()?;
    } else {
        agent.term()?;
    }
    agent.purge()?;
    let pins = scene.lab.pin_dir();
    let left: Vec<_> = std::fs::read_dir(&pins).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    ensure!(left.is_empty(), "{left:?}");
    for pod in [&scene.client, &scene.base_pod, &scene.fork_pod] {
        let filters = pod.tc("filter show dev eth0 egress")? + &pod.tc("filter show dev eth0 ingress")?;
        ensure!(filters.is_empty(), "{filters}");
    }
    let response = scene.http()?.exchange(&Request::get("/bytes/10").key(KEY))?;
    response.verify_bytes("base", 10)?;
    ensure!(agent.status().is_err_and(|error| format!("{error:#}").contains("no agent has run")));
    agent.restart()?;
    agent.wait_routes(&scene.routes())?;
    agent.wait_attached(["client"])?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    Ok(())
}

/// Its clients close while it is dead. The successor ends what they leave, also where its first look comes before it knows their pods.
#[rstest]
fn what_closes_while_no_agent_runs_is_ended_by_the_next_one(
    #[values(false, true)] reset: bool,
    #[values(&[None, Some(KEY)][..], &[None, Some(KEY), None][..], &[Some(KEY)][..])] history: &[Option<&str>],
) -> Result<()> {
    let Some(scene) = Scene::open("closed-meanwhile", RENO)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let mut open = Vec::new();
    for via in Via::ALL {
        let mut http = scene.client.http(scene.address(via))?;
        for key in history {
            http.exchange(&Request::get("/").maybe_key(*key)).with_context(|| agent.explain())?;
        }
        open.push(http);
    }
    agent.kill9()?;
    for http in open {
        if reset {
            http.abort()?;
        }
    }
    agent.restart()?;
    let gone = || [&scene.base, &scene.fork].iter().all(|origin| origin.clients().is_empty()).then_some(());
    wait_for("every server's connections to end", NOTICED, gone).with_context(|| agent.explain())?;
    agent.no_errors()
}

/// The pod's ends of all legs that there are.
fn legs(scene: &Scene) -> Result<BTreeSet<SocketAddr>> {
    let map = MapData::from_pin(scene.lab.pin_dir().join(format!("v{ABI}/legs")))?;
    let map: HashMap<_, [u8; size_of::<Tuple>()], [u8; size_of::<Leg>()]> = HashMap::try_from(Map::HashMap(map))?;
    let local = |key: [u8; size_of::<Tuple>()]| Ok(Tuple::read_from_bytes(&key).expect("as long").local_addr());
    map.keys().map(|key| local(key?)).collect()
}

/// The fork's clients, as the records name them.
fn clients(scene: &Scene) -> impl Iterator<Item = SocketAddr> {
    scene.fork.clients().into_iter().map(|client| SocketAddr::new(client.ip().to_canonical(), client.port()))
}

/// What the fork has open and no leg leads to, once what was to end at the agent's death has ended.
fn stuck(scene: &Scene) -> Result<BTreeSet<SocketAddr>> {
    let legs = legs(scene)?;
    let mut left = BTreeSet::new();
    let none = || {
        left = clients(scene).filter(|client| !legs.contains(client)).collect();
        left.is_empty().then_some(())
    };
    _ = wait_for("no connection without a leg", Duration::from_millis(300), none);
    Ok(left)
}

/// Killed amid dials, again and again, until it was between a connection's freezing and its leg's record.
#[test]
fn what_a_killed_agent_has_dialled_and_not_stored_is_ended_by_the_next_one() -> Result<()> {
    const CLIENTS: usize = 60;
    let Some(scene) = Scene::open("unfinished", RENO)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    for round in 1..=200 {
        let mut open = (0..CLIENTS).map(|_| Ok(scene.http()?)).collect::<Result<Vec<_>>>()?;
        for http in &mut open {
            http.exchange(&Request::get("/")).with_context(|| agent.explain())?;
        }
        // It finds them all at once, and has no pause between two dials.
        agent.freeze()?;
        let head = Request::get("/").key(KEY).wire();
        open.iter_mut().try_for_each(|http| http.send(&head))?;
        agent.thaw()?;
        while clients(&scene).count() < round % (CLIENTS / 2) {
            thread::yield_now();
        }
        agent.kill9()?;
        let stuck = stuck(&scene)?;
        for http in open {
            http.abort()?;
        }
        agent.restart()?;
        agent.wait_attached(["client"])?;
        if !stuck.is_empty() {
            eprintln!("round {round}: {} connections without a leg", stuck.len());
            let ended = || clients(&scene).all(|client| !stuck.contains(&client)).then_some(());
            wait_for("them to be ended", Duration::from_secs(5), ended).with_context(|| agent.explain())?;
            scene.isolated()?;
            return agent.no_errors();
        }
    }
    bail!("the agent was never killed at that moment: nothing was tested")
}

/// Waits until tools, and so the kernel programs too, take the agent for dead; not longer than it may take.
fn known_dead(agent: &Agent) -> Result<()> {
    let died = Instant::now();
    let dead = || agent.status().is_ok_and(|status| status["agent"]["alive"] == false).then_some(());
    wait_for("the death to be known", NOTICED, dead)?;
    // Two seconds, and what it takes to ask.
    ensure!(died.elapsed() < Duration::from_secs(4), "the death was known after {:?}", died.elapsed());
    Ok(())
}

/// A request that nobody has asked a fork for, and that needs an agent nonetheless.
#[rstest]
#[case::in_parts(true)]
#[case::behind_another_in_one_segment(false)]
fn an_unkeyed_request_waits_for_an_agent_that_stands_still(#[case] in_parts: bool) -> Result<()> {
    let Some(scene) = Scene::open("stands-still", RENO)? else { return Ok(()) };
    let agent = scene.agent()?;
    let (mut http, mut other) = (scene.http()?, scene.http()?);
    for http in [&mut http, &mut other] {
        http.exchange(&Request::get("/").key(KEY))?;
    }
    agent.freeze()?;
    known_dead(&agent)?;
    let ask = |http: &mut Http, key: Option<&str>| {
        let (keyed, wanted) = (Request::get("/").key(KEY), Request::get("/").maybe_key(key));
        if in_parts {
            let wire = wanted.wire();
            http.send(&wire[..9])?;
            http.settle()?;
            http.send(&wire[9..])?;
        } else {
            http.send(&[keyed.wire(), wanted.wire()].concat())?;
            http.response(&keyed)?;
        }
        http.response(&wanted)
    };
    let answered = thread::scope(|scope| {
        let unkeyed = scope.spawn(|| ask(&mut http, None));
        let refused = ask(&mut other, Some(OTHER_KEY));
        ensure!(matches!(refused, Err(HttpError::Reset)), "{refused:?}\n{}", agent.explain());
        thread::sleep(Duration::from_secs(3));
        ensure!(!unkeyed.is_finished(), "nobody was there to let it go on");
        agent.thaw()?;
        unkeyed.join().expect("it panics at nothing").with_context(|| agent.explain())
    })?;
    ensure!(answered.served_by() == "base", "{answered:?}");
    ensure!(agent.counter("reset_agent_dead")? == 1, "{}", agent.explain());
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn what_needs_a_dead_agent_is_reset_at_once_and_all_else_goes_on() -> Result<()> {
    let Some(scene) = Scene::open("known-dead", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let mut hot = scene.http()?;
    for key in [Some(KEY), None] {
        hot.exchange(&Request::get("/").maybe_key(key))?;
    }
    agent.kill9()?;
    known_dead(&agent)?;
    // Its legs are there: switching them takes no agent.
    for key in [Some(KEY), None, Some(KEY), Some(UNKNOWN_KEY)] {
        let response = hot.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == Scene::owner(key));
    }
    let mut fresh = scene.http()?;
    fresh.exchange(&Request::get("/"))?;
    for (http, key) in [(&mut fresh, KEY), (&mut hot, OTHER_KEY), (&mut scene.http()?, KEY)] {
        let asked = Instant::now();
        let outcome = http.exchange(&Request::get("/").key(key));
        ensure!(matches!(outcome, Err(HttpError::Reset)), "{outcome:?}\n{}", agent.explain());
        ensure!(asked.elapsed() < Duration::from_secs(1), "the reset took {:?}", asked.elapsed());
    }
    ensure!(agent.counter("reset_agent_dead")? == 3, "{}", agent.explain());
    scene.http()?.exchange(&Request::get("/"))?;
    agent.restart()?;
    ensure!(scene.http()?.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    scene.isolated()?;
    agent.no_errors()
}

#[test]
fn a_head_that_is_held_when_its_agent_dies_and_none_follows_is_reset() -> Result<()> {
    let Some(scene) = Scene::open("held-dead", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let mut http = scene.http()?;
    http.exchange(&Request::get("/"))?;
    agent.kill9()?;
    let asked = Instant::now();
    let outcome = http.exchange(&Request::get("/").key(KEY));
    ensure!(matches!(outcome, Err(HttpError::Reset)), "{outcome:?}\n{}", agent.explain());
    // The first retransmission behind the two seconds asks; they come after 0.2, 0.6, 1.4 and 3 s.
    ensure!(asked.elapsed() < Duration::from_secs(5), "the reset took {:?}", asked.elapsed());
    scene.isolated()
}

#[test]
fn a_route_that_falls_back_does_so_while_the_agent_is_dead() -> Result<()> {
    let Some(scene) = Scene::open("dead-instead", BBR)? else { return Ok(()) };
    let routes = scene.routes().fork_or_baseline(OTHER_KEY, &Scene::endpoints(&scene.other_pod));
    let mut agent = Agent::start(&scene.lab, &routes)?;
    agent.wait_attached(["client"])?;
    let mut http = scene.http()?;
    ensure!(http.exchange(&Request::get("/").key(KEY))?.served_by() == "fork");
    agent.kill9()?;
    known_dead(&agent)?;
    for (key, by) in [(Some(OTHER_KEY), "base"), (Some(KEY), "fork"), (Some(OTHER_KEY), "base"), (None, "base")] {
        let response = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
        ensure!(response.served_by() == by, "{key:?}: {}", response.served_by());
    }
    ensure!(agent.counter("baseline_instead")? == 2);
    agent.restart()?;
    ensure!(http.exchange(&Request::get("/").key(OTHER_KEY))?.served_by() == "other");
    Ok(())
}

#[test]
fn a_successor_whose_table_is_not_valid_goes_on_with_what_is_pinned() -> Result<()> {
    let Some(scene) = Scene::open("broken-table", BBR)? else { return Ok(()) };
    let mut agent = scene.agent()?;
    let mut open = scene.http()?;
    open.exchange(&Request::get("/").key(KEY))?;
    agent.kill9()?;
    agent.write("kind: nonsense\n")?;
    agent.restart()?;
    agent.wait_attached(["client"])?;
    for http in [&mut open, &mut scene.http()?] {
        for key in [Some(KEY), None, Some(OTHER_KEY)] {
            let served = http.exchange(&Request::get("/").maybe_key(key)).with_context(|| agent.explain())?;
            ensure!(served.served_by() == Scene::owner(key), "{key:?} was served by {}", served.served_by());
        }
    }
    ensure!(matches!(scene.http()?.exchange(&Request::get("/").key(FAIL_KEY)), Err(HttpError::Reset)));
    scene.isolated()?;
    agent.no_errors()
}
