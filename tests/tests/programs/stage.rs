//! A connection in the middle of its life, made by the programs themselves.

use std::net::SocketAddr;

use crate::kernel::{ACK, EGRESS, Flow, INGRESS, Kernel, PASS, Records, frame, run};
use anyhow::{Context as _, Result, ensure};
use sidetrack_splice::abi::{
    addr::Tuple,
    record::{Connection, DIAL_READY, Dial, LEG_FORK, Leg, LegRef, PHASE_HOLD, PHASE_WATCH, STATE_OWNER, STATE_PARKED},
};

pub const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n";
pub const KEYED: &[u8] = b"GET / HTTP/1.1\r\nhost: orders\r\nbaggage: sidetrack=pr-1\r\n\r\n";
/// The same for another fork, with a route of its own.
pub const OTHER: &[u8] = b"GET / HTTP/1.1\r\nhost: orders\r\nbaggage: sidetrack=pr-2\r\n\r\n";
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// Number of the route of the key.
const ROUTE: u32 = 7;
/// Number of the other's.
const OTHER_ROUTE: u32 = 8;
/// The fork's leg.
const SLOT: u8 = 1;
/// The other's.
const OTHER_SLOT: u8 = 2;
/// Next numbers of that leg when it is made: what its backend expects, and what it sends.
pub const LEG: (u32, u32) = (5000, 0xffff_ffe0);

/// A connection that a fork has served and the baseline serves again: the fork's leg is parked.
pub struct Stage {
    pub kernel: Kernel,
    dials: Records<{ size_of::<Tuple>() }, { size_of::<Dial>() }>,
    pub legs: Records<{ size_of::<Tuple>() }, { size_of::<Leg>() }>,
    /// The connection as its client sees it.
    pub flow: Flow,
    /// The same as the baseline sees it, which knows nothing of what a fork has served.
    pub base: Flow,
    /// Names of the baseline's leg and of the fork's, and what stood there.
    pub names: [Tuple; 2],
    pub before: (Connection, [Leg; 2]),
}

/// What stands in the maps of it.
pub struct After {
    pub c: Connection,
    pub base: Leg,
    pub fork: Leg,
}

impl Stage {
    /// Puts it on programs that are loaded.
    pub fn of(mut kernel: Kernel, v6: bool) -> Result<Self> {
        let mut dials: Records<{ size_of::<Tuple>() }, { size_of::<Dial>() }> =
            Records::take(&mut kernel.object, "dials")?;
        let mut legs = Records::take(&mut kernel.object, "legs")?;
        kernel.route("pr-1", ROUTE)?;

        let mut flow = kernel.open(v6)?;
        kernel.send(&mut flow, PLAIN)?;
        kernel.answer(&mut flow, OK)?;
        let mut base = flow.clone();
        let fork: SocketAddr = if v6 { "[fd00::12]:8080" } else { "10.99.0.12:8080" }.parse()?;
        kernel.watch(fork)?;
        let conn = flow.conn();
        let name = Tuple::new(SocketAddr::new(flow.client.ip(), 40_000), fork);
        run(&kernel.object, EGRESS, &flow.request(ACK, KEYED))?;
        let held = kernel.connection(&flow)?;
        ensure!(held.now.phase == PHASE_HOLD, "the head is held: {:?}", held.now);
        let (leg, dial) = made(&held, conn, name, SLOT, ROUTE);
        legs.put(&name, &leg)?;
        dials.put(&conn, &dial)?;
        kernel.send(&mut flow, KEYED)?;
        ensure!(kernel.connection(&flow)?.now.owner == SLOT, "the fork's leg is taken");
        let answer = frame(fork, name.local_addr(), LEG.1, LEG.0 + KEYED.len() as u32, ACK, OK);
        ensure!(run(&kernel.object, INGRESS, &answer)? == PASS, "the fork's answer passes");
        flow.answered += OK.len() as u32;
        kernel.send(&mut flow, PLAIN)?;
        base.sent += PLAIN.len() as u32;
        kernel.answer(&mut base, OK)?;
        flow.answered += OK.len() as u32;

        let c = kernel.connection(&flow)?;
        let find = |name: &Tuple| legs.find(name)?.context("a leg");
        let before = (c, [find(&conn)?, find(&name)?]);
        let stage = Self { kernel, dials, legs, flow, base, names: [conn, name], before };
        let After { c, base, fork } = stage.after()?;
        ensure!((c.now.owner, c.now.phase) == (0, PHASE_WATCH), "{:?}", c.now);
        ensure!((base.state, fork.state) == (STATE_OWNER, STATE_PARKED), "{base:?} {fork:?}");
        Ok(stage)
    }

    /// The head [`OTHER`] is held, and the agent's answer is there: a leg to another fork, which takes the place of the fork's in what
    /// is looked at.
    pub fn held(mut self) -> Result<Self> {
        self.kernel.route("pr-2", OTHER_ROUTE)?;
        run(&self.kernel.object, EGRESS, &self.flow.request(ACK, OTHER))?;
        let held = self.kernel.connection(&self.flow)?;
        ensure!(held.now.phase == PHASE_HOLD, "the head is held: {:?}", held.now);
        let (conn, name) = (self.names[0], Tuple { local_port: 40_001_u16.to_be(), ..self.names[1] });
        let (leg, dial) = made(&held, conn, name, OTHER_SLOT, OTHER_ROUTE);
        self.legs.put(&name, &leg)?;
        self.dials.put(&conn, &dial)?;
        self.names[1] = name;
        self.before = (held, [self.before.1[0], leg]);
        Ok(self)
    }

    /// What stands there now.
    pub fn after(&self) -> Result<After> {
        after(&self.kernel.connections, &self.legs, &self.names)
    }
}

/// What the agent makes of a hold: a leg, and its answer.
fn made(held: &Connection, conn: Tuple, name: Tuple, slot: u8, route: u32) -> (Leg, Dial) {
    let leg = Leg {
        conn,
        slot,
        kind: LEG_FORK,
        state: STATE_PARKED,
        moved: 1,
        rcv_nxt: LEG.0,
        snd_nxt: LEG.1,
        isn: held.isn,
        version: 1,
        route,
        ..Leg::default()
    };
    let r = LegRef {
        remote: name.remote,
        remote_port: name.remote_port,
        local_port: name.local_port,
        route,
        version: 1,
        kind: LEG_FORK,
        ..LegRef::default()
    };
    let slot = u32::from(slot);
    (leg, Dial { hold: held.now.hold, status: DIAL_READY, slot, leg: r, ..Dial::default() })
}

/// What stands in the maps under these names.
pub fn after<const C: usize, const L: usize, const K: usize>(
    connections: &Records<K, C>,
    legs: &Records<K, L>,
    [base, fork]: &[Tuple; 2],
) -> Result<After> {
    let find = |name: &Tuple| legs.find(name)?.context("a leg was lost");
    Ok(After { c: connections.find(base)?.context("the connection was lost")?, base: find(base)?, fork: find(fork)? })
}
