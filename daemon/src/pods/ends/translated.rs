//! What a namespace's connection tracking knows.
//!
//! Connections that the namespace translates by itself (containers inside the pod behind a masquerade, a redirect of what the
//! pod sends) have sockets with other addresses than their packets at the pod's interface. And legs: of each it has seen the dial,
//! and nothing since, for what is spliced passes beneath it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use nix::{libc, sys::socket::SockProtocol};

use super::family;
use crate::netlink::{Ask, Asker};

/// `IPCTNL_MSG_CT_NEW`, `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE` of subsystem `NFNL_SUBSYS_CTNETLINK`.
const NEW: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
const GET: u16 = NEW | 1;
const DELETE: u16 = NEW | 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `CTA_TUPLE_ORIG`, and in it `CTA_TUPLE_IP`, `CTA_TUPLE_PROTO`.
const TUPLE: u16 = NESTED | 1;
const TUPLE_IP: u16 = NESTED | 1;
const TUPLE_PROTO: u16 = NESTED | 2;
/// `CTA_IP_V4_SRC` and `CTA_IP_V4_DST`, and the same of IPv6.
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];
/// `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT`, `CTA_PROTO_DST_PORT`.
const PROTO_NUM: u16 = 1;
const PROTO_PORT: [u16; 2] = [2, 3];

/// Whether this kernel tracks connections in any namespace. Must be called in the agent's own: those of user namespaces
/// may not show it. Asking would load the module.
pub(super) fn possible() -> bool {
    Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists()
}

/// What a namespace's connection tracking knows.
#[derive(Debug)]
pub(super) struct Translations(Asker);

impl Translations {
    /// Must be called inside the namespace.
    pub fn open() -> io::Result<Self> {
        Asker::open(SockProtocol::NetlinkNetFilter).map(Self)
    }

    /// Whether packets of this connection, as they pass the interface, are translated behind it.
    ///
    /// A tracked connection is known by the tuples of both directions, as each is when its packets come in: of one that is
    /// not translated they are each other's mirror, and of any other the answers' tuple alone is that of the interface.
    pub fn has(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<bool> {
        Ok(self.tracked(remote, local)? && !self.tracked(local, remote)?)
    }

    /// Forgets a connection. False: it is not known.
    pub fn forget(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<bool> {
        self.found(DELETE, local, remote).map(|found| found.is_some())
    }

    /// Whether it knows a connection by the tuple of either of its directions.
    pub fn tracked(&mut self, from: SocketAddr, to: SocketAddr) -> io::Result<bool> {
        Ok(self.found(GET, from, to)?.is_some_and(|shown| shown != 0))
    }

    /// Asks for something about a connection, or to be done with it. Returns how often it was shown; `None`: it is not known.
    fn found(&mut self, what: u16, from: SocketAddr, to: SocketAddr) -> io::Result<Option<usize>> {
        match self.0.ask(Ask::One, what, &question(from, to), NEW, |_| Some(())) {
            Ok(all) => Ok(Some(all.found.len())),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// `struct nfgenmsg` and the tuple that is looked for. The kernel looks for it as that of either direction.
fn question(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let address = |at: usize, side: SocketAddr| match side.ip() {
        IpAddr::V4(it) => attribute(IP_V4[at], &it.octets()),
        IpAddr::V6(it) => attribute(IP_V6[at], &it.octets()),
    };
    let port = |at: usize, side: SocketAddr| attribute(PROTO_PORT[at], &side.port().to_be_bytes());
    let ip = [address(0, from), address(1, to)].concat();
    let proto = [attribute(PROTO_NUM, &[libc::IPPROTO_TCP as u8]), port(0, from), port(1, to)].concat();
    let tuple = [attribute(TUPLE_IP, &ip), attribute(TUPLE_PROTO, &proto)].concat();
    [vec![family(from), 0, 0, 0], attribute(TUPLE, &tuple)].concat()
}

/// `struct nlattr`, its value, and zeros to a multiple of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(4));
    bytes.extend((len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}
