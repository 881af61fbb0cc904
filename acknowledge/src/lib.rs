//! Which Sandboxes are in force on which nodes. Pure: no client, no clock, no IO.
//!
//! - [`Report`]: what is in force on one node, and [`Line`]s that tell what has changed in it. Agents send them, the controller's
//!   leader hears them.
//! - [`meeting`]: how an agent and the leader find and believe one another.
//! - [`Ledger`]: what all nodes have said, and whether a Sandbox is in force on all that count ([`Verdict`]).

#![forbid(unsafe_code)]

mod ledger;
mod line;
pub mod meeting;

pub use self::{
    ledger::{GRACE, LAGGARDS, Laggard, Ledger, Stream, Verdict, Why},
    line::{InForce, Line, Report, UnreadableLine},
};
