//! Map `pods`: namespaces that the agent knows of, and what became of each.
//!
//! Key [`PodKey`], value [`PodRecord`], written by the agent, read by tools. A miss means: never seen, or gone.

use std::{net::IpAddr, path::Path};

use sidetrack_splice::abi::addr::Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{names, pods::Outcome};

/// Name of the map.
pub const MAP: &str = "pods";
/// How many namespaces the map has room for: twice what a node of Kubernetes is tested with.
pub const ROOM: u32 = 1_024;

/// Key of map `pods`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PodKey {
    /// Inode of the network namespace; for a file that is none, a number made of its path with the highest bit set.
    pub netns: u64,
}

impl PodKey {
    /// The key of a namespace.
    #[must_use]
    pub fn netns(inode: u64) -> Self {
        Self { netns: inode }
    }

    /// The key of a file that is no namespace, or cannot be opened: it has no inode to go by.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in path.as_os_str().as_encoded_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self { netns: hash | 1 << 63 }
    }
}

/// The programs are attached.
pub const ATTACHED: u32 = 1;
/// [`Outcome::NoDefaultRoute`].
pub const NO_DEFAULT_ROUTE: u32 = 2;
/// [`Outcome::SeveralDefaultRoutes`].
pub const SEVERAL_DEFAULT_ROUTES: u32 = 3;
/// [`Outcome::NotEthernet`].
pub const NOT_ETHERNET: u32 = 4;
/// [`Outcome::AddressTaken`].
pub const ADDRESS_TAKEN: u32 = 5;
/// [`Outcome::OwnNamespace`].
pub const OWN_NAMESPACE: u32 = 6;
/// [`Outcome::NotANamespace`].
pub const NOT_A_NAMESPACE: u32 = 7;
/// [`Outcome::Unreadable`].
pub const UNREADABLE: u32 = 8;
/// The programs could not be attached; the detail says why.
pub const ATTACH_FAILED: u32 = 9;

/// Not attached.
pub const MODE_NONE: u32 = 0;
/// By a tcx link.
pub const MODE_TCX: u32 = 1;
/// By a filter of the clsact qdisc.
pub const MODE_CLSACT: u32 = 2;

/// How many addresses of one pod are recorded.
pub const ADDRESSES: usize = 4;

/// Value of map `pods`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PodRecord {
    /// [`ATTACHED`], or why not.
    pub outcome: u32,
    /// One of the `MODE_` constants.
    pub mode: u32,
    /// Nanoseconds (`CLOCK_MONOTONIC`) since when it is so.
    pub since: u64,
    /// Index of the interface, in the namespace; zero if there is none.
    pub ifindex: u32,
    /// Zero.
    pub reserved: u32,
    /// Name of that interface.
    pub interface: [u8; 16],
    /// Addresses of that interface; zero is none.
    pub addresses: [Addr; ADDRESSES],
    /// Name of the namespace's file.
    pub name: [u8; 64],
    /// What a person should know of it, in words.
    pub detail: [u8; 192],
}

const _: () = assert!(size_of::<PodRecord>() == 360);

impl PodRecord {
    /// A pod whose interface has the programs.
    #[must_use]
    pub fn attached(path: &Path, ifindex: u32, interface: &str, addresses: &[IpAddr], mode: u32, since: u64) -> Self {
        let mut record = Self { mode, ifindex, interface: names::padded(interface), ..Self::at(path, ATTACHED, since) };
        for (slot, address) in record.addresses.iter_mut().zip(addresses) {
            *slot = (*address).into();
        }
        record
    }

    /// A namespace in which nothing is attached.
    #[must_use]
    pub fn odd(path: &Path, outcome: &Outcome, since: u64) -> Self {
        let number = match outcome {
            Outcome::NoDefaultRoute => NO_DEFAULT_ROUTE,
            Outcome::SeveralDefaultRoutes(_) => SEVERAL_DEFAULT_ROUTES,
            Outcome::NotEthernet(_) => NOT_ETHERNET,
            Outcome::AddressTaken(_) => ADDRESS_TAKEN,
            Outcome::OwnNamespace => OWN_NAMESPACE,
            Outcome::NotANamespace(_) => NOT_A_NAMESPACE,
            Outcome::Unreadable(_) => UNREADABLE,
        };
        Self { detail: names::padded(&outcome.to_string()), ..Self::at(path, number, since) }
    }

    /// A pod whose interface refused the programs.
    #[must_use]
    pub fn failed(path: &Path, ifindex: u32, interface: &str, why: &str, since: u64) -> Self {
        let interface = names::padded(interface);
        Self { ifindex, interface, detail: names::padded(why), ..Self::at(path, ATTACH_FAILED, since) }
    }

    fn at(path: &Path, outcome: u32, since: u64) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Self {
            outcome,
            mode: MODE_NONE,
            since,
            ifindex: 0,
            reserved: 0,
            interface: [0; 16],
            addresses: [Addr::default(); ADDRESSES],
            name: names::padded(&name),
            detail: [0; 192],
        }
    }

    /// Stable name of the outcome.
    #[must_use]
    pub fn outcome_name(&self) -> &'static str {
        match self.outcome {
            ATTACHED => "attached",
            NO_DEFAULT_ROUTE => "no_default_route",
            SEVERAL_DEFAULT_ROUTES => "several_default_routes",
            NOT_ETHERNET => "not_ethernet",
            ADDRESS_TAKEN => "address_taken",
            OWN_NAMESPACE => "own_namespace",
            NOT_A_NAMESPACE => "not_a_namespace",
            UNREADABLE => "unreadable",
            ATTACH_FAILED => "attach_failed",
            _ => "unknown",
        }
    }

    /// Stable name of the mode; `None` if nothing is attached.
    #[must_use]
    pub fn mode_name(&self) -> Option<&'static str> {
        match self.mode {
            MODE_TCX => Some("tcx"),
            MODE_CLSACT => Some("clsact"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = (ATTACHED..=ATTACH_FAILED)
            .map(|outcome| PodRecord { outcome, ..PodRecord::at(Path::new("/run/netns/a"), 0, 0) }.outcome_name())
            .collect();
        assert_eq!(names.len(), 9);
        assert!(!names.contains("unknown"));
    }

    #[test]
    fn a_file_that_is_no_namespace_has_a_key_that_no_inode_has() {
        let key = PodKey::file(Path::new("/run/netns/notes.txt"));
        assert!(key.netns >> 63 == 1);
        assert_ne!(key, PodKey::file(Path::new("/run/netns/other.txt")));
    }
}
