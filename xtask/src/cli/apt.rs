//! Packages by apt.

use std::{os::unix::fs::MetadataExt as _, path::Path, process::Command};

use anyhow::{Result, bail};
use xtask::process::{find_program, output};

use super::{
    packages::Package,
    policy,
    shell::{run, say},
};

/// Installs packages, without starting any service that they bring.
pub fn install(packages: &[&Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    for package in packages {
        say(format_args!("missing: {} ({})", package.name, package.why));
    }
    let names = packages.iter().map(|package| package.name).collect::<Vec<_>>();
    if find_program("apt-get").is_none() {
        bail!("apt-get is not here: install what Debian calls {} by this machine's own means", names.join(", "));
    }
    if !is_root() {
        bail!("apt needs root, run: sudo apt-get install -y --no-install-recommends {}", names.join(" "));
    }
    let started = policy::no_services()?;
    // The lists of a fresh machine are empty or old: they are fetched only when the packages cannot be had without.
    if run(apt("install").args(&names)).is_err() {
        run(&mut apt("update"))?;
        run(apt("install").args(&names))?;
    }
    drop(started);
    for service in packages.iter().filter_map(|package| package.service) {
        // Not for the next boot either. Without systemd there is nothing to disable.
        if Path::new("/run/systemd/system").exists() {
            run(Command::new("systemctl").args(["disable", "--quiet", service]))?;
        }
    }
    Ok(())
}

fn apt(subcommand: &str) -> Command {
    let mut command = Command::new("apt-get");
    // Another apt may be at work: unattended upgrades, or a colleague's terminal.
    command.args(["-o", "DPkg::Lock::Timeout=300", "-q", "-y", "--no-install-recommends", subcommand]);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_SUSPEND", "1");
    command
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    // The owner of a process's directory is its effective user.
    Path::new("/proc/self")
        .metadata()
        .map_or_else(|_| output(Command::new("id").arg("-u")).as_deref() == Some("0"), |meta| meta.uid() == 0)
}
