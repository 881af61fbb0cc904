//! Routes from a cluster: what its API server says of Sandboxes, Services, endpoints and pods, and what that means.
//!
//! - `watch` is one watch: a list, and what changes from then on, for ever.
//! - `watches` are all that are at work: which objects count depends on what the Sandboxes say.
//! - `Follower` keeps the stores, and gives out what they mean. It alone changes them.

mod hearing;
mod watch;
mod watches;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use sidetrack_acknowledge::{InForce, Report};
use sidetrack_resolve::{Change, Resolved, State, Stores, Update, cut_off, resolve};
use sidetrack_splice::table::RouteTable;
use tokio::{
    sync::{mpsc, watch as channel},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{watch::Told, watches::Watches};
use super::{Meant, Routes};
use crate::readiness::Readiness;

pub use self::hearing::Hearing;

/// How long it is waited for more changes, so that those of one moment are resolved once.
const QUIET: Duration = Duration::from_millis(5);
/// Changes that wait to be taken note of; beyond, watches wait.
const WAITING: usize = 1024;
/// Where nothing is due, it is looked this often whether the API server has been heard.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is to be known beside how the API server is reached.
#[derive(Clone)]
pub struct Cluster {
    /// The connection.
    pub client: kube::Client,
    /// Not heard for longer, forks are not steered to any more.
    pub max_stale: Duration,
    /// The routes that an earlier agent has left.
    pub pinned: RouteTable,
    /// Who waits for the first lists.
    pub readiness: Readiness,
    /// Where it is noted how the API server is heard.
    pub hearing: Arc<Hearing>,
}

pub(super) fn start(cluster: Cluster, stop: CancellationToken) -> Routes {
    let (sender, meant) = channel::channel(None);
    let task = tokio::spawn(async move {
        let (told, hear) = mpsc::channel(WAITING);
        let watches = Watches::new(cluster.client, cluster.max_stale, told, cluster.readiness);
        let follower = Follower {
            stores: Stores::default(),
            watches,
            pinned: Some(cluster.pinned.clone()),
            resolved: Meant { table: cluster.pinned, ..Meant::default() },
            next: None,
            synced: false,
            cut_off: false,
            max_stale: cluster.max_stale,
            hearing: cluster.hearing,
            sender,
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.run(hear) => {}
        }
    });
    Routes { meant, first_error: None, task }
}

/// Keeps the stores and gives out what they mean.
struct Follower {
    stores: Stores,
    watches: Watches,
    /// What an earlier agent has left, until all Sandboxes are known.
    pinned: Option<RouteTable>,
    /// What is meant to be in force, were the API server heard.
    resolved: Meant,
    /// When that changes if nothing but time does.
    next: Option<Timestamp>,
    /// Whether all watches have been answered once.
    synced: bool,
    cut_off: bool,
    max_stale: Duration,
    hearing: Arc<Hearing>,
    sender: channel::Sender<Option<Arc<Meant>>>,
}

impl Follower {
    async fn run(mut self, mut hear: mpsc::Receiver<Told>) {
        self.watches.keep(&self.stores.wanted(Timestamp::now()));
        loop {
            let changed = tokio::select! {
                told = hear.recv() => match told {
                    Some(told) => self.hear(told, &mut hear).await,
                    None => return,
                },
                () = sleep_until(self.wake()) => self.next.is_some_and(|next| next <= Timestamp::now()),
            };
            let now = Timestamp::now();
            if changed {
                self.stores.forget(now);
            }
            self.watches.keep(&self.stores.wanted(now));
            let anew = changed && (self.synced || self.watches.synced());
            if anew {
                let resolved = resolve(&self.stores, now);
                self.next = resolved.next;
                self.resolved = Meant { report: report(&resolved), table: resolved.table };
                if !self.synced {
                    let table = &self.resolved.table;
                    let (services, routes) = (table.services().len(), table.routes());
                    info!(services, routes, "the cluster is known");
                }
                self.synced = true;
            }
            if self.look() || anew {
                self.publish();
            }
        }
    }

    /// When there is something to look at though nothing is heard.
    fn wake(&self) -> Instant {
        let next = self.next.map(|next| next.duration_since(Timestamp::now()));
        let next = next.map(|next| Duration::try_from(next).unwrap_or(Duration::ZERO) + Duration::from_millis(1));
        Instant::now() + next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
    }

    /// Takes note of what is told, and of what follows at once; whether any of it is a change.
    async fn hear(&mut self, first: Told, hear: &mut mpsc::Receiver<Told>) -> bool {
        let end = Instant::now() + QUIET;
        let mut next = Some(first);
        let mut changed = false;
        while let Some(told) = next {
            if let Some(change) = self.watches.hear(told) {
                changed = true;
                self.apply(change);
            }
            next = tokio::time::timeout_at(end, hear.recv()).await.ok().flatten();
        }
        changed
    }

    fn apply(&mut self, change: Change) {
        let now = Timestamp::now();
        let all_sandboxes = matches!(change, Change::Sandboxes(Update::List(_)));
        self.stores.apply(change, now);
        if all_sandboxes && let Some(pinned) = self.pinned.take() {
            self.stores.adopt(&pinned, now);
        }
    }

    /// Looks whether the API server has been heard; whether that has changed.
    fn look(&mut self) -> bool {
        let (watch, silent) = self.watches.most_silent();
        let cut = silent > self.max_stale;
        let changed = cut != self.cut_off;
        self.cut_off = cut;
        self.hearing.note(self.synced, silent, cut);
        if changed && cut {
            let silent_seconds = silent.as_secs();
            warn!(
                silent_seconds,
                watch, "the cluster's API has not been heard for longer than maxStale: requests for forks are refused"
            );
        } else if changed {
            info!("the cluster's API is heard again: requests for forks are steered");
        }
        changed
    }

    /// Gives out what is to be in force. Before the cluster is known that is what is pinned.
    fn publish(&self) {
        let meant = if self.cut_off {
            let reason = format!("the cluster's API has not been heard for {:?}", self.max_stale);
            // Nothing that a Sandbox says is in force then.
            Meant { table: cut_off(&self.resolved.table, &reason), ..Meant::default() }
        } else {
            self.resolved.clone()
        };
        self.sender.send_if_modified(|current| {
            let differs = current.as_deref() != Some(&meant);
            if differs {
                *current = Some(Arc::new(meant));
            }
            differs
        });
    }
}

/// Of each Sandbox that lives or has gone lately, what its routes are.
fn report(resolved: &Resolved) -> Report {
    let said = resolved.sandboxes.values().filter(|fate| fate.state != State::Forgotten);
    said.map(|fate| (fate.uid.clone(), InForce { generation: fate.generation, hash: fate.hash })).collect()
}
