//! What stands in for the kernel's programs: maps, and the two hooks, written natively over the same `sidetrack_splice`.
//!
//! Branch by branch as in `ebpf/src`, file by file under the same names, with the same verdicts and counters, so that a mistake in
//! the rules shows here. What two processors may do to one record at one moment is not played: a step is whole here.

mod adopt;
mod decide;
mod egress;
mod ends;
mod ingress;
mod long;
mod open;
pub mod packet;
mod plain;
mod replies;
mod requests;
mod scan;

use std::collections::{BTreeMap, BTreeSet};

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        config::Config,
        control::Control,
        event::Event,
        reason::{COUNTERS, Reason},
        record::{ConnState, Connection, Dial, Handshake, LEG_NONE, Leg, LegRef, RespState, STATE_DEAD},
        route::{Route, RouteKey, Service, ServiceAddr},
    },
    filter,
    packet::Packet,
    window::Window,
};

pub use self::open::said;
pub use self::packet::{ETHERTYPE_V4, ETHERTYPE_V6, options};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on its way.
    Pass,
    /// It is held or dropped, and its sender believes that it was sent.
    Stolen,
    /// It is dropped.
    Shot,
    /// It goes out of the interface.
    Out,
    /// It goes up to the pod's own stack.
    Up,
}

/// The pinned maps.
#[derive(Default)]
pub struct Maps {
    /// Map `services`.
    pub services: BTreeMap<ServiceAddr, Service>,
    /// Map `routes`.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Map `connections`.
    pub connections: BTreeMap<Tuple, Connection>,
    /// Map `legs`.
    pub legs: BTreeMap<Tuple, Leg>,
    /// Map `handshakes`.
    pub handshakes: BTreeMap<Tuple, Handshake>,
    /// Map `dials`.
    pub dials: BTreeMap<Tuple, Dial>,
    /// Map `heads`, by connection and direction.
    pub heads: BTreeMap<(Tuple, u32), Box<Window>>,
    /// Map `filter`.
    pub filter: Vec<u64>,
}

/// How many entries map `heads` has.
const HEADS_MAX: usize = 256;

impl Maps {
    /// Sets an address's bit in map `filter`.
    pub fn look_at(&mut self, addr: &sidetrack_splice::abi::addr::Addr, port: u16) {
        let (at, mask) = filter::bit(addr, port);
        self.filter[at as usize] |= mask;
    }

    /// What is left of connections but for these, as a text; empty if nothing is.
    #[must_use]
    pub fn leftovers(&self, but: &BTreeSet<Tuple>) -> String {
        let mut left = Vec::new();
        for (conn, c) in self.connections.iter().filter(|(conn, _)| !but.contains(conn)) {
            let (now, resp) = (&c.now, &c.resp);
            left.push(format!(
                "connection {conn} (phase {}, flags {:#x}, owner {}, asked {}, answered {}, response flags {:#x})",
                now.phase, now.flags, now.owner, now.asked, resp.answered, resp.flags
            ));
        }
        left.extend(
            self.legs.iter().filter(|(_, leg)| !but.contains(&leg.conn)).map(|(tuple, _)| format!("leg {tuple}")),
        );
        left.extend(self.handshakes.keys().map(|tuple| format!("handshake {tuple}")));
        left.extend(self.dials.keys().map(|conn| format!("answer to {conn}")));
        left.extend(
            self.heads.keys().filter(|(conn, _)| !but.contains(conn)).map(|(conn, _)| format!("head of {conn}")),
        );
        left.join(", ")
    }

    fn leg(&self, conn: &Tuple, slot: usize, r: &LegRef) -> Option<&Leg> {
        self.legs.get(&leg_tuple(conn, r)).filter(|leg| leg.conn == *conn && usize::from(leg.slot) == slot)
    }

    fn leg_mut(&mut self, conn: &Tuple, slot: usize, r: &LegRef) -> Option<&mut Leg> {
        self.legs.get_mut(&leg_tuple(conn, r)).filter(|leg| leg.conn == *conn && usize::from(leg.slot) == slot)
    }

    fn usable(&self, conn: &Tuple, slot: usize, r: &LegRef) -> bool {
        self.leg(conn, slot, r).is_some_and(|l| l.state != STATE_DEAD && l.closed == 0)
    }

