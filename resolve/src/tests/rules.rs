use std::collections::BTreeMap;

use sidetrack_splice::table::{
    ADDRESSES_MAX, ENDPOINTS_MAX, OnUnreachable, ROUTES_MAX, Route, RouteTable, Service as TableService, To,
};

use super::world::*;
use crate::*;

const CLUSTER: &str = "10.96.0.10:80";
const FORK: &str = "10.1.0.9:8080";
const NOT_READY: &str = "fail: fork fork of sandbox pr has no pod that is ready";
const GONE: &str = "fail: its sandbox pr is gone";

/// `orders` with Sandbox `pr`, key `k`, whose fork has one pod of either family that is ready.
fn forked() -> World {
    let mut world = World::orders();
    world.sandbox("pr", sandbox("k", &["orders"]));
    world.pod("pr-1", pod("pr", &["10.1.0.9", "fd00:1::9"]));
    world
}

#[test]
fn a_service_is_tracked_by_its_own_addresses_and_by_those_of_its_pods_in_both_families() {
    let table = forked().resolve().table;
    let [service] = table.services() else { panic!("{table:?}") };
    let addresses: Vec<_> = service.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(service.name, "shop/orders");
    assert_eq!(
        addresses,
        ["10.1.0.1:8080", "10.1.0.2:8080", CLUSTER, "[fd00:1::1]:8080", "[fd00:1::2]:8080", "[fd00:96::10]:80"]
    );
    assert_eq!(forked().at(CLUSTER, "k").as_deref(), Some("10.1.0.9:8080,[fd00:1::9]:8080"));
}

#[test]
fn a_service_that_nobody_forks_is_not_tracked() {
    assert_eq!(World::orders().resolve(), Resolved::default());
}

#[test]
fn every_tcp_port_is_a_service_of_the_table_that_says_which() {
    let mut world = forked();
    world.service("orders", service(&["10.96.0.10"], &[port("web", 80, 8080), port("admin", 81, 9000)]));
    world.list("orders", &[("orders-1", slice("orders", &[("web", 8080), ("admin", 9000)], &["10.1.0.1"]))]);
    world.slice("orders-2", slice("orders", &[], &[]));
    let routes = world.routes();
    assert_eq!(routes[0], "shop/orders:80 k 10.1.0.9:8080,[fd00:1::9]:8080");
    assert_eq!(routes[1], "shop/orders:81 k 10.1.0.9:9000,[fd00:1::9]:9000");
    assert!(world.at("10.1.0.1:9000", "k").is_some_and(|to| to.starts_with("10.1.0.9:9000")));
}

#[test]
fn a_headless_service_is_tracked_by_its_pods() {
    let mut world = forked();
    world.service("orders", service(&[], &[port("", 80, 8080)]));
    assert_eq!(world.at("10.1.0.1:8080", "k").as_deref(), Some("10.1.0.9:8080,[fd00:1::9]:8080"));
    assert_eq!(world.at(CLUSTER, "k"), None);
    world.list("orders", &[("orders-1", slice("orders", &[], &[])), ("orders-2", slice("orders", &[], &[]))]);
    assert_eq!(world.outcome("pr"), Outcome::Unsteered(Why::NoAddress("orders".into())));
}

#[test]
fn addresses_of_two_services_are_one_group_with_the_routes_of_both() {
    let mut world = forked();
    world.service("shadow", service(&["10.96.0.20"], &[port("", 80, 8080)]));
    world.list("shadow", &[("shadow-1", slice("shadow", &[("", 8080)], &["10.1.0.1", "10.1.0.7"]))]);
    world.sandbox("other", sandbox("o", &["shadow"]));
    world.pod("other-1", pod("other", &["10.1.0.8"]));
    let names: Vec<_> = world.resolve().table.services().iter().map(|service| service.name.clone()).collect();
    assert_eq!(names, ["shop/orders", "shop/orders+shop/shadow", "shop/shadow"]);
    let at = |address, key| world.at(address, key);
    assert_eq!(at("10.1.0.1:8080", "k").as_deref(), Some("10.1.0.9:8080,[fd00:1::9]:8080"));
    assert_eq!(at("10.1.0.1:8080", "o").as_deref(), Some("10.1.0.8:8080"));
    // What is one Service's own has its routes alone.
    assert_eq!((at("10.1.0.2:8080", "o"), at(CLUSTER, "o")), (None, None));
    assert_eq!((at("10.1.0.7:8080", "k"), at("10.96.0.20:80", "k")), (None, None));
}

