//! `sidetrack routes` as a table.

use comfy_table::Cell;

use super::{
    color::{Tone, cell},
    output,
};
use crate::state::routes::{RouteItem, Routes};

pub(super) fn table(routes: &Routes) -> String {
    if routes.services.is_empty() {
        return "no service is routed: the route table is empty, or was never read\n".into();
    }
    let mut table = output::table(&["SERVICE", "ADDRESSES", "KEY", "", "GOES TO"]);
    let mut items = routes.items.iter().peekable();
    for service in &routes.services {
        let addresses = service.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let head = || (Cell::new(output::plain(&service.name)), Cell::new(&addresses));
        let mut first = Some(head());
        // Both lists are sorted by the service's name.
        while let Some(route) = items.next_if(|route| route.service == service.name) {
            let (name, addresses) = first.take().unwrap_or((Cell::new(""), Cell::new("")));
            let (arrow, to) = target(route);
            table.add_row([name, addresses, cell(output::plain(&route.key), Tone::Ours), arrow, to]);
        }
        if let Some((name, addresses)) = first {
            table.add_row([name, addresses, cell("-", Tone::Faint), Cell::new(""), cell("baseline only", Tone::Faint)]);
        }
    }
    let counts = format!(
        "\n{} at {}; every other key, and no key, goes to the baseline\n",
        output::many(routes.items.len(), "route", "routes"),
        output::many(routes.services.len(), "service", "services"),
    );
    output::text(&table, 0) + &counts
}

fn target(route: &RouteItem) -> (Cell, Cell) {
    if route.kind == "fail" {
        let reason = output::plain(route.reason.as_deref().unwrap_or("no reason is recorded"));
        return (cell("x", Tone::Odd), cell(format!("refused: {reason}"), Tone::Odd));
    }
    let mut lines: Vec<_> = route.endpoints.iter().map(ToString::to_string).collect();
    match route.endpoints_more {
        0 => {}
        more if lines.is_empty() => lines.push(output::many(more as usize, "endpoint", "endpoints")),
        more => lines.push(format!("and {more} more")),
    }
    if lines.is_empty() {
        lines.push("endpoints are not recorded".into());
    }
    if route.on_unreachable == "baseline" {
        lines.push("or the baseline, if unreachable".into());
    }
    (cell("->", Tone::Good), Cell::new(lines.join("\n")))
}
