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
/// `skb->mark` of a leg that the agent dials for a client without timestamps: egress removes the option from its SYN.
pub const MARK_DIAL: u32 = MARK | 1;
/// The same for a client with timestamps: the SYN keeps the option.
pub const MARK_DIAL_STAMPED: u32 = MARK | 5;
/// `skb->mark` of a held frame that the agent sends again.
pub const MARK_REPLAY: u32 = MARK | 2;
/// `skb->mark` of a frame that the agent made (a reset for a leg): egress lets it pass.
pub const MARK_AGENT: u32 = MARK | 3;
/// `skb->mark` of a copy that becomes an acknowledgement for an owner that another follows: it never leaves egress.
pub const MARK_PARTED: u32 = MARK | 6;
/// `skb->mark` of a packet that a program has turned round: the other hook lets it pass.
pub const MARK_TURNED: u32 = MARK | 4;
