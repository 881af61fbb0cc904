//! The two most common segments, as `ebpf/src/plain.rs`.

use sidetrack_splice::{
    abi::reason::Reason,
    http::{self, BODY_CHUNKED, BODY_LENGTH, BODY_REST, FLAG_CONNECT, STATUS_COMPLETE, STATUS_MORE},
    reply,
};

use super::{Kernel, decide::facts, scan::AT_FIRST};

impl Kernel {
    /// The head at `at` in the frame, if it ends in one step.
    fn read_plain(&mut self, frame: &[u8], at: u32, len: u64, kind: u32) -> bool {
        let n = len.min(u64::from(AT_FIRST)) as u32;
        if !self.load_window(frame, at, 0, n) {
            return false;
        }
        let work = &mut *self.work;
        work.head.start(0, n, kind);
        work.head.status = STATUS_MORE;
        let _ = http::step(&mut work.head, &mut work.found, &work.window, &self.config);
        work.head.status == STATUS_COMPLETE
    }

    /// Takes in a segment that is a head without any key, and its body. False: it is something else.
    pub(super) fn plain_request(&mut self, frame: &[u8]) -> bool {
        let (conn, start, end) = (self.out.conn, self.out.start, self.out.end);
        if !self.maps.connections.get(&conn).is_some_and(|c| c.now.plain_head(start)) {
            return false;
        }
        let at = self.out.packet.payload_at;
        if !self.read_plain(frame, at, end - start, http::REQUEST) {
            return false;
        }
        let head = &self.work.head;
        let facts = facts(head);
        let behind = start + u64::from(head.end);
        if head.found | head.invalid | head.duplicate | (head.flags & FLAG_CONNECT) != 0
            || facts.chunked
            || behind.saturating_add(facts.length) < end
        {
            return false;
        }
        let active = self.now;
        if let Some(c) = self.c() {
            c.now.consume(&facts, behind, end);
            c.now.passed(end);
            c.now.active = active;
            c.told = reply::tell(c.isn, &c.now);
        }
        self.count(Reason::HeadBaseline);
        true
    }

    /// Takes in a segment that is the head of a final response, and its body. False: it is something else.
    pub(super) fn plain_response(&mut self, frame: &[u8]) -> bool {
        let (conn, start, end) = (self.incoming.leg, self.incoming.start, self.incoming.end);
        let Some(c) = self.maps.connections.get(&conn).filter(|c| c.resp.plain_head(start)) else { return false };
        let told = reply::told(c.isn, c.told);
        let (asked, heads) = told.map_or((c.now.asked, c.now.head_bits), |asked| (asked, 0));
        let Some(was_head) = reply::was_head(asked, c.resp.answered, heads) else { return false };
        let at = self.incoming.packet.payload_at;
        if !self.read_plain(frame, at, end - start, http::RESPONSE) {
            return false;
        }
        let head = &self.work.head;
        let body = http::response_body(head, was_head);
        let length = if body == BODY_LENGTH { head.length } else { 0 };
        let behind = start + u64::from(head.end);
        if head.code < 200 || body == BODY_CHUNKED || body == BODY_REST || behind.saturating_add(length) < end {
            return false;
        }
        let facts = reply::Facts { code: head.code, length, chunked: false, rest: false };
        if !self.speaks(&conn, None) {
            return false;
        }
        if let Some(c) = self.maps.connections.get_mut(&conn) {
            c.resp.consume(&facts, behind);
        }
        self.count(Reason::ResponseComplete);
        self.passed(&conn);
        true
    }
}
