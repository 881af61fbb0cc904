//! What a request's head needs, as `ebpf/src/decide.rs`.

use sidetrack_splice::{
    abi::{
        LEGS as SLOTS,
        config::CARRIERS,
        reason::Reason,
        record::{
            CONN_DIVERTED, CONN_HTTP, DIAL_BASELINE, DIAL_FAILED, DIAL_READY, FRAMING_HEAD, LEG_NONE, LegRef,
            PHASE_HOLD, PHASE_OPAQUE,
        },
        route::{ROUTE_FORK, ROUTE_OR_BASELINE, ServiceAddr},
    },
    conn::{self, At, Facts, WAIT_ALONE_NS},
    http::{
        BODY_CHUNKED, BODY_LENGTH, FLAG_CONNECT, FLAG_EXPECT, FLAG_HEAD, FLAG_UPGRADE, Head, STATUS_HTTP2,
        STATUS_NOT_HTTP, STATUS_TLS,
    },
    seq,
};

use super::{Kernel, Step, Want};

/// What the head says about the stream behind it.
pub fn facts(head: &Head) -> Facts {
    Facts {
        length: if head.body == BODY_LENGTH { head.length } else { 0 },
        chunked: head.body == BODY_CHUNKED,
        is_head: head.flags & FLAG_HEAD != 0,
        upgrade: head.flags & FLAG_UPGRADE != 0,
        expect: head.flags & FLAG_EXPECT != 0,
    }
}

impl Kernel {
    /// The first carrier whose key has a route decides.
    pub(super) fn find_route(&mut self) {
        if self.work.head.invalid != 0 {
            self.count(Reason::KeyInvalid);
        }
        if self.work.head.duplicate != 0 {
            self.count(Reason::KeyDuplicate);
        }
        let found = self.work.head.found;
        if found == 0 {
            return;
        }
        let at = ServiceAddr { addr: self.out.conn.remote, port: self.out.conn.remote_port, pad: 0 };
        let service = self.maps.services.get(&at).map_or(self.out.service, |s| s.id);
        let mut routed = 0;
        for i in (0..CARRIERS).filter(|i| found >> i & 1 != 0) {
            let key = &mut self.work.found.keys[i];
            key.service = service;
            let Some(r) = self.maps.routes.get(key) else { continue };
            if routed == 0 {
                self.out.want = if r.kind == ROUTE_FORK { Want::Fork } else { Want::Fail };
                self.out.route = r.id;
                self.out.version = r.version;
                self.out.or_baseline = r.flags & ROUTE_OR_BASELINE != 0;
            }
            routed += 1;
        }
        if routed > 1 {
            self.count(Reason::KeyAmbiguous);
        }
        if routed == 0 {
            self.count(Reason::KeyUnrouted);
        }
    }

    /// What cannot be read passes where nobody has forked the service.
    pub(super) fn unread(&mut self) -> bool {
        let at = ServiceAddr { addr: self.out.conn.remote, port: self.out.conn.remote_port, pad: 0 };
        let unforked = self.maps.services.get(&at).is_none_or(|s| s.routes == 0);
        let (end, answered) = (self.out.end, self.c().map_or(0, |c| c.resp.next));
        unforked && self.out.state.unread(end, answered)
    }

    /// There is no room to read a head on that comes in parts.
    pub(super) fn no_room(&mut self, reason: Reason) -> bool {
        if !self.unread() {
            return self.refuse(reason);
        }
        self.count(Reason::OpaqueHeadsFull);
        self.out.step = Step::Stay;
        false
    }

    /// What to do with a segment whose head cannot be read.
    pub(super) fn unreadable(&mut self, status: u32) -> bool {
        if self.out.state.flags & (CONN_HTTP | CONN_DIVERTED) != 0 {
            return self.refuse(Reason::ResetHeadUnreadable);
        }
        let reason = match status {
            STATUS_TLS => Reason::OpaqueTls,
            STATUS_HTTP2 => Reason::OpaqueHttp2,
            STATUS_NOT_HTTP => Reason::OpaqueNotHttp,
            _ => {
                if self.out.want != Want::Baseline {
                    return self.refuse(Reason::ResetHeadUnreadable);
                }
                Reason::OpaqueFraming
            }
        };
        self.count(reason);
        self.out.state.phase = PHASE_OPAQUE;
        self.out.step = Step::Stay;
        false
    }

