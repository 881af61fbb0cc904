//! Warnings that would come with each request, said once in a while.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// How long the same is not said again.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// How long it is remembered what was said, and how often it was not.
const KEPT: Duration = Duration::from_mins(10);

/// What was said about each thing, and when.
#[derive(Debug)]
pub(super) struct Seldom<K> {
    said: HashMap<K, Said>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    /// How often it was not said since.
    withheld: u64,
}

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self { said: HashMap::new() }
    }
}

impl<K: Eq + Hash> Seldom<K> {
    /// Whether it is to be said at this time: then, how often it was not since it last was.
    pub(super) fn due(&mut self, about: K, now: Instant) -> Option<u64> {
        if let Some(said) = self.said.get_mut(&about) {
            if now.saturating_duration_since(said.at) < EVERY {
                said.withheld += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.withheld));
        }
        self.said.retain(|_, said| now.saturating_duration_since(said.at) < KEPT);
        self.said.insert(about, Said { at: now, withheld: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while_with_the_count_of_what_was_not() {
        let (mut it, start) = (Seldom::default(), Instant::now());
        assert_eq!(it.due("a", start), Some(0));
        for _ in 0..1000 {
            assert_eq!(it.due("a", start + EVERY / 2), None);
        }
        assert_eq!(it.due("b", start + EVERY / 2), Some(0), "another is said at once");
        assert_eq!(it.due("a", start + EVERY), Some(1000));
        assert_eq!(it.due("a", start + EVERY), None);
        assert_eq!(it.due("a", start + EVERY * 2), Some(1));
    }

    #[test]
    fn what_was_said_long_ago_is_forgotten() {
        let (mut it, start) = (Seldom::default(), Instant::now());
        for n in 0..100 {
            it.due(n, start);
        }
        it.due(100, start + KEPT);
        assert_eq!(it.said.len(), 1);
    }
}
