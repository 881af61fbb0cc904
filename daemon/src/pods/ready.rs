//! Waiting for descriptors in tokio.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Puts a descriptor into tokio's epoll. Must be called inside a runtime.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns its descriptor, gives out the same one at every call, and AsyncFd keeps it until it has
    // taken it out of epoll.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
