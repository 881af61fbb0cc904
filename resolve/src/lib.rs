//! What a cluster's Sandboxes, Services and pods mean for the route table. Pure: no client, no clock, no IO, so that the
//! agents, which steer by it, and the controller, which says what came of it, evaluate one code.
//!
//! - [`Stores`]: what is known of the cluster, in compact records, and of what has gone lately. [`read`] makes the
//!   records of the API's objects.
//! - [`resolve`]: the table that these stores mean, what becomes of each Sandbox in it and why, and when time alone
//!   changes something.
//! - [`cut_off`]: the table of an agent that has not heard of its cluster for too long.

mod cut_off;
pub mod read;
mod resolve;
mod stores;
#[cfg(test)]
mod tests;

pub use self::{
    cut_off::cut_off,
    resolve::{Fate, Note, Outcome, Resolved, Ruling, State, Why, resolve},
    stores::{
        Change, EndpointSlice, Fork, Name, Pod, PodState, Sandbox, Selection, Service, ServicePort, Stores, TOMBSTONE,
        TargetPort, Update, Wanted,
    },
};
