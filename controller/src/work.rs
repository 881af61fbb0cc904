//! The controller at work: watches, passes, and what keeps them together.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        Config, WatchStreamExt as _, applier,
        controller::{self, ReconcileRequest, trigger_self},
        events::{Recorder, Reporter},
        reflector::{self, ObjectRef, Store},
        watcher::{self, watcher},
    },
};
use sidetrack_objects::SidetrackConfig;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, warn};

use crate::{
    Settings, excluded,
    health::{self, Health},
    names::MANAGER,
    reconcile::{Context, Memory, again, reconcile},
    reports::Reports,
    routed::Routed,
    spaces::{Spaces, Touched},
    world::{Held, Watcher, World},
};

/// Passes at once, each over another Sandbox.
const PASSES: u16 = 8;
/// How long it is waited for the cluster's settings.
const SETTINGS: Duration = Duration::from_secs(5);

/// Works until it is told to stop; then what is under way is ended.
pub(crate) async fn work(
    client: Client,
    settings: Settings,
    reports: Option<Arc<Reports>>,
    health: Health,
    stop: CancellationToken,
) {
    health.waits(health::SANDBOXES);
    let (tell, hear) = mpsc::unbounded_channel();
    let (again_sender, again_receiver) = mpsc::unbounded_channel();
    let (sandboxes, writer) = reflector::store::<Held>();
    let memory = Arc::new(Mutex::new(BTreeMap::<String, Memory>::new()));
    let (told, remembered) = (tell.clone(), Arc::clone(&memory));
    let of_sandboxes = watcher(Api::<Held>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .inspect(move |event| {
            if let Ok(watcher::Event::Delete(held)) = event {
                let mut memory = remembered.lock().unwrap_or_else(PoisonError::into_inner);
                memory.remove(&held.uid().unwrap_or_default());
            }
            let namespace = match event {
                Ok(watcher::Event::Apply(held) | watcher::Event::Delete(held)) => held.namespace(),
                Ok(watcher::Event::InitDone) => None,
                _ => return,
            };
            // Nobody hears it where the controller ends.
            drop(told.send((namespace.unwrap_or_default(), Touched::Routes)));
        })
        .applied_objects();
    let (configs, _following) = follow_configs(client.clone(), sandboxes.clone(), again_sender.clone());
    let spaces = Arc::new(Spaces::new(client.clone(), tell));
    let world = Arc::new(World::default());
    let watching = Watcher {
        sandboxes: sandboxes.clone(),
        spaces: Arc::clone(&spaces),
        world: Arc::clone(&world),
        health: health.clone(),
        excluded,
        own: settings.namespace.clone(),
        again: again_sender,
    };
    let routed = reports.map(|reports| {
        let routed = Routed::new(client.clone(), sandboxes.clone(), Arc::clone(&world), reports);
        AbortOnDropHandle::new(tokio::spawn(routed.run()))
    });
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(settings.identity.clone()) };
    let settings_store = configs.clone();
    let context = Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        settings,
        health: health.clone(),
        spaces,
        world,
        configs,
        memory,
    };
    let asked = received(again_receiver).map(|name| Ok(ReconcileRequest::from(name)));
    let queue = stream::select(trigger_self(of_sandboxes, ()), asked).take_until(stop.cancelled_owned());
    let pass = |held, context| Box::pin(reconcile(held, context));
    let config = Config::default().concurrency(PASSES);
    let failed = |held: Arc<Held>, error: &_, context: Arc<Context>| again(&held, error, &context);
    let passes = applier(pass, failed, Arc::new(context), sandboxes.clone(), queue, config).for_each(async |done| {
        match done {
            Err(controller::Error::QueueError(error)) => {
                warn!("Sandboxes cannot be watched, it is tried again: {error}");
            }
            // The pass has said so.
            Err(error) => debug!("{error}"),
            Ok(_) => {}
        }
    });
    let settings_known = async move { settings_store.wait_until_ready().await };
    let known = async {
        // It is dropped with the passes.
        if sandboxes.wait_until_ready().await.is_ok() {
            health.done(health::SANDBOXES);
        }
        watching.run(hear).await;
    };
    // Without the right to see the settings, the defaults hold.
    _ = timeout(SETTINGS, settings_known).await;
    tokio::select! {
        () = passes => {}
        () = known => {}
    }
    drop(routed);
    health.done(health::SANDBOXES);
}

/// The cluster's settings, for as long as the handle is kept. Where they change, every Sandbox is looked at.
fn follow_configs(
    client: Client,
    sandboxes: Store<Held>,
    again: mpsc::UnboundedSender<ObjectRef<Held>>,
) -> (Store<SidetrackConfig>, AbortOnDropHandle<()>) {
    let (configs, writer) = reflector::store::<SidetrackConfig>();
    let follow = watcher(Api::all(client), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .for_each(move |object| {
            let all = if object.is_ok() { sandboxes.state() } else { Vec::new() };
            for held in all {
                // Nobody hears it where the controller ends.
                drop(again.send(ObjectRef::from_obj(&*held)));
            }
            ready(())
        });
    (configs, AbortOnDropHandle::new(tokio::spawn(follow)))
}

fn received<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|it| (it, receiver)))
}
