//! The table of an agent that has not heard of its cluster for too long.

use sidetrack_splice::table::{OnUnreachable, Route, RouteTable, Service, To};

/// The table with its forks refused for this reason, or replaced by the baseline where the route says so: by now a fork's
/// address may be another pod's.
///
/// # Panics
/// Where the reason is none that a table takes.
#[must_use]
pub fn cut_off(table: &RouteTable, reason: &str) -> RouteTable {
    let route = |route: &Route| {
        let to = match &route.to {
            To::Fork { on_unreachable: OnUnreachable::Baseline, .. } => return None,
            To::Fork { .. } => To::Fail { reason: reason.to_owned() },
            To::Fail { .. } => route.to.clone(),
        };
        Some(Route { key: route.key.clone(), to })
    };
    let service =
        |service: &Service| Service { routes: service.routes.iter().filter_map(route).collect(), ..service.clone() };
    let services = table.services().iter().map(service).collect();
    RouteTable::new(services).expect("refusals make no table invalid")
}