    /// False: no room.
    fn keep_head(&mut self, key: (Tuple, u32), window: &Window) -> bool {
        if self.heads.len() >= HEADS_MAX && !self.heads.contains_key(&key) {
            return false;
        }
        self.heads.insert(key, Box::new(*window));
        true
    }
}

/// The leg's own tuple.
#[must_use]
pub fn leg_tuple(conn: &Tuple, r: &LegRef) -> Tuple {
    Tuple { local: conn.local, remote: r.remote, local_port: r.local_port, remote_port: r.remote_port }
}

/// Requests, in map `heads`.
const OUTWARD: u32 = 0;
/// Responses.
const INWARD: u32 = 1;

/// What egress works on while it handles one packet.
#[derive(Default)]
struct Out {
    packet: Packet,
    conn: Tuple,
    state: ConnState,
    resp: RespState,
    start: u64,
    end: u64,
    step: Step,
    slot: u32,
    reason: Option<Reason>,
    want: Want,
    route: u32,
    version: u32,
    or_baseline: bool,
    service: u32,
    cut: u32,
}

/// What was decided about the segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    More,
    Stay,
    Cut,
    Switch,
    Dial,
    Wait,
    Reset,
    Adopt,
    Instead,
}

/// Who must get the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Want {
    #[default]
    Baseline,
    Fork,
    Fail,
}

/// What comes next at egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Done(Verdict),
    Adopt,
    Read,
    Switch,
    PassOn,
    Forward,
    GiveUp,
}

/// What ingress works on.
#[derive(Default)]
struct In {
    packet: Packet,
    leg: Tuple,
    conn: Tuple,
    state: RespState,
    start: u64,
    end: u64,
    ack: u32,
    again: bool,
    read: bool,
}

/// An event of the ring buffer, with its frame.
pub type Told = (Event, Vec<u8>);

/// The programs on one pod's interface, and the maps.
pub struct Kernel {
    /// The maps.
    pub maps: Maps,
    /// Virtual nanoseconds.
    pub now: u64,
    /// The ring buffer.
    pub events: Vec<Told>,
    /// Map `counters`.
    pub counters: [u64; COUNTERS],
    /// Each connection that was given up, and why, since this was last taken.
    pub given_up: Vec<(Tuple, Reason)>,
    /// Bytes that the ring buffer takes.
    pub ring_bytes: usize,
    /// When an agent was last seen alive, of map `control`.
    pub heartbeat: u64,
    /// What the programs have sent of their own.
    pub beside: Vec<Vec<u8>>,
    config: Config,
    out: Out,
    incoming: In,
    work: Box<scan::Work>,
    long: BTreeMap<Tuple, Box<scan::Work>>,
}

impl Kernel {
    /// Programs that read these carriers, with empty maps.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            maps: Maps { filter: vec![0; filter::WORDS], ..Maps::default() },
            now: 0,
            events: Vec::new(),
            counters: [0; COUNTERS],
            given_up: Vec::new(),
            ring_bytes: 16 << 20,
            heartbeat: 0,
            beside: Vec::new(),
            config,
            out: Out::default(),
            incoming: In::default(),
            work: Box::default(),
            long: BTreeMap::new(),
        }
    }

    /// What a counter says.
    #[must_use]
    pub fn counted(&self, reason: Reason) -> u64 {
        self.counters[reason as usize]
    }

    /// Loads the programs anew, as a successor does: what is theirs alone begins empty.
    pub fn reload(&mut self) {
        self.long.clear();
    }

    fn count(&mut self, reason: Reason) {
        self.counters[reason as usize] += 1;
    }

    /// Whether nobody is there to do what only an agent can.
    fn no_agent(&self) -> bool {
        Control::dead(self.heartbeat, self.now)
    }

    fn known(&self, addr: &sidetrack_splice::abi::addr::Addr, port: u16) -> bool {
        let (at, mask) = filter::bit(addr, port);
        self.maps.filter[at as usize] & mask != 0
    }

    /// The connection in hand at egress.
    fn c(&mut self) -> Option<&mut Connection> {
        self.maps.connections.get_mut(&self.out.conn)
    }

    /// Whether a slot is in use.
    #[must_use]
    pub fn is_leg(r: &LegRef) -> bool {
        r.kind != LEG_NONE
    }
}
