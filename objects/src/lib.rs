//! What Sidetrack adds to a cluster's API: the objects that people and agents write, as types, and their definitions
//! (`CustomResourceDefinition`) made of those types. Their docs are what `kubectl explain` shows.

mod definition;
mod duration;
pub mod sandbox;
mod settings;

pub use self::{
    definition::{DIRECTORY, Definition, definitions},
    duration::{DurationError, parse_duration},
    sandbox::{Sandbox, SandboxSpec},
    settings::{Limits, SidetrackConfig, SidetrackConfigSpec},
};

/// The API group of all objects.
pub const GROUP: &str = "sidetrack.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
