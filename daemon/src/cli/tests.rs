use std::{net::SocketAddr, path::Path};

use clap::CommandFactory;
use sidetrack_splice::{
    abi::{
        addr::Tuple,
        control::Control,
        reason::{Effect, Reason},
        record::{
            ConnState, Connection, LEG_BASELINE, LEG_FORK, Leg, LegRef, NAME_POD, NAME_ROUTE, NAME_SERVICE, NameText,
            PHASE_CLOSED, PHASE_HOLD, PHASE_WATCH, RESP_RESET, RespState, STATE_OWNER, STATE_PARKED,
        },
    },
    table::{OnUnreachable, Programmed, Route, RouteTable, Service, To},
};

use super::*;
use crate::{
    names,
    pods::Outcome,
    state::{
        flows::{Filter, Flows},
        neighbours::{Hooks, Neighbour},
        pod::{MODE_TCX, PodKey, PodRecord},
        programs::Program,
        routes::Routes,
        status::{Agent, MapItem, PodItem, Status, counted, of_effect},
    },
};

const SECOND: u64 = 1_000_000_000;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The records that an agent writes for a table, in bytes and back, as a tool reads them.
fn snapshot() -> Snapshot {
    let fork = |endpoints: &[&str]| To::Fork {
        endpoints: endpoints.iter().map(|e| at(e)).collect(),
        on_unreachable: OnUnreachable::default(),
    };
    let route = |key: &str, to| Route { key: key.into(), to };
    let table = RouteTable::new(vec![
        Service {
            name: "shop/orders".into(),
            addresses: vec![at("10.96.0.10:80"), at("[fd00::11]:8080")],
            routes: vec![
                route("pr-1234", fork(&["10.99.0.12:8080", "[fd00::12]:8080"])),
                route("pr-99", To::Fail { reason: "its fork is not ready".into() }),
            ],
        },
        Service { name: "shop/cart".into(), addresses: vec![at("10.96.0.11:80")], routes: vec![] },
    ])
    .expect("valid");
    let mut programmed = Programmed::default();
    for op in programmed.plan(&table).expect("ids are left").ops {
        programmed.apply(&op);
    }
    let mut snapshot = Snapshot { now: 100 * SECOND, ..Snapshot::default() };
    snapshot.services = programmed.services().map(|(k, v)| (*k, *v)).collect();
    snapshot.routes = programmed.routes().map(|(k, v)| (*k, *v)).collect();
    let mut texts: Vec<(_, NameText)> = programmed.names().map(|(k, text)| (*k, names::encode(text))).collect();
    texts.push((names::pod_key(at("10.99.0.2:0").ip()), names::bytes("shop/frontend")));
    assert!(texts.iter().all(|(key, _)| matches!(key.kind, NAME_SERVICE | NAME_ROUTE | NAME_POD)));
    snapshot.names = state::snapshot::Names::read(&texts);
    snapshot
}

/// A connection whose owner stands in `slot` 0 (the baseline) or 1 (the fork).
fn connect(snapshot: &mut Snapshot, client: &str, phase: u8, slot: u8, asked: u32, answered: u32) {
    let tuple = Tuple::new(at(client), at("10.96.0.10:80"));
    let route = snapshot.routes.values().find(|route| route.kind == 1).expect("a fork");
    let backend = Tuple::new((at(client).ip(), 61001).into(), at("10.99.0.12:8080"));
    let mut connection = Connection {
        service: snapshot.services[&sidetrack_splice::table::service_addr(at("10.96.0.10:80"))].id,
        opened: 15 * SECOND,
        isn: 7,
        now: ConnState { phase, owner: slot, asked, active: 99 * SECOND, ..ConnState::default() },
        ..Connection::default()
    };
    let slots = [(LEG_BASELINE, tuple, 0), (LEG_FORK, backend, route.id)];
    for (n, (kind, leg, route)) in slots.into_iter().take(usize::from(slot) + 1).enumerate() {
        connection.legs[n] = LegRef {
            remote: leg.remote,
            remote_port: leg.remote_port,
            local_port: leg.local_port,
            route,
            kind,
            ..LegRef::default()
        };
        let owner = n == usize::from(slot);
        let state = if owner { STATE_OWNER } else { STATE_PARKED };
        let opened = if n == 0 { 15 } else { 50 } * SECOND;
        if slot > 0 {
            snapshot
                .legs
                .insert(leg, Leg { conn: tuple, isn: 7, kind, state, opened, active: 50 * SECOND, ..Leg::default() });
        }
    }
    connection.resp = RespState { answered, ..RespState::default() };
    snapshot.connections.push((tuple, connection));
}

