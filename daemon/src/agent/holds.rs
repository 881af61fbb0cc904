//! Answers the kernel's holds: makes legs, waits until an owner may change, and sends held frames again.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sidetrack_splice::abi::{
    addr::Tuple,
    event::{EVENT_CUT, EVENT_DIAL, EVENT_GONE, EVENT_MORE, EVENT_WAIT, Event},
    reason::Reason,
    record::{DIAL_BASELINE, DIAL_FAILED, DIAL_READY, Dial, LegRef},
};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use self::stage::Stage;
use super::{
    Shared,
    attached::Member,
    ended, lack,
    legs::{self, LegError},
    room::{Room, Share},
    seldom::{EVERY, Seldom},
    sweep,
    untaken::{self, Over},
};
use crate::{
    cold::{Frame, acknowledge, cut, replay},
    pods::NetnsId,
    state,
};

/// A pod that has just appeared is attached within.
const ATTACHED_WITHIN: Duration = Duration::from_millis(500);
/// How long a refusal waits for the next retransmission of a client that has begun to send again within [`ATTACHED_WITHIN`].
const REFUSED: Duration = Duration::from_secs(10);

/// First and longest pause between two tries to change the owner.
const PAUSE: Duration = Duration::from_micros(300);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// How long a leg that was made waits to be taken.
const ADOPT: Duration = Duration::from_secs(2);

/// A frame that is held.
#[derive(Clone, Debug)]
struct Held {
    bytes: Vec<u8>,
    gso_size: u32,
    /// The sequence number of the frame that the kernel has handed over.
    seq: u32,
    /// Its part of what may be kept, while it is.
    _share: Option<Arc<Share>>,
}

impl Held {
    fn of(event: &Event, bytes: Vec<u8>, share: Option<Arc<Share>>) -> Self {
        Self { bytes, gso_size: event.gso_size, seq: event.seq, _share: share }
    }
}

/// One hold: the head's frame, and those behind it.
#[derive(Debug)]
struct Hold {
    number: u32,
    head: Held,
    behind: Vec<Held>,
}

impl Hold {
    /// Whether it is the one that this event began: the head may have asked for something else since.
    fn is_of(&self, event: &Event) -> bool {
        self.number == event.hold
    }

    /// Takes what has come behind the head, in order: what the programs hand over meanwhile may come before what is sent again.
    fn take_behind(&mut self) -> Vec<Held> {
        let (head, mut behind) = (self.head.seq, std::mem::take(&mut self.behind));
        behind.sort_by_key(|held| held.seq.wrapping_sub(head));
        behind
    }
}

/// All holds, by connection.
#[derive(Clone)]
pub(super) struct Holds {
    shared: Arc<Shared>,
    room: Room,
    open: Arc<Mutex<HashMap<Tuple, Hold>>>,
    /// Which pod was said to have no port for which endpoint.
    ports_out: Arc<Mutex<Seldom<(NetnsId, SocketAddr)>>>,
}

