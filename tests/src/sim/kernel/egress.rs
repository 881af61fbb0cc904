//! What the pod sends, as `ebpf/src/egress.rs`, `ebpf/src/step.rs` and `ebpf/src/forward.rs`.

use sidetrack_splice::{
    abi::{
        DIAL_KEEPS, LEGS as SLOTS, MARK_DIAL, MARK_REPLAY,
        event::{EVENT_CUT, EVENT_DIAL, EVENT_MORE, EVENT_WAIT},
        reason::Reason,
        record::{
            CONN_ADOPT, CONN_DIVERTED, CONN_EXPECT, CONN_FIN, CONN_PENDING, OPT_TIMESTAMP, PHASE_HOLD, STATE_DEAD,
            STATE_OWNER, STATE_PARKED,
        },
    },
    conn::{self, HELD_MAX, Held, Place},
    packet::{Edit, flag, ports},
    reply,
    seq::{self, Numbers},
};

use super::{Kernel, Next, OUTWARD, Step, Verdict, Want, leg_tuple, long::is_long, packet};

impl Kernel {
    /// Decides about one packet that the pod sends.
    pub fn egress(&mut self, frame: &mut Vec<u8>, mark: u32) -> Verdict {
        match mark {
            dial if dial & !DIAL_KEEPS == MARK_DIAL => self.dial(frame, dial & DIAL_KEEPS),
            0 | MARK_REPLAY => self.watch(frame, mark == MARK_REPLAY),
            _ => Verdict::Pass,
        }
    }

    fn watch(&mut self, frame: &mut Vec<u8>, replayed: bool) -> Verdict {
        let unknown = if replayed { Verdict::Stolen } else { Verdict::Pass };
        let mut p = sidetrack_splice::packet::Packet::default();
        if !packet::parse(frame, &mut p) || !self.known(&p.dst, p.dst_port()) {
            return unknown;
        }
        self.out.packet = p;
        self.out.conn = packet::outbound(&p);
        if p.flags & flag::SYN != 0 {
            return if p.flags & flag::ACK == 0 { self.syn(frame) } else { Verdict::Pass };
        }
        let Some(c) = self.maps.connections.get_mut(&self.out.conn) else {
            if replayed {
                self.count(Reason::HoldDropped);
            }
            return unknown;
        };
        let now = &mut c.now;
        let start = seq::extend(now.next, p.seq);
        let end = start + u64::from(p.len);
        let fin = u64::from(p.flags & flag::FIN);
        let place = now.place(start, end + fin);
        if matches!(place, Place::Owner)
            && now.flags & (CONN_DIVERTED | CONN_EXPECT | CONN_PENDING | CONN_ADOPT) == 0
            && p.flags & (flag::FIN | flag::RST) == 0
        {
            if end > start && end > now.next {
                now.next = end;
            }
            return Verdict::Pass;
        }
        self.out.start = start;
        self.out.end = end;
        if matches!(place, Place::Read)
            && now.flags & CONN_DIVERTED == 0
            && p.flags & (flag::FIN | flag::RST) == 0
            && self.plain_request(frame)
        {
            return Verdict::Pass;
        }
        self.look();
        self.out.slot = u32::from(self.out.state.owner);
        let mut next = match place {
            _ if p.flags & flag::RST != 0 => self.reset_by_client(),
            Place::Owner => self.for_owner(frame, replayed),
            Place::Previous => {
                self.count(Reason::LateToPrevious);
                self.out.slot = u32::from(self.out.state.previous);
                Next::Forward
            }
            Place::Read | Place::Retry => self.read(frame, replayed),
            Place::Behind => self.behind(frame),
            Place::Across => self.across(frame),
            Place::Drop(Reason::Gap) if self.out.state.joins(replayed) => self.behind(frame),
            Place::Drop(Reason::Gap) => self.gap(),
            Place::Drop(reason) => {
                self.count(reason);
                Next::Done(Verdict::Stolen)
            }
            Place::Reset(reason) => self.reset(reason),
        };
        if next == Next::Adopt {
            next = self.older_request();
        }
        if next == Next::Read {
            next = self.read(frame, replayed);
        }
        if next == Next::Switch {
            next = self.switch(frame);
            if next == Next::PassOn {
                self.part(frame);
            }
        }
        if next == Next::PassOn {
            next = self.pass_on(fin != 0);
        }
        if next == Next::Forward {
            next = match self.forward(frame) {
                Some(verdict) => Next::Done(verdict),
                None if (end == start && fin == 0) || matches!(place, Place::Previous) => Next::Done(Verdict::Stolen),
                None => self.reset(Reason::ResetLegGone),
            };
        }
        match next {
            Next::Done(verdict) => verdict,
            _ => self.give_up(frame),
        }
    }