#[test]
fn a_name_of_a_group_that_would_be_too_long_is_cut_and_stays_unique() {
    let mut world = World::empty();
    let long: Vec<String> = ["a", "b", "c", "d"].iter().map(|it| it.repeat(60)).collect();
    for (n, of) in long.iter().enumerate() {
        world.service(of, service(&[], &[port("", 80, 8080)]));
        let addresses = ["10.1.0.1".to_owned(), format!("10.2.0.{}", n / 2)];
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        world.list(of, &[(of, slice(of, &[("", 8080)], &addresses))]);
    }
    let services: Vec<_> = long.iter().map(String::as_str).collect();
    world.sandbox("pr", sandbox("k", &services));
    let table = world.resolve().table;
    let names: Vec<_> = table.services().iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let four = format!("shop/{}+3.", long[0]);
    assert!(names.iter().any(|name| name.starts_with(&four)), "{names:?}");
}

#[test]
fn a_named_port_is_that_of_the_forks_own_containers() {
    let mut world = forked();
    let http = ServicePort { name: String::new(), port: 80, target: TargetPort::Name("http".into()) };
    world.service("orders", service(&["10.96.0.10"], &[http]));
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some("10.1.0.9:9090,[fd00:1::9]:9090"));
    world.pod("pr-1", Pod { ports: Vec::new(), ..pod("pr", &["10.1.0.9"]) });
    let why = Why::NoNamedPort { fork: "fork".into(), port: "http".into() };
    assert_eq!(world.outcome("pr"), Outcome::Refused(why));
}

#[test]
fn only_pods_that_are_ready_and_do_not_end_are_endpoints() {
    for state in [PodState::Unready, PodState::Terminating, PodState::Completed] {
        let mut world = forked();
        world.pod("pr-1", Pod { state, ..pod("pr", &["10.1.0.9"]) });
        let refused = world.at(CLUSTER, "k").expect("a route");
        assert!(refused.starts_with("fail: fork fork of sandbox pr has no pod"), "{state:?}: {refused}");
        world.pod("pr-2", pod("pr", &["10.1.0.10"]));
        assert_eq!(world.at(CLUSTER, "k").as_deref(), Some("10.1.0.10:8080"), "{state:?}");
    }
}

#[test]
fn a_fork_without_a_pod_is_refused_and_says_which() {
    let mut world = forked();
    world.pod("pr-1", Pod { state: PodState::Unready, ..pod("pr", &["10.1.0.9"]) });
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some(NOT_READY));
    world.tell(Change::Pods(Selection::Labelled, Update::List(BTreeMap::new())));
    let why = Why::NoPod { sandbox: "pr".into(), fork: "fork".into() };
    assert_eq!(world.outcome("pr"), Outcome::Refused(why));
}

#[test]
fn where_the_sandbox_says_so_the_baseline_answers_while_no_pod_is_ready() {
    let mut world = forked();
    world.sandbox("pr", Sandbox { on_unreachable: OnUnreachable::Baseline, ..sandbox("k", &["orders"]) });
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some("10.1.0.9:8080,[fd00:1::9]:8080"));
    world.tell(Change::Pods(Selection::Labelled, Update::List(BTreeMap::new())));
    assert_eq!(world.at(CLUSTER, "k"), None);
    assert!(matches!(world.outcome("pr"), Outcome::Baseline(Why::NoPod { .. })));
    // The Service is tracked all the same.
    assert_eq!(world.resolve().table.services().len(), 1);
}