impl Holds {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let room = Room::new(shared.config.held_bytes as usize);
        Self { shared, room, open: Arc::default(), ports_out: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Tuple, Hold>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles one event. Does not block: what takes time is a task of its own.
    pub(super) fn handle(&self, event: &Event, frame: &[u8]) {
        if event.kind == EVENT_GONE {
            self.lock().remove(&event.conn);
            return sweep::gone(&self.shared, &event.conn);
        }
        let Some(member) = self.shared.attached.find(event.conn.local_addr().ip()) else {
            return self.foreign(event);
        };
        match event.kind {
            EVENT_DIAL | EVENT_WAIT => {
                if let Some(held) = self.keep(event, frame) {
                    self.begin(event, held, member);
                }
            }
            EVENT_MORE => {
                if let Some(held) = self.keep(event, frame) {
                    self.more(event, held, &member);
                }
            }
            EVENT_CUT => match cut(frame, event.cut as usize) {
                Ok((first, second)) => {
                    for bytes in [first, second] {
                        self.again(event, &member, Held::of(event, bytes, None));
                    }
                }
                Err(error) => warn!(conn = %event.conn, "a frame cannot be cut: {error}"),
            },
            kind => warn!(kind, "an event of an unknown kind: sidetrack and its kernel programs differ"),
        }
    }

    /// A frame of a client that is in no pod, or in one of several. Its pod may have gone, or is attached at this moment: the client's
    /// retransmission asks again. One that has asked for long is refused: what is held for it gets no leg, and is not the baseline's.
    fn foreign(&self, event: &Event) {
        let shared = &self.shared;
        let held = shared.maps.connections.find(&event.conn).filter(|c| c.now.holds(event.hold));
        let waited = held.is_some_and(|c| ended::older(c.now.active, state::now(), ATTACHED_WITHIN));
        if !waited || !shared.attached.listed() || shared.attached.departed(event.conn.local_addr().ip()) {
            return debug!(conn = %event.conn, "held frame of an unknown pod");
        }
        warn!(conn = %event.conn, "a keyed request of a client that is in no pod of this node: the client is reset");
        let reason = Reason::ResetForeign as u32;
        let refused = Dial { hold: event.hold, status: DIAL_FAILED, slot: event.slot, reason, leg: LegRef::default() };
        if !self.put(event, &refused) {
            return;
        }
        let (this, event) = (self.clone(), *event);
        tokio::spawn(async move {
            sleep(REFUSED).await;
            this.withdraw(&event);
        });
    }

    /// A copy of a frame, where there is room for it. What is dropped its client sends again.
    fn keep(&self, event: &Event, frame: &[u8]) -> Option<Held> {
        let Some(share) = self.room.take(frame.len()) else {
            self.shared.maps.counters.add(Reason::HeldFull);
            debug!(conn = %event.conn, "a held frame is dropped: as much is held as limits.heldBytes allows");
            return None;
        };
        Some(Held::of(event, frame.to_vec(), Some(Arc::new(share))))
    }

    fn begin(&self, event: &Event, frame: Held, member: Arc<Member>) {
        let mut open = self.lock();
        if open.get(&event.conn).is_some_and(|hold| hold.is_of(event)) {
            return;
        }
        // A wait that has become a dial keeps what came behind its head.
        let behind = open.remove(&event.conn).filter(|h| h.number.wrapping_add(1) == event.hold).map(|h| h.behind);
        let stamp = Frame::parse(&frame.bytes).ok().and_then(|frame| frame.stamp());
        let hold = Hold { number: event.hold, head: frame, behind: behind.unwrap_or_default() };
        open.insert(event.conn, hold);
        drop(open);
        let (this, event) = (self.clone(), *event);
        tokio::spawn(async move {
            if event.kind == EVENT_DIAL {
                this.dial(&event, &member, stamp).await;
            } else {
                this.wait(&event, &member).await;
            }
        });
    }

    fn more(&self, event: &Event, frame: Held, member: &Member) {
        let mut open = self.lock();
        match open.get_mut(&event.conn) {
            Some(hold) if hold.is_of(event) => hold.behind.push(frame),
            // The hold was over before this frame got here.
            _ => {
                drop(open);
                self.again(event, member, frame);
            }
        }
    }

    /// How far the connection is with this hold.
    fn stage(&self, event: &Event) -> Stage {
        Stage::of(self.shared.maps.connections.find(&event.conn).as_ref(), event, state::now())
    }

    /// Sends a held frame again. It acknowledges what its client has acknowledged since: an owner may change only when the client has
    /// got all that the old one has said.
    fn again(&self, event: &Event, member: &Member, mut held: Held) {
        let c = self.shared.maps.connections.find(&event.conn).filter(|c| c.now.has_come_to(event.hold));
        if let Some(Err(error)) = c.map(|c| acknowledge(&mut held.bytes, c.now.acked)) {
            warn!(conn = %event.conn, "{error}");
        }
        send(member, &held);
    }

    /// Sends the head again, unless it has gone on by another way: its client's retransmission, or in parts. Returns whether the hold is
    /// over.
    fn retry(&self, event: &Event, member: &Member) -> bool {
        let head = self.lock().get(&event.conn).filter(|h| h.is_of(event)).map(|h| h.head.clone());
        let Some(head) = head else { return true };
        match self.stage(event) {
            Stage::Begins => false,
            Stage::Over => true,
            Stage::Held => {
                self.again(event, member, head);
                self.stage(event) == Stage::Over
            }
        }
    }

    /// Sends the head again and again, at growing pauses, until the hold is over. False: it is not by then.
    async fn goes_on(&self, event: &Event, member: &Member, deadline: Instant) -> bool {
        let mut pause = PAUSE;
        while !self.retry(event, member) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        true
    }

    /// Ends the hold: what came behind the head follows it, and what comes behind that meanwhile.
    fn finish(&self, event: &Event, member: &Member) {
        loop {
            let mut open = self.lock();
            let Some(hold) = open.get_mut(&event.conn).filter(|hold| hold.is_of(event)) else { return };
            let behind = hold.take_behind();
            if behind.is_empty() {
                open.remove(&event.conn);
                return;
            }
            drop(open);
            for held in behind {
                self.again(event, member, held);
            }
        }
    }

    /// Whether the head still waits for this, and has not asked for something else meanwhile: its route may have changed.
    fn waits(&self, event: &Event) -> bool {
        self.lock().get(&event.conn).is_some_and(|hold| hold.is_of(event))
    }

    /// Answers a hold, unless there is another in its place. False: the kernel cannot be told.
    fn answer(&self, event: &Event, status: u32, reason: Reason, leg: LegRef) -> bool {
        self.tell(event, &Dial { hold: event.hold, status, slot: event.slot, reason: reason as u32, leg })
    }

    /// Answers a hold: the baseline serves the request, by `leg` if that is one. False: the kernel cannot be told.
    fn fall_back(&self, event: &Event, leg: LegRef) -> bool {
        let (hold, status, slot, reason) = (event.hold, DIAL_BASELINE, event.slot, event.route);
        self.tell(event, &Dial { hold, status, slot, reason, leg })
    }

    fn tell(&self, event: &Event, dial: &Dial) -> bool {
        let open = self.lock();
        if open.get(&event.conn).is_none_or(|hold| !hold.is_of(event)) {
            return true;
        }
        self.put(event, dial)
    }

    fn put(&self, event: &Event, dial: &Dial) -> bool {
        let put = self.shared.maps.dials.put(&event.conn, dial);
        if let Err(error) = &put {
            self.shared.maps.counters.add(Reason::DialsFull);
            warn!(conn = %event.conn, "map dials takes no answer: {error}; the client's retransmission asks again");
        }
        put.is_ok()
    }

    /// Lets go of a hold, and of what is held behind its head.
    fn drop_hold(&self, event: &Event) {
        let mut open = self.lock();
        if open.get(&event.conn).is_some_and(|hold| hold.is_of(event)) {
            open.remove(&event.conn);
        }
    }

    /// Takes the answer to a hold back, if it still stands.
    fn withdraw(&self, event: &Event) {
        let _open = self.lock();
        if self.shared.maps.dials.find(&event.conn).is_some_and(|dial| dial.hold == event.hold) {
            _ = self.shared.maps.dials.remove(&event.conn);
        }
    }

    /// Refuses the held head: the client is reset.
    fn refuse(&self, event: &Event, member: &Member, reason: Reason) {
        self.answer(event, DIAL_FAILED, reason, LegRef::default());
        self.retry(event, member);
        self.withdraw(event);
        self.drop_hold(event);
    }

    /// Lets the baseline serve the held head. Where even that is not to be had, the client is reset.
    async fn instead(&self, event: &Event, member: &Member, stamp: Option<u32>) {
        let c = self.shared.maps.connections.find(&event.conn);
        let mut made = None;
        if c.is_some_and(|c| !legs::original_lives(&self.shared, &event.conn, &c)) {
            let baseline = Event { route: 0, version: 0, slot: 0, ..*event };
            match legs::make(&self.shared, member, &baseline, stamp).await {
                Ok(leg) => made = Some(leg),
                Err(error) => {
                    warn!(conn = %event.conn, "no leg, and none to the baseline: {error}; the client is reset");
                    return self.refuse(event, member, error.reason());
                }
            }
        }
        self.fall_back(event, made.as_ref().map(|made| made.leg).unwrap_or_default());
        if !self.goes_on(event, member, Instant::now() + ADOPT).await {
            warn!(conn = %event.conn, "no leg, and the baseline cannot serve the request; the client is reset");
            return self.refuse(event, member, Reason::ResetUnreachable);
        }
        self.withdraw(event);
        self.finish(event, member);
        if let Some(made) = &mut made {
            made.release(&self.shared, member);
        }
    }

    async fn dial(&self, event: &Event, member: &Arc<Member>, stamp: Option<u32>) {
        let begun = Instant::now();
        let mut made = match legs::make(&self.shared, member, event, stamp).await {
            Ok(made) => made,
            Err(error) if !self.waits(event) => {
                return debug!(conn = %event.conn, "no leg: {error}; its request has asked for another one meanwhile");
            }
            Err(LegError::Outdated(why)) => {
                debug!(conn = %event.conn, "no leg is made: {why}");
                // Read again: what it needs is something else by now, or as soon as the new table has come to its route.
                if !self.goes_on(event, member, begun + self.shared.config.dial_timeout).await {
                    warn!(conn = %event.conn, "no leg: {why}, and its request was not read otherwise; the client is reset");
                    self.refuse(event, member, LegError::Outdated(why).reason());
                }
                return self.finish(event, member);
            }
            Err(error) if legs::or_baseline(&self.shared, event) => {
                debug!(conn = %event.conn, "no leg: {error}; the baseline serves the request, as its route says");
                return self.instead(event, member, stamp).await;
            }
            Err(error @ LegError::NoPort { target, .. }) => {
                self.without_port(event, member, target, &error);
                return self.refuse(event, member, error.reason());
            }
            Err(error) => {
                warn!(conn = %event.conn, "no leg: {error}; the client is reset");
                return self.refuse(event, member, error.reason());
            }
        };
        let before = legs::in_slot(&self.shared, event);
        if !self.answer(event, DIAL_READY, Reason::SpliceCold, made.leg) {
            self.drop_hold(event);
            made.release(&self.shared, member);
            let tuple = legs::tuple(&event.conn, &made.leg);
            if let Some(leg) = self.shared.maps.legs.find(&tuple) {
                legs::end(&self.shared, &tuple, &leg, "nobody can be told of it");
            }
            return;
        }
        let refused = !self.goes_on(event, member, Instant::now() + self.shared.config.dial_timeout + ADOPT).await;
        if refused {
            warn!(
                conn = %event.conn, service = made.service, fork = %made.target,
                "a leg was made, but the request did not go on to it in time; the client is reset. \
                If the node is not overloaded and no route changed, please report this"
            );
            self.refuse(event, member, Reason::ResetNotSwitchable);
        }
        self.withdraw(event);
        self.finish(event, member);
        sweep::replaced(&self.shared, &event.conn, &before);
        made.release(&self.shared, member);
        let (conn, tuple) = (self.shared.maps.connections.find(&event.conn), legs::tuple(&event.conn, &made.leg));
        let leg = self.shared.maps.legs.find(&tuple);
        let over = Over {
            conn: conn.as_ref(),
            isn: made.isn,
            made: &made.leg,
            leg: leg.as_ref(),
            hold: event.hold,
            refused,
            current: legs::current(&self.shared, event),
        };
        if let Some(why) = untaken::why(over) {
            debug!(conn = %event.conn, leg = %tuple, "the leg is not used: {why}");
            if let Some(leg) = leg {
                legs::end(&self.shared, &tuple, &leg, "not used");
            }
        } else {
            let micros = begun.elapsed().as_micros() as u64;
            debug!(conn = %event.conn, key = made.key, service = made.service, fork = %made.target, micros, "spliced");
            if conn.is_none_or(|c| c.isn != made.isn)
                && let Some(leg) = leg
            {
                legs::end(&self.shared, &tuple, &leg, "its connection is gone");
            }
        }
    }

    /// Says that a pod has no local port for an endpoint: not for each request, there are hundreds a second then.
    fn without_port(&self, event: &Event, member: &Member, target: SocketAddr, error: &LegError) {
        debug!(conn = %event.conn, "no leg: {error}; the client is reset");
        let mut seldom = self.ports_out.lock().unwrap_or_else(PoisonError::into_inner);
        let due = seldom.due((member.pod.id(), target), Instant::now().into_std());
        drop(seldom);
        if let Some(unsaid) = due {
            warn!(
                pod = member.name, endpoint = %target, refused_before = unsaid,
                "{error}. Its keyed requests that need a leg are reset meanwhile; said once in {} s", EVERY.as_secs()
            );
        }
    }

    async fn wait(&self, event: &Event, member: &Arc<Member>) {
        let deadline = Instant::now() + self.shared.config.switch_timeout;
        let mut pause = PAUSE;
        loop {
            sleep(pause).await;
            if self.retry(event, member) {
                return self.finish(event, member);
            }
            if Instant::now() > deadline {
                let lacks = self.shared.maps.connections.find(&event.conn).as_ref().and_then(lack::words);
                let lacks = lacks.map(|lack| format!(": {lack}")).unwrap_or_default();
                warn!(conn = %event.conn, "the old owner's response did not end in time{lacks}; the client is reset");
                return self.refuse(event, member, Reason::ResetNotSwitchable);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Sends a held frame again. What the kernel refuses is the client's to send again.
fn send(member: &Member, held: &Held) {
    if let Err(error) = replay(&member.packets, &held.bytes, held.gso_size) {
        debug!("a held frame cannot be sent again: {error}");
    }
}

mod stage;
