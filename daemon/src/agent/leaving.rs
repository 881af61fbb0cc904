//! Endpoints that leave their routes: no further exchange goes there, and one that is under way has a time of grace.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        reason::Reason,
        record::{Connection, FRAMING_HEAD, LEG_FORK, LegRef, PHASE_OPAQUE, PHASE_WATCH},
    },
    table::{Targets, To},
};
use tracing::{debug, warn};

use super::{Shared, client, ended::older, legs};

/// An exchange that was seen under way with an endpoint that has left: its connection, and its number there.
type Exchange = (Tuple, u32, u32);

/// Since when each was seen.
#[derive(Default)]
pub(super) struct Leaving {
    since: HashMap<Exchange, u64>,
    seen: HashSet<Exchange>,
    /// Those that have had their time.
    ended: HashSet<Exchange>,
}

impl Leaving {
    /// Looks at a connection. Returns whether its exchange has had its time.
    pub(super) fn due(&mut self, targets: &Targets, conn: &Tuple, c: &Connection, now: u64, grace: Duration) -> bool {
        let owner = c.legs.get(usize::from(c.now.owner)).copied().unwrap_or_default();
        if !under_way(c) || !left(targets, conn, &owner) {
            return false;
        }
        let it = (*conn, c.isn, c.now.asked);
        self.seen.insert(it);
        older(*self.since.entry(it).or_insert(now), now, grace) && self.ended.insert(it)
    }

    /// Forgets what was not looked at since the last call, or is over.
    pub(super) fn turn(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        self.since.retain(|it, _| seen.contains(it));
        self.ended.retain(|it| seen.contains(it));
    }
}

/// Whether an owner is an endpoint that its route does not have any more.
fn left(targets: &Targets, conn: &Tuple, owner: &LegRef) -> bool {
    if owner.kind != LEG_FORK {
        return false;
    }
    let at = legs::tuple(conn, owner).remote_addr();
    match targets.of(owner.route).map(|target| &target.to) {
        Some(To::Fork { endpoints, .. }) => !endpoints.contains(&at),
        Some(To::Fail { .. }) | None => true,
    }
}

/// Whether a connection is within an exchange, or is a tunnel.
fn under_way(c: &Connection) -> bool {
    let (now, resp) = (&c.now, &c.resp);
    now.phase == PHASE_OPAQUE
        || now.phase == PHASE_WATCH
            && (resp.answered != now.asked || resp.response.state != FRAMING_HEAD || resp.response.pos != resp.next)
}

/// Resets a connection whose exchange has had its time.
pub(super) fn end(shared: &Shared, conn: &Tuple) {
    shared.maps.counters.add(Reason::ResetEndpointLeft);
    warn!(
        %conn,
        "an exchange with an endpoint that has left its route is not over in time (endpointGrace); the client is reset"
    );
    match client::abort(shared, conn) {
        Ok(true) => return,
        Ok(false) => debug!(%conn, "its client has no socket here"),
        Err(error) => warn!(%conn, "its client cannot be reset: {error}"),
    }
    // Whatever it sends next is answered by a reset.
    let Some(c) = shared.maps.connections.find(conn) else { return };
    let Some(owner) = c.legs.get(usize::from(c.now.owner)) else { return };
    let tuple = legs::tuple(conn, owner);
    if let Some(leg) = shared.maps.legs.find(&tuple).filter(|leg| leg.serves(conn, c.isn)) {
        legs::end(shared, &tuple, &leg, "its endpoint has left");
    }
}

#[cfg(test)]
mod tests {
    use sidetrack_splice::{
        abi::record::{ConnState, RespState},
        table::{OnUnreachable, Programmed, Route, RouteTable, Service},
    };

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn targets(endpoint: &str) -> Targets {
        let to = To::Fork {
            endpoints: vec![endpoint.parse().expect("an address")],
            on_unreachable: OnUnreachable::default(),
        };
        let addresses = vec!["10.96.0.10:80".parse().expect("an address")];
        let routes = vec![Route { key: "k".into(), to }];
        let table = RouteTable::new(vec![Service { name: "a".into(), addresses, routes }]).expect("valid");
        Programmed::default().plan(&table).expect("ids are left").targets
    }

    #[test]
    fn an_exchange_under_way_with_an_endpoint_that_has_left_has_its_time_and_no_more() {
        let at = |text: &str| text.parse().expect("an address");
        let conn = Tuple::new(at("10.99.0.2:4000"), at("10.96.0.10:80"));
        let leg = Tuple::new(at("10.99.0.2:61000"), at("10.99.0.12:8080"));
        let mut c = Connection {
            isn: 7,
            now: ConnState { phase: PHASE_WATCH, owner: 1, asked: 3, ..ConnState::default() },
            resp: RespState { answered: 2, ..RespState::default() },
            ..Connection::default()
        };
        c.legs[1] = LegRef {
            remote: leg.remote,
            remote_port: leg.remote_port,
            local_port: leg.local_port,
            route: 1,
            kind: LEG_FORK,
            ..LegRef::default()
        };
        let (stays, gone, grace) = (targets("10.99.0.12:8080"), targets("10.99.0.13:8080"), Duration::from_secs(30));
        let mut leaving = Leaving::default();
        assert!(!leaving.due(&stays, &conn, &c, 99 * SECOND, grace), "it is there");
        assert!(!leaving.due(&gone, &conn, &c, 100 * SECOND, grace), "it has just left");
        leaving.turn();
        assert!(!leaving.due(&gone, &conn, &c, 130 * SECOND, grace));
        assert!(leaving.due(&gone, &conn, &c, 131 * SECOND, grace));
        leaving.turn();
        c.resp.answered = 3;
        assert!(!leaving.due(&gone, &conn, &c, 132 * SECOND, grace), "it is over");
        leaving.turn();
        c.now.asked = 4;
        assert!(!leaving.due(&gone, &conn, &c, 133 * SECOND, grace), "another one");
        c.legs[1].kind = sidetrack_splice::abi::record::LEG_BASELINE;
        assert!(!leaving.due(&gone, &conn, &c, 999 * SECOND, grace), "the baseline never leaves");
    }
}
