//! The steps from what stands in the maps to what is wanted.
//!
//! A step is one update or deletion in one map, which is atomic for the kernel; between two of them any number of
//! requests may pass. The order keeps this promise: **at every moment, each (address, key) pair leads where the old table
//! says, or where the new one says, or is refused.** It never leads to a third place, and never to the baseline in between.
//!
//! 1. *Marks*, then *names* of new ids. An id that the kernel can see is never given away again, and a tool or a successor
//!    always finds what it belongs to.
//! 2. *Guards.* When an address goes over from one service to another, no order of steps alone keeps the promise: it is to
//!    be looked up among the one's old routes before, among the other's new routes after. So each route of the two that
//!    differs between the tables is made a refusal until step 7. Tables that hand over no address have no guards.
//! 3. *Delete addresses* that no service has any more, before routes change: a connection to one of them would otherwise
//!    meet a new route, which neither table gives it.
//! 4. *Delete routes*, 5. *put routes*: one step each takes its pair from the old table to the new one. Deletions come
//!    first, to make room.
//! 6. *Put addresses*, new ones and those that go over: their routes are there, and those that they must not meet are gone.
//! 7. *Lift the guards*: the routes of step 2 become, or go, what the new table says.
//! 8. *Names* of routes that changed, which stayed as they were until the record had its new version (a step that fails in
//!    between costs one version more, not one less); names of routes that are gone.
//!
//! An endpoint that joins a route changes nothing in the maps and counts at once. Connections that are open keep the service that their address belonged to when they were opened.

use std::collections::{BTreeMap, HashSet};

use super::{
    OnUnreachable, Programmed, Recorded, RouteTable, Target, Targets, Text, To, programmed::name_key, route_key,
    service_addr,
};
use crate::abi::{
    record::{NAME_ROUTE, NAME_SERVICE, NameKey},
    route::{ROUTE_FAIL, ROUTE_FORK, ROUTE_OR_BASELINE, Route, RouteKey, Service, ServiceAddr},
};

/// One step on one map. "Put" inserts or replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Map `services`.
    PutService(ServiceAddr, Service),
    /// Map `services`; that the entry is gone already is no error.
    DeleteService(ServiceAddr),
    /// Map `routes`.
    PutRoute(RouteKey, Route),
    /// Map `routes`; that the entry is gone already is no error.
    DeleteRoute(RouteKey),
    /// Map `names`.
    PutName(NameKey, Text),
    /// Map `names`; that the entry is gone already is no error.
    DeleteName(NameKey),
}

/// How to bring the maps to a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, to be taken in this order, each only after the one before has succeeded.
    pub ops: Vec<Op>,
    /// Where the routes lead when all steps are taken; to be in force before the first.
    pub targets: Targets,
}

/// Four thousand million ids were given away since the pins were made, or the mark in map `names` was overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no id is left for another service or route: run `sidetrack purge`, then start the agent again")]
pub struct IdsExhausted;

/// Gives ids away.
struct Ids {
    next: u32,
}

impl Ids {
    fn take(&mut self) -> Result<u32, IdsExhausted> {
        let id = self.next;
        self.next = id.checked_add(1).ok_or(IdsExhausted)?;
        Ok(id)
    }
}

impl Programmed {
    /// The steps to a table, and where its routes lead. Nothing is changed by asking.
    pub fn plan(&self, table: &RouteTable) -> Result<Plan, IdsExhausted> {
        let (wanted, targets) = self.wanted(table)?;
        Ok(Plan { ops: self.steps(&wanted), targets })
    }

    /// The maps as they shall be.
    fn wanted(&self, table: &RouteTable) -> Result<(Self, Targets), IdsExhausted> {
        let mut wanted = Self::default();
        let mut targets = Targets::default();
        let known = self.ids_by_name();
        let mut service_ids = Ids { next: self.next_id(NAME_SERVICE) };
        let mut route_ids = Ids { next: self.next_id(NAME_ROUTE) };
        for service in table.services() {
            let id = match known.get(service.name.as_str()) {
                Some(id) => *id,
                None => service_ids.take()?,
            };
            wanted.names.insert(name_key(NAME_SERVICE, id), Text::Service(service.name.clone()));
            for address in &service.addresses {
                let value = Service { id, routes: service.routes.len() as u32 };
                wanted.services.insert(service_addr(*address), value);
            }
            for route in &service.routes {
                let key = route_key(id, &route.key).expect("a valid table has no key longer than KEY_MAX");
                let value = match self.routes.get(&key) {
                    Some(old) => self.successor(old, &route.to),
                    None => Route { id: route_ids.take()?, version: 1, kind: kind(&route.to), flags: flags(&route.to) },
                };
                wanted.routes.insert(key, value);
                let text = Text::Route { key: route.key.clone(), to: Recorded::from(&route.to) };
                wanted.names.insert(name_key(NAME_ROUTE, value.id), text);
                let target = Target {
                    version: value.version,
                    service: service.name.clone(),
                    key: route.key.clone(),
                    to: route.to.clone(),
                };
                targets.by_id.insert(value.id, target);
            }
        }
        wanted.names.insert(name_key(NAME_SERVICE, 0), Text::NextId(service_ids.next));
        wanted.names.insert(name_key(NAME_ROUTE, 0), Text::NextId(route_ids.next));
        // Services that left keep their names, see `Programmed::forget`.
        for (key, text) in self.names.iter().filter(|(key, _)| key.kind == NAME_SERVICE) {
            wanted.names.entry(*key).or_insert_with(|| text.clone());
        }
        Ok((wanted, targets))
    }

