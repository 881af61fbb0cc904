//! `sidetrack status`: the agent, its programs, the pods, what was counted.

use std::{net::IpAddr, path::PathBuf};

use serde::Serialize;
use sidetrack_splice::abi::{
    ABI,
    addr::Addr,
    control::Control,
    reason::{Effect, Reason},
};

use super::{
    Pins, StateError, maps,
    neighbours::{Hooks, Known, look},
    now,
    pod::{self, ATTACHED, PodKey, PodRecord},
    programs::{Program, programs},
    seconds,
};
use crate::names;

/// Everything that `sidetrack status` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Version of this binary.
    pub version: &'static str,
    /// Version of the records that it reads.
    pub abi: u32,
    /// The pin directory.
    pub pin_dir: PathBuf,
    /// Versions of other records beside these.
    pub other_abis: Vec<u32>,
    /// The agent.
    pub agent: Agent,
    /// The programs that are pinned.
    pub programs: Vec<Program>,
    /// One for each namespace that the agent knows of.
    pub items: Vec<PodItem>,
    /// How full the maps are.
    pub maps: Vec<MapItem>,
    /// What was counted, where it is not zero.
    pub counters: Vec<Counter>,
    /// Why clients were reset, or refused: every reason, those that never happened too.
    pub resets: Vec<Counter>,
    /// Why connections and packets pass unread: every reason, those that never happened too.
    pub opaque: Vec<Counter>,
}

/// The agent, by what it wrote last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agent {
    /// Whether it wrote lately. Connections that are spliced need none.
    pub alive: bool,
    /// Its process, in its own pid namespace; `None` before the first.
    pub pid: Option<u32>,
    /// Seconds since it last wrote; `None` if none ever did.
    pub heartbeat_age_seconds: Option<f64>,
    /// Whether a successor with other records is at work: no new connection is taken on here.
    pub draining: bool,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PodItem {
    /// Name of its file.
    pub name: Option<String>,
    /// Its inode; `None` for a file that is no namespace.
    pub netns: Option<u64>,
    /// `attached`, or why not.
    pub outcome: &'static str,
    /// More of it, in words.
    pub detail: Option<String>,
    /// `tcx` or `clsact`, where it is attached.
    pub mode: Option<&'static str>,
    /// The interface.
    pub interface: Option<String>,
    /// Its index.
    pub ifindex: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Seconds since it is so.
    pub since_seconds: Option<f64>,
    /// What sits on its hooks, in the order in which packets meet it; `None` if that cannot be seen.
    pub hooks: Option<Hooks>,
    /// Why that cannot be seen.
    pub hooks_unknown: Option<String>,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapItem {
    /// Its name.
    pub name: &'static str,
    /// Entries that it has.
    pub entries: usize,
    /// Entries that it has room for.
    pub room: u32,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// Its stable name.
    pub name: String,
    /// How often.
    pub count: u64,
    /// What it means.
    pub meaning: &'static str,
}

impl Status {
    /// Reads it.
    pub fn read(pins: &Pins, netns_dirs: &[PathBuf]) -> Result<Self, StateError> {
        let control = maps::single(&pins.map("control"))?;
        let programs = programs(pins);
        let known = Known::read(programs.iter().map(|program| program.id).collect());
        let mut items = pods(pins, now())?;
        for item in &mut items {
            let (Some(name), Some(netns), Some(ifindex)) = (&item.name, item.netns, item.ifindex) else { continue };
            match look(&known, netns_dirs, name, netns, ifindex) {
                Ok(hooks) => item.hooks = Some(hooks),
                Err(why) => item.hooks_unknown = Some(why),
            }
        }
        let counts = counts(pins)?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            abi: ABI,
            pin_dir: pins.base.clone(),
            other_abis: pins.others.iter().map(|version| version.abi).collect(),
            agent: Agent::of(&control, now()),
            programs,
            items,
            maps: room(pins)?,
            counters: counted(&counts),
            resets: of_effect(&counts, Effect::Refused),
            opaque: of_effect(&counts, Effect::Unsteered),
        })
    }
}

impl Agent {
    /// What a `control` record says at a time.
    #[must_use]
    pub fn of(control: &Control, now: u64) -> Self {
        let written = (control.heartbeat != 0).then_some(control.heartbeat);
        Self {
            alive: control.lives(now),
            pid: written.map(|_| control.pid),
            heartbeat_age_seconds: written.map(|at| seconds(at, now)),
            draining: control.draining != 0,
        }
    }
}

/// All counters, by the numbers of their reasons.
pub(crate) fn counts(pins: &Pins) -> Result<Vec<u64>, StateError> {
    maps::counters(&pins.map("counters"))
}

/// Counters that are not zero, in the order of their numbers. One that this version does not know has its number.
#[must_use]
pub fn counted(counts: &[u64]) -> Vec<Counter> {
    let counter = |(number, count): (usize, &u64)| match Reason::ALL.get(number) {
        Some(reason) => Counter::of(*reason, *count),
        None => Counter { name: format!("reason_{number}"), count: *count, meaning: "A reason of another version." },
    };
    counts.iter().enumerate().filter(|(_, count)| **count != 0).map(counter).collect()
}

/// All counters of reasons with this effect.
#[must_use]
pub fn of_effect(counts: &[u64], effect: Effect) -> Vec<Counter> {
    let all = Reason::ALL.iter().filter(|reason| reason.effect() == effect);
    all.map(|reason| Counter::of(*reason, counts.get(*reason as usize).copied().unwrap_or(0))).collect()
}