fn flowing() -> Snapshot {
    let mut snapshot = snapshot();
    connect(&mut snapshot, "10.99.0.2:40000", PHASE_WATCH, 1, 12, 11);
    connect(&mut snapshot, "10.99.0.3:40001", PHASE_HOLD, 0, 1, 1);
    connect(&mut snapshot, "10.99.0.3:39999", PHASE_CLOSED, 0, 1, 1);
    connect(&mut snapshot, "10.99.0.3:40002", PHASE_WATCH, 1, 1, 0);
    let (_, reset) = snapshot.connections.last_mut().expect("just added");
    reset.resp.flags = RESP_RESET;
    snapshot
}

fn a_status() -> Status {
    let attached = PodRecord::attached(
        Path::new("/run/netns/client"),
        2,
        "eth0",
        &[at("10.99.0.2:0").ip(), at("[fd00::2]:0").ip()],
        MODE_TCX,
        40 * SECOND,
    );
    let odd = PodRecord::odd(Path::new("/run/netns/empty"), &Outcome::NoDefaultRoute, 10 * SECOND);
    let one = |by, id, name: &str, ours| Neighbour { by, id: Some(id), name: name.into(), ours };
    let mut client = PodItem::of(&PodKey::netns(4_026_532_100), &attached, 100 * SECOND);
    client.hooks = Some(Hooks {
        egress: vec![one("tcx", 41, "sidetrack_out", true), one("clsact", 7, "counter", false)],
        ingress: vec![one("tcx", 42, "sidetrack_in", true)],
    });
    let program = |hook, id, name: &str| Program {
        hook,
        id,
        name: name.into(),
        tag: "0123456789abcdef".into(),
        loaded_at: "2026-11-23T04:05:06Z".parse().ok(),
        run_count: 2_000,
        run_time_ns: 380_000,
    };
    let mut counts = vec![0; 128];
    for (reason, count) in [(Reason::Tracked, 1_234_567), (Reason::ResetSticky, 2), (Reason::OpaqueTls, 1_000)] {
        counts[reason as usize] = count;
    }
    Status {
        version: "0.1.0",
        abi: 1,
        pin_dir: "/sys/fs/bpf/sidetrack".into(),
        other_abis: vec![],
        agent: Agent::of(&Control { heartbeat: 99 * SECOND, pid: 77, ..Control::default() }, 100 * SECOND),
        programs: vec![program("egress", 41, "sidetrack_out"), program("ingress", 42, "sidetrack_in")],
        items: vec![client, PodItem::of(&PodKey::netns(4_026_532_101), &odd, 100 * SECOND)],
        maps: vec![MapItem { name: "connections", entries: 2, room: 65_536 }],
        counters: counted(&counts),
        resets: of_effect(&counts, Effect::Refused),
        opaque: of_effect(&counts, Effect::Unsteered),
    }
}

#[track_caller]
fn same(text: &str, golden: &str) {
    assert_eq!(text, golden.trim_start_matches('\n'), "\n--- is\n{text}--- should be\n{golden}---");
}

#[test]
fn routes_are_a_table_by_service() {
    same(
        &routes::table(&Routes::of(&snapshot())),
        "
SERVICE      ADDRESSES        KEY          GOES TO
shop/cart    10.96.0.11:80    -            baseline only
shop/orders  10.96.0.10:80    pr-1234  ->  10.99.0.12:8080
             [fd00::11]:8080               [fd00::12]:8080
                              pr-99    x   refused: its fork is not ready

2 routes at 2 services; every other key, and no key, goes to the baseline
",
    );
}

