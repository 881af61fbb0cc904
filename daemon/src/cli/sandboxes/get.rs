//! `sidetrack get` for people: one paragraph for each question.

use std::fmt::Write as _;

use comfy_table::Cell;
use jiff::Timestamp;
use kube::ResourceExt as _;
use sidetrack_objects::{
    Sandbox,
    sandbox::{Fork, ForkStatus, OnUnreachable},
};

use super::list::{origin, since};
use crate::{
    cli::{
        color::{Tone, cell, paint},
        output,
    },
    sandboxes::{
        condition::said,
        key, lifetime,
        pods::{self, ForkPod},
    },
};

/// What is known of a Sandbox.
pub(super) struct Known<'a> {
    pub(super) sandbox: &'a Sandbox,
    /// Its pods; or why they are not known.
    pub(super) pods: Result<&'a [ForkPod], String>,
    pub(super) now: Timestamp,
}

/// All of it as text; `wide` has more columns.
pub(super) fn page(known: &Known<'_>, wide: bool) -> String {
    let mut text = String::new();
    head(known, &mut text);
    forks(known.sandbox, wide, &mut text);
    match &known.pods {
        Ok(pods) => pod_table(pods, wide, known.now, &mut text),
        Err(why) => line(&mut text, &format!("\npods are not known: {}", output::plain(why))),
    }
    conditions(known, &mut text);
    text
}

fn line(text: &mut String, line: &str) {
    _ = writeln!(text, "{line}"); // never fails on a string
}

fn head(known: &Known<'_>, text: &mut String) {
    let Known { sandbox, now, .. } = known;
    let namespace = sandbox.namespace().unwrap_or_default();
    let (words, tone) = if sandbox.metadata.deletion_timestamp.is_some() {
        ("being deleted", Tone::Odd)
    } else if said(sandbox, "Expired").holds() {
        ("expired", Tone::Odd)
    } else if said(sandbox, "Routed").holds() {
        ("routed", Tone::Good)
    } else if said(sandbox, "Ready").holds() {
        ("ready, not routed yet", Tone::Odd)
    } else {
        ("not ready", Tone::Odd)
    };
    let state = paint(words, tone);
    line(
        text,
        &format!("sandbox {} in namespace {}: {state}", output::plain(&sandbox.name_any()), output::plain(&namespace)),
    );
    let keys: Vec<_> = key::keys(sandbox).iter().map(|key| paint(&output::plain(key), Tone::Ours)).collect();
    let mut fact = |name: &str, words: &str| line(text, &format!("  {name:<12} {words}"));
    fact("keys", &keys.join(", "));
    fact(
        "expires",
        &match lifetime::end(sandbox) {
            None => "never, as far as is known".into(),
            Some(end) if end <= *now => format!("{} ago, at {end}", since(end, *now)),
            Some(end) => format!("in {}, at {end}", since(*now, end)),
        },
    );
    fact(
        "unreachable",
        match sandbox.spec.on_unreachable {
            OnUnreachable::Fail => "requests whose fork cannot be reached get an error",
            OnUnreachable::Baseline => "the baseline answers requests whose fork cannot be reached",
        },
    );
    let group = sandbox.status.iter().flat_map(|status| &status.group).map(|one| output::plain(one));
    let group = group.collect::<Vec<_>>().join(", ");
    if !group.is_empty() {
        fact("together with", &group);
    }
}

