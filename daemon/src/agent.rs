//! The agent: keeps the kernel's tables in step with the routes, attaches to pods as they appear, and answers the holds
//! of the kernel programs.
//!
//! - `routing` brings a table of routes into the maps.
//! - `attached` keeps the pods: their sockets, their ports, who has which address.
//! - `holds` answers held heads; `legs` makes a leg for one.
//! - `drain` leads the records of another ABI to their end.
//! - `inherit` takes over what another ABI's dead agent has left behind.
//! - `unfinished` ends what an agent before this one had dialled and not stored; `tracked` lets the pods' own connection tracking forget legs.
//! - `leaving` ends exchanges with endpoints that have left their routes; `client` aborts a client's end.
//! - `older` makes the records of connections that stood before.
//! - `room` bounds what is held of all connections together.
//! - `untaken` names why a leg that was made is not used, `lack` what a held head waits for.
//! - `seldom` keeps a warning from coming with each request.
//! - `ended` has the rules by which legs and connections are over; `sweep` resets and forgets what they name.

mod attached;
mod client;
mod drain;
pub mod ended;
mod holds;
mod inherit;
mod lack;
mod leaving;
mod legs;
pub mod older;
mod room;
mod routing;
mod seldom;
mod sweep;
mod tracked;
mod unfinished;
pub mod untaken;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use aya::maps::{MapData, RingBuf};
use sidetrack_acknowledge::Report;
use sidetrack_splice::{
    abi::{ABI, control::Control, event::Event},
    table::{Programmed, Targets},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use zerocopy::FromBytes;

use self::{attached::Attached, holds::Holds, tracked::Tracked};
use crate::{
    access::Access,
    admin::{self, Admin, OfAgent},
    bpf::{self, load::Maps},
    config::{Config, HEARTBEAT_EVERY},
    pods::{self, PodEvent},
    preflight,
    readiness::Readiness,
    reports::Reporter,
    routes::{
        Meant, RouteSource,
        cluster::{Cluster, Hearing},
    },
    state,
    wire::Wire,
};

/// How often ended connections and idle legs are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often an agent looks whether a successor with another ABI is at work.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long what is under way in threads of its own (reading the route file, closing sockets) may take at the end.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// How long events wait for the pods that were there at the start.
const LISTING: Duration = Duration::from_secs(2);

/// Where an agent's routes come from.
#[derive(Clone, Debug)]
pub enum RoutesFrom {
    /// A file.
    File(PathBuf),
    /// A cluster's API server.
    Cluster {
        /// How it is reached.
        access: Access,
        /// Whom it is told what is in force; without it, nobody.
        controller: Option<Controller>,
    },
}

/// The controller, and who the agent is there.
#[derive(Clone, Debug)]
pub struct Controller {
    /// Namespace of its Lease.
    pub namespace: String,
    /// File with the agent's token.
    pub token: PathBuf,
}

/// What the agent is not ready without: the pods that are there at the start, and the routes.
const PODS: &str = "pods of this node";
const ROUTES: &str = "routes in the kernel";

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the routes come from.
    pub routes: RoutesFrom,
    /// Where health and metrics are served.
    pub listen: Option<SocketAddr>,
    /// Directories of named network namespaces.
    pub netns_dirs: Vec<PathBuf>,
    /// Where programs, links and maps are pinned.
    pub pin_dir: PathBuf,
    /// Settings.
    pub config: Config,
}

/// What all parts of the agent share.
struct Shared {
    /// When it began, in nanoseconds: what was dialled before that an agent before it has dialled.
    began: u64,
    pin_dir: PathBuf,
    maps: Maps,
    config: Config,
    attached: Attached,
    /// Another ABI's programs take new connections on until this version's own are attached everywhere.
    taking_over: AtomicBool,
    /// Legs that have ended, and may be known yet where they began.
    tracked: Tracked,
    /// A table of routes is in force: [`Self::targets`] are known.
    routed: AtomicBool,
    targets: RwLock<Targets>,
}

impl Shared {
    /// Whether an agent with another ABI has taken new connections over.
    fn superseded(&self) -> bool {
        if self.taking_over.load(Ordering::Relaxed) {
            return false;
        }
        let map = self.maps.control.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&0, 0).is_ok_and(|control| control.0.draining != 0)
    }

    fn targets(&self) -> std::sync::RwLockReadGuard<'_, Targets> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until SIGTERM or SIGINT; the data path goes on without it.
