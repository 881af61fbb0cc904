//! Reading responses, as `ebpf/src/replies.rs`.

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        reason::Reason,
        record::{CONN_DIVERTED, CONN_HELD, FRAMING_CHUNKED, FRAMING_HEAD, HEAD_MAX, STATE_OWNER},
    },
    http::{self, BODY_CHUNKED, BODY_LENGTH, BODY_REST, STATUS_COMPLETE, STATUS_INCOMPLETE},
    packet::flag,
    reply::{self, Facts},
    seq,
};

use super::{
    INWARD, Kernel,
    scan::{self, Source},
};

/// Heads and pieces of bodies that one segment may hold.
const PIECES: u32 = 4096;

impl Kernel {
    /// Nobody knows any more where the response in hand ends.
    pub(super) fn lose(&mut self) -> bool {
        self.count(Reason::ResponseLost);
        if self.incoming.state.partial != 0 {
            self.maps.heads.remove(&(self.incoming.conn, INWARD));
        }
        self.incoming.state.lose();
        false
    }

    /// Reads the segment in hand from where the next head or chunk starts.
    pub(super) fn replies(&mut self, frame: &[u8]) {
        for _ in 0..PIECES {
            if !self.response_piece(frame) {
                break;
            }
        }
    }

    fn response_head(&mut self) -> bool {
        let conn = self.incoming.conn;
        let Some(c) = self.maps.connections.get(&conn) else { return false };
        let (asked, bits) = (c.now.asked, c.now.head_bits);
        let Some(was_head) = reply::was_head(asked, self.incoming.state.answered, bits) else {
            if asked == self.incoming.state.answered {
                self.count(Reason::ResponseUnasked);
            }
            return self.lose();
        };
        let head = self.work.head;
        let body = http::response_body(&head, was_head);
        let facts = Facts {
            code: head.code,
            length: if body == BODY_LENGTH { head.length } else { 0 },
            chunked: body == BODY_CHUNKED,
            rest: body == BODY_REST,
        };
        if self.incoming.state.partial != 0 {
            self.maps.heads.remove(&(conn, INWARD));
        }
        if body == BODY_REST {
            self.count(Reason::ResponseRest);
        }
        let w = &mut self.incoming;
        let behind = w.state.response.pos + u64::from(head.end);
        w.state.consume(&facts, behind);
        w.state.response.state == FRAMING_CHUNKED || w.state.response.pos < w.end
    }

    /// One head, or one piece of a chunked body. Whether there is more to read.
    fn response_piece(&mut self, frame: &[u8]) -> bool {
        let w = &mut self.incoming;
        if w.state.response.pos >= w.end && w.state.partial == 0 {
            return false;
        }
        if w.state.response.state == FRAMING_CHUNKED {
            if !scan::chunks(frame, w.packet.payload_at, w.start, w.end, &mut w.state.response) {
                return self.lose();
            }
            if w.state.response.state == FRAMING_CHUNKED {
                return false;
            }
            self.count(Reason::ResponseComplete);
            return true;
        }
        if w.state.response.state != FRAMING_HEAD {
            return false;
        }
        let source = Source {
            gathered: (w.conn, INWARD),
            prefix: w.state.partial,
            pos: w.state.response.pos,
            start: w.start,
            end: w.end,
            payload_at: w.packet.payload_at,
        };
        let (len, status) = self.look_at_head(frame, http::RESPONSE, &source);
        if len == 0 {
            return self.lose();
        }
        match status {
            STATUS_COMPLETE => self.response_head(),
            STATUS_INCOMPLETE if (len as usize) < HEAD_MAX => {
                if !self.maps.keep_head((self.incoming.conn, INWARD), &self.work.window) {
                    return self.lose();
                }
                self.incoming.state.partial = len;
                false
            }
            _ => self.lose(),
        }
    }

    /// Notes what a segment passes to the client, and what it acknowledges.
    pub(super) fn passed(&mut self, conn: &Tuple) {
        let w = &self.incoming;
        if let Some(c) = self.maps.connections.get_mut(conn) {
            c.resp.next = c.resp.passed(w.start, w.end);
            if w.packet.flags & flag::ACK != 0 {
                c.resp.acked = c.resp.acked.max(seq::extend(c.resp.acked, w.ack));
            }
        }
    }

    /// Whether the leg (none: the original one, nothing was diverted) still speaks to the client.
    pub(super) fn speaks(&self, conn: &Tuple, leg: Option<Tuple>) -> bool {
        let flags = self.maps.connections.get(conn).map_or(0, |c| c.now.flags);
        match leg {
            None => flags & (CONN_HELD | CONN_DIVERTED) == 0,
            Some(leg) => flags & CONN_HELD == 0 && self.maps.legs.get(&leg).is_some_and(|leg| leg.state == STATE_OWNER),
        }
    }
}
