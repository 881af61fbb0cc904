//! What has ended: the rules by which legs are reset and connections forgotten. Pure; [`super::sweep`] carries them out.

use std::{collections::HashMap, time::Duration};

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        record::{
            CONN_DIVERTED, CONN_FIN, Connection, LEG_NONE, Leg, LegRef, PHASE_CLOSED, PHASE_HOLD, PHASE_RESET,
            RESP_FIN, RESP_RESET, STATE_DEAD, STATE_PARKED,
        },
    },
    seq,
};

/// How long an ended connection is remembered: TIME-WAIT's 60 seconds, in which the client still acknowledges.
const TOMBSTONE: Duration = Duration::from_mins(1);
/// How long a leg may stand without its connection knowing it: the time between its making and its splice.
pub const UNCLAIMED: Duration = Duration::from_secs(10);
/// How long a SYN may stand without an answer: Linux gives up 127 seconds after the first (`tcp_syn_retries`).
const UNANSWERED: Duration = Duration::from_secs(150);
/// How long both sides may be silent once the client has closed its side: the other has died, or nobody reads it any more.
const HALF_CLOSED: Duration = Duration::from_mins(10);

/// How long a connection may be silent before its pod's kernel is asked whether the client still has it. A pool's idle
/// connections are mostly used or closed by then, and a TCP that nobody acknowledges has given up (`tcp_retries2`, some 15 minutes).
const VANISHED: Duration = Duration::from_hours(1);
/// When it is asked for the first time: who speaks TCP by other means than the pod's kernel (a virtual machine behind the pod's
/// interface) has no socket there at any time, and that there is none says nothing then.
const SETTLED: Duration = Duration::from_secs(5);
/// When the kernel is asked again, of a client that it has or that it says nothing about.
const ASKED_AGAIN: Duration = Duration::from_mins(10);

/// Whether `at` lies further back than that. Both in nanoseconds.
#[must_use]
pub fn older(at: u64, now: u64, than: Duration) -> bool {
    u128::from(now.saturating_sub(at)) > than.as_nanos()
}

/// Why a leg is to end, if it is.
#[must_use]
pub fn leg(c: Option<&Connection>, tuple: &Tuple, leg: &Leg, now: u64, parked_idle: Duration) -> Option<&'static str> {
    let Some(c) = c.filter(|c| c.isn == leg.isn) else {
        return older(leg.opened, now, UNCLAIMED).then_some("its connection is gone");
    };
    // Two servers of one pod differ in their ports alone, and each leg has its local port for one of them.
    let name = |r: &LegRef| (r.remote, r.remote_port, r.local_port);
    let known = c
        .legs
        .get(usize::from(leg.slot))
        .is_some_and(|r| r.kind != LEG_NONE && name(r) == (tuple.remote, tuple.remote_port, tuple.local_port));
    let owner = c.now.owner == leg.slot;
    if !known {
        // Replaced in its slot by a younger one; or not taken yet, and then it has not moved since it was made.
        let taken = leg.active != leg.opened;
        return (taken || older(leg.opened, now, UNCLAIMED)).then_some("its slot is another's");
    }
    if c.now.phase == PHASE_RESET {
        return Some("the connection was given up");
    }
    if leg.state == STATE_DEAD {
        return Some("it holds an unfinished head");
    }
    if owner {
        return None;
    }
    if c.now.phase == PHASE_CLOSED || c.now.flags & CONN_FIN != 0 {
        return Some("the client has closed");
    }
    if c.resp.flags & RESP_RESET != 0 {
        return Some("the owner has reset the connection");
    }
    if leg.closed != 0 {
        return Some("its backend has closed");
    }
    (leg.state == STATE_PARKED && older(leg.active, now, parked_idle)).then_some("idle")
}

/// Whether a connection is over, and its time as a tombstone too. `silent` is how long nothing of it has moved.
#[must_use]
pub fn connection(c: &Connection, now: u64, silent: Duration) -> bool {
    let resp = c.resp.flags;
    let ended = matches!(c.now.phase, PHASE_CLOSED | PHASE_RESET)
        || resp & RESP_RESET != 0
        || (c.now.flags & CONN_FIN != 0 && resp & RESP_FIN != 0);
    if ended {
        // What was never diverted needs no tombstone, and is removed by the programs, but for resets that come meanwhile.
        return c.now.flags & CONN_DIVERTED == 0 && c.now.phase != PHASE_RESET || older(c.now.active, now, TOMBSTONE);
    }
    let unanswered = c.server.mss == 0 && c.now.next == seq::first(c.isn);
    (unanswered && silent > UNANSWERED) || (c.now.flags & CONN_FIN != 0 && silent > HALF_CLOSED)
}

