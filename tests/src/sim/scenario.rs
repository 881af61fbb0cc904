//! What a run is made of, and how it is judged.

use std::net::{IpAddr, SocketAddr};

use sidetrack_splice::table::{Route, RouteTable, Service, To};

use super::{
    agent::Routes,
    book::{Book, Failure, Side},
    client::Client,
    host::{Host, MSS_MAX, MICRO, MILLI, Nanos, SECOND, Spec},
    mix::Mix,
    net::Weather,
    rng::Rng,
    server::{Manners, Server},
    world::{START, World},
};

/// How many forks there are.
const FORKS: usize = 3;
/// Keys: as many as forks, one that leads to two of them, and one that leads nowhere.
const KEYS: usize = FORKS + 2;
const PORT: u16 = 80;

/// A kind of run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What the network does.
    pub weather: Weather,
    /// What the client asks for.
    pub mix: Mix,
    /// How servers behave.
    pub manners: Manners,
    /// Exchanges of one run.
    pub exchanges: u64,
    /// Connections of the client's pool.
    pub pool: usize,
    /// What happens meanwhile, and how long is between two of these, from and to.
    pub acts: Vec<Act>,
    /// See there.
    pub pace: (Nanos, Nanos),
    /// Failures that may be.
    pub permitted: Vec<Failure>,
}

/// What may happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The agent is killed.
    KillAgent,
    /// Another starts, if there is none.
    StartAgent,
    /// A fork is cut off, without a word.
    CutOff,
    /// A fork takes no connections any more.
    Refuse,
    /// A fork resets all its connections.
    Reset,
    /// Every fork is there again, and works.
    Mend,
    /// The baseline resets all its connections.
    ResetBaseline,
    /// The routes change: keys lead elsewhere, nowhere, or are refused.
    Reroute,
    /// The routes are as at the start.
    Restore,
    /// The client's connections are gone, without a word.
    Vanish,
}

impl Scenario {
    /// A network without faults, servers without bad manners.
    #[must_use]
    pub fn calm() -> Self {
        let keys = (0..KEYS).map(|n| format!("pr-{n}")).collect();
        let mix = Mix {
            keys,
            keyed: 500_000,
            longest: 60_000,
            long: 30_000,
            pipelines: 100_000,
            dribble: 50_000,
            big_heads: 20_000,
            closes: 10_000,
            aborts: 100_000,
            pause: (0, 3 * MILLI),
            idles: 5_000,
            idle: (SECOND, 20 * SECOND),
            per_connection: (1, 200),
            patience: 60 * SECOND,
            may_time_out: false,
        };
        let manners = Manners { think: (50 * MICRO, 2 * MILLI), idle_close: None, refuses: false, dribble: 50_000 };
        Self {
            weather: Weather::clear(),
            mix,
            manners,
            exchanges: 2000,
            pool: 4,
            acts: Vec::new(),
            pace: (SECOND, SECOND),
            permitted: Vec::new(),
        }
    }

    /// Builds the world of a seed.
    #[must_use]
    pub fn world(&self, seed: u64, verbose: bool) -> World {
        let mut rng = Rng::new(seed);
        let v6 = rng.chance(300_000);
        let ip = |net: u8, last: u8| -> IpAddr {
            if v6 { [0xfd00, u16::from(net), 0, 0, 0, 0, 0, last.into()].into() } else { [10, net, 0, last].into() }
        };
        let mss = *rng.pick(&[MSS_MAX, MSS_MAX, 1000, 536]);
        let service = ip(96, 10);
        let all: Vec<Vec<IpAddr>> = std::iter::once(vec![ip(0, 1)])
            .chain(std::iter::once(vec![service]))
            .chain((0..FORKS).map(|n| vec![ip(1, n as u8 + 1)]))
            .collect();
        let hosts = all.iter().map(|addresses| {
            let spec = Spec {
                addresses: addresses.clone(),
                mss,
                buffers: *rng.pick(&[16_384, 65_535, 131_072, 262_144]),
                stamps: rng.chance(700_000),
                clock: (rng.next() as u32, *rng.pick(&[MILLI, MILLI, MICRO])),
                seed: rng.next(),
            };
            (Host::new(spec, START), addresses.clone())
        });
        let hosts: Vec<_> = hosts.collect();
        let servers =
            (0..=FORKS).map(|n| Server::new(n, (all[n + 1][0], PORT), self.manners)).collect();
        // The routes are in force by then.
        let begin = START + SECOND;
        let client = Client::new(all[0][0], (service, PORT).into(), self.pool, self.exchanges, self.mix.clone(), begin);
        let all: Vec<IpAddr> = all.into_iter().skip(1).flatten().collect();
        let mut world = World::new(hosts, servers, client, self.weather, rng);
        world.book = Book::new(verbose);
        world.start_agent();
        world.program(routes(&mut world.rng.clone(), &all, false));
        world
    }

