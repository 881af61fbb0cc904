//! A cluster's API server, as the command line asks it.

use std::{future::Future, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::Value;
use sidetrack_objects::{
    Sandbox, SidetrackConfig,
    sandbox::{Workload, WorkloadKind},
};
use sidetrack_resolve::{Selection, read};
use tokio::time::timeout;

use super::{Asked, Failure, MANAGER, draft, manifest, pods::ForkPod};
use crate::access::{Access, AccessError};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Objects in a page of a list.
const PAGE: u32 = 500;

/// Whether something is done, or only asked whether it could be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dry {
    /// It is done.
    #[default]
    No,
    /// The API server says what would come of it.
    Yes,
}

/// An API server, and the namespace that is meant.
#[derive(Clone)]
pub struct Server {
    client: Client,
    address: String,
    namespace: String,
}

impl Server {
    /// Finds out which server and which namespace are meant. Whether somebody answers is not asked.
    pub async fn find(access: &Access, namespace: Option<&str>) -> Result<Self, Failure> {
        let config = access.config().await?;
        let address = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).map_err(AccessError::Client)?;
        Ok(Self { client, address, namespace })
    }

    /// The namespace that is meant.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its Sandboxes; as objects of any version, so that what an answer says is shown as it is.
    pub(super) fn sandboxes(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<Sandbox>(&()))
    }

    /// Its pods.
    pub(super) fn pods_api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What is asked of objects of this namespace.
    pub(crate) fn asked(&self, verb: &'static str, kind: &str, name: Option<&str>) -> Asked {
        let namespace = Some(self.namespace.clone());
        Asked { verb, kind: kind.to_owned(), name: name.map(str::to_owned), namespace }
    }

    /// What the failure of a question means.
    pub(super) fn failed(&self, error: kube::Error, asked: Asked) -> Failure {
        Failure::of(error, asked, &self.address)
    }

    /// Waits for an answer, not for ever.
    pub(super) async fn answer<T>(
        &self,
        asked: Asked,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        if let Ok(answer) = timeout(ANSWER, answer).await {
            return answer.map_err(|error| self.failed(error, asked));
        }
        let why = format!("no answer within {}s", ANSWER.as_secs());
        Err(Failure::Unreachable { server: self.address.clone(), why })
    }

    /// A Sandbox.
    pub async fn sandbox(&self, name: &str) -> Result<DynamicObject, Failure> {
        self.answer(self.asked("get", "sandbox", Some(name)), self.sandboxes().get(name)).await
    }

    /// All Sandboxes with these labels: of the namespace, or of all.
    pub async fn list(&self, everywhere: bool, labels: Option<&str>) -> Result<Vec<DynamicObject>, Failure> {
        let (api, namespace) = if everywhere {
            (Api::all_with(self.client.clone(), &ApiResource::erase::<Sandbox>(&())), None)
        } else {
            (self.sandboxes(), Some(self.namespace.clone()))
        };
        let asked = Asked { verb: "list", kind: "sandbox".into(), name: None, namespace };
        let mut params =
            ListParams { label_selector: labels.map(str::to_owned), limit: Some(PAGE), ..ListParams::default() };
        let mut all = Vec::new();
        loop {
            let page = self.answer(asked.clone(), api.list(&params)).await?;
            all.extend(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Makes a Sandbox; one of its name must not be there.
    pub async fn create(&self, object: &DynamicObject, dry: Dry) -> Result<DynamicObject, Failure> {
        let params = PostParams { dry_run: dry == Dry::Yes, field_manager: Some(MANAGER.into()) };
        let asked = self.asked("create", "sandbox", object.metadata.name.as_deref());
        self.answer(asked, self.sandboxes().create(&params, object)).await
    }

    /// Makes an object be what a file says, by server-side apply. What an earlier command of this kind has written is its own; what others
    /// have written is a conflict, unless it is forced.
    pub async fn apply(&self, object: &manifest::Object, dry: Dry, force: bool) -> Result<DynamicObject, Failure> {
        let (api, asked) = match object.kind {
            manifest::Kind::Sandbox => {
                if let Some(named) = object.namespace.as_ref().filter(|named| **named != self.namespace) {
                    let server = Self { namespace: named.clone(), ..self.clone() };
                    return Box::pin(server.apply(object, dry, force)).await;
                }
                (self.sandboxes(), self.asked("patch", "sandbox", Some(&object.name)))
            }
            manifest::Kind::SidetrackConfig => (
                self.settings(),
                Asked { namespace: None, ..self.asked("patch", "sidetrackconfig", Some(&object.name)) },
            ),
        };
        let mut params = PatchParams::apply(MANAGER).validation_strict();
        params.dry_run = dry == Dry::Yes;
        params.force = force;
        let patch = Patch::Apply(&object.body);
        match self.answer(asked.clone(), api.patch(&object.name, &params, &patch)).await {
            // `create` and `extend` write under the same name, which the server holds apart from what was applied.
            Err(Failure::Conflict { fields, .. }) if fields.iter().all(|field| is_ours(field)) => {
                self.answer(asked, api.patch(&object.name, &params.force(), &patch)).await
            }
            answer => answer,
        }
    }

    /// Changes some fields of a Sandbox.
    pub async fn patch(&self, name: &str, fields: &Value) -> Result<DynamicObject, Failure> {
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(fields);
        self.answer(self.asked("patch", "sandbox", Some(name)), self.sandboxes().patch(name, &params, &patch)).await
    }

    /// Deletes a Sandbox. While others have to do something about it first, it stays; then its `uid` is known.
    pub async fn delete(&self, name: &str) -> Result<Option<String>, Failure> {
        let asked = self.asked("delete", "sandbox", Some(name));
        let left = self.answer(asked, self.sandboxes().delete(name, &DeleteParams::default())).await?;
        Ok(left.left().and_then(|object| object.uid()))
    }

    /// The object of a workload.
    pub async fn workload(&self, workload: &Workload) -> Result<Value, Failure> {
        let (group, version, plural) = match workload.kind {
            WorkloadKind::Deployment => ("apps", "v1", "deployments"),
            WorkloadKind::StatefulSet => ("apps", "v1", "statefulsets"),
            WorkloadKind::Rollout => ("argoproj.io", "v1alpha1", "rollouts"),
        };
        let resource = ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: format!("{group}/{version}"),
            kind: format!("{:?}", workload.kind),
            plural: plural.into(),
        };
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let asked = self.asked("get", draft::kind_word(workload.kind), Some(&workload.name));
        Ok(self.answer(asked, api.get(&workload.name)).await?.data)
    }

    /// The pods of a Sandbox's forks, or of one of them, by the forks' order.
    pub async fn pods(&self, sandbox: &Sandbox, only: Option<&str>) -> Result<Vec<ForkPod>, Failure> {
        let forks = read::sandbox(sandbox).forks;
        let mut all = Vec::new();
        for fork in forks.into_iter().filter(|fork| only.is_none_or(|only| fork.name == only)) {
            let labels = match fork.pods {
                Selection::Labelled => {
                    let name = sandbox.metadata.name.as_deref().unwrap_or_default();
                    format!("{}={name},{}={}", read::SANDBOX_LABEL, read::FORK_LABEL, fork.name)
                }
                Selection::Selected { selector, .. } => selector,
            };
            let params = ListParams::default().labels(&labels);
            let pods = self.answer(self.asked("list", "pod", None), self.pods_api().list(&params)).await?;
            all.extend(pods.items.into_iter().map(|pod| ForkPod { fork: fork.name.clone(), pod }));
        }
        Ok(all)
    }

    fn settings(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &ApiResource::erase::<SidetrackConfig>(&()))
    }

    /// The carriers of the cluster's settings; none where there are no settings, or where they name none.
    pub async fn carriers(&self) -> Result<Option<Vec<String>>, Failure> {
        let asked = Asked { namespace: None, ..self.asked("get", "sidetrackconfig", Some("default")) };
        let found = match self.answer(asked, self.settings().get("default")).await {
            Ok(found) => found,
            Err(Failure::NotFound { .. }) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let carriers = found.data["spec"]["carriers"].as_array();
        Ok(carriers.map(|all| all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()))
    }
}

/// Whether a field was written by a command of this kind, by the server's words.
fn is_ours(field: &str) -> bool {
    field.contains(&format!("conflict with \"{MANAGER}\""))
}
