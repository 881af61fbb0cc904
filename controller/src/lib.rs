//! Sidetrack's controller: makes the forks that Sandboxes ask for, says what became of them, and removes them again.
//!
//! It is not in the way of any route: agents see the objects themselves, and with no controller at work routes follow
//! endpoints all the same.
//!
//! - [`fork`]: what a fork is made of. Pure.
//! - [`status`]: what is said of a Sandbox. Pure; so is [`life`], how long it lives.
//! - `spaces` keeps what is known of namespaces, `world` what it means together.
//! - `reconcile` is one pass over a Sandbox.
//! - [`reports`]: what the agents say is in force; `routed` says it of each Sandbox.
//! - `lease`: of several controllers one works.

#![forbid(unsafe_code)]

pub mod fork;
mod health;
mod lease;
pub mod life;
pub mod names;
mod reconcile;
pub mod reports;
mod routed;
mod spaces;
pub mod status;
mod work;
mod world;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use kube::Client;
use sidetrack_acknowledge::meeting::{ANNOTATION_ADDRESS, ANNOTATION_CERTIFICATE};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::lease::Lease;
use self::reports::{Agents, Reports};
pub use self::{
    health::{Counts, Health},
    lease::NAME as LEASE,
    reports::Listener,
};

/// How long agents have to take the routes of a Sandbox out, from its end on, before its pods go: they see the end when the
/// controller does, and resolve what they hear in some milliseconds.
pub const UNROUTE: Duration = Duration::from_secs(2);
/// How long passes that are under way may take at the end.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// What a controller is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace that it runs in: of its Lease, and one in which nothing is forked.
    pub namespace: String,
    /// Its name among several: a pod's.
    pub identity: String,
    /// How long agents have to take routes out before pods go.
    pub unroute: Duration,
    /// The ServiceAccount of the agents, in the same namespace.
    pub agents: String,
}

/// Where agents are heard.
pub struct Hearing {
    /// Whoever listens.
    pub listener: Listener,
    /// The address by which agents reach it.
    pub address: SocketAddr,
}

/// Whether nothing is forked in a namespace, whatever the controller's rights are: the cluster's own, and the controller's.
#[must_use]
pub fn excluded(namespace: &str, own: &str) -> bool {
    namespace.starts_with("kube-") || namespace == own
}

/// Works whenever it leads, until it is told to stop. Without `hearing`, nothing is said of what is in force.
pub async fn run(
    client: Client,
    settings: Settings,
    hearing: Option<Hearing>,
    health: Health,
    stop: CancellationToken,
) {
    let said = hearing.as_ref().map(|Hearing { listener, address }| {
        BTreeMap::from([
            (ANNOTATION_ADDRESS.to_owned(), address.to_string()),
            (ANNOTATION_CERTIFICATE.to_owned(), listener.certificate().to_owned()),
        ])
    });
    let mut lease =
        Lease::new(client.clone(), &settings.namespace, settings.identity.clone(), said.unwrap_or_default());
    let user = format!("system:serviceaccount:{}:{}", settings.namespace, settings.agents);
    let agents = Agents { client: client.clone(), user };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = lease.acquire(|| health.done(health::LEASE)) => {}
        }
        health.lead(true);
        let end = stop.child_token();
        let reports = hearing.is_some().then(|| Arc::new(Reports::default()));
        let mut work =
            Box::pin(work::work(client.clone(), settings.clone(), reports.clone(), health.clone(), end.clone()));
        let hears = async {
            match (&hearing, reports) {
                (Some(hearing), Some(reports)) => hearing.listener.serve(agents.clone(), reports).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut work => {}
            () = hears => {}
            // Whoever has the Lease works: nothing is ended in peace here.
            () = lease.keep() => {}
            () = stop.cancelled() => {
                // Others have nothing to wait for once this one has ended what it has begun.
                if tokio::time::timeout(SHUTDOWN, &mut work).await.is_err() {
                    info!("passes under way were given up");
                }
            }
        }
        drop(work);
        end.cancel();
        health.lead(false);
        if stop.is_cancelled() {
            lease.release().await;
            return;
        }
    }
}
