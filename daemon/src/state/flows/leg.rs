//! The legs of a connection: what each is, and how long it has had nothing to do.

use std::net::SocketAddr;

use serde::Serialize;
use sidetrack_splice::abi::{
    addr::Tuple,
    record::{
        Connection, LEG_FORK, LEG_NONE, LEG_ROUTER, LEG_SERVER, Leg, LegRef, STATE_DEAD, STATE_OWNER, STATE_PARKED,
    },
};

use crate::state::{Snapshot, seconds};

/// One leg.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LegItem {
    /// `baseline`, `fork`, `router` or `server`.
    pub kind: &'static str,
    /// `owner`, `parked`, `dead` (to be reset, never used again) or `closed` (by its backend, or with its connection).
    pub state: &'static str,
    /// The backend.
    pub backend: SocketAddr,
    /// The address and port that the backend sees.
    pub local: SocketAddr,
    /// The key that it was dialled for.
    pub key: Option<String>,
    /// Exchanges that it has begun; `None` where they are not counted: beside other legs.
    pub exchanges: Option<u32>,
    /// Seconds since it was made.
    pub age_seconds: Option<f64>,
    /// Seconds since it was parked; of the owner, since its last request.
    pub idle_seconds: f64,
}

/// The legs of a connection, the original first. A slot whose leg is gone from map `legs` is free. The original has an
/// entry only once another leg stands beside it.
pub(super) fn of(snapshot: &Snapshot, conn: &Tuple, connection: &Connection, phase: &str) -> Vec<LegItem> {
    let slots = connection.legs.iter().enumerate().filter(|(_, r)| r.kind != LEG_NONE);
    let found = slots.filter_map(|(slot, r)| {
        // What a ref names may have ended, and its port be that of another connection's leg.
        let leg = snapshot.legs.get(&tuple(conn, r)).filter(|leg| leg.serves(conn, connection.isn))?;
        Some(item(snapshot, conn, connection, slot, r, Some(leg), phase))
    });
    let mut legs: Vec<_> = found.collect();
    if legs.is_empty() {
        legs.push(item(snapshot, conn, connection, 0, &original(conn), None, phase));
    }
    legs
}

/// What a kind of leg is called.
pub(super) fn kind(leg: &LegRef) -> &'static str {
    match leg.kind {
        LEG_FORK => "fork",
        LEG_ROUTER => "router",
        LEG_SERVER => "server",
        _ => "baseline",
    }
}

/// The key that a leg was dialled for.
pub(super) fn key(snapshot: &Snapshot, leg: &LegRef) -> Option<String> {
    if leg.route == 0 { None } else { snapshot.names.routes.get(&leg.route).map(|(key, _)| key.clone()) }
}

fn tuple(conn: &Tuple, leg: &LegRef) -> Tuple {
    Tuple { local: conn.local, local_port: leg.local_port, remote: leg.remote, remote_port: leg.remote_port }
}

fn original(conn: &Tuple) -> LegRef {
    LegRef {
        remote: conn.remote,
        remote_port: conn.remote_port,
        local_port: conn.local_port,
        kind: sidetrack_splice::abi::record::LEG_BASELINE,
        ..LegRef::default()
    }
}

fn item(
    snapshot: &Snapshot,
    conn: &Tuple,
    connection: &Connection,
    slot: usize,
    r: &LegRef,
    leg: Option<&Leg>,
    phase: &str,
) -> LegItem {
    let own = tuple(conn, r);
    let owns = usize::from(connection.now.owner) == slot;
    let opened = leg.map_or(connection.opened, |leg| leg.opened);
    let parked = leg.map_or(opened, |leg| leg.active.max(opened));
    let active = if owns { parked.max(connection.now.active) } else { parked };
    LegItem {
        kind: kind(r),
        state: state(leg, owns, phase),
        backend: own.remote_addr(),
        local: own.local_addr(),
        key: key(snapshot, r),
        exchanges: leg.is_none().then_some(connection.now.asked),
        age_seconds: super::age(opened, snapshot),
        idle_seconds: seconds(active, snapshot.now),
    }
}

fn state(leg: Option<&Leg>, owns: bool, phase: &str) -> &'static str {
    match leg {
        Some(leg) if leg.state == STATE_DEAD => "dead",
        Some(leg) if leg.closed != 0 => "closed",
        _ if phase == "closed" => "closed",
        Some(leg) if leg.state == STATE_OWNER => "owner",
        Some(leg) if leg.state == STATE_PARKED => "parked",
        _ if owns => "owner",
        _ => "parked",
    }
}
