//! `cargo xtask demo` and `cargo xtask bench`: programs of the lab.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use super::{binary, build, packages::Scope, setup};

/// Makes everything ready and becomes a program of `sidetrack-tests`, so that a Ctrl-C and the exit code are its own.
pub fn become_program(name: &str, args: &[OsString]) -> Result<ExitCode> {
    setup::setup(Scope::All)?;
    let daemon = binary::daemon()?;
    let program = build::find(&build::build("build", &["--release", "-p", "sidetrack-tests", "--bin", name])?, name)?;
    let error = Command::new(&program).args(args).env("SIDETRACK_BIN", daemon).exec();
    Err(error).with_context(|| format!("{} cannot be started", program.display()))
}
