//! Sandboxes as people and programs ask for them: what the command line does with a cluster's API server.
//!
//! Pure, each with its tests: [`draft`] (the object that flags mean), [`manifest`] (the objects of a file), [`condition`] (how far
//! a Sandbox is), [`pods`] (why a pod is not ready), [`lifetime`] (how long one lives), [`key`] (the header to send).
//! With the API server: [`Server`] asks, [`wait`] waits, [`logs`] copies. [`Failure`] is what may come of it.

pub mod condition;
pub mod draft;
mod failure;
pub mod key;
pub mod lifetime;
pub mod logs;
pub mod manifest;
pub mod pods;
mod server;
pub mod wait;

pub use self::{
    failure::{Asked, Failure},
    server::{Dry, Server},
};

/// Under this name the API server notes which fields the command line has written.
pub const MANAGER: &str = "sidetrack";
pub use sidetrack_controller::names::RESTARTED_AT;
