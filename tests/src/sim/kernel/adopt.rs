//! Connections that are older than their record, as `ebpf/src/adopt.rs`.

use sidetrack_splice::{
    abi::{
        reason::Reason,
        record::{DIAL_IDLE, RESP_INTERIM, RespState},
    },
    adopt::{self, STATUS_BYTES},
    conn::Gap,
    packet::flag,
};

use super::{Kernel, Next, Verdict};

impl Kernel {
    /// A payload of the client's.
    pub(super) fn older_request(&mut self) -> Next {
        let p = self.out.packet;
        self.out.resp = self.c().map(|c| c.resp).unwrap_or_default();
        let idle = self.out.state.next == 0 && self.idle();
        let (state, resp) = (self.out.state, self.out.resp);
        let known = if state.next == 0 { resp.acked } else { state.next };
        self.out.start = adopt::position(known, p.seq);
        self.out.end = self.out.start + u64::from(p.len);
        if state.begins(&resp, p.seq, p.ack, idle) {
            self.count(Reason::Adopted);
            let start = self.out.start;
            if let Some(c) = self.c() {
                c.resp = RespState::adopted(adopt::position(resp.next, p.ack), start);
            }
            self.out.state.adopt(start);
            return Next::Read;
        }
        if self.out.state.unknown(self.out.end, &resp, p.ack) {
            self.count(Reason::OpaqueOlder);
        }
        self.commit();
        Next::PassOn
    }

    /// A segment behind bytes that were not seen.
    pub(super) fn gap(&mut self) -> Next {
        let before = self.out.state.held;
        match self.out.state.gap(self.now) {
            Gap::Wait => {
                if self.out.state.held != before {
                    self.commit();
                }
                self.count(Reason::Gap);
                Next::Done(Verdict::Stolen)
            }
            Gap::Unread => {
                self.count(Reason::OpaqueGap);
                if self.out.packet.len == 0 { Next::PassOn } else { Next::Adopt }
            }
            Gap::Reset if self.unread() => {
                self.count(Reason::OpaqueGap);
                self.commit();
                Next::PassOn
            }
            Gap::Reset => self.reset(Reason::ResetGap),
        }
    }

    fn idle(&mut self) -> bool {
        let idle = self.maps.dials.get(&self.out.conn);
        let idle = idle.is_some_and(|d| d.status == DIAL_IDLE && d.hold == self.out.state.hold);
        if idle {
            self.maps.dials.remove(&self.out.conn);
        }
        idle
    }

    /// A packet of the server's: it passes.
    pub(super) fn older_response(&mut self, frame: &[u8]) -> Verdict {
        let (p, conn) = (self.incoming.packet, self.incoming.leg);
        let Some(c) = self.maps.connections.get_mut(&conn) else { return Verdict::Pass };
        let resp = c.resp;
        if p.flags & flag::RST != 0 {
            if resp.next != 0 && resp.next as u32 == p.seq {
                self.count(Reason::ClosedPlain);
                self.forget_known(conn);
            }
            return Verdict::Pass;
        }
        let next = adopt::position(resp.next, p.seq.wrapping_add(p.len));
        if p.len != 0 && next > resp.next {
            let mut begins = [0; STATUS_BYTES];
            let there = if (p.len as usize) < STATUS_BYTES { 1 } else { STATUS_BYTES };
            let at = p.payload_at as usize;
            begins[..there].copy_from_slice(&frame[at..at + there]);
            let interim = adopt::interim(&begins, resp.flags & RESP_INTERIM != 0);
            c.resp.flags = if interim { resp.flags | RESP_INTERIM } else { resp.flags & !RESP_INTERIM };
            c.resp.next = next;
        }
        c.resp.acked = c.resp.acked.max(adopt::position(resp.acked, p.ack));
        Verdict::Pass
    }
}
