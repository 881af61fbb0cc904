//! As much of rtnetlink as the agent needs: links, addresses and routes of one namespace, and word of their changes.
//!
//! Messages are read by hand: attributes that a later kernel adds are passed over, whatever their length.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, SockFlag, SockProtocol, recv},
};

use crate::netlink::{Ask, Asker, open, u16_at, u32_at};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkMsg {
    pub index: u32,
    /// `ARPHRD_` type.
    pub kind: u16,
    pub name: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddrMsg {
    pub index: u32,
    pub scope: u8,
    pub flags: u32,
    pub addr: IpAddr,
}

impl AddrMsg {
    /// Whether a connection can start from it: not link-local, and through with the search for duplicates.
    pub fn usable(&self) -> bool {
        self.scope < libc::RT_SCOPE_LINK && self.flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) == 0
    }
}

/// One way of a default route of the main table: a route with several next hops is several of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteMsg {
    pub v6: bool,
    pub index: u32,
    pub gateway: Option<IpAddr>,
    pub metric: u32,
}

/// What one namespace looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub links: Vec<LinkMsg>,
    pub addrs: Vec<AddrMsg>,
    pub routes: Vec<RouteMsg>,
}

/// A socket that becomes readable when a link, an address or a route of its namespace changes. Must be called inside
/// the namespace, which the socket keeps alive until it is closed.
pub(super) fn monitor() -> io::Result<OwnedFd> {
    let groups = libc::RTMGRP_LINK
        | libc::RTMGRP_IPV4_IFADDR
        | libc::RTMGRP_IPV4_ROUTE
        | libc::RTMGRP_IPV6_IFADDR
        | libc::RTMGRP_IPV6_ROUTE;
    open(SockProtocol::NetlinkRoute, SockFlag::SOCK_NONBLOCK, groups.cast_unsigned())
}

/// Throws away what has come to a [`monitor`]: that something changed is all that counts. An overrun is a change, too.
pub(super) fn drain(monitor: &OwnedFd) {
    let mut buffer = [0; 8192];
    while !matches!(recv(monitor.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC), Err(Errno::EAGAIN)) {}
}

/// How often a dump is begun anew because a change came in between.
const ATTEMPTS: usize = 8;

impl Snapshot {
    /// Reads it. Must run inside the namespace.
    pub fn read() -> io::Result<Self> {
        let mut asker = Asker::open(SockProtocol::NetlinkRoute)?;
        Ok(Self {
            links: list(&mut asker, libc::RTM_GETLINK, libc::RTM_NEWLINK, link)?,
            addrs: list(&mut asker, libc::RTM_GETADDR, libc::RTM_NEWADDR, address)?,
            routes: list(&mut asker, libc::RTM_GETROUTE, libc::RTM_NEWROUTE, routes)?.into_iter().flatten().collect(),
        })
    }
}

/// A body of zeros long enough for each of the three dumps, whose family is "any".
const ANY: [u8; 16] = [0; 16];

fn list<T>(asker: &mut Asker, ask: u16, answer: u16, read: fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    for _ in 0..ATTEMPTS {
        let all = asker.ask(Ask::List, ask, &ANY, answer, read)?;
        if !all.torn {
            return Ok(all.found);
        }
    }
    Err(io::Error::other("the namespace's links and routes change faster than they can be read"))
}

