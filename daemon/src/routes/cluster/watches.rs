//! The watches that are at work: which objects count depends on what the Sandboxes say.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject},
};
use sidetrack_objects::Sandbox;
use sidetrack_resolve::{Change, Selection, Update, Wanted, read};
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};
use tracing::debug;

use super::watch::{Teller, Told, Watch};
use crate::readiness::Readiness;

/// The longest that a watch goes on before it is begun again; servers end them after some minutes, too.
const RENEW_MAX: Duration = Duration::from_secs(290);

/// What a watch is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Sandboxes,
    Services,
    Slices(String),
    Pods(Selection),
}

impl Of {
    fn words(&self) -> String {
        match self {
            Self::Sandboxes => "sandboxes".into(),
            Self::Services => "services".into(),
            Self::Slices(namespace) => format!("endpoints of namespace {namespace}"),
            Self::Pods(Selection::Labelled) => "pods of forks".into(),
            Self::Pods(Selection::Selected { namespace, selector }) => {
                format!("pods {selector} of namespace {namespace}")
            }
        }
    }
}

/// A watch at work; it ends when this is dropped.
struct Running {
    number: u64,
    /// Of slices: the Services that were asked after.
    asked: BTreeSet<String>,
    synced: bool,
    heard: Instant,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All of them.
pub(super) struct Watches {
    client: Client,
    renew: Duration,
    tell: mpsc::Sender<Told>,
    readiness: Readiness,
    /// One for each, or two while a later one that asks after others has not been answered yet.
    running: BTreeMap<Of, Vec<Running>>,
    last: u64,
}

impl Watches {
    pub(super) fn new(client: Client, max_stale: Duration, tell: mpsc::Sender<Told>, readiness: Readiness) -> Self {
        // Each is heard at least twice before it counts as silent.
        let renew = (max_stale / 3).clamp(Duration::from_secs(1), RENEW_MAX);
        Self { client, renew, tell, readiness, running: BTreeMap::new(), last: 0 }
    }

    /// Starts what is wanted and does not run, ends what runs and is not.
    pub(super) fn keep(&mut self, wanted: &Wanted) {
        let mut all: BTreeMap<Of, BTreeSet<String>> = BTreeMap::new();
        all.insert(Of::Sandboxes, BTreeSet::new());
        all.insert(Of::Services, BTreeSet::new());
        all.extend(wanted.slices.iter().map(|(namespace, names)| (Of::Slices(namespace.clone()), names.clone())));
        all.extend(wanted.pods.iter().map(|selection| (Of::Pods(selection.clone()), BTreeSet::new())));
        let readiness = &self.readiness;
        self.running.retain(|of, _| {
            let keep = all.contains_key(of);
            if !keep {
                readiness.done(&of.words());
            }
            keep
        });
        for (of, asked) in all {
            match self.running.get(&of).and_then(|running| running.last()) {
                Some(last) if !last.synced || last.asked == asked => {}
                _ => self.start(&of, asked),
            }
        }
    }

    fn start(&mut self, of: &Of, asked: BTreeSet<String>) {
        self.last += 1;
        let number = self.last;
        debug!(number, ?asked, "watching {}", of.words());
        let task = self.spawn(of, &asked, number);
        let running = self.running.entry(of.clone()).or_default();
        if running.is_empty() {
            self.readiness.waits_for(of.words());
        }
        running.push(Running { number, asked, synced: false, heard: Instant::now(), task });
    }

