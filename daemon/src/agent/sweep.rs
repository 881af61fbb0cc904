//! Forgets what has ended: legs that are given up, closed or idle, connections, parts of heads.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sidetrack_splice::abi::{
    addr::Tuple,
    record::{
        CONN_DIVERTED, CONN_FIN, Connection, HeadKey, LEG_NONE, Leg, PHASE_CLOSED, PHASE_RESET, RESP_FIN, RESP_RESET,
        STATE_DEAD, STATE_PARKED,
    },
};
use tokio::time::{MissedTickBehavior, interval};

use super::{Shared, legs};
use crate::state;

/// How long an ended connection is remembered: TIME-WAIT's 60 seconds, in which the client still acknowledges.
const TOMBSTONE: Duration = Duration::from_mins(1);
/// How long a leg may stand without its connection knowing it: the time between its making and its splice.
const UNCLAIMED: Duration = Duration::from_secs(10);

fn older(at: u64, now: u64, than: Duration) -> bool {
    u128::from(now.saturating_sub(at)) > than.as_nanos()
}

/// Why a leg is to end, if it is.
fn verdict(c: Option<&Connection>, tuple: &Tuple, leg: &Leg, now: u64, idle: Duration) -> Option<&'static str> {
    let Some(c) = c.filter(|c| c.isn == leg.isn) else {
        return older(leg.opened, now, UNCLAIMED).then_some("its connection is gone");
    };
    let known = c
        .legs
        .get(usize::from(leg.slot))
        .is_some_and(|r| r.kind != LEG_NONE && r.remote == tuple.remote && r.local_port == tuple.local_port);
    let owner = c.now.owner == leg.slot;
    if !known {
        // Replaced in its slot by a younger one, or not taken yet.
        return older(leg.opened, now, UNCLAIMED).then_some("its slot is another's");
    }
    if c.now.phase == PHASE_RESET {
        return Some("the connection was given up");
    }
    if leg.state == STATE_DEAD {
        return Some("it holds an unfinished head");
    }
    if owner {
        return None;
    }
    if c.now.phase == PHASE_CLOSED || c.now.flags & CONN_FIN != 0 {
        return Some("the client has closed");
    }
    if leg.closed != 0 {
        return Some("its backend has closed");
    }
    (leg.state == STATE_PARKED && older(leg.active, now, idle)).then_some("idle")
}

/// A connection was closed or given up: what can go at once goes.
pub(super) fn gone(shared: &Shared, conn: &Tuple) {
    let Some(c) = shared.maps.connections.find(conn) else { return };
    let now = state::now();
    for r in c.legs.iter().filter(|r| r.kind != LEG_NONE) {
        let tuple = legs::tuple(conn, r);
        let Some(leg) = shared.maps.legs.find(&tuple) else { continue };
        if let Some(why) = verdict(Some(&c), &tuple, &leg, now, shared.config.parked_idle) {
            legs::end(shared, &tuple, &leg, why);
        }
    }
}

/// Whether a connection is over, and its time as a tombstone too.
fn over(c: &Connection, now: u64) -> bool {
    let resp = c.resp.flags;
    let ended = matches!(c.now.phase, PHASE_CLOSED | PHASE_RESET)
        || resp & RESP_RESET != 0
        || (c.now.flags & CONN_FIN != 0 && resp & RESP_FIN != 0);
    // What was never diverted needs no tombstone, and is removed by the programs, but for resets that come meanwhile.
    ended && (c.now.flags & CONN_DIVERTED == 0 && c.now.phase != PHASE_RESET || older(c.now.active, now, TOMBSTONE))
}

fn once(shared: &Shared) {
    let now = state::now();
    let connections: HashMap<Tuple, Connection> = shared.maps.connections.entries().into_iter().collect();
    for (tuple, leg) in shared.maps.legs.entries() {
        if leg.moved == 0 {
            // The original leg goes with its connection, or when it is given up.
            let c = connections.get(&tuple);
            if c.is_none() && older(leg.opened, now, UNCLAIMED) {
                _ = shared.maps.legs.remove(&tuple);
                continue;
            }
        }
        if let Some(why) = verdict(connections.get(&leg.conn), &tuple, &leg, now, shared.config.parked_idle) {
            // It may have become the owner meanwhile.
            if shared.maps.legs.find(&tuple).is_some_and(|l| l.state == leg.state && l.active == leg.active) {
                legs::end(shared, &tuple, &leg, why);
            }
        }
    }
    let listed = shared.attached.listed();
    for (conn, c) in &connections {
        let pod_gone = listed && shared.attached.find(conn.local_addr().ip()).is_none();
        if pod_gone || over(c, now) {
            forget(shared, conn, c);
        }
    }
    // Dials that failed, or whose agent died.
    for (tuple, seen) in shared.maps.handshakes.entries() {
        if older(seen.at, now, UNCLAIMED) {
            _ = shared.maps.handshakes.remove(&tuple);
        }
    }
    for (key, _) in shared.maps.heads.entries() {
        if shared.maps.connections.find(&key.conn).is_none() {
            _ = shared.maps.heads.remove(&key);
        }
    }
}

fn forget(shared: &Shared, conn: &Tuple, c: &Connection) {
    for r in c.legs.iter().filter(|r| r.kind != LEG_NONE) {
        let tuple = legs::tuple(conn, r);
        if let Some(leg) = shared.maps.legs.find(&tuple) {
            if c.now.owner == leg.slot {
                // Its backend has had the client's FIN or reset.
                _ = shared.maps.legs.remove(&tuple);
                if let Some(member) = shared.attached.find(tuple.local_addr().ip()).filter(|_| leg.moved != 0) {
                    member.ports.give_back(tuple.remote_addr(), tuple.local_addr().port());
                }
            } else {
                legs::end(shared, &tuple, &leg, "the connection is over");
            }
        }
    }
    _ = shared.maps.connections.remove(conn);
    for direction in [0, 1] {
        _ = shared.maps.heads.remove(&HeadKey { conn: *conn, direction });
    }
}

/// Sweeps at regular times.
pub(super) async fn run(shared: Arc<Shared>, every: Duration) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let shared = Arc::clone(&shared);
        // System calls for each entry: not on a thread that serves holds.
        _ = tokio::task::spawn_blocking(move || once(&shared)).await;
    }
}
