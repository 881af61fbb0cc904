//! Forgets what has ended: legs that are given up, closed or idle, connections, parts of heads.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sidetrack_splice::abi::{
    addr::Tuple,
    record::{Connection, HeadKey, LEG_NONE, Leg, LegRef},
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::{
    Shared,
    ended::{self, Client, Silence},
    leaving::{self, Leaving},
    legs, older, tracked, unfinished,
};
use crate::{
    pods::{Ends, EndsError},
    state,
};

/// What one sweep leaves to the next.
#[derive(Default)]
struct Known {
    silence: Silence,
    leaving: Leaving,
    /// It was said that a kernel does not answer.
    said: bool,
}

/// Why a connection is forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    /// It has ended, or its pod has.
    Ended,
    /// Its client has left a head that is held.
    Deserted,
    /// Nobody knows its client, and nothing has been heard of it for long.
    Foreign,
}

/// What the backend of a connection's owner has heard of its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// The client's FIN or reset, or its pod is gone and nobody can tell it anything.
    All,
    /// Nothing: its client has vanished.
    Nothing,
}

/// A connection was closed or given up: what can go at once goes.
pub(super) fn gone(shared: &Shared, conn: &Tuple) {
    if !shared.attached.listed() {
        return;
    }
    let Some(c) = shared.maps.connections.find(conn) else { return };
    for r in &c.legs {
        end_due(shared, conn, &c, r);
    }
}

/// A leg has taken the slot in which `before` stood: that is nobody's any more.
pub(super) fn replaced(shared: &Shared, conn: &Tuple, before: &LegRef) {
    if let Some(c) = shared.maps.connections.find(conn) {
        end_due(shared, conn, &c, before);
    }
}

/// Ends a leg of this connection's, if it is to end.
fn end_due(shared: &Shared, conn: &Tuple, c: &Connection, r: &LegRef) {
    if r.kind == LEG_NONE {
        return;
    }
    let tuple = legs::tuple(conn, r);
    // Its tuple may be that of another connection's leg by now.
    let Some(leg) = shared.maps.legs.find(&tuple).filter(|leg| leg.serves(conn, c.isn)) else { return };
    if let Some(why) = ended::leg(Some(c), &tuple, &leg, state::now(), shared.config.parked_idle) {
        legs::end(shared, &tuple, &leg, why);
    }
}

fn once(shared: &Shared, known: &mut Known, now: u64) {
    // Before its pod is known nothing can be reset, and what is forgotten by then stays open at its backend.
    if !shared.attached.listed() {
        return;
    }
    sweep_legs(shared, now);
    sweep_connections(shared, known, now);
    older::sweep(shared);
    unfinished::sweep(shared, now);
    tracked::sweep(shared);
    for (key, _) in shared.maps.heads.entries() {
        if shared.maps.connections.find(&key.conn).is_none() {
            _ = shared.maps.heads.remove(&key);
        }
    }
}

/// Ends the legs that are to end. What is to be removed is noted first: a walk that meets a removal begins again.
fn sweep_legs(shared: &Shared, now: u64) {
    let idle = shared.config.parked_idle;
    let why = |tuple: &Tuple, leg: &Leg| {
        let c = shared.maps.connections.find(&leg.conn);
        ended::leg(c.as_ref(), tuple, leg, now, idle)
    };
    let due: Vec<Tuple> =
        shared.maps.legs.walk().filter(|(tuple, leg)| why(tuple, leg).is_some()).map(|(tuple, _)| tuple).collect();
    for tuple in due {
        // It may have become the owner meanwhile.
        let Some(leg) = shared.maps.legs.find(&tuple) else { continue };
        if let Some(why) = why(&tuple, &leg) {
            legs::end(shared, &tuple, &leg, why);
        }
    }
}

fn sweep_connections(shared: &Shared, known: &mut Known, now: u64) {
    let (mut seen, mut over, mut late) = (HashSet::new(), Vec::new(), Vec::new());
    let mut silent: BTreeMap<IpAddr, Vec<Tuple>> = BTreeMap::new();
    for (conn, c) in shared.maps.connections.walk() {
        seen.insert(conn);
        let pod = conn.local_addr().ip();
        let still = known.silence.of(&conn, &c, now);
        if shared.attached.departed(pod) || ended::connection(&c, now, still) {
            over.push((conn, c.isn, Over::Ended));
        } else if ended::deserted(&c, now) {
            over.push((conn, c.isn, Over::Deserted));
        } else if still > ended::FOREIGN && shared.attached.find(pod).is_none() {
            over.push((conn, c.isn, Over::Foreign));
        } else if known.silence.due(&conn, now) {
            silent.entry(pod).or_default().push(conn);
        }
        if shared.routed.load(Ordering::Relaxed)
            && known.leaving.due(&shared.targets(), &conn, &c, now, shared.config.endpoint_grace)
        {
            late.push(conn);
        }
    }
    for (conn, isn, why) in over {
        let Some(c) = shared.maps.connections.find(&conn).filter(|c| c.isn == isn) else { continue };
        if why == Over::Deserted {
            // Its head may have gone on meanwhile.
            if !ended::deserted(&c, now) {
                continue;
            }
            legs::refuse(shared, &conn, &c);
        }
        forget(shared, &conn, &c, if why == Over::Ended { Heard::All } else { Heard::Nothing });
    }
    for conn in late {
        leaving::end(shared, &conn);
    }
    known.leaving.turn();
    for (pod, conns) in silent {
        ask(shared, known, pod, &conns, now);
    }
    known.silence.keep(|conn| seen.contains(conn));
    let addresses: HashSet<IpAddr> = seen.iter().map(|conn| conn.local_addr().ip()).collect();
    shared.attached.forget_departed(|address| addresses.contains(&address));
}

