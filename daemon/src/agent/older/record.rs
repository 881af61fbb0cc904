//! The record of a connection that is older than it. Pure.

use sidetrack_splice::abi::{
    addr::Tuple,
    record::{CONN_ADOPT, ConnState, Connection, DIAL_IDLE, Dial, LEG_BASELINE, LegRef, Said},
    route::Service,
};

/// What is known of a connection's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// What the client's SYN said.
    pub client: Said,
    /// What the server's SYN-ACK said.
    pub server: Said,
    /// The client's interface.
    pub ifindex: u32,
}

/// The record as it is made at `now` (`CLOCK_MONOTONIC`, nanoseconds): everything passes, until egress takes it up.
#[must_use]
pub fn of(conn: &Tuple, ends: Ends, service: Service, now: u64) -> Connection {
    // Whichever it is, another connection on these ports has another one; zero is none.
    let isn = (now >> 10) as u32 | 1;
    let mut c = Connection {
        service: service.id,
        isn,
        ifindex: ends.ifindex,
        client: ends.client,
        server: ends.server,
        now: ConnState { active: now, ..ConnState::older(isn) },
        // As `open::track` of the programs does: no two records begin at one number.
        generation: (now >> 20) << 33 | u64::from(isn) << 1,
        ..Connection::default()
    };
    c.answering = c.generation;
    c.legs[0] = LegRef {
        remote: conn.remote,
        remote_port: conn.remote_port,
        local_port: conn.local_port,
        kind: LEG_BASELINE,
        ..LegRef::default()
    };
    c
}

/// Whether no payload was seen since the record was made.
#[must_use]
pub fn shows_nothing(c: &Connection) -> bool {
    c.now.flags & CONN_ADOPT != 0 && c.now.next == 0 && c.resp.next == 0
}

/// Whether an entry of map `dials` says that a client is idle whose connection has been taken up, or is gone.
#[must_use]
pub fn is_stale(dial: &Dial, conn: Option<&Connection>) -> bool {
    let waits = |c: &Connection| c.now.hold == dial.hold && c.now.flags & CONN_ADOPT != 0;
    dial.status == DIAL_IDLE && !conn.is_some_and(waits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_passes_everything_until_it_is_taken_up() {
        let at = |text: &str| text.parse().expect("an address");
        let client = Said { mss: 1460, options: 7, wscale: 9 };
        let ends = Ends { client, server: Said { mss: 1400, ..client }, ifindex: 2 };
        let conn = Tuple::new(at("10.9.0.1:4000"), at("10.9.0.2:80"));
        let c = of(&conn, ends, Service { id: 3, routes: 1 }, 12_345_678_901);
        assert_eq!((c.service, c.ifindex, c.client, c.server.mss), (3, 2, client, 1400));
        assert_eq!((c.opened, c.generation & 1, c.now.hold), (0, 0, c.isn));
        assert_ne!(c.isn, 0);
        assert!(shows_nothing(&c));
        assert_eq!(c.legs[0].remote, conn.remote);
    }
}
