//! One agent for the records of each ABI below a pin directory: of two ABIs, one may end what the other has begun.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::state::pins;

/// Held for as long as the agent lives; the kernel gives it back when the agent dies, however it does.
#[derive(Debug)]
pub struct Lock {
    _held: Flock<OwnedFd>,
}

impl Lock {
    /// Makes the directory of this ABI's records if need be and waits until no other agent works with it. `waiting` is called once if
    /// there is one.
    pub fn wait(dir: &Path, waiting: impl FnOnce()) -> io::Result<Self> {
        let mut waiting = Some(waiting);
        loop {
            fs::create_dir_all(dir)?;
            let file = fs::File::open(dir)?;
            let inode = file.metadata()?.ino();
            let held = match Flock::lock(OwnedFd::from(file), FlockArg::LockExclusiveNonblock) {
                Ok(held) => held,
                Err((file, Errno::EWOULDBLOCK)) => {
                    if let Some(waiting) = waiting.take() {
                        waiting();
                    }
                    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?
                }
                Err((_, errno)) => return Err(errno.into()),
            };
            // It may have been removed meanwhile, and another one be there.
            if fs::metadata(dir).is_ok_and(|now| now.ino() == inode) {
                return Ok(Self { _held: held });
            }
        }
    }

    /// Held while one ABI takes new connections over from another: of two that begin at one moment, the later one finds what the earlier one
    /// has said, and exactly one goes on. An agent that was stopped in the middle of it is waited for no longer than `patience`.
    pub fn handover(pin_dir: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let mut file = OwnedFd::from(fs::File::open(pin_dir)?);
        let deadline = Instant::now() + patience;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(Some(Self { _held: held })),
                Err((again, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = again,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(errno.into()),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes the lock of one version's records, if no agent works with them or begins to. `None`: one does.
    pub fn now(dir: &Path) -> io::Result<Option<Self>> {
        match Flock::lock(OwnedFd::from(fs::File::open(dir)?), FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Some(Self { _held: held })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Takes the locks of all versions below a pin directory, if no agent works with any. `None`: one does.
    pub fn all(pin_dir: &Path) -> io::Result<Option<Vec<Self>>> {
        let mut all = Vec::new();
        // Where nothing is pinned there is nothing to lock.
        for version in pins::versions(pin_dir).unwrap_or_default() {
            let Some(lock) = Self::now(&pins::directory(pin_dir, version.abi))? else { return Ok(None) };
            all.push(lock);
        }
        Ok(Some(all))
    }
}
