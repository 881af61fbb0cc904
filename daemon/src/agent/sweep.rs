//! Forgets what has ended: legs that are given up, closed or idle, connections, parts of heads.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sidetrack_splice::abi::{
    addr::Tuple,
    record::{Connection, HeadKey, LEG_NONE},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Shared,
    ended::{self, Silence, UNCLAIMED, older},
    legs,
};
use crate::state;

/// A connection was closed or given up: what can go at once goes.
pub(super) fn gone(shared: &Shared, conn: &Tuple) {
    let Some(c) = shared.maps.connections.find(conn) else { return };
    let now = state::now();
    for r in c.legs.iter().filter(|r| r.kind != LEG_NONE) {
        let tuple = legs::tuple(conn, r);
        let Some(leg) = shared.maps.legs.find(&tuple) else { continue };
        if let Some(why) = ended::leg(Some(&c), &tuple, &leg, now, shared.config.parked_idle) {
            legs::end(shared, &tuple, &leg, why);
        }
    }
}

fn once(shared: &Shared, silence: &mut Silence) {
    let now = state::now();
    let connections: HashMap<Tuple, Connection> = shared.maps.connections.entries().into_iter().collect();
    for (tuple, leg) in shared.maps.legs.entries() {
        if let Some(why) = ended::leg(connections.get(&leg.conn), &tuple, &leg, now, shared.config.parked_idle) {
            // It may have become the owner meanwhile.
            if shared.maps.legs.find(&tuple).is_some_and(|l| l.state == leg.state && l.active == leg.active) {
                legs::end(shared, &tuple, &leg, why);
            }
        }
    }
    let listed = shared.attached.listed();
    for (conn, c) in &connections {
        let pod_gone = listed && shared.attached.find(conn.local_addr().ip()).is_none();
        if pod_gone || ended::connection(c, now, silence.of(conn, c, now)) {
            forget(shared, conn, c);
        }
    }
    silence.keep(|conn| connections.contains_key(conn));
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
    let mut silence = Silence::default();
    loop {
        tick.tick().await;
        let (shared, mut known) = (Arc::clone(&shared), silence);
        // System calls for each entry: not on a thread that serves holds.
        let swept = tokio::task::spawn_blocking(move || {
            once(&shared, &mut known);
            known
        });
        silence = swept.await.unwrap_or_default();
    }
}
