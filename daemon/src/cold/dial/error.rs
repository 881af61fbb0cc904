//! Why there is no leg.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use super::super::ports::NoPort;
use crate::pods::NetnsError;

/// Why a dial failed. Whatever it was, nothing is left behind: the port rests, and a backend that had answered got a
/// reset.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody listens there.
    #[error("{0} refused the connection: is the fork's server listening on that port, on all addresses?")]
    Refused(SocketAddr),
    /// No answer within the deadline.
    #[error("{0} did not answer in time: is the fork running, and does a NetworkPolicy let this pod reach it?")]
    TimedOut(SocketAddr),
    /// No route, or a router said so.
    #[error("{0} cannot be reached from this pod ({1}): check the endpoint's address and the pod's routes")]
    Unreachable(SocketAddr, #[source] io::Error),
    /// The connection was reset after it had been made.
    #[error("{0} reset the connection before any request: look at the fork's log")]
    Reset(SocketAddr),
    /// The client's address and the backend's are of two families.
    #[error("{0} is not of the address family of {1}: give the route an endpoint of that family, too")]
    Family(SocketAddr, IpAddr),
    /// The client's address is not the pod's (any more).
    #[error("{0} is not an address of this pod (any more)")]
    NotLocal(IpAddr),
    /// No local port is left.
    #[error("no local port is left for a leg to {target}: {cause}")]
    NoPort {
        /// The backend.
        target: SocketAddr,
        /// Where the ports are.
        cause: NoPort,
    },
    /// The backend sent something before it was asked, so the streams cannot be joined.
    #[error("{0} sent bytes before any request: it is no HTTP/1 server, or it times out at once")]
    PeerSpoke(SocketAddr),
    /// The backend closed before it was asked.
    #[error("{0} closed the connection before any request: look at the fork's log")]
    PeerClosed(SocketAddr),
    /// The part of the head that was written first was not acknowledged within the deadline.
    #[error("{0} did not acknowledge the start of the request in time")]
    PrefixNotAcked(SocketAddr),
    /// A capability is missing, or a rule inside the pod forbids it.
    #[error("{what} is not permitted: give the agent CAP_NET_ADMIN, and look for a firewall inside the pod")]
    Permission {
        /// The step.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Anything else.
    #[error("{what} failed: {source}; please report this")]
    Other {
        /// The step.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl DialError {
    /// Names a step that failed.
    pub(super) fn at(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { what, source },
            _ => Self::Other { what, source },
        }
    }

    /// What became of a connection.
    pub(super) fn connection(target: SocketAddr, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Self::Refused(target),
            Some(libc::ETIMEDOUT) => Self::TimedOut(target),
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Self::Reset(target),
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN | libc::ENOPROTOOPT) => {
                Self::Unreachable(target, error)
            }
            _ => Self::at("connecting to a backend")(error),
        }
    }
}
