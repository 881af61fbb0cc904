//! The binary: reads the command line, does what it says, and turns errors into exit codes.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use sidetrack::{
    access::Access,
    agent::{self, Controller, Options, RoutesFrom},
    bpf,
    cli::{self, AgentArgs, Command, ControllerArgs, PurgeArgs, SandboxCommand},
    config::{self, Config},
    controller,
    sandboxes::Failure,
    telemetry,
};

fn main() -> ExitCode {
    if let Some(words) = cli::complete() {
        return if show(&words).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let done = match cli::parse().command {
        Command::Sandboxes(command) => sandboxes(&command),
        Command::Agent(args) => agent(&args),
        Command::Controller(args) => controller(args),
        Command::Purge(args) => purge(&args),
        Command::Routes(args) => cli::routes(&args).map_err(Into::into).and_then(|text| show(&text)),
        Command::Flows(args) => cli::flows(&args).map_err(Into::into).and_then(|text| show(&text)),
        Command::Status(args) => cli::status(&args).map_err(Into::into).and_then(|text| show(&text)),
        Command::ExplainCounter(args) => cli::explain(&args).map_err(Into::into).and_then(|text| show(&text)),
        Command::Completion(args) => show(&cli::completion(&args)),
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

/// A command that asks a cluster. A reader that has seen enough is no error here, too.
fn sandboxes(command: &SandboxCommand) -> anyhow::Result<()> {
    match cli::sandboxes::run(command, &mut io::stdout().lock()) {
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(Into::into),
    }
}

fn agent(args: &AgentArgs) -> anyhow::Result<()> {
    telemetry::init(args.log.log_format, &args.log.log_level)?;
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), config::load)?;
    agent::run(Options {
        routes: match &args.routes {
            Some(file) => RoutesFrom::File(file.clone()),
            None => RoutesFrom::Cluster {
                access: Access { kubeconfig: args.kubeconfig.clone(), context: args.context.clone() },
                controller: args
                    .controller_namespace
                    .clone()
                    .map(|namespace| Controller { namespace, token: args.controller_token.clone() }),
            },
        },
        listen: args.listen,
        netns_dirs: args.netns.netns_dirs.clone(),
        pin_dir: args.pins.pin_dir.clone(),
        config,
    })
}

fn controller(args: ControllerArgs) -> anyhow::Result<()> {
    telemetry::init(args.log.log_format, &args.log.log_level)?;
    let host = || hostname::get().map(|name| name.to_string_lossy().into_owned());
    controller::run(controller::Options {
        access: Access { kubeconfig: args.kubeconfig, context: args.context },
        listen: args.listen,
        namespace: args.namespace,
        identity: args.identity.map_or_else(host, Ok).context("cannot read the host's name: say --identity")?,
        reports: args.reports.map(|reports| (reports, args.address)),
        agents: args.agents,
    })
}

fn purge(args: &PurgeArgs) -> anyhow::Result<()> {
    let dir = args.pins.pin_dir.display();
    let locks = bpf::Lock::all(&args.pins.pin_dir).with_context(|| format!("cannot lock {dir}"))?;
    let Some(locks) = locks else {
        anyhow::bail!("an agent works with {dir}: stop it first, or it would go on without its maps")
    };
    let purged = bpf::purge(&args.pins.pin_dir, &args.netns.netns_dirs)
        .with_context(|| format!("cannot remove what is pinned below {dir}"))?;
    drop(locks);
    show(&format!(
        "purged {dir}: {} links, {} maps and programs; {} namespaces cleared of filters\n",
        purged.links, purged.pins, purged.namespaces
    ))
}
