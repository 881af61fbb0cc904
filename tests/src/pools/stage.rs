//! Pods, servers, keys: who is there while the pools are at work.

use super::plan::{Kind, LONGEST, USUAL};
use crate::{
    agent::Routes,
    digest,
    lab::{BBR, LAB_DIR, Lab, Pod, Service},
    origin::{Origin, Seen},
};
use anyhow::Result;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The port of every server, and of the proxies.
pub const PORT: u16 = 8080;
/// Without a key.
pub const UNKEYED: &str = "unkeyed";
/// With a key that nobody has a route for.
pub const LOST: &str = "lost";
/// With the key of a fork that is always there.
pub const STEADY: &str = "steady";
/// With the key of a fork of two pods that take turns, and of which one ends and starts again.
pub const TURNS: &str = "turns";
/// With the key of a fork that comes and goes.
pub const GUEST: &str = "guest";

const STEADY_KEY: &str = "pr-1";
const TURNS_KEY: &str = "pr-12";
const GUEST_KEY: &str = "pr-123";

/// The service and who is behind it.
#[derive(Debug)]
pub struct Stage {
    /// What clients dial.
    pub service: Service,
    servers: Vec<Server>,
    /// The lab: last, so that it goes last.
    pub lab: Lab,
}

/// A pod with a server that may end and start again.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    pod: Pod,
    /// The last one is at work; the others have ended, and keep their journals.
    origins: Mutex<Vec<Origin>>,
}

impl Stage {
    /// All servers: the baseline, then forks.
    pub const SERVERS: [&'static str; 5] = ["base", "steady", "left", "right", "guest"];
    /// All kinds of requests.
    pub const KINDS: [&'static str; 5] = [UNKEYED, LOST, STEADY, TURNS, GUEST];

    /// Sets it up.
    ///
    /// # Errors
    /// When the lab cannot be made.
    pub fn new() -> Result<Self> {
        let lab = Lab::with_congestion("pools", BBR)?;
        let mut servers = Vec::new();
        for (number, name) in (11..).zip(Self::SERVERS) {
            let pod = lab.pod(name, number)?;
            let origins = Mutex::new(vec![Origin::start(&pod, name, PORT)?]);
            std::fs::write(Self::stream(name), digest::body(name, USUAL + LONGEST))?;
            servers.push(Server { name, pod, origins });
        }
        let endpoints = servers[0].endpoints();
        let service = lab.service("shop/orders", 10, 80, &endpoints)?;
        Ok(Self { service, servers, lab })
    }

    /// The file with the beginning of a server's own stream.
    #[must_use]
    pub fn stream(server: &str) -> PathBuf {
        Path::new(LAB_DIR).join(format!("{server}.stream"))
    }

    /// One of the servers.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn server(&self, name: &str) -> &Server {
        self.servers.iter().find(|server| server.name == name).expect("a server of the cast")
    }

    /// All of them.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The routes while [`TURNS`] is served by these, and the guest is there or not.
    #[must_use]
    pub fn routes(&self, turns: &[&str], guest: bool) -> Routes {
        let endpoints = |names: &[&str]| -> Vec<SocketAddr> {
            names.iter().flat_map(|name| self.server(name).endpoints()).collect()
        };
        let routes = Routes::new().service(&self.service);
        let routes = routes.fork(STEADY_KEY, &endpoints(&["steady"])).fork(TURNS_KEY, &endpoints(turns));
        if guest { routes.fork(GUEST_KEY, &endpoints(&["guest"])) } else { routes }
    }

    /// What clients send: each key in each kind of carrier.
    #[must_use]
    pub fn kinds() -> Vec<Kind> {
        let mut kinds = vec![Kind { name: UNKEYED, servers: &["base"], header: None }; 3];
        let keyed: [(_, _, &[_]); 4] = [
            (LOST, "pr-1234", &["base"]),
            (STEADY, STEADY_KEY, &["steady"]),
            (TURNS, TURNS_KEY, &["left", "right"]),
            (GUEST, GUEST_KEY, &["guest", "base"]),
        ];
        for (name, key, servers) in keyed {
            let carriers = [
                ("baggage", format!("tenant=7,sidetrack={key}")),
                ("tracestate", format!("other=1,sd-routing-key={key}")),
                ("x-sidetrack-key", key.to_owned()),
            ];
            kinds.extend(carriers.map(|header| Kind { name, servers, header: Some(header) }));
        }
        kinds
    }

    /// How many requests have reached a server.
    #[must_use]
    pub fn count(&self) -> usize {
        self.servers.iter().map(|server| server.origins().iter().map(|o| o.journal().count()).sum::<usize>()).sum()
    }
}

impl Server {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its address in both families.
    #[must_use]
    pub fn endpoints(&self) -> [SocketAddr; 2] {
        [self.pod.v4_port(PORT), self.pod.v6_port(PORT)]
    }

    /// Refuses new connections, and ends the others behind their next answer.
    pub fn drain(&self) {
        self.origins().iter_mut().for_each(Origin::drain);
    }

    /// Starts again.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start_again(&self) -> Result<()> {
        let origin = Origin::start(&self.pod, self.name, PORT)?;
        self.origins().push(origin);
        Ok(())
    }

    /// All requests that have reached it.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.origins().iter().flat_map(|origin| origin.journal().requests()).collect()
    }

    fn origins(&self) -> MutexGuard<'_, Vec<Origin>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
