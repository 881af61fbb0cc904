//! The segment that an ICMP "too big" quotes (RFC 792, RFC 1191; RFC 4443, section 3.2).
//!
//! A router on the way to a fork names a segment by the leg's addresses, ports and sequence number, of which the client's kernel
//! knows nothing: it would go on sending segments that never arrive. So the quote is translated to what the client has sent.

use crate::{
    abi::{
        addr::{Addr, Tuple},
        record::Leg,
    },
    checksum::Diff,
    packet::ports,
    seq,
};

/// A message of ICMP for IPv4 behind the Ethernet header, in words: outer header (5), ICMP header (2), quoted header (5), ports,
/// number.
pub const WORDS_V4: usize = 14;
/// The same for IPv6: outer header (10), ICMP header (2), quoted header (10), ports, number.
pub const WORDS_V6: usize = 24;
/// Offset of the message's checksum behind the Ethernet header.
pub const CHECK_V4: u32 = 22;
/// Offset of the quoted header's checksum; IPv6 has none.
pub const QUOTED_CHECK_V4: u32 = 38;
/// Offset of the quoted destination address, with ports and number behind it.
pub const QUOTED_V4: u32 = 44;
/// As [`CHECK_V4`].
pub const CHECK_V6: u32 = 42;
/// As [`QUOTED_V4`].
pub const QUOTED_V6: u32 = 72;

/// Protocol number of ICMP for IPv4.
pub const ICMP: u8 = 1;
/// Of ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// Of TCP.
const TCP: u32 = 6;

/// A quoted segment of the pod's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// Its tuple.
    pub tuple: Tuple,
    /// Its ports, in memory order.
    pub ports: u32,
    /// Its sequence number.
    pub seq: u32,
}

impl Quote {
    /// Reads the message. False: it is another one, or quotes something else than plain TCP.
    #[inline(always)]
    #[must_use]
    pub fn read_v4(&mut self, w: &[u32; WORDS_V4]) -> bool {
        let plain = |first: u32| u32::from_be(first) >> 24 == 0x45;
        let protocol = |third: u32| u32::from_be(third) >> 16 & 0xff;
        // destination unreachable, fragmentation needed; no fragment of such a message
        let too_big = u32::from_be(w[5]) >> 16 == (3 << 8 | 4);
        let fragment = u32::from_be(w[1]) << 18 != 0;
        let ours = plain(w[0]) && protocol(w[2]) == u32::from(ICMP) && too_big && !fragment;
        if !ours || !plain(w[7]) || protocol(w[9]) != TCP {
            return false;
        }
        self.take(Addr::v4(w[10]), Addr::v4(w[11]), w[12], w[13]);
        true
    }

    /// The same for IPv6.
    #[inline(always)]
    #[must_use]
    pub fn read_v6(&mut self, w: &[u32; WORDS_V6]) -> bool {
        let next = |second: u32| u32::from_be(second) >> 8 & 0xff;
        let too_big = u32::from_be(w[10]) >> 16 == 2 << 8;
        if next(w[1]) != u32::from(ICMPV6) || !too_big || u32::from_be(w[12]) >> 28 != 6 || next(w[13]) != TCP {
            return false;
        }
        self.take(Addr([w[14], w[15], w[16], w[17]]), Addr([w[18], w[19], w[20], w[21]]), w[22], w[23]);
        true
    }

    #[inline(always)]
    fn take(&mut self, src: Addr, dst: Addr, both: u32, seq: u32) {
        let (low, high) = (both as u16, (both >> 16) as u16);
        let (src_port, dst_port) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
        self.tuple = Tuple { local: src, remote: dst, local_port: src_port, remote_port: dst_port };
        self.ports = both;
        self.seq = u32::from_be(seq);
    }

    /// What stands there as the client has sent it, where `leg` is the quoted segment's: ports and number, and the difference that
    /// they make.
    #[inline(always)]
    #[must_use]
    pub fn client(&self, leg: &Leg) -> ([u32; 2], Diff) {
        let numbers = seq::to_client(leg, seq::Numbers { seq: 0, ack: self.seq });
        let words = [ports(leg.conn.local_port, leg.conn.remote_port), numbers.ack.to_be()];
        let mut diff = Diff::new();
        diff.word(self.ports, words[0]);
        diff.word(self.seq.to_be(), words[1]);
        (words, diff)
    }

