//! Clients that are programs: how each is started in its pod.

use super::{plan::Plan, pool::Pool};
use crate::{
    lab::{LAB_DIR, Lab, Pod},
    process::Process,
};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use xtask::libraries::{NODE, PYTHON};

/// Where their sources are.
fn sources() -> PathBuf {
    xtask::root().join("tests/pools")
}

/// Starts the program of `pool` in `pod`.
///
/// # Errors
/// When it cannot be built or started.
pub fn start(lab: &Lab, pod: &Pod, pool: Pool, plan: &Plan) -> Result<Process> {
    let file = Path::new(LAB_DIR).join(format!("{}.plan", plan.client));
    std::fs::write(&file, plan.text())?;
    let mut command = command(lab, pool)?;
    command.arg(file);
    pod.spawn(command)
}

fn command(lab: &Lab, pool: Pool) -> Result<Command> {
    let mut command;
    match pool {
        Pool::Go => command = Command::new(built(lab)?),
        Pool::Undici => {
            command = Command::new("node");
            command.env("NODE_PATH", NODE.dir().join("node_modules")).arg(sources().join("node/client.cjs"));
        }
        Pool::Requests | Pool::Aiohttp => {
            command = Command::new(PYTHON.dir().join("bin/python"));
            let script = if pool == Pool::Requests { "with_requests.py" } else { "with_aiohttp.py" };
            // Nothing is written beside the sources.
            command.arg("-B").arg(sources().join("python").join(script));
        }
        Pool::Java => {
            command = Command::new("java");
            command.args(["-XX:TieredStopAtLevel=1", "-Xmx256m"]).arg(sources().join("java/Client.java"));
        }
        Pool::Nginx | Pool::Haproxy => anyhow::bail!("{pool:?} is no program of ours"),
    }
    Ok(command)
}

/// Compiles the client in Go, with the compiler that is there.
fn built(lab: &Lab) -> Result<PathBuf> {
    let program = lab.dir().join("go-client");
    let mut command = Command::new("go");
    command.env("GOTOOLCHAIN", "local").args(["build", "-o"]).arg(&program).arg(sources().join("go/main.go"));
    lab.run(command).context("the client in Go cannot be compiled")?;
    Ok(program)
}