    /// Plays the world of a seed to its end.
    ///
    /// # Errors
    /// What must not be, with the seed.
    pub fn play(&self, seed: u64, verbose: bool) -> Result<World, String> {
        let mut world = self.world(seed, verbose);
        let limit = START + 48 * 3600 * SECOND;
        let mut next = START + 2 * SECOND;
        while !world.client.is_done() && world.book.violations.is_empty() {
            if !self.acts.is_empty() && world.now >= next {
                let act = *world.rng.pick(&self.acts);
                self.act(&mut world, act);
                next = world.now + world.rng.between(self.pace.0, self.pace.1);
            }
            let until = if self.acts.is_empty() { limit } else { next };
            if !world.step(until) && world.now >= limit {
                let now = world.now;
                world.book.violation(now, "the client never comes to an end");
            }
        }
        // All is well again, and what has ended is forgotten.
        world.weather = Weather::clear();
        self.act(&mut world, Act::Mend);
        self.act(&mut world, Act::StartAgent);
        let until = world.now + 90 * 60 * SECOND;
        while world.book.violations.is_empty() && !world.kernel.maps.leftovers().is_empty() {
            if !world.step(until) {
                let (now, left) = (world.now, world.kernel.maps.leftovers());
                world.book.violation(now, &format!("what has ended is not forgotten: {left}"));
            }
        }
        for how in world.book.failed.keys().filter(|how| !self.permitted.contains(how)).copied().collect::<Vec<_>>() {
            let (now, n) = (world.now, world.book.failed[&how]);
            world.book.violation(now, &format!("{n} exchanges failed as none may here: {how:?}"));
        }
        if world.book.violations.is_empty() {
            return Ok(world);
        }
        Err(format!("seed {seed}: {}\n{}", world.book.violations.join("\n"), world.book.log()))
    }

    fn act(&self, world: &mut World, act: Act) {
        world.book.note(world.now, || format!("{act:?}"));
        let fork = 1 + world.rng.below(FORKS as u64) as usize;
        match act {
            Act::KillAgent => world.kill_agent(),
            Act::StartAgent => world.start_agent(),
            Act::CutOff => world.hosts[fork + 1].dead = true,
            Act::Refuse => world.servers[fork].manners.refuses = true,
            Act::Reset | Act::ResetBaseline => {
                let server = if act == Act::Reset { fork } else { 0 };
                world.servers[server].reset_all(&mut world.hosts[server + 1]);
                world.wake_at(server + 1, world.now + 1);
            }
            Act::Mend => {
                for server in 1..=FORKS {
                    world.hosts[server + 1].dead = false;
                    world.servers[server].manners = self.manners;
                    world.wake_at(server + 1, world.now + 1);
                }
            }
            Act::Reroute | Act::Restore => {
                let addresses = world.addresses_of_servers();
                let table = routes(&mut world.rng, &addresses, act == Act::Reroute);
                world.program(table);
            }
            Act::Vanish => world.client.vanish(world.now, &mut world.hosts[0], &mut world.book),
        }
    }
}

/// Each key to its fork, one to two of them, and one nowhere; or some of them elsewhere.
fn routes(rng: &mut Rng, addresses: &[IpAddr], anew: bool) -> Routes {
    let at = |server: usize| SocketAddr::from((addresses[server], PORT));
    let mut all = Vec::new();
    let mut leads = Vec::new();
    for key in 0..KEYS {
        let home: Vec<usize> = match key {
            _ if key < FORKS => vec![key + 1],
            FORKS => vec![1, 2],
            _ => Vec::new(),
        };
        let other = 1 + rng.below(FORKS as u64) as usize;
        let to = match rng.below(6) {
            0 if anew => Some(vec![other]),
            1 if anew => Some(Vec::new()),
            2 if anew => None,
            _ => Some(home),
        };
        let sides: Vec<Side> = to.iter().flatten().map(|server| Side::Server(*server)).collect();
        leads.push(match &to {
            None => vec![Side::Refused],
            Some(servers) if servers.is_empty() => vec![Side::Server(0)],
            Some(_) => sides,
        });
        let to = match to {
            None => To::Fail { reason: "not ready".to_owned() },
            Some(servers) if servers.is_empty() => continue,
            Some(servers) => To::Fork { endpoints: servers.into_iter().map(at).collect() },
        };
        all.push(Route { key: format!("pr-{key}"), to });
    }
    let service = Service { name: "shop/service".to_owned(), addresses: vec![at(0)], routes: all };
    let table = RouteTable::new(vec![service]).expect("a valid table");
    Routes { table, leads }
}

/// How long a run has taken, in virtual seconds.
#[must_use]
pub const fn seconds(now: Nanos) -> u64 {
    (now - START) / SECOND
}