impl Counter {
    fn of(reason: Reason, count: u64) -> Self {
        Self { name: reason.name().to_owned(), count, meaning: reason.meaning() }
    }
}

/// Namespaces by record, and those that only a link's pin tells of.
pub(crate) fn pods(pins: &Pins, now: u64) -> Result<Vec<PodItem>, StateError> {
    let records: Vec<(PodKey, PodRecord)> = match maps::entries(&pins.map(pod::MAP)) {
        Err(StateError::Missing(_)) => Vec::new(),
        other => other?,
    };
    let mut items: Vec<_> = records.iter().map(|(key, record)| PodItem::of(key, record, now)).collect();
    for (netns, ifindex, _) in pins.links() {
        if !items.iter().any(|item| item.netns == Some(netns)) {
            items.push(PodItem { ifindex: Some(ifindex), netns: Some(netns), ..PodItem::unnamed() });
        }
    }
    items.sort_by(|a, b| (a.outcome != "attached", &a.name, a.netns).cmp(&(b.outcome != "attached", &b.name, b.netns)));
    Ok(items)
}

impl PodItem {
    /// What a record says at a time.
    #[must_use]
    pub fn of(key: &PodKey, record: &PodRecord, now: u64) -> Self {
        let text = |field: &[u8]| Some(names::unpadded(field)).filter(|text| !text.is_empty());
        let addresses = record.addresses.iter().filter(|address| **address != Addr::default());
        Self {
            name: text(&record.name),
            netns: Some(key.netns).filter(|netns| netns >> 63 == 0),
            outcome: record.outcome_name(),
            detail: text(&record.detail),
            mode: record.mode_name().filter(|_| record.outcome == ATTACHED),
            interface: text(&record.interface),
            ifindex: Some(record.ifindex).filter(|index| *index != 0),
            addresses: addresses.map(|address| IpAddr::from(*address)).collect(),
            since_seconds: Some(seconds(record.since, now)),
            hooks: None,
            hooks_unknown: None,
        }
    }

    fn unnamed() -> Self {
        Self {
            name: None,
            netns: None,
            outcome: "attached",
            detail: Some(
                "a link is pinned, but no agent recorded the pod; one that starts removes it if it is dead".into(),
            ),
            mode: Some("tcx"),
            interface: None,
            ifindex: None,
            addresses: Vec::new(),
            since_seconds: None,
            hooks: None,
            hooks_unknown: None,
        }
    }
}

/// How full the maps are.
pub(crate) fn room(pins: &Pins) -> Result<Vec<MapItem>, StateError> {
    use sidetrack_splice::{
        abi::{
            addr::Tuple,
            record::{Connection, Dial, Handshake, HeadKey, Leg, NameKey, NameText},
            route::{Route, RouteKey, Service, ServiceAddr},
        },
        window::Window,
    };
    fn item<K: maps::Record + Eq + std::hash::Hash, V: maps::Record>(
        pins: &Pins,
        name: &'static str,
    ) -> Result<MapItem, StateError> {
        let path = pins.map(name);
        Ok(MapItem { name, entries: maps::count::<K, V>(&path)?, room: maps::room(&path)? })
    }
    let mut items = vec![
        item::<ServiceAddr, Service>(pins, "services")?,
        item::<RouteKey, Route>(pins, "routes")?,
        item::<Tuple, Connection>(pins, "connections")?,
        item::<Tuple, Leg>(pins, "legs")?,
        item::<Tuple, Handshake>(pins, "handshakes")?,
        item::<Tuple, Dial>(pins, "dials")?,
        item::<HeadKey, Window>(pins, "heads")?,
        item::<NameKey, NameText>(pins, "names")?,
    ];
    match item::<PodKey, PodRecord>(pins, pod::MAP) {
        // An agent that starts makes it after the others.
        Err(StateError::Missing(_)) => {}
        pods => items.push(pods?),
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pods::Outcome;

    #[test]
    fn an_agent_is_alive_while_it_writes() {
        let second = 1_000_000_000;
        let control = Control { heartbeat: 10 * second, pid: 7, ..Control::default() };
        assert!(Agent::of(&control, 11 * second).alive);
        let dead = Agent::of(&control, 16 * second);
        assert_eq!((dead.alive, dead.pid, dead.heartbeat_age_seconds), (false, Some(7), Some(6.0)));
        assert_eq!(Agent::of(&Control::default(), second).pid, None);
    }

    #[test]
    fn only_what_happened_is_listed_and_with_its_meaning() {
        let mut counts = vec![0; 128];
        counts[Reason::SpliceHot as usize] = 3;
        counts[127] = 1;
        let counted = counted(&counts);
        assert_eq!(counted[0].name, "splice_hot");
        assert_eq!(counted[0].meaning, "The owner changed to a leg that was there.");
        assert_eq!((counted[1].name.as_str(), counted[1].count), ("reason_127", 1));
    }

    #[test]
    fn a_pod_that_is_not_attached_says_why() {
        let outcome = Outcome::SeveralDefaultRoutes(vec!["eth0".into(), "net1".into()]);
        let record = PodRecord::odd(Path::new("/run/netns/two"), &outcome, 1_000_000_000);
        let item = PodItem::of(&PodKey::netns(77), &record, 3_000_000_000);
        assert_eq!((item.name.as_deref(), item.netns, item.outcome), (Some("two"), Some(77), "several_default_routes"));
        assert_eq!(item.detail, Some(outcome.to_string()));
        assert_eq!((item.mode, item.since_seconds), (None, Some(2.0)));
    }
}
