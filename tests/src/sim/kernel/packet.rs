//! Reading and writing frames, as `ebpf/src/skb.rs`, `ebpf/src/options.rs` and `ebpf/src/turn.rs`.

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        reason::Reason,
        record::{Leg, OPT_TIMESTAMP},
    },
    checksum::Diff,
    made,
    packet::{ETH, Edit, OptionEdit, OptionWalk, Options, Packet, SynOptions, WORDS_V4, WORDS_V6, flag},
    seq::{self, Stamps},
};

use super::{Kernel, Verdict};

/// `EtherType` of IPv4.
pub const ETHERTYPE_V4: [u8; 2] = [8, 0];
/// The same of IPv6.
pub const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];

/// Replace timestamps by NOPs.
pub const STRIP_TIMESTAMP: u32 = 1;
/// Replace MPTCP and TCP Fast Open by NOPs.
pub const STRIP_MULTIPATH: u32 = 2;
/// Replace a SYN's offer of SACK by NOPs.
pub const STRIP_SACK: u32 = 4;

const TIMESTAMP_ALONE: u32 = u32::from_ne_bytes([1, 1, 8, 10]);
const NOPS: u32 = u32::from_ne_bytes([1, 1, 1, 1]);

fn words<const N: usize>(frame: &[u8], at: usize) -> Option<[u32; N]> {
    let bytes = frame.get(at..at + 4 * N)?;
    let mut words = [0; N];
    for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
    }
    Some(words)
}

fn store(frame: &mut [u8], at: usize, words: &[u32]) {
    for (bytes, word) in frame[at..at + 4 * words.len()].chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
}

/// As the kernel's `csum_replace_by_diff`.
fn fix_checksum(frame: &mut [u8], at: usize, diff: u32) {
    let old = u16::from_ne_bytes([frame[at], frame[at + 1]]);
    let mut sum = u64::from(!old) + u64::from(diff);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[at..at + 2].copy_from_slice(&(!(sum as u16)).to_ne_bytes());
}

/// Reads the headers. False: not plain TCP.
pub fn parse(frame: &[u8], p: &mut Packet) -> bool {
    let len = frame.len() as u32;
    match frame.get(12..14) {
        Some(kind) if kind == ETHERTYPE_V4 => {
            words::<WORDS_V4>(frame, ETH as usize).is_some_and(|w| p.read_v4(&w, len))
        }
        Some(kind) if kind == ETHERTYPE_V6 => {
            words::<WORDS_V6>(frame, ETH as usize).is_some_and(|w| p.read_v6(&w, len))
        }
        _ => false,
    }
}

/// The tuple of a packet that leaves the pod.
#[must_use]
pub fn outbound(p: &Packet) -> Tuple {
    Tuple { local: p.src, remote: p.dst, local_port: p.src_port(), remote_port: p.dst_port() }
}

/// The tuple of a packet that comes to the pod.
#[must_use]
pub fn inbound(p: &Packet) -> Tuple {
    Tuple { local: p.dst, remote: p.src, local_port: p.dst_port(), remote_port: p.src_port() }
}

/// Rewrites the headers from the source address to the window, and the checksums.
pub fn rewrite(frame: &mut [u8], p: &Packet, edit: &Edit) {
    let check = p.tcp_at as usize + 16;
    if p.v6 == 0 {
        let (words, addresses, rest) = edit.words_v4(p);
        fix_checksum(frame, ETH as usize + 10, addresses.sum());
        fix_checksum(frame, check, addresses.sum());
        fix_checksum(frame, check, rest.sum());
        store(frame, ETH as usize + 12, &words);
    } else {
        let (words, addresses, rest) = edit.words_v6(p);
        fix_checksum(frame, check, addresses.sum());
        fix_checksum(frame, check, rest.sum());
        store(frame, ETH as usize + 8, &words);
    }
}

/// Gives a segment another sequence number.
pub fn renumber(frame: &mut [u8], p: &mut Packet, seq: u32) {
    let mut diff = Diff::new();
    diff.word(p.seq.to_be(), seq.to_be());
    p.seq = seq;
    store(frame, p.tcp_at as usize + 4, &[seq.to_be()]);
    fix_checksum(frame, p.tcp_at as usize + 16, diff.sum());
}

/// Walks through the options of a packet, and edits them. Nothing to edit: `flags` and `sack` are zero.
pub fn options(frame: &mut [u8], p: &Packet, flags: u32, sack: u32) -> OptionWalk {
    let (at, len) = (p.tcp_at as usize + 20, p.options_len() as usize);
    let mut bytes: Options = [0; 64];
    bytes[..len].copy_from_slice(&frame[at..at + len]);
    let old = bytes;
    let mut walk = OptionWalk {
        len: len as u32,
        edit: OptionEdit {
            strip_timestamp: flags & STRIP_TIMESTAMP != 0,
            strip_multipath: flags & STRIP_MULTIPATH != 0,
            strip_sack: flags & STRIP_SACK != 0,
            sack,
        },
        syn: SynOptions { mss: 536, ..SynOptions::default() },
        ..OptionWalk::default()
    };
    while walk.step(&mut bytes) {}
    if flags != 0 || sack != 0 {
        let mut diff = Diff::new();
        for (old, new) in old[..len].chunks_exact(4).zip(bytes[..len].chunks_exact(4)) {
            let word = |b: &[u8]| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
            diff.word(word(old), word(new));
        }
        frame[at..at + len].copy_from_slice(&bytes[..len]);
        fix_checksum(frame, p.tcp_at as usize + 16, diff.sum());
    }
    walk
}