pub fn run(options: Options) -> anyhow::Result<()> {
    preflight::check(&options.pin_dir)?;
    let dir = state::pins::directory(&options.pin_dir, ABI);
    let _lock = bpf::Lock::wait(&dir, || {
        warn!(pin_dir = %options.pin_dir.display(), "another agent works with this pin directory: waiting until it ends");
    })
    .with_context(|| format!("cannot lock {}", dir.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(work(options));
    // Dropping the runtime would wait for whatever still reads: the route file may lie on a file system that hangs.
    runtime.shutdown_timeout(SHUTDOWN);
    done
}

async fn work(options: Options) -> anyhow::Result<()> {
    let kernel = bpf::load(&options.pin_dir, &options.config)?;
    // For kernels without tcx, and for tests of that path on kernels with it.
    let clsact_only = std::env::var_os("SIDETRACK_CLSACT").is_some();
    let (attacher, maps, events, adopted) = kernel.into_parts(clsact_only);
    info!(abi = ABI, adopted, pin_dir = %options.pin_dir.display(), "kernel programs loaded");
    maps.config
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .set(0, Wire(options.config.carriers), 0)
        .context("cannot write map config")?;
    let (before, taking_over) = {
        let _lock = drain::handover(&options.pin_dir);
        let before = bpf::other::others(&options.pin_dir);
        // One that has begun since it was looked says so when this one has said it.
        let taking_over = !before.is_empty() && drain::takes_new(&bpf::other::controls(&options.pin_dir));
        beat(&maps, Some(u32::from(taking_over)))?;
        (before, taking_over)
    };

    let stop = CancellationToken::new();
    let readiness = Readiness::new(&[PODS, ROUTES]);
    let hearing = Arc::new(Hearing::default());
    if let Some(address) = options.listen {
        let of_cluster = matches!(options.routes, RoutesFrom::Cluster { .. }).then(|| Arc::clone(&hearing));
        let agent = OfAgent { readiness: readiness.clone(), pin_dir: options.pin_dir.clone(), hearing: of_cluster };
        admin::start(address, Admin::Agent(agent)).with_context(|| format!("cannot listen on {address} (--listen)"))?;
    }
    routing::clear_filter(&maps).context("cannot clear map filter")?;
    let mut programmed = routing::adopt(&maps);
    let in_force = watch::Sender::new(Report::new());
    let mut reporter = None;
    let source = match &options.routes {
        RoutesFrom::File(path) => RouteSource::File(path.clone()),
        RoutesFrom::Cluster { access, controller } => {
            let client = access.client().await.context("routes come from a file (--routes) or a cluster")?;
            reporter = controller.clone().map(|Controller { namespace, token }| Reporter {
                client: client.clone(),
                namespace,
                token,
                report: in_force.subscribe(),
            });
            RouteSource::Cluster(Cluster {
                client,
                max_stale: options.config.max_stale,
                pinned: programmed.table(),
                readiness: readiness.clone(),
                hearing,
            })
        }
    };
    let mut routes = source.start(stop.clone())?;
    if let Some(error) = &routes.first_error {
        error!("{error}");
        warn!("working with the routes that are pinned until the file is valid");
    }
    let targets = RwLock::new(programmed.targets());
    let shared = Arc::new(Shared {
        began: state::now(),
        pin_dir: options.pin_dir.clone(),
        maps,
        config: options.config,
        attached: Attached::new(attacher),
        taking_over: AtomicBool::new(taking_over),
        tracked: Tracked::default(),
        routed: AtomicBool::new(false),
        targets,
    });
    let first = routes.meant.borrow_and_update().clone();
    if let Some(meant) = first {
        routing::program(&shared, &mut programmed, &meant.table)?;
        readiness.done(ROUTES);
    }
    // What an agent before this one promised is void; the clients' retransmissions ask again.
    for (conn, _) in shared.maps.dials.entries() {
        shared.maps.dials.remove(&conn)?;
    }

    let holds = Holds::new(Arc::clone(&shared));
    let watched = pods::watch(options.netns_dirs.clone())?;
    let (listed, all_listed) = oneshot::channel();
    let follower = tokio::spawn(follow(watched, Arc::clone(&shared), listed));
    let listing = readiness.clone();
    let reader = tokio::spawn(async move {
        // What was held while no agent ran waits in the ring buffer: its pods must be known first.
        _ = tokio::time::timeout(LISTING, all_listed).await;
        listing.done(PODS);
        read(events, holds).await;
    });
    let sweeper = tokio::spawn(sweep::run(Arc::clone(&shared), SWEEP_EVERY));
    let heart = tokio::spawn(live(Arc::clone(&shared)));
    let drainer = tokio::spawn(drain::run(Arc::clone(&shared), before, options.netns_dirs.clone()));

    let teller = tokio::spawn(async move {
        if let Some(reporter) = reporter {
            reporter.run().await;
        }
    });

    let done = supervise(&shared, &mut routes.meant, &mut programmed, &readiness, &in_force).await;
    stop.cancel();
    for task in [reader, follower, sweeper, heart, drainer, teller] {
        task.abort();
    }
    info!("stopped; what is attached goes on");
    done
}

/// Route changes, signals.
async fn supervise(
    shared: &Arc<Shared>,
    meant: &mut watch::Receiver<Option<Arc<Meant>>>,
    programmed: &mut Programmed,
    readiness: &Readiness,
    in_force: &watch::Sender<Report>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let control = state::pins::directory(&shared.pin_dir, ABI).join("control");
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut superseded, mut told) = (false, false);
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                // A successor with another ABI serves what is new; what is old has nobody else.
                if !shared.superseded() || told {
                    return Ok(());
                }
                told = true;
                info!("going on until the connections that are open have ended: a second SIGTERM ends this agent at once");
            }
            _ = interrupt.recv() => return Ok(()),
            _ = look.tick() => {
                if !superseded && shared.superseded() {
                    superseded = true;
                    warn!("an agent with another ABI is at work: no new connection is taken on here");
                }
                if superseded && !control.exists() {
                    info!("the successor has removed the records of this ABI");
                    return Ok(());
                }
                superseded = shared.superseded();
            }
            changed = meant.changed() => {
                changed.context("the route source has ended")?;
                let Some(meant) = meant.borrow_and_update().clone() else { continue };
                match routing::program(shared, programmed, &meant.table) {
                    Ok(()) => {
                        readiness.done(ROUTES);
                        in_force.send_replace(meant.report.clone());
                    }
                    Err(error) => {
                        error!("the new routes are not all in force: {error:#}");
                        in_force.send_replace(Report::new());
                    }
                }
            }
        }
    }
}

