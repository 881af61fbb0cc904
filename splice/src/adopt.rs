//! Connections that are older than their record: nobody has read their stream from its beginning. The agent makes the record of what
//! the client's socket says; no number is known until a packet shows it. From then on it is looked for a place where a request must
//! begin, and only there reading starts:
//!
//! - the last payload came from the server, and did not begin a 1xx response: an interim one is followed by more of the same exchange;
//! - the server has acknowledged all that the client has sent, and the client all that the server has.
//!
//! A connection whose head found no room to be gathered goes on the same way, where nobody has forked its service: see
//! [`ConnState::unread`].
//!
//! A connection that is idle shows nothing. For that the agent asks the client's socket, after the record was made
//! ([`crate::abi::record::DIAL_IDLE`]): what it says holds for as long as no payload was seen.

use crate::{
    abi::record::{
        CONN_ADOPT, CONN_EXPECT, CONN_HTTP, CONN_UPGRADE, ConnState, Framing, PHASE_WATCH, RESP_INTERIM, RespState,
    },
    seq,
};

/// The position of a number in a direction of which `known` is the highest position so far, zero for none.
#[inline(always)]
#[must_use]
pub const fn position(known: u64, number: u32) -> u64 {
    if known == 0 { 1 << 32 | number as u64 } else { seq::extend(known, number) }
}

/// Whether a number lies behind another.
const fn later(number: u32, than: u32) -> bool {
    number.wrapping_sub(than).cast_signed() > 0
}

/// How many bytes at the beginning of a server's payload tell an interim response: `HTTP/1.1 1`.
pub const STATUS_BYTES: usize = 10;

/// Whether a server's segment leaves its client waiting for more of the same response: it begins a 1xx one, or might. `before` is
/// what was said of the segments before, and holds where this one begins no response.
///
/// `begins` has the first bytes of the payload, and zeros behind its end.
#[inline(always)]
#[must_use]
pub const fn interim(begins: &[u8; STATUS_BYTES], before: bool) -> bool {
    let [b'H', b'T' | 0, b'T' | 0, b'P' | 0, b'/' | 0, _, _, _, _, digit] = *begins else { return before };
    matches!(digit, 0 | b'1')
}

/// What a connection may say of itself that only the baseline has served: it was read, and what its last head waits for. An interim
/// answer to that is no proof of a new request ([`RESP_INTERIM`]).
const READING: u32 = CONN_HTTP | CONN_EXPECT | CONN_UPGRADE;

impl ConnState {
    /// A record's request side before anything of its stream was seen: all passes, nothing is read. `number` names the connection,
    /// as the number of a SYN does.
    #[must_use]
    pub fn older(number: u32) -> Self {
        Self {
            request: Framing { pos: u64::MAX, ..Framing::default() },
            phase: PHASE_WATCH,
            flags: CONN_ADOPT,
            hold: number,
            ..Self::default()
        }
    }

    /// Whether a request must begin at this payload of the client's: at `start`, acknowledging `acked`. `idle`: its socket was idle
    /// behind a whole exchange when the record stood already.
    #[inline(always)]
    #[must_use]
    pub fn begins(&self, resp: &RespState, start: u32, acked: u32, idle: bool) -> bool {
        if resp.next == 0 {
            return idle && self.next == 0;
        }
        let newer = match self.held {
            _ if self.next == 0 => true,
            u64::MAX => false,
            // A bare number: nothing was seen of the server by then. An answer may be longer than numbers go round, the first apart.
            held if held >> 32 == 0 => later(resp.next as u32, held as u32),
            held => resp.next > held,
        };
        newer && resp.flags & RESP_INTERIM == 0 && resp.acked as u32 == start && resp.next as u32 == acked
    }

    /// A payload of the client's passes, and it is not known what it is. Returns whether it is the first.
    ///
    /// `held` becomes the server's number up to which it has come by then: by what was seen of it, or by what the client acknowledges. An
    /// answer that began before the record may come again, in the middle of the next request.
    #[inline(always)]
    pub fn unknown(&mut self, end: u64, resp: &RespState, acked: u32) -> bool {
        let first = self.next == 0;
        self.passed(end);
        self.held = if resp.next == 0 { u64::from(acked) } else { resp.next.max(position(resp.next, acked)) };
        first
    }

