//! Socket options that no crate knows.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use libc::{c_int, socklen_t};

/// Sets an option whose value is an `int`.
pub(super) fn set(fd: &impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `value`, and the descriptor is open while it is borrowed.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option of at most `N` bytes; what the kernel does not fill is zero.
pub(super) fn read<const N: usize>(fd: &impl AsFd, level: c_int, name: c_int) -> io::Result<[u8; N]> {
    let mut value = [0_u8; N];
    let mut len = N as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is the array's length, and the descriptor is open while it
    // is borrowed.
    let rc = unsafe { libc::getsockopt(fd.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) };
    if rc == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option whose value is an `int`.
pub(super) fn get(fd: &impl AsFd, level: c_int, name: c_int) -> io::Result<u32> {
    read(fd, level, name).map(u32::from_ne_bytes)
}
