use std::{collections::BTreeSet, net::SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::abi::{
    record::{NAME_ROUTE, NAME_SERVICE},
    route::{ROUTE_FAIL, ROUTE_FORK},
};

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn fork(endpoints: &[&str]) -> To {
    To::Fork { endpoints: endpoints.iter().map(|e| at(e)).collect(), on_unreachable: OnUnreachable::Fail }
}

fn fail(reason: &str) -> To {
    To::Fail { reason: reason.into() }
}

fn service(name: &str, addresses: &[&str], routes: &[(&str, To)]) -> Service {
    Service {
        name: name.into(),
        addresses: addresses.iter().map(|a| at(a)).collect(),
        routes: routes.iter().map(|(key, to)| Route { key: (*key).into(), to: to.clone() }).collect(),
    }
}

fn table(services: Vec<Service>) -> RouteTable {
    RouteTable::new(services).expect("a valid table")
}

fn one(to: To) -> RouteTable {
    table(vec![service("shop/orders", &["10.96.0.10:80"], &[("pr-1", to)])])
}

fn bring(programmed: &mut Programmed, table: &RouteTable) -> Plan {
    let plan = programmed.plan(table).expect("ids are left");
    plan.ops.iter().for_each(|op| programmed.apply(op));
    plan
}

fn record(programmed: &Programmed, service: &str, key: &str) -> Option<crate::abi::route::Route> {
    let id = *programmed.ids_by_name().get(service)?;
    programmed.routes.get(&route_key(id, key)?).copied()
}

fn problems(services: Vec<Service>) -> Vec<String> {
    let invalid = RouteTable::new(services).expect_err("not valid");
    invalid.iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let to = fork(&["10.99.0.12:8080"]);
    let said = problems(vec![
        service("shop/orders", &["10.96.0.10:80", "127.0.0.1:80"], &[("pr 1", to.clone()), ("a", fork(&[]))]),
        service("shop/orders", &["10.96.0.10:80"], &[("a", to.clone()), ("a", fail("two\nlines"))]),
        service("a b", &[], &[("k", fork(&["[::ffff:10.0.0.1]:80", "10.1.1.1:0"]))]),
        service("self", &["10.1.1.1:80"], &[("k", fork(&["10.1.1.1:80", "10.1.1.2:80", "10.1.1.2:80"]))]),
    ]);
    let expected = [
        "services[0].addresses[1]: 127.0.0.1:80 cannot be reached from a pod (a loopback address stays in the pod)",
        "services[0].routes[0].key: \"pr 1\" is no sandbox key: expected 1 to 63 characters of A-Z a-z 0-9 . _ -",
        "services[0].routes[1].endpoints: empty: expected at least one \"ip:port\"",
        "services[1].name: a service named \"shop/orders\" stands above already",
        "services[1].addresses[0]: 10.96.0.10:80 belongs to service \"shop/orders\" already",
        "services[1].routes[1].key: this service has a route for key \"a\" above already",
        "services[1].routes[1].fail: expected a reason of 1 to 128 bytes on one line",
        "services[2].name: \"a b\" is no name of a service",
        "services[2].addresses: empty: expected at least one \"ip:port\" that clients dial",
        "services[2].routes[0].endpoints[0]: [::ffff:10.0.0.1]:80 is an IPv4 address in IPv6 form: write it as \"10.0.0.1:80\"",
        "services[2].routes[0].endpoints[1]: 10.1.1.1:0 cannot be reached from a pod (port 0)",
        "services[3].routes[0].endpoints[0]: 10.1.1.1:80 is an address of the service itself, which is the baseline",
        "services[3].routes[0].endpoints[2]: 10.1.1.2:80 stands above already",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said}\nis not\n{expected}");
    }
}

#[test]
fn a_key_has_63_characters_at_most() {
    assert_eq!(check_key(&"k".repeat(63)), Ok(()));
    assert!(check_key(&"k".repeat(64)).is_err());
    assert_eq!(key_text(&route_key(1, &"k".repeat(63)).expect("fits")), "k".repeat(63));
    assert_eq!(route_key(1, &"k".repeat(64)), None);
}

#[test]
fn a_name_says_which_port_and_which_services_and_fits_into_the_map_of_names() {
    for name in ["shop/orders:8080", "shop/orders+shop/orders-headless:80", &"n".repeat(191)] {
        table(vec![service(name, &["10.96.0.10:80"], &[])]);
    }
    for name in ["", "shop/orders,shop/payments", &"n".repeat(192)] {
        assert_eq!(problems(vec![service(name, &["10.96.0.10:80"], &[])]).len(), 1, "{name}");
    }
}