    /// Reading ends within a head, which passes, as if the connection were older than its record. `end`: behind what passes; `answered`:
    /// how far the server has come. False, and nothing is changed: more than the baseline and a head have a part in it.
    #[inline(always)]
    #[must_use]
    pub fn unread(&mut self, end: u64, answered: u64) -> bool {
        if self.phase != PHASE_WATCH || self.owner != 0 || self.flags & !READING != 0 {
            return false;
        }
        // Field by field: a whole state would be made on the stack.
        self.request = Framing { pos: u64::MAX, ..Framing::default() };
        self.flags = CONN_ADOPT;
        self.partial = 0;
        // The response side counts from nothing when reading starts again.
        self.asked = 0;
        self.head_bits = 0;
        self.next = end;
        self.held = answered;
        true
    }

    /// Nobody knows where a request begins, on a connection that was seen to begin: not with the segment in hand.
    #[inline(always)]
    pub(crate) fn lost(&mut self) {
        self.request.pos = u64::MAX;
        self.flags |= CONN_ADOPT;
        self.held = u64::MAX;
    }

    /// Reading starts at `start`.
    #[inline(always)]
    pub fn adopt(&mut self, start: u64) {
        self.request = Framing::head(start);
        self.next = start;
        self.held = 0;
        self.flags &= !CONN_ADOPT;
    }
}

