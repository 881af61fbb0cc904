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
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// Number of the route of the key.
const ROUTE: u32 = 7;
/// The fork's leg.
const SLOT: u8 = 1;
/// Next numbers of that leg when it is made: what its backend expects, and what it sends.
pub const LEG: (u32, u32) = (5000, 0xffff_ffe0);

/// A connection that a fork has served and the baseline serves again: the fork's leg is parked.
pub struct Stage {
    pub kernel: Kernel,
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
        let leg = Leg {
            conn,
            slot: SLOT,
            kind: LEG_FORK,
            state: STATE_PARKED,
            moved: 1,
            rcv_nxt: LEG.0,
            snd_nxt: LEG.1,
            isn: held.isn,
            version: 1,
            route: ROUTE,
            ..Leg::default()
        };
        legs.put(&name, &leg)?;
        let leg = LegRef {
            remote: name.remote,
            remote_port: name.remote_port,
            local_port: name.local_port,
            route: ROUTE,
            version: 1,
            kind: LEG_FORK,
            ..LegRef::default()
        };
        let slot = u32::from(SLOT);
        dials.put(&conn, &Dial { hold: held.now.hold, status: DIAL_READY, slot, leg, ..Dial::default() })?;
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
        let stage = Self { kernel, legs, flow, base, names: [conn, name], before };
        let After { c, base, fork } = stage.after()?;
        ensure!((c.now.owner, c.now.phase) == (0, PHASE_WATCH), "{:?}", c.now);
        ensure!((base.state, fork.state) == (STATE_OWNER, STATE_PARKED), "{base:?} {fork:?}");
        Ok(stage)
    }

    /// What stands there now.
    pub fn after(&self) -> Result<After> {
        after(&self.kernel.connections, &self.legs, &self.names)
    }
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
