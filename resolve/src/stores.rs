//! What is known of the cluster.

mod record;
mod tombstone;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

pub(crate) use self::record::tombstone_end;
pub use self::{
    record::{EndpointSlice, Fork, Name, Pod, PodState, Sandbox, Selection, Service, ServicePort, TargetPort},
    tombstone::TOMBSTONE,
};

/// What is known of the cluster, and which keys have gone lately.
///
/// The order in which changes of different objects arrive makes no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stores {
    pub(crate) sandboxes: BTreeMap<Name, Sandbox>,
    pub(crate) services: BTreeMap<Name, Service>,
    /// Of listed Services, by the slice's own name.
    pub(crate) slices: BTreeMap<Name, EndpointSlice>,
    /// Services whose slices are known, be there any or not.
    pub(crate) listed: BTreeSet<Name>,
    /// Pods that forks may consist of. A selection that is not here has not been answered yet.
    pub(crate) pods: BTreeMap<Selection, BTreeMap<Name, Pod>>,
    /// Keys of Sandboxes that have gone, with the Service that they were steered at, and until when they are refused.
    pub(crate) tombstones: BTreeMap<(Name, String), Timestamp>,
}

/// What is told of objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update<T> {
    /// These are all.
    List(BTreeMap<Name, T>),
    /// There is one, new or changed.
    Put(Name, T),
    /// There is none of this name any more.
    Remove(Name),
}

/// What has changed in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sandboxes.
    Sandboxes(Update<Sandbox>),
    /// Services.
    Services(Update<Service>),
    /// Slices of some Services of a namespace.
    Slices {
        /// The namespace.
        namespace: String,
        /// The Services that were asked after: a list is of theirs.
        asked: BTreeSet<String>,
        /// What is told of their slices.
        update: Update<EndpointSlice>,
    },
    /// Pods.
    Pods(Selection, Update<Pod>),
}

/// What must be known of the cluster beside all Sandboxes and all Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Services whose slices count, by namespace.
    pub slices: BTreeMap<String, BTreeSet<String>>,
    /// Pods that count.
    pub pods: BTreeSet<Selection>,
}

fn update<T>(store: &mut BTreeMap<Name, T>, update: Update<T>) {
    match update {
        Update::List(all) => *store = all,
        Update::Put(name, one) => _ = store.insert(name, one),
        Update::Remove(name) => _ = store.remove(&name),
    }
}

impl Stores {
    /// Takes note of a change.
    pub fn apply(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Sandboxes(told) => self.sandboxes(told, now),
            Change::Services(told) => update(&mut self.services, told),
            Change::Slices { namespace, asked, update: told } => {
                if matches!(told, Update::List(_)) {
                    self.slices.retain(|name, _| name.namespace != namespace);
                    self.listed.retain(|name| name.namespace != namespace);
                    self.listed.extend(asked.into_iter().map(|service| Name::new(&namespace, service)));
                }
                match told {
                    Update::List(all) => self.slices.extend(all),
                    told => update(&mut self.slices, told),
                }
            }
            Change::Pods(selection, told) => update(self.pods.entry(selection).or_default(), told),
        }
    }

    fn sandboxes(&mut self, told: Update<Sandbox>, now: Timestamp) {
        let changed: Vec<(Name, Option<Sandbox>)> = match told {
            Update::List(all) => {
                let gone = self.sandboxes.keys().filter(|name| !all.contains_key(*name)).cloned();
                let gone: Vec<_> = gone.map(|name| (name, None)).collect();
                gone.into_iter().chain(all.into_iter().map(|(name, sandbox)| (name, Some(sandbox)))).collect()
            }
            Update::Put(name, sandbox) => vec![(name, Some(sandbox))],
            Update::Remove(name) => vec![(name, None)],
        };
        for (name, new) in changed {
            let old = match &new {
                Some(new) => self.sandboxes.insert(name.clone(), new.clone()),
                None => self.sandboxes.remove(&name),
            };
            if let Some(old) = old {
                self.bury(&name, &old, new.as_ref(), now);
            }
        }
    }

    /// Forgets what has gone long ago, and what nobody wants to know.
    pub fn forget(&mut self, now: Timestamp) {
        self.tombstones.retain(|_, until| *until > now);
        let wanted = self.wanted(now);
        let is_wanted =
            |name: &Name| wanted.slices.get(&name.namespace).is_some_and(|services| services.contains(&name.name));
        self.listed.retain(is_wanted);
        let listed = &self.listed;
        self.slices.retain(|name, slice| listed.contains(&Name::new(&name.namespace, &slice.service)));
        self.pods.retain(|selection, _| wanted.pods.contains(selection));
    }

    /// What must be known beside all Sandboxes and all Services.
    #[must_use]
    pub fn wanted(&self, now: Timestamp) -> Wanted {
        let mut wanted = Wanted { pods: [Selection::Labelled].into(), ..Wanted::default() };
        let mut service = |namespace: &str, name: &str| {
            wanted.slices.entry(namespace.to_owned()).or_default().insert(name.to_owned());
        };
        for (name, sandbox) in self.sandboxes.iter().filter(|(_, sandbox)| !sandbox.is_forgotten(now)) {
            let services = sandbox.forks.iter().flat_map(|fork| &fork.services);
            services.for_each(|it| service(&name.namespace, it));
        }
        let buried = self.tombstones.iter().filter(|(_, until)| **until > now);
        buried.for_each(|((name, _), _)| service(&name.namespace, &name.name));
        let living = self.sandboxes.values().filter(|sandbox| sandbox.gone_at(now).is_none());
        wanted.pods.extend(living.flat_map(|sandbox| &sandbox.forks).map(|fork| fork.pods.clone()));
        wanted
    }
}
