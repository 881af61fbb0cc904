//! The pinned records, read once.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use sidetrack_splice::{
    abi::{
        addr::{Addr, Tuple},
        control::Control,
        record::{Connection, Leg, NAME_POD, NAME_ROUTE, NAME_SERVICE, NameKey, NameText},
        route::{Route, RouteKey, Service, ServiceAddr},
    },
    table::{Programmed, Recorded, Text},
};

use super::{Pins, StateError, maps, now};
use crate::names;

/// What belongs to ids and addresses.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Names of services, by id.
    pub services: HashMap<u32, String>,
    /// Keys and places of routes, by id.
    pub routes: HashMap<u32, (String, Recorded)>,
    /// Names of pods, by address.
    pub pods: HashMap<Addr, String>,
}

impl Names {
    pub(crate) fn read(entries: &[(NameKey, NameText)]) -> Self {
        let mut read = Self::default();
        for (key, text) in entries {
            match names::decode(key, text) {
                Some(Text::Service(name)) => _ = read.services.insert(key.id, name),
                Some(Text::Route { key: sandbox, to }) => _ = read.routes.insert(key.id, (sandbox, to)),
                None if key.kind == NAME_POD => _ = read.pods.insert(key.addr, names::to_str(text)),
                _ => {}
            }
        }
        read
    }

    /// A service's name; its number in words if nobody wrote one.
    #[must_use]
    pub fn service(&self, id: u32) -> String {
        self.services.get(&id).cloned().unwrap_or_else(|| format!("service #{id}"))
    }

    /// The name of the pod that has an address.
    #[must_use]
    pub fn pod(&self, address: IpAddr) -> Option<String> {
        self.pods.get(&Addr::from(address)).cloned()
    }
}

/// The records of routes and connections at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// `CLOCK_MONOTONIC` in nanoseconds when it was read.
    pub now: u64,
    /// Map `control`.
    pub control: Control,
    /// Map `services`.
    pub services: BTreeMap<ServiceAddr, Service>,
    /// Map `routes`.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Map `names`.
    pub names: Names,
    /// Map `connections`; only read for flows.
    pub connections: Vec<(Tuple, Connection)>,
    /// Map `legs`; only read for flows.
    pub legs: HashMap<Tuple, Leg>,
}

impl Snapshot {
    /// Reads services, routes and names.
    pub fn routes(pins: &Pins) -> Result<Self, StateError> {
        let names: Vec<(NameKey, NameText)> = maps::entries(&pins.map("names"))?;
        Ok(Self {
            now: now(),
            control: maps::single(&pins.map("control"))?,
            services: maps::entries(&pins.map("services"))?.into_iter().collect(),
            routes: maps::entries(&pins.map("routes"))?.into_iter().collect(),
            names: Names::read(&names),
            ..Self::default()
        })
    }

    /// Reads connections and their legs too.
    pub fn flows(pins: &Pins) -> Result<Self, StateError> {
        Ok(Self {
            connections: maps::entries(&pins.map("connections"))?,
            legs: maps::entries(&pins.map("legs"))?.into_iter().collect(),
            ..Self::routes(pins)?
        })
    }
}

/// What an earlier agent left in the maps `services`, `routes` and `names`: what a plan starts from.
pub fn programmed(pins: &Pins) -> Result<Programmed, StateError> {
    let names: Vec<(NameKey, NameText)> = maps::entries(&pins.map("names"))?;
    let names = names.iter().filter(|(key, _)| matches!(key.kind, NAME_SERVICE | NAME_ROUTE));
    Ok(Programmed::adopt(
        maps::entries(&pins.map("services"))?,
        maps::entries(&pins.map("routes"))?,
        names.filter_map(|(key, text)| Some((*key, names::decode(key, text)?))),
    ))
}
