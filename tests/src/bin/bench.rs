//! What Sidetrack costs, as ratios against the same request with no program attached, all within one run.
#![expect(clippy::print_stdout, reason = "a command line")]
#![expect(clippy::cast_precision_loss, reason = "what is measured stays far below 2^52")]

#[path = "../bench"]
mod bench {
    pub mod bound;
    pub mod cast;
    pub mod client;
    pub mod crowd;
    pub mod load;
    pub mod machine;
    pub mod measure;
    pub mod programs;
    pub mod report;
    pub mod rounds;
    pub mod statistics;
    pub mod text;
}

use anyhow::{Context, Result};
use bench::{
    cast::Cast,
    machine,
    measure::{Measure, Pace},
    programs,
    report::Report,
    rounds, text,
};
use clap::{Parser, ValueEnum};
use sidetrack_tests::{
    Lab,
    gate::{self, Need},
    lab::RENO,
};
use std::process::ExitCode;

/// Measures what Sidetrack costs: ratios against the same request with no program attached, and nanoseconds per packet.
///
/// Ends with 1 when a bound is missed by more than two identical set-ups differ, or when these differ by so much that nothing
/// can be said (never with --quick). Progress goes to standard error.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Rounds; each measures every condition in ten slices, which take turns
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(7..=1000))]
    rounds: u32,
    /// Two short rounds that show that everything runs; nothing is judged
    #[arg(long)]
    quick: bool,
    /// Measure these loads only, and no single packets; all of them unless told
    #[arg(long, value_enum, value_delimiter = ',')]
    load: Vec<Measure>,
    /// Measure single packets only, and no loads
    #[arg(long, conflicts_with = "load")]
    packets: bool,
    /// A table for people, or one JSON object
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if !gate::open(&[Need::Lab, Need::Nginx, Need::Agent]) {
        anyhow::bail!("the bench cannot run on this machine: the line above says what is missing");
    }
    let (pace, rounds) = if arguments.quick { (Pace::QUICK, 2) } else { (Pace::FULL, arguments.rounds) };
    let chosen = arguments.packets || !arguments.load.is_empty();
    let loads = if chosen { arguments.load.as_slice() } else { &Measure::ALL };
    let report = measure(pace, rounds, loads, arguments.load.is_empty())?;
    match arguments.output {
        Output::Table => print!("{}", text::table(&report)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.fails() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measure(pace: Pace, rounds: u32, loads: &[Measure], packets: bool) -> Result<Report> {
    let machine = machine::Machine::look(RENO)?;
    if machine.load > 0.5 {
        eprintln!(
            "bench: load average is {:.1} before the start: other processes disturb what is measured",
            machine.load
        );
    }
    let lab = Lab::with_congestion("bench", RENO)?;
    let cast = Cast::new(&lab)?;
    let agent = cast.agent(&lab)?;
    let taken = rounds::run(&cast, loads, pace, rounds).with_context(|| agent.explain())?;
    let programs =
        if packets { programs::run(&cast, &agent, pace).with_context(|| agent.explain())? } else { Vec::new() };
    agent.no_errors().context("the figures would be those of something broken")?;
    Ok(Report::new(machine, pace, rounds, &taken, programs))
}
