use super::*;
use crate::abi::record::{OPT_SACK, OPT_TIMESTAMP, OPT_WSCALE};

/// A frame of BIG TCP over IPv6, up to the TCP checksum, and its length.
fn jumbo(payload: u32) -> ([u32; WORDS_JUMBO], u32) {
    let mut w = [0; WORDS_JUMBO];
    let total = payload + JUMBO + 20;
    (w[0], w[10], w[11]) = (0x6000_0000_u32.to_be(), 0x0600_c204_u32.to_be(), total.to_be());
    (w[2], w[6]) = (1, 2);
    (w[12], w[13], w[14], w[15]) = (ports(3, 4), 5_u32.to_be(), 6_u32.to_be(), 0x5018_0007_u32.to_be());
    (w, ETH + 40 + total)
}

#[test]
fn a_frame_of_big_tcp_is_read_behind_the_header_that_tells_its_length() {
    let ((w, len), mut p) = (jumbo(100_000), Packet::default());
    assert!(p.read_jumbo(&w, len) && p.jumbo());
    assert_eq!((p.len, p.tcp_at, p.payload_at, p.v6), (100_000, 62, 82, 1));
    assert_eq!((p.src, p.dst, p.ports), (Addr([1, 0, 0, 0]), Addr([2, 0, 0, 0]), ports(3, 4)));
    assert_eq!((p.seq, p.ack, p.window, p.flags), (5, 6, 7, 0x18));
}

#[test]
fn no_other_extension_header_is_taken_for_that() {
    let (w, len) = jumbo(100_000);
    let odd = |at: usize, value: u32| {
        let mut w = w;
        w[at] = value.to_be();
        Packet::default().read_jumbo(&w, len)
    };
    assert!(!odd(0, 0x4000_0000) && !odd(1, 0x0001_0000) && !odd(1, 0x0000_0640), "IPv6, no length, hop-by-hop");
    assert!(!odd(10, 0x1100_c204) && !odd(10, 0x0601_c204) && !odd(10, 0x0600_0502), "UDP, more options, another");
    assert!(!odd(11, 100_027) && !odd(11, 100_029), "another length than the frame's");
    assert!(!odd(15, 0x4018_0007), "a TCP header that is too short");
    let (small, len) = jumbo(60_000);
    assert!(!Packet::default().read_jumbo(&small, len), "64 KiB need no such header");
}

fn walk(bytes: &[u8], edit: OptionEdit) -> (Vec<u8>, SynOptions) {
    let mut o = [0xee; 64];
    o[..bytes.len()].copy_from_slice(bytes);
    let mut w = OptionWalk { len: bytes.len() as u32, edit, ..OptionWalk::default() };
    let mut steps = 0;
    while w.step(&mut o) {
        steps += 1;
        assert!(steps <= OPTION_STEPS, "the walk is bounded");
    }
    (o[..bytes.len()].to_vec(), w.syn)
}

/// As Linux sends it: MSS 1460, SACK permitted, timestamps, NOP, window scale 7.
const SYN: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

#[test]
fn a_syn_is_read() {
    let (same, syn) = walk(&SYN, OptionEdit::default());
    assert_eq!(same, SYN);
    assert_eq!(syn, SynOptions { mss: 1460, wscale: 7, options: OPT_SACK | OPT_TIMESTAMP | OPT_WSCALE });
}

#[test]
fn timestamps_become_nops_and_the_rest_stays() {
    let (new, _) = walk(&SYN, OptionEdit { strip_timestamp: true, ..OptionEdit::default() });
    assert_eq!(new[..6], SYN[..6]);
    assert_eq!(new[6..16], [1; 10]);
    assert_eq!(new[16..], SYN[16..]);
}

#[test]
fn multipath_and_fast_open_become_nops() {
    let (new, _) = walk(&[30, 4, 1, 2, 34, 2, 1, 1], OptionEdit { strip_multipath: true, ..OptionEdit::default() });
    assert_eq!(new, [1; 8]);
}

#[test]
fn ecn_is_asked_for_and_agreed_to_by_flags() {
    use crate::abi::record::OPT_ECN;
    for (flags, says) in [
        (flag::SYN | flag::ECE | flag::CWR, true),
        (flag::SYN, false),
        (flag::SYN | flag::ECE, false),
        (flag::SYN | flag::ACK | flag::ECE, true),
        (flag::SYN | flag::ACK, false),
        (flag::SYN | flag::ACK | flag::ECE | flag::CWR, false),
    ] {
        assert_eq!(Packet { flags, ..Packet::default() }.ecn() == OPT_ECN, says, "{flags:#x}");
    }
}

#[test]
fn multipath_that_stays_is_noted() {
    use crate::abi::record::OPT_MULTIPATH;
    for (bytes, edit, noted) in [
        (&[30, 4, 1, 2][..], OptionEdit::default(), true),
        (&[30, 4, 1, 2], OptionEdit { strip_multipath: true, ..OptionEdit::default() }, false),
        (&[34, 2, 1, 1], OptionEdit::default(), false),
    ] {
        assert_eq!(walk(bytes, edit).1.options & OPT_MULTIPATH != 0, noted, "{bytes:?}");
    }
}

#[test]
fn every_edge_of_sack_blocks_moves() {
    let bytes = [1, 1, 5, 18, 0, 0, 0, 9, 0, 0, 0, 19, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1];
    let (new, _) = walk(&bytes, OptionEdit { sack: 1, ..OptionEdit::default() });
    assert_eq!(new, [1, 1, 5, 18, 0, 0, 0, 10, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 2]);
}

proptest::proptest! {
    #[test]
    fn no_options_make_the_walk_endless_or_leave_their_bytes(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..=40), sack: u32, a: bool, b: bool, c: bool
    ) {
        walk(&bytes, OptionEdit { strip_timestamp: a, strip_multipath: b, strip_sack: c, sack });
    }
}
