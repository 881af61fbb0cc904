//! What waits while no agent is there.

use super::Want;
use crate::abi::record::{CONN_PENDING, ConnState, PHASE_HOLD};

/// How long a head waits for the old owner while no agent is there to end that: the client's own retransmissions try.
pub const WAIT_ALONE_NS: u64 = 5_000_000_000;

/// How long what nobody has asked a fork for waits for the successor of a dead agent, where it cannot go on without one. A client that
/// sends a head again and again tries last after some 25 s within it (RFC 6298, 5.5).
pub const WAIT_SUCCESSOR_NS: u64 = 30_000_000_000;

impl ConnState {
    /// Whether an unkeyed head at `start` may wait for the successor of a dead agent: it has not waited for long.
    #[inline(always)]
    #[must_use]
    pub const fn head_may_wait(&self, start: u64, now: u64) -> bool {
        self.phase != PHASE_HOLD || self.held != start || now.saturating_sub(self.active) <= WAIT_SUCCESSOR_NS
    }

    /// The same of a frame that must be cut before it: since the first one, [`Self::asked_at`].
    #[inline(always)]
    #[must_use]
    pub const fn cut_may_wait(&self, now: u64) -> bool {
        self.flags & CONN_PENDING == 0 || now.saturating_sub(self.asked_at) <= WAIT_SUCCESSOR_NS
    }

    /// The same of a frame that reaches into the head that is held.
    #[inline(always)]
    #[must_use]
    pub const fn across_may_wait(&self, now: u64) -> bool {
        self.held_for == Want::BASELINE && now.saturating_sub(self.active) <= WAIT_SUCCESSOR_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::record::PHASE_WATCH;

    const LATE: u64 = WAIT_SUCCESSOR_NS + 1;

    #[test]
    fn a_head_waits_from_its_own_hold_on() {
        let mut state = ConnState { phase: PHASE_WATCH, active: 0, held: 7, ..ConnState::default() };
        assert!(state.head_may_wait(7, LATE), "it has just come");
        state.phase = PHASE_HOLD;
        assert!(state.head_may_wait(8, LATE), "another one is held");
        assert!(state.head_may_wait(7, WAIT_SUCCESSOR_NS) && !state.head_may_wait(7, LATE));
    }

    #[test]
    fn a_frame_that_must_be_cut_waits_from_the_first_one_on() {
        let mut state = ConnState::default();
        assert!(state.cut_may_wait(LATE), "nobody has it yet");
        state.flags |= CONN_PENDING;
        assert!(state.cut_may_wait(WAIT_SUCCESSOR_NS) && !state.cut_may_wait(LATE));
    }

    #[test]
    fn what_reaches_into_a_held_head_waits_where_that_is_the_baselines() {
        let mut state = ConnState { phase: PHASE_HOLD, held_for: Want::BASELINE, ..ConnState::default() };
        assert!(state.across_may_wait(WAIT_SUCCESSOR_NS) && !state.across_may_wait(LATE));
        state.held_for = Want::number(7, 1);
        assert!(!state.across_may_wait(0), "a keyed one is refused");
    }
}
