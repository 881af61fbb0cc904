//! One run: machines, network, programs and agent under one virtual clock.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::IpAddr,
};

use sidetrack_splice::{
    abi::{
        addr::Tuple,
        reason::Reason,
        record::{CONN_ADOPT, PHASE_WATCH, RESP_RESET},
    },
    carrier,
    conn::DEAD_WITHIN_NS,
    packet::{Packet, flag},
};

use super::{
    agent::{Agent, Sockets, Task},
    book::Book,
    client::Client,
    host::{Host, MILLI, Nanos, SECOND},
    kernel::{Kernel, Verdict, leg_tuple, packet},
    net::{Link, Weather},
    rng::Rng,
    server::Server,
    watch::Watch,
    wire,
};

/// When a run begins: nothing lies before zero.
pub const START: Nanos = 1000 * SECOND;
/// How late the coarse clock of the programs may be.
const TICK: Nanos = 4_000_000;
/// How often an agent says that it is alive.
const BEAT: Nanos = sidetrack::config::HEARTBEAT_EVERY.as_nanos() as u64;

/// What happens.
pub(super) enum What {
    /// A segment comes to a machine.
    Arrive(usize, Vec<u8>),
    /// A machine has something to do.
    Wake(usize),
    /// The agent of an epoch does something.
    Task(u64, Task),
    /// An agent starts, if there is none.
    Start,
}

/// What happens, and when; of one moment in the order in which it was said.
struct Due(Nanos, u64, What);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

/// A world.
pub struct World {
    /// Virtual nanoseconds.
    pub now: Nanos,
    /// The pod, then the servers.
    pub hosts: Vec<Host>,
    /// Server number n works on machine n + 1.
    pub servers: Vec<Server>,
    /// The client in the pod.
    pub client: Client,
    /// The programs on the pod's interface.
    pub kernel: Kernel,
    /// What is written down.
    pub book: Book,
    /// What the network does.
    pub weather: Weather,
    /// Nothing is lost, and nobody dies: times never go back, not even those of frames that wait.
    pub strict: bool,
    /// Who looks at each segment.
    pub watch: Watch,
    /// What the pod's kernel remembers of its sockets.
    pub(super) sockets: Sockets,
    pub(super) agent: Agent,
    pub(super) rng: Rng,
    addresses: BTreeMap<IpAddr, usize>,
    links: Vec<[Link; 2]>,
    queue: BinaryHeap<Due>,
    said: u64,
    wakes: Vec<Nanos>,
    why: BTreeMap<Tuple, Reason>,
    /// When a segment last came from the other side of a leg.
    heard: BTreeMap<Tuple, Nanos>,
    /// Connections that a reset has ended behind a gap: its number was the client's next one, but not the next of all that was
    /// passed on, so that the programs cannot tell it from a forged one. Their records stay until the ports are used again.
    doubted: BTreeSet<Tuple>,
    /// Connections whose SYN has passed when their service was not there yet.
    unfollowed: BTreeSet<Tuple>,
}

impl World {
    /// A world of these machines, each with its addresses; the first is the pod.
    #[must_use]
    pub fn new(
        hosts: Vec<(Host, Vec<IpAddr>)>,
        servers: Vec<Server>,
        client: Client,
        weather: Weather,
        rng: Rng,
    ) -> Self {
        let mut addresses = BTreeMap::new();
        let mut machines = Vec::new();
        for (number, (host, ips)) in hosts.into_iter().enumerate() {
            addresses.extend(ips.into_iter().map(|ip| (ip, number)));
            machines.push(host);
        }
        let count = machines.len();
        let mut it = Self {
            now: START,
            hosts: machines,
            servers,
            client,
            kernel: Kernel::new(carrier::default_carriers()),
            book: Book::new(false),
            weather,
            strict: false,
            watch: Watch::default(),
            sockets: Sockets::default(),
            agent: Agent::none(),
            rng,
            addresses,
            links: vec![[Link::default(); 2]; count],
            queue: BinaryHeap::new(),
            said: 0,
            wakes: vec![Nanos::MAX; count],
            why: BTreeMap::new(),
            heard: BTreeMap::new(),
            doubted: BTreeSet::new(),
            unfollowed: BTreeSet::new(),
        };
        it.kernel.now = START;
        // Servers listen before anybody calls.
        for number in (0..count).rev() {
            it.wake_at(number, START + (count - number) as Nanos);
        }
        it
    }

    /// Whether the agent lives.
    #[must_use]
    pub fn agent_lives(&self) -> bool {
        self.agent.alive
    }

    pub(super) fn schedule(&mut self, at: Nanos, what: What) {
        self.said += 1;
        self.queue.push(Due(at, self.said, what));
    }

    pub(super) fn wake_at(&mut self, host: usize, at: Nanos) {
        if at < self.wakes[host] {
            self.wakes[host] = at;
            self.schedule(at, What::Wake(host));
        }
    }

