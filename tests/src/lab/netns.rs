//! Threads that work in another namespace. A namespace is a property of a thread: the process stays where it is.

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    thread,
};

/// Opens the namespace that is mounted at `path`. While the result lives, so does the namespace.
pub fn open(path: &Path) -> Result<OwnedFd> {
    let file = File::open(path).with_context(|| format!("cannot open the namespace {}", path.display()))?;
    Ok(file.into())
}

/// Moves the calling thread into a network namespace. Everything that it makes from then on is there.
pub fn join(netns: impl AsFd) -> Result<()> {
    setns(netns, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace (root is needed)")
}

/// Runs `work` on a thread of its own inside `netns`, and waits for it.
///
/// # Panics
/// When `work` does.
pub fn run<T: Send>(netns: impl AsFd + Sync, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| join(&netns).map(|()| work()));
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Gives the calling thread a mount namespace of its own; nothing that is mounted in it is seen outside.
pub fn private_mounts() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace (root is needed)")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make the mounts private")
}

/// Mounts a file system of type `kind` on `at`, which is made where it is missing.
pub fn mount_on(kind: &str, at: &Path) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    std::fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))?;
    mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount {kind} on {}", at.display()))
}