#[test]
fn pods_of_another_fork_or_of_an_earlier_sandbox_of_the_name_do_not_count() {
    let mut world = forked();
    world.pod("pr-1", Pod { made_for: Some(("pr".into(), "payments".into())), ..pod("pr", &["10.1.0.9"]) });
    world.pod("pr-2", Pod { created: later(-4000), ..pod("pr", &["10.1.0.8"]) });
    assert!(matches!(world.outcome("pr"), Outcome::Refused(Why::NoPod { .. })));
}

#[test]
fn pods_that_a_selector_names_are_a_forks_once_they_are_known() {
    let mut world = World::orders();
    let selected = Selection::Selected { namespace: NS.into(), selector: "app=mock".into() };
    let fork = Fork { pods: selected.clone(), ..fork("fork", &["orders"]) };
    world.sandbox("pr", Sandbox { forks: vec![fork], ..sandbox("k", &["orders"]) });
    assert!(world.stores.wanted(now()).pods.contains(&selected));
    assert!(matches!(world.outcome("pr"), Outcome::Refused(Why::PodsUnknown { .. })));
    let mock = Pod { made_for: None, created: later(-90_000), ..pod("", &["10.1.0.9"]) };
    world.tell(Change::Pods(selected, Update::List([(name("mock-1"), mock)].into())));
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some(FORK));
}

#[test]
fn a_pod_that_is_an_endpoint_of_the_service_is_no_forks() {
    let mut world = forked();
    world.slice("orders-2", slice("orders", &[("", 8080)], &["fd00:1::9"]));
    let why = Why::IsBaseline { fork: "fork".into(), service: "orders".into() };
    assert_eq!(world.outcome("pr"), Outcome::Refused(why));
    assert!(world.at("[fd00:1::9]:8080", "k").is_some_and(|to| to.starts_with("fail: ")));
    world.pod("pr-2", pod("pr", &["10.1.0.10"]));
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some("10.1.0.10:8080"));
    assert_eq!(world.notes("pr"), [Note::BaselinePods(1)]);
}

#[test]
fn until_the_endpoints_of_a_service_are_known_its_fork_gets_nothing() {
    let mut world = forked();
    world.service("payments", service(&["10.96.0.30"], &[port("", 80, 8080)]));
    world.sandbox("pr", sandbox("k", &["payments"]));
    assert_eq!(world.outcome("pr"), Outcome::Refused(Why::EndpointsUnknown("payments".into())));
    assert!(world.stores.wanted(now()).slices["shop"].contains("payments"));
    world.list("payments", &[]);
    assert!(matches!(world.outcome("pr"), Outcome::Routed(_)));
    assert_eq!(world.notes("pr"), [Note::NoBaseline]);
}

#[test]
fn a_service_that_goes_leaves_its_endpoints_refused() {
    let mut world = forked();
    world.tell(Change::Services(Update::Remove(name("orders"))));
    assert_eq!(world.at("10.1.0.1:8080", "k").as_deref(), Some("fail: there is no service orders"));
    world.list("orders", &[("orders-1", slice("orders", &[], &[])), ("orders-2", slice("orders", &[], &[]))]);
    assert_eq!(world.outcome("pr"), Outcome::Unsteered(Why::NoService("orders".into())));
}

#[test]
fn what_cannot_be_steered_says_why() {
    let mut world = forked();
    world.service("orders", Service { external: true, ..service(&[], &[port("", 80, 8080)]) });
    assert_eq!(world.outcome("pr"), Outcome::Unsteered(Why::External("orders".into())));
    world.service("orders", service(&["10.96.0.10"], &[]));
    assert_eq!(world.outcome("pr"), Outcome::Unsteered(Why::NoTcpPort("orders".into())));
    world.service("orders", service(&["10.96.0.10"], &[port("", 80, 8080)]));
    world.sandbox("pr", sandbox(&"k".repeat(64), &["orders"]));
    assert_eq!(world.outcome("pr"), Outcome::Unsteered(Why::NoKey("shop/pr".into())));
}

