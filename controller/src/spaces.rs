//! What is known of the namespaces that have Sandboxes: of each what forks depend on, kept by watches.
//!
//! A namespace is watched from its first Sandbox to its last, so that the controller needs rights in those alone.

mod watched;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use sidetrack_objects::sandbox::WorkloadKind;
use tokio::sync::mpsc;

pub(crate) use self::watched::State;
use self::watched::Watched;
use crate::{
    fork::{Baseline, Refusal, Selectors},
    names::SANDBOX_LABEL,
};

/// What has changed in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Touched {
    /// Something of this Sandbox's.
    Sandbox(String),
    /// A workload of this name.
    Workload(String),
    /// A pod that no Sandbox has made.
    Pod,
    /// Something that every Sandbox there depends on.
    All,
    /// Something that only routes depend on.
    Routes,
}

/// Tells what has changed where.
pub(crate) type Tell = mpsc::UnboundedSender<(String, Touched)>;

/// A namespace.
pub(crate) struct Space {
    client: Client,
    namespace: String,
    tell: Tell,
    pub(crate) services: Watched<Service>,
    pub(crate) slices: Watched<EndpointSlice>,
    pub(crate) pods: Watched<Pod>,
    pub(crate) deployments: Watched<DynamicObject>,
    stateful_sets: Watched<DynamicObject>,
    /// Watched when a fork wants one: most clusters have none.
    rollouts: OnceLock<Watched<DynamicObject>>,
    pub(crate) replica_sets: Watched<ReplicaSet>,
    pub(crate) policies: Watched<NetworkPolicy>,
    budgets: Watched<PodDisruptionBudget>,
}

/// Why a namespace is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Its lists are on their way.
    Pending,
    /// The API server refuses them: its words.
    Refused(String),
}

/// How a kind of workloads is asked for.
pub(crate) fn resource(kind: WorkloadKind) -> ApiResource {
    match kind {
        WorkloadKind::Deployment => ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment")),
        WorkloadKind::StatefulSet => ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "StatefulSet")),
        WorkloadKind::Rollout => ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout")),
    }
}

fn of_sandbox<K: Resource>(object: &K) -> Option<Touched> {
    object.labels().get(SANDBOX_LABEL).cloned().map(Touched::Sandbox)
}

