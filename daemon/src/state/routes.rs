//! `sidetrack routes`: which key leads where, at which service.

use std::net::SocketAddr;

use serde::Serialize;
use sidetrack_splice::{
    abi::route::{ROUTE_FAIL, ServiceAddr},
    table::{Recorded, key_text},
};

use super::Snapshot;

/// All routes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Routes {
    /// One for each route, by service and key.
    pub items: Vec<RouteItem>,
    /// One for each service, also for those that have no route.
    pub services: Vec<ServiceItem>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteItem {
    /// The service's name.
    pub service: String,
    /// The service's addresses.
    pub addresses: Vec<SocketAddr>,
    /// The sandbox key.
    pub key: String,
    /// `fork` or `fail`.
    pub kind: &'static str,
    /// The fork's endpoints, as far as they are recorded.
    pub endpoints: Vec<SocketAddr>,
    /// How many endpoints more there are.
    pub endpoints_more: u32,
    /// Why requests are refused, where they are.
    pub reason: Option<String>,
    /// The route's number, as in logs.
    pub id: u32,
    /// Goes up when an endpoint leaves.
    pub version: u32,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceItem {
    /// Its name.
    pub name: String,
    /// Its addresses; none if only open connections still know it.
    pub addresses: Vec<SocketAddr>,
    /// How many routes it has.
    pub routes: usize,
    /// Its number, as in logs.
    pub id: u32,
}

impl Routes {
    /// Reads them out of a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let addresses = |id| {
            let ours = snapshot.services.iter().filter(|(_, service)| service.id == id);
            let mut addresses: Vec<_> = ours.map(|(address, _)| socket_addr(*address)).collect();
            addresses.sort_unstable();
            addresses
        };
        let mut items: Vec<_> = snapshot
            .routes
            .iter()
            .map(|(key, route)| {
                let mut item = RouteItem {
                    service: snapshot.names.service(key.service),
                    addresses: addresses(key.service),
                    key: key_text(key),
                    kind: if route.kind == ROUTE_FAIL { "fail" } else { "fork" },
                    endpoints: Vec::new(),
                    endpoints_more: 0,
                    reason: None,
                    id: route.id,
                    version: route.version,
                };
                match snapshot.names.routes.get(&route.id) {
                    Some((_, Recorded::Fork { endpoints, more, .. })) => {
                        (item.endpoints, item.endpoints_more) = (endpoints.clone(), *more);
                    }
                    Some((_, Recorded::Fail { reason })) => item.reason = Some(reason.clone()),
                    None => {}
                }
                item
            })
            .collect();
        items.sort_by(|a, b| (&a.service, &a.key).cmp(&(&b.service, &b.key)));
        let mut ids: Vec<u32> = snapshot.services.values().map(|service| service.id).collect();
        ids.extend(snapshot.routes.keys().map(|key| key.service));
        ids.sort_unstable();
        ids.dedup();
        let service = |id| ServiceItem {
            name: snapshot.names.service(id),
            addresses: addresses(id),
            routes: snapshot.routes.keys().filter(|key| key.service == id).count(),
            id,
        };
        let mut services: Vec<_> = ids.into_iter().map(service).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Self { items, services }
    }
}

/// The address in a key of map `services`.
#[must_use]
pub fn socket_addr(address: ServiceAddr) -> SocketAddr {
    (std::net::IpAddr::from(address.addr), u16::from_be(address.port)).into()
}
