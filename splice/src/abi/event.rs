//! What the kernel tells the agent, through the ring buffer `events`.

use super::addr::Tuple;

/// A head is held and needs a leg that does not exist: dial, store the leg, answer in `dials`, send the frame again.
pub const EVENT_DIAL: u32 = 1;
/// A head is held whose leg exists, but the owner may not change yet: send the frame again in a moment.
pub const EVENT_WAIT: u32 = 2;
/// A further frame of a connection whose head is held: send it again behind the others.
pub const EVENT_MORE: u32 = 3;
/// A frame with bytes for two owners: send it again in two, cut at [`Event::cut`].
pub const EVENT_CUT: u32 = 4;
/// A connection was closed or given up: reset its legs and forget it. No frame.
pub const EVENT_GONE: u32 = 5;

/// Header of an event; [`Event::frame_len`] bytes of the frame follow, from its Ethernet header on.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Event {
    /// The connection.
    pub conn: Tuple,
    /// One of the `EVENT_` constants.
    pub kind: u32,
    /// [`super::record::ConnState::hold`].
    pub hold: u32,
    /// Slot for the leg.
    pub slot: u32,
    /// [`super::route::Service::id`].
    pub service: u32,
    /// [`super::route::Route::id`] that is asked for; zero is the baseline.
    pub route: u32,
    /// [`super::route::Route::version`] at that time.
    pub version: u32,
    /// Client's sequence number of the frame's first payload byte.
    pub seq: u32,
    /// Bytes of the head that have gone to the old owner already and lie in map `heads`.
    pub prefix: u32,
    /// For [`EVENT_CUT`]: how many payload bytes go into the first of the two frames.
    pub cut: u32,
    /// `skb->gso_size`, zero for an ordinary frame.
    pub gso_size: u32,
    /// Length of the frame behind this header.
    pub frame_len: u32,
    /// Offset of the TCP header in the frame.
    pub tcp_at: u32,
    /// `skb->ifindex`.
    pub ifindex: u32,
    /// Nanoseconds (`CLOCK_MONOTONIC`).
    pub at: u64,
}
