//! The demo: what Sidetrack does, shown on a shop of two services in pods made of network namespaces.
//!
//! A client calls `shop/orders`, which calls `shop/payments`; each is real nginx behind a Service's virtual address. Two
//! sandboxes have forked one of them each. Every request is timed and checked, and at the end the servers' own access
//! logs must agree with what was asked, to the request.
//!
//! * `shop`, `server`: the cast.
//! * `scenes`: what is played; `visitor`, `steady`: the client's side of it; `ledger`: the count at the end.
//! * `interrupt`: Ctrl-C.
//! * [`report`]: what was found; `stage`, `paint`: how it is shown.

mod interrupt;
mod ledger;
mod paint;
pub mod report;
mod scenes;
mod server;
mod shop;
mod stage;
mod steady;
mod visitor;

pub use report::Report;
pub use stage::{Output, Stage};

use crate::{Agent, agent, lab};
use anyhow::{Result, ensure};
use paint::Tone;

/// Plays the demo, tells what was found, and says whether all went where it belongs. A report comes whatever happens, an
/// interrupt included, which also ends the process.
#[must_use]
pub fn run(mut stage: Stage) -> bool {
    if let Err(error) = interrupt::at_signal(stage.at_interrupt()) {
        stage.progress(&format!("an interrupt will end this without a report: {error:#}"));
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    kernel.trim().clone_into(&mut stage.report().kernel);
    let played = play(&mut stage);
    stage.close(played)
}

fn play(stage: &mut Stage) -> Result<()> {
    lab::require_root()?;
    let binary = agent::binary();
    ensure!(binary.is_file(), "there is no {}: run `cargo xtask demo`, which builds it", binary.display());
    // First, so that it goes last: with it go its processes, namespaces, mounts and pins.
    let lab = shop::lab()?;
    let shop = shop::Shop::open(&lab, stage)?;
    drawing(stage);
    stage.heads();
    scenes::before(&shop, stage)?;
    stage.progress("starting the agent");
    let agent = Agent::start(&lab, &shop.routes())?;
    agent.wait_attached(shop.pods())?;
    stage.progress("the agent is attached to all pods");
    scenes::play(&lab, shop, agent, stage)
}

/// The call path, and which sandbox has forked what.
fn drawing(stage: &Stage) {
    let paint = stage.paint();
    let (base, fork) = (|text: &str| paint.text(text, Tone::Faint), |text: &str| paint.text(text, Tone::Ours));
    for line in [
        String::new(),
        "    client ──▶ shop/orders ─────────────────▶ shop/payments".into(),
        format!("               {}                  {}", base("10.96.0.10:80"), base("10.96.0.20:80")),
        format!("               ├─ orders         {}      ├─ payments       {}", base("baseline"), base("baseline")),
        format!(
            "               └─ {}    {}      └─ {}  {}",
            fork("orders-pr-1"),
            fork("key pr-1"),
            fork("payments-pr-2"),
            fork("key pr-2")
        ),
    ] {
        stage.line(&line);
    }
}