    pub(super) fn reset(&mut self, reason: Reason) -> Next {
        self.out.reason = Some(reason);
        Next::GiveUp
    }

    pub(super) fn look(&mut self) {
        if let Some(c) = self.maps.connections.get(&self.out.conn) {
            self.out.state = c.now;
            self.out.service = c.service;
        }
    }

    pub(super) fn commit(&mut self) {
        let state = self.out.state;
        if let Some(c) = self.c() {
            c.now = state;
            c.told = reply::tell(c.isn, &state);
        }
    }

    fn for_owner(&mut self, frame: &mut [u8], replayed: bool) -> Next {
        if self.out.state.flags & CONN_ADOPT != 0 {
            return if self.out.packet.len == 0 { Next::PassOn } else { Next::Adopt };
        }
        let (start, end) = (self.out.start, self.out.end);
        if self.out.state.flags & CONN_PENDING != 0 {
            if self.out.state.caught_up(start, end, replayed) {
                self.out.state.flags &= !CONN_PENDING;
                self.commit();
            } else {
                self.note_acked(frame);
                let at = self.out.state.acknowledges_at(start);
                if end == start && at != start {
                    packet::renumber(frame, &mut self.out.packet, at as u32);
                    (self.out.start, self.out.end) = (at, at);
                }
            }
        }
        let (start, end) = (self.out.start, self.out.end);
        let resp = self.c().map(|c| c.resp).unwrap_or_default();
        if self.out.state.flags & CONN_EXPECT != 0 && end > start {
            if self.out.state.expect_failed(&resp) {
                return self.reset(Reason::ResetExpect);
            }
            self.out.state.flags &= !CONN_EXPECT;
            self.out.state.passed(end);
            self.commit();
        }
        let again = self.out.state.sent_again(start, end, replayed);
        let (state, now) = (self.out.state, self.now);
        if again && self.c().is_some_and(|c| state.leg_dead(&resp, end, now, &mut c.again)) {
            return self.reset(Reason::ResetLegDead);
        }
        Next::PassOn
    }

    fn pass_on(&mut self, fin: bool) -> Next {
        let (start, end) = (self.out.start, self.out.end);
        if let Some(c) = self.c()
            && end > start
            && end > c.now.next
        {
            c.now.next = end;
        }
        if self.out.state.flags & CONN_DIVERTED == 0 {
            if fin {
                self.count(Reason::ClosedPlain);
                self.forget_known(self.out.conn);
            }
            return Next::Done(Verdict::Pass);
        }
        if fin && self.out.state.flags & CONN_FIN == 0 {
            self.out.state.passed(end);
            self.out.state.flags |= CONN_FIN;
            self.commit();
            self.count(Reason::ClosedLegs);
            self.ended();
        }
        self.out.slot = u32::from(self.out.state.owner);
        Next::Forward
    }

