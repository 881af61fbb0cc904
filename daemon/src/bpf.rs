//! The kernel side: loading the programs, pinning what outlives the agent, attaching to pods.
//!
//! ```text
//! PIN_DIR/
//!   v<ABI>/                locked (flock) by the one agent of this ABI that works
//!   v<ABI>/<map>           the records
//!   v<ABI>/prog/<hook>     the programs
//!   v<ABI>/links/<netns>-<ifindex>-<hook>
//!   v<ABI>/clsact/<netns>-<ifindex>   an empty directory: this qdisc was made by an agent
//! ```

pub mod attach;
pub mod counters;
pub mod filter;
pub mod load;
pub mod lock;
pub mod other;
mod owner;
pub mod purge;
pub mod qdisc;
pub mod table;

pub use self::{
    attach::{AttachError, Attacher, Mode},
    load::{Kernel, LoadError, load},
    lock::Lock,
    purge::purge,
    table::Table,
};

/// The two hooks of a pod's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What the pod sends.
    Egress,
    /// What comes to the pod.
    Ingress,
}

impl Hook {
    /// Both; ingress first: what is asked must find its answers followed.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Its name in pins.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }

    /// The name of its program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Egress => "st_egress",
            Self::Ingress => "st_ingress",
        }
    }
}
