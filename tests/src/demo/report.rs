//! What the demo found. `-o json` prints it; `docs/demo.md` describes the fields.

use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether everything went where it belongs.
    pub ok: bool,
    /// Why the demo could not be played to its end.
    pub error: Option<String>,
    /// Sidetrack's version.
    pub version: Option<String>,
    /// The kernel's release.
    pub kernel: String,
    /// How long it took, set-up included.
    pub seconds: f64,
    /// Scene by scene.
    pub scenes: Vec<Scene>,
    /// What each server's own access log says.
    pub servers: Vec<Ledger>,
    /// `sidetrack flows`, its items: the connections that were open at the end.
    pub flows: Vec<Value>,
    /// `sidetrack status`, its counters.
    pub counters: Vec<Value>,
}

/// One scene.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scene {
    /// A stable name.
    pub name: &'static str,
    /// What it shows, for a person.
    pub title: &'static str,
    /// What has to come of it, in words.
    pub expected: &'static str,
    /// Whether it did.
    pub ok: bool,
    /// Its requests.
    pub requests: Vec<Row>,
    /// What else was looked at.
    pub checks: Vec<Check>,
}

/// One request, or many that are alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Method and target.
    pub sent: String,
    /// The sandbox key that it carried.
    pub key: Option<String>,
    /// Which connection it went over.
    pub connection: Connection,
    /// How many of them.
    pub count: u64,
    /// The servers that have to take part, the first one first.
    pub expected: Vec<String>,
    /// Those that did. Of many requests, those of the one that was wrong.
    pub answered: Vec<String>,
    /// Whether every one went where it belongs, and every body was right.
    pub ok: bool,
    /// From the first packet to the last byte of the answer; of many, the median.
    pub seconds: f64,
    /// The longest.
    pub slowest_seconds: f64,
    /// What else was found out.
    pub note: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// How a request's connection came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// Opened for this request.
    #[default]
    New,
    /// Open already: requests went over it before.
    Kept,
}

/// Something that had to hold and was no request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub what: String,
    /// What was found.
    pub found: String,
    /// Whether it holds.
    pub ok: bool,
}

/// The requests that one server served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Its name.
    pub name: String,
    /// How many there were by key (empty: none), by its own access log.
    pub served: BTreeMap<String, u64>,
    /// How many there had to be.
    pub expected: BTreeMap<String, u64>,
    /// Whether both agree.
    pub ok: bool,
}

impl Report {
    /// How often each key has to have reached each server, by the requests of all scenes.
    #[must_use]
    pub fn due(&self) -> BTreeMap<&str, BTreeMap<String, u64>> {
        let mut due: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        for row in self.scenes.iter().flat_map(|scene| &scene.requests) {
            for server in &row.expected {
                *due.entry(server).or_default().entry(row.key.clone().unwrap_or_default()).or_default() += row.count;
            }
        }
        due
    }

    /// Whether nothing went elsewhere, of all that is in it.
    #[must_use]
    pub fn all_well(&self) -> bool {
        self.error.is_none()
            && !self.scenes.is_empty()
            && self.scenes.iter().all(|scene| scene.ok)
            && self.servers.iter().all(|server| server.ok)
    }
}

impl Scene {
    /// Whether all of it was as expected; a scene in which nothing happened has shown nothing.
    #[must_use]
    pub fn all_well(&self) -> bool {
        let something = !self.requests.is_empty() || !self.checks.is_empty();
        something && self.requests.iter().all(|row| row.ok) && self.checks.iter().all(|check| check.ok)
    }
}

impl Row {
    /// Takes in the times of many requests.
    pub fn times(&mut self, times: &mut [Duration]) {
        times.sort_unstable();
        self.count = times.len() as u64;
        self.seconds = times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64);
        self.slowest_seconds = times.last().map_or(0.0, Duration::as_secs_f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: Option<&str>, count: u64, expected: &[&str]) -> Row {
        let expected = expected.iter().map(|&name| name.to_owned()).collect();
        Row { key: key.map(str::to_owned), count, expected, ok: true, ..Row::default() }
    }

    #[test]
    fn every_server_on_a_request_s_way_is_due_one() {
        let requests = vec![row(None, 3, &["orders", "payments"]), row(Some("pr-2"), 2, &["orders", "payments-pr-2"])];
        let report = Report { scenes: vec![Scene { requests, ..Scene::default() }], ..Report::default() };
        let due = report.due();
        assert_eq!(due["orders"], BTreeMap::from([(String::new(), 3), ("pr-2".into(), 2)]));
        assert_eq!(due["payments-pr-2"], BTreeMap::from([("pr-2".into(), 2)]));
    }

    #[test]
    fn a_demo_without_scenes_and_a_scene_without_requests_have_shown_nothing() {
        assert!(!Report::default().all_well());
        assert!(!Scene::default().all_well());
        assert!(Scene { requests: vec![row(None, 1, &["orders"])], ..Scene::default() }.all_well());
    }

    #[test]
    fn of_many_times_the_median_and_the_longest_are_kept() {
        let mut many = Row::default();
        many.times(&mut [9, 1, 2].map(Duration::from_secs));
        assert_eq!((many.count, many.seconds, many.slowest_seconds), (3, 2.0, 9.0));
    }
}
