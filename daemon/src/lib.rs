//! The agent of Sidetrack and its command line.

pub mod access;
mod admin;
pub mod agent;
pub mod bpf;
pub mod cli;
pub mod cold;
pub mod config;
pub mod controller;
pub mod document;
pub mod names;
mod netlink;
pub mod pods;
pub mod preflight;
mod readiness;
mod reports;
pub mod routes;
pub mod sandboxes;
pub mod state;
mod tc;
pub mod telemetry;
pub mod wire;
