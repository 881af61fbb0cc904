//! Makes legs and ends them, as `daemon/src/agent/legs.rs` and `daemon/src/cold/dial.rs`.

use sidetrack::{agent::untaken, config::BASELINE_DIAL_TIMEOUT};
use sidetrack_splice::{
    abi::{
        addr::Tuple,
        event::Event,
        reason::Reason,
        record::{
            LEG_BASELINE, LEG_FORK, Leg, LegRef, OPT_SACK, OPT_TIMESTAMP, OPT_WSCALE, STATE_OWNER, STATE_PARKED, Said,
        },
    },
    packet::{Packet, flag},
    table::{Lookup, To},
};
use smoltcp::{iface::SocketHandle, socket::tcp::State};
use zerocopy::IntoBytes as _;

use super::{
    super::{
        host::Nanos,
        kernel::{self, leg_tuple},
        world::World,
    },
    DIAL_TIMEOUT,
    holds::{Made, NoLeg},
};

/// Ports of the pod's own.
const OWN: std::ops::RangeInclusive<u16> = 32768..=60999;

/// As `daemon/src/agent/legs.rs::patience`.
fn patience(event: &Event) -> Nanos {
    if event.route == 0 { DIAL_TIMEOUT.max(BASELINE_DIAL_TIMEOUT.as_nanos() as u64) } else { DIAL_TIMEOUT }
}

/// A connection to a backend in the making.
pub struct Dialing {
    /// It.
    pub tuple: Tuple,
    /// What its client has agreed to with the baseline, as `OPT_` flags.
    pub agreed: u8,
    event: Event,
    /// The route whose fork could not be had before this, or zero.
    instead_of: u32,
    begun: Nanos,
    /// Of the connection that it is made for.
    isn: u32,
    /// The `TSval` of the held frame.
    stamp: Option<u32>,
    handle: SocketHandle,
    prefix: Vec<u8>,
    written: bool,
    syn: Said,
    syn_ack: Said,
}

