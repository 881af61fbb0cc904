//! Ctrl-C: what was seen so far is told, and then the process ends.
//!
//! Signals are not blocked, as a thread that waits for them would need it: the lab's processes would inherit that.

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd::pipe2,
};
use std::{
    fs::File,
    io::Read,
    os::fd::IntoRawFd,
    sync::atomic::{AtomicI32, Ordering},
    thread,
};

/// Where the handler writes a signal's number.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// What ends the demo before its time: Ctrl-C, and what `kill` and time limits send.
const SIGNALS: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// Has `end` called, on a thread of its own, at the first of these signals. To be called once.
pub(super) fn at_signal(end: impl FnOnce(Signal) + Send + 'static) -> Result<()> {
    let (wait, wake) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    // It stays open for as long as the handler may run: for good.
    WAKE.store(wake.into_raw_fd(), Ordering::Relaxed);
    thread::Builder::new().name("interrupt".into()).spawn(move || {
        let mut number = [0; size_of::<libc::c_int>()];
        let read = File::from(wait).read_exact(&mut number);
        if let (Ok(()), Ok(signal)) = (read, Signal::try_from(libc::c_int::from_ne_bytes(number))) {
            end(signal);
        }
    })?;
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in SIGNALS {
        // SAFETY: the handler calls nothing but write(2), which is async-signal-safe, and leaves errno as it was.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot handle {signal}"))?;
    }
    Ok(())
}

extern "C" fn note(signal: libc::c_int) {
    let errno = Errno::last_raw();
    let number = signal.to_ne_bytes();
    // SAFETY: the bytes of a local variable. Where the pipe is full, a signal is waiting already.
    unsafe { libc::write(WAKE.load(Ordering::Relaxed), number.as_ptr().cast(), number.len()) };
    Errno::set_raw(errno);
}