    fn read(&mut self, frame: &mut [u8], replayed: bool) -> Next {
        self.requests(frame);
        match self.out.step {
            Step::Stay => {
                let (start, end) = (self.out.start, self.out.end);
                if self.out.state.phase == PHASE_HOLD {
                    self.out.state.release();
                } else if self.out.state.caught_up(start, end, replayed) {
                    self.out.state.flags &= !CONN_PENDING;
                }
                self.out.state.passed(end);
                self.out.state.active = self.now;
                let before = self.c().map_or(0, |c| c.now.partial);
                let after = self.out.state.partial;
                let gathered = before != 0 && !is_long(before) && (after == 0 || is_long(after));
                self.commit();
                if gathered {
                    self.maps.heads.remove(&(self.out.conn, OUTWARD));
                }
                if self.out.state.flags & CONN_PENDING != 0 {
                    self.note_acked(frame);
                }
                Next::PassOn
            }
            Step::Cut
                if self.no_agent() && !(self.out.want == Want::Baseline && self.out.state.cut_may_wait(self.now)) =>
            {
                self.reset(Reason::ResetAgentDead)
            }
            Step::Cut => {
                self.count(Reason::HoldCut);
                if self.out.state.flags & CONN_PENDING == 0 {
                    let ack = self.out.packet.ack;
                    let now = self.now;
                    if let Some(c) = self.c() {
                        c.now.acked = ack;
                        c.now.asked_at = now;
                        c.now.flags |= CONN_PENDING;
                    }
                }
                self.hand_over(frame, EVENT_CUT);
                Next::Done(Verdict::Stolen)
            }
            Step::Wait => self.hold_head(frame, replayed, SLOTS as u32, EVENT_WAIT),
            Step::Dial => {
                let slot = self.out.slot;
                self.hold_head(frame, replayed, slot, EVENT_DIAL)
            }
            Step::Switch | Step::Adopt => Next::Switch,
            Step::More | Step::Reset | Step::Instead => Next::GiveUp,
        }
    }

    fn hold_head(&mut self, frame: &[u8], replayed: bool, slot: u32, kind: u32) -> Next {
        let out = &mut self.out;
        let before = out.state.hold;
        let wants = conn::Want::number(out.route, out.version);
        let head = Held { start: out.start, slot, wants, acked: out.packet.ack };
        let due = out.state.hold(head, self.now);
        if !(due && (out.state.hold != before || !replayed)) {
            if !replayed {
                self.count(Reason::HoldDropped);
            }
            return Next::Done(Verdict::Stolen);
        }
        out.slot = slot;
        if self.hand_over(frame, kind) {
            self.count(if kind == EVENT_DIAL { Reason::HoldDial } else { Reason::HoldWait });
            self.commit();
        }
        Next::Done(Verdict::Stolen)
    }

    fn behind(&mut self, frame: &mut [u8]) -> Next {
        let bytes = self.out.state.held_bytes + self.out.packet.len;
        if bytes > HELD_MAX || !self.hand_over(frame, EVENT_MORE) {
            self.count(Reason::HoldDropped);
            return Next::Done(Verdict::Stolen);
        }
        self.count(Reason::HoldMore);
        self.note_acked(frame);
        if let Some(c) = self.c() {
            c.now.held_bytes = bytes;
        }
        Next::Done(Verdict::Stolen)
    }

    fn across(&mut self, frame: &[u8]) -> Next {
        if self.no_agent() && !self.out.state.across_may_wait(self.now) {
            return self.reset(Reason::ResetAgentDead);
        }
        self.out.cut = (self.out.state.held - self.out.start) as u32;
        self.count(Reason::HoldCut);
        self.hand_over(frame, EVENT_CUT);
        Next::Done(Verdict::Stolen)
    }

    fn note_acked(&mut self, frame: &mut [u8]) {
        let (conn, p) = (self.out.conn, self.out.packet);
        let Some(c) = self.maps.connections.get_mut(&conn) else { return };
        c.now.acked = seq::later(p.ack, c.now.acked);
        let slot = usize::from(c.now.owner) & (SLOTS - 1);
        let owner = c.legs[slot];
        if let (Some(leg), Some(s)) = (self.maps.leg_mut(&conn, slot, &owner), packet::stamps(frame, &p)) {
            leg.ts_echo = seq::echoed(s.ecr, leg.ts_echo);
        }
    }

