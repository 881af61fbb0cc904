//! What all actors of a run write down: exchanges, where keys may lead, and what must not be.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use sidetrack_splice::abi::{addr::Tuple, reason::Reason};

use super::host::Nanos;

/// Virtual time in seconds.
fn seconds(now: Nanos) -> f64 {
    std::time::Duration::from_nanos(now).as_secs_f64()
}

/// Where a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// To the server with this number; zero is the baseline.
    Server(usize),
    /// Nowhere.
    Refused,
}

/// One request, as its client has made it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Its key.
    pub key: Option<usize>,
    /// When its first byte was written.
    pub sent: Nanos,
    /// Length of its body.
    pub body: usize,
    /// Servers that have got its head.
    pub seen_by: Vec<usize>,
    /// It has passed unread: the baseline may have it.
    pub unread: bool,
}

/// How an exchange can end without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// A program has reset the client.
    Reset(&'static str),
    /// The server has reset the connection.
    ByServer,
    /// The server has closed it.
    Closed,
    /// The client has waited long enough.
    TimedOut,
    /// The connection could not be made.
    NoConnection,
}

/// When a key leads somewhere.
#[derive(Clone, Copy, Debug)]
struct Leads {
    to: Side,
    from: Nanos,
    until: Nanos,
}

/// The book of one run.
#[derive(Default)]
pub struct Book {
    /// All requests, by number.
    pub exchanges: HashMap<u64, Exchange>,
    leads: BTreeMap<usize, Vec<Leads>>,
    /// How many requests have passed unread on each connection that is followed.
    unread: BTreeMap<Tuple, usize>,
    /// What must not be: the run has failed.
    pub violations: Vec<String>,
    /// Exchanges that were answered.
    pub answered: u64,
    /// Those that were not.
    pub failed: BTreeMap<Failure, u64>,
    next_id: u64,
    log: Option<String>,
}

impl Book {
    /// With `verbose` everything is written down.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self { log: verbose.then(String::new), next_id: 1, ..Self::default() }
    }

    /// Writes a line down, if anybody wants to read it.
    pub fn note(&mut self, now: Nanos, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{:>12.6} {}", seconds(now), text());
        }
    }

    /// All lines.
    #[must_use]
    pub fn log(&self) -> &str {
        self.log.as_deref().unwrap_or_default()
    }

    /// Something that must not be.
    pub fn violation(&mut self, now: Nanos, text: &str) {
        let text = format!("at {:.6} s: {text}", seconds(now));
        self.note(now, || format!("VIOLATION {text}"));
        self.violations.push(text);
    }

    /// A request begins.
    pub fn begin(&mut self, key: Option<usize>, sent: Nanos, body: usize) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.exchanges.insert(id, Exchange { key, sent, body, seen_by: Vec::new(), unread: false });
        id
    }

    /// An exchange ended without an answer.
    pub fn fail(&mut self, now: Nanos, id: u64, how: Failure) {
        self.note(now, || format!("exchange {id} failed: {how:?}"));
        *self.failed.entry(how).or_default() += 1;
    }

    /// An exchange was answered.
    pub fn finish(&mut self) {
        self.answered += 1;
    }

    /// How many exchanges have ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.answered + self.failed.values().sum::<u64>()
    }

    /// From now on a key may lead there, too.
    pub fn lead(&mut self, key: usize, to: &[Side], now: Nanos) {
        let all = self.leads.entry(key).or_default();
        for to in to {
            if !all.iter().any(|leads| leads.to == *to && leads.until == Nanos::MAX) {
                all.push(Leads { to: *to, from: now, until: Nanos::MAX });
            }
        }
    }

    /// From now on a key leads there and nowhere else.
    pub fn settle(&mut self, key: usize, to: &[Side], now: Nanos) {
        for leads in self.leads.entry(key).or_default() {
            if leads.until == Nanos::MAX && !to.contains(&leads.to) {
                leads.until = now;
            }
        }
    }

    /// Some of a request passes unread. `older`: its connection is followed, and older than its record: so does the request under way when
    /// that was made, and the next one where the agent came too late to see how far the answer to the first had come.
    pub fn passes_unread(&mut self, now: Nanos, conn: &Tuple, id: u64, older: bool) {
        let Some(exchange) = self.exchanges.get_mut(&id).filter(|exchange| !exchange.unread) else { return };
        exchange.unread = true;
        let all = self.unread.entry(*conn).or_default();
        *all += usize::from(older);
        if *all > 2 {
            let text = format!("request {id} is number {all} that passes {conn} unread");
            self.violation(now, &text);
        }
    }

    /// Whether a request may have gone there, at some time since it was sent.
    #[must_use]
    pub fn may(&self, id: u64, server: usize, now: Nanos) -> bool {
        let Some(exchange) = self.exchanges.get(&id) else { return false };
        let (to, sent) = (Side::Server(server), exchange.sent);
        match exchange.key.and_then(|key| self.leads.get(&key)) {
            _ if exchange.unread && server == 0 => true,
            None => server == 0,
            Some(all) => all.iter().any(|leads| leads.to == to && leads.from <= now && leads.until >= sent),
        }
    }

    /// A server has got a whole head.
    pub fn arrived(&mut self, id: u64, server: usize, now: Nanos) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let (key, seen) = (exchange.key, exchange.seen_by.clone());
        exchange.seen_by.push(server);
        if !seen.is_empty() {
            self.violation(now, &format!("request {id} came to server {server}, and before to {seen:?}"));
        }
        if !self.may(id, server, now) {
            let what = if key.is_some() { "keyed" } else { "unkeyed" };
            self.violation(now, &format!("{what} request {id} (key {key:?}) came to server {server}"));
        }
    }

    /// What has failed, in words.
    #[must_use]
    pub fn failures(&self) -> String {
        self.failed.iter().map(|(how, n)| format!("{how:?} {n}")).collect::<Vec<_>>().join(", ")
    }

    /// How many exchanges a program has reset for this reason.
    #[must_use]
    pub fn resets(&self, reason: Reason) -> u64 {
        self.failed.get(&Failure::Reset(reason.name())).copied().unwrap_or_default()
    }
}
