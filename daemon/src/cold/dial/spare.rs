//! Sockets that wait for their pod's next dial: making one takes a way into the namespace and back, a quarter of a dial.

use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::DialError;
use crate::pods::Pod;

/// At most one socket of either family, made inside the pod's namespace, unbound.
///
/// They keep the namespace alive, as the pod's other sockets do: drop it when the pod's name goes.
#[derive(Debug, Default)]
pub struct Spare {
    v4: Mutex<Option<Socket>>,
    v6: Mutex<Option<Socket>>,
}

impl Spare {
    fn of(&self, target: SocketAddr) -> std::sync::MutexGuard<'_, Option<Socket>> {
        let spare = if target.is_ipv4() { &self.v4 } else { &self.v6 };
        spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the one for a dial to `target`, if there is one.
    pub(super) fn take(&self, target: SocketAddr) -> Option<Socket> {
        self.of(target).take()
    }

    /// Makes one in the place of the one that a dial to `target` has taken. Where that fails, the next dial makes its own, and
    /// says why it cannot.
    pub fn refill(&self, pod: &Pod, target: SocketAddr) {
        if self.of(target).is_none() {
            // Nobody waits for the lock meanwhile.
            let made = pod.netns.run(|| socket(target).ok()).ok().flatten();
            *self.of(target) = made;
        }
    }
}

/// A socket for a dial to `target`, with all options that do not depend on its client. Must be called inside the namespace.
pub(super) fn socket(target: SocketAddr) -> Result<Socket, DialError> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))
        .map_err(DialError::at("making a socket in the pod"))?;
    let set = || -> io::Result<()> {
        // Closing it sends a reset, whenever that is, and waits for nothing; in repair mode it sends nothing at all.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        // Two legs of one pod to two backends may have one port.
        socket.set_reuse_address(true)
    };
    set().map_err(DialError::at("setting options of a socket"))?;
    Ok(socket)
}
