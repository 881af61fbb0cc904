use std::{net::IpAddr, os::fd::AsRawFd};

use super::*;
use crate::{
    cold::{
        frame::{
            reset_packet,
            testing::{Spec, make, spec, verify},
        },
        testing::Capture,
    },
    pods::{Pod, testing::Lab},
};

fn address_of(pod: &Pod, v6: bool) -> IpAddr {
    *pod.addresses.iter().find(|a| a.is_ipv6() == v6).expect("one of each family")
}

/// A frame from one pod to the other.
fn between<'a>(a: &Pod, b: &Pod, v6: bool, payload: &'a [u8]) -> Spec<'a> {
    let mut it = spec(v6, payload);
    it.l2 = [b.link.mac, a.link.mac].concat().try_into().expect("two addresses");
    it.from = (address_of(a, v6), 40000).into();
    it.to = (address_of(b, v6), 81).into();
    it
}

fn open(pod: &Pod) -> PacketSocket {
    let index = pod.link.index;
    pod.netns.run(|| PacketSocket::open(index)).expect("entered").expect("root may")
}

/// Switches the offload of checksums and segmentation off, so that the kernel does both itself.
fn plain(pod: &Pod) {
    const SET_TX_CHECKSUM: u32 = 0x17;
    const SET_TSO: u32 = 0x1f;
    let off = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        for command in [SET_TX_CHECKSUM, SET_TSO] {
            let mut value = [command, 0];
            // SAFETY: all zeros is a valid ifreq.
            let mut request: libc::ifreq = unsafe { mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(pod.link.name.bytes()) {
                *to = from.cast_signed();
            }
            request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
            // SAFETY: the kernel reads an ifreq, and behind its pointer an ethtool_value; both outlive the call.
            let rc = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
            assert_eq!(rc, 0, "{}", io::Error::last_os_error());
        }
    };
    pod.netns.run(off).expect("entered");
}

#[test]
fn a_frame_of_64_kib_arrives_whole() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let (socket, mut capture) = (open(&a), Capture::of(&b));
    for v6 in [false, true] {
        // One byte more, and the kernel cuts it before the device: no TCP makes that either (gso_max_size).
        let payload: Vec<u8> = (0..65535 - 66_u32).map(|n| (n / 7) as u8).collect();
        let payload = if v6 { &payload[..65535 - 86] } else { &payload };
        let sent = make(&between(&a, &b, v6, payload));
        replay(&socket, &sent, 1448).expect("sent");
        let got = capture.next(|f| f.source().port() == 40000);
        assert_eq!((got.bytes.len(), got.gso_size), (sent.len(), 1448));
        assert_eq!(got.frame().expect("a frame").payload(), payload);
    }
}

#[test]
fn without_offload_it_arrives_as_segments_with_right_checksums() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    plain(&a);
    let (socket, mut capture) = (open(&a), Capture::of(&b));
    for v6 in [false, true] {
        let payload: Vec<u8> = (0..20001_u32).map(|n| (n / 3) as u8).collect();
        let mut spec = between(&a, &b, v6, &payload);
        spec.flags |= CWR;
        replay(&socket, &make(&spec), 1400).expect("sent");
        let mut got: Vec<u8> = Vec::new();
        while got.len() < payload.len() {
            let segment = capture.next(|f| f.source().port() == 40000);
            verify(&segment.bytes);
            let frame = segment.frame().expect("a frame");
            assert_eq!(frame.seq(), spec.seq.wrapping_add(got.len() as u32));
            assert_eq!(frame.flags() & CWR != 0, got.is_empty(), "CWR on the first only");
            assert!(frame.payload().len() <= 1400);
            got.extend(frame.payload());
        }
        assert_eq!(got, payload);
        replay(&socket, &make(&between(&a, &b, v6, b"small")), 0).expect("sent");
        let small = capture.next(|f| f.source().port() == 40000);
        verify(&small.bytes);
        assert_eq!(small.frame().expect("a frame").payload(), b"small");
    }
}

#[test]
fn a_packet_socket_is_handed_no_packet() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let (from, to, mut capture) = (open(&a), open(&b), Capture::of(&b));
    from.send(&make(&between(&a, &b, true, b"x"))).expect("sent");
    capture.next(|f| f.payload() == b"x");
    let socket = to.socket.as_ref().expect("open");
    let mut room = [mem::MaybeUninit::uninit(); 1];
    assert_eq!(socket.recv(&mut room).map_err(|e| e.kind()), Err(io::ErrorKind::WouldBlock));
}

#[test]
fn each_frame_carries_its_mark_past_the_egress_hook() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let socket = open(&a);
    let mut replayed = Capture::marked(&a, MARK_REPLAY);
    let mut made = Capture::marked(&a, MARK_AGENT);
    let frame = make(&between(&a, &b, false, b"x"));
    socket.send(&frame).expect("sent");
    replay(&socket, &make(&between(&a, &b, false, b"y")), 0).expect("sent");
    assert_eq!(made.next(|_| true).frame().expect("a frame").payload(), b"x");
    assert_eq!(replayed.next(|_| true).frame().expect("a frame").payload(), b"y");
    let raw = a.netns.run(IpSocket::open).expect("entered").expect("root may");
    let tuple = Frame::parse(&frame).expect("a frame").tuple();
    raw.send(&reset_packet(&tuple, 5, None), address_of(&b, false)).expect("sent");
    assert_eq!(made.next(|f| f.payload().is_empty()).frame().expect("a frame").seq(), 5);
}

#[test]
fn a_reset_through_the_pods_routes_finds_its_own_next_hop() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let raw = a.netns.run(IpSocket::open).expect("entered").expect("root may");
    let mut capture = Capture::of(&b);
    for v6 in [false, true] {
        let made = make(&between(&a, &b, v6, b""));
        let tuple = Frame::parse(&made).expect("a frame").tuple();
        raw.send(&reset_packet(&tuple, 7, Some(9)), address_of(&b, v6)).expect("sent");
        let got = capture.next(|f| f.source().port() == 40000);
        verify(&got.bytes);
        let frame = got.frame().expect("a frame");
        assert_eq!((frame.tuple(), frame.seq(), frame.ack()), (tuple, 7, 9));
        assert_eq!(frame.l2()[..6], b.link.mac);
    }
}

#[test]
fn what_cannot_be_sent_says_why() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let socket = open(&a);
    let long = make(&between(&a, &b, false, &[1; 3000]));
    assert!(matches!(replay(&socket, &long, 0), Err(SendError::TooLong(_))));
    assert!(matches!(replay(&socket, &long[..40], 0), Err(SendError::Frame(_))));
    lab.ip("a", "link set eth0 down");
    assert!(matches!(replay(&socket, &long, 1400), Err(SendError::Down)));
    let raw = a.netns.run(IpSocket::open).expect("entered").expect("root may");
    assert!(matches!(raw.send(&long[14..], address_of(&b, false)), Err(SendError::NoRoute(..))));
}
