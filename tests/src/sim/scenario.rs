//! What a run is made of, and how it is judged.

use std::net::IpAddr;

use sidetrack_splice::{abi::reason::Reason, table::OnUnreachable};

use super::{
    acts::{Act, routes},
    book::{Book, Failure, Side},
    client::Client,
    host::{Host, MICRO, MILLI, MSS_MAX, Nanos, SECOND, Spec},
    mix::Mix,
    net::Weather,
    rng::Rng,
    server::{Manners, Server},
    world::{START, World},
};

/// How many forks there are.
pub(super) const FORKS: usize = 3;
/// Keys: as many as forks, one that leads to two of them, and one that leads nowhere.
pub(super) const KEYS: usize = FORKS + 2;
pub(super) const PORT: u16 = 80;

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
    /// The client's connections are older than the agent.
    pub older: bool,
    /// What the routes say of forks that cannot be had.
    pub on_unreachable: OnUnreachable,
    /// What happens meanwhile, and how long is between two of these, from and to.
    pub acts: Vec<Act>,
    /// See there.
    pub pace: (Nanos, Nanos),
    /// Failures that may be.
    pub permitted: Vec<Failure>,
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
            older: false,
            on_unreachable: OnUnreachable::Fail,
            acts: Vec::new(),
            pace: (SECOND, SECOND),
            permitted: Vec::new(),
        }
    }

    /// A network that loses, reorders and duplicates.
    #[must_use]
    pub fn storm() -> Self {
        let permitted =
            resets(&[Reason::ResetLegDead, Reason::ResetSticky, Reason::ResetUnreachable, Reason::ResetNotSwitchable]);
        let mut it = Self { weather: Weather::storm(), permitted, ..Self::calm() };
        // Behind a lost segment of a chunked answer, all of a window comes again, after a time-out, and each is twice the one before.
        it.mix.patience = 600 * SECOND;
        it
    }

    /// Few and long bodies in both directions, in a network that loses.
    #[must_use]
    pub fn freight() -> Self {
        let mut it = Self::storm();
        it.weather = Weather { loss: 4_000, reorder: 0, duplicate: 0, ..it.weather };
        it.mix.longest = 400_000;
        it.mix.long = 500_000;
        it.mix.pipelines = 0;
        it.exchanges = 100;
        it
    }

    /// Pools that are idle for minutes, and servers that close what is idle.
    #[must_use]
    pub fn idle() -> Self {
        let mut it = Self::calm();
        it.mix.idles = 300_000;
        it.mix.idle = (SECOND, 400 * SECOND);
        it.mix.per_connection = (1, 60);
        it.manners.idle_close = Some(75 * SECOND);
        // The server's FIN meets the request.
        it.permitted = vec![Failure::Closed];
        it
    }

    /// Agents that die, each with a successor within two seconds.
    #[must_use]
    pub fn agents() -> Self {
        Self { acts: vec![Act::ReplaceAgent], pace: (SECOND / 10, 5 * SECOND), ..Self::calm() }
    }

    /// Agents that die, and are missed for longer.
    #[must_use]
    pub fn without_agents() -> Self {
        let acts = vec![Act::KillAgent, Act::StartAgent];
        let permitted = resets(&[Reason::ResetAgentDead, Reason::ResetNotSwitchable]);
        Self { acts, pace: (SECOND, 10 * SECOND), permitted, ..Self::calm() }
    }

    /// Forks that are cut off or refuse, agents that are missed, and a baseline that answers for them.
    #[must_use]
    pub fn fallback() -> Self {
        let mut it = Self::forks();
        it.on_unreachable = OnUnreachable::Baseline;
        it.acts.extend([Act::KillAgent, Act::StartAgent, Act::StartAgent]);
        it.permitted.extend(resets(&[Reason::ResetAgentDead]));
        it
    }

    /// Pools that stand before the agent comes.
    #[must_use]
    pub fn older(weather: Weather) -> Self {
        let mut it = Self { weather, older: true, pool: 16, exchanges: 300, ..Self::storm() };
        // Of a burst nobody can know how many answers are due.
        it.mix.pipelines = 0;
        it.mix.idles = 100_000;
        it.mix.idle = (SECOND / 10, 3 * SECOND);
        if it.weather.is_clear() {
            it.permitted.clear();
        }
        it
    }

    /// Forks that are cut off, refuse, reset.
    #[must_use]
    pub fn forks() -> Self {
        let acts = vec![Act::CutOff, Act::Refuse, Act::Reset, Act::Mend, Act::Mend];
        let mut permitted = resets(&[
            Reason::ResetLegDead,
            Reason::ResetUnreachable,
            Reason::ResetNotSwitchable,
            Reason::ResetLegGone,
            Reason::ResetSticky,
        ]);
        // A fork that has got the whole request is cut off before it answers: nobody can know.
        permitted.extend([Failure::ByServer, Failure::TimedOut]);
        let mut it = Self { acts, pace: (SECOND / 10, 3 * SECOND), permitted, ..Self::calm() };
        it.mix.may_time_out = true;
        it
    }

    /// Routes that change, again and again.
    #[must_use]
    pub fn rerouted() -> Self {
        let acts = vec![Act::Reroute, Act::Reroute, Act::Restore];
        let permitted = resets(&[Reason::ResetRouteFail]);
        Self { acts, pace: (SECOND / 100, SECOND), permitted, ..Self::calm() }
    }

    /// All of it at once.
    #[must_use]
    pub fn everything() -> Self {
        let mut it = Self::storm();
        it.acts = vec![
            Act::ReplaceAgent,
            Act::KillAgent,
            Act::StartAgent,
            Act::StartAgent,
            Act::CutOff,
            Act::Refuse,
            Act::Reset,
            Act::ResetBaseline,
            Act::Mend,
            Act::Mend,
            Act::Reroute,
            Act::Restore,
        ];
        it.pace = (SECOND / 20, 4 * SECOND);
        it.mix.idles = 20_000;
        it.mix.idle = (SECOND, 100 * SECOND);
        it.mix.may_time_out = true;
        it.manners.idle_close = Some(75 * SECOND);
        it.permitted.extend(resets(&[Reason::ResetRouteFail, Reason::ResetLegGone, Reason::ResetAgentDead]));
        it.permitted.extend([Failure::ByServer, Failure::Closed, Failure::TimedOut, Failure::NoConnection]);
        it
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
        let servers = (0..=FORKS).map(|n| Server::new(n, (all[n + 1][0], PORT), self.manners)).collect();
        // The routes are in force by then.
        let begin = START + SECOND;
        let client = Client::new(all[0][0], (service, PORT).into(), self.pool, self.exchanges, self.mix.clone(), begin);
        let all: Vec<IpAddr> = all.into_iter().skip(1).flatten().collect();
        let mut world = World::new(hosts, servers, client, self.weather, rng);
        world.book = Book::new(verbose);
        let harmless = |act: &Act| matches!(act, Act::Reroute | Act::Restore);
        world.strict = self.weather.is_clear() && self.acts.iter().all(harmless);
        let routes = routes(&mut world.rng.clone(), &all, false, self.on_unreachable);
        if self.older {
            for key in 0..KEYS {
                world.book.lead(key, &[Side::Server(0)], START);
            }
            let at = begin + world.rng.between(SECOND / 10, 2 * SECOND);
            world.start_agent_later(at, routes);
        } else {
            world.start_agent();
            world.program(&routes);
        }
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
        world.strict = false;
        world.weather = Weather::clear();
        self.act(&mut world, Act::Mend);
        self.act(&mut world, Act::StartAgent);
        let until = world.now + 90 * 60 * SECOND;
        while world.book.violations.is_empty() && !world.leftovers().is_empty() {
            if !world.step(until) {
                let (now, left) = (world.now, world.leftovers());
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
}

fn resets(reasons: &[Reason]) -> Vec<Failure> {
    reasons.iter().map(|reason| Failure::Reset(reason.name())).collect()
}
