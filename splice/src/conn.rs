//! The request side of a connection: what egress decides.
//!
//! [`ConnState::place`] says where a segment belongs by its positions alone. Where bytes must be read, the host reads
//! the head (see [`crate::http`]), finds the route, and asks [`at_head`] what follows. Each function changes a copy of
//! the state; the host commits it.

use crate::{
    abi::{
        LEGS,
        reason::Reason,
        record::{
            CONN_DIVERTED, CONN_EXPECT, CONN_HELD, CONN_HTTP, CONN_PENDING, CONN_UPGRADE, ConnState, FRAMING_CHUNKED,
            FRAMING_HEAD, FRAMING_LOST, FRAMING_REST, Framing, LegRef, PHASE_CLOSED, PHASE_HOLD, PHASE_OPAQUE,
            PHASE_RESET, PHASE_SWITCH, PHASE_WATCH, RESP_FIN, RESP_RESET, RespState,
        },
    },
    seq,
};

pub use self::{
    alone::{WAIT_ALONE_NS, WAIT_SUCCESSOR_NS},
    gap::{GAP_NS, Gap},
    slot::{Want, slot_for, slot_of},
};

/// The agent is asked again about a held head not more often than this.
pub const ASK_EVERY_NS: u64 = 150_000_000;

/// How many bytes of frames are handed to the agent for one held head; further ones are the client's to send again.
pub const HELD_MAX: u32 = 1 << 20;

/// A leg that gives no sign of life is given up within this time of the first retransmission that it leaves without an answer.
pub const DEAD_WITHIN_NS: u64 = 2_000_000_000;

/// Where a segment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To the owner; nothing in it needs reading.
    Owner,
    /// To the owner before the last switch: it is from its time.
    Previous,
    /// Its bytes from [`crate::abi::record::Framing::pos`] on must be read.
    Read,
    /// It starts with the held head: read it, it may go on.
    Retry,
    /// It comes behind a held head.
    Behind,
    /// It begins before the held head and reaches into it: cut there. What lies before is the owner's, which may have lost it.
    Across,
    /// It is dropped, TCP sends it again.
    Drop(Reason),
    /// The client is reset.
    Reset(Reason),
}

