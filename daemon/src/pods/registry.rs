//! Which pod has which address.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::netns::NetnsId;

/// An address that two pods of this node have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The pod that had it first.
    pub holder: NetnsId,
    /// Its name.
    pub path: PathBuf,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, path, .. } = self;
        write!(f, "{address} belongs to {} already; give one of the two another address, or remove it", path.display())
    }
}

#[derive(Debug)]
struct Holder {
    path: PathBuf,
    addresses: Vec<IpAddr>,
}

/// The addresses of the pods that are attached. Connections are keyed by addresses, so a second pod with the same one
/// is refused.
#[derive(Debug, Default)]
pub struct Registry {
    by_address: HashMap<IpAddr, NetnsId>,
    holders: BTreeMap<NetnsId, Holder>,
}

impl Registry {
    /// Gives a pod exactly these addresses, all or none. Refused, it keeps none of those that it had: a pod that is
    /// refused is not attached.
    pub fn claim(&mut self, id: NetnsId, path: &Path, addresses: &[IpAddr]) -> Result<(), Conflict> {
        self.release(id);
        for address in addresses {
            if let Some(holder) = self.by_address.get(address) {
                let path = self.holders[holder].path.clone();
                return Err(Conflict { address: *address, holder: *holder, path });
            }
        }
        self.by_address.extend(addresses.iter().map(|a| (*a, id)));
        self.holders.insert(id, Holder { path: path.to_owned(), addresses: addresses.to_vec() });
        Ok(())
    }

    /// Takes a pod's addresses back.
    pub fn release(&mut self, id: NetnsId) {
        for address in self.holders.remove(&id).map_or_else(Vec::new, |h| h.addresses) {
            self.by_address.remove(&address);
        }
    }

    /// The pod that has an address.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<NetnsId> {
        self.by_address.get(&address).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    const A: NetnsId = NetnsId { dev: 4, ino: 1 };
    const B: NetnsId = NetnsId { dev: 4, ino: 2 };

    #[test]
    fn the_second_pod_with_an_address_is_refused_and_names_the_first() {
        let mut it = Registry::default();
        it.claim(A, Path::new("/run/netns/a"), &[ip(1), ip(2)]).expect("free");
        let conflict = it.claim(B, Path::new("/run/netns/b"), &[ip(3), ip(2)]).expect_err("taken");
        assert_eq!(conflict, Conflict { address: ip(2), holder: A, path: "/run/netns/a".into() });
        assert_eq!(it.holder(ip(3)), None, "all or none");
        assert!(conflict.to_string().starts_with("10.0.0.2 belongs to /run/netns/a"));
    }

    #[test]
    fn an_address_is_free_again_once_its_pod_released_or_changed_it() {
        let mut it = Registry::default();
        it.claim(A, Path::new("a"), &[ip(1)]).expect("free");
        it.claim(A, Path::new("a"), &[ip(2)]).expect("its own change");
        it.claim(B, Path::new("b"), &[ip(1)]).expect("given up by the change");
        it.release(B);
        it.release(B);
        assert_eq!(it.holder(ip(1)), None);
        assert_eq!(it.holder(ip(2)), Some(A));
    }
}