fn forks(sandbox: &Sandbox, wide: bool, text: &mut String) {
    let mut names = vec!["FORK", "OF", "SERVICES", ">ENDPOINTS"];
    if wide {
        names.extend(["BASELINE", "IMAGES"]);
    }
    let mut table = output::table(&names);
    let found = |fork: &Fork| sandbox.status.iter().flat_map(|status| &status.forks).find(|one| one.name == fork.name);
    for fork in &sandbox.spec.forks {
        let status: Option<&ForkStatus> = found(fork);
        let services = status.map(|status| &status.services).filter(|all| !all.is_empty()).or(fork.services.as_ref());
        let services = services.map_or("?".into(), |all| all.join("\n"));
        let ready = status.map_or(0, |status| status.ready_endpoints);
        let mut row = vec![
            Cell::new(output::plain(&fork.name)),
            Cell::new(output::plain(&origin(fork))),
            Cell::new(services.split('\n').map(output::plain).collect::<Vec<_>>().join("\n")),
            cell(ready, if ready > 0 { Tone::Good } else { Tone::Odd }),
        ];
        if wide {
            let revision =
                status.and_then(|status| status.baseline.as_ref()).map_or("-", |baseline| &baseline.revision);
            row.push(Cell::new(output::plain(revision)));
            let images =
                fork.images.iter().flatten().map(|(container, image)| output::plain(&format!("{container}={image}")));
            row.push(Cell::new(images.collect::<Vec<_>>().join("\n")));
        }
        table.add_row(row);
    }
    text.push('\n');
    text.push_str(&output::text(&table, 0));
}

fn pod_table(all: &[ForkPod], wide: bool, now: Timestamp, text: &mut String) {
    text.push('\n');
    if all.is_empty() {
        line(text, "no fork has a pod");
        return;
    }
    let mut names = vec!["POD", "FORK", "STATE", "READY", ">RESTARTS", "NODE", ">AGE"];
    if wide {
        names.extend(["ADDRESS", "IMAGES"]);
    }
    let mut table = output::table(&names);
    for ForkPod { fork, pod } in all {
        let ready = pods::is_ready(pod);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("-");
        let mut row = vec![
            Cell::new(output::plain(&pod.name_any())),
            Cell::new(output::plain(fork)),
            Cell::new(output::plain(&pods::state(pod))),
            if ready { cell("yes", Tone::Good) } else { cell("no", Tone::Odd) },
            Cell::new(pods::restarts(pod)),
            Cell::new(output::plain(node)),
            Cell::new(pod.creation_timestamp().map_or("-".into(), |at| since(at.0, now))),
        ];
        if wide {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or("-");
            row.push(Cell::new(output::plain(address)));
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let images = containers.map(|one| output::plain(one.image.as_deref().unwrap_or("-")));
            row.push(Cell::new(images.collect::<Vec<_>>().join("\n")));
        }
        table.add_row(row);
    }
    text.push_str(&output::text(&table, 0));
    for ForkPod { pod, .. } in all {
        for why in pods::why(pod) {
            line(text, &format!("  {}: {}", output::plain(&pod.name_any()), output::plain(&why)));
        }
    }
}

fn conditions(known: &Known<'_>, text: &mut String) {
    let Known { sandbox, now, .. } = known;
    text.push('\n');
    let Some(status) = sandbox.status.as_ref().filter(|status| !status.conditions.is_empty()) else {
        line(text, &paint("nothing is said of it yet: does Sidetrack's controller run?", Tone::Odd));
        return;
    };
    let mut table = output::table(&["CONDITION", "", "REASON", ">SINCE", "MESSAGE"]);
    for condition in &status.conditions {
        // These say that something is as it should not be.
        let bad =
            matches!(condition.type_.as_str(), "Degraded" | "Hazards" | "BaselineDrifted" | "Conflict" | "Expired");
        let tone = match condition.status.as_str() {
            "True" if bad => Tone::Odd,
            "False" if !bad => Tone::Odd,
            "Unknown" => Tone::Faint,
            _ => Tone::Good,
        };
        let current = condition.observed_generation.or(status.observed_generation) >= sandbox.metadata.generation;
        let message = output::plain(&condition.message);
        table.add_row([
            Cell::new(output::plain(&condition.type_)),
            cell(output::plain(&condition.status), tone),
            Cell::new(output::plain(&condition.reason)),
            Cell::new(since(condition.last_transition_time.0, *now)),
            Cell::new(if current { message } else { format!("(before its last change) {message}") }),
        ]);
    }
    text.push_str(&output::text(&table, 0));
}