/// Whether a head is held whose client is gone, wherever it was: TCP sends again what nobody acknowledges, asks the agent by that, and has
/// given up long before.
#[must_use]
pub fn deserted(c: &Connection, now: u64) -> bool {
    c.now.phase == PHASE_HOLD && older(c.now.asked_at, now, VANISHED)
}

/// What a pod's kernel says of its end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It is there.
    There,
    /// There is none.
    Gone,
    /// It could not be asked.
    Unknown,
}

/// What a pod's kernel has said of one connection so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing yet.
    None,
    /// It has held the client's socket.
    Held,
    /// It has none, and had none when it was first asked: the client may be elsewhere.
    Never,
}

impl Evidence {
    fn and(self, said: Client) -> Self {
        match (self, said) {
            (_, Client::There) => Self::Held,
            (Self::None, Client::Gone) => Self::Never,
            (is, _) => is,
        }
    }
}

/// How long a connection is followed that is silent, and whose client is in no pod: as long as a host with keep-alive at its defaults takes
/// to find out that its peer is gone (`tcp_keepalive_time`, and nine probes 75 s apart).
pub const FOREIGN: Duration = Duration::from_secs(7200 + 9 * 75);

/// Whether a connection's client has vanished without a word: silence alone says nothing, a pool may keep a connection for days, and
/// no socket says nothing where none has been.
#[must_use]
pub fn vanished(client: Client, evidence: Evidence, silent: Duration) -> bool {
    client == Client::Gone && evidence == Evidence::Held && silent > VANISHED
}

/// What moves when anything of a connection does: who it is, and how far each direction has come.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Progress {
    isn: u32,
    active: u64,
    positions: [u64; 3],
}

impl Progress {
    fn of(c: &Connection) -> Self {
        Self { isn: c.isn, active: c.now.active, positions: [c.now.next, c.resp.next, c.resp.acked] }
    }
}

/// A connection as it was when it was last seen to move.
#[derive(Clone, Copy)]
struct Still {
    at: Progress,
    since: u64,
    /// When it was first seen.
    first: u64,
    /// When its pod's kernel was last asked for it.
    asked: Option<u64>,
    evidence: Evidence,
}

/// Since when each connection has been silent. The records do not say: no packet is to pay for it.
#[derive(Default)]
pub struct Silence {
    seen: HashMap<Tuple, Still>,
}

impl Silence {
    /// Looks at a connection. Returns how long it has been silent, as far as was looked.
    pub fn of(&mut self, conn: &Tuple, c: &Connection, now: u64) -> Duration {
        let at = Progress::of(c);
        // The record of one that is older was made of its socket.
        let evidence = if c.opened == 0 { Evidence::Held } else { Evidence::None };
        let anew = Still { at, since: now, first: now, asked: None, evidence };
        let it = self.seen.entry(*conn).or_insert(anew);
        if it.at.isn != at.isn {
            *it = anew;
        } else if it.at != at {
            let evidence = if it.evidence == Evidence::Held { Evidence::Held } else { evidence };
            // Who has it asked often enough, if it moves all the time.
            let asked = it.asked.filter(|_| evidence == Evidence::None);
            *it = Still { evidence, first: it.first, asked, ..anew };
        }
        Duration::from_nanos(now.saturating_sub(it.since))
    }

    /// Whether its pod's kernel is to be asked for its client, which is then taken for asked.
    pub fn due(&mut self, conn: &Tuple, now: u64) -> bool {
        let it_is = |it: &&mut Still| {
            let (since, wait) = match it.evidence {
                Evidence::None => (it.first, SETTLED),
                Evidence::Held => (it.since, VANISHED),
                Evidence::Never => return false,
            };
            older(since, now, wait) && it.asked.is_none_or(|at| older(at, now, ASKED_AGAIN))
        };
        self.seen.get_mut(conn).filter(it_is).map(|it| it.asked = Some(now)).is_some()
    }

