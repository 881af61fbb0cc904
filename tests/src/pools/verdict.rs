//! Whether what clients have said, and what servers have seen, is what may be.

use super::{
    plan::{CLIENT, KIND, SENT},
    pool::Pool,
    said::{Exchange, Said},
    stage::{Stage, TURNS},
    timeline::{Timeline, micros},
};
use std::{collections::BTreeMap, fmt::Write as _};

/// So many requests of each kind each client has answered at least: it was at work.
const AT_LEAST: u64 = 10;
/// So many of a sort are shown.
const SHOWN: usize = 5;

/// What is wrong about what one client said, one line for each; nothing when all is well.
#[must_use]
pub fn of_client(pool: Pool, said: &Said, timeline: &Timeline) -> Vec<String> {
    let name = pool.name();
    let mut wrong = Vec::new();
    if !said.ended {
        wrong.push(format!("{name} did not come to its end: {:#?}", said.other));
    }
    let show = |what: &str, exchange: &Exchange| {
        let meanwhile = timeline.during(exchange.sent, exchange.ended).join(", ");
        format!("{name}: {what}: {exchange:?}; meanwhile: {meanwhile}")
    };
    wrong.extend(said.wrong.iter().take(SHOWN).map(|exchange| show("wrong answer", exchange)));
    let unexpected = said.failed.iter().filter(|exchange| !may_fail(exchange, timeline));
    wrong.extend(unexpected.take(SHOWN).map(|exchange| show("may not fail", exchange)));
    for kind in Stage::KINDS {
        let served = said.served(kind);
        if served < AT_LEAST {
            wrong.push(format!("{name}: only {served} requests of kind {kind} were answered"));
        }
    }
    wrong
}

/// A request may fail while its fork refuses connections.
fn may_fail(exchange: &Exchange, timeline: &Timeline) -> bool {
    exchange.kind == TURNS && timeline.might_be_refused(exchange.sent, exchange.ended)
}

/// What reached a server that was not right for it.
#[must_use]
pub fn of_servers(stage: &Stage, timeline: &Timeline) -> Vec<String> {
    let mut wrong = Vec::new();
    for server in stage.servers() {
        for seen in server.requests() {
            // A proxy that is asked whether it answers.
            let Some(kind) = seen.header(KIND) else { continue };
            let sent = seen.header(SENT).and_then(|sent| sent.parse().ok()).unwrap_or(0);
            let at = micros(seen.at);
            if !timeline.might_serve(kind, server.name(), sent, at) && wrong.len() < SHOWN {
                let client = seen.header(CLIENT).unwrap_or_default();
                wrong.push(format!("{} got {kind} of {client}, sent {sent}, seen {at}: {seen:?}", server.name()));
            }
        }
    }
    wrong
}

/// Failures of a client for which no counter went up: each is a reset of ours, and a proxy may have met more than it passed on.
#[must_use]
pub fn of_counters(said: &[(Pool, Said)], counters: &BTreeMap<String, u64>) -> Vec<String> {
    let failed: u64 = said.iter().map(|(_, said)| said.failed.len() as u64).sum();
    let unreachable = counters.get("reset_unreachable").copied().unwrap_or(0);
    let mut wrong = Vec::new();
    if failed > unreachable {
        wrong.push(format!("{failed} requests failed, reset_unreachable is {unreachable}"));
    }
    // The only reason that this stage gives.
    let others = counters.iter().filter(|(name, _)| {
        let reset = name.starts_with("reset_") && !["reset_unreachable", "reset_again"].contains(&name.as_str());
        reset || name.starts_with("err_") || name.starts_with("opaque_") || name.starts_with("refused_")
    });
    wrong.extend(others.filter(|(_, count)| **count > 0).map(|(name, count)| format!("{name} is {count}")));
    wrong
}

/// One line for a client: what was answered and what failed, by kind.
#[must_use]
pub fn summary(pool: Pool, said: &Said) -> String {
    let mut line = format!("{:8}", pool.name());
    for kind in Stage::KINDS {
        let failed = said.failed.iter().filter(|exchange| exchange.kind == kind).count();
        // A String takes all that is written to it.
        let _ = write!(line, "  {kind} {} ok, {failed} failed", said.served(kind));
    }
    line
}
