//! Why a fork does not get a Service's keyed requests.

use sidetrack_splice::table::{ENDPOINTS_MAX, REASON_MAX};

use crate::stores::Name;

/// Why a fork does not get a Service's keyed requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It has expired, or somebody has deleted it.
    #[error("its sandbox {0} is gone")]
    Gone(String),
    /// No pod of it is there.
    #[error("fork {fork} of sandbox {sandbox} has no pod")]
    NoPod {
        /// The Sandbox's name.
        sandbox: String,
        /// The fork's.
        fork: String,
    },
    /// It has pods, and none takes requests.
    #[error("fork {fork} of sandbox {sandbox} has no pod that is ready")]
    NotReady {
        /// The Sandbox's name.
        sandbox: String,
        /// The fork's.
        fork: String,
    },
    /// Its pods have not been asked after yet.
    #[error("the pods of fork {fork} of sandbox {sandbox} are not known yet")]
    PodsUnknown {
        /// The Sandbox's name.
        sandbox: String,
        /// The fork's.
        fork: String,
    },
    /// Its pods serve the baseline's requests.
    #[error("pods of fork {fork} are endpoints of service {service} itself: change the labels that it selects by")]
    IsBaseline {
        /// The fork's name.
        fork: String,
        /// The Service's.
        service: String,
    },
    /// The Service leads to a port by a name that no container of its pods has.
    #[error("no container of fork {fork} has a TCP port named {port}")]
    NoNamedPort {
        /// The fork's name.
        fork: String,
        /// The port's.
        port: String,
    },
    /// There is no such Service.
    #[error("there is no service {0}")]
    NoService(String),
    /// Its endpoints have not been asked after yet: a pod of the fork may be one.
    #[error("the endpoints of service {0} are not known yet")]
    EndpointsUnknown(String),
    /// It is another name of something outside.
    #[error("service {0} is an ExternalName: clients dial what it names")]
    External(String),
    /// It has no TCP port.
    #[error("service {0} has no TCP port")]
    NoTcpPort(String),
    /// Nothing that clients could dial.
    #[error("service {0} has neither a ClusterIP nor an endpoint")]
    NoAddress(String),
    /// None of the Sandbox's keys can be one.
    #[error("sandbox {0} has no valid key: name one of at most 63 characters in spec.keys")]
    NoKey(String),
    /// More than the tables hold.
    #[error("more is forked in this cluster than the table of routes holds")]
    TableFull,
}

impl Why {
    /// The reason, as a failing route takes it.
    pub(super) fn reason(&self) -> String {
        let mut text = self.to_string();
        if text.len() > REASON_MAX {
            text.truncate(text.floor_char_boundary(REASON_MAX - "…".len()));
            text.push('…');
        }
        text
    }
}

/// What else is to be said of a fork at a Service's port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Note {
    /// An older Sandbox, or an earlier fork of the same, has this key there.
    #[error("key {key} belongs to fork {fork} of sandbox {sandbox}, which is older")]
    Conflict {
        /// The key.
        key: String,
        /// The other Sandbox.
        sandbox: Name,
        /// Its fork.
        fork: String,
    },
    /// A key that no request can carry.
    #[error("{0:?} is no sandbox key: name one of 1 to 63 characters of A-Z a-z 0-9 . _ - in spec.keys")]
    InvalidKey(String),
    /// Clients get no connection to a Service without an endpoint, so none that could be steered.
    #[error("the service has no endpoint of its own: clients get no connection that could be steered")]
    NoBaseline,
    /// Some pods serve the baseline's requests, too.
    #[error("{0} pods are endpoints of the service itself and get no keyed request")]
    BaselinePods(usize),
    /// More endpoints than a route holds.
    #[error("{0} endpoints are left out: a route holds {ENDPOINTS_MAX}")]
    EndpointsLeftOut(usize),
    /// More addresses than the table holds.
    #[error("{0} of the service's addresses are left out, the table is full: requests there are not steered")]
    AddressesLeftOut(usize),
    /// More routes than the table holds.
    #[error("the route of key {0} is left out, the table is full: its requests are not steered")]
    RouteLeftOut(String),
}
