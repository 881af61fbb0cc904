//! What is known of a pod, and what is said about it.

use std::{fmt, net::IpAddr, path::PathBuf};

use super::rtnetlink::Snapshot;
use super::{netns::Netns, netns::NetnsId, registry::Conflict};

/// The interface of a pod's default route: the programs attach here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index inside the namespace.
    pub index: u32,
    /// Its name there, mostly `eth0`.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its MTU.
    pub mtu: u32,
}

/// Where packets to other networks go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// A router.
    Gateway(IpAddr),
    /// Each destination is asked for itself.
    OnLink,
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(ip) => write!(f, "via {ip}"),
            Self::OnLink => f.write_str("on link"),
        }
    }
}

/// A namespace that the agent can work in.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub netns: Netns,
    /// The interface of its default route.
    pub link: Link,
    /// The addresses of that interface, but for link-local ones and those that are still tested for duplicates.
    pub addresses: Vec<IpAddr>,
    /// The addresses of its other interfaces, `lo` too, but for loopback ones: a client may bind them and leave by the default route.
    pub elsewhere: Vec<IpAddr>,
    /// The default route of IPv4, if there is one.
    pub v4: Option<NextHop>,
    /// The default route of IPv6, if there is one.
    pub v6: Option<NextHop>,
}

impl Pod {
    /// The identity of its namespace.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.netns.id()
    }

    /// Whether a client in it may have this address.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.elsewhere.contains(&address)
    }

    /// Whether nothing that a reader could act on differs.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.id() == other.id()
            && self.link == other.link
            && self.addresses == other.addresses
            && self.elsewhere == other.elsewhere
            && (self.v4, self.v6) == (other.v4, other.v6)
    }

    /// Finds the pod's interface in what its namespace looks like.
    pub(super) fn read(netns: Netns, it: &Snapshot) -> Result<Self, Outcome> {
        let mut interfaces: Vec<u32> = it.routes.iter().map(|r| r.index).collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        let link = |index: u32| it.links.iter().find(|l| l.index == index);
        let index = match interfaces[..] {
            [] => return Err(Outcome::NoDefaultRoute),
            [index] => index,
            _ => {
                let name = |&index: &u32| link(index).map_or_else(|| format!("if{index}"), |l| l.name.clone());
                return Err(Outcome::SeveralDefaultRoutes(interfaces.iter().map(name).collect()));
            }
        };
        // The routes are read after the links: an interface made in between shows up with the next reading.
        let link = link(index).ok_or(Outcome::NoDefaultRoute)?;
        let Some(mac) = link.mac.as_slice().try_into().ok().filter(|_| link.kind == nix::libc::ARPHRD_ETHER) else {
            return Err(Outcome::NotEthernet(link.name.clone()));
        };
        let usable = |here: bool| {
            let on = it.addrs.iter().filter(|a| (a.index == index) == here && a.usable() && !a.addr.is_loopback());
            let mut addresses: Vec<_> = on.map(|a| a.addr).collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        };
        let addresses = usable(true);
        let elsewhere = usable(false).into_iter().filter(|address| !addresses.contains(address)).collect();
        let hop = |v6: bool| {
            let best = it.routes.iter().filter(|r| r.v6 == v6).min_by_key(|r| r.metric)?;
            Some(best.gateway.map_or(NextHop::OnLink, NextHop::Gateway))
        };
        Ok(Self {
            link: Link { index, name: link.name.clone(), mac, mtu: link.mtu },
            addresses,
            elsewhere,
            v4: hop(false),
            v6: hop(true),
            netns,
        })
    }
}

/// Why a namespace is watched, but nothing is attached in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has no default route (yet). It is watched on: one may come.
    NoDefaultRoute,
    /// Its default routes lead over several interfaces, which are named. It is watched on.
    SeveralDefaultRoutes(Vec<String>),
    /// The named interface of its default route has no Ethernet frames.
    NotEthernet(String),
    /// Another pod of this node has one of its addresses. It takes its turn when that one goes.
    AddressTaken(Conflict),
    /// It is the agent's own namespace, or that of the node.
    OwnNamespace,
    /// The name leads to no network namespace, or cannot be opened; the reason.
    NotANamespace(String),
    /// It could not be entered or read; the reason. It is tried again.
    Unreadable(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDefaultRoute => f.write_str("no default route; attached as soon as it has one"),
            Self::SeveralDefaultRoutes(names) => {
                write!(
                    f,
                    "default routes over several interfaces ({}); leave one of them to have it attached",
                    names.join(", ")
                )
            }
            Self::NotEthernet(name) => write!(f, "{name} is no Ethernet interface; requests from here are not steered"),
            Self::AddressTaken(conflict) => conflict.fmt(f),
            Self::OwnNamespace => f.write_str("the agent's own, or the node's, namespace; never attached"),
            Self::NotANamespace(why) => write!(f, "not a network namespace: {why}"),
            Self::Unreadable(why) => write!(f, "cannot be read: {why}; tried again"),
        }
    }
}

/// What [`super::watch`] says.
#[derive(Clone, Debug)]
pub enum PodEvent {
    /// A pod is ready: attach. Also for one that was odd before and never appeared.
    Appeared(Pod),
    /// A pod that appeared has other addresses, routes, or another interface; or it was odd meanwhile and no longer is.
    Changed(Pod),
    /// The last name of a namespace is gone: detach, close every socket in it. It had appeared, or was odd.
    Gone(NetnsId),
    /// A namespace is not fit to be attached (any more), or a file is no namespace: then without an id.
    Odd(Option<NetnsId>, PathBuf, Outcome),
    /// A file that was odd and had no id is gone, or has become a namespace.
    Vanished(PathBuf),
    /// Everything that was there at the start has been said. Comes once.
    Listed,
}
