//! The commands.

mod apt;
mod binary;
mod build;
mod deny;
mod docs;
mod guest;
mod image;
mod install;
mod kernels;
mod kubernetes;
mod lab;
mod libraries;
mod lint;
mod packages;
mod policy;
mod runner;
mod sbom;
mod setup;
mod shell;
mod suites;
mod tally;
mod test;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, shows, measures and tests Sidetrack.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what this machine lacks; says what it does, asks for root only where apt is needed
    Setup,
    /// Build the kernel programs and the binary `sidetrack` (release)
    Build,
    /// Write the image of that binary as an OCI archive, which `ctr images import` and others load; needs no Docker
    Image(image::Args),
    /// Show what Sidetrack does, in pods made of network namespaces (root)
    #[command(disable_help_flag = true)]
    Demo {
        /// Passed on to the demo, as in `cargo xtask demo -o json` or `cargo xtask demo --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Measure what Sidetrack costs, against the same requests without it (root)
    #[command(disable_help_flag = true)]
    Bench {
        /// Passed on to the bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run the tests, with a table of suites at the end (root)
    Test(test::Args),
    /// Run the tests of the real kernel on other kernels, in QEMU without KVM
    Kernels(kernels::Args),
    /// Check formatting and lints of all crates, the kernel programs too
    Lint(lint::Args),
    /// Write the parts of the documentation that come from the code
    Docs,
    /// Check the dependencies of both lock files: bans, licences, sources
    Deny,
}

/// Does what the command line says.
pub fn run() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Setup => {
            let ready = setup::setup(packages::Scope::All)?;
            setup::kubernetes();
            // Only lints need it: the rest is ready without.
            if let Err(error) = setup::clippy(&ready.rustc) {
                shell::say(format_args!("{error:#}"));
            }
            shell::say(format_args!("ready: {ready}"));
        }
        Command::Build => {
            setup::setup(packages::Scope::Build)?;
            println!("{}", binary::daemon()?.display());
        }
        Command::Image(args) => println!("{}", image::run(&args)?.display()),
        Command::Demo { args } => return lab::become_program("demo", &args),
        Command::Bench { args } => return lab::become_program("bench", &args),
        Command::Test(args) => return test::run(&args),
        Command::Kernels(args) => return kernels::kernels(&args),
        Command::Lint(args) => lint::run(&args)?,
        Command::Docs => docs::run()?,
        Command::Deny => deny::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
