//! Connections that end at egress, and handing frames to the agent, as `ebpf/src/ends.rs` and `ebpf/src/hold.rs`.

use sidetrack_splice::abi::{
    addr::Tuple,
    event::{EVENT_GONE, Event},
    reason::Reason,
    record::{CONN_DIVERTED, CONN_HELD, PHASE_CLOSED, PHASE_RESET},
};

use super::{Kernel, Next, OUTWARD, Verdict};

impl Kernel {
    /// The client will end no head any more.
    pub(super) fn ended(&mut self) {
        let conn = self.out.conn;
        if self.out.state.partial != 0 {
            self.maps.heads.remove(&(conn, OUTWARD));
        }
        self.gone(conn, self.out.service);
    }

    /// Gives the connection up.
    pub(super) fn give_up(&mut self, frame: &mut Vec<u8>) -> Verdict {
        if self.out.state.phase != PHASE_RESET {
            self.out.state.phase = PHASE_RESET;
            self.out.state.flags &= !CONN_HELD;
            self.out.state.active = self.now;
            self.commit();
            let answered = self.c().is_some_and(|c| c.server.mss != 0);
            if self.out.state.flags & CONN_DIVERTED == 0 && answered && !self.original(0) {
                self.count(Reason::ErrMap);
            }
            self.ended();
        }
        if let Some(reason) = self.out.reason {
            self.count(reason);
            self.given_up.push((self.out.conn, reason));
        }
        self.reset_client(frame)
    }

    /// The client resets the connection.
    pub(super) fn reset_by_client(&mut self) -> Next {
        let diverted = self.out.state.flags & CONN_DIVERTED != 0;
        let known = matches!(self.out.state.phase, PHASE_CLOSED | PHASE_RESET);
        if !known {
            self.out.state.phase = PHASE_CLOSED;
            self.out.state.active = self.now;
            self.commit();
            if diverted {
                self.ended();
            }
        }
        if !diverted {
            if !known {
                self.count(Reason::ClosedPlain);
                self.forget_known(self.out.conn);
            }
            return Next::Done(Verdict::Pass);
        }
        self.count(Reason::ClosedLegs);
        self.out.slot = u32::from(self.out.state.owner);
        Next::Forward
    }

    /// Hands the frame in hand to the agent. False: there is no room.
    pub(super) fn hand_over(&mut self, frame: &[u8], kind: u32) -> bool {
        let used: usize = self.events.iter().map(|(_, frame)| frame.len() + size_of::<Event>()).sum();
        if used + frame.len() + size_of::<Event>() > self.ring_bytes {
            self.count(Reason::RingFull);
            return false;
        }
        let out = &self.out;
        let event = Event {
            conn: out.conn,
            kind,
            hold: out.state.hold,
            slot: out.slot,
            service: out.service,
            route: out.route,
            version: out.version,
            seq: out.packet.seq,
            prefix: out.state.partial,
            cut: out.cut,
            gso_size: 0,
            frame_len: frame.len() as u32,
            tcp_at: out.packet.tcp_at,
            ifindex: 0,
            at: self.now,
        };
        self.events.push((event, frame.to_vec()));
        true
    }

    /// Tells the agent that a connection is over.
    pub(super) fn gone(&mut self, conn: Tuple, service: u32) {
        let event = Event {
            conn,
            kind: EVENT_GONE,
            hold: 0,
            slot: 0,
            service,
            route: 0,
            version: 0,
            seq: 0,
            prefix: 0,
            cut: 0,
            gso_size: 0,
            frame_len: 0,
            tcp_at: 0,
            ifindex: 0,
            at: self.now,
        };
        self.events.push((event, Vec::new()));
    }
}
