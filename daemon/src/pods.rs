//! The pods of this node: network namespaces that appear under a name, and what the agent must know of each.
//!
//! - [`watch`] follows directories of named namespaces (`/run/netns`) and says what appears, changes and goes.
//! - [`Netns`] runs code inside a namespace without holding it alive.
//! - [`Registry`] keeps two pods with one address apart.
//! - `ends` says whether a namespace still has its end of a TCP connection.
//! - `rtnetlink` reads links, addresses and routes.
//!
//! ```text
//! scan (names -> namespaces) ─┬─ follow (one task each: links, addresses, routes) ─┐
//!   inotify, mount table      └─ follow ...                                        ├─ ledger ── PodEvent
//!                                                                                  ┘
//! ```

mod ends;
mod follow;
mod ledger;
mod netns;
mod pod;
pub(crate) mod ready;
mod registry;
mod rtnetlink;
mod scan;
mod watch;

#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::{
    ends::{Client, Ends, EndsError, Exchange, open as clients},
    netns::background,
};
pub use self::{
    netns::{Netns, NetnsError, NetnsId},
    pod::{Link, NextHop, Outcome, Pod, PodEvent},
    registry::{Conflict, Registry},
    watch::{WatchError, watch},
};
