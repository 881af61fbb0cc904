//! Bare segments made from nothing: the answer to a packet, in the other direction, without options and payload.

use crate::packet::{Packet, WORDS_V4, WORDS_V6, flag, ports};

/// What a pseudo header ends with: protocol 6, and the 20 bytes of a TCP header.
const PROTOCOL_AND_LENGTH: u32 = 0x0006_0014;

/// Ones' complement sum of words in memory order, folded to 16 bits.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let s = (sum & 0xffff_ffff) + (sum >> 32);
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    ((s & 0xffff) + (s >> 16)) as u16
}

/// A 16-bit value as the upper half, in memory order, of a word whose lower half is zero.
#[inline(always)]
const fn upper(check: u16) -> u32 {
    // A checksum is computed over words in memory order, so its bytes are in memory order already.
    if cfg!(target_endian = "little") { check as u32 } else { (check as u32) << 16 }
}

/// The TCP words of the answer, whose pseudo header sums up to `pseudo`.
#[inline(always)]
fn tcp(p: &Packet, seq: u32, ack: u32, flags: u8, pseudo: u64, partial: bool) -> [u32; 5] {
    // A window of one: enough for a FIN, and less than what the client says itself, which a receiver takes over only where it is
    // more (RFC 9293, section 3.10.7.4).
    let window = u32::from(flags & flag::RST == 0);
    let control = (5_u32 << 28 | u32::from(flags) << 16 | window).to_be();
    let words = [ports(p.dst_port(), p.src_port()), seq.to_be(), ack.to_be(), control];
    let check = if partial {
        // what CHECKSUM_PARTIAL starts from
        fold(pseudo)
    } else {
        let mut sum = pseudo;
        let mut i = 0;
        while i < 4 {
            sum += u64::from(words[i]);
            i += 1;
        }
        !fold(sum)
    };
    [words[0], words[1], words[2], words[3], upper(check)]
}

/// IPv4 and TCP header of a segment that answers `p`. With `partial` the checksum field holds the pseudo header's sum
/// alone, which the kernel (or the network card) completes.
#[inline(always)]
#[must_use]
pub fn v4(p: &Packet, seq: u32, ack: u32, flags: u8, partial: bool) -> [u32; WORDS_V4] {
    let (src, dst) = (p.dst.v4_word(), p.src.v4_word());
    // version, header length, total length 40; do not fragment; TTL 64, TCP
    let ip = [0x4500_0028_u32.to_be(), 0x4000_u32.to_be(), 0x4006_0000_u32.to_be()];
    let addresses = u64::from(src) + u64::from(dst);
    let check = !fold(u64::from(ip[0]) + u64::from(ip[1]) + u64::from(ip[2]) + addresses);
    // the checksum is the lower half, in memory order, of the third word
    let third = ip[2] | if cfg!(target_endian = "little") { u32::from(check) << 16 } else { u32::from(check) };
    let pseudo = addresses + u64::from(PROTOCOL_AND_LENGTH.to_be());
    let t = tcp(p, seq, ack, flags, pseudo, partial);
    [ip[0], ip[1], third, src, dst, t[0], t[1], t[2], t[3], t[4]]
}

/// The same for IPv6.
#[inline(always)]
#[must_use]
pub fn v6(p: &Packet, seq: u32, ack: u32, flags: u8, partial: bool) -> [u32; WORDS_V6] {
    let (src, dst) = (p.dst.0, p.src.0);
    let mut pseudo = u64::from(PROTOCOL_AND_LENGTH.to_be());
    let mut i = 0;
    while i < 4 {
        pseudo += u64::from(src[i]) + u64::from(dst[i]);
        i += 1;
    }
    let t = tcp(p, seq, ack, flags, pseudo, partial);
    // payload length 20, TCP, hop limit 64
    let ip = [0x6000_0000_u32.to_be(), 0x0014_0640_u32.to_be()];
    [ip[0], ip[1], src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], t[0], t[1], t[2], t[3], t[4]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{abi::addr::Addr, packet::flag};

    fn sum(words: &[u32]) -> u16 {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut s: u32 = bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
        while s >> 16 != 0 {
            s = (s & 0xffff) + (s >> 16);
        }
        s as u16
    }

    fn packet(src: std::net::IpAddr, dst: std::net::IpAddr) -> Packet {
        Packet { src: src.into(), dst: dst.into(), ports: ports(4000_u16.to_be(), 80_u16.to_be()), ..Packet::default() }
    }

    #[test]
    fn an_answer_has_valid_checksums_and_reads_back() {
        let p = packet("10.0.0.1".parse().unwrap(), "10.96.0.10".parse().unwrap());
        let w = v4(&p, 7, 9, flag::RST | flag::ACK, false);
        assert_eq!(sum(&w[..5]), 0xffff);
        let pseudo = [w[3], w[4], PROTOCOL_AND_LENGTH.to_be()];
        assert_eq!(sum(&[&pseudo[..], &w[5..]].concat()), 0xffff);
        let mut back = Packet::default();
        assert!(back.read_v4(&w, 54));
        assert_eq!((back.src, back.dst, back.seq, back.ack, back.len), (p.dst, p.src, 7, 9, 0));
        assert_eq!((back.src_port(), back.dst_port()), (p.dst_port(), p.src_port()));
        assert_eq!(back.flags, flag::RST | flag::ACK);

        let p = packet("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let w = v6(&p, 7, 9, flag::ACK, false);
        let pseudo: Vec<u32> = [&w[2..10], &[PROTOCOL_AND_LENGTH.to_be()]].concat();
        assert_eq!(sum(&[&pseudo[..], &w[10..]].concat()), 0xffff);
        let mut back = Packet::default();
        assert!(back.read_v6(&w, 74));
        assert_eq!((back.src, back.dst, back.seq, back.ack, back.len), (p.dst, p.src, 7, 9, 0));
    }

    #[test]
    fn an_acknowledgement_leaves_a_window_of_one_and_a_reset_none() {
        let p = packet("10.0.0.1".parse().unwrap(), "10.96.0.10".parse().unwrap());
        for (flags, window) in [(flag::ACK, 1), (flag::RST, 0), (flag::RST | flag::ACK, 0)] {
            let mut back = Packet::default();
            assert!(back.read_v4(&v4(&p, 7, 9, flags, false), 54));
            assert_eq!((back.flags, back.window), (flags, window));
        }
    }

    #[test]
    fn a_partial_checksum_is_the_pseudo_headers() {
        let p = packet("10.0.0.1".parse().unwrap(), "10.96.0.10".parse().unwrap());
        let w = v4(&p, 7, 9, flag::RST, true);
        let pseudo = [w[3], w[4], PROTOCOL_AND_LENGTH.to_be()];
        assert_eq!(w[9].to_ne_bytes()[..2], sum(&pseudo).to_be_bytes());
        assert_eq!(Addr::from(std::net::IpAddr::from(p.src)), p.src);
    }
}
