//! Answers the kernel's holds, as `daemon/src/agent/holds.rs`.

use sidetrack::{
    agent::untaken::{self, Over},
    cold::{Frame, acknowledge, cut},
};
use sidetrack_splice::{
    abi::{
        MARK_REPLAY,
        event::{EVENT_CUT, EVENT_DIAL, EVENT_GONE, EVENT_MORE, Event},
        reason::Reason,
        record::{CONN_DIVERTED, DIAL_BASELINE, DIAL_FAILED, DIAL_READY, Dial, Leg, LegRef, STATE_DEAD},
    },
    table::{Lookup, OnUnreachable, To},
};

use super::{
    super::{
        host::{MICRO, MILLI, Nanos, SECOND},
        kernel::leg_tuple,
        wire,
        world::World,
    },
    DIAL_TIMEOUT, Hold, SWITCH_TIMEOUT, Task,
};

/// First and longest pause between two tries to change the owner.
const PAUSE: Nanos = 300 * MICRO;
const PAUSE_MAX: Nanos = 20 * MILLI;
/// How long a leg that was made waits to be taken.
const ADOPT: Nanos = 2 * SECOND;

/// A leg that was made.
#[derive(Clone, Copy)]
pub struct Made {
    /// How its connection names it.
    pub leg: LegRef,
    /// Of the connection that it was made for.
    pub isn: u32,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLeg {
    /// What the kernel saw is no longer so.
    Outdated,
    /// None can be had.
    Refused(Reason),
}

impl World {
    pub(super) fn handle(&mut self, event: &Event, frame: Vec<u8>) {
        match event.kind {
            EVENT_GONE => {
                self.agent.holds.remove(&event.conn);
                self.gone(&event.conn);
            }
            EVENT_CUT => {
                let (first, second) = cut(&frame, event.cut as usize).expect("the programs cut within the payload");
                for part in [first, second] {
                    self.again(event, part);
                }
            }
            EVENT_MORE => match self.agent.holds.get_mut(&event.conn) {
                Some(hold) if hold.is_of(event) => hold.behind.push(frame),
                _ => self.again(event, frame),
            },
            _ => self.begin(event, frame),
        }
    }

    fn begin(&mut self, event: &Event, frame: Vec<u8>) {
        let open = &mut self.agent.holds;
        if open.get(&event.conn).is_some_and(|hold| hold.is_of(event)) {
            return;
        }
        let behind = open.remove(&event.conn).filter(|h| h.number.wrapping_add(1) == event.hold).map(|h| h.behind);
        let stamp = Frame::parse(&frame).ok().and_then(|frame| frame.stamp());
        let hold = Hold { number: event.hold, head: frame, behind: behind.unwrap_or_default() };
        open.insert(event.conn, hold);
        if event.kind == EVENT_DIAL {
            self.dial(*event, stamp, 0);
        } else {
            self.later(PAUSE, Task::Wait(Box::new(*event), self.now + SWITCH_TIMEOUT, PAUSE));
        }
    }

    fn still(&self, event: &Event) -> bool {
        self.kernel.maps.connections.get(&event.conn).is_some_and(|c| c.now.holds(event.hold))
    }

    /// Sends a held frame again.
    fn again(&mut self, event: &Event, mut frame: Vec<u8>) {
        let c = self.kernel.maps.connections.get(&event.conn).filter(|c| c.now.has_come_to(event.hold));
        if let Some(c) = c {
            acknowledge(&mut frame, c.now.acked).expect("the programs hold frames");
            wire::complete(&mut frame);
        }
        self.egress(frame, MARK_REPLAY);
    }

    /// Sends the head again, unless it has gone on by another way. Returns whether the hold is over.
    fn retry(&mut self, event: &Event) -> bool {
        let head = self.agent.holds.get(&event.conn).filter(|h| h.is_of(event)).map(|h| h.head.clone());
        let Some(head) = head.filter(|_| self.still(event)) else { return true };
        self.again(event, head);
        !self.still(event)
    }

    /// Ends the hold: what came behind the head follows it.
    fn finish(&mut self, event: &Event) {
        if self.waits(event)
            && let Some(hold) = self.agent.holds.remove(&event.conn)
        {
            for frame in hold.behind {
                self.again(event, frame);
            }
        }
    }

    fn waits(&self, event: &Event) -> bool {
        self.agent.holds.get(&event.conn).is_some_and(|hold| hold.is_of(event))
    }

    fn answer(&mut self, event: &Event, status: u32, reason: u32, leg: LegRef) {
        if self.waits(event) {
            let dial = Dial { hold: event.hold, status, slot: event.slot, reason, leg };
            self.kernel.maps.dials.insert(event.conn, dial);
        }
    }

