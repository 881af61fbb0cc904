//! Sockets that put whole packets into a pod's network.

use std::{
    fmt,
    io::{self, IoSlice},
    mem,
    net::{IpAddr, SocketAddr},
};

use sidetrack_splice::abi::{MARK_AGENT, MARK_REPLAY};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, Socket, Type};

use super::{
    frame::{CHECK, CWR, Frame, FrameError},
    sockopt,
};
use crate::pods::{Netns, NetnsError, background};

/// Why a packet could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// No room in the socket's or the interface's queue. The client's retransmission asks again.
    #[error("the pod's send queue is full; the client will send again")]
    Full,
    /// The interface is down or gone.
    #[error("the pod's interface is down or gone; is the pod ending?")]
    Down,
    /// Longer than the MTU, and not marked for segmentation.
    #[error("a frame of {0} bytes exceeds the interface's MTU and has no segment size; please report this")]
    TooLong(usize),
    /// Not allowed.
    #[error("sending packets into the pod is not permitted; give the agent CAP_NET_RAW and CAP_NET_ADMIN")]
    Permission,
    /// There is no such route, or no such address family.
    #[error("no way to {0} from this pod: {1}; check the pod's routes")]
    NoRoute(IpAddr, #[source] io::Error),
    /// Anything else.
    #[error("cannot send into the pod: {0}; please report this")]
    Other(#[source] io::Error),
}

impl SendError {
    fn of(error: io::Error, len: usize) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Self::Full,
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Self::Down,
            Some(libc::EMSGSIZE) => Self::TooLong(len),
            Some(libc::EPERM | libc::EACCES) => Self::Permission,
            _ => Self::Other(error),
        }
    }
}

/// Room for what waits in the interface's queue: more than one connection may hold, several times over.
const SEND_BUFFER: libc::c_int = 4 << 20;

/// A packet socket on a pod's interface, made once for each pod. It only sends: with protocol 0, no packet is ever
/// copied to it. What it sends passes the interface's egress hook.
///
/// It keeps the namespace alive: drop it when the pod's name goes. The kernel takes 8 to 20 ms to close it, which is
/// done on another thread.
pub struct PacketSocket {
    /// Taken only by `drop`.
    socket: Option<Socket>,
    ifindex: u32,
    v4: SockAddr,
    v6: SockAddr,
}

impl fmt::Debug for PacketSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketSocket").field("ifindex", &self.ifindex).finish_non_exhaustive()
    }
}

impl PacketSocket {
    /// Makes one on the interface with this index. Must be called inside the namespace.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))?;
        sockopt::set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER)?;
        socket.set_mark(MARK_REPLAY)?;
        socket.bind(&address(ifindex, 0)?)?;
        let (v4, v6) = (address(ifindex, libc::ETH_P_IP as u16)?, address(ifindex, libc::ETH_P_IPV6 as u16)?);
        Ok(Self { socket: Some(socket), ifindex, v4, v6 })
    }

    /// Makes one inside a namespace.
    pub async fn open_in(netns: &Netns, ifindex: u32) -> Result<io::Result<Self>, NetnsError> {
        netns.enter(move || Self::open(ifindex)).await
    }

    /// The interface that it sends on.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Sends a frame that the agent made, marked `MARK_AGENT`: the programs let it pass.
    pub fn send(&self, frame: &[u8]) -> Result<(), SendError> {
        self.put(frame, 0, Some(MARK_AGENT))
    }

    fn put(&self, frame: &[u8], gso_size: u32, mark: Option<u32>) -> Result<(), SendError> {
        let it = Frame::parse(frame)?;
        let bytes = it.bytes();
        let check = it.tcp_at() + CHECK;
        let header = vnet_header(&it, gso_size);
        let pseudo = it.pseudo().to_be_bytes();
        let parts = [&header[..], &bytes[..check], &pseudo, &bytes[check + 2..]].map(IoSlice::new);
        let control = mark.map(mark_message);
        let mut message = MsgHdr::new().with_addr(if it.is_v6() { &self.v6 } else { &self.v4 }).with_buffers(&parts);
        if let Some(control) = &control {
            message = message.with_control(control);
        }
        let socket = self.socket.as_ref().expect("only drop takes it");
        socket.sendmsg(&message, 0).map_err(|e| SendError::of(e, bytes.len()))?;
        Ok(())
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        // packet_release() waits for all readers of the device's lists (synchronize_net).
        if let Some(socket) = self.socket.take() {
            background(move || drop(socket));
        }
    }
}

