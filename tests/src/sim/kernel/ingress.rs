//! What comes to the pod, as `ebpf/src/ingress.rs`.

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        reason::Reason,
        record::{
            CONN_ADOPT, CONN_DIVERTED, CONN_HELD, FRAMING_HEAD, Leg, OPT_MULTIPATH, PHASE_OPAQUE, RESP_FIN, RESP_RESET,
            STATE_DEAD, STATE_OWNER,
        },
    },
    packet::{Edit, Packet, flag, ports},
    reply::Place,
    seq::{self, Numbers},
};

use super::{Kernel, Verdict, open, packet};

/// What comes next at ingress.
enum Next {
    Done(Verdict),
    Follow,
    Over,
}

impl Kernel {
    /// Decides about one packet that comes to the pod.
    pub fn ingress(&mut self, frame: &mut Vec<u8>) -> Verdict {
        let mut p = Packet::default();
        if !packet::parse(frame, &mut p) || !self.known(&p.src, p.src_port()) {
            return Verdict::Pass;
        }
        self.incoming.packet = p;
        let tuple = packet::inbound(&p);
        self.incoming.leg = tuple;
        let connection = self.maps.connections.get(&tuple);
        if connection.is_some_and(|c| c.now.flags & CONN_DIVERTED == 0) {
            return match self.original_packet(frame) {
                Next::Done(verdict) => verdict,
                _ => self.follow(frame, None),
            };
        }
        let Some(leg) = self.maps.legs.get(&tuple).copied() else {
            if connection.is_some() {
                self.count(Reason::DeadKept);
                return self.reset_backend(frame);
            }
            let answer = p.flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK;
            return if answer { self.dial_answered(frame) } else { Verdict::Pass };
        };
        match leg.state {
            STATE_OWNER => {}
            STATE_DEAD => {
                self.count(Reason::DeadKept);
                return Verdict::Shot;
            }
            _ => return self.parked(frame, &leg),
        }
        if !self.maps.connections.contains_key(&leg.conn) {
            self.count(Reason::DeadKept);
            return Verdict::Shot;
        }
        let verdict = match self.owner(&leg) {
            Next::Done(verdict) => verdict,
            Next::Follow => self.follow(frame, Some(tuple)),
            Next::Over => {
                let (conn, service) = (leg.conn, self.maps.connections[&leg.conn].service);
                self.gone(conn, service);
                Verdict::Pass
            }
        };
        if verdict != Verdict::Pass || (leg.moved == 0 && leg.cs_off == 0 && leg.ss_off == 0) {
            return verdict;
        }
        packet::fit(frame, &p, &leg, true);
        deliver(frame, &p, &leg);
        Verdict::Pass
    }

    /// A packet of the baseline, on a connection that no other leg has served yet.
    fn original_packet(&mut self, frame: &mut [u8]) -> Next {
        let (p, conn) = (self.incoming.packet, self.incoming.leg);
        if p.flags & flag::SYN != 0 {
            return Next::Done(self.syn_ack(frame));
        }
        let Some(c) = self.maps.connections.get(&conn) else { return Next::Done(Verdict::Pass) };
        if c.server.mss == 0 {
            if p.flags & flag::RST != 0 && p.ack == c.isn.wrapping_add(1) {
                self.count(Reason::ClosedPlain);
                self.forget_known(conn);
            }
            return Next::Done(Verdict::Pass);
        }
        if c.now.flags & CONN_ADOPT != 0 {
            return Next::Done(self.older_response(frame));
        }
        let (held, resp) = (c.now.flags & CONN_HELD != 0, c.resp);
        let start = seq::extend(resp.next, p.seq);
        let end = start + u64::from(p.len);
        self.incoming.start = start;
        self.incoming.end = end;
        self.incoming.ack = p.ack;
        if p.flags & (flag::FIN | flag::RST) == 0 && (!held || start == end) {
            let place = resp.place(start, end);
            if place == Place::Pass {
                self.passed(&conn);
                return Next::Done(Verdict::Pass);
            }
            if place == Place::Read && self.plain_response(frame) {
                return Next::Done(Verdict::Pass);
            }
        }
        if held && p.span() != 0 {
            self.count(Reason::HeldKept);
            return Next::Done(Verdict::Shot);
        }
        self.incoming.conn = conn;
        if p.flags & flag::RST != 0 {
            return Next::Done(self.reset_by_baseline());
        }
        self.incoming.again = false;
        Next::Follow
    }

