//! Whether a pod still has its end of a TCP connection: what a connection that is silent for long is asked.
//!
//! - `clients` lists the connections that it has open.
//! - `sockets` asks for the socket with the connection's own addresses and ports.
//! - `translated` asks whether the namespace itself translates the connection: then its socket has other addresses, and may
//!   lie in yet another namespace.

mod clients;
mod sockets;
mod translated;

use std::{io, net::SocketAddr};

use nix::sys::socket::AddressFamily;

pub(crate) use self::clients::{Client, Exchange, open};
use self::{sockets::Sockets, translated::Translations};
use super::{Netns, NetnsError};

/// Why it cannot be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndsError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Nobody answers for TCP: `sock_diag` itself says of that what it says of a socket that is not there.
    #[error("the kernel's answer about TCP sockets is missing (inet_diag, tcp_diag); load it with `modprobe tcp_diag`")]
    NoDiag,
    /// The kernel does not answer.
    #[error(
        "the kernel does not say which TCP sockets a pod has: {0}; allow the agent netlink's sock_diag (seccomp, SELinux)"
    )]
    Diag(#[source] io::Error),
    /// Connection tracking is there and does not answer.
    #[error(
        "the kernel does not say which connections are translated inside a pod: {0}; load nf_conntrack_netlink, and give the agent CAP_NET_ADMIN"
    )]
    Tracking(#[source] io::Error),
}

/// The ends of connections in one namespace, which it keeps alive: not to be kept itself.
#[derive(Debug)]
pub(crate) struct Ends {
    sockets: Sockets,
    /// `None` where the kernel tracks nothing.
    translations: Option<Translations>,
}

impl Ends {
    /// Those of this namespace.
    pub fn of(netns: &Netns) -> Result<Self, EndsError> {
        let tracks = translated::possible();
        netns.run(|| {
            let sockets = Sockets::open().map_err(EndsError::Diag)?;
            let translations = tracks.then(Translations::open).transpose().map_err(EndsError::Tracking)?;
            Ok(Self { sockets, translations })
        })?
    }

    /// On a kernel that knows no TCP.
    #[cfg(test)]
    pub fn without_tcp(self) -> Self {
        Self { sockets: self.sockets.without_tcp(), ..self }
    }

    /// Whether this connection still has its end here: a socket, or a translation to one.
    pub fn has(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<bool, EndsError> {
        if self.sockets.has(local, remote)? {
            return Ok(true);
        }
        let Some(translations) = &mut self.translations else { return Ok(false) };
        translations.has(local, remote).map_err(EndsError::Tracking)
    }
}

impl Ends {
    /// Ends the client's side of a connection, as a reset does for both sides. False: there is none.
    pub fn destroy(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<bool, EndsError> {
        self.sockets.destroy(local, remote)
    }

    /// Lets the namespace's connection tracking forget a connection, unless a socket has it by now. False: it does not know it.
    pub fn untrack(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<bool, EndsError> {
        let Some(translations) = &mut self.translations else { return Ok(false) };
        if self.sockets.has(local, remote)? {
            return Ok(false);
        }
        translations.forget(local, remote).map_err(EndsError::Tracking)
    }
}

/// The number of an address's family.
fn family(side: SocketAddr) -> u8 {
    let family = if side.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    family as u8
}

#[cfg(test)]
mod tests;
