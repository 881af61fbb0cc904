//! The records that the kernel programs and the agent share, and that outlive both.
//!
//! They are pinned below `/sys/fs/bpf/sidetrack/v<ABI>/`. A change of any size, offset or meaning here needs a new
//! [`ABI`]; [`control::Control`] is the one layout that never changes, so that any version can read any other's.

pub mod addr;
pub mod config;
pub mod control;
pub mod event;
pub mod reason;
pub mod record;
pub mod route;

use record::{OPT_ECN, OPT_SACK, OPT_TIMESTAMP};

/// Version of every pinned record but `control`. It names the pin directory.
///
/// A build for tests of an upgrade has another one, `SIDETRACK_ABI` in its environment.
pub const ABI: u32 = match option_env!("SIDETRACK_ABI") {
    Some(text) => number(text.as_bytes()),
    None => 4,
};

/// A number in decimal, below 256: it is a part of [`MARK`].
const fn number(text: &[u8]) -> u32 {
    let (mut n, mut at) = (0, 0);
    while at < text.len() {
        assert!(text[at].is_ascii_digit(), "SIDETRACK_ABI is a number");
        n = n * 10 + (text[at] - b'0') as u32;
        at += 1;
    }
    assert!(0 < n && n < 256, "SIDETRACK_ABI is 1 to 255");
    n
}

/// How many legs one connection has room for: the baseline's slot and fifteen others. A power of two: slots are masked.
pub const LEGS: usize = 16;

/// Longest sandbox key, in bytes. Its characters are `[A-Za-z0-9._-]`.
pub const KEY_MAX: usize = 63;

/// What all marks of ours begin with. The ABI's number is a part of it: programs of two ABIs may stand side by side, and what one
/// side marks is nothing to the other.
pub const MARK: u32 = 0x51d0_0000 | ABI << 4;
/// The bits in which they differ.
pub const MARKS: u32 = 0xf;
/// `skb->mark` of a leg that the agent dials, with what its SYN keeps in the bits [`DIAL_KEEPS`]. All else of those egress removes: the
/// leg would get what its client has not agreed to.
pub const MARK_DIAL: u32 = MARK | 8;
/// The bits of a [`MARK_DIAL`] that say what the SYN keeps.
pub const DIAL_KEEPS: u32 = 7;
/// Timestamps (RFC 7323).
pub const DIAL_STAMPS: u32 = 1;
/// Selective acknowledgements (RFC 2018).
pub const DIAL_SACK: u32 = 2;
/// Explicit congestion notification (RFC 3168).
pub const DIAL_ECN: u32 = 4;
/// `skb->mark` of a held frame that the agent sends again.
pub const MARK_REPLAY: u32 = MARK | 2;
/// `skb->mark` of a frame that the agent made (a reset for a leg): egress lets it pass.
pub const MARK_AGENT: u32 = MARK | 3;
/// `skb->mark` of a copy that becomes an acknowledgement for an owner that another follows: it never leaves egress.
pub const MARK_PARTED: u32 = MARK | 6;
/// `skb->mark` of a packet that a program has turned round: the other hook lets it pass.
pub const MARK_TURNED: u32 = MARK | 4;

/// The mark of a leg for a client that has agreed to `options` (`OPT_` flags) with its baseline.
#[must_use]
pub const fn dial_mark(options: u8) -> u32 {
    let stamps = if options & OPT_TIMESTAMP != 0 { DIAL_STAMPS } else { 0 };
    let sack = if options & OPT_SACK != 0 { DIAL_SACK } else { 0 };
    let ecn = if options & OPT_ECN != 0 { DIAL_ECN } else { 0 };
    MARK_DIAL | stamps | sack | ecn
}