    /// The difference of the destination address.
    #[inline(always)]
    #[must_use]
    pub fn address(&self, leg: &Leg) -> Diff {
        let mut diff = Diff::new();
        let mut i = 0;
        while i < 4 {
            diff.word(self.tuple.remote.0[i], leg.conn.remote.0[i]);
            i += 1;
        }
        diff
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checksum::tests::checksum;

    /// As `csum_replace_by_diff` in include/net/checksum.h, on the half of a word at `at` bytes.
    fn fix(words: &mut [u32], at: u32, diff: Diff) {
        let shift = if at.is_multiple_of(4) { 0 } else { 16 };
        let word = &mut words[at as usize / 4];
        let new = checksum(&[u32::from(!((*word >> shift) as u16)), diff.sum()]);
        *word = *word & !(0xffff << shift) | u32::from(new) << shift;
    }

    fn be(words: &[u32]) -> Vec<u32> {
        words.iter().map(|w| w.to_be()).collect()
    }

    /// "Too big" of a router, whose checksums are right, that quotes this segment.
    fn v4(src: u32, dst: u32, ports: u32, seq: u32) -> [u32; WORDS_V4] {
        let (outer, icmp) = ([0x4500_0038, 0, 0x4001_0000, 0x0a00_0001, src.to_be()], [0x0304_0000, 1300]);
        let quoted = [0x4500_05dc, 0x4000, 0x4006_0000];
        let mut w: [u32; WORDS_V4] =
            be(&[&outer[..], &icmp, &quoted, &[0; 4]].concat()).try_into().expect("as many words");
        (w[4], w[10], w[11], w[12], w[13]) = (src, src, dst, ports, seq.to_be());
        let header = checksum(&w[7..12]);
        w[9] |= u32::from(header) << 16;
        let check = checksum(&w[5..]);
        w[5] |= u32::from(check) << 16;
        w
    }

    fn leg(conn: Tuple, cs_off: u32) -> Leg {
        Leg { conn, cs_off, ..Leg::default() }
    }

    proptest! {
        #[test]
        fn a_quote_becomes_what_the_client_has_sent_and_its_checksums_hold(
            src: u32, dst: u32, ports_: u32, seq: u32, remote: u32, both: (u16, u16), off: u32
        ) {
            let mut w = v4(src, dst, ports_, seq);
            let mut quote = Quote::default();
            prop_assert!(quote.read_v4(&w));
            prop_assert_eq!((quote.tuple.local, quote.tuple.remote, quote.seq), (Addr::v4(src), Addr::v4(dst), seq));
            let conn = Tuple {
                local: Addr::v4(src), remote: Addr::v4(remote), local_port: both.0, remote_port: both.1,
            };
            let leg = leg(conn, off);
            let (words, rest) = quote.client(&leg);
            fix(&mut w, QUOTED_CHECK_V4, quote.address(&leg));
            fix(&mut w, CHECK_V4, rest);
            w[QUOTED_V4 as usize / 4] = remote;
            w[QUOTED_V4 as usize / 4 + 1..].copy_from_slice(&words);
            prop_assert_eq!(checksum(&w[7..12]), 0, "the quoted header");
            prop_assert_eq!(checksum(&w[5..]), 0, "the message");
            prop_assert!(quote.read_v4(&w));
            prop_assert_eq!((quote.tuple, quote.seq), (conn, seq.wrapping_sub(off)));
        }

        #[test]
        fn so_it_does_in_the_newer_family(
            src: [u32; 4], dst: [u32; 4], ports_: u32, seq: u32, remote: [u32; 4], both: (u16, u16), off: u32
        ) {
            let mut w = v6(src, dst, ports_, seq);
            w[10] |= u32::from(checksum(&w[10..])) << 16;
            let mut quote = Quote::default();
            prop_assert!(quote.read_v6(&w));
            let conn = Tuple { local: Addr(src), remote: Addr(remote), local_port: both.0, remote_port: both.1 };
            let leg = leg(conn, off);
            let (words, rest) = quote.client(&leg);
            fix(&mut w, CHECK_V6, quote.address(&leg));
            fix(&mut w, CHECK_V6, rest);
            w[QUOTED_V6 as usize / 4..][..4].copy_from_slice(&remote);
            w[QUOTED_V6 as usize / 4 + 4..].copy_from_slice(&words);
            prop_assert_eq!(checksum(&w[10..]), 0, "the pseudo header has not changed");
            prop_assert!(quote.read_v6(&w));
            prop_assert_eq!((quote.tuple, quote.seq), (conn, seq.wrapping_sub(off)));
        }
    }

    /// As [`v4`], but for the checksum.
    fn v6(src: [u32; 4], dst: [u32; 4], ports: u32, seq: u32) -> [u32; WORDS_V6] {
        let mut w = [0; WORDS_V6];
        w[0] = 0x6000_0000_u32.to_be();
        w[1] = (64 << 16 | 58 << 8 | 64_u32).to_be();
        w[10] = 0x0200_0000_u32.to_be();
        w[12] = 0x6000_0000_u32.to_be();
        w[13] = (1400 << 16 | 6 << 8 | 64_u32).to_be();
        w[14..18].copy_from_slice(&src);
        w[18..22].copy_from_slice(&dst);
        (w[22], w[23]) = (ports, seq.to_be());
        w
    }

    #[test]
    fn other_messages_are_left_alone() {
        let good = v4(1, 2, 3, 4);
        let mut quote = Quote::default();
        assert!(quote.read_v4(&good));
        let changes: [(usize, u32); 6] = [
            (0, 0x4600_0038), // options
            (1, 0x0000_2000), // a fragment
            (2, 0x4006_0000), // TCP
            (5, 0x0303_0000), // port unreachable
            (7, 0x4600_05dc), // quotes options
            (9, 0x4011_0000), // quotes UDP
        ];
        for (at, word) in changes {
            let mut w = good;
            w[at] = word.to_be();
            assert!(!quote.read_v4(&w), "word {at}");
        }
        let good = v6([1; 4], [2; 4], 3, 4);
        assert!(quote.read_v6(&good));
        let changes: [(usize, u32); 5] = [
            (1, 0x0040_0640),  // TCP
            (10, 0x0100_0000), // unreachable
            (10, 0x0201_0000), // a code that there is not
            (12, 0x4500_0000), // quotes IPv4
            (13, 0x0578_1140), // quotes UDP
        ];
        for (at, word) in changes {
            let mut w = good;
            w[at] = word.to_be();
            assert!(!quote.read_v6(&w), "word {at}");
        }
    }
}
