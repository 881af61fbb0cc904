//! One agent for the records of each ABI below a pin directory: of two ABIs, one may end what the other has begun.

use std::{fs, io, os::fd::OwnedFd, path::Path};

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
        fs::create_dir_all(dir)?;
        let open = || fs::File::open(dir).map(OwnedFd::from);
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

    /// Takes the locks of all versions below a pin directory, if no agent works with any. `None`: one does.
    pub fn all(pin_dir: &Path) -> io::Result<Option<Vec<Self>>> {
        let mut all = Vec::new();
        // Where nothing is pinned there is nothing to lock.
        for version in pins::versions(pin_dir).unwrap_or_default() {
            let dir = fs::File::open(pins::directory(pin_dir, version.abi))?;
            match Flock::lock(OwnedFd::from(dir), FlockArg::LockExclusiveNonblock) {
                Ok(held) => all.push(Self { _held: held }),
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(errno.into()),
            }
        }
        Ok(Some(all))
    }
}
