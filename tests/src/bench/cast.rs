//! Who takes part: three pods that the agent knows, and four of the same making that it never hears of.

use super::{
    client::{Request, Target},
    machine,
};
use anyhow::Result;
use serde::Serialize;
use sidetrack_tests::{Agent, Lab, Nginx, Pod, Routes, Service};
use std::net::SocketAddr;

/// The key that has a route.
const KEY: &str = "pr-1";
/// Port of all servers.
const PORT: u16 = 8080;
/// Body of the requests and answers called "64 KiB".
pub const MEDIUM: usize = 64 << 10;
/// Body of the requests and answers called "200 MB".
pub const LARGE: usize = 200_000_000;

/// What may lie between a client and its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// No program in either pod. All ratios are against it.
    Plain,
    /// The same once more, with other pods: what two identical things differ by.
    Again,
    /// Programs in both pods; the service stands in no route file.
    Unwatched,
    /// Programs in both pods, a service with a route, a request without a key.
    Unkeyed,
    /// Programs in both pods, a key with a route: the fork answers.
    Keyed,
    /// Programs in both pods, one request with the key and one without in turns: fork and baseline answer.
    Turns,
}

impl Condition {
    /// As it stands in the table.
    pub fn label(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Again => "the same again (A/A)",
            Self::Unwatched => "service not watched",
            Self::Unkeyed => "unkeyed, watched",
            Self::Keyed => "keyed",
            Self::Turns => "keyed and unkeyed in turns",
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// An answer of a few bytes.
    Small,
    /// An answer with a body of this length.
    Down(usize),
    /// A request with a body of this length.
    Up(usize),
}

/// A server in its pod.
struct Server {
    pod: Pod,
    nginx: Nginx,
}

impl Server {
    fn new(lab: &Lab, name: &str, number: u8) -> Result<Self> {
        let pod = lab.pod(name, number)?;
        let nginx = Nginx::start(&pod, name, PORT)?;
        nginx.file(MEDIUM)?;
        nginx.file(LARGE)?;
        Ok(Self { pod, nginx })
    }

    fn endpoint(&self) -> SocketAddr {
        self.pod.v4_port(PORT)
    }
}

/// The whole cast. The servers' names have one length, and so have their answers.
pub struct Cast {
    client: Pod,
    bare_client: Pod,
    twin_client: Pod,
    base: Server,
    fork: Server,
    bare: Server,
    twin: Server,
    orders: Service,
    stock: Service,
    plain: Service,
    again: Service,
    alone: Service,
}

impl Cast {
    /// Makes pods, servers and Services. Pods whose names are removed from the directory stay, and no agent finds them.
    pub fn new(lab: &Lab) -> Result<Self> {
        let (bare_client, twin_client) = (lab.pod("bare-client", 20)?, lab.pod("twin-client", 22)?);
        let (bare, twin) = (Server::new(lab, "bare", 21)?, Server::new(lab, "twin", 23)?);
        for name in ["bare-client", "bare", "twin-client", "twin"] {
            lab.delete_namespace(name)?;
        }
        let (own, fork) = (Server::new(lab, "base", 11)?, Server::new(lab, "fork", 12)?);
        let client = lab.pod("client", 10)?;
        for pod in [&client, &bare_client, &twin_client] {
            // Else a client of some 14,000 new connections looks for a free port for milliseconds.
            pod.sysctl("net/ipv4/tcp_max_tw_buckets", "1024")?;
        }
        Ok(Self {
            client,
            orders: lab.service("shop/orders", 10, 80, &[own.endpoint()])?,
            stock: lab.service("shop/stock", 20, 80, &[own.endpoint()])?,
            plain: lab.service("shop/plain", 30, 80, &[bare.endpoint()])?,
            again: lab.service("shop/again", 40, 80, &[twin.endpoint()])?,
            alone: lab.service("shop/alone", 50, 80, &[bare.endpoint()])?,
            bare_client,
            twin_client,
            base: own,
            fork,
            bare,
            twin,
        })
    }

