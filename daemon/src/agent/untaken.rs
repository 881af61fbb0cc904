//! Why a leg that was made is not used, or none is needed any more. Pure; for the log.

use std::net::SocketAddr;

use sidetrack_splice::abi::{
    LEGS,
    addr::Tuple,
    record::{Connection, Leg, LegRef, PHASE_CLOSED, PHASE_HOLD, PHASE_RESET, RESP_RESET, STATE_PARKED},
};

/// What became of a held head whose leg nobody took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    /// The agent itself has refused the head.
    #[error("its request could not go on to it in time")]
    Late,
    /// The connection is not known any more.
    #[error("the client has closed the connection, or its pod is gone")]
    Forgotten,
    /// Another connection has its tuple.
    #[error("the client has closed the connection, and used its port for a new one")]
    Replaced,
    /// The client has sent its FIN or a reset.
    #[error("the client has closed the connection")]
    Closed,
    /// The client was reset.
    #[error(
        "the connection was given up and its client reset: `sidetrack status` has a counter `reset_` that says why"
    )]
    GivenUp,
    /// The owner has reset the connection.
    #[error("the server that served the connection has reset it")]
    Reset,
    /// The head was read again under other routes.
    #[error("the route has changed while it was dialled")]
    RouteChanged,
    /// An owner may not change yet.
    #[error("its request waits for the end of the response before it, and asks again then")]
    Waits,
    /// There is another hold.
    #[error("its request, or the next one, was read again and asks for a leg of its own")]
    AskedAgain,
    /// The head went to another leg.
    #[error("its request went on to {0}")]
    Elsewhere(SocketAddr),
}

/// What is known when a hold is over for which a leg was made.
#[derive(Clone, Copy)]
pub struct Over<'a> {
    /// What stands on the leg's connection's tuple.
    pub conn: Option<&'a Connection>,
    /// Sequence number of the SYN of the connection that the leg was made for.
    pub isn: u32,
    /// How the connection names the leg.
    pub made: &'a LegRef,
    /// The leg's record, if it is there.
    pub leg: Option<&'a Leg>,
    /// The hold's number.
    pub hold: u32,
    /// The agent gave up.
    pub refused: bool,
    /// The route is the one that the leg was dialled for.
    pub current: bool,
}

/// Whether a connection is over for the client, and how.
#[must_use]
pub fn over(c: &Connection) -> Option<Untaken> {
    match c.now.phase {
        PHASE_CLOSED => Some(Untaken::Closed),
        PHASE_RESET => Some(Untaken::GivenUp),
        _ if c.resp.flags & RESP_RESET != 0 => Some(Untaken::Reset),
        _ => None,
    }
}

/// Why the leg was not taken; `None` if it was.
#[must_use]
pub fn why(over: Over<'_>) -> Option<Untaken> {
    let Over { conn, isn, made, leg, hold, refused, current } = over;
    // Nobody removes one that was never taken while it is this young.
    let touched = leg.is_none_or(|l| l.state != STATE_PARKED || l.cs_off != 0 || l.ss_off != 0 || l.active != l.opened);
    let of = |l: &LegRef| (l.local_port, l.remote, l.remote_port) == (made.local_port, made.remote, made.remote_port);
    if touched || conn.is_some_and(|c| c.isn == isn && c.legs.iter().any(of)) {
        return None;
    }
    Some(match (conn, conn.and_then(self::over)) {
        (None, _) => Untaken::Forgotten,
        (Some(c), _) if c.isn != isn => Untaken::Replaced,
        // Its client was reset because of the refusal.
        (Some(_), ended) if refused && ended != Some(Untaken::Closed) => Untaken::Late,
        (Some(_), Some(ended)) => ended,
        (Some(_), None) if !current => Untaken::RouteChanged,
        (Some(c), None) if c.now.phase == PHASE_HOLD => {
            if c.now.hold != hold && usize::from(c.now.held_slot) >= LEGS {
                Untaken::Waits
            } else {
                Untaken::AskedAgain
            }
        }
        (Some(c), None) => {
            let LegRef { remote, remote_port, .. } = c.legs[usize::from(c.now.owner) % LEGS];
            Untaken::Elsewhere(Tuple { remote, remote_port, ..Tuple::default() }.remote_addr())
        }
    })
}

#[cfg(test)]
mod tests {
    use sidetrack_splice::abi::{
        addr::Tuple,
        record::{LEG_BASELINE, LEG_FORK, PHASE_WATCH, STATE_OWNER},
    };

