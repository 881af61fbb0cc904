//! The usual cast, so that a test starts with its first request.

use crate::{
    agent::{Agent, Routes},
    gate::{self, Need},
    http::{Http, HttpError},
    lab::{Lab, Pod, Service},
    origin::{Origin, Seen},
};
use anyhow::{Result, ensure};
use std::net::SocketAddr;

/// The port that all servers of the cast listen on.
pub const PORT: u16 = 8080;
/// The key that leads to `fork`.
pub const KEY: &str = "pr-1";
/// The key that leads to `other`, of which [`KEY`] is a prefix.
pub const OTHER_KEY: &str = "pr-12";
/// A key whose requests are refused.
pub const FAIL_KEY: &str = "pr-99";
/// A well-formed key that nobody has a route for.
pub const UNKNOWN_KEY: &str = "pr-1234567";

/// Pods `client`, `base` (behind the Service `shop/orders`), `fork` and `other`, each but the first with an
/// [`Origin`] of the same name on port 8080.
#[derive(Debug)]
pub struct Scene {
    /// The pod that requests come from.
    pub client: Pod,
    /// The pod of the baseline.
    pub base_pod: Pod,
    /// The pod that [`KEY`] leads to.
    pub fork_pod: Pod,
    /// The pod that [`OTHER_KEY`] leads to.
    pub other_pod: Pod,
    /// The baseline.
    pub base: Origin,
    /// The fork of [`KEY`].
    pub fork: Origin,
    /// The fork of [`OTHER_KEY`].
    pub other: Origin,
    /// `shop/orders`, 10.96.0.10:80 and `[fd00:96::10]:80`.
    pub service: Service,
    /// The lab: last, so that it goes last.
    pub lab: Lab,
}

/// Which of a service's addresses a client dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The virtual IPv4 address.
    ClusterIp4,
    /// The virtual IPv6 address.
    ClusterIp6,
    /// The pod's own IPv4 address.
    Endpoint4,
    /// The pod's own IPv6 address.
    Endpoint6,
}

impl Via {
    /// All four.
    pub const ALL: [Self; 4] = [Self::ClusterIp4, Self::ClusterIp6, Self::Endpoint4, Self::Endpoint6];
}

impl Scene {
    /// Sets it up under the given congestion control ([`BBR`](crate::lab::BBR), [`RENO`](crate::lab::RENO)).
    ///
    /// # Errors
    /// When the lab cannot be made.
    pub fn new(name: &str, congestion: &str) -> Result<Self> {
        let lab = Lab::with_congestion(name, congestion)?;
        let client = lab.pod("client", 10)?;
        let base_pod = lab.pod("base", 11)?;
        let fork_pod = lab.pod("fork", 12)?;
        let other_pod = lab.pod("other", 13)?;
        let base = Origin::start(&base_pod, "base", PORT)?;
        let fork = Origin::start(&fork_pod, "fork", PORT)?;
        let other = Origin::start(&other_pod, "other", PORT)?;
        let service = lab.service("shop/orders", 10, 80, &[base_pod.v4_port(PORT), base_pod.v6_port(PORT)])?;
        Ok(Self { client, base_pod, fork_pod, other_pod, base, fork, other, service, lab })
    }

    /// The same, for tests that need the agent: nothing where this machine cannot run them.
    ///
    /// # Errors
    /// When the lab cannot be made.
    ///
    /// # Panics
    /// When this machine cannot run them and `CI=true`.
    pub fn open(name: &str, congestion: &str) -> Result<Option<Self>> {
        gate::open(&[Need::Lab, Need::Agent]).then(|| Self::new(name, congestion)).transpose()
    }

    /// The address that a client dials.
    #[must_use]
    pub fn address(&self, via: Via) -> SocketAddr {
        match via {
            Via::ClusterIp4 => self.service.v4,
            Via::ClusterIp6 => self.service.v6,
            Via::Endpoint4 => self.base_pod.v4_port(PORT),
            Via::Endpoint6 => self.base_pod.v6_port(PORT),
        }
    }

    /// A pod's port 8080 in both families.
    #[must_use]
    pub fn endpoints(pod: &Pod) -> [SocketAddr; 2] {
        [pod.v4_port(PORT), pod.v6_port(PORT)]
    }

    /// The service with its three routes: [`KEY`] to `fork`, [`OTHER_KEY`] to `other`, [`FAIL_KEY`] refused.
    #[must_use]
    pub fn routes(&self) -> Routes {
        Routes::new()
            .service(&self.service)
            .fork(KEY, &Self::endpoints(&self.fork_pod))
            .fork(OTHER_KEY, &Self::endpoints(&self.other_pod))
            .fail(FAIL_KEY, "its fork is not ready")
    }

    /// Starts the agent with [`Scene::routes`] and waits until it is attached to all pods of the cast.
    ///
    /// # Errors
    /// When it does not start in time: its last words are in the message.
    pub fn agent(&self) -> Result<Agent<'_>> {
        let agent = Agent::start(&self.lab, &self.routes())?;
        agent.wait_attached(["client", "base", "fork", "other"])?;
        Ok(agent)
    }

    /// A connection from the client to the service's virtual IPv4 address.
    ///
    /// # Errors
    /// As a client would see it.
    pub fn http(&self) -> Result<Http, HttpError> {
        self.client.http(self.service.v4)
    }

    /// Fails if, under [`Scene::routes`], any server's journal has a request that is not its own.
    ///
    /// # Errors
    /// Names the request and the server.
    pub fn isolated(&self) -> Result<()> {
        for origin in [&self.base, &self.fork, &self.other] {
            let own = |seen: &Seen| seen.key() != Some(FAIL_KEY) && Self::owner(seen.key()) == origin.name();
            let strangers = origin.journal().matching(|seen| !own(seen));
            ensure!(strangers.is_empty(), "{} got what is not its own: {strangers:#?}", origin.name());
        }
        Ok(())
    }

    /// The origin that has to answer a request with this key.
    #[must_use]
    pub fn origin(&self, key: Option<&str>) -> &Origin {
        match key {
            Some(KEY) => &self.fork,
            Some(OTHER_KEY) => &self.other,
            _ => &self.base,
        }
    }

    /// The name of the server that has to answer a request with this key.
    #[must_use]
    pub fn owner(key: Option<&str>) -> &'static str {
        match key {
            Some(KEY) => "fork",
            Some(OTHER_KEY) => "other",
            _ => "base",
        }
    }
}
