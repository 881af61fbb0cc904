//! `sidetrack status` as text: one paragraph for each question.

use std::fmt::Write;

use comfy_table::Cell;
use sidetrack_splice::abi::reason::Reason;

use super::{
    color::{Tone, cell, paint},
    counter, output,
};
use crate::state::{
    neighbours::Neighbour,
    status::{Counter, PodItem, Status},
};

pub(super) fn table(status: &Status) -> String {
    let mut text = String::new();
    head(status, &mut text);
    programs(status, &mut text);
    pods(status, &mut text);
    maps(status, &mut text);
    counters(status, &mut text);
    text
}

fn head(status: &Status, text: &mut String) {
    let agent = &status.agent;
    let said = match (agent.alive, agent.pid, agent.heartbeat_age_seconds) {
        (true, Some(pid), _) => paint(&format!("alive (pid {pid})"), Tone::Good),
        (_, Some(pid), Some(age)) => {
            let words = format!("dead for {} (pid {pid} then)", output::age(age));
            paint(&words, Tone::Bad) + "; spliced connections run on, new forks are not dialled"
        }
        _ => paint("never started", Tone::Bad),
    };
    let draining = if agent.draining { paint("; draining, a successor takes over", Tone::Odd) } else { String::new() };
    let pins = output::plain(&status.pin_dir.display().to_string());
    line(text, &format!("sidetrack {} (ABI {}), pins in {pins}", status.version, status.abi));
    if !status.other_abis.is_empty() {
        let others = status.other_abis.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        line(
            text,
            &paint(&format!("there are also records of ABI {others}, which this binary does not read"), Tone::Odd),
        );
    }
    line(text, &format!("agent: {said}{draining}"));
}

fn programs(status: &Status, text: &mut String) {
    if status.programs.is_empty() {
        line(text, &paint("programs: none is pinned, nothing is steered", Tone::Bad));
        return;
    }
    let mut table = output::table(&["PROGRAM", "NAME", ">ID", "TAG", "LOADED", ">RUNS", ">NS/RUN"]);
    for program in &status.programs {
        let per_run = program.run_time_ns.checked_div(program.run_count);
        let runs = |n: Option<u64>| Cell::new(n.map_or_else(|| "-".into(), output::grouped));
        table.add_row([
            Cell::new(program.hook),
            Cell::new(output::plain(&program.name)),
            Cell::new(program.id),
            Cell::new(&program.tag),
            Cell::new(program.loaded_at.map_or_else(|| "-".into(), |at| at.to_string())),
            runs((program.run_count > 0).then_some(program.run_count)),
            runs(per_run),
        ]);
    }
    text.push('\n');
    text.push_str(&output::text(&table, 0));
}

fn pods(status: &Status, text: &mut String) {
    text.push('\n');
    if status.items.is_empty() {
        line(text, "no pod is known: no namespace has appeared in the agent's directories");
        return;
    }
    let mut table = output::table(&["POD", "", "MODE", "INTERFACE", "ADDRESSES", ">SINCE"]);
    for pod in &status.items {
        let outcome = pod.outcome.replace('_', " ");
        let tone = if pod.outcome == "attached" { Tone::Good } else { Tone::Odd };
        table.add_row([
            Cell::new(name(pod)),
            cell(outcome, tone),
            Cell::new(pod.mode.unwrap_or("-")),
            Cell::new(interface(pod)),
            Cell::new(pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
            Cell::new(pod.since_seconds.map_or_else(|| "-".into(), output::age)),
        ]);
    }
    text.push_str(&output::text(&table, 0));
    for pod in &status.items {
        if let Some(detail) = &pod.detail {
            line(text, &format!("  {}: {}", name(pod), output::plain(detail)));
        }
        neighbours(pod, text);
    }
}

fn name(pod: &PodItem) -> String {
    match (&pod.name, pod.netns) {
        (Some(name), _) => output::plain(name),
        (None, Some(netns)) => format!("net:[{netns}]"),
        (None, None) => "?".into(),
    }
}

fn interface(pod: &PodItem) -> String {
    match (&pod.interface, pod.ifindex) {
        (Some(name), Some(index)) => format!("{} ({index})", output::plain(name)),
        (None, Some(index)) => format!("({index})"),
        _ => "-".into(),
    }
}

/// The order on a pod's hooks, where others sit there too, or ours do not.
fn neighbours(pod: &PodItem, text: &mut String) {
    if let Some(why) = &pod.hooks_unknown {
        let why = output::plain(why);
        line(
            text,
            &paint(&format!("  {}: other programs on its interface cannot be seen: {why}", name(pod)), Tone::Faint),
        );
    }
    let Some(hooks) = &pod.hooks else { return };
    for (hook, found) in [("egress", &hooks.egress), ("ingress", &hooks.ingress)] {
        let chain = found.iter().map(neighbour).collect::<Vec<_>>().join(" -> ");
        let ours = found.iter().filter(|one| one.ours).count();
        if ours == 0 && pod.outcome == "attached" {
            let others = if found.is_empty() { String::new() } else { format!(", there are {chain}") };
            let words = format!("  {}: {hook} has no program of ours{others}; restart the agent", name(pod));
            line(text, &paint(&words, Tone::Bad));
        } else if found.len() > ours {
            line(text, &format!("  {}: {hook} order is {chain}", name(pod)));
        }
    }
}

fn neighbour(one: &Neighbour) -> String {
    if one.ours {
        return paint("sidetrack", Tone::Ours);
    }
    let id = one.id.map(|id| format!(" id {id}")).unwrap_or_default();
    format!("{} ({}{id})", output::plain(&one.name), one.by)
}

fn maps(status: &Status, text: &mut String) {
    let used: Vec<_> = status
        .maps
        .iter()
        .map(|map| {
            let words =
                format!("{} {} of {}", map.name, output::grouped(map.entries as u64), output::grouped(map.room.into()));
            if map.entries * 10 >= map.room as usize * 9 { paint(&words, Tone::Bad) } else { words }
        })
        .collect();
    text.push('\n');
    line(text, &format!("records: {}", used.join(", ")));
}

/// Resets and opaque connections first, by reason; then all else.
fn counters(status: &Status, text: &mut String) {
    if status.counters.is_empty() {
        text.push('\n');
        line(text, "nothing was counted yet");
        return;
    }
    let told = |counter: &&Counter| [&status.resets, &status.opaque].iter().any(|list| list.contains(counter));
    let other = status.counters.iter().filter(|counter| !told(counter));
    section("RESETS", &status.resets, text);
    section("OPAQUE", &status.opaque, text);
    section("COUNTER", other, text);
}

/// A table of counters that are not zero, if there are any.
fn section<'a>(title: &str, counters: impl IntoIterator<Item = &'a Counter>, text: &mut String) {
    let mut table = output::table(&[title, ">COUNT", "MEANING"]);
    for counter in counters.into_iter().filter(|counter| counter.count > 0) {
        let reason = Reason::ALL.iter().find(|reason| reason.name() == counter.name);
        let tone = reason.map_or(Tone::Good, |reason| counter::tone(reason.effect()));
        let name = if tone == Tone::Good { Cell::new(&counter.name) } else { cell(&counter.name, tone) };
        table.add_row([name, Cell::new(output::grouped(counter.count)), Cell::new(counter.meaning)]);
    }
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&output::text(&table, 0));
    }
}

fn line(text: &mut String, line: &str) {
    _ = writeln!(text, "{line}"); // never fails on a string
}