#[test]
fn a_sandbox_that_expires_is_refused_for_ten_minutes() {
    let mut world = forked();
    world.sandbox("pr", Sandbox { expires_at: Some(later(30)), ..sandbox("k", &["orders"]) });
    assert_eq!(world.resolve().next, Some(later(30)));
    assert!(matches!(world.outcome("pr"), Outcome::Routed(_)));
    world.now = later(30);
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some(GONE));
    assert_eq!(world.resolve().sandboxes[&name("pr")].state, State::Gone);
    assert_eq!(world.resolve().next, Some(later(630)));
    world.now = later(630);
    assert_eq!(world.at(CLUSTER, "k"), None);
    assert_eq!(world.resolve().sandboxes[&name("pr")].state, State::Forgotten);
    assert_eq!(world.resolve().next, None);
    // Somebody gives it more time.
    world.sandbox("pr", Sandbox { expires_at: Some(later(900)), ..sandbox("k", &["orders"]) });
    assert!(matches!(world.outcome("pr"), Outcome::Routed(_)));
}

#[test]
fn a_sandbox_that_is_deleted_is_refused_for_ten_minutes() {
    let mut world = forked();
    world.delete("pr");
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.contains("gone")));
    assert_eq!(world.resolve().next, Some(later(600)));
    world.now = later(599);
    world.stores.forget(world.now);
    assert!(world.at("10.1.0.1:8080", "k").is_some_and(|to| to.contains("gone")), "its endpoints are known still");
    world.now = later(600);
    assert_eq!(world.at(CLUSTER, "k"), None);
    world.stores.forget(world.now);
    assert!(world.stores.tombstones.is_empty() && world.stores.slices.is_empty(), "{world:?}");
}

#[test]
fn a_sandbox_that_waits_for_its_finalizers_is_gone_already() {
    let mut world = forked();
    world.sandbox("pr", Sandbox { deleted_at: Some(now()), ..sandbox("k", &["orders"]) });
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some(GONE));
    world.now = later(500);
    world.delete("pr");
    assert_eq!(world.resolve().next, Some(later(600)), "it counts from the deletion");
}

#[test]
fn a_sandbox_that_a_list_has_not_is_gone() {
    let mut world = forked();
    world.tell(Change::Sandboxes(Update::List(BTreeMap::new())));
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.contains("gone")));
}

#[test]
fn a_key_that_its_sandbox_gives_up_is_refused_and_a_service_that_it_forks_no_longer_is_not() {
    let mut world = forked();
    world.sandbox("pr", sandbox("other", &["orders"]));
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.contains("gone")), "another uid");
    let mut world = forked();
    world.sandbox("pr", Sandbox { keys: ["new".to_owned()].into(), ..sandbox("k", &["orders"]) });
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.contains("gone")));
    assert!(world.at(CLUSTER, "new").is_some_and(|to| to.contains(FORK)));
    let mut world = forked();
    world.sandbox("pr", sandbox("k", &["payments"]));
    assert_eq!(world.at(CLUSTER, "k"), None);
}

#[test]
fn a_living_sandbox_counts_before_one_that_has_gone() {
    let mut world = forked();
    world.delete("pr");
    world.sandbox("again", sandbox("k", &["orders"]));
    world.pod("again-1", pod("again", &["10.1.0.8"]));
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some("10.1.0.8:8080"));
    assert_eq!(world.notes("again"), []);
    world.delete("again");
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.contains("gone")));
}

