//! The count at the end: what the servers' own logs say, and what Sidetrack says.

use super::{
    paint::{self, Tone},
    report::Ledger,
    shop::Shop,
    stage::Stage,
};
use crate::Agent;
use anyhow::{Context, Result};
use std::{collections::BTreeMap, time::Duration};

/// Compares the servers' access logs with what each of them had to get, and reads Sidetrack's own numbers.
pub fn close(stage: &mut Stage, shop: &Shop, agent: &Agent) -> Result<()> {
    let due: BTreeMap<String, BTreeMap<String, u64>> =
        stage.report().due().into_iter().map(|(name, due)| (name.to_owned(), due)).collect();
    let read = || -> Result<Vec<Ledger>> {
        let one = |server: &super::server::Server| {
            let (served, expected) = (server.ledger()?, due.get(server.name()).cloned().unwrap_or_default());
            let ok = served == expected;
            Ok(Ledger { name: server.name().to_owned(), served, expected, ok })
        };
        shop.servers.iter().map(one).collect()
    };
    // nginx writes its line after the answer's last byte.
    let agree = || read().ok().filter(|ledgers| ledgers.iter().all(|ledger| ledger.ok)).map(drop);
    drop(crate::wait_for("the access logs to be complete", Duration::from_secs(2), agree));
    let ledgers = read()?;
    stage.scene(
        "access-logs",
        "Who got what",
        "each server's access log has its own requests, and no other",
        |stage| {
            for ledger in &ledgers {
                stage.check(&ledger.name, &words(&ledger.served), ledger.ok);
                if !ledger.ok {
                    let wanted = format!("      expected {}", words(&ledger.expected));
                    stage.line(&stage.paint().text(&wanted, Tone::Bad));
                }
            }
            Ok(())
        },
    )?;
    stage.report().servers = ledgers;
    numbers(stage, agent)
}

/// `sidetrack flows`, and the counters.
fn numbers(stage: &mut Stage, agent: &Agent) -> Result<()> {
    let status = agent.status()?;
    let items = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let flows = agent.flows()?;
    stage.report().flows = items(&flows["items"]);
    stage.report().counters = items(&status["counters"]);
    stage.report().version = status["version"].as_str().map(str::to_owned);
    let paint = stage.paint();
    stage.line(&format!("\n    {}", paint.text("sidetrack flows: the connections that are still open", Tone::Strong)));
    for line in agent.command(&["flows"])?.lines() {
        stage.line(&format!("    {line}"));
    }
    stage.line(&format!("\n    {}", paint.text("sidetrack status: what was counted, packet by packet", Tone::Strong)));
    for counter in items(&status["counters"]) {
        let name = counter["name"].as_str().context("a counter has a name")?;
        let count = paint::grouped(counter["count"].as_u64().unwrap_or_default());
        let meaning = counter["meaning"].as_str().unwrap_or_default();
        let tone = if name.starts_with("err_") { Tone::Bad } else { Tone::Plain };
        let line = format!("    {} {count:>9}  ", paint::pad(name, 18));
        stage.line(&(paint.text(&line, tone) + &paint.text(meaning, Tone::Faint)));
    }
    Ok(())
}

fn words(served: &BTreeMap<String, u64>) -> String {
    if served.is_empty() {
        return "nothing".into();
    }
    let one = |(key, count): (&String, &u64)| {
        let key = if key.is_empty() { "without a key" } else { key };
        format!("{} {key}", paint::grouped(*count))
    };
    served.iter().map(one).collect::<Vec<_>>().join(", ")
}