    use super::*;

    const HOLD: u32 = 7;
    const ISN: u32 = 1000;

    fn leg_ref(to: &str, kind: u8) -> LegRef {
        let tuple = Tuple::new("10.0.0.1:61000".parse().expect("an address"), to.parse().expect("an address"));
        LegRef {
            remote: tuple.remote,
            remote_port: tuple.remote_port,
            local_port: tuple.local_port,
            kind,
            ..LegRef::default()
        }
    }

    /// The connection with the baseline as its owner; the leg as the agent has stored it.
    fn parts() -> (Connection, LegRef, Leg) {
        let mut c = Connection { isn: ISN, ..Connection::default() };
        c.now.phase = PHASE_WATCH;
        c.now.hold = HOLD;
        c.legs[0] = leg_ref("10.96.0.10:80", LEG_BASELINE);
        let leg = Leg { state: STATE_PARKED, isn: ISN, opened: 5, active: 5, ..Leg::default() };
        (c, leg_ref("10.0.0.2:8080", LEG_FORK), leg)
    }

    fn of(c: &Connection, made: &LegRef, leg: &Leg) -> Option<Untaken> {
        why(asked(Some(c), made, Some(leg)))
    }

    fn asked<'a>(conn: Option<&'a Connection>, made: &'a LegRef, leg: Option<&'a Leg>) -> Over<'a> {
        Over { conn, isn: ISN, made, leg, hold: HOLD, refused: false, current: true }
    }

    #[test]
    fn a_leg_that_was_taken_is_never_said_to_be_unused() {
        let (mut c, made, leg) = parts();
        let owner = Leg { state: STATE_OWNER, ..leg };
        let parked_again = Leg { active: 6, ..leg };
        assert_eq!(of(&c, &made, &owner), None);
        assert_eq!(of(&c, &made, &parked_again), None, "a younger one has its slot");
        assert_eq!(why(asked(None, &made, Some(&owner))), None, "its client was quick to close");
        assert_eq!(why(asked(Some(&c), &made, None)), None, "it has ended");
        c.legs[1] = made;
        assert_eq!(of(&c, &made, &leg), None);
    }

    #[test]
    fn each_cause_has_its_own_name() {
        let (c, made, leg) = parts();
        let changed = |change: fn(&mut Connection)| {
            let mut changed = c;
            change(&mut changed);
            of(&changed, &made, &leg)
        };
        assert_eq!(why(asked(None, &made, Some(&leg))), Some(Untaken::Forgotten));
        assert_eq!(changed(|c| c.isn = 5), Some(Untaken::Replaced));
        assert_eq!(changed(|c| c.now.phase = PHASE_CLOSED), Some(Untaken::Closed));
        assert_eq!(changed(|c| c.now.phase = PHASE_RESET), Some(Untaken::GivenUp));
        assert_eq!(changed(|c| c.resp.flags = RESP_RESET), Some(Untaken::Reset));
        let hold = |c: &mut Connection| (c.now.phase, c.now.hold) = (PHASE_HOLD, HOLD + 1);
        assert_eq!(changed(hold), Some(Untaken::AskedAgain));
        let waits = |c: &mut Connection| {
            (c.now.phase, c.now.hold, c.now.held_slot) = (PHASE_HOLD, HOLD + 1, LEGS as u8);
        };
        assert_eq!(changed(waits), Some(Untaken::Waits));
        let baseline = "10.96.0.10:80".parse().expect("an address");
        assert_eq!(of(&c, &made, &leg), Some(Untaken::Elsewhere(baseline)));
        let base = asked(Some(&c), &made, Some(&leg));
        assert_eq!(why(Over { current: false, ..base }), Some(Untaken::RouteChanged));
        let mut reset = c;
        reset.now.phase = PHASE_RESET;
        let refused = Over { refused: true, ..asked(Some(&reset), &made, Some(&leg)) };
        assert_eq!(why(refused), Some(Untaken::Late));
    }

    #[test]
    fn a_client_that_has_gone_is_the_reason_whatever_the_routes_say() {
        let (mut c, made, leg) = parts();
        c.now.phase = PHASE_CLOSED;
        let over = Over { current: false, refused: true, ..asked(Some(&c), &made, Some(&leg)) };
        assert_eq!(why(over), Some(Untaken::Closed));
        assert_eq!(why(Over { conn: None, ..over }), Some(Untaken::Forgotten));
    }
}