#[test]
fn of_two_sandboxes_with_one_key_the_older_wins_and_the_younger_says_so() {
    let mut world = forked();
    world.sandbox("young", Sandbox { created: later(-3599), ..sandbox("k", &["orders"]) });
    world.pod("young-1", pod("young", &["10.1.0.8"]));
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.contains(FORK)));
    let lost = Note::Conflict { key: "k".into(), sandbox: name("pr"), fork: "fork".into() };
    assert_eq!((world.notes("young"), world.notes("pr")), (vec![lost], vec![]));
    // Of one age: by uid.
    world.sandbox("young", Sandbox { uid: "a".into(), ..sandbox("k", &["orders"]) });
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some("10.1.0.8:8080"));
    assert!(matches!(&world.notes("pr")[..], [Note::Conflict { sandbox, .. }] if *sandbox == name("young")));
    // The older one goes: the younger has the key at once.
    world.delete("young");
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.contains(FORK)));
}

#[test]
fn the_older_wins_though_it_is_not_ready() {
    let mut world = forked();
    world.pod("pr-1", Pod { state: PodState::Unready, ..pod("pr", &["10.1.0.9"]) });
    world.sandbox("young", Sandbox { created: later(-120), ..sandbox("k", &["orders"]) });
    world.pod("young-1", pod("young", &["10.1.0.8"]));
    assert_eq!(world.at(CLUSTER, "k").as_deref(), Some(NOT_READY));
}

#[test]
fn routes_that_an_earlier_agent_has_left_and_nobody_has_now_are_refused() {
    let mut world = forked();
    let left = |name: &str, address: &str, keys: &[&str]| TableService {
        name: name.into(),
        addresses: vec![address.parse().expect("an address")],
        routes: keys
            .iter()
            .map(|key| Route { key: (*key).into(), to: To::Fail { reason: "whatever".into() } })
            .collect(),
    };
    world.service("shadow", service(&["10.96.0.20"], &[port("a", 80, 8080), port("b", 81, 8081)]));
    let pinned = RouteTable::new(vec![
        left("shop/orders", CLUSTER, &["k", "lost"]),
        left("shop/orders+shop/shadow:80", "10.1.0.1:8080", &["lost", "alone"]),
        left("no namespace", "10.96.0.77:80", &["lost"]),
    ]);
    // A file of routes may have any names.
    assert!(pinned.is_err());
    let pinned = RouteTable::new(vec![
        left("shop/orders", CLUSTER, &["k", "lost"]),
        left("shop/orders+shop/shadow:80", "10.1.0.1:8080", &["lost", "alone"]),
        left("plain", "10.96.0.77:80", &["lost"]),
    ]);
    world.stores.adopt(&pinned.expect("a valid table"), world.now);
    let gone = |address, key| world.at(address, key).is_some_and(|to| to.contains("gone"));
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.contains(FORK)), "its Sandbox lives");
    assert!(gone(CLUSTER, "lost") && gone("10.1.0.1:8080", "lost"));
    assert!(!gone("10.96.0.20:80", "lost"), "what they share was the one's");
    assert!(gone(CLUSTER, "alone") && gone("10.96.0.20:80", "alone"), "whose it was nobody knows");
    assert_eq!(world.resolve().next, Some(later(600)));
}

#[test]
fn an_agent_that_is_cut_off_refuses_what_leads_to_forks() {
    let mut world = forked();
    world.sandbox("soft", Sandbox { on_unreachable: OnUnreachable::Baseline, ..sandbox("s", &["orders"]) });
    world.pod("soft-1", pod("soft", &["10.1.0.8"]));
    world.sandbox("dead", sandbox("d", &["orders"]));
    let reason = "the cluster's API has not been heard for 1m";
    let table = cut_off(&world.resolve().table, reason);
    let routes: Vec<_> = table.services()[0].routes.iter().map(|route| (route.key.as_str(), to(&route.to))).collect();
    let not_there = "fail: fork fork of sandbox dead has no pod".to_owned();
    assert_eq!(routes, [("d", not_there), ("k", format!("fail: {reason}"))]);
}

