//! The binary: reads the command line, does what it says, and turns errors into exit codes.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use sidetrack::{
    cli::{self, AgentArgs, Cli, Command, PurgeArgs},
    config::{self, Config},
    telemetry,
};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Agent(args) => agent(&args),
        Command::Purge(args) => purge(&args),
        Command::Routes(args) => cli::routes(&args).map_err(Into::into).and_then(|text| show(&text)),
        Command::Flows(args) => cli::flows(&args).map_err(Into::into).and_then(|text| show(&text)),
        Command::Status(args) => cli::status(&args).map_err(Into::into).and_then(|text| show(&text)),
        Command::ExplainCounter(args) => {
            cli::explain(args.name.as_deref()).map_err(Into::into).and_then(|text| show(&text))
        }
    };
    match done {
        Ok(()) => ExitCode::from(cli::EXIT_OK),
        Err(error) => {
            // Nothing is left to do if standard error is closed.
            _ = writeln!(io::stderr(), "sidetrack: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}

/// Prints an answer. A reader that has seen enough (`| head`) is no error.
fn show(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write the answer"),
        _ => Ok(()),
    }
}

fn agent(args: &AgentArgs) -> anyhow::Result<()> {
    telemetry::init(args.log_format, &args.log_level)?;
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), config::load)?;
    tracing::debug!(?config, routes = %args.routes.display(), netns = ?args.netns.netns_dirs, "configured");
    anyhow::bail!("this binary was built without the agent: build it from a tree that has it")
}

fn purge(args: &PurgeArgs) -> anyhow::Result<()> {
    anyhow::bail!("this binary was built without the agent: remove {} by hand", args.pins.pin_dir.display())
}
