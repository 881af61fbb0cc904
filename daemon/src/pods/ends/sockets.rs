//! TCP sockets by their addresses and ports: `sock_diag`, see `man 7 sock_diag`.

use std::{
    io,
    iter::once,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::{
    libc,
    net::if_::{Interface, if_nameindex},
    sys::socket::SockProtocol,
};

use super::{EndsError, family};
use crate::netlink::{Ask, Asker};

/// `SOCK_DIAG_BY_FAMILY`, of question and answer.
pub(super) const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`, which takes `CONFIG_INET_DIAG_DESTROY`.
const DESTROY: u16 = 21;
/// `struct inet_diag_req_v2`: family, protocol, extensions, pad; states; then the socket's identity.
pub(super) const REQUEST: usize = 56;
/// Its states: a bit for each.
pub(super) const STATES: std::ops::Range<usize> = 4..8;
/// Where the identity (`struct inet_diag_sockid`) begins, in the request: both ports, in network byte order.
const ID: usize = 8;
/// Where it begins in the answer, `struct inet_diag_msg`, behind family, state, timer, retransmissions.
const ANSWERED_ID: usize = 4;
/// From the identity's beginning: own address, other address, interface, cookie.
const SOURCE: usize = 4;
const DESTINATION: usize = 20;
const INTERFACE: usize = 36;
const COOKIE: usize = 40;

/// What a namespace's kernel knows of TCP sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    asker: Asker,
    /// Interfaces that a socket may be bound to.
    interfaces: Vec<u32>,
    /// `IPPROTO_TCP`.
    protocol: u8,
}

impl Sockets {
    /// Must be called inside the namespace.
    pub fn open() -> io::Result<Self> {
        let interfaces = if_nameindex()?.iter().map(Interface::index).collect();
        Ok(Self { asker: Asker::open(SockProtocol::NetlinkSockDiag)?, interfaces, protocol: libc::IPPROTO_TCP as u8 })
    }

    /// On a kernel that knows no TCP.
    #[cfg(test)]
    pub fn without_tcp(self) -> Self {
        // A number for experiments (RFC 3692): no kernel has sockets of it.
        Self { protocol: 253, ..self }
    }

    /// Whether there is a socket with exactly these addresses and ports, in any state of TCP.
    ///
    /// A socket that is bound to an interface is found under that interface only, any other under each. An IPv6 socket
    /// with an IPv4 connection is found as IPv4.
    pub fn has(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<bool, EndsError> {
        for interface in once(0).chain(self.interfaces.clone()) {
            if self.found(local, remote, interface)? {
                return Ok(true);
            }
        }
        // "No such entry" may mean that there is no such socket, or that nobody is there who knows TCP.
        self.answered(local)?;
        Ok(false)
    }

    /// Aborts the socket with exactly these addresses and ports (`SOCK_DESTROY`): its program gets an error, its peer a reset. That there
    /// is none is false.
    pub fn destroy(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<bool, EndsError> {
        for interface in once(0).chain(self.interfaces.clone()) {
            let request = self.exactly(local, remote, interface);
            match self.asker.ask(Ask::One, DESTROY, &request, BY_FAMILY, socket) {
                Ok(_) => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(EndsError::Diag(error)),
            }
        }
        Ok(false)
    }

    fn found(&mut self, local: SocketAddr, remote: SocketAddr, interface: u32) -> Result<bool, EndsError> {
        match self.asker.ask(Ask::One, BY_FAMILY, &self.exactly(local, remote, interface), BY_FAMILY, socket) {
            Ok(all) if all.found.is_empty() => Err(EndsError::Diag(io::Error::other("an answer that shows no socket"))),
            // Where there is no connection, the kernel shows who listens on the port.
            Ok(all) => Ok(all.found.contains(&(local, remote))),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(EndsError::Diag(error)),
        }
    }

    /// Asks for a list of all sockets in no state, which the kernel has at once: whether anybody answers for this family.
    fn answered(&mut self, like: SocketAddr) -> Result<(), EndsError> {
        let mut none = self.exactly(like, like, 0);
        none[STATES].fill(0);
        match self.asker.ask(Ask::List, BY_FAMILY, &none, BY_FAMILY, socket) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Err(EndsError::NoDiag),
            Err(error) => Err(EndsError::Diag(error)),
        }
    }

    fn exactly(&self, local: SocketAddr, remote: SocketAddr, interface: u32) -> [u8; REQUEST] {
        let mut request = [0; REQUEST];
        request[0] = family(local);
        request[1] = self.protocol;
        request[STATES].fill(0xff);
        let id = &mut request[ID..];
        for (side, port, ip) in [(local, 0, SOURCE), (remote, 2, DESTINATION)] {
            id[port..port + 2].copy_from_slice(&side.port().to_be_bytes());
            match side.ip() {
                IpAddr::V4(it) => id[ip..ip + 4].copy_from_slice(&it.octets()),
                IpAddr::V6(it) => id[ip..ip + 16].copy_from_slice(&it.octets()),
            }
        }
        id[INTERFACE..INTERFACE + 4].copy_from_slice(&interface.to_ne_bytes());
        // INET_DIAG_NOCOOKIE: whichever socket it is.
        id[COOKIE..COOKIE + 8].fill(0xff);
        request
    }
}

/// The two sides of the socket in an answer. Its family is the socket's own.
pub(super) fn socket(answer: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let v6 = i32::from(*answer.first()?) == libc::AF_INET6;
    let id = answer.get(ANSWERED_ID..)?;
    let side = |port: usize, ip: usize| {
        let port = u16::from_be_bytes(id.get(port..port + 2)?.try_into().ok()?);
        let octets: [u8; 16] = id.get(ip..ip + 16)?.try_into().ok()?;
        let ip = if v6 {
            Ipv6Addr::from(octets).to_canonical()
        } else {
            Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()
        };
        Some(SocketAddr::new(ip, port))
    };
    Some((side(0, SOURCE)?, side(2, DESTINATION)?))
}