/// Sends a held frame again, marked `MARK_REPLAY`, whole: a frame with more payload than `gso_size` (of its event) is
/// cut into segments behind the egress hook, as it would have been at first. Its checksum field may hold anything.
pub fn replay(socket: &PacketSocket, frame: &[u8], gso_size: u32) -> Result<(), SendError> {
    socket.put(frame, gso_size, None)
}

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// `struct virtio_net_hdr`, in the machine's byte order as `PACKET_VNET_HDR` has it: flags, GSO type, length of the
/// headers, segment size, where the checksum starts, and its offset from there.
fn vnet_header(it: &Frame<'_>, gso_size: u32) -> [u8; 10] {
    let segment = u16::try_from(gso_size).unwrap_or(u16::MAX);
    let gso = match (segment != 0 && it.payload().len() > usize::from(segment), it.is_v6()) {
        (false, _) => GSO_NONE,
        (true, false) => GSO_TCPV4,
        (true, true) => GSO_TCPV6,
    };
    let ecn = if gso != GSO_NONE && it.flags() & CWR != 0 { GSO_ECN } else { 0 };
    let segment = if gso == GSO_NONE { 0 } else { segment };
    let mut header = [0; 10];
    header[0] = NEEDS_CSUM;
    header[1] = gso | ecn;
    for (at, value) in [(2, it.payload_at() as u16), (4, segment), (6, it.tcp_at() as u16), (8, CHECK as u16)] {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    header
}

/// A control message `SO_MARK`, for one packet.
fn mark_message(mark: u32) -> [u8; MARK_MESSAGE] {
    let mut message = [0; MARK_MESSAGE];
    let len = CMSG_HEADER + size_of::<u32>();
    let word = size_of::<usize>();
    message[..word].copy_from_slice(&len.to_ne_bytes());
    message[word..word + 4].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    message[word + 4..word + 8].copy_from_slice(&libc::SO_MARK.to_ne_bytes());
    message[CMSG_HEADER..len].copy_from_slice(&mark.to_ne_bytes());
    message
}

/// `struct cmsghdr`: a length (`size_t`), level, type.
const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();
const MARK_MESSAGE: usize = CMSG_HEADER + size_of::<usize>();
const _: () = assert!(CMSG_HEADER == size_of::<usize>() + 8);

/// A `sockaddr_ll` for an interface and a protocol.
pub(super) fn address(ifindex: u32, protocol: u16) -> io::Result<SockAddr> {
    let ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    let init = |storage: *mut socket2::SockAddrStorage, len: *mut libc::socklen_t| {
        let storage = storage.cast::<libc::sockaddr_ll>();
        // SAFETY: try_init gives a zeroed storage, large and aligned enough for every kind of address, and its length.
        unsafe {
            (*storage).sll_family = libc::AF_PACKET as u16;
            (*storage).sll_protocol = protocol.to_be();
            (*storage).sll_ifindex = ifindex;
            *len = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        }
        Ok(())
    };
    // SAFETY: the storage is filled with a sockaddr_ll, whose family and length are set.
    unsafe { SockAddr::try_init(init) }.map(|((), address)| address)
}

/// Raw IP sockets of a pod, for packets that the agent makes. The pod's own routes and neighbours decide where they go,
/// and its connection tracking sees them: a reset reaches a leg's backend whose next hop is not the client's.
///
/// They are made once for each pod, keep its namespace alive, and receive nothing.
#[derive(Debug)]
pub struct IpSocket {
    v4: Socket,
    /// `None` where the kernel has no IPv6.
    v6: Option<Socket>,
}

impl IpSocket {
    /// Makes them. Must be called inside the namespace.
    pub fn open() -> io::Result<Self> {
        let open = |domain| -> io::Result<Socket> {
            let kind = Type::RAW.nonblocking().cloexec();
            let socket = Socket::new(domain, kind, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_mark(MARK_AGENT)?;
            Ok(socket)
        };
        Ok(Self { v4: open(Domain::IPV4)?, v6: open(Domain::IPV6).ok() })
    }

    /// Makes them inside a namespace.
    pub async fn open_in(netns: &Netns) -> Result<io::Result<Self>, NetnsError> {
        netns.enter(Self::open).await
    }

    /// Sends an IP packet with complete checksums (see [`reset_packet`](super::reset_packet)) to `to`, marked
    /// `MARK_AGENT`.
    pub fn send(&self, packet: &[u8], to: IpAddr) -> Result<(), SendError> {
        let socket = match to {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => self
                .v6
                .as_ref()
                .ok_or_else(|| SendError::NoRoute(to, io::Error::from_raw_os_error(libc::EAFNOSUPPORT)))?,
        };
        let sent = socket.send_to(packet, &SocketAddr::from((to, 0)).into());
        sent.map(|_| ()).map_err(|e| match e.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => SendError::NoRoute(to, e),
            _ => SendError::of(e, packet.len()),
        })
    }
}

#[cfg(test)]
mod tests;
