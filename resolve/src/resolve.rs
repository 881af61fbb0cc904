//! From what is known of the cluster to the route table.
//!
//! 1. *Claims* (`claims`): what each Sandbox wants each of its keys to lead to, at each TCP port of each Service that it
//!    forks; and refusals for keys that have gone.
//! 2. *Addresses* (`addresses`): what clients may dial for such a port. One address may be several ports' (two
//!    Services over the same pods): those that belong to the same ports are one group.
//! 3. *Groups* (`groups`): each is a service of the table, with the claims of all its ports. Of two claims on one key
//!    the one of the older Sandbox counts, and any living Sandbox's before one that has gone.

mod addresses;
mod claims;
mod groups;
mod pods;
mod why;

use std::{collections::BTreeMap, net::SocketAddr};

use jiff::Timestamp;
use sidetrack_splice::table::RouteTable;

pub use self::why::{Note, Why};
use self::{claims::Claims, groups::Groups};
use crate::stores::{Name, Stores};

/// What the stores mean at some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Where keys lead.
    pub table: RouteTable,
    /// What becomes of each Sandbox.
    pub sandboxes: BTreeMap<Name, Fate>,
    /// When it changes if nothing but time does.
    pub next: Option<Timestamp>,
}

/// What becomes of a Sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Which Sandbox of this name it is.
    pub uid: String,
    /// The version of its `spec` that was looked at.
    pub generation: i64,
    /// Whether it is there.
    pub state: State,
    /// What becomes of each of its forks at each port of each Service.
    pub rulings: Vec<Ruling>,
    /// Says, in all processes alike, whether the routes made of it are the same: of its keys, and where each leads.
    pub hash: u64,
}

/// Whether a Sandbox is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Living,
    /// It has expired or is being deleted: requests with its keys are refused for some time.
    Gone,
    /// The same, long ago: its keys are anybody's.
    Forgotten,
}

/// What becomes of a fork at a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The fork's name within its Sandbox.
    pub fork: String,
    /// The Service's name.
    pub service: String,
    /// The Service's port; none where no port is known.
    pub port: Option<u16>,
    /// What requests with a key of the Sandbox meet there.
    pub outcome: Outcome,
    /// What else is to be said.
    pub notes: Vec<Note>,
}

/// What requests with a Sandbox's key meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The fork, at one of these endpoints.
    Routed(Vec<SocketAddr>),
    /// An error.
    Refused(Why),
    /// The baseline, as the Sandbox says (`onUnreachable: Baseline`).
    Baseline(Why),
    /// Whatever they would meet without Sidetrack: they cannot be steered.
    Unsteered(Why),
}

/// What the stores mean at this time.
#[must_use]
pub fn resolve(stores: &Stores, now: Timestamp) -> Resolved {
    let mut claims = Claims::of(stores, now);
    let table = Groups::of(&claims).table(&mut claims);
    let next = claims.next;
    Resolved { table, sandboxes: claims.into_fates(), next }
}