#[test]
fn a_first_table_puts_names_then_routes_then_addresses() {
    let plan = Programmed::default().plan(&one(fork(&["10.99.0.12:8080"]))).expect("ids are left");
    let kinds: Vec<_> = plan.ops.iter().map(|op| format!("{op:?}").split('(').next().map(str::to_owned)).collect();
    let kinds: Vec<_> = kinds.into_iter().flatten().collect();
    assert_eq!(kinds, ["PutName", "PutName", "PutName", "PutName", "PutRoute", "PutService"]);
}

#[test]
fn a_table_that_is_in_force_needs_no_step() {
    let mut programmed = Programmed::default();
    let table = one(fork(&["10.99.0.12:8080", "[fd00::12]:8080"]));
    bring(&mut programmed, &table);
    assert_eq!(bring(&mut programmed, &table).ops, []);
}

#[test]
fn a_version_goes_up_when_an_endpoint_leaves_and_not_when_one_joins() {
    let mut programmed = Programmed::default();
    let mut version = |to| {
        bring(&mut programmed, &one(to));
        record(&programmed, "shop/orders", "pr-1").map(|route| route.version)
    };
    assert_eq!(version(fork(&["10.9.0.1:80"])), Some(1));
    assert_eq!(version(fork(&["10.9.0.2:80", "10.9.0.1:80"])), Some(1), "one joined");
    assert_eq!(version(fork(&["10.9.0.1:80", "10.9.0.2:80"])), Some(1), "another order");
    assert_eq!(version(fork(&["10.9.0.2:80"])), Some(2), "one left");
    assert_eq!(version(fork(&["10.9.0.2:80", "[fd00::2]:80"])), Some(3), "a family joined");
    assert_eq!(version(fail("not ready")), Some(4), "refused");
    assert_eq!(version(fail("gone")), Some(4), "another reason");
    assert_eq!(version(fork(&["10.9.0.2:80"])), Some(5), "back");
}

#[test]
fn a_service_that_comes_back_has_its_id_and_its_routes_have_new_ones() {
    let mut programmed = Programmed::default();
    let full = one(fork(&["10.9.0.1:80"]));
    bring(&mut programmed, &full);
    let (service, route) = (programmed.ids_by_name()["shop/orders"], record(&programmed, "shop/orders", "pr-1"));
    bring(&mut programmed, &RouteTable::default());
    assert_eq!((programmed.services().count(), programmed.routes().count()), (0, 0));
    assert_eq!(programmed.forget(|id| id == service), [], "a connection still carries the id");
    let mut restarted = Programmed::adopt(
        programmed.services().map(|(k, v)| (*k, *v)),
        programmed.routes().map(|(k, v)| (*k, *v)),
        programmed.names().map(|(k, v)| (*k, v.clone())),
    );
    bring(&mut restarted, &full);
    assert_eq!(restarted.ids_by_name()["shop/orders"], service);
    assert_ne!(record(&restarted, "shop/orders", "pr-1").map(|r| r.id), route.map(|r| r.id));
}

#[test]
fn an_id_that_was_forgotten_is_not_given_away_again() {
    let mut programmed = Programmed::default();
    bring(&mut programmed, &one(fork(&["10.9.0.1:80"])));
    let id = programmed.ids_by_name()["shop/orders"];
    bring(&mut programmed, &RouteTable::default());
    for op in programmed.forget(|_| false) {
        programmed.apply(&op);
    }
    assert!(!programmed.ids_by_name().contains_key("shop/orders"));
    bring(&mut programmed, &one(fork(&["10.9.0.1:80"])));
    assert!(programmed.ids_by_name()["shop/orders"] > id);
}

#[test]
fn an_event_of_another_version_finds_no_target() {
    let mut programmed = Programmed::default();
    let plan = bring(&mut programmed, &one(fork(&["10.9.0.1:80"])));
    let id = record(&programmed, "shop/orders", "pr-1").expect("stands").id;
    assert!(matches!(plan.targets.find(id, 1), Lookup::Current(target) if target.key == "pr-1"));
    assert_eq!(plan.targets.find(id, 2), Lookup::Changed);
    assert_eq!(plan.targets.find(id + 1, 1), Lookup::Gone);
}

