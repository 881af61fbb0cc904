//! The one record whose layout never changes.

/// Written by the agent, read by the kernel programs and by every version of every tool. Map `control`, one entry.
///
/// Its layout is frozen: 64 bytes, these offsets, for ever.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Control {
    /// [`super::ABI`] of the records that stand beside it.
    pub abi: u32,
    /// Not zero: a successor with another ABI is at work, take no new connection.
    pub draining: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds when an agent was last seen alive; zero before the first.
    pub heartbeat: u64,
    /// Process id of that agent, in its own pid namespace.
    pub pid: u32,
    /// Zero.
    pub reserved: [u32; 11],
}

const _: () = assert!(size_of::<Control>() == 64);

/// An agent whose heartbeat is older than this is dead, in nanoseconds. A live one writes several times in that time.
pub const DEAD_AFTER_NS: u64 = 2_000_000_000;

impl Control {
    /// Whether there was an agent, and it has given no sign of life for [`DEAD_AFTER_NS`] at `now` (`CLOCK_MONOTONIC`,
    /// nanoseconds): what only an agent can do is not waited for then.
    #[inline(always)]
    #[must_use]
    pub const fn dead(heartbeat: u64, now: u64) -> bool {
        heartbeat != 0 && now > heartbeat && now - heartbeat > DEAD_AFTER_NS
    }

    /// Whether there is an agent at `now`: not before the first one, nor while it is [`Self::dead`].
    #[must_use]
    pub const fn lives(&self, now: u64) -> bool {
        self.heartbeat != 0 && !Self::dead(self.heartbeat, now)
    }
}
