//! A cluster for a test: one Service `orders` with two pods, and what a test adds.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use sidetrack_splice::table::{OnUnreachable, To};

use crate::*;

pub const NS: &str = "shop";

pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

pub fn later(seconds: i64) -> Timestamp {
    now().checked_add(SignedDuration::from_secs(seconds)).expect("a time")
}

pub fn name(of: &str) -> Name {
    Name::new(NS, of)
}

/// A Sandbox with a fork `fork` of these Services.
pub fn sandbox(key: &str, services: &[&str]) -> Sandbox {
    Sandbox {
        uid: format!("uid-{key}"),
        created: later(-3600),
        generation: 1,
        keys: [key.to_owned()].into(),
        expires_at: None,
        deleted_at: None,
        on_unreachable: OnUnreachable::Fail,
        forks: vec![fork("fork", services)],
    }
}

pub fn fork(name: &str, services: &[&str]) -> Fork {
    let services = services.iter().map(|&it| it.to_owned()).collect();
    Fork { name: name.into(), services, pods: Selection::Labelled }
}

/// A ready pod of a Sandbox's fork `fork`.
pub fn pod(sandbox: &str, addresses: &[&str]) -> Pod {
    Pod {
        made_for: Some((sandbox.into(), "fork".into())),
        created: later(-60),
        addresses: addresses.iter().map(|ip| ip.parse().expect("an address")).collect(),
        state: PodState::Ready,
        ports: vec![("http".into(), 9090)],
    }
}

pub fn port(name: &str, port: u16, target: u16) -> ServicePort {
    ServicePort { name: name.into(), port, target: TargetPort::Number(target) }
}

pub fn service(addresses: &[&str], ports: &[ServicePort]) -> Service {
    let addresses = addresses.iter().map(|ip| ip.parse().expect("an address")).collect();
    Service { addresses, external: false, ports: ports.to_vec() }
}

pub fn slice(service: &str, ports: &[(&str, u16)], addresses: &[&str]) -> EndpointSlice {
    EndpointSlice {
        service: service.into(),
        ports: ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect(),
        addresses: addresses.iter().map(|ip| ip.parse().expect("an address")).collect(),
    }
}

#[derive(Clone, Debug)]
pub struct World {
    pub stores: Stores,
    pub now: Timestamp,
}

impl World {
    /// Nothing but lists that are empty.
    pub fn empty() -> Self {
        let mut world = Self { stores: Stores::default(), now: now() };
        world.tell(Change::Sandboxes(Update::List(BTreeMap::new())));
        world.tell(Change::Services(Update::List(BTreeMap::new())));
        world.tell(Change::Pods(Selection::Labelled, Update::List(BTreeMap::new())));
        world
    }

    /// Service `orders`, 10.96.0.10:80 and `[fd00:96::10]:80`, with two pods of either family on port 8080.
    pub fn orders() -> Self {
        let mut world = Self::empty();
        world.service("orders", service(&["10.96.0.10", "fd00:96::10"], &[port("", 80, 8080)]));
        world.list("orders", &[("orders-1", slice("orders", &[("", 8080)], &["10.1.0.1", "10.1.0.2"]))]);
        world.slice("orders-2", slice("orders", &[("", 8080)], &["fd00:1::1", "fd00:1::2"]));
        world
    }

    pub fn tell(&mut self, change: Change) {
        self.stores.apply(change, self.now);
    }

    pub fn sandbox(&mut self, of: &str, sandbox: Sandbox) {
        self.tell(Change::Sandboxes(Update::Put(name(of), sandbox)));
    }

    pub fn delete(&mut self, sandbox: &str) {
        self.tell(Change::Sandboxes(Update::Remove(name(sandbox))));
    }

    pub fn pod(&mut self, of: &str, pod: Pod) {
        self.tell(Change::Pods(Selection::Labelled, Update::Put(name(of), pod)));
    }

    pub fn service(&mut self, of: &str, service: Service) {
        self.tell(Change::Services(Update::Put(name(of), service)));
    }

    /// All slices of these Services (beside those that were listed before), as they are listed.
    pub fn list(&mut self, service: &str, slices: &[(&str, EndpointSlice)]) {
        let mut asked: BTreeSet<String> = self.stores.listed.iter().map(|name| name.name.clone()).collect();
        asked.insert(service.to_owned());
        let mut all = self.stores.slices.clone();
        all.extend(slices.iter().map(|(of, slice)| (name(of), slice.clone())));
        self.tell(Change::Slices { namespace: NS.into(), asked, update: Update::List(all) });
    }

    pub fn slice(&mut self, of: &str, slice: EndpointSlice) {
        let asked = BTreeSet::from([slice.service.clone()]);
        self.tell(Change::Slices { namespace: NS.into(), asked, update: Update::Put(name(of), slice) });
    }

    pub fn resolve(&self) -> Resolved {
        resolve(&self.stores, self.now)
    }

    /// Each route as `service key to`.
    pub fn routes(&self) -> Vec<String> {
        let table = self.resolve().table;
        let of = |service: &sidetrack_splice::table::Service| {
            let name = service.name.clone();
            let lines = service.routes.iter().map(move |route| format!("{name} {} {}", route.key, to(&route.to)));
            lines.collect::<Vec<_>>()
        };
        table.services().iter().flat_map(of).collect()
    }

    /// Where a key leads at an address; none is the baseline.
    pub fn at(&self, address: &str, key: &str) -> Option<String> {
        let (table, address) = (self.resolve().table, address.parse().expect("an address"));
        let service = table.services().iter().find(|service| service.addresses.contains(&address))?;
        service.routes.iter().find(|route| route.key == key).map(|route| to(&route.to))
    }

    pub fn rulings(&self, sandbox: &str) -> Vec<Ruling> {
        self.resolve().sandboxes.remove(&name(sandbox)).expect("there is one").rulings
    }

    pub fn outcome(&self, sandbox: &str) -> Outcome {
        self.rulings(sandbox).remove(0).outcome
    }

    pub fn notes(&self, sandbox: &str) -> Vec<Note> {
        self.rulings(sandbox).remove(0).notes
    }
}

pub fn to(to: &To) -> String {
    match to {
        To::Fork { endpoints, .. } => endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        To::Fail { reason } => format!("fail: {reason}"),
    }
}
