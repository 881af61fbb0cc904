//! What each Sandbox wants its keys to lead to.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sidetrack_splice::table::{OnUnreachable, To, check_key};

use super::{
    Fate, Note, Outcome, Ruling, State, Why,
    addresses::{Port, Tracked, tracked},
    pods::{Members, Pods},
};
use crate::stores::{Fork, Name, Sandbox, Stores, tombstone_end};

/// Which of two claims counts: the lesser. Age of the Sandbox, then the place of its fork; what has gone comes last.
pub(super) type Rank = (usize, usize);

/// The rank of what has gone.
const GONE: Rank = (usize::MAX, 0);

/// What a key is to lead to at a port.
pub(super) struct Claim {
    pub(super) key: String,
    pub(super) rank: Rank,
    /// None is the baseline.
    pub(super) to: Option<To>,
    /// The ruling that it follows, where it is a living Sandbox's.
    pub(super) ruling: Option<(usize, usize)>,
}

/// A port with the claims on it.
pub(super) struct Claimed<'a> {
    pub(super) port: Port<'a>,
    pub(super) claims: Vec<Claim>,
}

impl Claimed<'_> {
    /// The place of the port where not all find room.
    pub(super) fn rank(&self) -> Rank {
        self.claims.iter().map(|claim| claim.rank).min().unwrap_or(GONE)
    }
}

/// All claims.
pub(super) struct Claims<'a> {
    /// Sandboxes by their age, with what becomes of each.
    pub(super) fates: Vec<(&'a Name, Fate)>,
    pub(super) ports: Vec<Claimed<'a>>,
    pub(super) next: Option<Timestamp>,
}

impl<'a> Claims<'a> {
    pub(super) fn of(stores: &'a Stores, now: Timestamp) -> Self {
        let mut sandboxes: Vec<_> = stores.sandboxes.iter().collect();
        sandboxes.sort_by_key(|(name, sandbox)| (sandbox.created, &sandbox.uid, *name));
        let mut services = tracked(stores, services(stores, now));
        // The claims on each port of each Service.
        let mut made: BTreeMap<Name, Vec<Vec<Claim>>> = BTreeMap::new();
        for (name, tracked) in &services {
            made.insert(name.clone(), tracked.ports.iter().map(|_| Vec::new()).collect());
        }
        let mut next = Next { now, at: None };
        let pods = Pods::of(stores);
        let mut fates = Vec::with_capacity(sandboxes.len());
        for (age, (name, sandbox)) in sandboxes.into_iter().enumerate() {
            [sandbox.expires_at, sandbox.deleted_at].into_iter().flatten().for_each(|at| next.is(at));
            let mut fate = Fate {
                uid: sandbox.uid.clone(),
                generation: sandbox.generation,
                state: State::Living,
                rulings: Vec::new(),
                hash: 0,
            };
            match sandbox.gone_at(now) {
                None => {
                    for (place, fork) in sandbox.forks.iter().enumerate() {
                        let members = pods.members(name, sandbox, fork);
                        let claimant = Claimant { name, sandbox, fork, members, rank: (age, place), fate: fates.len() };
                        claimant.claim(&services, &mut made, &mut fate);
                    }
                }
                Some(at) if tombstone_end(at) > now => {
                    next.is(tombstone_end(at));
                    fate.state = State::Gone;
                    for service in sandbox.forks.iter().flat_map(|fork| &fork.services) {
                        let service = Name::new(&name.namespace, service);
                        sandbox.keys.iter().for_each(|key| refuse(&mut made, &service, key, &name.name));
                    }
                }
                Some(_) => fate.state = State::Forgotten,
            }
            fates.push((name, fate));
        }
        for ((service, key), until) in stores.tombstones.iter().filter(|(_, until)| **until > now) {
            next.is(*until);
            refuse(&mut made, service, key, key);
        }
        let mut ports = Vec::new();
        for (name, claims) in made {
            let of_it = services.remove(&name).map(|tracked| tracked.ports).unwrap_or_default();
            ports.extend(of_it.into_iter().zip(claims).map(|(port, claims)| Claimed { port, claims }));
        }
        Self { fates, ports, next: next.at }
    }

