//! The agent's part: what it does is events and answers with delays; by which rules, `sidetrack`'s own code says.

mod dials;
mod holds;
mod older;
mod sweep;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use sidetrack::{agent::ended::Silence, cold::ports::Ports};
use sidetrack_splice::{
    abi::{addr::Tuple, dial_mark, event::Event},
    table::{Op, Programmed, RouteTable, Targets},
};

pub(super) use self::older::Sockets;
use self::{dials::Dialing, holds::Made};
use super::{
    book::Side,
    host::{Nanos, SECOND},
    world::{What, World},
};

/// How long a fork may take to accept, a head may wait, a leg may be idle: the defaults.
const DIAL_TIMEOUT: Nanos = sidetrack::config::DEFAULT_DIAL_TIMEOUT.as_nanos() as u64;
const SWITCH_TIMEOUT: Nanos = sidetrack::config::DEFAULT_SWITCH_TIMEOUT.as_nanos() as u64;
const PARKED_IDLE: Duration = sidetrack::config::DEFAULT_PARKED_IDLE;
/// How often it sweeps.
const SWEEP_EVERY: Nanos = 1_000_000_000;

/// A frame that is held, and those behind it.
struct Hold {
    number: u32,
    head: Vec<u8>,
    behind: Vec<Vec<u8>>,
}

impl Hold {
    fn is_of(&self, event: &Event) -> bool {
        self.number == event.hold
    }
}

/// What an agent does later, if it lives then.
pub(super) enum Task {
    /// Reads the ring buffer.
    Ring,
    /// Sends a head again that waits for the old owner.
    Wait(Box<Event>, Nanos, Nanos),
    /// Sends a head again that has an answer: a leg that was made for it, or that the baseline's is to serve it.
    Adopt(Box<Event>, Option<Box<Made>>, Nanos, Nanos),
    /// Looks for what has ended.
    Sweep,
    /// Takes the next step to a table of routes.
    Step,
    /// Looks for connections that stood before, for the time of this number.
    Older(usize),
}

/// Where each key of a run leads by a table.
#[derive(Clone)]
pub struct Routes {
    /// The table.
    pub table: RouteTable,
    /// The same by number of the key.
    pub leads: Vec<Vec<Side>>,
}

/// An agent, and what it has pinned.
pub(super) struct Agent {
    /// Which one it is: what an earlier one had in mind is void.
    pub epoch: u64,
    /// It lives.
    pub alive: bool,
    holds: BTreeMap<Tuple, Hold>,
    dialing: Vec<Dialing>,
    ports: Ports,
    silence: Silence,
    targets: Targets,
    /// What stands in the maps `services`, `routes`, `names`.
    programmed: Programmed,
    wanted: Option<Routes>,
    steps: VecDeque<Op>,
    begun: Instant,
    ring_due: bool,
}

impl Agent {
    /// None yet.
    pub fn none() -> Self {
        Self {
            epoch: 0,
            alive: false,
            holds: BTreeMap::new(),
            dialing: Vec::new(),
            ports: Ports::default(),
            silence: Silence::default(),
            targets: Targets::default(),
            programmed: Programmed::default(),
            wanted: None,
            steps: VecDeque::new(),
            begun: Instant::now(),
            ring_due: false,
        }
    }

    /// Virtual time, for code that takes the machine's.
    fn instant(&self, now: Nanos) -> Instant {
        self.begun + Duration::from_nanos(now)
    }

    fn give_back(&mut self, target: SocketAddr, port: u16, now: Nanos) {
        let at = self.instant(now);
        self.ports.give_back(target, port, at);
    }

    /// The mark of this connection of the pod, where it is one that it dials.
    pub fn dials(&self, leg: &Tuple) -> Option<u32> {
        self.dialing.iter().find(|it| it.tuple == *leg).map(|it| dial_mark(it.agreed))
    }
}

impl World {
    /// An agent starts, and adopts what an earlier one has left.
    pub fn start_agent(&mut self) {
        if self.agent.alive {
            return;
        }
        self.agent.alive = true;
        self.agent.ports = Ports::default();
        self.agent.silence = Silence::default();
        self.beat();
        self.kernel.reload();
        self.kernel.maps.dials.clear();
        let at = self.agent.instant(self.now);
        for (tuple, _) in self.kernel.maps.legs.iter().filter(|(_, leg)| leg.moved != 0) {
            self.agent.ports.adopt(tuple.remote_addr(), u16::from_be(tuple.local_port), at);
        }
        if let Some(routes) = self.agent.wanted.clone() {
            self.program(&routes);
        }
        self.later(SWEEP_EVERY / 2, Task::Sweep);
        self.look_at_ring();
        self.book.note(self.now, || "an agent starts".to_owned());
    }

