//! `sidetrack list` as a table.

use comfy_table::Cell;
use jiff::Timestamp;
use sidetrack_objects::{Sandbox, sandbox::Fork};

use crate::{
    cli::{
        color::{Tone, cell},
        output,
    },
    sandboxes::{
        condition::{Said, said},
        draft, key, lifetime,
    },
};

/// One line for each Sandbox; with a namespace each where they are of several.
pub(super) fn table(sandboxes: &[Sandbox], everywhere: bool, wide: bool, now: Timestamp) -> String {
    let mut head = vec!["NAME", "KEYS", "FORKS", "READY", "ROUTED", "EXPIRES", ">AGE"];
    if everywhere {
        head.insert(0, "NAMESPACE");
    }
    if wide {
        head.extend(["FORKED FROM", "WHY NOT"]);
    }
    let mut table = output::table(&head);
    for sandbox in sandboxes {
        let text = |text: Option<&String>| Cell::new(output::plain(text.map_or("-", String::as_str)));
        let keys: Vec<_> = key::keys(sandbox).iter().map(|key| output::plain(key)).collect();
        let ready_forks = sandbox.status.as_ref().and_then(|status| status.ready_forks.as_ref());
        let mut row = vec![
            text(sandbox.metadata.name.as_ref()),
            cell(keys.join(","), Tone::Ours),
            text(ready_forks.or(Some(&format!("?/{}", sandbox.spec.forks.len())))),
            condition(sandbox, "Ready"),
            condition(sandbox, "Routed"),
            expires(sandbox, now),
            Cell::new(sandbox.metadata.creation_timestamp.as_ref().map_or("-".into(), |at| since(at.0, now))),
        ];
        if everywhere {
            row.insert(0, text(sandbox.metadata.namespace.as_ref()));
        }
        if wide {
            let forks: Vec<_> = sandbox.spec.forks.iter().map(|fork| output::plain(&origin(fork))).collect();
            row.push(Cell::new(forks.join(",")));
            row.push(Cell::new(why_not(sandbox)));
        }
        table.add_row(row);
    }
    output::text(&table, 0)
}

/// What a fork is made from.
pub(super) fn origin(fork: &Fork) -> String {
    match (&fork.workload, &fork.template) {
        (Some(workload), _) => draft::words(workload),
        (None, Some(_)) => "its own template".into(),
        (None, None) => "pods of others".into(),
    }
}

/// Whether a condition holds: of the Sandbox as it was last changed.
fn condition(sandbox: &Sandbox, name: &str) -> Cell {
    let said = said(sandbox, name);
    match (said, said.status()) {
        (Said::Nothing | Said::Outdated(_), _) => cell("?", Tone::Faint),
        (_, "True") => cell("yes", Tone::Good),
        (_, "False") => cell("no", Tone::Odd),
        (_, other) => cell(output::plain(&other.to_lowercase()), Tone::Faint),
    }
}

/// The first condition that keeps it from being routed.
fn why_not(sandbox: &Sandbox) -> String {
    let bad = [("Expired", "True"), ("Conflict", "True"), ("Forked", "False"), ("Ready", "False"), ("Routed", "False")];
    let found = bad.iter().find_map(|(name, status)| match said(sandbox, name) {
        Said::Current(found) if found.status == *status => Some(output::plain(&found.reason)),
        _ => None,
    });
    found.unwrap_or_else(|| "-".into())
}

/// When its forks are removed.
pub(super) fn expires(sandbox: &Sandbox, now: Timestamp) -> Cell {
    match lifetime::end(sandbox) {
        None => cell("-", Tone::Faint),
        Some(end) if end <= now => cell(format!("{} ago", since(end, now)), Tone::Odd),
        Some(end) => Cell::new(format!("in {}", since(now, end))),
    }
}

/// How much time lies between two moments.
pub(super) fn since(from: Timestamp, to: Timestamp) -> String {
    output::age(to.duration_since(from).as_secs_f64())
}