impl ConnState {
    /// Says where a segment with positions `start..end` belongs (`end` counts the FIN). An empty segment has
    /// `start == end`.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, start: u64, end: u64) -> Place {
        if self.phase == PHASE_RESET {
            return Place::Reset(Reason::ResetAgain);
        }
        if self.phase == PHASE_SWITCH {
            return if start == end { Place::Owner } else { Place::Drop(Reason::Busy) };
        }
        if start == end {
            return Place::Owner;
        }
        if self.phase == PHASE_CLOSED {
            return Place::Drop(Reason::LateClosed);
        }
        if start < self.switched {
            // The old owner has acknowledged all of it: what straddles the switch need not be repaired.
            return if end <= self.switched { Place::Previous } else { Place::Drop(Reason::LateMixed) };
        }
        if self.phase == PHASE_HOLD {
            if end <= self.held {
                return Place::Owner;
            }
            if start < self.held {
                return Place::Across;
            }
            return if start == self.held { Place::Retry } else { Place::Behind };
        }
        if self.phase == PHASE_OPAQUE || end <= self.request.pos {
            return Place::Owner;
        }
        // The next head, or chunk, can only be read from its first byte that was not gathered yet.
        if start > self.request.pos + self.partial as u64 {
            return Place::Drop(Reason::Gap);
        }
        match self.request.state {
            FRAMING_HEAD | FRAMING_CHUNKED => Place::Read,
            _ => Place::Reset(Reason::ResetHeadUnreadable),
        }
    }

    /// The position that a bare acknowledgement at `start` may say. What is held counts as sent for the client, and its owner has seen
    /// nothing of it: where that fills the window, a number behind it lies beyond, and what it acknowledges would not count
    /// (RFC 9293, section 3.10.7.4). It says the one behind the held head's first: in the window, and not the next in order. That
    /// would make its time the latest that counts, and the head's an old one (`TS.Recent` and PAWS, RFC 7323, sections 4.3 and 5).
    #[inline(always)]
    #[must_use]
    pub const fn acknowledges_at(&self, start: u64) -> u64 {
        if self.phase == PHASE_HOLD && start > self.held + 1 { self.held + 1 } else { start }
    }

    /// Whether a head is due at `start`, in order, on a connection that only the baseline has served, with nothing else pending.
    #[inline(always)]
    #[must_use]
    pub fn plain_head(&self, start: u64) -> bool {
        self.phase == PHASE_WATCH
            && self.flags & !CONN_HTTP == 0
            && self.partial == 0
            && self.request.state == FRAMING_HEAD
            && self.request.pos == start
            && self.next == start
    }

    /// Notes that everything before `end` was passed on.
    #[inline(always)]
    pub fn passed(&mut self, end: u64) {
        if end > self.next {
            self.next = end;
        }
    }

    /// Whether the body of the request in progress is awaited behind `Expect: 100-continue`, and `resp` tells that the
    /// server has answered finally instead: then nobody knows whether a body follows.
    #[inline(always)]
    #[must_use]
    pub fn expect_failed(&self, resp: &RespState) -> bool {
        self.flags & CONN_EXPECT != 0 && resp.answered == self.asked && resp.continued != self.asked
    }

    /// Whether the client sends again what has gone to a leg. A held frame that the agent sends (`replayed`) may lie behind what has gone
    /// by another way, and is no retransmission.
    #[inline(always)]
    #[must_use]
    pub const fn sent_again(&self, start: u64, end: u64, replayed: bool) -> bool {
        !replayed && end > start && end <= self.next && self.flags & CONN_DIVERTED != 0
    }

    /// Whether a segment that ends at `end` shows that its leg has died without a word: it is a retransmission, not the first (which
    /// is noted in `first`) since the leg was heard of or got a new request, and the next would come too late.
    ///
    /// Each waits twice as long as the one before (RFC 6298, section 5.5): counted from the first, the next comes after up to three
    /// times as long.
    #[inline(always)]
    #[must_use]
    pub fn leg_dead(&self, resp: &RespState, end: u64, now: u64, first: &mut u64) -> bool {
        let since = if resp.heard > self.active { resp.heard } else { self.active };
        if end > self.next || resp.acked >= end {
            return false;
        }
        if *first <= since {
            *first = now;
        }
        now.wrapping_sub(*first) > DEAD_WITHIN_NS / 3 && now > *first
    }

    /// Takes a complete head in: where its body is, and when the next head starts.
    ///
    /// `behind` is the position behind the head, `end` behind the segment.
    #[inline(always)]
    pub fn consume(&mut self, facts: &Facts, behind: u64, end: u64) {
        let mut flags = (self.flags | CONN_HTTP) & !(CONN_UPGRADE | CONN_EXPECT);
        if facts.is_head {
            self.head_bits |= 1 << (self.asked & 63);
        } else {
            self.head_bits &= !(1 << (self.asked & 63));
        }
        self.asked = self.asked.wrapping_add(1);
        if facts.upgrade {
            flags |= CONN_UPGRADE;
        }
        // A length that leads out of 64 bits is not met in a connection's life.
        self.request =
            if facts.chunked { Framing::chunked(behind) } else { Framing::head(behind.saturating_add(facts.length)) };
        if facts.expect && end == behind && (facts.chunked || facts.length > 0) {
            flags |= CONN_EXPECT;
        }
        // Ingress reads their line of cache for each response, on another processor.
        if flags != self.flags {
            self.flags = flags;
        }
    }

    /// Whether a segment that cannot be read yet comes behind frames that the agent still sends: it joins them. One that the agent sends
    /// (`replayed`) has none before it.
    #[inline(always)]
    #[must_use]
    pub const fn joins(&self, replayed: bool) -> bool {
        !replayed && self.flags & CONN_PENDING != 0 && matches!(self.phase, PHASE_WATCH)
    }

    /// Holds a head. Returns whether the agent should be asked: at first, and again at a bounded rate, so that the successor of a
    /// dead agent is asked too.
    #[inline(always)]
    pub fn hold(&mut self, head: Held, now: u64) -> bool {
        let Held { start, slot, wants, acked } = head;
        self.acked = if self.flags & CONN_PENDING == 0 { acked } else { seq::later(acked, self.acked) };
        // Waiting for the old owner and waiting for a leg are two holds, and a changed route makes another: the agent is asked anew.
        let same =
            self.phase == PHASE_HOLD && self.held == start && self.held_slot == slot as u8 && self.held_for == wants;
        if !same {
            self.release();
            self.phase = PHASE_HOLD;
            self.flags |= CONN_PENDING;
            if (slot as usize) < LEGS {
                self.flags |= CONN_HELD;
            }
            self.held = start;
            self.hold = self.hold.wrapping_add(1);
            self.held_bytes = 0;
            self.held_slot = slot as u8;
            self.held_for = wants;
            self.asked_at = now;
            self.active = now;
            return true;
        }
        let again = now.wrapping_sub(self.asked_at) >= ASK_EVERY_NS;
        if again {
            self.asked_at = now;
        }
        again
    }

    /// Whether the head of this hold has not gone on yet: a switch that another processor has begun may be given up.
    #[must_use]
    pub const fn holds(&self, hold: u32) -> bool {
        matches!(self.phase, PHASE_HOLD | PHASE_SWITCH) && self.hold == hold
    }

    /// The same for whoever has read its event, which is handed over before the record says so.
    #[must_use]
    pub const fn awaits(&self, hold: u32) -> bool {
        self.holds(hold) || self.hold == hold.wrapping_sub(1)
    }

    /// Whether [`Self::acked`] counts for a frame of this hold: the record says so of it, or of a later one. Frames behind a head may go
    /// on when the next head among them is held already.
    #[must_use]
    pub const fn has_come_to(&self, hold: u32) -> bool {
        self.hold.wrapping_sub(hold).cast_signed() >= 0
    }

    /// A held head goes on, or the hold becomes another. [`CONN_PENDING`] stays: what came behind it is with the agent yet.
    #[inline(always)]
    pub fn release(&mut self) {
        self.phase = PHASE_WATCH;
        self.flags &= !CONN_HELD;
    }

    /// Whether a segment that comes from the client itself (`replayed`: from the agent) is the next one in order, and no part of a
    /// hold: nothing that was held is under way any more, and what it acknowledges is all that there is.
    #[inline(always)]
    #[must_use]
    pub fn caught_up(&self, start: u64, end: u64, replayed: bool) -> bool {
        self.phase == PHASE_WATCH && start == self.next && end > start && !replayed
    }

    /// The leg in `slot` becomes the owner from `boundary` on.
    #[inline(always)]
    pub fn switch(&mut self, slot: u32, boundary: u64, now: u64) {
        self.previous = self.owner;
        self.owner = slot as u8;
        self.switched = boundary;
        self.release();
        self.flags |= CONN_DIVERTED;
        self.active = now;
    }
}