#[test]
fn flows_are_a_table_by_client_without_the_closed_ones() {
    same(
        &flows::table(&Flows::of(&flowing(), &Filter::default())),
        "
CLIENT                           SERVICE                      SERVED BY             KEY      PHASE  LEGS  REQUESTS    AGE  IDLE
shop/frontend (10.99.0.2:40000)  shop/orders (10.96.0.10:80)  fork 10.99.0.12:8080  pr-1234  watch     2     11/12  1m25s    1s
10.99.0.3:40001                  shop/orders (10.96.0.10:80)  baseline              -        hold      1         1  1m25s    1s

2 connections, 1 away from the baseline
",
    );
}

#[test]
fn wide_flows_have_a_line_for_each_leg() {
    same(
        &flows::wide(&Flows::of(&flowing(), &Filter::default())),
        "
CLIENT                           SERVICE                      SERVED BY             KEY      PHASE   LEGS  REQUESTS    AGE  IDLE
shop/frontend (10.99.0.2:40000)  shop/orders (10.96.0.10:80)  fork 10.99.0.12:8080  pr-1234  watch      2     11/12  1m25s    1s
  leg 10.99.0.2:40000            shop/orders                  baseline              -        parked               -  1m25s   50s
  leg 10.99.0.2:61001            shop/orders                  fork 10.99.0.12:8080  pr-1234  owner                -    50s    1s
10.99.0.3:40001                  shop/orders (10.96.0.10:80)  baseline              -        hold       1         1  1m25s    1s
  leg 10.99.0.3:40001            shop/orders                  baseline              -        owner                1  1m25s    1s

2 connections, 1 away from the baseline
",
    );
}

#[test]
fn flows_can_be_asked_for_by_key_and_service_and_with_closed_ones() {
    let of = |filter| Flows::of(&flowing(), &filter).items.len();
    assert_eq!(of(Filter { closed: true, ..Filter::default() }), 4);
    assert_eq!(of(Filter { key: Some("pr-1234".into()), ..Filter::default() }), 1);
    assert_eq!(of(Filter { key: Some("pr-123".into()), ..Filter::default() }), 0);
    assert_eq!(of(Filter { service: Some("shop/orders".into()), ..Filter::default() }), 2);
    assert_eq!(of(Filter { service: Some("shop/cart".into()), ..Filter::default() }), 0);
}

#[test]
fn status_answers_one_question_after_another() {
    same(
        &status::table(&a_status()),
        "
sidetrack 0.1.0 (ABI 1), pins in /sys/fs/bpf/sidetrack
agent: alive (pid 77)

PROGRAM  NAME           ID  TAG               LOADED                 RUNS  NS/RUN
egress   sidetrack_out  41  0123456789abcdef  2026-11-23T04:05:06Z  2,000     190
ingress  sidetrack_in   42  0123456789abcdef  2026-11-23T04:05:06Z  2,000     190

POD                       MODE  INTERFACE  ADDRESSES  SINCE
client  attached          tcx   eth0 (2)   10.99.0.2  1m00s
                                           fd00::2
empty   no default route  -     -                     1m30s
  client: egress order is sidetrack -> counter (clsact id 7)
  empty: no default route; attached as soon as it has one

records: connections 2 of 65,536

RESETS        COUNT  MEANING
reset_sticky      2  The response has no length, or its framing was lost, and the next request is for another owner: reset.

OPAQUE      COUNT  MEANING
opaque_tls  1,000  TLS: never looked at again.

COUNTER      COUNT  MEANING
tracked  1,234,567  A connection to a service address was seen from its SYN on and is followed.
",
    );
}

#[test]
fn status_says_what_is_wrong() {
    let mut status = a_status();
    status.agent =
        Agent::of(&Control { heartbeat: 10 * SECOND, pid: 77, draining: 1, ..Control::default() }, 100 * SECOND);
    status.items[0].hooks = Some(Hooks::default());
    status.programs.clear();
    status.other_abis = vec![2];
    let text = status::table(&status);
    for words in [
        "there are also records of ABI 2",
        "agent: dead for 1m30s (pid 77 then); spliced connections run on, new forks are not dialled; draining",
        "programs: none is pinned, nothing is steered",
        "client: egress has no program of ours; restart the agent",
    ] {
        assert!(text.contains(words), "{words}\nis not in\n{text}");
    }
}