    /// Remembers what the pod's kernel has said. Returns all that it has said of the connection.
    pub fn answered(&mut self, conn: &Tuple, said: Client) -> Evidence {
        self.seen.get_mut(conn).map_or(Evidence::None, |it| {
            it.evidence = it.evidence.and(said);
            it.evidence
        })
    }

    /// Forgets connections that are not there any more.
    pub fn keep(&mut self, is_there: impl Fn(&Tuple) -> bool) {
        self.seen.retain(|conn, _| is_there(conn));
    }
}

#[cfg(test)]
mod tests {
    use sidetrack_splice::abi::record::{LEG_FORK, LegRef, PHASE_WATCH, STATE_OWNER, Said};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const IDLE: Duration = Duration::from_secs(30);

    fn live() -> Connection {
        let mut c =
            Connection { opened: 1, isn: 7, server: Said { mss: 1460, ..Said::default() }, ..Connection::default() };
        c.now.phase = PHASE_WATCH;
        c.now.next = seq::first(7);
        c
    }

    #[test]
    fn a_live_connection_is_never_over_however_long_it_is_silent() {
        assert!(!connection(&live(), u64::MAX, Duration::MAX));
        let mut half = live();
        half.resp.flags = RESP_FIN;
        assert!(!connection(&half, u64::MAX, Duration::MAX), "the client may keep its side open");
    }

    #[test]
    fn a_held_head_that_nobody_has_sent_again_for_an_hour_has_no_client() {
        let mut c = live();
        c.now.phase = PHASE_HOLD;
        c.now.asked_at = 7 * SECOND;
        let hour = VANISHED.as_secs() * SECOND;
        assert!(!deserted(&c, c.now.asked_at + hour));
        assert!(deserted(&c, c.now.asked_at + hour + 1));
        c.now.asked_at += SECOND;
        assert!(!deserted(&c, 7 * SECOND + hour + 1), "it was sent again");
        c.now.phase = PHASE_WATCH;
        assert!(!deserted(&c, u64::MAX), "nothing of it is held");
    }

    #[test]
    fn a_syn_that_nobody_answers_is_forgotten_when_its_client_has_given_up() {
        let mut c = live();
        c.server = Said::default();
        assert!(!connection(&c, 0, UNANSWERED));
        assert!(connection(&c, 0, UNANSWERED + IDLE));
        c.now.next += 1;
        assert!(!connection(&c, 0, Duration::MAX), "its answer came another way: it is live");
    }

    #[test]
    fn a_connection_that_its_client_has_closed_ends_when_both_are_silent() {
        let mut c = live();
        c.now.flags = CONN_DIVERTED | CONN_FIN;
        assert!(!connection(&c, u64::MAX, HALF_CLOSED), "the answer may still be on its way");
        assert!(connection(&c, 0, HALF_CLOSED + IDLE), "the fork has died behind it");
    }

    #[test]
    fn what_has_ended_is_remembered_for_time_wait_if_it_was_diverted() {
        let mut c = live();
        c.resp.flags = RESP_RESET;
        assert!(connection(&c, 0, Duration::ZERO));
        c.now.flags = CONN_DIVERTED;
        c.now.active = SECOND;
        assert!(!connection(&c, 61 * SECOND, Duration::ZERO));
        assert!(connection(&c, 62 * SECOND, Duration::ZERO));
        let mut given_up = live();
        given_up.now.phase = PHASE_RESET;
        assert!(!connection(&given_up, 60 * SECOND, Duration::ZERO));
    }

    #[test]
    fn silence_begins_anew_with_every_byte_and_every_connection() {
        let (mut silence, conn, mut c) = (Silence::default(), Tuple::default(), live());
        assert_eq!(silence.of(&conn, &c, SECOND), Duration::ZERO);
        assert_eq!(silence.of(&conn, &c, 9 * SECOND), Duration::from_secs(8));
        c.resp.acked += 1;
        assert_eq!(silence.of(&conn, &c, 10 * SECOND), Duration::ZERO);
        c.isn += 1;
        assert_eq!(silence.of(&conn, &c, 11 * SECOND), Duration::ZERO, "another one on the same ports");
        silence.keep(|_| false);
        assert_eq!(silence.of(&conn, &c, 20 * SECOND), Duration::ZERO);
    }

