//! `cargo xtask docs`: what is written from the code.

use std::fs;

use anyhow::{Context as _, Result};
use xtask::{counters, root};

use super::shell;

/// Writes it, where it differs. The suites `docs` and `objects` fail while it does.
pub fn run() -> Result<()> {
    let write = ["--quiet", "--locked", "--package", "sidetrack-objects", "--"];
    shell::run(shell::cargo("run").args(write).arg(root()))?;
    let (path, text) = (root().join(counters::PATH), counters::document());
    if fs::read_to_string(&path).is_ok_and(|stands| stands == text) {
        shell::say(format_args!("{} is as the code has it", counters::PATH));
        return Ok(());
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    shell::say(format_args!("{} written", counters::PATH));
    Ok(())
}