/// Says again and again that an agent is alive: a task of its own, because programming a large table takes longer than a beat.
async fn live(shared: Arc<Shared>) {
    let mut heart = tokio::time::interval(HEARTBEAT_EVERY);
    heart.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        heart.tick().await;
        if let Err(error) = beat(&shared.maps, None) {
            error!("{error:#}: requests that need an agent will be refused");
        }
    }
}

/// Says that an agent is alive. What a successor has said of `draining` stays, unless another word is given.
fn beat(maps: &Maps, draining: Option<u32>) -> anyhow::Result<()> {
    let mut map = maps.control.lock().unwrap_or_else(PoisonError::into_inner);
    let draining = draining.unwrap_or_else(|| map.get(&0, 0).map_or(0, |control| control.0.draining));
    let control =
        Control { abi: ABI, draining, heartbeat: state::now(), pid: std::process::id(), ..Control::default() };
    map.set(0, Wire(control), 0).context("cannot write map control")
}

/// Reads the ring buffer.
async fn read(events: RingBuf<MapData>, holds: Holds) {
    // SAFETY: the ring buffer owns its descriptor for as long as the AsyncFd lives.
    let mut events = match unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) } {
        Ok(events) => events,
        Err(error) => return error!("the ring buffer cannot be polled: {error}; held requests are not served"),
    };
    loop {
        // What a predecessor left unread raises no event: read first, then wait.
        while let Some(item) = events.get_mut().next() {
            if let Ok((event, frame)) = Event::read_from_prefix(&item) {
                let len = (event.frame_len as usize).min(frame.len());
                holds.handle(&event, &frame[..len]);
            } else {
                error!(
                    bytes = item.len(),
                    "an event is shorter than its header: sidetrack and its kernel programs differ"
                );
            }
        }
        match events.readable_mut().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => return error!("the ring buffer cannot be polled: {error}; held requests are not served"),
        }
        // A record may have come between the last read and the clearing.
    }
}

/// Follows the pods of this node.
async fn follow(mut events: mpsc::Receiver<PodEvent>, shared: Arc<Shared>, listed: oneshot::Sender<()>) {
    let mut listed = Some(listed);
    while let Some(event) = events.recv().await {
        debug!(?event, "pod");
        let all = matches!(event, PodEvent::Listed);
        shared.attached.apply(&shared, event).await;
        if let Some(listed) = listed.take_if(|_| all) {
            _ = listed.send(());
        }
    }
    error!("namespaces are no longer followed: new pods are not attached; restart the agent");
}
