//! What map `names` says of services and routes.

use std::{collections::BTreeSet, net::SocketAddr};

use super::To;

/// A text in map `names`, before it is put into bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Of a service: its name.
    Service(String),
    /// Of a route: its key and where it leads.
    Route {
        /// The sandbox key.
        key: String,
        /// Where it leads.
        to: Recorded,
    },
    /// Under id 0, which belongs to nothing: the lowest id of its kind that was never given away. It outlives the
    /// records that the ids stood in, because a leg may name a route for longer than map `routes` does.
    NextId(u32),
}

/// Where a route leads, as far as it fitted into map `names`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// To a fork.
    Fork {
        /// The first of its endpoints, in the order of the table.
        endpoints: Vec<SocketAddr>,
        /// How many endpoints more there are than fitted.
        more: u32,
        /// [`fingerprint`] of all of them.
        fingerprint: u64,
    },
    /// Nowhere.
    Fail {
        /// The reason, perhaps cut off.
        reason: String,
    },
}

impl From<&To> for Recorded {
    fn from(to: &To) -> Self {
        match to {
            To::Fork { endpoints, .. } => {
                Self::Fork { endpoints: endpoints.clone(), more: 0, fingerprint: fingerprint(endpoints) }
            }
            To::Fail { reason } => Self::Fail { reason: reason.clone() },
        }
    }
}

impl Recorded {
    /// Whether legs that were dialled while this was in force may serve no exchange once `new` is: a backend that left
    /// must not be reached over a parked leg, and a family that came or went changes which endpoints count.
    pub(super) fn outdated_by(&self, new: &To) -> bool {
        match (self, new) {
            (Self::Fork { endpoints, more: 0, .. }, To::Fork { endpoints: new, .. }) => {
                endpoints.iter().any(|endpoint| !new.contains(endpoint)) || families(endpoints) != families(new)
            }
            // Nobody knows which ones did not fit: any difference may be an endpoint that left.
            (Self::Fork { fingerprint: old, .. }, To::Fork { endpoints: new, .. }) => *old != fingerprint(new),
            (Self::Fail { .. }, To::Fail { .. }) => false,
            _ => true,
        }
    }
}

fn families(endpoints: &[SocketAddr]) -> (bool, bool) {
    (endpoints.iter().any(SocketAddr::is_ipv4), endpoints.iter().any(SocketAddr::is_ipv6))
}

/// FNV-1a over the endpoints, whatever their order. It only tells a set that has changed from one that has not, across a
/// restart of the agent; nobody gains anything by making two alike.
#[must_use]
pub fn fingerprint(endpoints: &[SocketAddr]) -> u64 {
    let sorted: BTreeSet<_> = endpoints.iter().collect();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in sorted.iter().flat_map(|endpoint| format!("{endpoint};").into_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}