    /// Lets happen what happens next, if that is before `until`. False: nothing does.
    pub fn step(&mut self, until: Nanos) -> bool {
        if self.queue.peek().is_none_or(|due| due.0 > until) {
            self.now = self.now.max(until);
            return false;
        }
        let Some(Due(at, _, what)) = self.queue.pop() else { return false };
        self.now = self.now.max(at);
        self.kernel.now = self.now - self.now % TICK;
        self.beat();
        match what {
            What::Arrive(0, frame) => self.comes(frame),
            What::Arrive(host, frame) => {
                self.hosts[host].receive(frame);
                self.drive(host);
            }
            What::Wake(host) => {
                if self.wakes[host] == at {
                    self.wakes[host] = Nanos::MAX;
                    self.drive(host);
                }
            }
            What::Task(epoch, task) => self.task(epoch, task),
            What::Start => self.start_agent(),
        }
        self.look_at_ring();
        true
    }

    /// An agent that lives has said so within the last beat.
    pub(super) fn beat(&mut self) {
        if self.agent.alive {
            self.kernel.heartbeat = self.now - self.now % BEAT;
        }
    }

    /// Lets a machine work until it has nothing to do.
    pub(super) fn drive(&mut self, host: usize) {
        let mut next = Nanos::MAX;
        for _ in 0..32 {
            let mut moved = self.hosts[host].poll(self.now);
            self.flush(host);
            let machine = &mut self.hosts[host];
            next = if host == 0 {
                self.client.step(self.now, machine, &mut self.book, &mut self.rng, &mut self.why)
            } else {
                self.servers[host - 1].step(self.now, machine, &mut self.book, &mut self.rng)
            };
            if host == 0 {
                self.look_after_dials();
            }
            moved |= self.hosts[host].poll(self.now);
            self.flush(host);
            if !moved {
                break;
            }
        }
        if let Some(due) = self.hosts[host].next(self.now) {
            next = next.min(due.max(self.now + 1000));
        }
        if next != Nanos::MAX && !self.hosts[host].dead {
            self.wake_at(host, next.max(self.now + 1));
        }
    }

    /// Takes what a machine's stack has sent.
    pub(super) fn flush(&mut self, host: usize) {
        self.hosts[host].poll(self.now);
        while let Some(mut frame) = self.hosts[host].sent() {
            if host != 0 {
                self.carry(host, frame);
                continue;
            }
            let mut p = Packet::default();
            let mut mark = 0;
            if packet::parse(&frame, &mut p) {
                let tuple = packet::outbound(&p);
                if let Some(dials) = self.agent.dials(&tuple) {
                    mark = dials;
                    self.note_dial(&tuple, &p, &mut frame);
                }
            }
            self.egress(frame, mark);
        }
    }

    /// A frame goes out of the pod.
    pub(super) fn egress(&mut self, mut frame: Vec<u8>, mark: u32) {
        self.book.note(self.now, || format!("out {mark:x} {}", wire::words(&frame)));
        let before = wire::tuple(&frame, true);
        if mark == 0
            && let Some(conn) = &before
        {
            self.watch.client_sends(conn, &frame);
            self.sockets.sends(conn, &mut frame, self.now);
        }
        let verdict = self.kernel.egress(&mut frame, mark);
        self.book.note(self.now, || format!("    {verdict:?} {}", wire::words(&frame)));
        if mark == 0
            && let Some(conn) = &before
        {
            self.note_unread(conn, &frame);
        }
        for (conn, reason) in std::mem::take(&mut self.kernel.given_up) {
            self.book.note(self.now, || format!("{conn} is reset: {}", reason.name()));
            self.why.entry(conn).or_insert(reason);
            if reason == Reason::ResetLegDead {
                self.check_silence(&conn);
            }
        }
        for frame in std::mem::take(&mut self.kernel.beside) {
            self.book.note(self.now, || format!("    beside {}", wire::words(&frame)));
            self.goes(frame);
        }
        match verdict {
            Verdict::Pass | Verdict::Out => self.goes(frame),
            Verdict::Up => {
                self.hosts[0].receive(frame);
                self.wake_at(0, self.now + 1);
            }
            Verdict::Stolen | Verdict::Shot => {}
        }
        self.look_at_ring();
    }

    /// Notes which requests the programs do not read: of connections that are older than their record, and of those whose SYN was under
    /// way when their service's entry came, which nobody follows.
    fn note_unread(&mut self, conn: &Tuple, frame: &[u8]) {
        let mut p = Packet::default();
        if !packet::parse(frame, &mut p) {
            return;
        }
        let c = self.kernel.maps.connections.get(conn);
        if p.flags & flag::SYN != 0 && c.is_none() {
            self.unfollowed.insert(*conn);
        }
        let older = c.is_some_and(|c| c.now.flags & CONN_ADOPT != 0);
        if p.len != 0 && (older || c.is_none() && self.unfollowed.contains(conn)) {
            for id in self.client.under_way(conn) {
                self.book.passes_unread(self.now, conn, id, older);
            }
        }
    }

