//! `cargo xtask deny`: what the dependencies are, and under which licences.

use std::process::Command;

use anyhow::Result;
use xtask::root;

use super::{install, shell};

/// Checks both lock files by `deny.toml`.
pub fn run() -> Result<()> {
    let program = install::cargo_deny()?;
    for manifest in ["Cargo.toml", "ebpf/Cargo.toml"] {
        let mut command = Command::new(&program);
        command.current_dir(root()).args([
            "--manifest-path",
            manifest,
            "--locked",
            "--all-features",
            "--config",
            "deny.toml",
            "check",
        ]);
        // `advisories` downloads a database: it is run where that can be reached, see docs/checks.md.
        command.args(["bans", "licenses", "sources"]);
        shell::run(&mut command)?;
    }
    Ok(())
}
