//! What the objects of all namespaces mean together: the code that the agents evaluate, on the same objects. And who has to
//! look again when one of them changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::{
    Resource as _, ResourceExt as _,
    core::{DeserializeGuard, Selector, SelectorExt as _},
    runtime::reflector::{ObjectRef, Store},
};
use sidetrack_objects::{
    Sandbox,
    sandbox::{Operator, PodSelector},
};
use sidetrack_resolve::{Change, Fate, Name, Resolved, Selection, Stores, Update, read, resolve};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    health::Health,
    spaces::{Space, Spaces, Touched},
};

/// A Sandbox, or what is wrong with one that was written in words of another version.
pub(crate) type Held = DeserializeGuard<Sandbox>;

/// How long it is waited for more changes, so that those of one moment are resolved once.
const QUIET: Duration = Duration::from_millis(20);
/// Where nothing is due.
const LONG: Duration = Duration::from_hours(1);

/// What all objects mean at some time.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// What becomes of each Sandbox.
    pub(crate) resolved: Resolved,
    /// Of each Sandbox those of other namespaces that share a key with it.
    pub(crate) groups: BTreeMap<Name, Vec<String>>,
    /// Namespaces of which everything was known.
    pub(crate) known: BTreeSet<String>,
}

impl View {
    /// What becomes of this Sandbox, and not of another one of its name.
    pub(crate) fn fate(&self, sandbox: &Sandbox) -> Option<&Fate> {
        let fate = self.resolved.sandboxes.get(&read::name(&sandbox.metadata));
        fate.filter(|fate| Some(&fate.uid) == sandbox.metadata.uid.as_ref())
    }
}

/// The latest view.
#[derive(Debug, Default)]
pub(crate) struct World {
    view: RwLock<Arc<View>>,
}

impl World {
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, view: View) -> (Arc<View>, Arc<View>) {
        let new = Arc::new(view);
        let mut stands = self.view.write().unwrap_or_else(PoisonError::into_inner);
        (std::mem::replace(&mut *stands, Arc::clone(&new)), new)
    }
}

/// Keeps the view, and says which Sandboxes have to be looked at again.
pub(crate) struct Watcher {
    pub(crate) sandboxes: Store<Held>,
    pub(crate) spaces: Arc<Spaces>,
    pub(crate) world: Arc<World>,
    pub(crate) health: Health,
    /// Namespaces that are left alone.
    pub(crate) excluded: fn(&str, &str) -> bool,
    /// The controller's own namespace.
    pub(crate) own: String,
    pub(crate) again: mpsc::UnboundedSender<ObjectRef<Held>>,
}

impl Watcher {
    /// Follows what is told, for ever. A pass that is asked for sees a view that has it.
    pub(crate) async fn run(self, mut hear: mpsc::UnboundedReceiver<(String, Touched)>) {
        let mut due = Instant::now();
        let mut waiting = BTreeSet::new();
        loop {
            tokio::select! {
                told = hear.recv() => {
                    let Some(told) = told else { return };
                    waiting.insert(told);
                    due = due.min(Instant::now() + QUIET);
                }
                () = sleep_until(due) => {
                    due = Instant::now() + self.look();
                    self.touched(&std::mem::take(&mut waiting));
                }
            }
        }
    }

    fn all(&self) -> Vec<Sandbox> {
        self.sandboxes.state().iter().filter_map(|held| held.0.clone().ok()).collect()
    }

    fn again(&self, name: &Name) {
        // Nobody hears it where the controller ends.
        drop(self.again.send(ObjectRef::new(&name.name).within(&name.namespace)));
    }

    fn touched(&self, touched: &BTreeSet<(String, Touched)>) {
        for (namespace, touched) in touched {
            if let Touched::Sandbox(name) = touched {
                self.again(&Name::new(namespace, name));
                continue;
            }
            let depends = |sandbox: &Sandbox| {
                let mut forks = sandbox.spec.forks.iter();
                match touched {
                    Touched::All => true,
                    Touched::Pod => forks.any(|fork| fork.pod_selector.is_some()),
                    Touched::Workload(name) => {
                        forks.any(|fork| fork.workload.as_ref().is_some_and(|workload| workload.name == *name))
                    }
                    Touched::Sandbox(_) | Touched::Routes => false,
                }
            };
            let held = self.sandboxes.state_filter(|held| {
                held.namespace().as_deref() == Some(namespace) && held.0.as_ref().is_ok_and(depends)
            });
            for held in held {
                self.again(&read::name(held.meta()));
            }
        }
    }