    fn switch(&mut self, frame: &mut [u8]) -> Next {
        let conn = self.out.conn;
        let (slot, old) = (self.out.slot as usize & (SLOTS - 1), usize::from(self.out.state.owner) & (SLOTS - 1));
        let cold = self.out.step == Step::Adopt;
        let (head, acked) = (self.out.packet.seq, self.out.packet.ack);
        let stamps = packet::stamps(frame, &self.out.packet);
        if self.out.state.flags & CONN_DIVERTED == 0 && !self.original(stamps.map_or(0, |s| s.ecr)) {
            return self.reset(Reason::ResetLegsFull);
        }
        if cold {
            let Some(dial) = self.maps.dials.get(&conn).copied() else { return self.reset(Reason::ResetLegGone) };
            if let Some(c) = self.c() {
                c.legs[slot] = dial.leg;
            }
        }
        let number = self.out.state.asked as u16;
        let Some(c) = self.c() else { return Next::Done(Verdict::Stolen) };
        c.legs[slot].used = number;
        let (old_ref, new_ref, opened) = (c.legs[old], c.legs[slot], c.opened);
        if self.maps.leg(&conn, slot, &new_ref).is_none() {
            return self.reset(Reason::ResetLegGone);
        }
        let known = self.maps.leg(&conn, old, &old_ref).map_or(0, |leg| leg.ts_echo);
        let echo = stamps.map(|s| seq::echoed(s.ecr, known));
        let now = self.now;
        if let Some(new) = self.maps.leg_mut(&conn, slot, &new_ref) {
            (new.cs_off, new.ss_off) = seq::resume(new, head, acked);
            match echo {
                Some(ecr) => {
                    new.ts_in = seq::resume_stamps(new, ecr, now.wrapping_sub(opened));
                    new.ts_echo = ecr;
                }
                None => new.options &= !OPT_TIMESTAMP,
            }
            new.active = now;
            new.state = STATE_OWNER;
        }
        let partial = self.out.state.partial;
        if slot != old
            && let Some(leg) = self.maps.leg_mut(&conn, old, &old_ref)
        {
            (leg.rcv_nxt, leg.snd_nxt) = seq::park(leg, head, acked);
            if let Some(ecr) = echo {
                leg.ts_nxt = seq::park_stamps(leg, ecr);
            }
            leg.active = now;
            leg.state = if partial != 0 { STATE_DEAD } else { STATE_PARKED };
        }
        if partial != 0 {
            self.maps.heads.remove(&(conn, OUTWARD));
            self.out.state.partial = 0;
            self.gone(conn, self.out.service);
        }
        self.count(if cold { Reason::SpliceCold } else { Reason::SpliceHot });
        let (start, end) = (self.out.start, self.out.end);
        self.out.state.switch(slot as u32, start, now);
        self.out.state.passed(end);
        self.commit();
        Next::PassOn
    }

    /// Acknowledges for the client what the owner before the switch has said, as `ebpf/src/part.rs`.
    fn part(&mut self, frame: &[u8]) {
        let (conn, state) = (self.out.conn, self.out.state);
        if state.previous == state.owner {
            return;
        }
        let slot = usize::from(state.previous) & (SLOTS - 1);
        let Some(r) = self.maps.connections.get(&conn).map(|c| c.legs[slot]) else { return };
        let Some(leg) = self.maps.leg(&conn, slot, &r).filter(|leg| leg.state == STATE_PARKED) else { return };
        let mut answers = self.out.packet;
        (answers.src, answers.dst) = (r.remote, conn.local);
        answers.ports = ports(r.remote_port, r.local_port);
        let parting = packet::answer(frame, &answers, leg.rcv_nxt, leg.snd_nxt, flag::ACK);
        self.beside.push(parting);
    }

    /// Nothing: the leg is gone.
    fn forward(&mut self, frame: &mut [u8]) -> Option<Verdict> {
        if self.out.state.flags & CONN_DIVERTED == 0 {
            return Some(Verdict::Pass);
        }
        let conn = self.out.conn;
        let slot = self.out.slot as usize & (SLOTS - 1);
        let c = self.maps.connections.get(&conn)?;
        let tuple = leg_tuple(&conn, &c.legs[slot]);
        let leg = self.maps.leg(&conn, slot, &c.legs[slot]).filter(|leg| leg.state != STATE_DEAD)?;
        let p = &self.out.packet;
        packet::fit(frame, p, leg, false);
        let mut numbers = seq::to_leg(leg, Numbers { seq: p.seq, ack: p.ack });
        if p.flags & flag::ACK == 0 {
            numbers.ack = p.ack;
        }
        let mut edit = Edit::numbers(p, numbers, seq::window(p.window, leg.window_out));
        edit.dst = tuple.remote;
        edit.ports = ports(tuple.local_port, tuple.remote_port);
        packet::rewrite(frame, p, &edit);
        Some(if leg.moved == 0 { Verdict::Pass } else { Verdict::Out })
    }
}
