//! Reading requests, as `ebpf/src/requests.rs`.

use sidetrack_splice::{
    abi::{
        reason::Reason,
        record::{CONN_DIVERTED, CONN_UPGRADE, FRAMING_CHUNKED, FRAMING_HEAD, HEAD_MAX, PHASE_OPAQUE, RESP_TUNNEL},
    },
    http::{self, FLAG_CONNECT, STATUS_COMPLETE, STATUS_INCOMPLETE, STATUS_MORE, STATUS_UNREADABLE},
};

use super::{
    Kernel, OUTWARD, Step, Want,
    long::is_long,
    scan::{self, Source},
};

/// Heads and pieces of bodies that one segment may hold.
const PIECES: u32 = 4096;

impl Kernel {
    /// Reads the segment in hand from where the next head or chunk starts, and leaves in `out` what follows.
    pub(super) fn requests(&mut self, frame: &[u8]) {
        self.out.step = Step::More;
        if is_long(self.out.state.partial) && !self.long_resume() {
            self.no_room(Reason::ResetHeadTooLong);
            return;
        }
        for _ in 0..PIECES {
            if !self.request_piece(frame) {
                break;
            }
        }
        if self.out.step == Step::More {
            self.refuse(Reason::ResetPipeline);
        }
    }

    /// The client is reset; the segment has been read.
    pub(super) fn refuse(&mut self, reason: Reason) -> bool {
        self.out.step = Step::Reset;
        self.out.reason = Some(reason);
        false
    }

    fn gather(&mut self, len: u32) -> bool {
        if !self.maps.keep_head((self.out.conn, OUTWARD), &self.work.window) {
            return self.no_room(Reason::HeadsFull);
        }
        self.count(Reason::HeadPartial);
        self.out.state.partial = len;
        self.out.step = Step::Stay;
        false
    }

    /// One head, or one piece of a chunked body. Whether there is more to read.
    fn request_piece(&mut self, frame: &[u8]) -> bool {
        let out = &mut self.out;
        let seen = if out.step == Step::More { u64::from(out.state.partial) } else { 0 };
        if out.state.request.pos + seen >= out.end {
            return self.read_out();
        }
        if out.state.request.state == FRAMING_CHUNKED {
            if !scan::chunks(frame, out.packet.payload_at, out.start, out.end, &mut out.state.request) {
                return self.refuse(Reason::ResetHeadUnreadable);
            }
            if out.state.request.state == FRAMING_CHUNKED {
                return self.read_out();
            }
            return true;
        }
        if out.step != Step::More {
            out.cut = (out.state.request.pos - out.start) as u32;
            out.step = Step::Cut;
            return false;
        }
        if out.state.request.state != FRAMING_HEAD {
            return self.refuse(Reason::ResetHeadUnreadable);
        }
        if out.state.flags & CONN_UPGRADE != 0 {
            if self.c().is_some_and(|c| c.resp.flags & RESP_TUNNEL != 0) {
                self.count(Reason::OpaqueTunnel);
                self.out.state.phase = PHASE_OPAQUE;
                self.out.step = Step::Stay;
                return false;
            }
            self.out.state.flags &= !CONN_UPGRADE;
        }
        if is_long(self.out.state.partial) {
            if !self.long_fill(frame) {
                return self.refuse(Reason::ResetHeadTooLong);
            }
            return match self.scan_rest() {
                STATUS_INCOMPLETE => self.long_go_on(),
                status => self.long_end(status),
            };
        }
        let out = &self.out;
        let source = Source {
            gathered: (out.conn, OUTWARD),
            prefix: out.state.partial,
            pos: out.state.request.pos,
            start: out.start,
            end: out.end,
            payload_at: out.packet.payload_at,
        };
        let (len, status) = self.look_at_head(frame, http::REQUEST, &source);
        if len == 0 {
            return self.refuse(Reason::ErrLoad);
        }
        match status {
            STATUS_INCOMPLETE if len as usize >= HEAD_MAX => {
                self.out.state.partial = len;
                self.long_go_on()
            }
            STATUS_INCOMPLETE => self.gather(len),
            STATUS_COMPLETE | STATUS_UNREADABLE => self.head(status),
            STATUS_MORE => self.refuse(Reason::ErrScan),
            _ => self.unreadable(status),
        }
    }

    fn head(&mut self, status: u32) -> bool {
        let head = self.work.head;
        self.out.want = Want::Baseline;
        self.out.route = 0;
        self.out.version = 0;
        if head.found | head.invalid | head.duplicate != 0 {
            self.find_route();
        }
        if status != STATUS_COMPLETE {
            return self.unreadable(status);
        }
        let plain = self.out.want == Want::Baseline && self.out.state.flags & CONN_DIVERTED == 0;
        if plain && head.flags & FLAG_CONNECT == 0 {
            return self.go_on();
        }
        self.decide();
        matches!(self.out.step, Step::More | Step::Switch | Step::Adopt)
    }
}