/// Escape sequences and line ends in every text that comes from outside.
#[test]
fn no_text_from_outside_reaches_the_terminal_as_it_is() {
    const BAD: &str = "a\x1b]0;owned\x07\x1b[2J\u{9b}31m\r\nforged";
    let bad = || BAD.to_owned();
    let tables = || {
        let (mut status, mut flows) = (a_status(), Flows::of(&flowing(), &Filter::default()));
        let mut routes = Routes::of(&snapshot());
        status.pin_dir = BAD.into();
        status.programs.iter_mut().for_each(|program| program.name = bad());
        status.items[1].hooks_unknown = Some(bad());
        for pod in &mut status.items {
            (pod.name, pod.interface) = (Some(bad()), pod.interface.as_ref().map(|_| bad()));
            pod.detail = pod.detail.as_ref().map(|_| bad());
            let hooks = pod.hooks.iter_mut().flat_map(|hooks| hooks.egress.iter_mut().chain(&mut hooks.ingress));
            hooks.for_each(|one| one.name = bad());
        }
        for flow in &mut flows.items {
            (flow.client_pod, flow.service, flow.key) = (Some(bad()), bad(), Some(bad()));
            flow.leg_items.iter_mut().for_each(|leg| leg.key = Some(bad()));
        }
        routes.services.iter_mut().for_each(|service| service.name = bad());
        for route in &mut routes.items {
            (route.service, route.key) = (bad(), bad());
            route.reason = route.reason.as_ref().map(|_| bad());
        }
        [status::table(&status), flows::wide(&flows), routes::table(&routes)]
    };
    for tainted in tables() {
        let odd: Vec<_> = tainted.chars().filter(|c| c.is_control() && *c != '\n').collect();
        assert!(odd.is_empty() && tainted.contains("\\u{1b}]0;owned"), "{odd:?} in {tainted:?}");
        assert!(!tainted.lines().any(|line| line.trim_start().starts_with("forged")), "{tainted}");
    }
}

#[test]
fn json_is_one_object_with_items_and_stable_names() {
    let value = |text: String| -> serde_json::Value { serde_json::from_str(&text).expect("JSON") };
    let routes = value(Output::Json.show(&Routes::of(&snapshot()), |_| String::new()));
    assert_eq!(
        routes["items"][0],
        serde_json::json!({
            "service": "shop/orders", "addresses": ["10.96.0.10:80", "[fd00::11]:8080"], "key": "pr-1234",
            "kind": "fork", "endpoints": ["10.99.0.12:8080", "[fd00::12]:8080"], "endpoints_more": 0,
            "reason": null, "on_unreachable": "fail", "id": 1, "version": 1
        })
    );
    let flows = value(Output::Json.show(&Flows::of(&flowing(), &Filter::default()), |_| String::new()));
    assert_eq!(
        flows["items"][0],
        serde_json::json!({
            "client": "10.99.0.2:40000", "client_pod": "shop/frontend", "service": "shop/orders",
            "service_address": "10.96.0.10:80", "phase": "watch", "owner": "fork", "owner_address": "10.99.0.12:8080",
            "key": "pr-1234", "legs": 2, "asked": 12, "answered": 11, "age_seconds": 85.0, "idle_seconds": 1.0,
            "leg_items": [
                {
                    "kind": "baseline", "state": "parked", "backend": "10.96.0.10:80", "local": "10.99.0.2:40000",
                    "key": null, "exchanges": null, "age_seconds": 85.0, "idle_seconds": 50.0
                },
                {
                    "kind": "fork", "state": "owner", "backend": "10.99.0.12:8080", "local": "10.99.0.2:61001",
                    "key": "pr-1234", "exchanges": null, "age_seconds": 50.0, "idle_seconds": 1.0
                }
            ]
        })
    );
    let leg = &flows["items"][1]["leg_items"][0];
    assert_eq!((&leg["state"], &leg["exchanges"]), (&"owner".into(), &1.into()), "the original alone");
    let status = value(Output::Json.show(&a_status(), |_| String::new()));
    assert_eq!(status["agent"]["alive"], true);
    assert_eq!(status["programs"][0]["loaded_at"], "2026-11-23T04:05:06Z");
    assert_eq!(status["counters"][0]["count"], 1_234_567);
    let counted = |list: &str, name: &str| {
        let found = status[list].as_array()?.iter().find(|counter| counter["name"] == name)?;
        found["count"].as_u64()
    };
    assert_eq!((counted("resets", "reset_sticky"), counted("resets", "heads_full")), (Some(2), Some(0)));
    assert_eq!((counted("opaque", "opaque_tls"), counted("opaque", "opaque_http2")), (Some(1_000), Some(0)));
    assert_eq!(status["items"][0]["hooks"]["egress"][1]["ours"], false);
    assert_eq!(status["items"][1]["outcome"], "no_default_route");
}

