//! Dials that have failed, or whose agent has died.
//!
//! A socket in repair mode closes in silence. Where an agent is killed between the freezing of a connection and the storing of its leg,
//! the backend has one that nobody knows of, but for its handshake: the agent that follows probes it, and the pod's own
//! kernel, which has no such socket, resets what the backend answers.

use std::{collections::BTreeMap, net::IpAddr};

use sidetrack_splice::abi::{addr::Tuple, record::Handshake};
use tracing::debug;

use super::{
    Shared,
    ended::{UNCLAIMED, older},
};
use crate::{
    cold::probe_packet,
    pods::{Ends, EndsError},
};

/// Probes what a predecessor has left, in each sweep of the first ten seconds, for a probe may be lost; forgets handshakes that
/// nobody has claimed.
pub(super) fn sweep(shared: &Shared, now: u64) {
    let mut left: BTreeMap<IpAddr, Vec<(Tuple, Handshake)>> = BTreeMap::new();
    for (tuple, seen) in shared.maps.handshakes.entries() {
        let predecessors = seen.at < shared.began;
        if predecessors && seen.answered != 0 && shared.maps.legs.find(&tuple).is_none() {
            left.entry(tuple.local_addr().ip()).or_default().push((tuple, seen));
        }
        if older(seen.at.max(shared.began), now, UNCLAIMED) {
            _ = shared.maps.handshakes.remove(&tuple);
        }
    }
    for (pod, dials) in left {
        if let Err(error) = probe(shared, pod, &dials) {
            debug!(%pod, %error, "dials that an agent before this one has left stay at their backends");
        }
    }
}

fn probe(shared: &Shared, pod: IpAddr, dials: &[(Tuple, Handshake)]) -> Result<(), EndsError> {
    let Some(member) = shared.attached.find(pod) else { return Ok(()) };
    let mut ends = Ends::of(&member.pod.netns)?;
    for (tuple, seen) in dials {
        let remote = tuple.remote_addr();
        // Somebody in the pod has the tuple by now, or the predecessor's sockets are not all closed yet.
        if ends.has(tuple.local_addr(), remote)? {
            continue;
        }
        let packet = probe_packet(tuple, seen.isn, seen.peer_isn.wrapping_add(1));
        let sent = member.raw.send(&packet, remote.ip());
        debug!(dial = %tuple, ?sent, "a dial whose agent has died is probed");
    }
    Ok(())
}
