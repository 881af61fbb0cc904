//! Looking at a pod's interface in tests, and clients that vanish.

use std::{
    io::Read,
    net::TcpStream,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{frame::Frame, socket::address, sockopt};
use crate::pods::Pod;

/// Everything that passes a pod's interface.
pub(super) struct Capture(Socket);

/// A frame as it passed.
pub(super) struct Captured {
    pub(super) gso_size: u16,
    pub(super) bytes: Vec<u8>,
}

impl Captured {
    pub(super) fn frame(&self) -> Option<Frame<'_>> {
        Frame::parse(&self.bytes).ok()
    }
}

impl Capture {
    pub(super) fn of(pod: &Pod) -> Self {
        Self::open(pod, None)
    }

    /// Only what carries this mark.
    pub(super) fn marked(pod: &Pod, mark: u32) -> Self {
        Self::open(pod, Some(mark))
    }

    fn open(pod: &Pod, mark: Option<u32>) -> Self {
        let index = pod.link.index;
        let open = move || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).expect("root may");
            sockopt::set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).expect("allowed");
            if let Some(mark) = mark {
                // Classic BPF: load the mark, equal: take all, else: nothing.
                let load = SockFilter::new(0x20, 0, 0, 0xffff_f000 + 20);
                let filter = [
                    load,
                    SockFilter::new(0x15, 0, 1, mark),
                    SockFilter::new(6, 0, 0, u32::MAX),
                    SockFilter::new(6, 0, 0, 0),
                ];
                socket.attach_filter(&filter).expect("a valid filter");
            }
            socket.bind(&address(index, libc::ETH_P_ALL as u16).expect("an index")).expect("bound");
            socket
        };
        Self(pod.netns.run(open).expect("entered"))
    }

    /// The next frame, within 5 s, that is wanted.
    pub(super) fn next(&mut self, wanted: impl Fn(&Frame<'_>) -> bool) -> Captured {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut passed = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            let left = PollTimeout::try_from(left).expect("5 s at most");
            assert!(poll(&mut ready, left).expect("poll") > 0, "no such frame within 5 s, but these: {passed:?}");
            let mut bytes = vec![0; 1 << 17];
            let len = self.0.read(&mut bytes).expect("readable");
            let captured =
                Captured { gso_size: u16::from_ne_bytes([bytes[4], bytes[5]]), bytes: bytes[10..len].to_vec() };
            if captured.frame().is_some_and(|frame| wanted(&frame)) {
                return captured;
            }
            passed.push((captured.bytes.len(), captured.frame().map(|frame| frame.tuple())));
        }
    }
}

/// Takes a connection away without a word to its peer, as a TCP does that nobody acknowledges for long. Returns the
/// sequence number that the peer expects next.
pub(crate) fn vanish(stream: &TcpStream) -> u32 {
    const ON: libc::c_int = 1;
    const NO_QUEUE: libc::c_int = 0;
    const SEND_QUEUE: libc::c_int = 2;
    let set = |name, value| sockopt::set(&stream, libc::IPPROTO_TCP, name, value).expect("root may repair");
    set(libc::TCP_REPAIR, ON);
    set(libc::TCP_REPAIR_QUEUE, SEND_QUEUE);
    let next = sockopt::get(&stream, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ).expect("in repair");
    set(libc::TCP_REPAIR_QUEUE, NO_QUEUE);
    // Closing would not do: a process that another test is about to start may hold the socket for a moment, too.
    // SAFETY: all zeros are a valid sockaddr, of no family.
    let nobody: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and the length are those of `nobody`, and the descriptor is open.
    let parted = unsafe {
        libc::connect(stream.as_fd().as_raw_fd(), &raw const nobody, size_of::<libc::sockaddr>() as libc::socklen_t)
    };
    assert_eq!(parted, 0, "{}", std::io::Error::last_os_error());
    next
}