    /// A frame has passed the programs on its way out.
    fn goes(&mut self, frame: Vec<u8>) {
        let strict = self.strict;
        if let Some(leg) = wire::tuple(&frame, true)
            && let Err(why) = self.watch.backend_gets(&leg, &frame, strict)
        {
            let text = format!("{leg} gets what it must not: {why}; {}", wire::words(&frame));
            self.book.violation(self.now, &text);
        }
        self.carry(0, frame);
    }

    /// Whoever is given up as dead has been silent.
    fn check_silence(&mut self, conn: &Tuple) {
        let Some(c) = self.kernel.maps.connections.get(conn) else { return };
        let leg = leg_tuple(conn, &c.legs[usize::from(c.now.owner)]);
        let silent = self.now - self.heard.get(&leg).copied().unwrap_or_default();
        if silent + TICK < DEAD_WITHIN_NS / 3 {
            let text = format!("{conn} is reset because {leg} is dead, which has spoken {} ms ago", silent / MILLI);
            self.book.violation(self.now, &text);
        }
    }

    /// What a client answers to a reset without the exact next number (RFC 5961, section 3.2); its stack would believe it.
    fn challenge(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut p = Packet::default();
        if !packet::parse(frame, &mut p) || p.flags & flag::RST == 0 || p.flags & flag::ACK == 0 {
            return None;
        }
        let conn = packet::inbound(&p);
        let (most, acked) = self.watch.got_by_client(&conn)?;
        let challenges = most != p.seq && self.client.has(&mut self.hosts[0], &conn);
        challenges.then(|| packet::answer(frame, &p, p.ack, acked, flag::ACK))
    }

    /// Notes that the client has believed a reset which the programs have not.
    fn doubt(&mut self, conn: Tuple) {
        let c = self.kernel.maps.connections.get(&conn);
        let open = c.is_some_and(|c| c.now.phase == PHASE_WATCH && c.resp.flags & RESP_RESET == 0);
        if open && !self.client.has(&mut self.hosts[0], &conn) {
            self.doubted.insert(conn);
        }
    }

    /// What is left of connections that have ended, as a text; empty if nothing is.
    #[must_use]
    pub fn leftovers(&self) -> String {
        self.kernel.maps.leftovers(&self.doubted)
    }

    /// A frame comes to the pod.
    fn comes(&mut self, mut frame: Vec<u8>) {
        let mut p = Packet::default();
        if packet::parse(&frame, &mut p) {
            self.heard.insert(packet::inbound(&p), self.now);
            self.watch.backend_sends(&packet::inbound(&p), &frame);
        }
        self.book.note(self.now, || format!("in  {}", wire::words(&frame)));
        let verdict = self.kernel.ingress(&mut frame);
        self.book.note(self.now, || format!("    {verdict:?} {}", wire::words(&frame)));
        match verdict {
            Verdict::Pass => {
                let leg = packet::inbound(&p);
                self.note_dial(&leg, &p, &mut frame);
                let strict = self.strict;
                if let Some(conn) = wire::tuple(&frame, false) {
                    self.sockets.gets(&conn, &mut frame, self.now);
                }
                if let Some(conn) = wire::tuple(&frame, false)
                    && let Err(why) = self.watch.client_gets(&conn, &leg, &frame, strict)
                {
                    let text = format!("the client gets what it must not: {why}; {}", wire::words(&frame));
                    self.book.violation(self.now, &text);
                }
                if let Some(challenge) = self.challenge(&frame) {
                    return self.egress(challenge, 0);
                }
                let reset = wire::tuple(&frame, false).filter(|_| p.flags & flag::RST != 0);
                self.hosts[0].receive(frame);
                self.drive(0);
                if let Some(conn) = reset {
                    self.doubt(conn);
                }
            }
            Verdict::Out => self.carry(0, frame),
            Verdict::Up | Verdict::Stolen | Verdict::Shot => {}
        }
    }

    /// The network takes a frame.
    fn carry(&mut self, from: usize, frame: Vec<u8>) {
        let Some(to) = wire::destination(&frame).and_then(|ip| self.addresses.get(&ip)).copied() else { return };
        let link = if from == 0 { &mut self.links[to][0] } else { &mut self.links[from][1] };
        let [first, again] = link.carry(self.now, &self.weather, &mut self.rng);
        if let Some(at) = again {
            self.schedule(at, What::Arrive(to, frame.clone()));
        }
        if let Some(at) = first {
            self.schedule(at, What::Arrive(to, frame));
        }
    }

    /// The servers' addresses, by their numbers.
    #[must_use]
    pub fn addresses_of_servers(&self) -> Vec<IpAddr> {
        let mut all: Vec<_> = self.addresses.iter().filter(|(_, host)| **host != 0).collect();
        all.sort_by_key(|(_, host)| **host);
        all.into_iter().map(|(ip, _)| *ip).collect()
    }
}
