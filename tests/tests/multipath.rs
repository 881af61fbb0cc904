//! Clients and servers that speak MPTCP (RFC 8684): its options name bytes that a fork has never agreed on.

use std::{io, net::SocketAddr, net::TcpListener};

use anyhow::{Context as _, Result, ensure};
use sidetrack_tests::{Agent, Http, Origin, Pod, Request, Routes, Scene, lab::RENO, scene::KEY, wait_for};
use socket2::{Domain, Protocol, Socket, Type};
use std::time::Duration;

/// `IPPROTO_MPTCP`.
const MPTCP: i32 = 262;
const PORT: u16 = 9000;
/// So many connections are open before there is anything to steer.
const POOL: usize = 4;

fn socket(protocol: i32) -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(protocol)))
}

fn serve(pod: &Pod, protocol: i32, name: &str) -> Result<Origin> {
    let listen = || {
        let socket = socket(protocol)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], PORT)).into())?;
        socket.listen(64)?;
        io::Result::Ok(TcpListener::from(socket))
    };
    Origin::serve(pod.enter(listen)??, name)
}

struct Stage {
    base: Origin,
    fork: Origin,
    at: SocketAddr,
}

impl Stage {
    /// Nothing where the kernel has no MPTCP.
    fn of(scene: &Scene) -> Result<Option<Self>> {
        for pod in [&scene.client, &scene.base_pod, &scene.fork_pod] {
            if pod.sysctl("net/mptcp/enabled", "1").is_err() {
                ensure!(std::env::var_os("CI").is_none(), "this kernel has no MPTCP");
                eprintln!("not run: this kernel has no MPTCP");
                return Ok(None);
            }
        }
        let base = serve(&scene.base_pod, MPTCP, "base")?;
        let fork = serve(&scene.fork_pod, libc::IPPROTO_TCP, "fork")?;
        Ok(Some(Self { base, fork, at: scene.base_pod.v4_port(PORT) }))
    }

    fn dial(&self, scene: &Scene) -> Result<Http> {
        let connect = || {
            let socket = socket(MPTCP)?;
            socket.connect(&self.at.into())?;
            io::Result::Ok(socket)
        };
        Ok(Http::over(scene.client.enter(connect)??.into())?)
    }

    fn pool(&self, scene: &Scene) -> Result<Vec<Http>> {
        let mut pool = (0..POOL).map(|_| self.dial(scene)).collect::<Result<Vec<_>>>()?;
        for http in &mut pool {
            http.exchange(&Request::get("/bytes/3000"))?.verify_bytes("base", 3000)?;
        }
        Ok(pool)
    }

    fn routes(&self, scene: &Scene) -> Routes {
        Routes::new().addresses("shop/m", &[self.at]).fork(KEY, &[scene.fork_pod.v4_port(PORT)])
    }

    /// A new connection does without, and is steered. Those of the pool go on as they are: nothing of them hangs.
    fn opaque(&self, scene: &Scene, mut pool: Vec<Http>, agent: &Agent) -> Result<()> {
        let steered = || {
            let mut http = self.dial(scene).ok()?;
            let response = http.exchange(&Request::get("/").key(KEY)).ok()?;
            (response.served_by() == "fork").then_some(())
        };
        wait_for("a new connection to be steered", Duration::from_secs(10), steered)
            .with_context(|| agent.explain())?;
        for http in &mut pool {
            for (key, size) in [(Some(KEY), 300_000), (None, 100), (Some(KEY), 5000)] {
                let request = Request::get(&format!("/bytes/{size}")).maybe_key(key);
                let response = http.exchange(&request).with_context(|| agent.explain())?;
                response.verify_bytes("base", size)?;
            }
        }
        ensure!(self.fork.journal().matching(|seen| seen.key().is_none()).is_empty());
        ensure!(self.base.journal().count() >= 4 * POOL);
        agent.no_errors()
    }
}

#[test]
fn multipath_connections_to_a_service_that_is_forked_later_stay_opaque_and_are_counted() -> Result<()> {
    let Some(scene) = Scene::open("multipath", RENO)? else { return Ok(()) };
    let Some(stage) = Stage::of(&scene)? else { return Ok(()) };
    let agent = Agent::start(&scene.lab, &Routes::new().addresses("shop/m", &[stage.at]))?;
    agent.wait_attached(["client"])?;
    let pool = stage.pool(&scene)?;
    ensure!(agent.counter("opaque_multipath")? == POOL as u64, "{}", agent.explain());
    agent.set_routes(&stage.routes(&scene))?;
    stage.opaque(&scene, pool, &agent)
}

#[test]
fn multipath_connections_that_are_older_than_the_agent_are_not_adopted() -> Result<()> {
    let Some(scene) = Scene::open("multipath-old", RENO)? else { return Ok(()) };
    let Some(stage) = Stage::of(&scene)? else { return Ok(()) };
    let pool = stage.pool(&scene)?;
    let agent = Agent::start(&scene.lab, &stage.routes(&scene))?;
    agent.wait_attached(["client"])?;
    stage.opaque(&scene, pool, &agent)?;
    ensure!(agent.counter("adopted")? == 0, "{}", agent.explain());
    Ok(())
}
