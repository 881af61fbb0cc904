//! Records of another ABI beside this agent's: they take no new connection on, and are removed when the last of theirs has ended, or after
//! a time (`drainTimeout`). Until then their programs go on, and their agent, if it lives.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sidetrack_splice::abi::{ABI, addr::Tuple, control::Control};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::{Shared, client, inherit, older};
use crate::{
    bpf::{
        self, Lock,
        other::{Other, controls, others},
    },
    config::HEARTBEAT_STALE,
    pods::{Client, Ends, Exchange, clients},
    state,
};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether all pods are attached.
const SOON: Duration = Duration::from_millis(20);
/// How long another ABI's agent may take to say that it takes new connections over.
const HANDOVER: Duration = Duration::from_millis(200);
/// How long, behind the deadline, a request that is under way on a connection that was never diverted is waited for.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// Takes new connections over from them, when this version's own programs are attached everywhere, and follows them to their end. What
/// appears later is a successor's, and what lives and has a greater number goes before: two that begin at one moment agree on that.
pub(super) async fn run(shared: Arc<Shared>, mut before: Vec<Other>, netns_dirs: Vec<PathBuf>) {
    let began = Instant::now();
    let greater = || greater_lives(&controls(&shared.pin_dir), state::now());
    // One that has just ended looks alive until its heart has not beaten for some time.
    while !before.is_empty() && (!shared.attached.listed() || (greater() && began.elapsed() < HEARTBEAT_STALE)) {
        sleep(SOON).await;
    }
    if !before.is_empty() {
        if greater() {
            shared.taking_over.store(false, Ordering::Relaxed);
        } else {
            take_over_in_background(&shared, &before).await;
        }
    }
    let mut began = Instant::now();
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if shared.superseded() {
            if orphaned(&controls(&shared.pin_dir), state::now()) {
                info!("no other ABI takes new connections on: this one does again");
                (before, began) = (others(&shared.pin_dir), Instant::now());
                take_over_in_background(&shared, &before).await;
            }
            continue;
        }
        let mut left = Vec::new();
        for other in before {
            let (shared, dirs, it) = (Arc::clone(&shared), netns_dirs.clone(), other.clone());
            let looked = tokio::task::spawn_blocking(move || look(&shared, &it, began.elapsed(), &dirs)).await;
            if !matches!(looked, Ok(true)) {
                left.push(other);
            }
        }
        before = left;
    }
}

/// Whether another ABI's programs take new connections on, by what their agents say. One that never was at work says nothing: its kernel
/// has refused its programs, or it was ended before they were attached.
pub(super) fn takes_new(others: &[Control]) -> bool {
    others.iter().any(|other| other.heartbeat != 0 && other.draining == 0)
}

/// Whether an agent of a greater number lives.
fn greater_lives(others: &[Control], now: u64) -> bool {
    others.iter().any(|other| other.abi > ABI && other.lives(now))
}

/// Whether no agent that lives takes new connections on after this version was told not to: its successor has ended, or was taken back.
/// Then the live one of the greatest number does.
fn orphaned(others: &[Control], now: u64) -> bool {
    !others.iter().any(|other| other.lives(now) && other.draining == 0) && !greater_lives(others, now)
}

/// What is held while it is said who takes new connections on. Without it nothing is lost but that exactly one does at any moment.
pub(super) fn handover(pin_dir: &Path) -> Option<Lock> {
    let lock = Lock::handover(pin_dir, HANDOVER);
    lock.inspect_err(|error| warn!("the pin directory cannot be locked: {error}")).ok().flatten()
}

/// [`take_over`], without keeping anybody waiting who beats or attaches.
async fn take_over_in_background(shared: &Arc<Shared>, before: &[Other]) {
    let (shared, before) = (Arc::clone(shared), before.to_vec());
    _ = tokio::task::spawn_blocking(move || take_over(&shared, &before)).await;
}

/// From here on their programs take no new connection on, and this version's do.
fn take_over(shared: &Arc<Shared>, before: &[Other]) {
    let lock = handover(&shared.pin_dir);
    for other in before {
        match other.drain() {
            Ok(()) => info!(abi = other.abi, "the records of another ABI take no new connection on"),
            Err(error) => warn!(abi = other.abi, "the records of another ABI cannot be drained: {error}"),
        }
    }
    shared.taking_over.store(false, Ordering::Relaxed);
    if let Err(error) = super::beat(&shared.maps, Some(0)) {
        warn!("{error:#}");
    }
    drop(lock);
    // What began between the two, and what nobody follows.
    older::adopt_everywhere(shared, &older::services(shared));
}

/// An agent that does not know the word has written over it: it is said again, unless this version has been superseded.
fn say_again(shared: &Shared, other: &Other) {
    let _lock = handover(&shared.pin_dir);
    if shared.superseded() {
        return;
    }
    if let Err(error) = other.drain() {
        warn!(abi = other.abi, "the records of another ABI cannot be drained: {error}");
    }
}