/// Asks a pod's kernel for the clients of these connections, and forgets those of which there is none.
fn ask(shared: &Shared, known: &mut Known, pod: IpAddr, conns: &[Tuple], now: u64) {
    let Some(member) = shared.attached.find(pod) else { return };
    match Ends::of(&member.pod.netns) {
        Ok(mut ends) => judge(shared, known, &member.name, &mut ends, conns, now),
        Err(error) => known.say(&member.name, &error),
    }
}

fn judge(shared: &Shared, known: &mut Known, pod: &str, ends: &mut Ends, conns: &[Tuple], now: u64) {
    for conn in conns {
        let client = match ends.has(conn.local_addr(), conn.remote_addr()) {
            Ok(true) => Client::There,
            Ok(false) => Client::Gone,
            Err(error) => {
                known.say(pod, &error);
                Client::Unknown
            }
        };
        let evidence = known.silence.answered(conn, client);
        // It may have moved meanwhile, or be another one: a socket is there before its SYN is.
        let Some(c) = shared.maps.connections.find(conn) else { continue };
        if ended::vanished(client, evidence, known.silence.of(conn, &c, now)) {
            debug!(%conn, pod, "forgotten: its client has vanished");
            forget(shared, conn, &c, Heard::Nothing);
        }
    }
}

impl Known {
    /// Says once that a pod's kernel does not answer: of one that is ending, nothing.
    fn say(&mut self, pod: &str, error: &EndsError) {
        if matches!(error, EndsError::Netns(_)) {
            debug!(pod, %error, "silent connections stay");
        } else if !std::mem::replace(&mut self.said, true) {
            warn!(pod, "connections whose clients vanish without a word are not forgotten: {error}");
        }
    }
}

fn forget(shared: &Shared, conn: &Tuple, c: &Connection, heard: Heard) {
    for r in c.legs.iter().filter(|r| r.kind != LEG_NONE) {
        let tuple = legs::tuple(conn, r);
        // The original leg's name is the connection's: a new one on the same ports may have its own there.
        if let Some(leg) = shared.maps.legs.find(&tuple).filter(|leg| leg.serves(conn, c.isn)) {
            if c.now.owner == leg.slot && heard == Heard::All {
                _ = shared.maps.legs.remove(&tuple);
                if let Some(member) = shared.attached.find(tuple.local_addr().ip()).filter(|_| leg.moved != 0) {
                    member.ports.give_back(tuple.remote_addr(), tuple.local_addr().port());
                }
                shared.tracked.ended(&tuple, &leg);
            } else {
                let why = if heard == Heard::All { "the connection is over" } else { "the client has vanished" };
                legs::end(shared, &tuple, &leg, why);
            }
        }
    }
    // A new one may have begun on the same ports meanwhile.
    if shared.maps.connections.find(conn).is_some_and(|now| now.isn != c.isn) {
        return;
    }
    match shared.maps.connections.take(conn) {
        // It begins at this very moment: it is put back. What came in the microseconds between was not followed.
        Ok(Some(mut now)) if now.isn != c.isn => {
            // It may be of a moment later than the rest of the copy.
            now.told = 0;
            if let Err(error) = shared.maps.connections.add(conn, &now) {
                warn!(%conn, "a connection that has just begun is not steered: {error}");
            }
            return;
        }
        Ok(_) => {}
        Err(error) => return warn!(%conn, "what has ended cannot be forgotten: {error}"),
    }
    for direction in [0, 1] {
        _ = shared.maps.heads.remove(&HeadKey { conn: *conn, direction });
    }
}

/// Sweeps at regular times.
pub(super) async fn run(shared: Arc<Shared>, every: Duration) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known::default();
    loop {
        tick.tick().await;
        let (shared, mut then) = (Arc::clone(&shared), known);
        // System calls for each entry: not on a thread that serves holds.
        let swept = tokio::task::spawn_blocking(move || {
            once(&shared, &mut then, state::now());
            then
        });
        known = swept.await.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