    fn spawn(&self, of: &Of, asked: &BTreeSet<String>, number: u64) -> AbortHandle {
        let client = self.client.clone();
        let (tell, what, renew) = (self.tell.clone(), of.words(), self.renew);
        match of {
            Of::Sandboxes => {
                let api = Api::<DynamicObject>::all_with(client, &ApiResource::erase::<Sandbox>(&()));
                let watch = Watch { api, what, labels: None, foreign_labels: false, renew };
                // One by one: what one of them says in words of another version takes no other along.
                let make = |object: &DynamicObject| -> serde_json::Result<_> {
                    let sandbox: Sandbox = serde_json::from_value(serde_json::to_value(object)?)?;
                    Ok(Some(read::sandbox(&sandbox)))
                };
                tokio::spawn(watch.follow(make, Teller { tell, watch: number, change: Change::Sandboxes }))
                    .abort_handle()
            }
            Of::Services => {
                let watch =
                    Watch { api: Api::<Service>::all(client), what, labels: None, foreign_labels: false, renew };
                tokio::spawn(
                    watch.follow(known(read::service), Teller { tell, watch: number, change: Change::Services }),
                )
                .abort_handle()
            }
            Of::Slices(namespace) => {
                let names: Vec<_> = asked.iter().map(String::as_str).collect();
                let labels = Some(format!("{} in ({})", read::SERVICE_LABEL, names.join(",")));
                let api = Api::<EndpointSlice>::namespaced(client, namespace);
                let watch = Watch { api, what, labels, foreign_labels: false, renew };
                let make = |slice: &EndpointSlice| Ok::<_, Infallible>(read::endpoint_slice(slice));
                let (namespace, asked) = (namespace.clone(), asked.clone());
                let change =
                    move |update| Change::Slices { namespace: namespace.clone(), asked: asked.clone(), update };
                tokio::spawn(watch.follow(make, Teller { tell, watch: number, change })).abort_handle()
            }
            Of::Pods(selection) => {
                let (api, labels) = match selection {
                    Selection::Labelled => (Api::<Pod>::all(client), read::SANDBOX_LABEL.to_owned()),
                    Selection::Selected { namespace, selector } => {
                        (Api::namespaced(client, namespace), selector.clone())
                    }
                };
                let foreign_labels = *selection != Selection::Labelled;
                let watch = Watch { api, what, labels: Some(labels), foreign_labels, renew };
                let selection = selection.clone();
                let change = move |update| Change::Pods(selection.clone(), update);
                tokio::spawn(watch.follow(known(read::pod), Teller { tell, watch: number, change })).abort_handle()
            }
        }
    }

    /// The change that was told, unless the watch that tells it has a successor.
    pub(super) fn hear(&mut self, told: Told) -> Option<Change> {
        let found = self.running.iter_mut().find_map(|(of, running)| {
            let at = running.iter().position(|running| running.number == told.watch)?;
            Some((of, running, at))
        });
        let (of, running, at) = found?;
        running[at].heard = Instant::now();
        let list = match &told.change {
            Some(Change::Sandboxes(update)) => matches!(update, Update::List(_)),
            Some(Change::Services(update)) => matches!(update, Update::List(_)),
            Some(Change::Slices { update, .. }) => matches!(update, Update::List(_)),
            Some(Change::Pods(_, update)) => matches!(update, Update::List(_)),
            None => false,
        };
        if list {
            running[at].synced = true;
            self.readiness.done(&of.words());
            // What its predecessor knew is out of date from here on.
            running.drain(..at);
        }
        told.change
    }

    /// Whether all have been answered.
    pub(super) fn synced(&self) -> bool {
        self.running.values().all(|running| running.iter().any(|running| running.synced))
    }

    /// The watch that was not heard for longest, and for how long.
    pub(super) fn most_silent(&self) -> (String, Duration) {
        let heard = |running: &[Running]| running.iter().map(|running| running.heard).max();
        let all = self.running.iter().filter_map(|(of, running)| Some((of, heard(running)?)));
        let most = all.min_by_key(|(_, heard)| *heard);
        most.map_or_else(Default::default, |(of, heard)| (of.words(), heard.elapsed()))
    }
}

/// A record that every object has.
fn known<K: Resource, T>(make: fn(&K) -> T) -> impl Fn(&K) -> Result<Option<T>, Infallible> {
    move |object| Ok(Some(make(object)))
}
