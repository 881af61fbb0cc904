//! `sidetrack flows`: connections, and who serves each.

mod leg;

use std::net::SocketAddr;

use serde::Serialize;
use sidetrack_splice::abi::{
    addr::Tuple,
    record::{
        CONN_ADOPT, CONN_FIN, Connection, PHASE_CLOSED, PHASE_HOLD, PHASE_OPAQUE, PHASE_RESET, PHASE_SWITCH,
        PHASE_WATCH, RESP_RESET,
    },
};

pub use self::leg::LegItem;
use super::{Snapshot, seconds};

/// Connections.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flows {
    /// One for each connection, by client.
    pub items: Vec<Flow>,
}

/// Which connections are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Closed ones too, which are kept for the last segments' sake.
    pub closed: bool,
    /// Only those to this service.
    pub service: Option<String>,
    /// Only those whose owner was dialled for this key.
    pub key: Option<String>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flow {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The client pod's name, if it is known.
    pub client_pod: Option<String>,
    /// The service's name.
    pub service: String,
    /// What the client dialled.
    pub service_address: SocketAddr,
    /// `watch`, `hold`, `switch`, `opaque`, `reset` or `closed`.
    pub phase: &'static str,
    /// Who serves the exchange in progress: `baseline`, `fork`, `router` or `server`.
    pub owner: &'static str,
    /// The owner's address.
    pub owner_address: SocketAddr,
    /// The key that the owner was dialled for.
    pub key: Option<String>,
    /// TCP connections to backends, the original among them.
    pub legs: usize,
    /// Each of them, the original first.
    pub leg_items: Vec<LegItem>,
    /// Requests passed on.
    pub asked: u32,
    /// Responses that have begun.
    pub answered: u32,
    /// Seconds since its SYN.
    pub age_seconds: Option<f64>,
    /// Seconds since the last request was passed on, or the phase changed.
    pub idle_seconds: f64,
}

impl Flows {
    /// Reads those that are asked for out of a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot, filter: &Filter) -> Self {
        let wanted = |flow: &Flow| {
            (filter.closed || flow.phase != "closed")
                && filter.service.as_ref().is_none_or(|service| *service == flow.service)
                && (filter.key.is_none() || filter.key == flow.key)
        };
        let flows = snapshot.connections.iter().map(|(tuple, connection)| Flow::of(snapshot, tuple, connection));
        let mut items: Vec<_> = flows.filter(wanted).collect();
        items.sort_by_key(|flow| (flow.client, flow.service_address));
        Self { items }
    }
}

impl Flow {
    fn of(snapshot: &Snapshot, tuple: &Tuple, connection: &Connection) -> Self {
        let state = &connection.now;
        let owner = connection.legs.get(usize::from(state.owner)).copied().unwrap_or_default();
        let kind = leg::kind(&owner);
        let remote = Tuple { remote: owner.remote, remote_port: owner.remote_port, ..*tuple }.remote_addr();
        let phase = phase(connection);
        let leg_items = leg::of(snapshot, tuple, connection, phase);
        Self {
            client: tuple.local_addr(),
            client_pod: snapshot.names.pod(tuple.local.into()),
            service: snapshot.names.service(connection.service),
            service_address: tuple.remote_addr(),
            phase,
            owner: kind,
            owner_address: if kind == "baseline" { tuple.remote_addr() } else { remote },
            key: leg::key(snapshot, &owner),
            legs: leg_items.len(),
            leg_items,
            asked: state.asked,
            answered: connection.resp.answered,
            age_seconds: age(connection.opened, snapshot),
            idle_seconds: seconds(state.active.max(connection.opened), snapshot.now),
        }
    }
}

/// Seconds since then; `None` for what is older than its record.
fn age(opened: u64, snapshot: &Snapshot) -> Option<f64> {
    (opened != 0).then(|| seconds(opened, snapshot.now))
}

fn phase(connection: &Connection) -> &'static str {
    let now = &connection.now;
    match now.phase {
        _ if connection.resp.flags & RESP_RESET != 0 => "closed",
        // The client has sent its FIN; the other side's is on its way.
        PHASE_WATCH if now.flags & CONN_FIN != 0 => "closed",
        PHASE_WATCH if now.flags & CONN_ADOPT != 0 => "older",
        PHASE_WATCH => "watch",
        PHASE_HOLD => "hold",
        PHASE_OPAQUE => "opaque",
        PHASE_CLOSED => "closed",
        PHASE_RESET => "reset",
        PHASE_SWITCH => "switch",
        _ => "unknown",
    }
}