    /// Starts the agent, with routes for two services: `orders`, and `alone`, whose servers have no program.
    pub fn agent<'lab>(&self, lab: &'lab Lab) -> Result<Agent<'lab>> {
        let routes = Routes::new()
            .addresses(&self.orders.name, &[self.orders.v4])
            .fork(KEY, &[self.fork.endpoint()])
            .addresses(&self.alone.name, &[self.alone.v4])
            .fork(KEY, &[self.twin.endpoint()]);
        let agent = Agent::start(lab, &routes)?;
        agent.wait_attached(["client", "base", "fork"])?;
        Ok(agent)
    }

    /// The pod that asks, and what it asks.
    pub fn target(&self, condition: Condition, ask: Ask) -> (&Pod, Target) {
        let keyed = !matches!(condition, Condition::Unkeyed);
        let (client, service, server) = match condition {
            Condition::Plain => (&self.bare_client, &self.plain, "bare"),
            Condition::Again => (&self.twin_client, &self.again, "twin"),
            Condition::Unwatched => (&self.client, &self.stock, "base"),
            Condition::Unkeyed => (&self.client, &self.orders, "base"),
            Condition::Keyed | Condition::Turns => (&self.client, &self.orders, "fork"),
        };
        (client, Target { to: service.v4, server, request: request(ask, keyed) })
    }

    /// The same where only the client's pod has programs, so that they see no packet twice.
    pub fn target_alone(&self, condition: Condition, ask: Ask) -> (&Pod, Target) {
        let keyed = !matches!(condition, Condition::Unkeyed);
        let (service, server) = match condition {
            Condition::Plain | Condition::Again | Condition::Unwatched => (&self.plain, "bare"),
            Condition::Unkeyed => (&self.alone, "bare"),
            Condition::Keyed | Condition::Turns => (&self.alone, "twin"),
        };
        (&self.client, Target { to: service.v4, server, request: request(ask, keyed) })
    }

    /// Puts all servers on one processor.
    pub fn place_servers(&self, cpu: usize) -> Result<()> {
        for server in [&self.base, &self.fork, &self.bare, &self.twin] {
            machine::pin(server.nginx.process().id(), cpu)?;
        }
        Ok(())
    }
}

/// A request as one service sends it to another: a token, trace context, baggage. With a key or without, its length is
/// the same.
fn request(ask: Ask, keyed: bool) -> Request {
    let (line, body) = match ask {
        Ask::Small => ("GET / HTTP/1.1".to_owned(), 0),
        Ask::Down(length) => (format!("GET /bytes/{length} HTTP/1.1"), 0),
        Ask::Up(length) => (format!("POST /upload HTTP/1.1\r\ncontent-length: {length}"), length),
    };
    let member = if keyed { "sidetrack" } else { "promotion" };
    let token = "eyJhbGciOiJFUzI1NiJ9.".to_owned() + &"c2lkZXRyYWNr".repeat(14);
    let head = format!(
        "{line}\r\nhost: orders.shop.svc.cluster.local\r\nuser-agent: checkout/4.2\r\naccept: application/json\r\n\
         accept-encoding: gzip, deflate\r\nauthorization: Bearer {token}\r\n\
         x-request-id: 7d2b8c1e-3b1f-4a56-9d0e-5f6a7b8c9d0e\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
         baggage: userId=alice,serverNode=DF28,{member}={KEY}\r\n\r\n"
    );
    Request { head: head.into_bytes(), body }
}

/// Bytes of the small request's head.
pub fn head_length() -> usize {
    request(Ask::Small, true).head.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_length_with_a_key_and_without() {
        for ask in [Ask::Small, Ask::Down(MEDIUM), Ask::Up(MEDIUM)] {
            assert_eq!(request(ask, true).head.len(), request(ask, false).head.len());
        }
    }
}