#[test]
fn a_fork_of_very_many_pods_has_as_many_endpoints_as_a_route_holds() {
    let mut world = forked();
    for n in 0..100 {
        world.pod(&format!("pr-{n:03}"), pod("pr", &[&format!("10.3.0.{n}"), &format!("fd00:3::{n}")]));
    }
    let Outcome::Routed(endpoints) = world.outcome("pr") else { panic!("{:?}", world.outcome("pr")) };
    assert_eq!(endpoints.len(), ENDPOINTS_MAX);
    assert_eq!(endpoints.iter().filter(|endpoint| endpoint.is_ipv6()).count(), ENDPOINTS_MAX / 2);
    assert_eq!(world.notes("pr"), [Note::EndpointsLeftOut(202 - ENDPOINTS_MAX)]);
}

#[test]
fn where_addresses_find_no_room_those_of_the_services_come_first_and_the_oldest_sandboxes() {
    let mut world = forked();
    let many: Vec<String> =
        (0..ADDRESSES_MAX).map(|n| format!("10.{}.{}.{}", 100 + n / 65536, n / 256 % 256, n % 256)).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    world.service("huge", service(&["10.96.0.99"], &[port("", 80, 8080)]));
    world.list("huge", &[("huge-1", slice("huge", &[("", 8080)], &many))]);
    world.sandbox("young", Sandbox { created: later(-120), ..sandbox("y", &["huge"]) });
    world.pod("young-1", pod("young", &["10.1.0.8"]));
    assert!(world.at("10.1.0.1:8080", "k").is_some_and(|to| to.contains(FORK)));
    assert_eq!(world.at("10.96.0.99:80", "y").as_deref(), Some("10.1.0.8:8080"));
    assert_eq!(world.notes("young"), [Note::AddressesLeftOut(7)]);
}

#[test]
fn where_routes_find_no_room_the_youngest_sandboxes_have_none() {
    let mut world = forked();
    let keys = |begin: char| (0..ROUTES_MAX).map(|n| format!("{begin}{n}")).collect();
    world.sandbox("young", Sandbox { created: later(-120), keys: keys('y'), ..sandbox("y", &["orders"]) });
    let table = world.resolve().table;
    assert_eq!(table.routes(), ROUTES_MAX);
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.contains(FORK)));
    assert_eq!(world.outcome("young"), Outcome::Unsteered(Why::TableFull));
    assert!(matches!(&world.notes("young")[..], [Note::RouteLeftOut(key)] if key == "y9999"));
}

#[test]
fn a_reason_that_is_too_long_is_cut() {
    let mut world = World::orders();
    let (sandbox_name, fork_name) = ("s".repeat(63), "f".repeat(63));
    world.sandbox(&sandbox_name, Sandbox { forks: vec![fork(&fork_name, &["orders"])], ..sandbox("k", &[]) });
    assert!(world.at(CLUSTER, "k").is_some_and(|to| to.ends_with('…')));
}

#[test]
fn a_sandboxs_hash_says_whether_its_routes_are_the_same() {
    let hash = |world: &World| world.resolve().sandboxes[&name("pr")].hash;
    let world = forked();
    let mut same = forked();
    same.slice("orders-2", slice("orders", &[("", 8080)], &["fd00:1::3"]));
    same.sandbox("other", sandbox("o", &["orders"]));
    assert_eq!(hash(&world), hash(&same), "what is another's, and the baseline's pods, change nothing");
    let mut moved = forked();
    moved.pod("pr-1", pod("pr", &["10.1.0.10"]));
    let mut lost = forked();
    lost.pod("pr-1", Pod { state: PodState::Unready, ..pod("pr", &["10.1.0.9"]) });
    assert!(hash(&world) != hash(&moved) && hash(&world) != hash(&lost) && hash(&moved) != hash(&lost));
}
