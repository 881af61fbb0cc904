//! What all nodes have said.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::line::{InForce, Line, Report};

/// How long what a node has said last counts while its agent is not heard: an agent that is replaced is back by then, and meanwhile the
/// kernel goes on with the same routes.
pub const GRACE: Duration = Duration::from_secs(10);

/// So many nodes are named that hold a Sandbox up.
pub const LAGGARDS: usize = 10;

/// A stream of one agent's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    node: String,
    number: u64,
}

/// Whether a Sandbox is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On all nodes that count: so many.
    Everywhere(usize),
    /// Not on these.
    Waiting {
        /// How many nodes count.
        nodes: usize,
        /// On how many of them it is not in force.
        missing: usize,
        /// The first [`LAGGARDS`] of those.
        laggards: Vec<Laggard>,
    },
    /// There are nodes that have not been heard since this ledger began, and it is too early to say why.
    TooEarly,
}

/// A node on which a Sandbox is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// Its name.
    pub node: String,
    /// Why not.
    pub why: Why,
}

/// Why a Sandbox is not in force on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No agent has been heard there for longer than [`GRACE`].
    NoAgent,
    /// Its agent has not told all yet.
    Starting,
    /// Its agent has an earlier version of the Sandbox.
    Behind,
    /// Its agent has made other routes of it: its Services or pods are not told there yet.
    Differs,
}

/// What all nodes have said. Times are those of one clock that never goes back, from any beginning.
#[derive(Debug)]
pub struct Ledger {
    began: Duration,
    /// The nodes that count.
    counted: BTreeSet<String>,
    nodes: BTreeMap<String, Node>,
    streams: u64,
}

#[derive(Debug, Default)]
struct Node {
    /// The stream that is open.
    stream: Option<u64>,
    /// When the last one ended.
    silent: Option<Duration>,
    /// What the open stream has said, until it has told all.
    telling: Option<Report>,
    /// What is in force, as far as all was told.
    told: Option<Report>,
}

impl Ledger {
    /// One that has heard nothing.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { began: now, counted: BTreeSet::new(), nodes: BTreeMap::new(), streams: 0 }
    }

    /// These nodes count, and no others.
    pub fn count(&mut self, nodes: impl IntoIterator<Item = String>) {
        self.counted = nodes.into_iter().collect();
        self.nodes.retain(|name, node| node.stream.is_some() || self.counted.contains(name));
    }

    /// A node's agent begins to tell. An earlier stream of the same node is not heard any more.
    pub fn begin(&mut self, node: &str) -> Stream {
        self.streams += 1;
        let entry = self.nodes.entry(node.to_owned()).or_default();
        entry.stream = Some(self.streams);
        entry.telling = Some(Report::new());
        Stream { node: node.to_owned(), number: self.streams }
    }

    /// Takes a line in. False: a later stream has taken this one's place, which is to be closed.
    pub fn hear(&mut self, stream: &Stream, line: Line) -> bool {
        let Some(node) = self.nodes.get_mut(&stream.node).filter(|node| node.stream == Some(stream.number)) else {
            return false;
        };
        if line == Line::Told {
            if let Some(told) = node.telling.take() {
                node.told = Some(told);
            }
            return true;
        }
        // Until all is told again, what was told before holds.
        let report = node.telling.as_mut().unwrap_or_else(|| node.told.get_or_insert_default());
        match line {
            Line::InForce { uid, what } => drop(report.insert(uid, what)),
            Line::Withdrawn { uid } => drop(report.remove(&uid)),
            Line::Told | Line::Beat => {}
        }
        true
    }

    /// A stream has ended.
    pub fn end(&mut self, stream: &Stream, now: Duration) {
        if let Some(node) = self.nodes.get_mut(&stream.node).filter(|node| node.stream == Some(stream.number)) {
            node.stream = None;
            node.telling = None;
            node.silent = Some(now);
        }
    }

    /// How many of the nodes that count are heard, and how many count.
    #[must_use]
    pub fn heard(&self) -> (usize, usize) {
        let heard = |name: &&String| self.nodes.get(*name).is_some_and(|node| node.stream.is_some());
        (self.counted.iter().filter(heard).count(), self.counted.len())
    }

    /// Whether `want` of the Sandbox with this UID is in force on all nodes that count.
    #[must_use]
    pub fn verdict(&self, uid: &str, want: InForce, now: Duration) -> Verdict {
        let early = now.saturating_sub(self.began) < GRACE;
        let (mut missing, mut laggards) = (0, Vec::new());
        for name in &self.counted {
            let Err(why) = self.nodes.get(name).map_or(Err(Why::NoAgent), |node| node.has(uid, want, now)) else {
                continue;
            };
            if early && matches!(why, Why::NoAgent | Why::Starting) {
                return Verdict::TooEarly;
            }
            missing += 1;
            if laggards.len() < LAGGARDS {
                laggards.push(Laggard { node: name.clone(), why });
            }
        }
        let nodes = self.counted.len();
        if missing == 0 { Verdict::Everywhere(nodes) } else { Verdict::Waiting { nodes, missing, laggards } }
    }
}

