//! Dialling a backend from inside the client's namespace, and freezing the connection for a splice.

mod error;
mod frozen;
mod spare;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sidetrack_splice::abi::{
    dial_mark,
    record::{OPT_ECN, OPT_SACK, OPT_WSCALE},
};
use socket2::Socket;
use tokio::{
    io::Interest,
    task::yield_now,
    time::{Instant, sleep, timeout_at},
};

pub use self::{
    error::DialError,
    frozen::{Dialled, Mismatch},
    spare::Spare,
};
use super::{
    ports::{NoPort, PortBook},
    sockopt,
};
use crate::pods::{Pod, ready::register};

/// What the client offered in its own SYN: the agent's SYN asks for the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// MSS, zero if it had none.
    pub mss: u16,
    /// `OPT_` flags of the records.
    pub options: u8,
    /// Window scale.
    pub wscale: u8,
}

/// A leg that is wanted.
#[derive(Debug)]
pub struct DialRequest<'a> {
    /// The client's address: the leg's, too.
    pub local: IpAddr,
    /// The backend.
    pub target: SocketAddr,
    /// The pod's book of ports. The leg's port is in use until it is given back there.
    pub ports: &'a PortBook,
    /// Sockets of the pod to begin with.
    pub spare: &'a Spare,
    /// The start of the head that the client will never send again, empty if there is none.
    pub prefix: Vec<u8>,
    /// When to give up.
    pub deadline: Instant,
    /// What the client offered.
    pub client: ClientOptions,
}

/// How many ports are tried: a server of the pod may listen on one, a client have bound one.
const TRIES: usize = 16;

/// Makes a connection from the client's address to a backend, sends the prefix and waits until it is acknowledged, and
/// freezes it: from then on the pod's kernel sends nothing on it.
///
/// Dropping the future at any time leaves nothing behind.
pub async fn dial(pod: &Pod, request: DialRequest<'_>) -> Result<Dialled, DialError> {
    let (socket, port) = begin(pod, &request)?;
    let DialRequest { local, target, prefix, deadline, .. } = request;
    let socket = connected(socket, target, deadline).await?;
    let socket = write(socket, &prefix, target, deadline).await?;
    let dialled = Dialled::freeze(socket, (local, port.number).into(), target)?;
    port.keep();
    Ok(dialled)
}

/// A port that is given back unless the dial succeeds.
struct Port<'a> {
    ports: &'a PortBook,
    target: SocketAddr,
    number: u16,
}

impl Port<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Port<'_> {
    fn drop(&mut self) {
        self.ports.give_back(self.target, self.number);
    }
}

/// Sends the SYN. Does not block.
fn begin<'a>(pod: &Pod, request: &DialRequest<'a>) -> Result<(Socket, Port<'a>), DialError> {
    let DialRequest { local, target, ports, spare, .. } = *request;
    if local.is_ipv4() != target.is_ipv4() {
        return Err(DialError::Family(target, local));
    }
    let mtu = pod.link.mtu;
    let mut tries = 0;
    // Nothing: the pod has the port itself, another may be free.
    let mut attempt = |socket, own: &RangeInclusive<u16>| match start(socket, request, mtu, own) {
        Ok(begun) => Ok(Some(begun)),
        Err(Refusal::Final(error)) => Err(error),
        Err(Refusal::Port(source)) => {
            tries += 1;
            if tries < TRIES {
                Ok(None)
            } else {
                Err(DialError::NoPort { target, cause: NoPort::Busy { tries, source } })
            }
        }
    };
    if let Some(own) = ports.known_range()
        && let Some(socket) = spare.take(target)
        && let Some(begun) = attempt(socket, &own)?
    {
        return Ok(begun);
    }
    pod.netns.run(|| {
        let own = ports.own_range().map_err(DialError::at("reading the pod's port range"))?;
        loop {
            if let Some(begun) = attempt(spare::socket(target)?, &own)? {
                return Ok(begun);
            }
        }
    })?
}

/// Sends the SYN of one socket, from a port outside `own` if there is one.
fn start<'a>(
    socket: Socket,
    request: &DialRequest<'a>,
    mtu: u32,
    own: &RangeInclusive<u16>,
) -> Result<(Socket, Port<'a>), Refusal> {
    let DialRequest { local, target, ports, client, .. } = *request;
    suit(&socket, target, client, mtu).map_err(Refusal::Final)?;
    let no_port = |cause| Refusal::Final(DialError::NoPort { target, cause });
    let number = ports.take(target, own).map_err(no_port)?;
    let port = Port { ports, target, number };
    bind_and_connect(&socket, (local, number).into(), target)?;
    Ok((socket, port))
}

