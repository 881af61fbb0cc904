//! Running `ip`, `nft` and other tools.

use super::{NETNS_DIR, NODE, keeper::Keeper, netns};
use anyhow::{Context, Result, bail};
use std::{
    io::{ErrorKind, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

/// Runs a command to its end; its standard output.
pub(super) fn run(keeper: &Keeper, netns: Option<&OwnedFd>, command: Command) -> Result<String> {
    feed(keeper, netns, command, None)
}

fn feed(keeper: &Keeper, netns: Option<&OwnedFd>, command: Command, input: Option<&str>) -> Result<String> {
    let name = format!("{command:?}");
    let output = attempt(keeper, netns, command, input)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}{}", output.status, said.trim(), input.unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end, whatever that is. It may end without having read its input.
pub(super) fn attempt(
    keeper: &Keeper,
    netns: Option<&OwnedFd>,
    mut command: Command,
    input: Option<&str>,
) -> Result<Output> {
    let name = format!("{command:?}");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = keeper.spawn(command, netns)?;
    let stdin = child.stdin.take();
    // What it says is read while it is told: neither side waits for the other.
    let (told, output) = thread::scope(|scope| {
        let writer =
            scope.spawn(|| stdin.zip(input).map_or(Ok(()), |(mut stdin, input)| stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output();
        (writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), output)
    });
    if let Err(error) = told
        && error.kind() != ErrorKind::BrokenPipe
    {
        return Err(error).with_context(|| format!("{name} does not read"));
    }
    output.with_context(|| format!("cannot wait for {name}"))
}

/// Feeds several lines to `ip -batch -`, in the namespace called `name` or in the node's.
pub(super) fn ip_batch(keeper: &Keeper, name: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = name {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]);
    feed(keeper, None, command, Some(lines)).map(drop)
}

/// Feeds `nft -f -`.
pub(super) fn nft(keeper: &Keeper, netns: Option<&OwnedFd>, rules: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    feed(keeper, netns, command, Some(rules)).map(drop)
}

/// Makes a named namespace with `lo` up and settings under which addresses are usable at once.
pub(super) fn make_namespace(keeper: &Keeper, name: &str, congestion: &str) -> Result<OwnedFd> {
    let mut command = Command::new("ip");
    command.args(["netns", "add", name]);
    run(keeper, None, command)?;
    let fd = netns::open(&Path::new(NETNS_DIR).join(name))?;
    let congestion = congestion.to_owned();
    netns::run(&fd, move || {
        sysctl("net/ipv4/tcp_congestion_control", &congestion)?;
        // An interface takes these when it comes into the namespace.
        for scope in ["all", "default"] {
            sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "0")?;
            sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
            sysctl(&format!("net/ipv6/conf/{scope}/accept_ra"), "0")?;
            sysctl(&format!("net/ipv6/conf/{scope}/router_solicitations"), "0")?;
        }
        anyhow::Ok(())
    })??;
    ip_batch(keeper, Some(name), "link set lo up\n")?;
    Ok(fd)
}

/// Makes the node forward, as kubelet demands.
pub(super) fn make_node(keeper: &Keeper) -> Result<()> {
    let fd = netns::open(&Path::new(NETNS_DIR).join(NODE))?;
    netns::run(&fd, || {
        sysctl("net/ipv4/ip_forward", "1")?;
        sysctl("net/ipv6/conf/all/forwarding", "1")?;
        sysctl("net/ipv6/conf/default/forwarding", "1")
    })??;
    nft(keeper, Some(&fd), &super::service::ruleset(&[]))
}

/// Writes a sysctl of the calling thread's network namespace.
pub(super) fn sysctl(name: &str, value: &str) -> Result<()> {
    std::fs::write(Path::new("/proc/sys").join(name), value)
        .with_context(|| format!("cannot set {name} to {value}: does this kernel have it?"))
}
