//! How far a connection is with a hold. Pure.

use std::time::Duration;

use sidetrack_splice::abi::{event::Event, record::Connection};

use crate::agent::ended;

/// A hold that was handed over is written within, or another processor has changed the connection: before the client sends its head again
/// (`TCP_RTO_MIN` of include/net/tcp.h, 200 ms).
const WRITTEN_WITHIN: Duration = Duration::from_millis(150);

/// How far a connection is with a hold, for whoever has read its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The event was handed over, and the processor that has done it has not written so yet: a virtual one may stand still there.
    Begins,
    /// The head has not gone on yet.
    Held,
    /// It has, or it never was: the client's retransmission asks again.
    Over,
}

impl Stage {
    pub(super) fn of(c: Option<&Connection>, event: &Event, now: u64) -> Self {
        match c.map(|c| &c.now) {
            Some(state) if state.holds(event.hold) => Self::Held,
            Some(state) if state.awaits(event.hold) && !ended::older(event.at, now, WRITTEN_WITHIN) => Self::Begins,
            _ => Self::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use sidetrack_splice::abi::record::{PHASE_HOLD, PHASE_SWITCH, PHASE_WATCH};
    use zerocopy::FromZeros as _;

    use super::*;

    /// How far a connection with this phase and this number is with hold 8, whose event was handed over so long ago.
    fn stage(phase: u8, hold: u32, micros: u64) -> Stage {
        let mut c = Connection::default();
        (c.now.phase, c.now.hold) = (phase, hold);
        let event = Event { hold: 8, at: 5_000_000_000, ..Event::new_zeroed() };
        Stage::of(Some(&c), &event, event.at + micros * 1000)
    }

    #[test]
    fn a_hold_is_not_over_before_its_record_says_that_it_has_begun() {
        // The head is read, the event is in the ring, and the processor stands still before it writes the record: an agent that takes
        // this for an end dials in vain, and the client waits for its own retransmission.
        assert_eq!(stage(PHASE_WATCH, 7, 1), Stage::Begins);
        assert_eq!(stage(PHASE_HOLD, 7, 100_000), Stage::Begins, "a wait that becomes a dial");
        assert_eq!(stage(PHASE_HOLD, 8, 100_001), Stage::Held);
        assert_eq!(stage(PHASE_SWITCH, 8, 100_002), Stage::Held, "it may be given up");
        assert_eq!(stage(PHASE_WATCH, 8, 100_003), Stage::Over);
        assert_eq!(stage(PHASE_HOLD, 9, 1), Stage::Over);
    }

    #[test]
    fn a_hold_that_is_never_written_is_not_waited_for() {
        assert_eq!(stage(PHASE_WATCH, 7, 151_000), Stage::Over);
        assert_eq!(Stage::of(None, &Event::new_zeroed(), 0), Stage::Over);
    }
}
