//! What a run is made of, and how it is judged.

use std::net::{IpAddr, SocketAddr};

use sidetrack_splice::table::{Route, RouteTable, Service, To};

use super::{
    agent::Routes,
    book::{Book, Side},
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
        Self { weather: Weather::clear(), mix, manners, exchanges: 2000, pool: 4 }
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
        let mut world = World::new(hosts, servers, client, self.weather, rng);
        world.book = Book::new(verbose);
        let forks: Vec<SocketAddr> = (0..FORKS).map(|n| (all[n + 2][0], PORT).into()).collect();
        world.start_agent();
        world.program(routes((service, PORT).into(), &forks));
        world
    }

    /// Plays the world of a seed to its end.
    ///
    /// # Errors
    /// What must not be, with the seed.
    pub fn play(&self, seed: u64, verbose: bool) -> Result<World, String> {
        let mut world = self.world(seed, verbose);
        let limit = START + 48 * 3600 * SECOND;
        while !world.client.is_done() && world.book.violations.is_empty() {
            if !world.step(limit) {
                let now = world.now;
                world.book.violation(now, "the client never comes to an end");
            }
        }
        let until = world.now + 90 * 60 * SECOND;
        while world.book.violations.is_empty() && !world.kernel.maps.leftovers().is_empty() {
            if !world.step(until) {
                let (now, left) = (world.now, world.kernel.maps.leftovers());
                world.book.violation(now, &format!("what has ended is not forgotten: {left}"));
            }
        }
        if world.book.violations.is_empty() {
            return Ok(world);
        }
        Err(format!("seed {seed}: {}\n{}", world.book.violations.join("\n"), world.book.log()))
    }
}

/// Each key to its fork, one to two of them, and one nowhere.
fn routes(service: SocketAddr, forks: &[SocketAddr]) -> Routes {
    let fork = |key: usize, endpoints: Vec<SocketAddr>| Route { key: format!("pr-{key}"), to: To::Fork { endpoints } };
    let mut all: Vec<Route> = forks.iter().enumerate().map(|(n, at)| fork(n, vec![*at])).collect();
    let mut leads: Vec<Vec<Side>> = (0..forks.len()).map(|n| vec![Side::Server(n + 1)]).collect();
    all.push(fork(forks.len(), forks[..2].to_vec()));
    leads.push(vec![Side::Server(1), Side::Server(2)]);
    leads.push(vec![Side::Server(0)]);
    let service = Service { name: "shop/service".to_owned(), addresses: vec![service], routes: all };
    let table = RouteTable::new(vec![service]).expect("a valid table");
    Routes { table, leads }
}

/// How long a run has taken, in virtual seconds.
#[must_use]
pub const fn seconds(now: Nanos) -> u64 {
    (now - START) / SECOND
}