impl Node {
    fn has(&self, uid: &str, want: InForce, now: Duration) -> Result<(), Why> {
        let heard = self.stream.is_some() || self.silent.is_some_and(|since| now.saturating_sub(since) < GRACE);
        if !heard {
            return Err(Why::NoAgent);
        }
        match self.told.as_ref().ok_or(Why::Starting)?.get(uid) {
            Some(is) if *is == want => Ok(()),
            Some(is) if is.generation >= want.generation => Err(Why::Differs),
            _ => Err(Why::Behind),
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoAgent => "no agent is heard",
            Self::Starting => "its agent starts",
            Self::Behind => "its agent has an earlier version",
            Self::Differs => "its agent does not know all endpoints yet",
        })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everywhere(nodes) => write!(f, "in force on all {nodes} nodes"),
            Self::TooEarly => f.write_str("the nodes are asked"),
            Self::Waiting { nodes, missing, laggards } => {
                write!(f, "not in force on {missing} of {nodes} nodes: ")?;
                for (number, Laggard { node, why }) in laggards.iter().enumerate() {
                    write!(f, "{}{node} ({why})", if number == 0 { "" } else { ", " })?;
                }
                match missing - laggards.len() {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANT: InForce = InForce { generation: 2, hash: 7 };
    const LATE: Duration = Duration::from_mins(1);

    fn said(uid: &str, what: InForce) -> Line {
        Line::InForce { uid: uid.to_owned(), what }
    }

    fn names(nodes: &[&str]) -> Vec<String> {
        nodes.iter().map(|&node| node.to_owned()).collect()
    }

    fn telling(ledger: &mut Ledger, node: &str, lines: &[Line]) -> Stream {
        let stream = ledger.begin(node);
        for line in lines {
            assert!(ledger.hear(&stream, line.clone()));
        }
        stream
    }

    fn why(verdict: Verdict) -> Vec<(String, Why)> {
        let Verdict::Waiting { laggards, .. } = verdict else { panic!("{verdict}") };
        laggards.into_iter().map(|Laggard { node, why }| (node, why)).collect()
    }

    #[test]
    fn a_sandbox_is_in_force_where_every_node_that_counts_says_the_same_of_it() {
        let mut ledger = Ledger::new(Duration::ZERO);
        ledger.count(names(&["a", "b"]));
        let a = telling(&mut ledger, "a", &[said("u", WANT), Line::Told]);
        assert_eq!(ledger.verdict("u", WANT, Duration::ZERO), Verdict::TooEarly, "b may be about to speak");
        assert_eq!(why(ledger.verdict("u", WANT, LATE)), [("b".to_owned(), Why::NoAgent)]);
        let b = telling(&mut ledger, "b", &[said("u", WANT)]);
        assert_eq!(why(ledger.verdict("u", WANT, LATE)), [("b".to_owned(), Why::Starting)]);
        assert!(ledger.hear(&b, Line::Told));
        assert_eq!(ledger.verdict("u", WANT, Duration::ZERO), Verdict::Everywhere(2));
        assert!(ledger.hear(&a, said("u", InForce { generation: 1, ..WANT })));
        assert!(ledger.hear(&b, said("u", InForce { hash: 8, ..WANT })));
        let both = [("a".to_owned(), Why::Behind), ("b".to_owned(), Why::Differs)];
        assert_eq!(why(ledger.verdict("u", WANT, LATE)), both);
        assert!(ledger.hear(&b, Line::Withdrawn { uid: "u".to_owned() }));
        assert_eq!(why(ledger.verdict("u", WANT, LATE))[1].1, Why::Behind);
        telling(&mut ledger, "elsewhere", &[Line::Told]);
        ledger.count(names(&[]));
        assert_eq!(ledger.verdict("u", WANT, LATE), Verdict::Everywhere(0));
    }

    #[test]
    fn what_a_node_has_said_holds_while_its_agent_is_replaced_and_no_longer() {
        let mut ledger = Ledger::new(Duration::ZERO);
        ledger.count(names(&["a"]));
        let old = telling(&mut ledger, "a", &[said("u", WANT), Line::Told]);
        ledger.end(&old, LATE);
        assert_eq!(ledger.verdict("u", WANT, LATE), Verdict::Everywhere(1));
        assert_eq!(why(ledger.verdict("u", WANT, LATE + GRACE)), [("a".to_owned(), Why::NoAgent)]);
        let new = telling(&mut ledger, "a", &[]);
        assert_eq!(ledger.verdict("u", WANT, LATE + GRACE), Verdict::Everywhere(1), "it has not told all yet");
        ledger.end(&old, LATE);
        assert!(!ledger.hear(&old, Line::Withdrawn { uid: "u".to_owned() }), "another has taken its place");
        assert_eq!(ledger.heard(), (1, 1));
        assert!(ledger.hear(&new, Line::Told));
        assert_eq!(why(ledger.verdict("u", WANT, LATE + GRACE)), [("a".to_owned(), Why::Behind)]);
    }

    #[test]
    fn ten_laggards_are_named_and_the_others_counted() {
        let mut ledger = Ledger::new(Duration::ZERO);
        ledger.count((0..1000).map(|number| format!("node-{number:03}")));
        let said = ledger.verdict("u", WANT, LATE).to_string();
        assert!(
            said.starts_with("not in force on 1000 of 1000 nodes: node-000 (no agent is heard), node-001"),
            "{said}"
        );
        assert!(said.ends_with("node-009 (no agent is heard) and 990 more"), "{said}");
    }
}
