//! Who might serve which kind of request, at which time.
//!
//! A change takes a while: from when it is begun until it is known to hold, both the old and the new are right. A request is decided
//! at some moment between when it was sent and when a server had its head.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

/// Microseconds since 1970, as the clients' own times are.
#[must_use]
pub fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The present.
#[must_use]
pub fn now() -> u64 {
    micros(SystemTime::now())
}

/// What happened so many microseconds before may have to do with it.
const SHORTLY: u64 = 3_000_000;

/// From `begun` on a server may be right, and until the next change holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    begun: u64,
    held: u64,
    servers: Vec<&'static str>,
}

/// All changes, by kind of request, and when a fork refused connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    changes: BTreeMap<&'static str, Vec<Change>>,
    refusals: Vec<(u64, u64)>,
    /// What was done, for messages.
    events: Vec<(u64, String)>,
}

impl Timeline {
    /// Notes what happens at this moment.
    pub fn note(&mut self, event: impl Into<String>) {
        self.events.push((now(), event.into()));
    }

    /// What happened between the two, and shortly before, in milliseconds from the first.
    #[must_use]
    pub fn during(&self, from: u64, until: u64) -> Vec<String> {
        let near = self.events.iter().filter(|(at, _)| *at + SHORTLY >= from && *at <= until);
        near.map(|(at, event)| format!("{event} at {} ms", (at.cast_signed() - from.cast_signed()) / 1000)).collect()
    }

    /// From some moment between `begun` and `held` on, requests of this kind are served by these.
    pub fn change(&mut self, kind: &'static str, servers: &[&'static str], begun: u64, held: u64) {
        let change = Change { begun, held, servers: servers.to_vec() };
        self.changes.entry(kind).or_default().push(change);
    }

    /// Between these two a fork refused connections.
    pub fn refused(&mut self, begun: u64, ended: u64) {
        self.refusals.push((begun, ended));
    }

    /// Whether this server was right for such a request at some moment between the two.
    #[must_use]
    pub fn might_serve(&self, kind: &str, server: &str, from: u64, until: u64) -> bool {
        let changes = self.changes.get(kind).map(Vec::as_slice).unwrap_or_default();
        changes.iter().enumerate().any(|(number, change)| {
            let end = changes.get(number + 1).map_or(u64::MAX, |next| next.held);
            change.servers.contains(&server) && change.begun <= until && from <= end
        })
    }

    /// Whether a fork refused connections at some moment between the two.
    #[must_use]
    pub fn might_be_refused(&self, from: u64, until: u64) -> bool {
        self.refusals.iter().any(|&(begun, ended)| begun <= until && from <= ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_a_change_is_made_both_are_right_and_before_and_behind_it_one_is() {
        let mut timeline = Timeline::default();
        timeline.change("guest", &["guest"], 0, 0);
        timeline.change("guest", &["base"], 100, 110);
        for (from, until, guest, base) in
            [(10, 99, true, false), (90, 105, true, true), (105, 108, true, true), (111, 120, false, true)]
        {
            assert_eq!(timeline.might_serve("guest", "guest", from, until), guest, "{from} to {until}");
            assert_eq!(timeline.might_serve("guest", "base", from, until), base, "{from} to {until}");
        }
        assert!(!timeline.might_serve("other", "base", 0, 200));
    }
}