/// `ifinfomsg`: family, pad, type, index, flags, change.
fn link(body: &[u8]) -> Option<LinkMsg> {
    let mut it =
        LinkMsg { index: u32_at(body, 4)?, kind: u16_at(body, 2)?, name: String::new(), mac: Vec::new(), mtu: 0 };
    for (kind, value) in Attributes(body.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => {
                it.name = String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned();
            }
            libc::IFLA_ADDRESS => it.mac = value.to_vec(),
            libc::IFLA_MTU => it.mtu = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(it)
}

/// `ifaddrmsg`: family, prefix length, flags, scope, index.
fn address(body: &[u8]) -> Option<AddrMsg> {
    let mut it = AddrMsg {
        index: u32_at(body, 4)?,
        scope: *body.get(3)?,
        flags: u32::from(*body.get(2)?),
        addr: Ipv4Addr::UNSPECIFIED.into(),
    };
    let mut local = false;
    for (kind, value) in Attributes(body.get(8..)?) {
        match kind {
            // On a point-to-point interface IFA_ADDRESS is the peer's, and IFA_LOCAL one's own.
            libc::IFA_LOCAL => {
                it.addr = ip(value)?;
                local = true;
            }
            libc::IFA_ADDRESS if !local => it.addr = ip(value)?,
            libc::IFA_FLAGS => it.flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(it)
}

/// `rtmsg`: family, destination length, source length, tos, table, protocol, scope, type, flags. `None` for all but
/// default routes to somewhere in the main table.
fn routes(body: &[u8]) -> Option<Vec<RouteMsg>> {
    let family = i32::from(*body.first()?);
    let flags = u32_at(body, 8)?;
    let mut table = u32::from(*body.get(4)?);
    let v6 = family == libc::AF_INET6;
    let unicast = *body.get(7)? == libc::RTN_UNICAST;
    if !(v6 || family == libc::AF_INET) || body[1] != 0 || !unicast || flags & libc::RTM_F_CLONED != 0 {
        return None;
    }
    let mut first = RouteMsg { v6, index: 0, gateway: None, metric: 0 };
    let mut hops = Vec::new();
    for (kind, value) in Attributes(body.get(12..)?) {
        match kind {
            libc::RTA_TABLE => table = u32_at(value, 0)?,
            libc::RTA_OIF => first.index = u32_at(value, 0)?,
            libc::RTA_GATEWAY | RTA_VIA => first.gateway = gateway(kind, value),
            libc::RTA_PRIORITY => first.metric = u32_at(value, 0)?,
            libc::RTA_MULTIPATH => hops = next_hops(value, v6),
            _ => {}
        }
    }
    if table != u32::from(libc::RT_TABLE_MAIN) {
        return None;
    }
    if first.index != 0 {
        hops.push(first.clone());
    }
    for hop in &mut hops {
        hop.metric = first.metric;
    }
    Some(hops)
}

/// A next hop of the other family (RFC 5549 routes); missing in `libc`.
const RTA_VIA: u16 = 18;

/// The address in `RTA_GATEWAY`, or behind the family word of `RTA_VIA`.
fn gateway(kind: u16, value: &[u8]) -> Option<IpAddr> {
    ip(if kind == RTA_VIA { value.get(2..)? } else { value })
}

/// `rtnexthop`: length, flags, hops, index; then its attributes.
fn next_hops(mut bytes: &[u8], v6: bool) -> Vec<RouteMsg> {
    let mut hops = Vec::new();
    while let (Some(len), Some(index)) = (u16_at(bytes, 0).map(usize::from), u32_at(bytes, 4)) {
        let Some(attributes) = bytes.get(8..len) else { break };
        let gateway = Attributes(attributes)
            .find(|(kind, _)| [libc::RTA_GATEWAY, RTA_VIA].contains(kind))
            .and_then(|(kind, value)| gateway(kind, value));
        hops.push(RouteMsg { v6, index, gateway, metric: 0 });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    hops
}

/// Walks `rtattr` records: kind (without its nested and byte-order bits) and value.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::pods::{netns::Netns, testing::Lab};

    #[test]
    fn links_addresses_and_routes_are_read() {
        let lab = Lab::new();
        let ns = Netns::open(&lab.add("a")).expect("a fresh namespace");
        for line in [
            "link add eth0 type veth peer name other",
            "link set eth0 up",
            "link set other up",
            "addr add 10.9.0.2/24 dev eth0",
            "addr add fd09::2/64 dev eth0 nodad",
            "route add default via 10.9.0.1 metric 7",
            "-6 route add default dev eth0 metric 9",
            "route add 10.8.0.0/16 dev other",
            "route add unreachable default metric 999",
            "route add default dev other table 77",
        ] {
            lab.ip("a", line);
        }
        let it = ns.run(Snapshot::read).expect("entered").expect("read");
        let eth0 = it.links.iter().find(|l| l.name == "eth0").expect("made");
        assert_eq!((eth0.kind, eth0.mtu, eth0.mac.len()), (libc::ARPHRD_ETHER, 1500, 6));
        let addrs: Vec<_> = it.addrs.iter().filter(|a| a.index == eth0.index && a.scope == 0).map(|a| a.addr).collect();
        assert_eq!(addrs, ["10.9.0.2".parse::<IpAddr>().expect("v4"), "fd09::2".parse().expect("v6")]);
        assert_eq!(
            it.routes,
            [
                RouteMsg { v6: false, index: eth0.index, gateway: "10.9.0.1".parse().ok(), metric: 7 },
                RouteMsg { v6: true, index: eth0.index, gateway: None, metric: 9 },
            ]
        );
        lab.ip("a", "route replace default metric 7 nexthop via 10.9.0.1 dev eth0 nexthop dev other");
        let it = ns.run(Snapshot::read).expect("entered").expect("read");
        let other = it.links.iter().find(|l| l.name == "other").expect("made");
        let v4: Vec<_> = it.routes.iter().filter(|r| !r.v6).map(|r| (r.index, r.gateway.is_some())).collect();
        assert_eq!(v4, [(eth0.index, true), (other.index, false)]);
    }

    #[test]
    fn a_change_wakes_the_monitor_once_drained_it_sleeps() {
        let lab = Lab::new();
        let ns = Netns::open(&lab.add("a")).expect("a fresh namespace");
        let socket = ns.run(monitor).expect("entered").expect("opened");
        let ready = |ms: u16| {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(ms)).expect("poll") == 1
        };
        assert!(!ready(0));
        lab.ip("a", "link set lo up");
        assert!(ready(2000));
        drain(&socket);
        assert!(!ready(0));
    }

    #[test]
    fn unknown_attributes_are_passed_over_and_broken_ones_end_the_walk() {
        assert_eq!(
            Attributes(&[8, 0, 99, 0, 1, 2, 3, 4, 5, 0, 2, 0, 7]).collect::<Vec<_>>(),
            [(99, &[1, 2, 3, 4][..]), (2, &[7][..])]
        );
        assert_eq!(Attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes(&[40, 0, 1, 0]).count(), 0);
    }
}
