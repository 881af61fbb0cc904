//! The agent of Sidetrack and its command line.

pub mod config;
pub mod document;
pub mod names;
pub mod pods;
pub mod routes;
pub mod state;
pub mod telemetry;
pub mod wire;