    /// What becomes of a route's record.
    fn successor(&self, old: &Route, to: &To) -> Route {
        let outdated = match self.names.get(&name_key(NAME_ROUTE, old.id)) {
            Some(Text::Route { to: recorded, .. }) => old.kind != kind(to) || recorded.outdated_by(to),
            _ => true,
        };
        let version = if outdated { old.version.wrapping_add(1) } else { old.version };
        Route { id: old.id, version, kind: kind(to), flags: flags(to) }
    }

    /// The differences, in the order that the module's documentation gives.
    fn steps(&self, wanted: &Self) -> Vec<Op> {
        let mut ops = Vec::new();
        let put_name = |(key, text): (&NameKey, &Text)| Op::PutName(*key, text.clone());
        let names = differing(&self.names, &wanted.names);
        ops.extend(names.iter().copied().filter(|(key, _)| key.id == 0).map(put_name));
        let new = |(key, _): &(&NameKey, &Text)| key.id != 0 && !self.names.contains_key(*key);
        ops.extend(names.iter().copied().filter(new).map(put_name));

        let guarded = self.handing_over(wanted);
        let routes = differing(&self.routes, &wanted.routes);
        let gone: Vec<_> = self.routes.iter().filter(|(key, _)| !wanted.routes.contains_key(*key)).collect();
        for (key, route) in gone.iter().chain(&routes).filter(|(key, _)| guarded.contains(&key.service)) {
            let stands = self.routes.get(*key).unwrap_or(route);
            if stands.kind != ROUTE_FAIL || !self.routes.contains_key(*key) {
                ops.push(Op::PutRoute(**key, Route { kind: ROUTE_FAIL, ..*stands }));
            }
        }

        let left = self.services.keys().filter(|key| !wanted.services.contains_key(key));
        ops.extend(left.map(|key| Op::DeleteService(*key)));
        let changes = |lift: bool| {
            let deletions = gone.iter().map(|(key, _)| (key.service, Op::DeleteRoute(**key)));
            let puts = routes.iter().map(|(key, route)| (key.service, Op::PutRoute(**key, **route)));
            deletions.chain(puts).filter(|(id, _)| guarded.contains(id) == lift).map(|(_, op)| op).collect::<Vec<_>>()
        };
        ops.extend(changes(false));
        let addresses = differing(&self.services, &wanted.services);
        ops.extend(addresses.into_iter().map(|(key, value)| Op::PutService(*key, *value)));
        ops.extend(changes(true));

        ops.extend(names.into_iter().filter(|(key, _)| key.id != 0 && self.names.contains_key(key)).map(put_name));
        let unnamed = self.names.keys().filter(|key| !wanted.names.contains_key(key));
        ops.extend(unnamed.map(|key| Op::DeleteName(*key)));
        ops
    }

    /// Ids of the services that an address goes over from or to.
    fn handing_over(&self, wanted: &Self) -> HashSet<u32> {
        let pairs = self.services.iter().filter_map(|(key, old)| wanted.services.get(key).map(|new| (old.id, new.id)));
        pairs.filter(|(old, new)| old != new).flat_map(|(old, new)| [old, new]).collect()
    }
}

fn kind(to: &To) -> u32 {
    match to {
        To::Fork { .. } => ROUTE_FORK,
        To::Fail { .. } => ROUTE_FAIL,
    }
}

fn flags(to: &To) -> u32 {
    match to {
        To::Fork { on_unreachable: OnUnreachable::Baseline, .. } => ROUTE_OR_BASELINE,
        _ => 0,
    }
}

/// Entries of `new` that `old` does not have as they are.
fn differing<'a, K: Ord, V: PartialEq>(old: &BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> Vec<(&'a K, &'a V)> {
    new.iter().filter(|(key, value)| old.get(key) != Some(value)).collect()
}