    /// The agent is killed.
    pub fn kill_agent(&mut self) {
        if !self.agent.alive {
            return;
        }
        self.book.note(self.now, || "the agent dies".to_owned());
        self.beat();
        self.agent.alive = false;
        self.agent.epoch += 1;
        self.agent.holds.clear();
        self.agent.steps.clear();
        self.agent.ring_due = false;
        // Its sockets close, those that it dials with a reset.
        for dialing in std::mem::take(&mut self.agent.dialing) {
            self.abandon(&dialing);
        }
    }

    /// The agent is killed, and another starts before that is known.
    pub fn replace_agent(&mut self) {
        self.kill_agent();
        let gap = self.rng.between(SECOND / 20, SECOND * 17 / 10);
        self.schedule(self.now + gap, What::Start);
    }

    /// Brings other routes into the maps, step by step.
    ///
    /// # Panics
    /// If the ids of routes run out.
    pub fn program(&mut self, routes: &Routes) {
        for (key, leads) in routes.leads.iter().enumerate() {
            self.book.lead(key, leads, self.now);
        }
        self.agent.wanted = Some(routes.clone());
        if !self.agent.alive {
            return;
        }
        let plan = self.agent.programmed.plan(&routes.table).expect("ids do not run out in a run");
        self.agent.targets = plan.targets;
        self.agent.steps = plan.ops.into();
        self.later(1000, Task::Step);
    }

    fn take_step(&mut self) {
        let Some(op) = self.agent.steps.pop_front() else {
            self.settle();
            return;
        };
        let before = self.kernel.maps.services.len();
        let maps = &mut self.kernel.maps;
        match &op {
            Op::PutService(key, value) => {
                maps.look_at(&key.addr, key.port);
                maps.services.insert(*key, *value);
            }
            Op::DeleteService(key) => _ = maps.services.remove(key),
            Op::PutRoute(key, value) => _ = maps.routes.insert(*key, *value),
            Op::DeleteRoute(key) => _ = maps.routes.remove(key),
            Op::PutName(..) | Op::DeleteName(..) => {}
        }
        self.agent.programmed.apply(&op);
        if self.kernel.maps.services.len() > before {
            self.later(0, Task::Older(0));
        }
        let pause = self.rng.between(1_000, 50_000);
        self.later(pause, Task::Step);
    }

    /// From here on keys lead nowhere but where the routes say.
    fn settle(&mut self) {
        if let Some(routes) = self.agent.wanted.clone() {
            for (key, leads) in routes.leads.iter().enumerate() {
                self.book.settle(key, leads, self.now);
            }
        }
    }

    /// An agent will start at this time, with these routes.
    pub fn start_agent_later(&mut self, at: Nanos, routes: Routes) {
        self.agent.wanted = Some(routes);
        self.schedule(at, What::Start);
    }

    /// The agent does something in a while.
    fn later(&mut self, after: Nanos, task: Task) {
        let epoch = self.agent.epoch;
        self.schedule(self.now + after, What::Task(epoch, task));
    }

    /// If there is something in the ring buffer, the agent will read it.
    pub(super) fn look_at_ring(&mut self) {
        if self.agent.alive && !self.agent.ring_due && !self.kernel.events.is_empty() {
            self.agent.ring_due = true;
            let latency = self.rng.between(10_000, 400_000);
            self.later(latency, Task::Ring);
        }
    }

    /// Does what an agent had in mind.
    pub(super) fn task(&mut self, epoch: u64, task: Task) {
        if epoch != self.agent.epoch || !self.agent.alive {
            return;
        }
        match task {
            Task::Ring => {
                self.agent.ring_due = false;
                for (event, frame) in std::mem::take(&mut self.kernel.events) {
                    self.handle(&event, frame);
                }
            }
            Task::Wait(event, deadline, pause) => self.wait(*event, deadline, pause),
            Task::Adopt(event, made, deadline, pause) => self.adopt(*event, made.map(|made| *made), deadline, pause),
            Task::Sweep => {
                self.sweep();
                self.later(SWEEP_EVERY, Task::Sweep);
            }
            Task::Step => self.take_step(),
            Task::Older(looked) => self.adopt_older(looked),
        }
    }
}
