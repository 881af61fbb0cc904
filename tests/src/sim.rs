//! A world in virtual time: real TCP stacks, a network that loses, reorders and duplicates, and between them the decisions of
//! `sidetrack_splice` with the agent's part, as events and answers with delays.

pub mod acts;
pub mod agent;
pub mod book;
pub mod client;
pub mod host;
pub mod http;
pub mod kernel;
pub mod mix;
pub mod net;
pub mod rng;
pub mod scenario;
pub mod server;
pub mod watch;
pub mod wire;
pub mod world;

pub use self::{scenario::Scenario, world::World};