/// What a request's head says about the stream behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Length of the body, zero for none.
    pub length: u64,
    /// The body is chunked.
    pub chunked: bool,
    /// The method is HEAD.
    pub is_head: bool,
    /// It asks for another protocol.
    pub upgrade: bool,
    /// It waits for `100 Continue`.
    pub expect: bool,
}

/// A head that is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Position where its frame starts.
    pub start: u64,
    /// Slot that it waits for, [`LEGS`] for the old owner.
    pub slot: u32,
    /// What it wants, see [`Want::number`].
    pub wants: u32,
    /// What its frame acknowledges.
    pub acked: u32,
}

/// Whether the owner may change at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switchable {
    /// All conditions hold.
    Yes,
    /// The old owner still answers, or something is not acknowledged.
    NotYet,
    /// Its response has no end that we know of.
    Never,
}

/// Checks the conditions under which an owner may change: the old owner has acknowledged everything before `boundary`,
/// the client everything that ingress let through (`acked`, a position), and the old owner's responses are complete.
#[inline(always)]
#[must_use]
pub fn switchable(state: &ConnState, resp: &RespState, boundary: u64, acked: u64) -> Switchable {
    // Behind its FIN, or its reset, there is nothing that the client would take.
    let over = resp.flags & (RESP_FIN | RESP_RESET) != 0;
    if over || resp.response.state == FRAMING_REST || resp.response.state == FRAMING_LOST {
        return Switchable::Never;
    }
    if lacks(state, resp, boundary, acked).is_none() { Switchable::Yes } else { Switchable::NotYet }
}