    fn reset_by_baseline(&mut self) -> Verdict {
        if !self.believed() {
            return Verdict::Pass;
        }
        if !self.note_reset(None) {
            return Verdict::Shot;
        }
        self.count(Reason::ClosedPlain);
        self.forget_known(self.incoming.conn);
        Verdict::Pass
    }

    /// A packet of a leg that is not the owner.
    fn parked(&mut self, frame: &mut Vec<u8>, leg: &Leg) -> Verdict {
        let (p, tuple) = (self.incoming.packet, self.incoming.leg);
        let closes = p.flags & (flag::FIN | flag::RST) != 0;
        let probe = p.seq == leg.snd_nxt.wrapping_sub(1);
        if !closes && p.span() == 0 && !probe {
            self.count(Reason::ParkedKept);
            return Verdict::Shot;
        }
        let end = p.seq.wrapping_add(p.span());
        if !closes && leg.snd_nxt.wrapping_sub(end).cast_signed() >= 0 {
            return self.acknowledge(frame, leg.rcv_nxt, leg.snd_nxt);
        }
        if !closes || leg.closed == 0 {
            self.count(Reason::ParkedClosed);
        }
        if let Some(leg) = self.maps.legs.get_mut(&tuple) {
            leg.closed = 1;
        }
        Verdict::Shot
    }

    /// A packet of the owner, on a connection that was diverted.
    fn owner(&mut self, l: &Leg) -> Next {
        let (p, now) = (self.incoming.packet, self.now);
        let Some(c) = self.maps.connections.get_mut(&l.conn) else { return Next::Done(Verdict::Shot) };
        if c.isn != l.isn || p.flags & flag::SYN != 0 {
            self.count(Reason::DeadKept);
            return Next::Done(Verdict::Shot);
        }
        if c.now.flags & CONN_HELD != 0 && p.span() != 0 {
            self.count(Reason::HeldKept);
            return Next::Done(Verdict::Shot);
        }
        let numbers = seq::to_client(l, Numbers { seq: p.seq, ack: p.ack });
        let w = &mut self.incoming;
        w.conn = l.conn;
        w.start = seq::extend(c.resp.next, numbers.seq);
        w.end = w.start + u64::from(p.len);
        w.ack = numbers.ack;
        w.again = true;
        c.resp.heard = now;
        let place = c.resp.place(w.start, w.end);
        if p.flags & flag::RST != 0 {
            return self.reset_by_owner();
        }
        if p.flags & flag::FIN != 0 || place != Place::Pass {
            return Next::Follow;
        }
        let conn = l.conn;
        self.passed(&conn);
        Next::Done(Verdict::Pass)
    }

    /// Follows the framing of the responses through the segment in hand.
    fn follow(&mut self, frame: &[u8], leg: Option<Tuple>) -> Verdict {
        let conn = self.incoming.conn;
        let Some(c) = self.maps.connections.get(&conn) else { return Verdict::Shot };
        let w = &mut self.incoming;
        w.state = c.resp;
        w.read = false;
        match w.state.place(w.start, w.end) {
            Place::Pass => {}
            Place::Read => {
                w.read = true;
                let before = w.state.response.pos;
                self.replies(frame);
                let response = &self.incoming.state.response;
                if response.state == FRAMING_HEAD && response.pos != before {
                    self.count(Reason::ResponseComplete);
                }
            }
            Place::Lost if w.again => {
                self.count(Reason::ResponseGap);
                return Verdict::Shot;
            }
            Place::Lost => {
                w.read = true;
                self.lose();
            }
        }
        if self.incoming.packet.flags & flag::FIN != 0 {
            self.incoming.state.flags |= RESP_FIN;
        }
        if !self.commit_response(leg) {
            return Verdict::Shot;
        }
        self.passed(&conn);
        Verdict::Pass
    }

