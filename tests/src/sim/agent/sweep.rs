//! Forgets what has ended, as `daemon/src/agent/sweep.rs`.

use sidetrack::agent::{
    ended::{self, Client, UNCLAIMED},
    older::record,
};
use sidetrack_splice::abi::{addr::Tuple, record::Connection};

use super::{
    super::{
        kernel::{Kernel, leg_tuple},
        world::World,
    },
    PARKED_IDLE,
};

impl World {
    /// A connection was closed or given up: what can go at once goes.
    pub(super) fn gone(&mut self, conn: &Tuple) {
        let Some(c) = self.kernel.maps.connections.get(conn).copied() else { return };
        for r in c.legs.iter().filter(|r| Kernel::is_leg(r)) {
            let tuple = leg_tuple(conn, r);
            let leg = self.kernel.maps.legs.get(&tuple).copied().filter(|leg| leg.serves(conn, c.isn));
            let Some(leg) = leg else { continue };
            if let Some(why) = ended::leg(Some(&c), &tuple, &leg, self.now, PARKED_IDLE) {
                self.end_leg(&tuple, &leg, why);
            }
        }
    }

    /// One sweep.
    pub(super) fn sweep(&mut self) {
        let now = self.now;
        let legs: Vec<_> = self.kernel.maps.legs.iter().map(|(tuple, leg)| (*tuple, *leg)).collect();
        for (tuple, leg) in legs {
            let c = self.kernel.maps.connections.get(&leg.conn);
            if let Some(why) = ended::leg(c, &tuple, &leg, now, PARKED_IDLE) {
                self.end_leg(&tuple, &leg, why);
            }
        }
        let connections: Vec<_> = self.kernel.maps.connections.iter().map(|(conn, c)| (*conn, *c)).collect();
        for (conn, c) in &connections {
            let silent = self.agent.silence.of(conn, c, now);
            if ended::connection(c, now, silent) {
                self.forget(conn, c, true);
            } else if ended::deserted(c, now) {
                self.forget(conn, c, false);
            } else if self.agent.silence.due(conn, now) {
                let there = self.client.has(&mut self.hosts[0], conn);
                let said = if there { Client::There } else { Client::Gone };
                let evidence = self.agent.silence.answered(conn, said);
                if ended::vanished(said, evidence, silent) {
                    self.forget(conn, c, false);
                }
            }
        }
        let maps = &mut self.kernel.maps;
        self.agent.silence.keep(|conn| maps.connections.contains_key(conn));
        maps.handshakes.retain(|_, seen| !ended::older(seen.at, now, UNCLAIMED));
        maps.dials.retain(|conn, dial| !record::is_stale(dial, maps.connections.get(conn)));
        maps.heads.retain(|(conn, _), _| maps.connections.contains_key(conn));
    }

    fn forget(&mut self, conn: &Tuple, c: &Connection, heard: bool) {
        for r in c.legs.iter().filter(|r| Kernel::is_leg(r)) {
            let tuple = leg_tuple(conn, r);
            let leg = self.kernel.maps.legs.get(&tuple).copied().filter(|leg| leg.serves(conn, c.isn));
            let Some(leg) = leg else { continue };
            if c.now.owner == leg.slot && heard {
                self.kernel.maps.legs.remove(&tuple);
                if leg.moved != 0 {
                    self.agent.give_back(tuple.remote_addr(), u16::from_be(tuple.local_port), self.now);
                }
            } else {
                self.end_leg(&tuple, &leg, "the connection is over");
            }
        }
        self.kernel.maps.connections.remove(conn);
        for direction in [0, 1] {
            self.kernel.maps.heads.remove(&(*conn, direction));
        }
    }
}
