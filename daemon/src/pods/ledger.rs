//! Turns what is found in each namespace into events: each said once, and no address twice.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    netns::NetnsId,
    pod::{Outcome, Pod, PodEvent},
    registry::Registry,
};

type Finding = Result<Pod, Outcome>;

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    found: Finding,
    said: Option<Finding>,
    appeared: bool,
}

/// What was found and what was said, by namespace.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<NetnsId, Entry>,
    registry: Registry,
}

impl Ledger {
    /// Takes note of a namespace's state.
    pub fn observe(&mut self, id: NetnsId, path: &Path, found: Finding) -> Vec<PodEvent> {
        match self.entries.get_mut(&id) {
            Some(entry) => {
                entry.found = found;
                path.clone_into(&mut entry.path);
            }
            None => {
                self.entries.insert(id, Entry { path: path.to_owned(), found, said: None, appeared: false });
            }
        }
        let mut events = Vec::from_iter(self.settle(id));
        self.settle_refused(&mut events);
        events
    }

    /// Takes note of a namespace's end.
    pub fn gone(&mut self, id: NetnsId) -> Vec<PodEvent> {
        let mut events = Vec::new();
        if self.entries.remove(&id).is_some_and(|entry| entry.said.is_some()) {
            events.push(PodEvent::Gone(id));
        }
        self.registry.release(id);
        self.settle_refused(&mut events);
        events
    }

    /// Whose address was another's may have its turn, in a fixed order.
    fn settle_refused(&mut self, events: &mut Vec<PodEvent>) {
        let refused = |entry: &Entry| matches!(entry.said, Some(Err(Outcome::AddressTaken(_))));
        let ids: Vec<_> = self.entries.iter().filter(|(_, e)| refused(e)).map(|(id, _)| *id).collect();
        events.extend(ids.into_iter().filter_map(|id| self.settle(id)));
    }

    fn settle(&mut self, id: NetnsId) -> Option<PodEvent> {
        let entry = self.entries.get_mut(&id)?;
        let verdict = match &entry.found {
            Ok(pod) => match self.registry.claim(id, &entry.path, &pod.addresses) {
                Ok(()) => Ok(pod.clone()),
                Err(conflict) => Err(Outcome::AddressTaken(conflict)),
            },
            Err(outcome) => {
                self.registry.release(id);
                Err(outcome.clone())
            }
        };
        let known = match (&verdict, &entry.said) {
            (Ok(pod), Some(Ok(said))) => pod.same(said),
            (Err(outcome), Some(Err(said))) => outcome == said,
            _ => false,
        };
        if known {
            return None;
        }
        entry.said = Some(verdict.clone());
        Some(match verdict {
            Err(outcome) => PodEvent::Odd(Some(id), entry.path.clone(), outcome),
            Ok(pod) if std::mem::replace(&mut entry.appeared, true) => PodEvent::Changed(pod),
            Ok(pod) => PodEvent::Appeared(pod),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::{Link, Netns};

    const A: NetnsId = NetnsId { dev: 4, ino: 1 };
    const B: NetnsId = NetnsId { dev: 4, ino: 2 };

    fn pod(id: NetnsId, last: u8) -> Pod {
        Pod {
            netns: Netns::new(id, "pod".into()),
            link: Link { index: 2, name: "eth0".into(), mac: [2; 6], mtu: 1500 },
            addresses: vec![[10, 0, 0, last].into()],
            elsewhere: Vec::new(),
            v4: None,
            v6: None,
        }
    }

    fn words(events: &[PodEvent]) -> Vec<String> {
        let word = |event: &PodEvent| match event {
            PodEvent::Appeared(pod) => format!("appeared {}", pod.id().ino),
            PodEvent::Changed(pod) => format!("changed {}", pod.id().ino),
            PodEvent::Gone(id) => format!("gone {}", id.ino),
            PodEvent::Odd(id, _, Outcome::AddressTaken(_)) => format!("taken {}", id.map_or(0, |id| id.ino)),
            PodEvent::Odd(id, ..) => format!("odd {}", id.map_or(0, |id| id.ino)),
            PodEvent::Vanished(_) => unreachable!("the ledger knows namespaces only"),
            PodEvent::Listed => "listed".into(),
        };
        events.iter().map(word).collect()
    }

    #[test]
    fn a_pod_is_said_once_and_again_when_it_changes() {
        let mut it = Ledger::default();
        let path = Path::new("a");
        assert_eq!(words(&it.observe(A, path, Err(Outcome::NoDefaultRoute))), ["odd 1"]);
        assert!(it.observe(A, path, Err(Outcome::NoDefaultRoute)).is_empty());
        assert_eq!(words(&it.observe(A, path, Ok(pod(A, 1)))), ["appeared 1"]);
        assert!(it.observe(A, path, Ok(pod(A, 1))).is_empty());
        assert_eq!(words(&it.observe(A, path, Ok(pod(A, 2)))), ["changed 1"]);
        assert_eq!(words(&it.observe(A, path, Err(Outcome::NoDefaultRoute))), ["odd 1"]);
        assert_eq!(words(&it.observe(A, path, Ok(pod(A, 2)))), ["changed 1"]);
        assert_eq!(words(&it.gone(A)), ["gone 1"]);
        assert!(it.gone(A).is_empty());
    }

    #[test]
    fn a_pod_whose_address_was_taken_appears_when_the_first_goes() {
        let mut it = Ledger::default();
        it.observe(A, Path::new("a"), Ok(pod(A, 1)));
        let events = it.observe(B, Path::new("b"), Ok(pod(B, 1)));
        assert_eq!(words(&events), ["taken 2"]);
        let PodEvent::Odd(_, _, outcome) = &events[0] else { panic!("odd") };
        assert!(outcome.to_string().contains("belongs to a already"));
        assert!(it.observe(A, Path::new("a"), Ok(pod(A, 1))).is_empty());
        assert_eq!(words(&it.gone(A)), ["gone 1", "appeared 2"]);
    }

    #[test]
    fn an_address_given_up_by_a_change_or_a_lost_route_passes_on() {
        let mut it = Ledger::default();
        it.observe(A, Path::new("a"), Ok(pod(A, 1)));
        it.observe(B, Path::new("b"), Ok(pod(B, 1)));
        assert_eq!(words(&it.observe(A, Path::new("a"), Ok(pod(A, 9)))), ["changed 1", "appeared 2"]);
        assert_eq!(words(&it.observe(A, Path::new("a"), Ok(pod(A, 1)))), ["taken 1"]);
        assert_eq!(words(&it.observe(B, Path::new("b"), Err(Outcome::NoDefaultRoute))), ["odd 2", "changed 1"]);
    }
}