    /// Writes the state of the copy. False: the leg may not speak any more.
    fn commit_response(&mut self, leg: Option<Tuple>) -> bool {
        let conn = self.incoming.conn;
        if !self.speaks(&conn, leg) {
            self.count(Reason::HeldKept);
            return false;
        }
        let state = self.incoming.state;
        if let Some(c) = self.maps.connections.get_mut(&conn) {
            let (next, acked, heard) = (c.resp.next, c.resp.acked, c.resp.heard);
            c.resp = state;
            (c.resp.next, c.resp.acked, c.resp.heard) = (next, acked, heard);
        }
        true
    }

    /// The baseline's SYN-ACK.
    fn syn_ack(&mut self, frame: &mut [u8]) -> Verdict {
        let (p, conn) = (self.incoming.packet, self.incoming.leg);
        let mut server = open::said(&packet::options(frame, &p, 0, 0));
        server.options |= p.ecn();
        let Some(c) = self.maps.connections.get_mut(&conn) else { return Verdict::Pass };
        let older = c.now.flags & CONN_ADOPT != 0;
        if p.flags & flag::ACK == 0 || c.server.mss != 0 || !older && p.ack != c.isn.wrapping_add(1) {
            return Verdict::Pass;
        }
        if older {
            c.client.options = server.options;
        } else {
            let first = seq::first(p.seq);
            c.resp.response.pos = first;
            c.resp.next = first;
            c.resp.acked = seq::first(c.isn);
        }
        if server.mss == 0 {
            server.mss = 536;
        }
        c.server = server;
        if c.client.options & server.options & OPT_MULTIPATH != 0 {
            c.now.phase = PHASE_OPAQUE;
            self.count(Reason::OpaqueMultipath);
        }
        Verdict::Pass
    }

    /// Whether the client must believe the reset in hand.
    fn believed(&mut self) -> bool {
        let resp = self.maps.connections.get(&self.incoming.conn).map(|c| c.resp);
        self.incoming.state = resp.unwrap_or_default();
        self.incoming.state.resets(self.incoming.start)
    }

    fn note_reset(&mut self, leg: Option<Tuple>) -> bool {
        self.incoming.state.flags |= RESP_RESET;
        self.commit_response(leg)
    }

    fn reset_by_owner(&mut self) -> Next {
        if !self.believed() {
            return Next::Done(Verdict::Pass);
        }
        let first = self.incoming.state.flags & RESP_RESET == 0;
        let tuple = self.incoming.leg;
        match (self.note_reset(Some(tuple)), first) {
            (true, true) => Next::Over,
            (true, false) => Next::Done(Verdict::Pass),
            (false, _) => {
                if let Some(leg) = self.maps.legs.get_mut(&tuple) {
                    leg.closed = 1;
                }
                Next::Done(Verdict::Shot)
            }
        }
    }
}

/// The packet as the client must see it.
fn deliver(frame: &mut [u8], p: &Packet, l: &Leg) {
    let mut numbers = seq::to_client(l, Numbers { seq: p.seq, ack: p.ack });
    if p.flags & flag::ACK == 0 {
        numbers.ack = p.ack;
    }
    let mut edit = Edit::numbers(p, numbers, seq::window(p.window, l.window_in));
    if l.moved != 0 {
        edit.src = l.conn.remote;
        edit.ports = ports(l.conn.remote_port, l.conn.local_port);
    }
    packet::rewrite(frame, p, &edit);
}
