//! Frames as the kernel hands them over (Ethernet, IPv4 or IPv6, TCP): reading, cutting, making.

mod ack;
mod checksum;
mod cut;
mod reset;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sidetrack_splice::{
    abi::addr::Tuple,
    packet::{OptionWalk, Options},
};

pub use self::{
    ack::acknowledge,
    cut::cut,
    reset::{probe_packet, reset_frame, reset_packet},
};

/// Length of the Ethernet header. Pods' interfaces carry VLAN tags outside the frame, if at all.
pub const ETHERNET: usize = 14;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
/// The checksum's offset in the TCP header.
pub(super) const CHECK: usize = 16;

/// The FIN flag of TCP.
pub const FIN: u8 = 0x01;
/// The RST flag.
pub const RST: u8 = 0x04;
/// The PSH flag.
pub const PSH: u8 = 0x08;
/// The ACK flag.
pub const ACK: u8 = 0x10;
/// The URG flag.
pub const URG: u8 = 0x20;
/// The CWR flag.
pub const CWR: u8 = 0x80;

/// Why bytes are not a frame that can be worked on. The kernel programs hold none of these: seeing one is a fault of
/// ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It ends within its headers.
    #[error("a frame of {0} bytes ends within its headers; please report this")]
    Short(usize),
    /// Neither IPv4 nor IPv6.
    #[error("a frame with EtherType {0:#06x} is neither IPv4 nor IPv6; please report this")]
    NotIp(u16),
    /// Not TCP, or behind an extension header.
    #[error("an IP packet with protocol {0} is not plain TCP; please report this")]
    NotTcp(u8),
    /// A fragment.
    #[error("a fragment of an IP packet cannot be worked on; please report this")]
    Fragment,
    /// A header says another length than there is.
    #[error("a frame's headers say {says} bytes, but there are {has}; please report this")]
    Length {
        /// By the headers.
        says: usize,
        /// In truth.
        has: usize,
    },
    /// It cannot be cut there.
    #[error("a frame with {len} bytes of payload cannot be cut at {at}; please report this")]
    Cut {
        /// Where.
        at: usize,
        /// Of how many.
        len: usize,
    },
}

/// A frame that was read: views, no copies.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Without padding behind the IP packet.
    bytes: &'a [u8],
    l2: &'a [u8; ETHERNET],
    v6: bool,
    tcp: usize,
    payload: usize,
}

