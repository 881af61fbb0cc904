//! Connections that stand before their service is routed, as `daemon/src/agent/older.rs`.

use sidetrack::agent::older::record::{self, Ends};
use sidetrack_splice::{
    abi::{
        addr::Tuple,
        record::{DIAL_IDLE, Dial, Said},
        route::ServiceAddr,
    },
    packet::{Packet, flag},
};
use std::collections::BTreeMap;

use super::{
    super::{
        host::{MILLI, Nanos},
        kernel::{self, packet},
        world::World,
    },
    Task,
};

/// When sockets that were too young to tell are looked at again.
const AGAIN: [Nanos; 3] = [150 * MILLI, 300 * MILLI, 1000 * MILLI];
/// How long a socket must have been silent before silence says something.
const QUIET: Nanos = 200 * MILLI;

/// What a client's socket shows of the exchange that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchange {
    None,
    Young,
    Some,
}

/// What the pod's kernel remembers of one socket.
#[derive(Clone, Copy, Default)]
struct Socket {
    said: Said,
    heard: Said,
    /// When payload was last sent, and when new payload last came.
    sent: Option<Nanos>,
    got: Option<Nanos>,
    /// Behind all that came.
    most: u32,
}

/// What the pod's kernel remembers of its sockets, and says by `sock_diag`.
#[derive(Default)]
pub struct Sockets(BTreeMap<Tuple, Socket>);

impl Sockets {
    /// The client's stack sends.
    pub fn sends(&mut self, conn: &Tuple, frame: &mut [u8], now: Nanos) {
        let mut p = Packet::default();
        if !packet::parse(frame, &mut p) {
            return;
        }
        if p.flags & flag::SYN != 0 {
            self.0.insert(*conn, Socket { said: kernel::said(&kernel::options(frame, &p, 0, 0)), ..Socket::default() });
        } else if let Some(socket) = self.0.get_mut(conn).filter(|_| p.len != 0) {
            socket.sent = Some(now);
        }
    }

    /// The client's stack gets.
    pub fn gets(&mut self, conn: &Tuple, frame: &mut [u8], now: Nanos) {
        let mut p = Packet::default();
        let Some(socket) = self.0.get_mut(conn).filter(|_| packet::parse(frame, &mut p)) else { return };
        let end = p.seq.wrapping_add(p.span());
        if p.flags & flag::SYN != 0 {
            socket.heard = kernel::said(&kernel::options(frame, &p, 0, 0));
            socket.most = end;
        } else if p.len != 0 && end.wrapping_sub(socket.most).cast_signed() > 0 {
            socket.got = Some(now);
            socket.most = end;
        }
    }
}

impl World {
    /// Looks at the client's connections, and in a while again at those that were too young to tell.
    pub(super) fn adopt_older(&mut self, looked: usize) {
        let mut young = false;
        for (conn, unsent) in self.client.open_connections(&mut self.hosts[0]) {
            let key = ServiceAddr { addr: conn.remote, port: conn.remote_port, pad: 0 };
            let maps = &mut self.kernel.maps;
            let Some(service) = maps.services.get(&key).copied() else { continue };
            if maps.legs.contains_key(&conn) || maps.handshakes.contains_key(&conn) {
                continue;
            }
            let Some(Socket { said, heard, .. }) = self.sockets.0.get(&conn).copied() else { continue };
            let ends = Ends { client: said, server: heard, ifindex: 0 };
            let now = self.kernel.now;
            maps.connections.entry(conn).or_insert_with(|| record::of(&conn, ends, service, now));
            let shown = maps.connections.get(&conn).filter(|c| record::shows_nothing(c)).map(|c| c.isn);
            let Some(hold) = shown else { continue };
            match self.exchange(&conn, unsent) {
                Exchange::None => {
                    let idle = Dial { hold, status: DIAL_IDLE, ..Dial::default() };
                    self.kernel.maps.dials.entry(conn).or_insert(idle);
                }
                Exchange::Young => young = true,
                Exchange::Some => {}
            }
        }
        if young && let Some(pause) = AGAIN.get(looked) {
            self.later(*pause, Task::Older(looked + 1));
        }
    }

    fn exchange(&self, conn: &Tuple, unsent: bool) -> Exchange {
        let socket = self.sockets.0.get(conn).copied().unwrap_or_default();
        match (socket.sent, socket.got) {
            _ if unsent => Exchange::Some,
            (None, None) => Exchange::None,
            (Some(sent), Some(got)) if got > sent => {
                if self.now - got < QUIET {
                    Exchange::Young
                } else {
                    Exchange::None
                }
            }
            _ => Exchange::Some,
        }
    }
}
