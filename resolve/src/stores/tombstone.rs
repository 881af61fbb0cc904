//! Keys that have gone: for some time their requests are refused and do not go to the baseline, so that who still sends
//! them sees an error and no other version's answer.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use sidetrack_splice::table::RouteTable;

use super::{Name, Sandbox, Stores, record::tombstone_end};

/// How long requests with a key are refused after its Sandbox has gone.
pub const TOMBSTONE: SignedDuration = SignedDuration::from_mins(10);

impl Stores {
    /// Takes note of which keys of a Sandbox are not there any more. A Service that it forks no longer, while it lives, is its
    /// author's word: those requests are the baseline's.
    pub(super) fn bury(&mut self, name: &Name, old: &Sandbox, new: Option<&Sandbox>, now: Timestamp) {
        let until = tombstone_end(old.gone_at(now).unwrap_or(now));
        let kept = new.filter(|new| new.uid == old.uid).map(|new| &new.keys);
        let gone = old.keys.iter().filter(|key| kept.is_none_or(|kept| !kept.contains(*key)));
        for (key, service) in
            gone.flat_map(|key| old.forks.iter().flat_map(|fork| &fork.services).map(move |it| (key, it)))
        {
            self.bury_key(Name::new(&name.namespace, service), key, until);
        }
    }

    fn bury_key(&mut self, service: Name, key: &str, until: Timestamp) {
        let stands = self.tombstones.entry((service, key.to_owned())).or_insert(until);
        *stands = until.max(*stands);
    }

    /// Takes note of the routes that an earlier agent has left in the kernel: a key of theirs of which no Sandbox is known
    /// has gone while no agent was there. Behind the first list of Sandboxes.
    pub fn adopt(&mut self, pinned: &RouteTable, now: Timestamp) {
        let until = tombstone_end(now);
        let alone: BTreeSet<(&str, &str)> = pinned
            .services()
            .iter()
            .flat_map(|service| service.routes.iter().map(|route| (service.name.as_str(), route.key.as_str())))
            .collect();
        for service in pinned.services() {
            let members: Vec<&str> = service.name.split('+').collect();
            for route in &service.routes {
                // What several Services share is known by the one whose own addresses have the key as well, if one has.
                let of_one = members.len() > 1 && members.iter().any(|member| alone.contains(&(*member, &route.key)));
                if of_one {
                    continue;
                }
                for name in members.iter().filter_map(|member| parse(member)) {
                    if !self.holds(&name.namespace, &route.key) {
                        self.bury_key(name, &route.key, until);
                    }
                }
            }
        }
    }

    /// Whether a Sandbox of this namespace has the key.
    fn holds(&self, namespace: &str, key: &str) -> bool {
        let begin = Name::new(namespace, "");
        let mut of_it = self.sandboxes.range(begin..).take_while(|(name, _)| name.namespace == namespace);
        of_it.any(|(_, sandbox)| sandbox.keys.contains(key))
    }
}

/// The Service in a table's name: `namespace/name` or `namespace/name:port`.
fn parse(text: &str) -> Option<Name> {
    let (namespace, name) = text.split_once('/')?;
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    Some(Name::new(namespace, name))
}
