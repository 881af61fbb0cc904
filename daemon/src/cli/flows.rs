//! `sidetrack flows` as a table, with or without its legs.

use std::net::SocketAddr;

use comfy_table::{Cell, Table};

use super::{
    color::{Tone, cell},
    output,
};
use crate::state::flows::{Flow, Flows, LegItem};

/// One line for each connection.
pub(super) fn table(flows: &Flows) -> String {
    lines(flows, |_, _| {})
}

/// The same, with a line for each leg below its connection.
pub(super) fn wide(flows: &Flows) -> String {
    lines(flows, |table, flow| {
        for leg in &flow.leg_items {
            table.add_row(leg_row(flow, leg));
        }
    })
}

fn lines(flows: &Flows, below: impl Fn(&mut Table, &Flow)) -> String {
    if flows.items.is_empty() {
        return "no connection is followed: none is open to a routed service\n".into();
    }
    let mut table =
        output::table(&["CLIENT", "SERVICE", "SERVED BY", "KEY", "PHASE", ">LEGS", ">REQUESTS", ">AGE", ">IDLE"]);
    for flow in &flows.items {
        table.add_row([
            Cell::new(client(flow)),
            Cell::new(format!("{} ({})", output::plain(&flow.service), flow.service_address)),
            backend(flow.owner, flow.owner_address),
            key(flow.key.as_deref()),
            phase(flow),
            Cell::new(flow.legs),
            Cell::new(requests(flow)),
            Cell::new(age(flow.age_seconds)),
            Cell::new(output::age(flow.idle_seconds)),
        ]);
        below(&mut table, flow);
    }
    let forked = flows.items.iter().filter(|flow| flow.owner != "baseline").count();
    let counts = format!(
        "\n{}, {forked} away from the baseline\n",
        output::many(flows.items.len(), "connection", "connections"),
    );
    output::text(&table, 0) + &counts
}

/// A leg in the columns of its connection: its own port, its backend, its state in place of the phase.
fn leg_row(flow: &Flow, leg: &LegItem) -> [Cell; 9] {
    let tone = match leg.state {
        "owner" => Tone::Good,
        "dead" => Tone::Odd,
        _ => Tone::Faint,
    };
    [
        cell(format!("  leg {}", leg.local), Tone::Faint),
        cell(output::plain(&flow.service), Tone::Faint),
        backend(leg.kind, leg.backend),
        key(leg.key.as_deref()),
        cell(leg.state, tone),
        Cell::new(""),
        leg.exchanges.map_or_else(|| cell("-", Tone::Faint), Cell::new),
        Cell::new(age(leg.age_seconds)),
        Cell::new(output::age(leg.idle_seconds)),
    ]
}

fn client(flow: &Flow) -> String {
    match &flow.client_pod {
        Some(pod) => format!("{} ({})", output::plain(pod), flow.client),
        None => flow.client.to_string(),
    }
}

/// A baseline is the service's own address, which stands beside it.
fn backend(kind: &str, address: SocketAddr) -> Cell {
    match kind {
        "baseline" => Cell::new("baseline"),
        kind => cell(format!("{kind} {address}"), Tone::Ours),
    }
}

fn key(key: Option<&str>) -> Cell {
    key.map_or_else(|| cell("-", Tone::Faint), |key| cell(output::plain(key), Tone::Ours))
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

/// Of what is older than its record nobody knows.
fn age(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "older".to_owned(), output::age)
}