#[test]
fn a_mark_at_the_end_of_the_numbers_is_an_error_and_not_a_second_use() {
    let marks = [(super::programmed::name_key(NAME_ROUTE, 0), Text::NextId(u32::MAX))];
    let programmed = Programmed::adopt([], [], marks);
    assert_eq!(programmed.plan(&one(fail("gone"))), Err(IdsExhausted));
}

const NAMES: [&str; 3] = ["a", "b", "shop/c"];
const ADDRESSES: [&str; 5] = ["10.96.0.1:80", "10.96.0.2:80", "10.96.0.3:80", "[fd00:96::1]:80", "[fd00:96::2]:80"];
const KEYS: [&str; 3] = ["k", "k1", "pr-9"];
const ENDPOINTS: [&str; 4] = ["10.9.0.1:80", "10.9.0.2:80", "[fd00::1]:80", "[fd00::2]:80"];

prop_compose! {
    fn any_to()(endpoints in proptest::sample::subsequence(ENDPOINTS.to_vec(), 0..=4), reason in "[a-z]{1,3}") -> To {
        if endpoints.is_empty() { fail(&reason) } else { fork(&endpoints) }
    }
}

prop_compose! {
    fn any_table()(
        owners in proptest::array::uniform5(0..=NAMES.len()),
        routes in proptest::array::uniform3(proptest::array::uniform3(proptest::option::of(any_to()))),
    ) -> RouteTable {
        let services = NAMES.iter().enumerate().filter_map(|(n, name)| {
            let addresses: Vec<_> = (0..5).filter(|a| owners[*a] == n).map(|a| ADDRESSES[a]).collect();
            let routes: Vec<_> = (0..3).filter_map(|k| routes[n][k].clone().map(|to| (KEYS[k], to))).collect();
            (!addresses.is_empty()).then(|| service(name, &addresses, &routes))
        });
        table(services.collect())
    }
}

/// Where a table says that a key leads at an address; `None` is the baseline.
fn says<'a>(table: &'a RouteTable, address: &str, key: &str) -> Option<&'a To> {
    let service = table.services().iter().find(|service| service.addresses.contains(&at(address)))?;
    service.routes.iter().find(|route| route.key == key).map(|route| &route.to)
}

/// The record that the kernel finds for a key at an address.
fn finds(programmed: &Programmed, address: &str, key: &str) -> Option<crate::abi::route::Route> {
    let service = programmed.services.get(&service_addr(at(address)))?;
    programmed.routes.get(&route_key(service.id, key)?).copied()
}

/// Whether two places are one, but for endpoints that joined it.
fn grown(a: &To, b: &To) -> bool {
    match (a, b) {
        (To::Fork { endpoints: a, .. }, To::Fork { endpoints: b, .. }) => {
            a.iter().all(|e| b.contains(e)) || b.iter().all(|e| a.contains(e))
        }
        _ => false,
    }
}

