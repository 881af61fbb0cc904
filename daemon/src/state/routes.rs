//! `sidetrack routes`: which key leads where, at which service.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::Serialize;
use sidetrack_splice::{
    abi::route::{ROUTE_FAIL, ROUTE_OR_BASELINE, ServiceAddr},
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
    /// `fail` or `baseline`: what becomes of a request whose fork cannot be reached.
    pub on_unreachable: &'static str,
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
        let mut by_id: BTreeMap<u32, (Vec<SocketAddr>, usize)> = BTreeMap::new();
        for (address, service) in &snapshot.services {
            by_id.entry(service.id).or_default().0.push(socket_addr(*address));
        }
        for key in snapshot.routes.keys() {
            by_id.entry(key.service).or_default().1 += 1;
        }
        for (addresses, _) in by_id.values_mut() {
            addresses.sort_unstable();
        }
        let mut items: Vec<_> = snapshot
            .routes
            .iter()
            .map(|(key, route)| {
                let mut item = RouteItem {
                    service: snapshot.names.service(key.service),
                    addresses: by_id[&key.service].0.clone(),
                    key: key_text(key),
                    kind: if route.kind == ROUTE_FAIL { "fail" } else { "fork" },
                    endpoints: Vec::new(),
                    endpoints_more: 0,
                    reason: None,
                    on_unreachable: if route.flags & ROUTE_OR_BASELINE == 0 { "fail" } else { "baseline" },
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
        let service = |(id, (addresses, routes)): (u32, (Vec<SocketAddr>, usize))| ServiceItem {
            name: snapshot.names.service(id),
            addresses,
            routes,
            id,
        };
        let mut services: Vec<_> = by_id.into_iter().map(service).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Self { items, services }
    }
}

/// The address in a key of map `services`.
#[must_use]
pub fn socket_addr(address: ServiceAddr) -> SocketAddr {
    (std::net::IpAddr::from(address.addr), u16::from_be(address.port)).into()
}
