//! What a pod's own connection tracking knows of legs that have ended.
//!
//! Where a pod has rules that ask for it (`ct` in nftables, `conntrack` in iptables), its connection tracking sees the dial of a leg, as
//! that of any socket. What is spliced passes beneath it: of the end it would never hear, and keep the leg as established for five days.

use std::{
    collections::BTreeMap,
    mem,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use sidetrack_splice::abi::{addr::Tuple, record::Leg};
use tracing::debug;

use super::Shared;
use crate::pods::{Ends, EndsError};

/// Legs that have ended since the last sweep.
#[derive(Debug, Default)]
pub(super) struct Tracked(Mutex<Vec<Tuple>>);

impl Tracked {
    /// A leg has ended, and what was to be said to its backend has been said.
    pub(super) fn ended(&self, tuple: &Tuple, leg: &Leg) {
        // The original leg is the client's own connection: its end is seen like any other's.
        if leg.moved != 0 {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(*tuple);
        }
    }

    fn take(&self) -> Vec<Tuple> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Lets the pods' connection tracking forget the legs that have ended.
pub(super) fn sweep(shared: &Shared) {
    let mut ended: BTreeMap<IpAddr, Vec<Tuple>> = BTreeMap::new();
    for tuple in shared.tracked.take() {
        ended.entry(tuple.local_addr().ip()).or_default().push(tuple);
    }
    for (pod, tuples) in ended {
        if let Err(error) = forget(shared, pod, &tuples) {
            debug!(%pod, %error, "the pod's connection tracking may keep legs that have ended");
        }
    }
}

fn forget(shared: &Shared, pod: IpAddr, tuples: &[Tuple]) -> Result<(), EndsError> {
    let Some(member) = shared.attached.find(pod) else { return Ok(()) };
    let mut ends = Ends::of(&member.pod.netns)?;
    for tuple in tuples {
        ends.untrack(tuple.local_addr(), tuple.remote_addr())?;
    }
    Ok(())
}
