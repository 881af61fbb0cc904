//! `sidetrack flows` as a table.

use comfy_table::Cell;

use super::{
    color::{Tone, cell},
    output,
};
use crate::state::flows::{Flow, Flows};

pub(super) fn table(flows: &Flows) -> String {
    if flows.items.is_empty() {
        return "no connection is followed: none is open to a routed service\n".into();
    }
    let mut table =
        output::table(&["CLIENT", "SERVICE", "SERVED BY", "KEY", "PHASE", ">LEGS", ">REQUESTS", ">AGE", ">IDLE"]);
    for flow in &flows.items {
        table.add_row([
            Cell::new(client(flow)),
            Cell::new(format!("{} ({})", flow.service, flow.service_address)),
            owner(flow),
            flow.key.as_ref().map_or_else(|| cell("-", Tone::Faint), |key| cell(key, Tone::Ours)),
            phase(flow),
            Cell::new(flow.legs),
            Cell::new(requests(flow)),
            Cell::new(output::age(flow.age_seconds)),
            Cell::new(output::age(flow.idle_seconds)),
        ]);
    }
    let forked = flows.items.iter().filter(|flow| flow.owner != "baseline").count();
    let counts = format!(
        "\n{}, {forked} away from the baseline\n",
        output::many(flows.items.len(), "connection", "connections"),
    );
    output::text(&table, 0) + &counts
}

fn client(flow: &Flow) -> String {
    match &flow.client_pod {
        Some(pod) => format!("{pod} ({})", flow.client),
        None => flow.client.to_string(),
    }
}

fn owner(flow: &Flow) -> Cell {
    match flow.owner {
        "baseline" => Cell::new("baseline"),
        owner => cell(format!("{owner} {}", flow.owner_address), Tone::Ours),
    }
}

fn phase(flow: &Flow) -> Cell {
    match flow.phase {
        "watch" => Cell::new("watch"),
        phase @ ("hold" | "switch") => cell(phase, Tone::Odd),
        phase @ "reset" => cell(phase, Tone::Bad),
        phase => cell(phase, Tone::Faint),
    }
}

/// Requests that were passed on; with an exchange in progress, how many were answered of them.
fn requests(flow: &Flow) -> String {
    if flow.answered == flow.asked { flow.asked.to_string() } else { format!("{}/{}", flow.answered, flow.asked) }
}