/// What an owner may not change without, and may yet come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Answers to requests that went before.
    Answers,
    /// The end of the last answer.
    End,
    /// The owner's acknowledgement of the requests before.
    Server,
    /// The client's of the answers.
    Client,
}

/// The first that is lacking, of what [`switchable`] asks for.
#[inline(always)]
#[must_use]
pub fn lacks(state: &ConnState, resp: &RespState, boundary: u64, acked: u64) -> Option<Lack> {
    if resp.answered != state.asked {
        Some(Lack::Answers)
    } else if resp.response.state != FRAMING_HEAD || resp.response.pos != resp.next || resp.partial != 0 {
        Some(Lack::End)
    } else if resp.acked != boundary {
        Some(Lack::Server)
    } else if acked != resp.next {
        Some(Lack::Client)
    } else {
        None
    }
}

/// What follows from a complete head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The owner serves it.
    Stay,
    /// The segment has bytes before the head as well: cut it there.
    Cut,
    /// The leg in this slot becomes the owner.
    Switch(u32),
    /// A leg must be made for this slot.
    Dial(u32),
    /// The owner may not change yet.
    Wait,
    /// The client is reset.
    Reset(Reason),
}

/// A segment's place in the client's view of both streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Where the segment starts. The part of the head before it, if any, is with the old owner.
    pub start: u64,
    /// Where the bytes of this head in this segment start.
    pub head: u64,
    /// What the segment acknowledges.
    pub acked: u64,
}

/// Decides what follows from a complete head at `at` that `want` must get, where `slot` is the slot whose live leg
/// serves `want` ([`LEGS`] for none).
#[inline(always)]
#[must_use]
pub fn at_head(
    state: &ConnState,
    legs: &[LegRef; LEGS],
    resp: Option<&RespState>,
    at: At,
    want: Want,
    slot: u32,
) -> Step {
    if matches!(want, Want::Fail) {
        return Step::Reset(Reason::ResetRouteFail);
    }
    if slot == state.owner as u32 {
        return Step::Stay;
    }
    if at.head > at.start {
        return Step::Cut;
    }
    let Some(resp) = resp else { return Step::Reset(Reason::ResetSticky) };
    match switchable(state, resp, at.start, at.acked) {
        Switchable::Never => Step::Reset(Reason::ResetSticky),
        Switchable::NotYet => Step::Wait,
        // A part of this head went to the old owner. No parked leg has it: a new one gets it first.
        Switchable::Yes if (slot as usize) < LEGS && state.partial != 0 => Step::Dial(slot),
        Switchable::Yes if (slot as usize) < LEGS => Step::Switch(slot),
        Switchable::Yes => Step::Dial(slot_for(legs, want, state)),
    }
}

mod alone;
mod gap;
mod slot;

#[cfg(test)]
mod tests;