    pub(super) fn note(&mut self, (fate, ruling): (usize, usize), note: Note) {
        let notes = &mut self.fates[fate].1.rulings[ruling].notes;
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    pub(super) fn into_fates(self) -> BTreeMap<Name, Fate> {
        self.fates.into_iter().map(|(name, fate)| (name.clone(), fate)).collect()
    }
}

/// The next moment at which something changes.
struct Next {
    now: Timestamp,
    at: Option<Timestamp>,
}

impl Next {
    fn is(&mut self, at: Timestamp) {
        if at > self.now {
            self.at = Some(self.at.map_or(at, |next| next.min(at)));
        }
    }
}

/// All Services that a Sandbox forks, or has forked lately.
fn services(stores: &Stores, now: Timestamp) -> BTreeSet<Name> {
    let wanted = stores.wanted(now).slices.into_iter();
    wanted.flat_map(|(namespace, names)| names.into_iter().map(move |name| Name::new(&namespace, name))).collect()
}

/// A key that has gone, at all ports of a Service.
fn refuse(made: &mut BTreeMap<Name, Vec<Vec<Claim>>>, service: &Name, key: &str, whose: &str) {
    if check_key(key).is_err() {
        return;
    }
    for claims in made.get_mut(service).into_iter().flatten() {
        let to = To::Fail { reason: Why::Gone(whose.to_owned()).reason() };
        claims.push(Claim { key: key.to_owned(), rank: GONE, to: Some(to), ruling: None });
    }
}

/// A fork of a living Sandbox.
struct Claimant<'a, 'b> {
    name: &'a Name,
    sandbox: &'b Sandbox,
    fork: &'b Fork,
    members: Members<'a>,
    rank: Rank,
    fate: usize,
}

impl Claimant<'_, '_> {
    fn claim(
        &self,
        services: &BTreeMap<Name, Tracked<'_>>,
        made: &mut BTreeMap<Name, Vec<Vec<Claim>>>,
        fate: &mut Fate,
    ) {
        let (keys, invalid): (Vec<&String>, Vec<_>) = self.sandbox.keys.iter().partition(|key| check_key(key).is_ok());
        let invalid: Vec<_> = invalid.into_iter().map(|key| Note::InvalidKey(key.clone())).collect();
        for service in &self.fork.services {
            let name = Name::new(&self.name.namespace, service);
            let Some(tracked) = services.get(&name) else { continue };
            let mut rule = |port, outcome, notes: Vec<Note>| {
                let notes = notes.into_iter().chain(invalid.iter().cloned()).collect();
                fate.rulings.push(Ruling {
                    fork: self.fork.name.clone(),
                    service: service.clone(),
                    port,
                    outcome,
                    notes,
                });
                (self.fate, fate.rulings.len() - 1)
            };
            if let Some(why) = unsteered(service, tracked) {
                rule(None, Outcome::Unsteered(why), Vec::new());
                continue;
            }
            for (port, claims) in tracked.ports.iter().zip(made.get_mut(&name).into_iter().flatten()) {
                let number = port.spec.map(|spec| spec.port);
                if keys.is_empty() || port.is_empty() {
                    let why = if keys.is_empty() {
                        Why::NoKey(self.name.to_string())
                    } else {
                        Why::NoAddress(service.clone())
                    };
                    rule(number, Outcome::Unsteered(why), Vec::new());
                    continue;
                }
                let (to, outcome, mut notes) = self.leads(service, tracked, port);
                if tracked.listed && port.endpoints.is_empty() {
                    notes.push(Note::NoBaseline);
                }
                let ruling = Some(rule(number, outcome, notes));
                let claim = |key: &&String| Claim { key: (*key).clone(), rank: self.rank, to: to.clone(), ruling };
                claims.extend(keys.iter().map(claim));
            }
        }
    }

    /// Where keys lead at a port.
    fn leads(&self, name: &str, tracked: &Tracked<'_>, port: &Port<'_>) -> (Option<To>, Outcome, Vec<Note>) {
        let refused = |why: Why| (Some(To::Fail { reason: why.reason() }), Outcome::Refused(why), Vec::new());
        let (Some(service), Some(at)) = (tracked.service, port.spec) else {
            return refused(Why::NoService(name.to_owned()));
        };
        if !tracked.listed {
            return refused(Why::EndpointsUnknown(name.to_owned()));
        }
        let endpoints = self.members.endpoints(&at.target, service, name, &tracked.baseline);
        let on_unreachable = self.sandbox.on_unreachable;
        match endpoints.found {
            Ok(endpoints_found) => {
                let to = To::Fork { endpoints: endpoints_found.clone(), on_unreachable };
                (Some(to), Outcome::Routed(endpoints_found), endpoints.notes)
            }
            Err(why @ (Why::NoPod { .. } | Why::NotReady { .. })) if on_unreachable == OnUnreachable::Baseline => {
                (None, Outcome::Baseline(why), Vec::new())
            }
            Err(why) => refused(why),
        }
    }
}

/// Why nothing of a Service can be steered.
fn unsteered(name: &str, tracked: &Tracked<'_>) -> Option<Why> {
    if !tracked.ports.is_empty() {
        return None;
    }
    let name = name.to_owned();
    Some(match tracked.service {
        None => Why::NoService(name),
        Some(service) if service.external => Why::External(name),
        Some(_) => Why::NoTcpPort(name),
    })
}