impl<'a> Frame<'a> {
    /// Reads the headers. IPv4 options are stepped over; IPv6 extension headers and fragments are refused.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let short = || FrameError::Short(bytes.len());
        let l2 = bytes.first_chunk().ok_or_else(short)?;
        let byte = |at: usize| bytes.get(at).copied().ok_or_else(short);
        let (v6, tcp, end) = match word(bytes, 12).ok_or_else(short)? {
            IPV4 => {
                // More fragments, or an offset.
                if word(bytes, ETHERNET + 6).ok_or_else(short)? & 0x3fff != 0 {
                    return Err(FrameError::Fragment);
                }
                let header = usize::from(byte(ETHERNET)? & 15) * 4;
                let total = usize::from(word(bytes, ETHERNET + 2).ok_or_else(short)?);
                protocol(byte(ETHERNET + 9)?)?;
                (false, ETHERNET + header.max(20), ETHERNET + total)
            }
            IPV6 => {
                protocol(byte(ETHERNET + 6)?)?;
                let payload = usize::from(word(bytes, ETHERNET + 4).ok_or_else(short)?);
                (true, ETHERNET + 40, ETHERNET + 40 + payload)
            }
            other => return Err(FrameError::NotIp(other)),
        };
        let payload = tcp + usize::from(byte(tcp + 12)? >> 4).max(5) * 4;
        if payload > end || end > bytes.len() {
            return Err(FrameError::Length { says: end.max(payload), has: bytes.len() });
        }
        Ok(Self { bytes: &bytes[..end], l2, v6, tcp, payload })
    }

    /// Ethernet header, IP packet; no padding.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its Ethernet header.
    #[must_use]
    pub fn l2(&self) -> &'a [u8; ETHERNET] {
        self.l2
    }

    /// Whether it is IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// Offset of the TCP header.
    #[must_use]
    pub fn tcp_at(&self) -> usize {
        self.tcp
    }

    /// Offset of the payload.
    #[must_use]
    pub fn payload_at(&self) -> usize {
        self.payload
    }

    /// The TCP payload.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload..]
    }

    /// Sequence number.
    #[must_use]
    pub fn seq(&self) -> u32 {
        self.tcp_u32(4)
    }

    /// Acknowledgement number.
    #[must_use]
    pub fn ack(&self) -> u32 {
        self.tcp_u32(8)
    }

    /// TCP flags.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.bytes[self.tcp + 13]
    }

    /// The `TSval` of its timestamps, if it has any (RFC 7323 3.2).
    #[must_use]
    pub fn stamp(&self) -> Option<u32> {
        let given = &self.bytes[self.tcp + 20..self.payload];
        let mut options: Options = [0; 64];
        options[..given.len()].copy_from_slice(given);
        let mut walk = OptionWalk { len: given.len() as u32, ..OptionWalk::default() };
        while walk.step(&mut options) {}
        let value = options.get(walk.stamp as usize + 1..)?.first_chunk()?;
        (walk.stamp != 0).then(|| u32::from_be_bytes(*value))
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        (self.ip(if self.v6 { 8 } else { 12 }), self.tcp_u16(0)).into()
    }

    /// Where it goes.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        (self.ip(if self.v6 { 24 } else { 16 }), self.tcp_u16(2)).into()
    }

    /// The connection it belongs to, as its sender sees it.
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        Tuple::new(self.source(), self.destination())
    }

    /// The sum of the pseudo header, folded and not inverted: what the checksum field holds when the rest is left to
    /// the device (`CHECKSUM_PARTIAL`).
    #[must_use]
    pub fn pseudo(&self) -> u16 {
        pseudo(self.bytes, self.v6, self.tcp)
    }

    fn ip(&self, at: usize) -> IpAddr {
        let bytes = &self.bytes[ETHERNET + at..];
        if self.v6 {
            Ipv6Addr::from(*bytes.first_chunk::<16>().expect("parse has read the IPv6 header")).into()
        } else {
            Ipv4Addr::from(*bytes.first_chunk::<4>().expect("parse has read the IPv4 header")).into()
        }
    }

    fn tcp_u16(&self, at: usize) -> u16 {
        word(self.bytes, self.tcp + at).expect("parse has read the TCP header")
    }

    fn tcp_u32(&self, at: usize) -> u32 {
        u32::from(self.tcp_u16(at)) << 16 | u32::from(self.tcp_u16(at + 2))
    }
}

/// [`Frame::pseudo`] of the frame whose TCP header starts at `tcp`.
fn pseudo(bytes: &[u8], v6: bool, tcp: usize) -> u16 {
    let addresses = if v6 { &bytes[ETHERNET + 8..ETHERNET + 40] } else { &bytes[ETHERNET + 12..ETHERNET + 20] };
    checksum::fold(checksum::sum(addresses) + u64::from(TCP) + (bytes.len() - tcp) as u64)
}

