//! Beginning and end of connections, as `ebpf/src/open.rs`.

use sidetrack_splice::{
    abi::{
        DIAL_SACK, DIAL_STAMPS,
        addr::Tuple,
        reason::Reason,
        record::{Connection, Handshake, LEG_BASELINE, Leg, PHASE_WATCH, STATE_OWNER, Said},
        route::ServiceAddr,
    },
    packet::{OptionWalk, Packet, flag},
    seq,
};

use super::{INWARD, Kernel, OUTWARD, Verdict, packet};

/// What a SYN or a SYN-ACK says.
#[must_use]
pub fn said(walk: &OptionWalk) -> Said {
    Said { mss: walk.syn.mss, options: walk.syn.options, wscale: walk.syn.wscale }
}

impl Kernel {
    /// A packet of a leg that the agent dials.
    pub(super) fn dial(&mut self, frame: &mut [u8], keeps: u32) -> Verdict {
        let mut p = Packet::default();
        if !packet::parse(frame, &mut p) || p.flags & flag::SYN == 0 {
            return Verdict::Pass;
        }
        self.count(Reason::DialSyn);
        let seen = Handshake { at: self.now, isn: p.seq, ..Handshake::default() };
        self.maps.handshakes.insert(packet::outbound(&p), seen);
        let stamps = if keeps & DIAL_STAMPS == 0 { packet::STRIP_TIMESTAMP } else { 0 };
        let sack = if keeps & DIAL_SACK == 0 { packet::STRIP_SACK } else { 0 };
        if stamps | sack != 0 && p.options_len() != 0 {
            packet::options(frame, &p, stamps | sack, 0);
        }
        Verdict::Pass
    }

    /// A SYN-ACK that belongs to no connection: a leg's that the agent dials, perhaps.
    pub(super) fn dial_answered(&mut self, frame: &mut [u8]) -> Verdict {
        let p = self.incoming.packet;
        let stamp = packet::stamps(frame, &p).map_or(0, |s| s.val);
        if let Some(h) = self.maps.handshakes.get_mut(&self.incoming.leg)
            && p.ack == h.isn.wrapping_add(1)
        {
            h.peer_isn = p.seq;
            h.stamp = stamp;
            h.answered = 1;
        }
        Verdict::Pass
    }

    /// The client's SYN.
    pub(super) fn syn(&mut self, frame: &mut [u8]) -> Verdict {
        let (conn, p) = (self.out.conn, self.out.packet);
        let key = ServiceAddr { addr: conn.remote, port: conn.remote_port, pad: 0 };
        let Some(service) = self.maps.services.get(&key).copied() else {
            if self.maps.legs.remove(&conn).is_some() {
                self.count(Reason::TupleReused);
            }
            return Verdict::Pass;
        };
        let strip = if service.routes == 0 { 0 } else { packet::STRIP_MULTIPATH };
        let said = said(&packet::options(frame, &p, strip, 0));
        if let Some(c) = self.maps.connections.get(&conn) {
            if c.isn == p.seq {
                return Verdict::Pass;
            }
            self.count(Reason::TupleReused);
            self.maps.legs.remove(&conn);
            self.forget_known(conn);
        }
        if p.len != 0 && service.routes == 0 {
            self.count(Reason::OpaqueFastOpen);
            return Verdict::Pass;
        }
        let now = self.now;
        let mut c = Connection { opened: now, service: service.id, isn: p.seq, client: said, ..Connection::default() };
        c.client.options |= p.ecn();
        c.now.phase = PHASE_WATCH;
        c.now.request.pos = seq::first(p.seq);
        c.now.next = seq::first(p.seq);
        c.now.hold = p.seq;
        c.now.active = now;
        c.legs[0].remote = conn.remote;
        c.legs[0].remote_port = conn.remote_port;
        c.legs[0].local_port = conn.local_port;
        c.legs[0].kind = LEG_BASELINE;
        self.maps.connections.insert(conn, c);
        self.count(Reason::Tracked);
        Verdict::Pass
    }

    /// Makes the record of the original leg.
    pub(super) fn original(&mut self, seen: u32) -> bool {
        let (conn, now) = (self.out.conn, self.now);
        let Some(c) = self.c() else { return false };
        let leg = Leg {
            conn,
            kind: LEG_BASELINE,
            state: STATE_OWNER,
            isn: c.isn,
            opened: c.opened,
            options: c.client.options & c.server.options,
            active: now,
            ts_nxt: seen,
            ..Leg::default()
        };
        self.maps.legs.insert(conn, leg);
        true
    }

    /// Removes what is known of a connection, but for its legs.
    pub(super) fn forget_known(&mut self, conn: Tuple) {
        let Some(c) = self.maps.connections.remove(&conn) else { return };
        if c.now.partial != 0 {
            self.maps.heads.remove(&(conn, OUTWARD));
        }
        if c.resp.partial != 0 {
            self.maps.heads.remove(&(conn, INWARD));
        }
    }
}
