//! Brings the libraries that the tests' clients in other languages need, by each language's own installer and lock file.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use xtask::{
    libraries::{Libraries, NODE, PYTHON},
    process::output,
    root,
};

use super::{
    apt, install, packages,
    shell::{run, say},
};

/// Installs what is missing.
pub fn install() -> Result<()> {
    bring(NODE, npm)?;
    bring(PYTHON, pip)
}

fn bring(libraries: Libraries, with: fn(&Path, &Path) -> Result<()>) -> Result<()> {
    if libraries.are_there() {
        return Ok(());
    }
    let dir = libraries.dir();
    let _lock = install::lock(&dir)?;
    if libraries.are_there() {
        return Ok(());
    }
    say(format_args!("fetching what {} names", libraries.lock));
    with(&root().join(libraries.lock), &dir)
        .with_context(|| format!("the libraries of {} cannot be fetched", libraries.lock))?;
    Ok(fs::write(libraries.mark(), "")?)
}

/// Exactly what the lock file says; npm compares each package with its digest there, and runs no script of it.
fn npm(lock: &Path, dir: &Path) -> Result<()> {
    for file in [lock, &lock.with_file_name("package.json")] {
        fs::copy(file, dir.join(file.file_name().context("a file has a name")?))?;
    }
    run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(dir))
}

/// The same by pip, into an environment of its own.
fn pip(lock: &Path, dir: &Path) -> Result<()> {
    if output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_none() {
        apt::install(&[&packages::VENV])?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    let mut command = Command::new(dir.join("bin/python"));
    command.args(["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r"]).arg(lock);
    run(&mut command)
}