    /// Decides about the complete head in the window, where more than the baseline has a part. Whether there is more to read.
    pub(super) fn decide(&mut self) -> bool {
        if self.work.head.flags & FLAG_CONNECT != 0 {
            if self.out.want != Want::Baseline || self.out.state.owner != 0 {
                return self.refuse(Reason::ResetConnect);
            }
            self.count(Reason::OpaqueTunnel);
            self.out.state.phase = PHASE_OPAQUE;
            self.out.step = Step::Stay;
            return false;
        }
        let want = match self.out.want {
            Want::Baseline => conn::Want::Baseline,
            Want::Fork => conn::Want::Fork(self.out.route, self.out.version),
            Want::Fail => conn::Want::Fail,
        };
        let Some(c) = self.maps.connections.get(&self.out.conn) else { return false };
        let (known, legs, resp) = (c.server.mss != 0, c.legs, c.resp);
        let slot = self.live_slot(&legs, want);
        let out = &mut self.out;
        if slot != u32::from(out.state.owner) {
            let head_at = out.state.request.pos + u64::from(out.state.partial);
            out.resp = resp;
            let acked = seq::extend(out.resp.next, out.packet.ack);
            let at = At { start: out.start, head: head_at, acked };
            match conn::at_head(&out.state, &legs, known.then_some(&out.resp), at, want, slot) {
                conn::Step::Stay => {}
                conn::Step::Cut => {
                    out.cut = (head_at - out.start) as u32;
                    out.step = Step::Cut;
                    return false;
                }
                conn::Step::Wait => {
                    out.slot = slot;
                    out.step = Step::Wait;
                    self.held();
                    let out = &self.out;
                    let waits = out.step == Step::Wait && out.state.phase == PHASE_HOLD && out.state.held == out.start;
                    if waits && self.no_agent() && self.now.wrapping_sub(self.out.state.active) > WAIT_ALONE_NS {
                        return self.refuse(Reason::ResetNotSwitchable);
                    }
                    return false;
                }
                conn::Step::Reset(reason) => return self.refuse(reason),
                conn::Step::Switch(s) => {
                    out.slot = s;
                    out.step = Step::Switch;
                }
                conn::Step::Dial(s) => {
                    out.slot = s;
                    out.step = Step::Dial;
                    self.held();
                    if self.out.step == Step::Dial && self.no_agent() {
                        if self.out.want == Want::Baseline && self.out.state.head_may_wait(self.out.start, self.now) {
                            return false;
                        }
                        if !self.out.or_baseline {
                            return self.refuse(Reason::ResetAgentDead);
                        }
                        self.out.step = Step::Instead;
                    }
                    if self.out.step == Step::Instead && !self.baseline_instead(&legs) {
                        return self.refuse(Reason::ResetUnreachable);
                    }
                    if !matches!(self.out.step, Step::Adopt | Step::Switch | Step::More) {
                        return false;
                    }
                }
            }
        }
        self.go_on()
    }

    /// The slot whose leg lives and serves `want`, or none.
    fn live_slot(&self, legs: &[LegRef; SLOTS], want: conn::Want) -> u32 {
        let slot = conn::slot_of(legs, want);
        let live = self.out.state.flags & CONN_DIVERTED == 0
            || (slot as usize) < SLOTS && self.maps.usable(&self.out.conn, slot as usize, &legs[slot as usize]);
        if live { slot } else { SLOTS as u32 }
    }

    /// The baseline is to serve the request, by the leg that it has. False: it has none, or a part of the head is elsewhere.
    fn baseline_instead(&mut self, legs: &[LegRef; SLOTS]) -> bool {
        let owns = self.out.state.owner == 0;
        if self.live_slot(legs, conn::Want::Baseline) != 0 || !owns && self.out.state.partial != 0 {
            return false;
        }
        self.count(Reason::BaselineInstead);
        self.out.want = Want::Baseline;
        self.out.slot = 0;
        self.out.step = if owns { Step::More } else { Step::Switch };
        true
    }

    /// The head goes on in this segment: to the owner, or to the leg that becomes it. Whether there is more to read.
    pub(super) fn go_on(&mut self) -> bool {
        let baseline = self.out.want == Want::Baseline;
        self.count(if baseline { Reason::HeadBaseline } else { Reason::HeadKeyed });
        let head = &self.work.head;
        let out = &mut self.out;
        if out.step == Step::More {
            out.state.partial = 0;
        }
        let (behind, end) = (out.state.request.pos + u64::from(head.end), out.end);
        out.state.consume(&facts(head), behind, end);
        if out.step == Step::More && out.state.request.state == FRAMING_HEAD && out.state.request.pos >= end {
            return self.read_out();
        }
        true
    }

    /// The segment has been read to its end.
    pub(super) fn read_out(&mut self) -> bool {
        if self.out.step == Step::More {
            self.out.step = Step::Stay;
        }
        false
    }

    /// Looks for the agent's answer to a hold.
    fn held(&mut self) {
        let out = &mut self.out;
        let asked = out.state.held_for == conn::Want::number(out.route, out.version);
        if out.state.phase != PHASE_HOLD || out.state.held != out.start || !asked {
            return;
        }
        let Some(d) = self.maps.dials.get(&out.conn).filter(|d| d.hold == out.state.hold) else { return };
        if d.status == DIAL_FAILED {
            out.step = Step::Reset;
            out.reason = Reason::ALL.get(d.reason as usize).copied();
        } else if d.status == DIAL_BASELINE && d.reason == out.route && out.step == Step::Dial {
            out.step = Step::Instead;
            if d.leg.kind != LEG_NONE {
                out.want = Want::Baseline;
                out.slot = 0;
                out.step = Step::Adopt;
                self.count(Reason::BaselineInstead);
            }
        } else if d.status == DIAL_READY && d.leg.route == out.route && out.step == Step::Dial {
            out.slot = d.slot & (SLOTS as u32 - 1);
            out.step = Step::Adopt;
        }
    }
}
