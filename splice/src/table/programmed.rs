//! What stands in the maps `services`, `routes` and `names`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use super::{OnUnreachable, Op, Recorded, Route, RouteTable, Service, Target, Targets, Text, To};
use crate::abi::{
    record::{NAME_ROUTE, NAME_SERVICE, NameKey},
    route::{self, ROUTE_OR_BASELINE, RouteKey, ServiceAddr},
};

/// The contents of the maps `services` and `routes`, and of `names` as far as services and routes go.
///
/// It starts from what is pinned ([`Programmed::adopt`]) and follows each step that was taken ([`Programmed::apply`]).
/// A step that failed is not applied; the next plan starts from what is really there.
///
/// A service keeps its id for as long as its name stands in map `names`, also while the table does not have it: a
/// connection that was opened to it carries the id and must find its routes when the service comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    pub(super) services: BTreeMap<ServiceAddr, route::Service>,
    pub(super) routes: BTreeMap<RouteKey, route::Route>,
    pub(super) names: BTreeMap<NameKey, Text>,
}

/// The key in map `names` of a service or a route.
pub(super) fn name_key(kind: u32, id: u32) -> NameKey {
    NameKey { kind, id, ..NameKey::default() }
}

impl Programmed {
    /// What an earlier agent left pinned. Names of other kinds than services and routes are no part of it.
    pub fn adopt(
        services: impl IntoIterator<Item = (ServiceAddr, route::Service)>,
        routes: impl IntoIterator<Item = (RouteKey, route::Route)>,
        names: impl IntoIterator<Item = (NameKey, Text)>,
    ) -> Self {
        let ours = |(key, _): &(NameKey, Text)| matches!(key.kind, NAME_SERVICE | NAME_ROUTE);
        Self {
            services: services.into_iter().collect(),
            routes: routes.into_iter().collect(),
            names: names.into_iter().filter(ours).collect(),
        }
    }

    /// Follows a step that was taken on the maps.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::PutService(key, value) => _ = self.services.insert(*key, *value),
            Op::DeleteService(key) => _ = self.services.remove(key),
            Op::PutRoute(key, value) => _ = self.routes.insert(*key, *value),
            Op::DeleteRoute(key) => _ = self.routes.remove(key),
            Op::PutName(key, text) => _ = self.names.insert(*key, text.clone()),
            Op::DeleteName(key) => _ = self.names.remove(key),
        }
    }

    /// Map `services`.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceAddr, &route::Service)> {
        self.services.iter()
    }

    /// Map `routes`.
    pub fn routes(&self) -> impl Iterator<Item = (&RouteKey, &route::Route)> {
        self.routes.iter()
    }

    /// Map `names`, services and routes.
    pub fn names(&self) -> impl Iterator<Item = (&NameKey, &Text)> {
        self.names.iter()
    }

    /// Where the routes that stand in the maps lead, as far as map `names` says: of a long list of endpoints the first ones.
    #[must_use]
    pub fn targets(&self) -> Targets {
        let target = |(key, route): (&RouteKey, &route::Route)| {
            let Text::Route { key: sandbox, to } = self.names.get(&name_key(NAME_ROUTE, route.id))? else {
                return None;
            };
            let service = match self.names.get(&name_key(NAME_SERVICE, key.service)) {
                Some(Text::Service(name)) => name.clone(),
                _ => String::new(),
            };
            let on_unreachable = match route.flags & ROUTE_OR_BASELINE {
                0 => OnUnreachable::Fail,
                _ => OnUnreachable::Baseline,
            };
            let to = match to.clone() {
                Recorded::Fork { endpoints, .. } => To::Fork { endpoints, on_unreachable },
                Recorded::Fail { reason } => To::Fail { reason },
            };
            Some((route.id, Target { version: route.version, service, key: sandbox.clone(), to }))
        };
        Targets { by_id: self.routes.iter().filter_map(target).collect() }
    }

    /// The table that stands in the maps, as far as map `names` says what belongs to what.
    #[must_use]
    pub fn table(&self) -> RouteTable {
        let mut services: BTreeMap<u32, Service> = BTreeMap::new();
        for (address, value) in &self.services {
            if let Some(Text::Service(name)) = self.names.get(&name_key(NAME_SERVICE, value.id)) {
                let new = || Service { name: name.clone(), addresses: Vec::new(), routes: Vec::new() };
                let address = (IpAddr::from(address.addr), u16::from_be(address.port)).into();
                services.entry(value.id).or_insert_with(new).addresses.push(address);
            }
        }
        let mut targets = self.targets();
        for (key, route) in &self.routes {
            if let (Some(service), Some(target)) = (services.get_mut(&key.service), targets.by_id.remove(&route.id)) {
                service.routes.push(Route { key: target.key, to: target.to });
            }
        }
        let (mut names, mut valid) = (HashSet::new(), Vec::new());
        for service in services.into_values() {
            // What no agent of this version has written may be odd.
            if names.insert(service.name.clone()) && RouteTable::new(vec![service.clone()]).is_ok() {
                valid.push(service);
            }
        }
        RouteTable::new(valid).unwrap_or_default()
    }

    /// The steps that let go of names of services which the table does not have any more and no connection was opened
    /// to. `in_use` says whether a connection carries the id; while it does, the name stays.
    pub fn forget(&self, in_use: impl Fn(u32) -> bool) -> Vec<Op> {
        let held: HashSet<u32> =
            self.services.values().map(|service| service.id).chain(self.routes.keys().map(|key| key.service)).collect();
        self.names
            .keys()
            .filter(|key| key.kind == NAME_SERVICE && key.id != 0 && !held.contains(&key.id) && !in_use(key.id))
            .map(|key| Op::DeleteName(*key))
            .collect()
    }

    /// Ids of services by name. Where a name was left twice, the id that addresses lead to counts.
    pub(super) fn ids_by_name(&self) -> HashMap<&str, u32> {
        let live: HashSet<u32> = self.services.values().map(|service| service.id).collect();
        let mut ids = HashMap::new();
        for (key, text) in &self.names {
            if let (NAME_SERVICE, Text::Service(name)) = (key.kind, text)
                && (live.contains(&key.id) || !ids.contains_key(name.as_str()))
            {
                ids.insert(name.as_str(), key.id);
            }
        }
        ids
    }

    /// The lowest id of a kind that was never given away, as far as the maps know.
    pub(super) fn next_id(&self, kind: u32) -> u32 {
        let mark = match self.names.get(&name_key(kind, 0)) {
            Some(Text::NextId(next)) => *next,
            _ => 1,
        };
        let named = self.names.keys().filter(|key| key.kind == kind).map(|key| key.id).max();
        let used = match kind {
            NAME_SERVICE => {
                let addresses = self.services.values().map(|service| service.id);
                addresses.chain(self.routes.keys().map(|key| key.service)).max()
            }
            _ => self.routes.values().map(|route| route.id).max(),
        };
        let highest = named.into_iter().chain(used).max().unwrap_or(0);
        mark.max(highest.saturating_add(1))
    }
}
