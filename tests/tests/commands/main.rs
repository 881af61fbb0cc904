//! The command line for Sandboxes against a real API server: what each command does, says, and ends with.

mod apply;
mod change;
mod create;
mod plugin;
mod refused;
mod show;
mod wait;
mod world;