/// Lets a socket ask for what the client has asked for.
fn suit(socket: &Socket, target: SocketAddr, client: ClientOptions, mtu: u32) -> Result<(), DialError> {
    socket.set_mark(dial_mark(client.options)).map_err(DialError::at("marking a socket (SO_MARK)"))?;
    let set = || -> io::Result<()> {
        let headers = if target.is_ipv4() { 40 } else { 60 };
        // Left alone where it is what the route gives anyway: the kernel caps the backend's MSS by it, too, and its
        // own value could no longer be read.
        if client.mss >= MSS_MIN && u32::from(client.mss) + headers < mtu {
            socket.set_tcp_mss(client.mss.into())?;
        }
        // tcp_select_initial_window() takes the scale that the clamp needs, if memory allows for as much.
        let clamp = if client.options & OPT_WSCALE == 0 { 0xffff } else { 0x8000 << client.wscale.min(14) };
        sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, clamp)
    };
    set().map_err(DialError::at("setting options of a socket"))
}

/// `TCP_MIN_MSS`: the kernel refuses less.
const MSS_MIN: u16 = 88;

/// Why a socket does not dial.
enum Refusal {
    /// The port, or the whole four-tuple, belongs to a socket of the pod: another one may be free.
    Port(io::Error),
    /// Another port would not help.
    Final(DialError),
}

fn bind_and_connect(socket: &Socket, local: SocketAddr, target: SocketAddr) -> Result<(), Refusal> {
    socket.bind(&local.into()).map_err(|e| match e.raw_os_error() {
        Some(libc::EADDRINUSE) => Refusal::Port(e),
        Some(libc::EADDRNOTAVAIL) => Refusal::Final(DialError::NotLocal(local.ip())),
        _ => Refusal::Final(DialError::at("binding a port in the pod")(e)),
    })?;
    socket.connect(&target.into()).or_else(|e| match e.raw_os_error() {
        Some(libc::EINPROGRESS) => Ok(()),
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Err(Refusal::Port(e)),
        _ => Err(Refusal::Final(DialError::connection(target, e))),
    })
}

/// Waits for the end of the handshake. Within a node that is done when `connect` returns, mostly: no reactor needed.
async fn connected(socket: Socket, target: SocketAddr, deadline: Instant) -> Result<Socket, DialError> {
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let done = poll(&mut ready, PollTimeout::ZERO).is_ok_and(|n| n > 0);
    let socket = if done {
        socket
    } else {
        writable(socket, deadline).await.map_err(late(target, DialError::TimedOut(target)))?
    };
    match socket.take_error() {
        Ok(None) => Ok(socket),
        Ok(Some(error)) | Err(error) => Err(DialError::connection(target, error)),
    }
}

/// Waits until it can be written to; `None` after the deadline.
async fn writable(socket: Socket, deadline: Instant) -> Result<Socket, Option<io::Error>> {
    let fd = register(OwnedFd::from(socket), Interest::WRITABLE)?;
    match timeout_at(deadline, fd.writable()).await {
        Err(_) => Err(None),
        Ok(guard) => {
            guard?.retain_ready();
            Ok(fd.into_inner().into())
        }
    }
}

fn late(target: SocketAddr, error: DialError) -> impl FnOnce(Option<io::Error>) -> DialError {
    move |e| e.map_or(error, |e| DialError::connection(target, e))
}

/// How long the acknowledgement is looked for without a pause: longer than a round trip within a node.
const BUSY: Duration = Duration::from_micros(300);

/// Writes the prefix, and waits until the backend's kernel has all of it.
async fn write(mut socket: Socket, prefix: &[u8], target: SocketAddr, deadline: Instant) -> Result<Socket, DialError> {
    if prefix.is_empty() {
        return Ok(socket);
    }
    let mut rest = prefix;
    while !rest.is_empty() {
        match socket.send_with_flags(rest, libc::MSG_NOSIGNAL) {
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let error = DialError::PrefixNotAcked(target);
                socket = writable(socket, deadline).await.map_err(late(target, error))?;
            }
            Err(e) => return Err(DialError::connection(target, e)),
        }
    }
    let begun = Instant::now();
    loop {
        let left = unacknowledged(&socket).map_err(DialError::at("reading a send queue (SIOCOUTQ)"))?;
        if let Some(error) = socket.take_error().ok().flatten() {
            return Err(DialError::connection(target, error));
        }
        let now = Instant::now();
        match left {
            0 => return Ok(socket),
            _ if now >= deadline => return Err(DialError::PrefixNotAcked(target)),
            _ if now - begun < BUSY => yield_now().await,
            _ => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Bytes written that the peer has not acknowledged.
fn unacknowledged(socket: &Socket) -> io::Result<i32> {
    nix::ioctl_read_bad!(siocoutq, libc::TIOCOUTQ, libc::c_int);
    let mut left = 0;
    // SAFETY: SIOCOUTQ (the number of TIOCOUTQ) writes one int to the pointer, which is that of a local variable.
    unsafe { siocoutq(socket.as_raw_fd(), &raw mut left) }?;
    Ok(left)
}

#[cfg(test)]
mod tests;
