//! Requests that change something, counted, and what their errors mean.

use std::fmt::Debug;

use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
    core::DynamicObject,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sidetrack_objects::{Sandbox, sandbox::SandboxStatus};

use super::Context;
use crate::{
    names::{FINALIZER, MANAGER},
    status::Trouble,
};

/// Why a pass could not end. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// An object has changed meanwhile.
    #[error("{0}")]
    Conflict(String),
    /// The API server did not do it.
    #[error("{0}")]
    Api(#[source] Box<kube::Error>),
}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict(status.message),
            error => Self::Api(Box::new(error)),
        }
    }
}

/// What the API server says of a request that it will not do however often it is asked; anything else is a failure.
pub(super) fn refused(error: kube::Error) -> Result<Trouble, Failed> {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400..=499) && !matches!(status.code, 408 | 409 | 429) => {
            Ok(Trouble::new(Some(&status.reason), Some(&status.message)))
        }
        error => Err(error.into()),
    }
}

impl Context {
    /// Applies an object that is the controller's alone.
    pub(super) async fn apply<K>(&self, api: &Api<K>, name: &str, object: &Value) -> kube::Result<K>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        self.health.wrote();
        api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await
    }

    /// Removes an object; one that is not there is removed.
    pub(super) async fn delete<K>(&self, api: &Api<K>, name: &str) -> Result<(), Failed>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        self.health.wrote();
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the API server apply a strategic merge patch to a workload, and keep nothing of it.
    pub(super) async fn patched(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        patch: &Value,
    ) -> kube::Result<DynamicObject> {
        let dry = PatchParams { dry_run: true, field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        api.patch(name, &dry, &Patch::Strategic(patch)).await
    }

    /// Changes labels of an object and nothing else.
    pub(super) async fn label<K>(&self, api: &Api<K>, name: &str, labels: &impl Serialize) -> kube::Result<K>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        self.health.wrote();
        let patch = json!({"metadata": {"labels": labels}});
        api.patch(
            name,
            &PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() },
            &Patch::Merge(patch),
        )
        .await
    }

    fn sandboxes(&self, of: &Sandbox) -> Api<Sandbox> {
        Api::namespaced(self.client.clone(), &of.namespace().unwrap_or_default())
    }

    /// Sets or removes the finalizer, unless the Sandbox has changed meanwhile.
    pub(super) async fn set_finalizer(&self, sandbox: &Sandbox, there: bool) -> Result<Sandbox, Failed> {
        let mut finalizers: Vec<_> = sandbox.finalizers().iter().filter(|it| *it != FINALIZER).cloned().collect();
        if there {
            finalizers.push(FINALIZER.to_owned());
        }
        self.health.wrote();
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": sandbox.resource_version()}});
        let manager = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let new = self.sandboxes(sandbox).patch(&sandbox.name_any(), &manager, &Patch::Merge(patch)).await?;
        self.written(&new);
        Ok(new)
    }

    /// Applies the status: of conditions only those that are in it.
    pub(super) async fn write_status(&self, sandbox: &Sandbox, status: &SandboxStatus) -> Result<(), Failed> {
        self.health.wrote();
        let name = sandbox.name_any();
        let object = json!({
            "apiVersion": Sandbox::api_version(&()), "kind": Sandbox::kind(&()),
            // Of another one of this name nothing is known.
            "metadata": {"name": name, "uid": sandbox.uid()},
            "status": status,
        });
        let manager = PatchParams::apply(MANAGER).force();
        let new = self.sandboxes(sandbox).patch_status(&name, &manager, &Patch::Apply(object)).await?;
        self.written(&new);
        Ok(())
    }

    fn written(&self, new: &Sandbox) {
        self.memory(new, |memory| memory.written = Some(new.clone()));
    }
}