/// The timestamps of a packet.
pub fn stamps(frame: &mut [u8], p: &Packet) -> Option<Stamps> {
    let at = stamps_at(frame, p)?;
    let w = words::<3>(frame, at - 4)?;
    Some(Stamps { val: u32::from_be(w[1]), ecr: u32::from_be(w[2]) })
}

/// Their offset in the frame.
fn stamps_at(frame: &mut [u8], p: &Packet) -> Option<usize> {
    if p.options_len() < 12 {
        return None;
    }
    let first = words::<1>(frame, p.tcp_at as usize + 20)?;
    if first[0] == TIMESTAMP_ALONE {
        return Some(p.tcp_at as usize + 24);
    }
    let stamp = options(frame, p, 0, 0).stamp;
    (stamp != 0).then(|| p.tcp_at as usize + 20 + stamp as usize - 1 + 2)
}

/// Makes the options of a segment fit for the other side of a leg.
pub fn fit(frame: &mut [u8], p: &Packet, leg: &Leg, inward: bool) {
    let len = p.options_len();
    if len == 0 {
        return;
    }
    let sack = if inward { leg.cs_off.wrapping_neg() } else { leg.ss_off.wrapping_neg() };
    let first = words::<1>(frame, p.tcp_at as usize + 20).unwrap_or_default();
    if len >= 12 && first[0] == TIMESTAMP_ALONE {
        restamp(frame, p, leg, inward, p.tcp_at as usize + 24);
        if len != 12 && sack != 0 {
            options(frame, p, 0, sack);
        }
        return;
    }
    if leg.options & OPT_TIMESTAMP == 0 {
        options(frame, p, STRIP_TIMESTAMP, sack);
        return;
    }
    let at = stamps_at(frame, p);
    if at.is_some_and(|at| (at - p.tcp_at as usize) & 1 != 0) {
        options(frame, p, STRIP_TIMESTAMP, sack);
        return;
    }
    if let Some(at) = at {
        restamp(frame, p, leg, inward, at);
    }
    if sack != 0 {
        options(frame, p, 0, sack);
    }
}

fn restamp(frame: &mut [u8], p: &Packet, leg: &Leg, inward: bool, at: usize) {
    let Some(w) = words::<3>(frame, at - 4) else { return };
    let new = if leg.options & OPT_TIMESTAMP == 0 {
        [NOPS; 3]
    } else {
        let s = Stamps { val: u32::from_be(w[1]), ecr: u32::from_be(w[2]) };
        let s = if inward { seq::stamps_to_client(leg, s) } else { seq::stamps_to_leg(leg, s) };
        [w[0], s.val.to_be(), s.ecr.to_be()]
    };
    let mut diff = Diff::new();
    for (old, new) in w.iter().zip(&new) {
        diff.word(*old, *new);
    }
    store(frame, at - 4, &new);
    fix_checksum(frame, p.tcp_at as usize + 16, diff.sum());
}

/// Makes the packet a bare segment in the other direction.
fn turn(frame: &mut Vec<u8>, p: &Packet, seq: u32, ack: u32, flags: u8) {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&frame[6..12]);
    macs[6..].copy_from_slice(&frame[..6]);
    frame.truncate(p.tcp_at as usize + 20);
    if p.v6 == 0 {
        store(frame, ETH as usize, &made::v4(p, seq, ack, flags, false));
    } else {
        store(frame, ETH as usize, &made::v6(p, seq, ack, flags, false));
    }
    frame[..12].copy_from_slice(&macs);
}

/// A bare segment in the other direction.
#[must_use]
pub fn answer(frame: &[u8], p: &Packet, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    turn(&mut frame, p, seq, ack, flags);
    frame
}

impl Kernel {
    /// The packet in hand becomes a reset for its client.
    pub(super) fn reset_client(&self, frame: &mut Vec<u8>) -> Verdict {
        let p = self.out.packet;
        if p.flags & flag::RST != 0 {
            return Verdict::Stolen;
        }
        let (seq, ack, flags) = if p.flags & flag::ACK != 0 {
            (p.ack, 0, flag::RST)
        } else {
            (0, p.seq.wrapping_add(p.span()), flag::RST | flag::ACK)
        };
        turn(frame, &p, seq, ack, flags);
        Verdict::Up
    }

    /// The packet in hand becomes a reset for its sender, whose leg has ended.
    pub(super) fn reset_backend(&self, frame: &mut Vec<u8>) -> Verdict {
        let p = self.incoming.packet;
        if p.flags & (flag::RST | flag::ACK) != flag::ACK {
            return Verdict::Shot;
        }
        turn(frame, &p, p.ack, 0, flag::RST);
        Verdict::Out
    }

    /// The packet in hand becomes an acknowledgement for a parked leg.
    pub(super) fn acknowledge(&mut self, frame: &mut Vec<u8>, rcv_nxt: u32, snd_nxt: u32) -> Verdict {
        self.count(Reason::ParkedAcked);
        let p = self.incoming.packet;
        turn(frame, &p, rcv_nxt, snd_nxt, flag::ACK);
        Verdict::Out
    }
}
