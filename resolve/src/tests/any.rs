//! Clusters made at random.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sidetrack_splice::table::{OnUnreachable, RouteTable};

use super::world::*;
use crate::*;

const KEYS: [&str; 3] = ["k", "k1", "not a key"];
const SERVICES: [&str; 3] = ["orders", "shadow", "payments"];
const SANDBOXES: [&str; 3] = ["one", "two", "three"];
/// Few, so that pods of forks and of baselines meet; two that nothing can be dialled at.
const ADDRESSES: [&str; 7] = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd00:1::1", "fd00:1::2", "127.0.0.1", "10.96.0.1"];

fn some<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = Vec<T>> {
    proptest::sample::subsequence(of.to_vec(), 0..=of.len())
}

fn any_state() -> impl Strategy<Value = PodState> {
    prop_oneof![3 => Just(PodState::Ready), 1 => Just(PodState::Unready), 1 => Just(PodState::Terminating), 1 => Just(PodState::Completed)]
}

prop_compose! {
    fn any_sandbox()(
        keys in some(&KEYS), services in some(&SERVICES), age in 0i64..3, uid in "[ab]", soft in any::<bool>(),
        expires in proptest::option::of(-700i64..700), two in any::<bool>(),
    ) -> Sandbox {
        let mut forks = vec![fork("fork", &services)];
        if two {
            forks.push(fork("second", &services));
        }
        Sandbox {
            uid,
            created: later(-1000 - age),
            keys: keys.into_iter().map(str::to_owned).collect(),
            expires_at: expires.map(later),
            on_unreachable: if soft { OnUnreachable::Baseline } else { OnUnreachable::Fail },
            forks,
            ..sandbox("", &[])
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let sandbox_name = || proptest::sample::select(&SANDBOXES[..]);
    let service_name = || proptest::sample::select(&SERVICES[..]);
    let put =
        (sandbox_name(), any_sandbox()).prop_map(|(of, sandbox)| Change::Sandboxes(Update::Put(name(of), sandbox)));
    let delete = sandbox_name().prop_map(|of| Change::Sandboxes(Update::Remove(name(of))));
    let service =
        (service_name(), any::<[bool; 4]>(), 1u8..4).prop_map(|(of, [headless, external, two, named], ip)| {
            let target = if named { TargetPort::Name("http".into()) } else { TargetPort::Number(8080) };
            let mut ports = vec![ServicePort { name: "web".into(), port: 80, target }];
            if two {
                ports.push(port("admin", 81, 9000));
            }
            let own = format!("10.96.0.{ip}");
            let own = [own.as_str()];
            let mut service = service(if headless { &[] } else { &own }, &ports);
            service.external = external && two;
            Change::Services(Update::Put(name(of), service))
        });
    let no_service = service_name().prop_map(|of| Change::Services(Update::Remove(name(of))));
    let slices = (some(&SERVICES), proptest::collection::vec((service_name(), some(&ADDRESSES)), 0..4)).prop_map(
        |(asked, all)| {
            let asked: BTreeSet<String> = asked.into_iter().map(str::to_owned).collect();
            let all = all.into_iter().filter(|(of, _)| asked.contains(*of)).enumerate();
            let all = all
                .map(|(n, (of, at))| (name(&format!("slice-{n}")), slice(of, &[("web", 8080), ("admin", 9000)], &at)));
            let all: BTreeMap<_, _> = all.collect();
            Change::Slices { namespace: NS.into(), asked, update: Update::List(all) }
        },
    );
    let pod = (0u8..4, sandbox_name(), any::<bool>(), some(&ADDRESSES), any_state()).prop_map(
        |(n, of, second, at, state)| {
            let made_for = Some((of.to_owned(), if second { "second" } else { "fork" }.to_owned()));
            Change::Pods(
                Selection::Labelled,
                Update::Put(name(&format!("pod-{n}")), Pod { made_for, state, ..pod(of, &at) }),
            )
        },
    );
    let no_pod = (0u8..4).prop_map(|n| Change::Pods(Selection::Labelled, Update::Remove(name(&format!("pod-{n}")))));
    prop_oneof![4 => put, 1 => delete, 4 => service, 1 => no_service, 4 => slices, 4 => pod, 1 => no_pod]
}

/// The addresses at which a Service must be steered, by the stores themselves.
fn dialled(stores: &Stores, service: &Name) -> Vec<std::net::SocketAddr> {
    let Some(of) = stores.services.get(service).filter(|of| !of.external) else { return Vec::new() };
    let own = of.ports.iter().flat_map(|port| of.addresses.iter().map(|ip| (*ip, port.port).into()));
    let slices = stores.slices.values().filter(|slice| slice.service == service.name);
    let ends = slices.flat_map(|slice| {
        let known = slice.ports.iter().filter(|(name, _)| of.ports.iter().any(|port| port.name == *name));
        known.flat_map(|(_, port)| slice.addresses.iter().map(|ip| (*ip, *port).into()))
    });
    own.chain(ends).filter(|address| sidetrack_splice::table::check_address(*address).is_ok()).collect()
}

fn leads<'a>(
    table: &'a RouteTable,
    address: std::net::SocketAddr,
    key: &str,
) -> Option<&'a sidetrack_splice::table::To> {
    let service = table.services().iter().find(|service| service.addresses.contains(&address))?;
    service.routes.iter().find(|route| route.key == key).map(|route| &route.to)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_key_of_a_sandbox_that_lives_or_has_gone_lately_falls_back_and_every_table_is_valid(
        changes in proptest::collection::vec(any_change(), 0..40), at in -700i64..700,
    ) {
        let mut world = World::empty();
        for change in changes {
            world.tell(change);
        }
        let time = later(at);
        // That it is valid is what makes it a table.
        let resolved = resolve(&world.stores, time);
        let held = world.stores.sandboxes.iter().filter(|(_, sandbox)| !sandbox.is_forgotten(time));
        let held = held.flat_map(|(of, sandbox)| {
            let soft = sandbox.on_unreachable == OnUnreachable::Baseline && sandbox.gone_at(time).is_none();
            let services = sandbox.forks.iter().flat_map(|fork| &fork.services);
            services.flat_map(move |service| sandbox.keys.iter().map(move |key| (Name::new(&of.namespace, service), key, soft)))
        });
        let buried = world.stores.tombstones.iter().filter(|(_, until)| **until > time);
        let buried = buried.map(|((service, key), _)| (service.clone(), key, false));
        let all: Vec<_> = held.chain(buried).filter(|(_, key, _)| KEYS[..2].contains(&key.as_str())).collect();
        // Where anybody who has the key there lets the baseline answer, it may.
        let soft: BTreeSet<_> = all.iter().filter(|(_, _, soft)| *soft).map(|(_, key, _)| *key).collect();
        for (service, key, _) in all.iter().filter(|(_, key, _)| !soft.contains(key)) {
            for address in dialled(&world.stores, service) {
                prop_assert!(leads(&resolved.table, address, key).is_some(), "{key} at {address} of {service}");
            }
        }
        if let Some(next) = resolved.next {
            prop_assert!(next > time);
            let before = next.checked_sub(jiff::SignedDuration::from_nanos(1)).expect("a time");
            prop_assert_eq!(&resolve(&world.stores, before), &resolved, "nothing changes by time before it is said");
        }
    }

    #[test]
    fn the_order_in_which_objects_are_heard_of_makes_no_difference(
        changes in proptest::collection::vec(any_change(), 0..30).prop_map(last_of_each).prop_shuffle(),
    ) {
        let mut shuffled = World::empty();
        let mut sorted = World::empty();
        let mut in_order = changes.clone();
        in_order.sort_by_key(subject);
        for change in changes {
            shuffled.tell(change);
        }
        for change in in_order {
            sorted.tell(change);
        }
        prop_assert_eq!(shuffled.resolve(), sorted.resolve());
    }

    #[test]
    fn what_has_grown_change_by_change_is_what_lists_would_say(
        changes in proptest::collection::vec(any_change(), 0..40),
    ) {
        let mut grown = World::empty();
        for change in changes {
            grown.tell(change);
            _ = grown.resolve();
            grown.stores.forget(grown.now);
        }
        let mut fresh = World { stores: Stores { tombstones: grown.stores.tombstones.clone(), ..Stores::default() }, ..World::empty() };
        fresh.tell(Change::Pods(Selection::Labelled, Update::List(grown.stores.pods[&Selection::Labelled].clone())));
        let asked = grown.stores.listed.iter().map(|name| name.name.clone()).collect();
        fresh.tell(Change::Slices { namespace: NS.into(), asked, update: Update::List(grown.stores.slices.clone()) });
        fresh.tell(Change::Services(Update::List(grown.stores.services.clone())));
        fresh.tell(Change::Sandboxes(Update::List(grown.stores.sandboxes.clone())));
        prop_assert_eq!(fresh.resolve(), grown.resolve());
    }
}

/// What a change is of.
fn subject(change: &Change) -> String {
    match change {
        Change::Sandboxes(Update::Put(name, _) | Update::Remove(name)) => format!("sandbox {name}"),
        Change::Services(Update::Put(name, _) | Update::Remove(name)) => format!("service {name}"),
        Change::Pods(_, Update::Put(name, _) | Update::Remove(name)) => format!("pod {name}"),
        _ => "list".into(),
    }
}

fn last_of_each(changes: Vec<Change>) -> Vec<Change> {
    let last: BTreeMap<_, _> = changes.into_iter().map(|change| (subject(&change), change)).collect();
    last.into_values().collect()
}