impl World {
    /// Where a leg must lead.
    fn target(&self, event: &Event) -> Result<std::net::SocketAddr, NoLeg> {
        if event.route == 0 {
            return Ok(event.conn.remote_addr());
        }
        let Lookup::Current(found) = self.agent.targets.find(event.route, event.version) else {
            return Err(NoLeg::Outdated);
        };
        let To::Fork { endpoints, .. } = &found.to else { return Err(NoLeg::Outdated) };
        let v4 = event.conn.local_addr().is_ipv4();
        let fit: Vec<_> = endpoints.iter().filter(|e| e.is_ipv4() == v4).collect();
        if fit.is_empty() {
            return Err(NoLeg::Refused(Reason::ResetUnreachable));
        }
        let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        let hash = event.conn.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, step);
        Ok(*fit[(hash >> 16) as usize % fit.len()])
    }

    /// Begins to make the leg that a hold asks for.
    pub(super) fn dial(&mut self, event: Event, stamp: Option<u32>, instead_of: u32) {
        if let Err(why) = self.begin_dial(event, stamp, instead_of) {
            self.dialled(event, self.now, Err(why), stamp, instead_of);
        }
        self.drive(0);
    }

    fn begin_dial(&mut self, event: Event, stamp: Option<u32>, instead_of: u32) -> Result<(), NoLeg> {
        let refused = NoLeg::Refused(Reason::ResetUnreachable);
        let c = *self.kernel.maps.connections.get(&event.conn).ok_or(NoLeg::Outdated)?;
        if untaken::over(&c).is_some() || !c.now.awaits(event.hold) {
            return Err(NoLeg::Outdated);
        }
        let target = self.target(&event)?;
        let len = event.prefix as usize;
        let prefix = match self.kernel.maps.heads.get(&(event.conn, 0)) {
            _ if len == 0 => Vec::new(),
            Some(window) => window.bytes.get(..len).ok_or(NoLeg::Outdated)?.to_vec(),
            None => return Err(NoLeg::Outdated),
        };
        self.kernel.maps.look_at(&target.ip().into(), target.port().to_be());
        let at = self.agent.instant(self.now);
        let port = self.agent.ports.take(target, &OWN, at).ok_or(refused)?;
        let local = (event.conn.local_addr().ip(), port);
        let handle = self.hosts[0].socket();
        self.hosts[0].connect(handle, local, (target.ip(), target.port()));
        self.agent.dialing.push(Dialing {
            tuple: Tuple::new(local.into(), target),
            agreed: c.client.options & c.server.options,
            event,
            instead_of,
            begun: self.now,
            isn: c.isn,
            stamp,
            handle,
            prefix,
            written: false,
            syn: Said::default(),
            syn_ack: Said::default(),
        });
        self.wake_at(0, self.now + patience(&event));
        Ok(())
    }

    /// Notes what the two sides of a dial say of themselves. `frame` is on the pod's interface.
    pub(in super::super) fn note_dial(&mut self, tuple: &Tuple, p: &Packet, frame: &mut [u8]) {
        if p.flags & flag::SYN == 0 {
            return;
        }
        let Some(it) = self.agent.dialing.iter_mut().find(|it| it.tuple == *tuple) else { return };
        let said = kernel::said(&kernel::options(frame, p, 0, 0));
        *(if p.flags & flag::ACK == 0 { &mut it.syn } else { &mut it.syn_ack }) = said;
    }

    /// Looks after what is dialled.
    pub(in super::super) fn look_after_dials(&mut self) {
        let mut at = 0;
        while at < self.agent.dialing.len() {
            let it = &mut self.agent.dialing[at];
            let socket = self.hosts[0].tcp(it.handle);
            let late = self.now >= it.begun + patience(&it.event);
            let ready = match socket.state() {
                State::Established if socket.recv_queue() != 0 => Err(()),
                State::Established if !it.written => {
                    it.written = socket.send_slice(&it.prefix) == Ok(it.prefix.len());
                    if it.written { Ok(it.prefix.is_empty()) } else { Err(()) }
                }
                State::Established => Ok(socket.send_queue() == 0),
                State::SynSent => Ok(false),
                _ => Err(()),
            };
            match ready {
                Ok(true) => {
                    let it = self.agent.dialing.remove(at);
                    let made = self.freeze(&it);
                    self.dialled(it.event, it.begun, made, it.stamp, it.instead_of);
                }
                Ok(false) if !late => at += 1,
                _ => {
                    let it = self.agent.dialing.remove(at);
                    self.abandon(&it);
                    let none = Err(NoLeg::Refused(Reason::ResetUnreachable));
                    self.dialled(it.event, it.begun, none, it.stamp, it.instead_of);
                }
            }
        }
    }

    /// Gives a dial up: its backend gets a reset.
    pub(super) fn abandon(&mut self, it: &Dialing) {
        self.kernel.maps.handshakes.remove(&it.tuple);
        self.agent.give_back(it.tuple.remote_addr(), u16::from_be(it.tuple.local_port), self.now);
        self.hosts[0].tcp(it.handle).abort();
        self.flush(0);
        self.hosts[0].sockets.remove(it.handle);
    }

    /// The connection's numbers are taken, the leg is stored, the socket vanishes in silence.
    fn freeze(&mut self, it: &Dialing) -> Result<Made, NoLeg> {
        let refused = NoLeg::Refused(Reason::ResetUnreachable);
        let Some(c) = self.kernel.maps.connections.get(&it.event.conn).copied().filter(|c| c.isn == it.isn) else {
            self.abandon(it);
            return Err(NoLeg::Outdated);
        };
        let seen = self.kernel.maps.handshakes.get(&it.tuple).copied().filter(|seen| seen.answered != 0);
        let Some(seen) = seen else {
            self.abandon(it);
            return Err(NoLeg::Refused(Reason::ResetRedirected));
        };
        let agreed = c.client.options & c.server.options;
        let scaled = agreed & OPT_WSCALE != 0;
        let options = it.syn.options & it.syn_ack.options & (it.agreed | !(OPT_TIMESTAMP | OPT_SACK));
        if it.syn_ack.mss < c.server.mss.min(c.client.mss) || options & !agreed & OPT_SACK != 0 {
            self.abandon(it);
            return Err(refused);
        }
        let scale = |on: bool, scale: u8| if on { scale.min(14).cast_signed() } else { 0 };
        let leg_scaled = options & OPT_WSCALE != 0;
        let now = self.now;
        let kind = if it.event.route == 0 { LEG_BASELINE } else { LEG_FORK };
        let leg = Leg {
            conn: it.event.conn,
            slot: it.event.slot as u8,
            kind,
            state: STATE_PARKED,
            moved: 1,
            rcv_nxt: seen.isn.wrapping_add(1).wrapping_add(it.prefix.len() as u32),
            snd_nxt: seen.peer_isn.wrapping_add(1),
            window_out: scale(scaled, c.client.wscale) - scale(leg_scaled, it.syn.wscale),
            window_in: scale(leg_scaled, it.syn_ack.wscale) - scale(scaled, c.server.wscale),
            options: if it.stamp.is_some() { options } else { options & !OPT_TIMESTAMP },
            ts_out: self.hosts[0].clock(now).wrapping_add(2).wrapping_sub(it.stamp.unwrap_or_default()),
            ts_nxt: seen.stamp,
            isn: c.isn,
            version: it.event.version,
            route: it.event.route,
            opened: now,
            active: now,
            ..Leg::default()
        };
        if self.kernel.maps.legs.contains_key(&it.tuple) {
            self.abandon(it);
            return Err(refused);
        }
        self.kernel.maps.legs.insert(it.tuple, leg);
        self.hosts[0].sockets.remove(it.handle);
        let leg = LegRef {
            remote: it.tuple.remote,
            remote_port: it.tuple.remote_port,
            local_port: it.tuple.local_port,
            route: it.event.route,
            version: it.event.version,
            kind,
            ..LegRef::default()
        };
        debug_assert_eq!(leg_tuple(&it.event.conn, &leg), it.tuple);
        Ok(Made { leg, isn: c.isn })
    }

    /// Resets a leg's backend and forgets the leg.
    pub(super) fn end_leg(&mut self, tuple: &Tuple, leg: &Leg, why: &str) {
        let seq = if leg.state == STATE_OWNER {
            let c = self.kernel.maps.connections.get(&leg.conn).filter(|c| c.isn == leg.isn);
            c.map(|c| (c.resp.acked as u32).wrapping_add(leg.cs_off))
        } else {
            Some(leg.rcv_nxt)
        };
        self.kernel.maps.legs.remove(tuple);
        if leg.moved != 0 {
            self.agent.give_back(tuple.remote_addr(), u16::from_be(tuple.local_port), self.now);
        }
        self.book.note(self.now, || format!("leg {tuple} ends: {why}"));
        if let Some(seq) = seq {
            let frame = sidetrack::cold::reset_frame(&[0; 14], tuple, seq, None);
            self.egress(frame, sidetrack_splice::abi::MARK_AGENT);
        }
    }
}
