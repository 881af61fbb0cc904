//! The response side of a connection: what ingress decides.

use crate::abi::record::{
    ConnState, FRAMING_CHUNKED, FRAMING_HEAD, FRAMING_LOST, FRAMING_REST, Framing, RESP_FIN, RESP_TUNNEL, RespState,
};

/// Where a segment of the owner belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing in it needs reading.
    Pass,
    /// Its bytes from [`crate::abi::record::Framing::pos`] on must be read.
    Read,
    /// It lies beyond bytes that must be read first: the framing is lost.
    Lost,
}

/// What a response's head says about the stream behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Status code.
    pub code: u32,
    /// Length of the body, zero for none.
    pub length: u64,
    /// The body is chunked.
    pub chunked: bool,
    /// The body ends with the connection.
    pub rest: bool,
}

/// Whether the request that the next response answers, of `asked` of which `answered` have been, was a HEAD, by
/// [`ConnState::head_bits`](crate::abi::record::ConnState::head_bits). `None`: there is no such request, or there are more under way
/// than those bits tell apart.
#[inline(always)]
#[must_use]
pub const fn was_head(asked: u32, answered: u32, head_bits: u64) -> Option<bool> {
    let ahead = asked.wrapping_sub(answered);
    if ahead == 0 || ahead > u64::BITS { None } else { Some(head_bits >> (answered & 63) & 1 != 0) }
}

/// What a response need know of its connection's requests, in one word ([`Connection::told`](crate::abi::record::Connection::told)): how
/// many were passed on, with the connection's `isn`, because a map gives the memory of a removed record to another at once. Zero,
/// which tells nothing, while one of the last may have been a HEAD.
#[inline(always)]
#[must_use]
pub const fn tell(isn: u32, now: &ConnState) -> u64 {
    if now.head_bits == 0 { (isn as u64) << 32 | now.asked as u64 } else { 0 }
}

/// How many requests were passed on, none of the last a HEAD, by a word of [`tell`]: all of them, or fewer. `None`: it is not told.
#[inline(always)]
#[must_use]
pub const fn told(isn: u32, word: u64) -> Option<u32> {
    if word >> 32 == isn as u64 { Some(word as u32) } else { None }
}

impl RespState {
    /// Says where a segment with positions `start..end` belongs.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, start: u64, end: u64) -> Place {
        // What was gathered of a head has been read, too.
        if start == end || end <= self.response.pos + self.partial as u64 {
            return Place::Pass;
        }
        match self.response.state {
            FRAMING_HEAD | FRAMING_CHUNKED if start > self.next => Place::Lost,
            FRAMING_HEAD | FRAMING_CHUNKED => Place::Read,
            _ => Place::Pass,
        }
    }

    /// Position behind what a segment with positions `start..end` leaves passed. One without payload passes nothing: its number may lie
    /// behind segments that are on their way.
    #[inline(always)]
    #[must_use]
    pub const fn passed(&self, start: u64, end: u64) -> u64 {
        if end > start && end > self.next { end } else { self.next }
    }

    /// The next position that the client expects: behind the FIN, if the owner has sent it.
    #[inline(always)]
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.next + (self.flags & RESP_FIN != 0) as u64
    }

    /// Whether the client believes a reset at `start`: it has its exact next number (RFC 5961, section 3.2). Behind a FIN Linux takes that of
    /// the FIN, too: a peer that has closed at once answers with the number that it was asked for (`tcp_reset_check` in
    /// `net/ipv4/tcp_input.c`).
    #[inline(always)]
    #[must_use]
    pub const fn resets(&self, start: u64) -> bool {
        start == self.end() || start == self.next
    }

    /// Whether a head is due at `start`, in order.
    #[inline(always)]
    #[must_use]
    pub fn plain_head(&self, start: u64) -> bool {
        self.partial == 0 && self.response.state == FRAMING_HEAD && self.response.pos == start && self.next == start
    }

    /// Nobody knows any more where a response ends: the connection stays with its owner.
    #[inline(always)]
    pub fn lose(&mut self) {
        self.response.state = FRAMING_LOST;
        self.partial = 0;
    }

    /// Takes a complete head in; `behind` is the position behind it.
    #[inline(always)]
    pub fn consume(&mut self, facts: &Facts, behind: u64) {
        self.partial = 0;
        if facts.code == 101 {
            self.flags |= RESP_TUNNEL;
            self.response = Framing { state: FRAMING_REST, ..Framing::head(behind) };
            return;
        }
        if facts.code < 200 {
            self.response = Framing::head(behind);
            if facts.code == 100 {
                self.continued = self.answered.wrapping_add(1);
            }
            return;
        }
        self.answered = self.answered.wrapping_add(1);
        self.response = if facts.chunked {
            Framing::chunked(behind)
        } else if facts.rest {
            Framing { state: FRAMING_REST, ..Framing::head(behind) }
        } else {
            Framing::head(behind.saturating_add(facts.length))
        };
    }
}

#[cfg(test)]
mod tests;
