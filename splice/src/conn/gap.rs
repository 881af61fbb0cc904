//! Bytes of a client that were never seen, and what comes behind them.

use crate::abi::record::{CONN_DIVERTED, CONN_HTTP, ConnState};

/// How long segments behind a gap are dropped: a client that does not fill it by then takes it for filled. What is missing has gone
/// by another way.
///
/// A client that sends again and again what is lost on its way to the programs waits for tens of seconds by then (RFC 6298, 5.5): a minute, as
/// a tombstone has.
pub const GAP_NS: u64 = 60_000_000_000;

/// Tells the place of a gap from that of a hold, which stays in [`ConnState::held`] with its time.
const MISSING: u64 = 1 << 63;

/// What is done about a segment behind bytes that were not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// It is dropped: TCP fills the gap, and sends it again.
    Wait,
    /// It passes: nothing was ever read of the connection, which is as good as one that is older than its record.
    Unread,
    /// The client is reset: nobody knows where its next head begins, nor whether this is a part of one. Where nobody has forked the
    /// service it passes all the same ([`ConnState::unread`]).
    Reset,
}

impl ConnState {
    /// Says what is done about a segment that may not pass because of a gap before it. While nothing is held, [`Self::held`] is where the
    /// bytes that are missing begin, and [`Self::asked_at`] when they were first missed.
    #[inline(always)]
    #[must_use]
    pub fn gap(&mut self, now: u64) -> Gap {
        let missing = (self.request.pos + self.partial as u64) | MISSING;
        if self.held != missing {
            self.held = missing;
            self.asked_at = now;
        }
        if now.saturating_sub(self.asked_at) < GAP_NS {
            return Gap::Wait;
        }
        if self.flags & (CONN_HTTP | CONN_DIVERTED) != 0 || self.partial != 0 {
            return Gap::Reset;
        }
        self.lost();
        Gap::Unread
    }
}
