//! What a fork is made of. Pure: from a baseline's pod template, what a Sandbox says of it, and what selects pods in its
//! namespace, to the objects that are written.
//!
//! Templates are JSON: a copy loses no field that is younger than the types of this build.

pub mod baseline;
pub mod copy;
pub mod deployment;
pub mod grants;
pub mod labels;
pub mod patch;
pub mod policies;
mod template;
#[cfg(test)]
mod tests;
pub mod volumes;

pub use self::{
    baseline::Baseline,
    copy::{Copy, Maker},
    labels::{Labels, Selectors},
};

/// Why there is no fork. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to copy.
    #[error("there is no {kind:?} {name} in this namespace: correct workload, or create it")]
    NoBaseline {
        /// Its kind.
        kind: sidetrack_objects::sandbox::WorkloadKind,
        /// Its name.
        name: String,
    },
    /// This cluster has no such objects.
    #[error("this cluster has no Rollouts (argoproj.io): install Argo Rollouts, or fork a Deployment")]
    NoRollouts,
    /// It has its pods from elsewhere.
    #[error("Rollout {rollout} has its pod template from {kind} {name}: fork that")]
    Elsewhere {
        /// The Rollout.
        rollout: String,
        /// What it refers to.
        kind: String,
        /// Its name.
        name: String,
    },
    /// What stands there is no pod template.
    #[error("{0} is no pod template: expected an object with spec.containers")]
    NoTemplate(String),
    /// A name that no container has.
    #[error("{field} names container {name}, there {}", there(.known))]
    UnknownContainer {
        /// Where it stands.
        field: String,
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A name that no persistent volume has.
    #[error("volumes names {name}: of persistent ones there {}", there(.known))]
    UnknownVolume {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// An empty volume cannot stand in for a device.
    #[error(
        "volume {0} is used as a device, no empty one can take its place: say volumes: {{{0}: Share}}, or remove it by a patch"
    )]
    Device(String),
    /// It would share its node's addresses with the baseline.
    #[error(
        "a pod on its host's network has no address of its own to steer requests to: remove hostNetwork by a patch"
    )]
    HostNetwork,
    /// More than its baseline has.
    #[error("the fork would have what its baseline has not: {0}; remove it from patch")]
    Gains(String),
    /// A label that is not the author's.
    #[error("patch sets {0}: labels and annotations that begin with sidetrack.dev/ are set by Sidetrack")]
    OwnName(String),
    /// A word of the strategic merge patch that cannot be followed here.
    #[error("patch of a Rollout uses {0}: its patch may set fields, and neither remove nor reorder them")]
    Directive(String),
    /// The API server does not take the patch.
    #[error("patch: {0}")]
    Patch(String),
    /// An object of that name is somebody else's.
    #[error("{0} exists and is not this Sandbox's: remove it")]
    Foreign(String),
    /// The API server does not take the copy.
    #[error("{0}")]
    Rejected(String),
}

fn there(known: &[String]) -> String {
    match known {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        all => format!("are {}", all.join(", ")),
    }
}

impl Refusal {
    /// The reason, as a condition has it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoBaseline { .. } => "BaselineMissing",
            Self::NoRollouts => "NoRollouts",
            Self::Elsewhere { .. } | Self::NoTemplate(_) => "NoTemplate",
            Self::UnknownContainer { .. } => "UnknownContainer",
            Self::UnknownVolume { .. } => "UnknownVolume",
            Self::Device(_) => "VolumeIsDevice",
            Self::HostNetwork => "HostNetwork",
            Self::Gains(_) => "MoreThanBaseline",
            Self::OwnName(_) | Self::Directive(_) | Self::Patch(_) => "PatchRefused",
            Self::Foreign(_) => "NameTaken",
            Self::Rejected(_) => "Rejected",
        }
    }
}
