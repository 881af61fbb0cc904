//! One agent for each pin directory.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// Held for as long as the agent lives; the kernel gives it back when the agent dies, however it does.
#[derive(Debug)]
pub struct Lock {
    _held: Flock<OwnedFd>,
}

impl Lock {
    /// Makes the pin directory if need be and waits until no other agent works with it. `waiting` is called once if there
    /// is one.
    pub fn wait(pin_dir: &Path, waiting: impl FnOnce()) -> io::Result<Self> {
        fs::create_dir_all(pin_dir)?;
        let open = || fs::File::open(pin_dir).map(OwnedFd::from);
        match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(Self { _held: held }),
            Err((_, Errno::EWOULDBLOCK)) => waiting(),
            Err((_, errno)) => return Err(errno.into()),
        }
        match Flock::lock(open()?, FlockArg::LockExclusive) {
            Ok(held) => Ok(Self { _held: held }),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Takes the lock if no agent works with the directory. `None`: one does.
    pub fn now(pin_dir: &Path) -> io::Result<Option<Self>> {
        match Flock::lock(OwnedFd::from(fs::File::open(pin_dir)?), FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Some(Self { _held: held })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}
