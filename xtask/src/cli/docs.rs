//! `cargo xtask docs`: the parts of the documentation that are written from the code.

use std::fs;

use anyhow::{Context as _, Result};
use xtask::{counters, root};

use super::shell;

/// Writes them, where they differ. The suite `docs` fails while they do.
pub fn run() -> Result<()> {
    let (path, text) = (root().join(counters::PATH), counters::document());
    if fs::read_to_string(&path).is_ok_and(|stands| stands == text) {
        shell::say(format_args!("{} is as the code has it", counters::PATH));
        return Ok(());
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    shell::say(format_args!("{} written", counters::PATH));
    Ok(())
}
