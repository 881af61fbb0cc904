//! Brings a table of routes into the maps, step by step.

use std::sync::{Arc, atomic::Ordering};

use anyhow::Context;
use sidetrack_splice::table::{Op, Programmed, RouteTable};
use tracing::{debug, info};

use super::{Shared, older};
use crate::{bpf::load::Maps, names};

/// What an earlier agent left in the maps.
pub(super) fn adopt(maps: &Maps) -> Programmed {
    let named = maps.names.entries().into_iter().filter_map(|(key, text)| Some((key, names::decode(&key, &text)?)));
    Programmed::adopt(maps.services.entries(), maps.routes.entries(), named)
}

/// Takes away what an earlier agent has left in map `filter` of addresses that nothing has any more. Before anything is dialled or
/// programmed.
pub(super) fn clear_filter(maps: &Maps) -> Result<(), aya::maps::MapError> {
    // Services first: what begins while the rest is read is theirs.
    let services = maps.services.walk().map(|(at, _)| (at.addr, at.port));
    let connections = maps.connections.walk().map(|(conn, _)| (conn.remote, conn.remote_port));
    let legs = maps.legs.walk().map(|(leg, _)| (leg.remote, leg.remote_port));
    maps.filter.keep(services.chain(connections).chain(legs))
}

/// Takes the steps to `table`. Where one fails, the steps before it stay taken, and the next table starts from there.
pub(super) fn program(shared: &Arc<Shared>, programmed: &mut Programmed, table: &RouteTable) -> anyhow::Result<()> {
    let plan = programmed.plan(table)?;
    *shared.targets.write().unwrap_or_else(std::sync::PoisonError::into_inner) = plan.targets;
    shared.routed.store(true, Ordering::Relaxed);
    let steps = plan.ops.len();
    let new = |op: &Op| match op {
        Op::PutService(key, value) if !programmed.services().any(|(known, _)| known == key) => Some((*key, *value)),
        _ => None,
    };
    let services: older::Services = plan.ops.iter().filter_map(new).collect();
    // Connections to them are followed before any key leads anywhere; those that begin meanwhile, behind the steps.
    older(shared, &services)?;
    for op in plan.ops {
        step(&shared.maps, &op).with_context(|| format!("cannot take the step {op:?}"))?;
        debug!(?op, "programmed");
        programmed.apply(&op);
    }
    older(shared, &services)?;
    let in_use: std::collections::HashSet<u32> = shared.maps.connections.walk().map(|(_, c)| c.service).collect();
    for op in programmed.forget(|id| in_use.contains(&id)) {
        step(&shared.maps, &op)?;
        programmed.apply(&op);
    }
    info!(services = table.services().len(), routes = table.routes(), steps, "routes in force");
    Ok(())
}

/// Takes up connections that are older than the entries of these services.
fn older(shared: &Arc<Shared>, services: &older::Services) -> Result<(), aya::maps::MapError> {
    for key in services.keys() {
        shared.maps.filter.add_record(&key.addr, key.port)?;
    }
    if !services.is_empty() {
        older::adopt_everywhere(shared, services);
    }
    Ok(())
}

fn step(maps: &Maps, op: &Op) -> Result<(), aya::maps::MapError> {
    match op {
        Op::PutService(key, value) => {
            maps.filter.add_record(&key.addr, key.port)?;
            maps.services.put(key, value)
        }
        Op::DeleteService(key) => maps.services.remove(key),
        Op::PutRoute(key, value) => maps.routes.put(key, value),
        Op::DeleteRoute(key) => maps.routes.remove(key),
        Op::PutName(key, text) => maps.names.put(key, &names::encode(text)),
        Op::DeleteName(key) => maps.names.remove(key),
    }
}