    #[test]
    fn a_client_has_vanished_only_where_its_kernel_had_it_and_has_it_no_more_after_an_hour() {
        assert!(!vanished(Client::Gone, Evidence::Held, VANISHED));
        assert!(vanished(Client::Gone, Evidence::Held, VANISHED + IDLE));
        for client in [Client::There, Client::Unknown] {
            assert!(!vanished(client, Evidence::Held, Duration::MAX), "{client:?}: age alone ends nothing");
        }
        for evidence in [Evidence::None, Evidence::Never] {
            assert!(!vanished(Client::Gone, evidence, Duration::MAX), "{evidence:?}: it may never have been there");
        }
    }

    #[test]
    fn a_pods_kernel_is_asked_once_for_each_connection_and_after_an_hour_of_silence() {
        let (mut silence, conn) = (Silence::default(), Tuple::default());
        let asked = |silence: &mut Silence, c: &Connection, minutes: std::ops::Range<u64>, says| {
            let due = |&minute: &u64| {
                let now = (minute * 60 + 1) * SECOND;
                silence.of(&conn, c, now);
                let due = silence.due(&conn, now);
                if due {
                    silence.answered(&conn, says);
                }
                due
            };
            minutes.filter(due).collect::<Vec<_>>()
        };
        let mut c = live();
        assert_eq!(asked(&mut silence, &c, 0..20, Client::Unknown), [1, 12], "no answer: asked again");
        assert_eq!(asked(&mut silence, &c, 20..100, Client::There), [23, 61, 72, 83, 94]);
        c.now.next += 1;
        assert_eq!(
            asked(&mut silence, &c, 100..200, Client::There),
            [161, 172, 183, 194],
            "it has moved at minute 100"
        );
        assert_eq!(silence.answered(&conn, Client::Gone), Evidence::Held);
        c.isn += 1;
        assert_eq!(asked(&mut silence, &c, 200..900, Client::Gone), [201], "it has no socket there, and never had one");
        c.now.next += 1;
        assert_eq!(asked(&mut silence, &c, 900..1600, Client::Gone), [900]);
        assert_eq!(silence.answered(&conn, Client::Gone), Evidence::Never);
        assert!(!silence.due(&Tuple { local_port: 1, ..conn }, u64::MAX), "never looked at");
    }

    #[test]
    fn a_leg_ends_for_a_reason_and_an_owner_for_none() {
        let mut c = live();
        c.legs[2] = LegRef { kind: LEG_FORK, local_port: 9, ..LegRef::default() };
        let tuple = Tuple { local_port: 9, ..Tuple::default() };
        let parked = Leg { slot: 2, isn: 7, state: STATE_PARKED, ..Leg::default() };
        let why = |c: &Connection, l: &Leg, now| leg(Some(c), &tuple, l, now, IDLE);
        assert_eq!(why(&c, &parked, 30 * SECOND), None);
        assert_eq!(why(&c, &parked, 31 * SECOND), Some("idle"));
        assert_eq!(why(&c, &Leg { closed: 1, ..parked }, 0), Some("its backend has closed"));
        assert_eq!(why(&c, &Leg { isn: 8, ..parked }, 11 * SECOND), Some("its connection is gone"));
        assert_eq!(leg(None, &tuple, &parked, 10 * SECOND, IDLE), None, "it may be about to be spliced");
        c.legs[2].remote_port = 10;
        assert_eq!(why(&c, &parked, 10 * SECOND), None, "the same: another port of the same server");
        assert_eq!(why(&c, &parked, 11 * SECOND), Some("its slot is another's"));
        assert_eq!(why(&c, &Leg { active: SECOND, ..parked }, SECOND), Some("its slot is another's"), "it has served");
        c.legs[2].remote_port = 0;
        c.resp.flags = RESP_RESET;
        assert_eq!(why(&c, &parked, 0), Some("the owner has reset the connection"));
        c.now.owner = 2;
        assert_eq!(why(&c, &Leg { state: STATE_OWNER, ..parked }, u64::MAX), None);
        c.now.phase = PHASE_RESET;
        assert_eq!(why(&c, &parked, 0), Some("the connection was given up"));
    }
}