#[test]
fn nothing_to_show_says_so() {
    let empty = Snapshot::default();
    assert!(routes::table(&Routes::of(&empty)).starts_with("no service is routed"));
    assert!(flows::table(&Flows::of(&empty, &Filter::default())).starts_with("no connection is followed"));
}

#[test]
fn ages_are_said_as_people_say_them() {
    let said: Vec<_> = [0.25, 59.9, 60.0, 3_599.0, 3_660.0, 90_000.0].map(output::age).into();
    assert_eq!(said, ["250ms", "59s", "1m00s", "59m59s", "1h01m", "1d01h"]);
    assert_eq!([0, 999, 1_000, 1_234_567].map(output::grouped), ["0", "999", "1,000", "1,234,567"]);
}

#[test]
fn the_command_line_is_sound_and_short() {
    Cli::command().debug_assert();
    let words = ["sidetrack", "agent", "--routes", "r.yaml", "--netns-dir", "/a", "--netns-dir", "/b"];
    let Command::Agent(args) = Cli::try_parse_from(words).expect("valid").command else { panic!("agent") };
    assert_eq!(args.netns.netns_dirs, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(args.pins.pin_dir, Path::new(DEFAULT_PIN_DIR));
    let words = ["sidetrack", "status", "-o", "json"];
    let Command::Status(args) = Cli::try_parse_from(words).expect("valid").command else { panic!("status") };
    assert_eq!(args.show.output.output, Output::Json);
    assert_eq!(args.netns.netns_dirs, [Path::new(DEFAULT_NETNS_DIR)]);
    let words = ["sidetrack", "flows", "-o", "wide", "--all"];
    let Command::Flows(args) = Cli::try_parse_from(words).expect("valid").command else { panic!("flows") };
    assert_eq!((args.output, args.all), (FlowsOutput::Wide, true));
    assert!(Cli::try_parse_from(["sidetrack", "routes", "-o", "wide"]).is_err(), "they have no legs");
    let words = ["sidetrack", "agent", "--kubeconfig", "c.yaml", "--context", "lab", "--listen", "[::]:15020"];
    let Command::Agent(args) = Cli::try_parse_from(words).expect("valid").command else { panic!("agent") };
    assert!(args.kubeconfig.is_some() && args.context.is_some() && args.listen.is_some());
    let both = ["sidetrack", "agent", "--routes", "r.yaml", "--kubeconfig", "c.yaml"];
    assert!(Cli::try_parse_from(both).is_err(), "routes come from one place");
}

#[test]
fn each_kind_of_failure_has_an_exit_code_of_its_own() {
    let code = |error: StateError| exit_code(&anyhow::Error::from(error).context("reading"));
    assert_eq!(code(StateError::NoPins("/x".into())), EXIT_NOTHING);
    assert_eq!(code(StateError::Missing("/x/v1/control".into())), EXIT_FAILED);
    assert_eq!(exit_code(&anyhow::anyhow!("other")), EXIT_FAILED);
    let unknown = counter::explain(Some("no_such"), Output::Table).expect_err("no such counter");
    assert_eq!(exit_code(&unknown.into()), EXIT_USAGE);
}
