//! `cargo xtask demo`.

use clap::Parser;
use sidetrack_tests::demo::{self, Output, Stage};
use std::{io::Write, process::ExitCode};

/// Shows what Sidetrack does, in pods made of network namespaces (root).
///
/// Every request is timed and checked against who had to answer it; at the end the servers' own access logs are compared with
/// what was asked. Nothing is left behind, also after Ctrl-C. The exit code is not zero if anything went elsewhere.
#[derive(Parser)]
#[command(bin_name = "cargo xtask demo", version)]
struct Cli {
    /// A table that grows as it happens, or one JSON object at the end, whose fields `docs/demo.md` describes
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn main() -> ExitCode {
    let Cli { output } = Cli::parse();
    let report = demo::run(Stage::new(output));
    if output == Output::Json {
        let text = serde_json::to_string_pretty(&report).expect("a report is texts, numbers and lists");
        if let Err(error) = writeln!(std::io::stdout(), "{text}") {
            eprintln!("cannot write the report to standard output: {error}");
            return ExitCode::FAILURE;
        }
    }
    if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