impl RespState {
    /// Reading starts at `start`, when the server has acknowledged all before `acked`.
    #[inline(always)]
    #[must_use]
    pub fn adopted(start: u64, acked: u64) -> Self {
        Self { response: Framing::head(start), next: start, acked, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(text: &str) -> [u8; STATUS_BYTES] {
        let mut bytes = [0; STATUS_BYTES];
        let len = text.len().min(STATUS_BYTES);
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        bytes
    }

    #[test]
    fn an_interim_response_leaves_its_client_waiting_and_a_final_one_does_not() {
        for before in [false, true] {
            for text in
                ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints", "HTTP/1.0 1", "HTTP/1.1 ", "H", "HTT"]
            {
                assert!(interim(&starts(text), before), "{text}");
            }
            for text in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 404", "HTTP/1.1 5"] {
                assert!(!interim(&starts(text), before), "{text}");
            }
            for text in ["0\r\n\r\n", "<html>", "Hello, world", "HTTPS over"] {
                assert_eq!(interim(&starts(text), before), before, "{text}");
            }
        }
    }

    /// A client at 1000, a server at 5000, both of whose bytes are all acknowledged.
    fn after_an_exchange() -> (ConnState, RespState) {
        let mut state = ConnState::older(7);
        state.unknown(position(0, 1000), &RespState::default(), 4500);
        let resp = RespState { next: position(0, 5000), acked: position(0, 1000), ..RespState::default() };
        (state, resp)
    }

    #[test]
    fn a_request_begins_behind_a_whole_exchange_and_nowhere_else() {
        let (state, resp) = after_an_exchange();
        assert!(state.begins(&resp, 1000, 5000, false));
        assert!(!state.begins(&resp, 990, 5000, false), "sent again");
        assert!(!state.begins(&resp, 1010, 5000, false), "something was not seen");
        assert!(!state.begins(&resp, 1000, 4990, false), "the client has not got all");
        let unacked = RespState { acked: position(0, 990), ..resp };
        assert!(!state.begins(&unacked, 1000, 5000, false), "the server has not got all");
        let interim = RespState { flags: RESP_INTERIM, ..resp };
        assert!(!state.begins(&interim, 1000, 5000, false), "a body follows `100 Continue`");
        let mut asked = state;
        assert!(!asked.unknown(position(0, 1010), &resp, 5000), "not the first");
        let got = RespState { acked: position(0, 1010), ..resp };
        assert!(!asked.begins(&got, 1010, 5000, true), "the last payload is the client's");
    }

    /// Its agent came when a part of the answer was lost: the client has the rest of it, and the server sends all of it again.
    #[test]
    fn an_answer_that_comes_again_in_the_middle_of_a_request_is_not_its_answer() {
        for (first, last) in [(4000, 5000), (u32::MAX - 500, 499), (u32::MAX - 1500, u32::MAX - 501)] {
            for seen in [0, position(0, first)] {
                let mut state = ConnState::older(7);
                let resp = RespState { next: seen, acked: position(0, 1000), ..RespState::default() };
                state.unknown(position(0, 2000), &resp, last);
                let again = RespState { next: position(seen, last), acked: position(0, 2000), ..resp };
                assert!(!state.begins(&again, 2000, last, false), "a body's second half, {first}..{last}");
                let answer = RespState { next: position(again.next, last.wrapping_add(9)), ..again };
                assert!(state.begins(&answer, 2000, last.wrapping_add(9), false), "{first}..{last}");
            }
        }
    }

    #[test]
    fn behind_an_answer_longer_than_numbers_go_round_a_request_begins() {
        let (mut state, mut resp) = after_an_exchange();
        state.unknown(position(0, 1100), &resp, 5000);
        resp.acked = position(0, 1100);
        for _ in 0..3 {
            resp.next += 1 << 30;
        }
        assert!(state.begins(&resp, 1100, resp.next as u32, false));
    }

    #[test]
    fn what_an_idle_socket_says_holds_until_a_payload_is_seen() {
        let (fresh, nothing) = (ConnState::older(7), RespState::default());
        assert!(fresh.begins(&nothing, 1, 2, true));
        assert!(!fresh.begins(&nothing, 1, 2, false), "nobody has asked its socket");
        let acked = RespState { acked: position(0, 1), ..nothing };
        assert!(fresh.begins(&acked, 1, 2, true), "a bare acknowledgement");
        let mut spoken = fresh;
        assert!(spoken.unknown(position(0, 9), &nothing, 2));
        assert!(!spoken.begins(&nothing, 9, 2, true), "the client has spoken");
        let answered = RespState { next: position(0, 2), flags: RESP_INTERIM, ..nothing };
        assert!(!fresh.begins(&answered, 1, 2, true), "the server has");
    }

    #[test]
    fn a_head_that_is_given_up_passes_and_reading_starts_behind_its_answer() {
        use crate::{abi::record::CONN_DIVERTED, conn::Place};
        let (start, peer) = (position(0, 1000), position(0, 5000));
        let reading = ConnState {
            request: Framing::head(start),
            next: start,
            asked: 3,
            head_bits: 4,
            partial: 20,
            flags: CONN_HTTP,
            ..ConnState::default()
        };
        let mut state = ConnState { phase: PHASE_WATCH, ..reading };
        assert!({ state }.unread(start + 50, peer));
        state.flags |= CONN_EXPECT | CONN_UPGRADE;
        assert!(state.unread(start + 50, peer), "what the head before it has asked for has come, or comes");
        assert_eq!(state.place(start + 50, start + 90), Place::Owner, "the rest of the head");
        let mut resp = RespState { next: peer, acked: start + 90, ..RespState::default() };
        assert!(!state.unknown(start + 90, &resp, 5000));
        assert!(!state.begins(&resp, 1090, 5000, true), "not answered yet");
        resp.next += 10;
        assert!(state.begins(&resp, 1090, 5010, false));
        state.adopt(start + 90);
        assert_eq!((state.asked, state.head_bits, state.partial, state.flags), (0, 0, 0, 0));
        assert_eq!(state.place(start + 90, start + 99), Place::Read);
        for taken in [
            ConnState { flags: CONN_DIVERTED, ..state },
            ConnState { owner: 1, ..state },
            ConnState { phase: crate::abi::record::PHASE_HOLD, ..state },
        ] {
            let mut same = taken;
            assert!(!same.unread(start + 99, peer) && same == taken);
        }
    }

    #[test]
    fn until_then_everything_passes_whatever_its_numbers_are() {
        use crate::conn::Place;
        let state = ConnState::older(7);
        for number in [0, 1, u32::MAX, 1 << 31] {
            let start = position(state.next, number);
            assert_eq!(state.place(start, start + 1448), Place::Owner);
            assert!(!state.plain_head(start));
        }
        let mut begun = state;
        begun.adopt(position(0, 77));
        assert_eq!(begun.place(position(0, 77), position(0, 177)), Place::Read);
        assert_eq!(begun.flags, 0);
    }
}
