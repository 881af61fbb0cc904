//! `cargo xtask`: everything about this tree that is more than one cargo command.
#![expect(clippy::print_stdout, reason = "a command line")]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