fn protocol(protocol: u8) -> Result<(), FrameError> {
    if protocol == TCP { Ok(()) } else { Err(FrameError::NotTcp(protocol)) }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod testing {
    //! Frames for tests, and a checksum written another way than the one that is tested.

    use super::*;

    /// What a frame is made of.
    pub(crate) struct Spec<'a> {
        pub(crate) l2: [u8; 12],
        pub(crate) from: SocketAddr,
        pub(crate) to: SocketAddr,
        pub(crate) seq: u32,
        pub(crate) ack: u32,
        pub(crate) flags: u8,
        pub(crate) payload: &'a [u8],
    }

    /// A frame with 12 bytes of TCP options and a checksum field that holds nonsense, as one that is left to the device.
    pub(crate) fn make(it: &Spec<'_>) -> Vec<u8> {
        let mut out = it.l2.to_vec();
        let tcp = 32 + it.payload.len();
        match (it.from.ip(), it.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                out.extend([8, 0, 0x45, 0]);
                out.extend(u16::try_from(tcp + 20).expect("64 KiB at most").to_be_bytes());
                out.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
                out.extend(from.octets());
                out.extend(to.octets());
                let check = !ones(&out[14..34]);
                out[24..26].copy_from_slice(&check.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                out.extend(u16::try_from(tcp).expect("64 KiB at most").to_be_bytes());
                out.extend([6, 64]);
                out.extend(from.octets());
                out.extend(to.octets());
            }
            _ => panic!("two families"),
        }
        out.extend(it.from.port().to_be_bytes());
        out.extend(it.to.port().to_be_bytes());
        out.extend(it.seq.to_be_bytes());
        out.extend(it.ack.to_be_bytes());
        out.extend([0x80, it.flags, 1, 0, 0xaa, 0xbb, 0, 9]);
        out.extend([1; 12]);
        out.extend(it.payload);
        out
    }

    /// Ones' complement sum, a byte at a time with the carry taken round at once (RFC 1071, by the definition).
    pub(crate) fn ones(bytes: &[u8]) -> u16 {
        let mut sum = 0_u16;
        for (at, byte) in bytes.iter().enumerate() {
            let word = if at % 2 == 0 { u16::from(*byte) << 8 } else { u16::from(*byte) };
            let (next, carry) = sum.overflowing_add(word);
            sum = next + u16::from(carry);
        }
        sum
    }

    /// Panics unless both checksums are right.
    pub(crate) fn verify(frame: &[u8]) {
        let it = Frame::parse(frame).expect("a frame");
        let mut pseudo = if it.is_v6() { frame[22..54].to_vec() } else { frame[26..34].to_vec() };
        pseudo.extend([0, TCP]);
        pseudo.extend(u32::try_from(it.bytes().len() - it.tcp_at()).expect("64 KiB at most").to_be_bytes());
        pseudo.extend(&it.bytes()[it.tcp_at()..]);
        assert_eq!(ones(&pseudo), 0xffff, "TCP checksum");
        if !it.is_v6() {
            assert_eq!(ones(&frame[14..it.tcp_at()]), 0xffff, "IPv4 header checksum");
        }
    }

    pub(crate) fn spec(v6: bool, payload: &[u8]) -> Spec<'_> {
        let ip = |last: u8| -> IpAddr {
            if v6 { Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0xfeed, last.into()).into() } else { [10, 9, 0, last].into() }
        };
        Spec {
            l2: [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1],
            from: (ip(1), 40000).into(),
            to: (ip(2), 80).into(),
            seq: 0xffff_ff00,
            ack: 77,
            flags: ACK | PSH,
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    #[test]
    fn a_frame_is_read_whole() {
        for v6 in [false, true] {
            let made = spec(v6, b"hello");
            let mut bytes = make(&made);
            let exact = bytes.len();
            bytes.extend([0; 7]);
            let it = Frame::parse(&bytes).expect("a frame");
            assert_eq!((it.is_v6(), it.bytes().len(), it.payload()), (v6, exact, &b"hello"[..]));
            assert_eq!((it.seq(), it.ack(), it.flags()), (made.seq, 77, ACK | PSH));
            assert_eq!((it.source(), it.destination()), (made.from, made.to));
            assert_eq!(it.tuple(), Tuple::new(made.from, made.to));
            assert_eq!(it.payload_at(), it.tcp_at() + 32);
            assert_eq!(it.l2()[..12], made.l2);
        }
    }

    #[test]
    fn the_pseudo_headers_sum_completed_by_the_rest_is_the_checksum() {
        for v6 in [false, true] {
            let mut bytes = make(&spec(v6, b"odd"));
            let it = Frame::parse(&bytes).expect("a frame");
            let (at, pseudo) = (it.tcp_at(), it.pseudo());
            bytes[at + CHECK..at + CHECK + 2].copy_from_slice(&pseudo.to_be_bytes());
            let check = !ones(&bytes[at..]);
            bytes[at + CHECK..at + CHECK + 2].copy_from_slice(&check.to_be_bytes());
            verify(&bytes);
        }
    }

    #[test]
    fn what_cannot_be_worked_on_is_refused() {
        let good = make(&spec(false, b"hello"));
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Frame::parse(&bytes).map(|_| ())
        };
        assert_eq!(with(13, 6), Err(FrameError::NotIp(0x0806)));
        assert_eq!(with(23, 17), Err(FrameError::NotTcp(17)));
        assert_eq!(with(20, 0x20), Err(FrameError::Fragment));
        assert_eq!(with(21, 1), Err(FrameError::Fragment));
        assert_eq!(with(17, 255), Err(FrameError::Length { says: 269, has: good.len() }));
        assert_eq!(with(17, 10), Err(FrameError::Length { says: 66, has: good.len() }));
        for len in 0..good.len() {
            assert!(Frame::parse(&good[..len]).is_err());
        }
        let mut v6 = make(&spec(true, b"hello"));
        v6[20] = 0;
        assert_eq!(Frame::parse(&v6).map(|_| ()), Err(FrameError::NotTcp(0)));
    }
}
