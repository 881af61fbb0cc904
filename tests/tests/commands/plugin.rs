//! The binary as kubectl's plugin.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use sidetrack_tests::agent;
use xtask::kubernetes::KUBECTL;

use crate::world::World;

#[test]
fn kubectl_runs_it_and_completes_its_words() -> Result<()> {
    let Some(world) = World::new("plugin")? else { return Ok(()) };
    world.sandbox()?;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("plugin-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    for name in ["kubectl-sidetrack", "kubectl_complete-sidetrack"] {
        symlink(agent::binary(), directory.join(name))?;
    }
    let run = |words: &[&str]| {
        let mut command = Command::new(KUBECTL.find().context("kubectl")?);
        command.args(words).env_clear().env("KUBECONFIG", world.me.kubeconfig.path()).env("HOME", &directory);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", directory.display()));
        world.me.run(command, "")
    };
    let said = (
        run(&["sidetrack", "list", "-o", "name"]),
        run(&["sidetrack", "get", "nope"]),
        run(&["sidetrack", "wait", "--help"]),
    );
    let completed = run(&["__complete", "sidetrack", "wait", "pr", "--for", "ro"]);
    fs::remove_dir_all(&directory)?;
    ensure!(said.0?.well()? == "sandbox.sidetrack.dev/pr\n");
    said.1?.failed(3, &["there is no sandbox nope"])?;
    let help = said.2?.well()?;
    ensure!(help.contains("Usage: kubectl sidetrack wait "), "{help}");
    let completed = completed?;
    ensure!(completed.code == 0 && completed.out.lines().any(|line| line.starts_with("routed")), "{completed:?}");
    Ok(())
}
