//! Which key leads where: the table that a user writes, and how the pinned maps are brought to match it.
//!
//! - [`RouteTable`]: what is wanted. It cannot be made but valid ([`check`]).
//! - [`Programmed`]: what stands in the maps `services`, `routes` and `names`, read back from them or followed step by
//!   step.
//! - [`Programmed::plan`]: the steps from one to the other, in an order in which no request goes to a wrong side at any
//!   moment ([`plan`] says why).
//! - [`Targets`]: where a route leads, for whoever dials.

mod check;
mod plan;
mod programmed;
mod recorded;
mod targets;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use check::{
    ADDRESSES_MAX, ENDPOINTS_MAX, Invalid, NAME_MAX, Place, Problem, REASON_MAX, ROUTES_MAX, check_address, check_key,
};
pub use plan::{IdsExhausted, Op, Plan};
pub use programmed::Programmed;
pub use recorded::{Recorded, Text, fingerprint};
pub use targets::{Lookup, Target, Targets};

use crate::abi::{
    KEY_MAX,
    route::{RouteKey, ServiceAddr},
};

/// What is wanted: services, their addresses, and where the keys at each of them lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    services: Vec<Service>,
}

impl RouteTable {
    /// Takes the services as they are if all of them are valid, else says everything that is not.
    pub fn new(services: Vec<Service>) -> Result<Self, Vec<Invalid>> {
        let invalid = check::check(&services);
        if invalid.is_empty() { Ok(Self { services }) } else { Err(invalid) }
    }

    /// The services, in the order in which they were given.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// How many routes there are over all services.
    #[must_use]
    pub fn routes(&self) -> usize {
        self.services.iter().map(|service| service.routes.len()).sum()
    }
}

/// A workload that clients reach under some addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique in the table: `namespace/name` where there are namespaces.
    pub name: String,
    /// What clients dial: a `ClusterIP` and port, an endpoint's own address. No two services share one.
    pub addresses: Vec<SocketAddr>,
    /// Where keys lead. A key that stands not here goes to the baseline.
    pub routes: Vec<Route>,
}

/// Where one key leads at one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The sandbox key, unique in the service.
    pub key: String,
    /// Where its requests go.
    pub to: To,
}

/// Where the requests of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// To a fork.
    Fork {
        /// Its endpoints. Connections share them; only those of the client's family count.
        endpoints: Vec<SocketAddr>,
        /// What becomes of a request while none of them can be reached.
        on_unreachable: OnUnreachable,
    },
    /// Nowhere: such a request is refused.
    Fail {
        /// Why, for whoever asked.
        reason: String,
    },
}

/// What becomes of a request whose fork cannot be reached: it refuses, does not answer, or no agent is there to dial it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnUnreachable {
    /// It is refused: nobody gets another version's answer for the fork's.
    #[default]
    Fail,
    /// The baseline serves it.
    Baseline,
}

/// The key of map `services` for an address.
#[must_use]
pub fn service_addr(address: SocketAddr) -> ServiceAddr {
    ServiceAddr { addr: address.ip().into(), port: address.port().to_be(), pad: 0 }
}

/// The key of map `routes` for a sandbox key at a service; `None` if the key is too long to be one.
#[must_use]
pub fn route_key(service: u32, key: &str) -> Option<RouteKey> {
    if key.len() > KEY_MAX {
        return None;
    }
    let mut bytes = [0; KEY_MAX + 1];
    bytes[..key.len()].copy_from_slice(key.as_bytes());
    Some(RouteKey { service, key: bytes })
}

/// The sandbox key in a key of map `routes`.
#[must_use]
pub fn key_text(key: &RouteKey) -> String {
    let end = key.key.iter().position(|b| *b == 0).unwrap_or(key.key.len());
    String::from_utf8_lossy(&key.key[..end]).into_owned()
}
