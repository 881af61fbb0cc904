//! `sidetrack controller`: connects to the cluster, serves health and metrics, and works until it is told to stop.

use std::net::SocketAddr;

use anyhow::Context as _;
use sidetrack_controller::{Health, Settings, UNROUTE};
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
    let Options { namespace, identity, .. } = options;
    info!(version = env!("CARGO_PKG_VERSION"), namespace, identity, "controller");
    let settings = Settings { namespace, identity, unroute: UNROUTE };
    let stop = CancellationToken::new();
    let mut works = Box::pin(sidetrack_controller::run(client, settings, health, stop.clone()));
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
