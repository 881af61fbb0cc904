//! `sidetrack controller`: connects to the cluster, serves health and metrics, and works until it is told to stop.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use sidetrack_controller::{Health, Hearing, Listener, Settings, UNROUTE};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    access::Access,
    admin::{self, Admin, OfController},
};

/// What a controller is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster.
    pub access: Access,
    /// Where health and metrics are served.
    pub listen: Option<SocketAddr>,
    /// The namespace that it runs in.
    pub namespace: String,
    /// Its name among several.
    pub identity: String,
    /// Where agents are heard, and by which address they reach it where that listens on all.
    pub reports: Option<(SocketAddr, Option<IpAddr>)>,
    /// The ServiceAccount of the agents, in the same namespace.
    pub agents: String,
}

/// Works until it is told to stop.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(work(options))
}

async fn work(options: Options) -> anyhow::Result<()> {
    let client = options.access.client().await?;
    let health = Health::default();
    if let Some(address) = options.listen {
        let admin = Admin::Controller(OfController(health.clone()));
        admin::start(address, admin).with_context(|| format!("cannot serve health and metrics at {address}"))?;
    }
    let Options { namespace, identity, reports, agents, .. } = options;
    let hearing = match reports {
        None => None,
        Some((listen, reached)) => {
            let listener = Listener::bind(listen).await?;
            let mut address = listener.address().context("where agents are heard")?;
            if address.ip().is_unspecified() {
                let reached =
                    reached.context("agents are heard on all addresses: say by which they are reached (POD_IP)")?;
                address.set_ip(reached);
            }
            Some(Hearing { listener, address })
        }
    };
    info!(version = env!("CARGO_PKG_VERSION"), namespace, identity, "controller");
    let settings = Settings { namespace, identity, unroute: UNROUTE, agents };
    let stop = CancellationToken::new();
    let mut works = Box::pin(sidetrack_controller::run(client, settings, hearing, health, stop.clone()));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        () = &mut works => return Ok(()),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    works.await;
    info!("stopped; routes and forks stay as they are");
    Ok(())
}
