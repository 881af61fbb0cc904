//! `cargo xtask lint`: formatting and lints of all crates.

use std::env;

use anyhow::Result;
use xtask::{ebpf::Toolchain, root, target_dir};

use super::{packages::Scope, setup, shell};

/// What to check.
#[derive(clap::Args)]
pub struct Args {
    /// Check these only
    #[arg(value_enum)]
    parts: Vec<Part>,
}

/// A part of the check.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Formatting of all crates
    Fmt,
    /// Lints of the workspace
    Clippy,
    /// Lints of the kernel programs
    Ebpf,
}

/// Checks; the first part that fails ends it.
pub fn run(args: &Args) -> Result<()> {
    let chosen = |part| args.parts.is_empty() || args.parts.contains(&part);
    if chosen(Part::Fmt) {
        shell::run(shell::cargo("fmt").args(["--all", "--check"]))?;
        shell::run(shell::cargo("fmt").args(["--check", "--manifest-path", "ebpf/Cargo.toml"]))?;
    }
    if chosen(Part::Clippy) {
        setup::setup(Scope::Build)?;
        let workspace = ["--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
        shell::run(shell::cargo("clippy").args(workspace))?;
    }
    if chosen(Part::Ebpf) {
        setup::setup(Scope::Build)?;
        ebpf()?;
    }
    Ok(())
}

fn ebpf() -> Result<()> {
    let toolchain = Toolchain::find()?;
    let clippy = setup::clippy(&toolchain.rustc)?;
    let target_dir = env::current_exe().map_or_else(|_| root().join("target"), |exe| target_dir(&exe));
    shell::run(toolchain.cargo(clippy, "clippy", &target_dir).args(["--", "-D", "warnings"]))
}