    /// Resolves what is known; how long until time alone changes something.
    fn look(&self) -> Duration {
        let now = Timestamp::now();
        let sandboxes = self.all();
        self.health.known(sandboxes.len());
        let namespaces = sandboxes.iter().filter_map(kube::ResourceExt::namespace);
        let namespaces = namespaces.filter(|namespace| !(self.excluded)(namespace, &self.own)).collect();
        let spaces = self.spaces.keep(&namespaces);
        let resolved = resolve(&stores(&sandboxes, &spaces, now), now);
        let next = resolved.next;
        let groups = groups(&sandboxes);
        let known = spaces.iter().filter(|(_, space)| space.lack().is_none()).map(|(name, _)| name.clone()).collect();
        let (old, new) = self.world.set(View { resolved, groups, known });
        for (name, fate) in &new.resolved.sandboxes {
            let was_known = old.known.contains(&name.namespace) == new.known.contains(&name.namespace);
            let same = old.resolved.sandboxes.get(name) == Some(fate) && old.groups.get(name) == new.groups.get(name);
            if !same || !was_known {
                self.again(name);
            }
        }
        let left = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        left.map_or(LONG, |left| left + Duration::from_millis(1)).min(LONG)
    }
}

/// What is known, as agents hear it.
fn stores(sandboxes: &[Sandbox], spaces: &BTreeMap<String, Arc<Space>>, now: Timestamp) -> Stores {
    let mut stores = Stores::default();
    let records = sandboxes.iter().map(|sandbox| (read::name(&sandbox.metadata), read::sandbox(sandbox)));
    stores.apply(Change::Sandboxes(Update::List(records.collect())), now);
    let mut services = BTreeMap::new();
    let mut made = BTreeMap::new();
    for space in spaces.values() {
        services.extend(space.services.store.state().iter().map(|it| (read::name(&it.metadata), read::service(it))));
        let labelled = space.pods.store.state_filter(|pod| pod.labels().contains_key(read::SANDBOX_LABEL));
        made.extend(labelled.iter().map(|it| (read::name(&it.metadata), read::pod(it))));
    }
    stores.apply(Change::Services(Update::List(services)), now);
    stores.apply(Change::Pods(Selection::Labelled, Update::List(made)), now);
    for (namespace, asked) in stores.wanted(now).slices {
        let Some(space) = spaces.get(&namespace) else { continue };
        let all = space.slices.store.state();
        let all = all.iter().filter_map(|it| Some((read::name(&it.metadata), read::endpoint_slice(it)?)));
        let update = Update::List(all.filter(|(_, slice)| asked.contains(&slice.service)).collect());
        stores.apply(Change::Slices { namespace, asked, update }, now);
    }
    for sandbox in sandboxes {
        let Some(space) = sandbox.namespace().and_then(|namespace| spaces.get(&namespace)) else { continue };
        for (fork, record) in sandbox.spec.forks.iter().zip(read::sandbox(sandbox).forks) {
            let Some(pods) = &fork.pod_selector else { continue };
            let selector = selector(pods);
            let pods =
                space.pods.store.state_filter(|pod| selector.as_ref().is_some_and(|it| it.matches(pod.labels())));
            let pods = pods.iter().map(|it| (read::name(&it.metadata), read::pod(it))).collect();
            stores.apply(Change::Pods(record.pods, Update::List(pods)), now);
        }
    }
    stores
}

/// A selector of pods; none where nothing can be selected by it.
pub(crate) fn selector(pods: &PodSelector) -> Option<Selector> {
    let expressions = pods.match_expressions.iter().flatten().map(|demand| LabelSelectorRequirement {
        key: demand.key.clone(),
        operator: match demand.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
        }
        .to_owned(),
        values: demand.values.clone(),
    });
    let all = LabelSelector { match_labels: pods.match_labels.clone(), match_expressions: Some(expressions.collect()) };
    Selector::try_from(all).ok()
}

/// Of each Sandbox those of other namespaces that share a key with it.
fn groups(sandboxes: &[Sandbox]) -> BTreeMap<Name, Vec<String>> {
    let keys = |sandbox: &Sandbox| read::sandbox(sandbox).keys;
    let mut holders: BTreeMap<String, Vec<Name>> = BTreeMap::new();
    for sandbox in sandboxes {
        for key in keys(sandbox) {
            holders.entry(key).or_default().push(read::name(&sandbox.metadata));
        }
    }
    let group = |sandbox: &Sandbox| {
        let name = read::name(&sandbox.metadata);
        let others = keys(sandbox).into_iter().flat_map(|key| holders[&key].clone());
        let others: BTreeSet<_> = others.filter(|other| other.namespace != name.namespace).collect();
        (name, others.iter().take(GROUP_MAX).map(ToString::to_string).collect())
    };
    sandboxes.iter().map(group).collect()
}

/// So many of a group are named.
const GROUP_MAX: usize = 64;
