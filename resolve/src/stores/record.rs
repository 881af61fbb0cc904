//! The records: of each object what routes depend on, and nothing else of it.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use jiff::Timestamp;
use sidetrack_splice::table::OnUnreachable;

use super::TOMBSTONE;

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl Name {
    /// An object's name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// What tells it from one of the same name, before or after.
    pub uid: String,
    /// When it was made: of two that fork one Service under one key the older wins.
    pub created: Timestamp,
    /// Which version of its `spec` this is.
    pub generation: i64,
    /// The keys in force.
    pub keys: BTreeSet<String>,
    /// When its forks go.
    pub expires_at: Option<Timestamp>,
    /// When somebody has deleted it, while it is there still.
    pub deleted_at: Option<Timestamp>,
    /// What becomes of a keyed request while a fork has no pod that is ready.
    pub on_unreachable: OnUnreachable,
    /// Its forks, in the order in which they stand there.
    pub forks: Vec<Fork>,
}

impl Sandbox {
    /// Since when it is gone: expired, or deleted.
    #[must_use]
    pub fn gone_at(&self, now: Timestamp) -> Option<Timestamp> {
        [self.expires_at, self.deleted_at].into_iter().flatten().filter(|at| *at <= now).min()
    }

    /// Whether it is gone for so long that its keys are anybody's.
    #[must_use]
    pub(crate) fn is_forgotten(&self, now: Timestamp) -> bool {
        self.gone_at(now).is_some_and(|at| tombstone_end(at) <= now)
    }
}

/// Until when a key is refused whose Sandbox has gone at some time.
pub(crate) fn tombstone_end(gone_at: Timestamp) -> Timestamp {
    gone_at.checked_add(TOMBSTONE).unwrap_or(Timestamp::MAX)
}

/// A fork of a Sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Its name within the Sandbox.
    pub name: String,
    /// Services of the Sandbox's namespace whose keyed requests it gets.
    pub services: BTreeSet<String>,
    /// Which pods it consists of.
    pub pods: Selection,
}

/// Pods that forks may consist of: what is asked of the API server in one watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selection {
    /// Those that were made for Sandboxes: each says in its labels for which one, and which fork of it.
    Labelled,
    /// Those of a namespace that a selector names.
    Selected {
        /// The namespace.
        namespace: String,
        /// The selector, as the API has it in a request.
        selector: String,
    },
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its virtual addresses; none where it is headless.
    pub addresses: Vec<IpAddr>,
    /// Whether it is another name of something outside (`ExternalName`).
    pub external: bool,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
}

/// A TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, by which slices say where it leads; empty where there is one only.
    pub name: String,
    /// What clients dial.
    pub port: u16,
    /// Where it leads in a pod.
    pub target: TargetPort,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// By its number.
    Number(u16),
    /// By the name that a container gives it; two pods may have different numbers.
    Name(String),
}

/// Some of a Service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The name of its Service.
    pub service: String,
    /// Name of each TCP port of the Service, and its number here.
    pub ports: Vec<(String, u16)>,
    /// The endpoints' addresses, ready or not: clients may dial any.
    pub addresses: Vec<IpAddr>,
}

/// A pod that a fork may consist of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Of one that was made for a Sandbox: the Sandbox's name, and the fork's.
    pub made_for: Option<(String, String)>,
    /// When it was made.
    pub created: Timestamp,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether requests may be sent to it.
    pub state: PodState,
    /// TCP ports that its containers have names for.
    pub ports: Vec<(String, u16)>,
}

/// Whether requests may be sent to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    /// Yes.
    Ready,
    /// Not yet, or not at the moment.
    Unready,
    /// Not any more: it ends.
    Terminating,
    /// It has ended. Its address may be another's.
    Completed,
}
