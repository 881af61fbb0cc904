//! Segments that end a connection at its backend: resets, and probes whose answer is reset.

use sidetrack_splice::abi::addr::{Addr, Tuple};

use super::{ACK, ETHERNET, IPV4, IPV6, RST, TCP, cut::finish};

/// A RST segment from `tuple`'s local side to its remote side, behind the Ethernet addresses of `l2`.
///
/// `seq` must be the next number that the receiver expects: to any other in its window it answers with a challenge
/// (RFC 5961, section 3.2). With `ack`, it is a RST+ACK.
#[must_use]
pub fn reset_frame(l2: &[u8; ETHERNET], tuple: &Tuple, seq: u32, ack: Option<u32>) -> Vec<u8> {
    bare(l2, tuple, seq, ack.unwrap_or(0), if ack.is_some() { RST | ACK } else { RST })
}

/// A segment without payload or window.
fn bare(l2: &[u8; ETHERNET], tuple: &Tuple, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let v4 = tuple.local.is_v4() && tuple.remote.is_v4();
    let mut frame = Vec::with_capacity(ETHERNET + 60);
    frame.extend(&l2[..12]);
    if v4 {
        frame.extend(IPV4.to_be_bytes());
        // Version and header length, service, total length, id, DF, TTL, protocol, checksum.
        frame.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0]);
        for word in [tuple.local.v4_word(), tuple.remote.v4_word()] {
            frame.extend(word.to_ne_bytes());
        }
    } else {
        frame.extend(IPV6.to_be_bytes());
        // Version, class and flow label, payload length, next header, hop limit.
        frame.extend([0x60, 0, 0, 0, 0, 0, TCP, 64]);
        for Addr(words) in [tuple.local, tuple.remote] {
            frame.extend(words.into_iter().flat_map(u32::to_ne_bytes));
        }
    }
    let tcp = frame.len();
    frame.extend(tuple.local_port.to_ne_bytes());
    frame.extend(tuple.remote_port.to_ne_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    // Header length, flags, window, checksum, urgent pointer.
    frame.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    finish(&mut frame, !v4, tcp);
    frame
}

/// The same without the Ethernet header, for an [`IpSocket`](crate::cold::IpSocket).
#[must_use]
pub fn reset_packet(tuple: &Tuple, seq: u32, ack: Option<u32>) -> Vec<u8> {
    reset_frame(&[0; ETHERNET], tuple, seq, ack).split_off(ETHERNET)
}

/// A probe as a keep-alive sends it: an acknowledgement whose number lies before what the receiver expects. It answers with what it
/// expects (RFC 9293, section 3.10.7.4), which a kernel that has no such connection turns into the exact reset. Without the
/// Ethernet header.
#[must_use]
pub fn probe_packet(tuple: &Tuple, seq: u32, ack: u32) -> Vec<u8> {
    bare(&[0; ETHERNET], tuple, seq, ack, ACK).split_off(ETHERNET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::frame::{Frame, testing::*};

    #[test]
    fn a_reset_is_a_whole_frame_of_its_connection() {
        for v6 in [false, true] {
            let made = spec(v6, b"held");
            let held = make(&made);
            let held = Frame::parse(&held).expect("a frame");
            for ack in [None, Some(0x8000_0001)] {
                let frame = reset_frame(held.l2(), &held.tuple(), 0xdead_beef, ack);
                verify(&frame);
                let it = Frame::parse(&frame).expect("a frame");
                assert_eq!((it.l2(), it.tuple()), (held.l2(), held.tuple()));
                assert_eq!((it.seq(), it.ack(), it.payload()), (0xdead_beef, ack.unwrap_or(0), &[][..]));
                assert_eq!(it.flags(), if ack.is_some() { RST | ACK } else { RST });
                assert_eq!(reset_packet(&held.tuple(), 0xdead_beef, ack), frame[ETHERNET..]);
            }
            let probe = [&held.l2()[..], &probe_packet(&held.tuple(), 7, 0x8000_0001)].concat();
            verify(&probe);
            let it = Frame::parse(&probe).expect("a frame");
            assert_eq!((it.tuple(), it.seq(), it.ack(), it.flags()), (held.tuple(), 7, 0x8000_0001, ACK));
        }
    }
}
