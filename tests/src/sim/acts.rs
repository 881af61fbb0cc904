//! What happens to a run from outside: agents and forks that die, routes that change.

use std::net::{IpAddr, SocketAddr};

use sidetrack_splice::table::{OnUnreachable, Route, RouteTable, Service, To};

use super::{
    agent::Routes,
    book::Side,
    rng::Rng,
    scenario::{FORKS, KEYS, PORT, Scenario},
    world::World,
};

/// What may happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The agent is killed, and another starts within two seconds.
    ReplaceAgent,
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
}

impl Scenario {
    /// Lets it happen.
    pub(super) fn act(&self, world: &mut World, act: Act) {
        world.book.note(world.now, || format!("{act:?}"));
        let fork = 1 + world.rng.below(FORKS as u64) as usize;
        match act {
            Act::ReplaceAgent => world.replace_agent(),
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
                let table = routes(&mut world.rng, &addresses, act == Act::Reroute, self.on_unreachable);
                world.program(&table);
            }
        }
    }
}

/// Each key to its fork, one to two of them, and one nowhere; or some of them elsewhere.
pub(super) fn routes(rng: &mut Rng, addresses: &[IpAddr], anew: bool, on_unreachable: OnUnreachable) -> Routes {
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
            Some(_) if on_unreachable == OnUnreachable::Baseline => [sides, vec![Side::Server(0)]].concat(),
            Some(_) => sides,
        });
        let to = match to {
            None => To::Fail { reason: "not ready".to_owned() },
            Some(servers) if servers.is_empty() => continue,
            Some(servers) => To::Fork { endpoints: servers.into_iter().map(at).collect(), on_unreachable },
        };
        all.push(Route { key: format!("pr-{key}"), to });
    }
    let service = Service { name: "shop/service".to_owned(), addresses: vec![at(0)], routes: all };
    let table = RouteTable::new(vec![service]).expect("a valid table");
    Routes { table, leads }
}
