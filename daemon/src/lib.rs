//! The agent of Sidetrack and its command line.

pub mod config;
pub mod document;
pub mod pods;
pub mod routes;