impl Space {
    fn start(client: &Client, namespace: &str, tell: &Tell) -> Self {
        let workloads = |kind| Self::workloads(client, namespace, tell, kind);
        let everybody = |_: &_| Touched::All;
        Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            tell: tell.clone(),
            services: watched::start(Api::namespaced(client.clone(), namespace), &(), None, tell, everybody),
            slices: watched::start(Api::namespaced(client.clone(), namespace), &(), None, tell, |_| Touched::Routes),
            pods: watched::start(Api::namespaced(client.clone(), namespace), &(), None, tell, |pod: &Pod| {
                of_sandbox(pod).unwrap_or(Touched::Pod)
            }),
            deployments: workloads(WorkloadKind::Deployment),
            stateful_sets: workloads(WorkloadKind::StatefulSet),
            rollouts: OnceLock::new(),
            replica_sets: watched::start(
                Api::namespaced(client.clone(), namespace),
                &(),
                Some(SANDBOX_LABEL),
                tell,
                |set: &ReplicaSet| of_sandbox(set).unwrap_or(Touched::All),
            ),
            policies: watched::start(
                Api::namespaced(client.clone(), namespace),
                &(),
                None,
                tell,
                |policy: &NetworkPolicy| of_sandbox(policy).unwrap_or(Touched::All),
            ),
            budgets: watched::start(Api::namespaced(client.clone(), namespace), &(), None, tell, |_| Touched::All),
        }
    }

    fn workloads(client: &Client, namespace: &str, tell: &Tell, kind: WorkloadKind) -> Watched<DynamicObject> {
        let resource = resource(kind);
        let api = Api::namespaced_with(client.clone(), namespace, &resource);
        watched::start(api, &resource, None, tell, |object: &DynamicObject| {
            of_sandbox(object).unwrap_or_else(|| Touched::Workload(object.name_any()))
        })
    }

    fn of_kind(&self, kind: WorkloadKind) -> &Watched<DynamicObject> {
        match kind {
            WorkloadKind::Deployment => &self.deployments,
            WorkloadKind::StatefulSet => &self.stateful_sets,
            WorkloadKind::Rollout => self
                .rollouts
                .get_or_init(|| Self::workloads(&self.client, &self.namespace, &self.tell, WorkloadKind::Rollout)),
        }
    }

    /// Whether all lists are there that every fork needs.
    pub(crate) fn lack(&self) -> Option<Lack> {
        let states = [
            self.services.state(),
            self.slices.state(),
            self.pods.state(),
            self.deployments.state(),
            self.stateful_sets.state(),
            self.replica_sets.state(),
            self.policies.state(),
            self.budgets.state(),
        ];
        let mut lack = None;
        for state in states {
            match state {
                State::Known => {}
                State::Refused(words) => return Some(Lack::Refused(words)),
                State::Pending | State::Absent => lack = Some(Lack::Pending),
            }
        }
        lack
    }

    /// A workload; a lack where its kind is not known yet.
    pub(crate) fn baseline(&self, kind: WorkloadKind, name: &str) -> Result<Result<Baseline, Refusal>, Lack> {
        let watched = self.of_kind(kind);
        match watched.state() {
            State::Known => {}
            State::Pending => return Err(Lack::Pending),
            State::Refused(words) => return Err(Lack::Refused(words)),
            State::Absent => return Ok(Err(Refusal::NoRollouts)),
        }
        let found = watched.store.find(|object| object.name_any() == name);
        // A fork is nobody's baseline.
        let found = found.filter(|object| of_sandbox(&**object).is_none());
        Ok(found
            .map_or_else(|| Err(Refusal::NoBaseline { kind, name: name.to_owned() }), |it| Baseline::read(kind, &it)))
    }

    /// The Services that select pods.
    pub(crate) fn selecting_services(&self) -> Selectors {
        let mut selectors = Selectors::default();
        for service in self.services.store.state() {
            let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"));
            if let Some(labels) = spec.and_then(|spec| spec.selector.as_ref()) {
                selectors.service(&service.name_any(), labels);
            }
        }
        selectors
    }

    /// Everything that selects pods.
    pub(crate) fn selectors(&self) -> Selectors {
        let mut selectors = self.selecting_services();
        for budget in self.budgets.store.state() {
            if let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) {
                selectors.add(format!("PodDisruptionBudget {}", budget.name_any()), selector);
            }
        }
        let kinds = [WorkloadKind::Deployment, WorkloadKind::StatefulSet];
        let rollouts = self.rollouts.get().map(|_| WorkloadKind::Rollout);
        for kind in kinds.into_iter().chain(rollouts) {
            for object in self.of_kind(kind).store.state_filter(|object| of_sandbox(object).is_none()) {
                if let Ok(selector) = serde_json::from_value(object.data["spec"]["selector"].clone()) {
                    selectors.add(format!("{kind:?} {}", object.name_any()), &selector);
                }
            }
        }
        selectors
    }
}

/// The namespaces that are watched.
pub(crate) struct Spaces {
    client: Client,
    tell: Tell,
    all: Mutex<BTreeMap<String, Arc<Space>>>,
}

impl Spaces {
    pub(crate) fn new(client: Client, tell: Tell) -> Self {
        Self { client, tell, all: Mutex::default() }
    }

    /// A namespace; it is watched from here on.
    pub(crate) fn get(&self, namespace: &str) -> Arc<Space> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || Arc::new(Space::start(&self.client, namespace, &self.tell));
        Arc::clone(all.entry(namespace.to_owned()).or_insert_with(start))
    }

    /// Those that are watched, after all others have been given up.
    pub(crate) fn keep(&self, namespaces: &BTreeSet<String>) -> BTreeMap<String, Arc<Space>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|namespace, _| namespaces.contains(namespace));
        all.clone()
    }
}