    fn withdraw(&mut self, event: &Event) {
        if self.kernel.maps.dials.get(&event.conn).is_some_and(|dial| dial.hold == event.hold) {
            self.kernel.maps.dials.remove(&event.conn);
        }
    }

    fn refuse(&mut self, event: &Event, reason: Reason) {
        self.answer(event, DIAL_FAILED, reason as u32, LegRef::default());
        self.retry(event);
        self.withdraw(event);
        if self.waits(event) {
            self.agent.holds.remove(&event.conn);
        }
    }

    /// Lets the baseline serve the held head, by a new leg where it has none.
    fn instead(&mut self, event: Event, stamp: Option<u32>) {
        let original = self.kernel.maps.connections.get(&event.conn).map(|c| leg_tuple(&event.conn, &c.legs[0]));
        let leg = original.and_then(|tuple| self.kernel.maps.legs.get(&tuple));
        let diverted = self.kernel.maps.connections.get(&event.conn).is_some_and(|c| c.now.flags & CONN_DIVERTED != 0);
        let lives = |leg: &Leg| leg.conn == event.conn && leg.slot == 0 && leg.state != STATE_DEAD && leg.closed == 0;
        if diverted && !leg.is_some_and(lives) {
            return self.dial(Event { route: 0, version: 0, slot: 0, ..event }, stamp, event.route);
        }
        self.answer(&event, DIAL_BASELINE, event.route, LegRef::default());
        self.adopt(event, None, self.now + ADOPT, PAUSE);
    }

    /// Whether the baseline answers where the fork that a hold asks for cannot be had.
    fn or_baseline(&self, event: &Event) -> bool {
        let Lookup::Current(found) = self.agent.targets.find(event.route, event.version) else { return false };
        matches!(found.to, To::Fork { on_unreachable: OnUnreachable::Baseline, .. })
    }

    /// A dial has come to an end. `instead_of`: the route whose fork could not be had before it, or zero.
    pub(super) fn dialled(
        &mut self,
        event: Event,
        begun: Nanos,
        result: Result<Made, NoLeg>,
        stamp: Option<u32>,
        instead_of: u32,
    ) {
        match result {
            Ok(made) => {
                if instead_of == 0 {
                    self.answer(&event, DIAL_READY, Reason::SpliceCold as u32, made.leg);
                } else {
                    self.answer(&event, DIAL_BASELINE, instead_of, made.leg);
                }
                self.adopt(event, Some(made), self.now + DIAL_TIMEOUT + ADOPT, PAUSE);
            }
            Err(_) if !self.waits(&event) => {}
            Err(NoLeg::Outdated) => {
                self.adopt(event, None, begun + DIAL_TIMEOUT, PAUSE);
            }
            Err(NoLeg::Refused(_)) if instead_of == 0 && self.or_baseline(&event) => self.instead(event, stamp),
            Err(NoLeg::Refused(reason)) => self.refuse(&event, reason),
        }
    }

    /// Sends the head again until it has gone on, to the leg that was made if one was.
    pub(super) fn adopt(&mut self, event: Event, made: Option<Made>, deadline: Nanos, pause: Nanos) {
        let over = self.retry(&event);
        if !over && self.now <= deadline {
            let task = Task::Adopt(Box::new(event), made.map(Box::new), deadline, (pause * 2).min(PAUSE_MAX));
            return self.later(pause, task);
        }
        if !over {
            self.refuse(&event, if made.is_some() { Reason::ResetNotSwitchable } else { Reason::ResetUnreachable });
        }
        self.withdraw(&event);
        self.finish(&event);
        let Some(made) = made else { return };
        let tuple = leg_tuple(&event.conn, &made.leg);
        self.kernel.maps.handshakes.remove(&tuple);
        let conn = self.kernel.maps.connections.get(&event.conn).copied();
        let leg = self.kernel.maps.legs.get(&tuple).copied();
        let current =
            event.route == 0 || matches!(self.agent.targets.find(event.route, event.version), Lookup::Current(_));
        let what = Over {
            conn: conn.as_ref(),
            isn: made.isn,
            made: &made.leg,
            leg: leg.as_ref(),
            hold: event.hold,
            refused: !over,
            current,
        };
        let unused = untaken::why(what).is_some() || conn.is_none_or(|c| c.isn != made.isn);
        if let Some(leg) = leg.filter(|_| unused) {
            self.end_leg(&tuple, &leg, "not used");
        }
    }

    pub(super) fn wait(&mut self, event: Event, deadline: Nanos, pause: Nanos) {
        if self.retry(&event) {
            return self.finish(&event);
        }
        if self.now > deadline {
            return self.refuse(&event, Reason::ResetNotSwitchable);
        }
        let pause = (pause * 2).min(PAUSE_MAX);
        self.later(pause, Task::Wait(Box::new(event), deadline, pause));
    }
}