/// What an agent finds again that starts anew: at most `fits` endpoints stood in a text.
fn restart(programmed: &Programmed, fits: usize) -> Programmed {
    let cut = |text: &Text| match text.clone() {
        Text::Route { key, to: Recorded::Fork { mut endpoints, more, fingerprint } } => {
            let cut = endpoints.len().saturating_sub(fits);
            endpoints.truncate(fits);
            Text::Route { key, to: Recorded::Fork { endpoints, more: more + cut as u32, fingerprint } }
        }
        other => other,
    };
    Programmed::adopt(
        programmed.services().map(|(k, v)| (*k, *v)),
        programmed.routes().map(|(k, v)| (*k, *v)),
        programmed.names().map(|(k, v)| (*k, cut(v))),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn at_every_moment_a_key_leads_where_one_of_the_two_tables_says_or_is_refused(
        old in any_table(), new in any_table(), fits in proptest::option::of(0usize..4),
    ) {
        let mut programmed = Programmed::default();
        let before = bring(&mut programmed, &old).targets;
        if let Some(fits) = fits {
            programmed = restart(&programmed, fits);
        }
        let plan = programmed.plan(&new).expect("ids are left");
        for (step, op) in plan.ops.iter().enumerate() {
            programmed.apply(op);
            for (address, key) in ADDRESSES.iter().flat_map(|a| KEYS.iter().map(move |k| (*a, *k))) {
                let allowed = [says(&old, address, key), says(&new, address, key)];
                let Some(found) = finds(&programmed, address, key) else {
                    prop_assert!(allowed.contains(&None), "step {step} {op:?}: {key} at {address} went to the baseline");
                    continue;
                };
                if found.kind == ROUTE_FAIL {
                    continue;
                }
                prop_assert_eq!(found.kind, ROUTE_FORK);
                for targets in [&before, &plan.targets] {
                    if let Lookup::Current(target) = targets.find(found.id, found.version) {
                        let fits = allowed.iter().flatten().any(|to| grown(to, &target.to));
                        prop_assert!(fits, "step {step} {op:?}: {key} at {address} went to {target:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn changing_a_table_ends_where_starting_with_it_would(
        tables in proptest::collection::vec(any_table(), 1..5), fits in 0usize..4,
    ) {
        let mut programmed = Programmed::default();
        for table in &tables {
            programmed = restart(&programmed, fits);
            bring(&mut programmed, table);
        }
        for op in programmed.forget(|_| false) {
            programmed.apply(&op);
        }
        let mut fresh = Programmed::default();
        let last = tables.last().expect("at least one");
        bring(&mut fresh, last);
        prop_assert_eq!(programmed.services.keys().collect::<Vec<_>>(), fresh.services.keys().collect::<Vec<_>>());
        prop_assert_eq!(programmed.routes.len(), fresh.routes.len());
        prop_assert_eq!(programmed.names.len(), fresh.names.len());
        for (address, key) in ADDRESSES.iter().flat_map(|a| KEYS.iter().map(move |k| (*a, *k))) {
            let (got, wanted) = (finds(&programmed, address, key), finds(&fresh, address, key));
            prop_assert_eq!(got.map(|r| r.kind), wanted.map(|r| r.kind));
        }
        let texts = |p: &Programmed| -> BTreeSet<String> {
            p.names.iter().filter(|(k, _)| k.id != 0).map(|(_, text)| format!("{text:?}")).collect()
        };
        prop_assert_eq!(texts(&programmed), texts(&fresh));
    }

    #[test]
    fn what_stands_in_the_maps_is_read_back_as_the_table_that_was_put_there(wanted in any_table()) {
        let mut programmed = Programmed::default();
        bring(&mut programmed, &wanted);
        let read = programmed.table();
        prop_assert_eq!(read.services().len(), wanted.services().len());
        for (address, key) in ADDRESSES.iter().flat_map(|a| KEYS.iter().map(move |k| (*a, *k))) {
            prop_assert_eq!(says(&read, address, key), says(&wanted, address, key));
        }
        prop_assert_eq!(programmed.plan(&read).expect("ids are left").ops, []);
    }

    #[test]
    fn ids_stay_with_what_they_name(tables in proptest::collection::vec(any_table(), 2..6)) {
        let mut programmed = Programmed::default();
        let mut services = std::collections::HashMap::new();
        let mut routes: std::collections::HashMap<u32, RouteKey> = std::collections::HashMap::new();
        for table in &tables {
            let before = programmed.clone();
            programmed = restart(&programmed, 1);
            bring(&mut programmed, table);
            for (name, id) in programmed.ids_by_name() {
                prop_assert_eq!(*services.entry(name.to_owned()).or_insert(id), id);
            }
            for (key, route) in programmed.routes() {
                prop_assert_eq!(routes.entry(route.id).or_insert(*key), key);
                if let Some(old) = before.routes.get(key) {
                    prop_assert_eq!(old.id, route.id);
                    prop_assert!(route.version >= old.version);
                }
            }
            let ids: BTreeSet<_> = programmed.names.keys().filter(|k| k.kind == NAME_SERVICE && k.id != 0).collect();
            prop_assert_eq!(ids.len(), services.len());
        }
    }

    #[test]
    fn a_step_that_fails_is_made_up_for_by_the_next_plan(
        old in any_table(), new in any_table(), taken in 0usize..30,
    ) {
        let mut programmed = Programmed::default();
        let before = bring(&mut programmed, &old).targets;
        let plan = programmed.plan(&new).expect("ids are left");
        plan.ops.iter().take(taken).for_each(|op| programmed.apply(op));
        let again = bring(&mut programmed, &new);
        prop_assert_eq!(bring(&mut programmed, &new).ops, vec![]);
        for (id, target) in again.targets.iter() {
            // A leg of the old table serves on only if its endpoints all stay.
            if let (Lookup::Current(old), To::Fork { endpoints: new, .. }) = (before.find(id, target.version), &target.to) {
                let To::Fork { endpoints, .. } = &old.to else { panic!("a refusal became a fork under one version") };
                prop_assert!(endpoints.iter().all(|endpoint| new.contains(endpoint)));
            }
        }
    }
}
