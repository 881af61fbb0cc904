//! `cargo xtask demo`.

use clap::Parser;
use sidetrack_tests::demo::{self, Output, Stage};
use std::process::ExitCode;

/// Shows what Sidetrack does, in pods made of network namespaces (root).
///
/// Every request is timed and checked against who had to answer it; at the end the servers' own access logs are compared with
/// what was asked. Nothing is left behind, also after Ctrl-C. The exit code is not zero if anything went elsewhere, or did not come to its end.
#[derive(Parser)]
#[command(bin_name = "cargo xtask demo", version)]
struct Cli {
    /// A table that grows as it happens, or one JSON object at the end (after Ctrl-C, too), whose fields `docs/demo.md` describes
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn main() -> ExitCode {
    let Cli { output } = Cli::parse();
    if demo::run(Stage::new(output)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
