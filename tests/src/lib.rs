//! The lab: pods out of network namespaces, Services as kube-proxy makes them, servers that tell who they are, clients
//! that check every byte, and the agent under test.
//!
//! ```no_run
//! use sidetrack_tests::{Lab, Origin, Request};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new("example")?;
//! let client = lab.pod("client", 10)?;
//! let base = lab.pod("base", 11)?;
//! let origin = Origin::start(&base, "base", 8080)?;
//! let service = lab.service("orders", 10, 80, &[base.v4_port(8080), base.v6_port(8080)])?;
//!
//! let mut http = client.http(service.v4)?;
//! let answer = http.exchange(&Request::get("/bytes/1000").key("pr-1"))?;
//! assert_eq!(answer.served_by(), "base");
//! answer.verify_bytes("base", 1000)?;
//! assert_eq!(origin.journal().requests().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! * [`lab`]: [`Lab`], [`Pod`], [`Service`]: namespaces, addresses, routes, nftables.
//! * [`origin`]: [`Origin`], a scriptable HTTP/1.1 server with a journal of what reached it.
//! * [`nginx`]: [`Nginx`], the real one.
//! * [`http`]: [`Http`], a client that controls each byte, and [`Request`], [`Response`].
//! * [`load`]: [`Load`], many connections with random keys, every answer checked.
//! * [`agent`]: [`Agent`], the binary under test, and [`Routes`], its route file.
//! * [`kube`]: [`ApiServer`], the real one of Kubernetes, and kubectl.
//! * [`scene`]: [`Scene`], the usual cast: a client, a baseline, two forks, an agent.
//! * [`pools`]: real pools of connections, and what happens to them meanwhile.
//! * [`sim`]: a simulated world in virtual time, over the same decisions.
//! * [`probe`]: programs of somebody else on a pod's interface.
//! * [`tcp`]: what a kernel says of one of its sockets.
//! * [`wire`]: segments as they are on a pod's interface, read and forged.
//! * [`demo`]: what `cargo xtask demo` plays.
//! * [`gate`]: tests that cannot run say so.

pub mod agent;
pub mod demo;
pub mod digest;
pub mod gate;
pub mod http;
pub mod kube;
pub mod lab;
pub mod load;
pub mod nginx;
pub mod origin;
pub mod pools;
pub mod probe;
pub mod process;
pub mod scene;
pub mod sim;
pub mod tcp;
pub mod wire;

pub use agent::{Agent, Routes};
pub use http::{Http, HttpError, Request, Response};
pub use kube::ApiServer;
pub use lab::{Lab, Pod, Service};
pub use load::Load;
pub use nginx::Nginx;
pub use origin::Origin;
pub use scene::Scene;
pub use tcp::TcpFigures;

use std::time::{Duration, Instant};

/// Asks `question` every few milliseconds until it answers, for at most `within`.
///
/// # Errors
/// When it has not answered in time: `what` was waited for.
pub fn wait_for<T>(what: &str, within: Duration, mut question: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = question() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            anyhow::bail!("waited {within:?} in vain for: {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