/// Takes one look. Returns whether the records were removed.
fn look(shared: &Arc<Shared>, other: &Other, age: Duration, netns_dirs: &[PathBuf]) -> bool {
    say_again(shared, other);
    let (mut connections, diverted) = match (other.connections(), other.diverted()) {
        (Ok(connections), Ok(diverted)) => (connections, diverted),
        (Err(error), _) | (_, Err(error)) if age < shared.config.drain_timeout => {
            debug!(abi = other.abi, "the records of another ABI cannot be read: {error}");
            return false;
        }
        _ => Default::default(),
    };
    if other.abandoned(state::now()).unwrap_or(false) {
        let theirs = connections.difference(&diverted).copied().collect();
        let taken = inherit::take_over(shared, other, &theirs);
        connections.retain(|conn| !taken.contains(conn));
    }
    let live = live(shared, connections);
    if !live.is_empty() {
        if age < shared.config.drain_timeout {
            debug!(abi = other.abi, connections = live.len(), "the records of another ABI are drained");
            return false;
        }
        let (end, leave): (Vec<_>, Vec<_>) = live.into_iter().partition(|conn| diverted.contains(conn));
        if age < shared.config.drain_timeout + UNDER_WAY && leave.iter().any(|conn| under_way(shared, conn)) {
            return false;
        }
        if !end.is_empty() {
            warn!(
                abi = other.abi,
                connections = end.len(),
                "connections of another ABI are reset: drainTimeout has passed"
            );
        }
        // While its programs are there: its owner's backend hears of the end in its own numbers.
        for conn in end {
            if let Err(error) = client::abort(shared, &conn) {
                warn!(%conn, "a connection of another ABI cannot be reset: {error}");
            }
        }
    }
    if shared.superseded() {
        return false;
    }
    // One of a smaller number ends when its records are gone. One of a greater number that begins meanwhile takes over.
    let lock = Lock::now(&other.dir);
    if other.abi > ABI && !matches!(lock, Ok(Some(_))) {
        return false;
    }
    match bpf::purge::version(&other.dir, netns_dirs) {
        Ok(removed) => info!(abi = other.abi, links = removed.links, "the records of another ABI are removed"),
        Err(error) => {
            warn!(abi = other.abi, "the records of another ABI cannot be removed: {error}; run `sidetrack purge`");
            return false;
        }
    }
    // What it has followed and never diverted is nobody's by now.
    older::adopt_everywhere(shared, &older::services(shared));
    true
}

/// Those whose client is still there. Where the kernel does not say, all are, and those of a pod that is not known.
fn live(shared: &Shared, connections: HashSet<Tuple>) -> Vec<Tuple> {
    let mut ends = HashMap::new();
    let mut there = |conn: &Tuple| {
        let pod = conn.local_addr().ip();
        let Some(member) = shared.attached.find(pod) else { return true };
        let ends = ends.entry(pod).or_insert_with(|| Ends::of(&member.pod.netns).ok());
        ends.as_mut().is_none_or(|ends| ends.has(conn.local_addr(), conn.remote_addr()).unwrap_or(true))
    };
    connections.into_iter().filter(|conn| there(conn)).collect()
}

/// Whether its client waits for something: a held head is among what was sent and is not acknowledged.
fn under_way(shared: &Shared, conn: &Tuple) -> bool {
    let Some(member) = shared.attached.find(conn.local_addr().ip()) else { return false };
    let its = |all: Vec<Client>| all.into_iter().find(|client| client.conn() == *conn);
    clients(&member.pod.netns).is_ok_and(|all| its(all).is_some_and(|client| client.exchange == Exchange::Some))
}

#[cfg(test)]
mod tests {
    use sidetrack_splice::abi::control::DEAD_AFTER_NS;

    use super::*;

    #[test]
    fn of_two_that_have_told_each_other_the_live_one_of_the_greatest_number_goes_on() {
        let now = 10 * DEAD_AFTER_NS;
        let says = |abi, draining, heartbeat| Control { abi, draining, heartbeat, ..Control::default() };
        assert!(orphaned(&[], now), "its successor is gone");
        assert!(!orphaned(&[says(ABI + 1, 0, now)], now), "its successor is at work");
        assert!(!orphaned(&[says(ABI - 1, 0, now)], now), "also one of a smaller number");
        assert!(orphaned(&[says(ABI + 1, 0, 1)], now), "a dead one's programs refuse what needs an agent");
        assert!(orphaned(&[says(ABI + 1, 0, 0)], now), "it never was at work");
        assert!(!orphaned(&[says(ABI + 1, 1, now)], now), "the other goes on");
        assert!(orphaned(&[says(ABI - 1, 1, now)], now));
        assert!(orphaned(&[says(ABI + 1, 1, 1)], now), "the other would, and is dead");
        assert!(!orphaned(&[says(ABI - 1, 1, now), says(ABI + 1, 0, now)], now));
        assert!(takes_new(&[says(ABI + 1, 0, 1)]) && !takes_new(&[says(ABI + 1, 0, 0)]));
        assert!(!greater_lives(&[says(ABI + 1, 0, 0), says(ABI - 1, 0, now)], now));
    }
}
