//! No Service selects a living pod of a fork: where one is made later that would, the pods' labels change, and nothing is
//! rolled out.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use sidetrack_objects::Sandbox;
use tracing::info;

use super::{Context, Failed};
use crate::{
    fork::labels,
    names::{COPY_LABEL, short},
    spaces::Space,
};

pub(super) async fn correct(context: &Context, sandbox: &Sandbox, space: &Space) -> Result<(), Failed> {
    let services = space.selecting_services();
    let api = Api::<Pod>::namespaced(context.client.clone(), &sandbox.namespace().unwrap_or_default());
    let uid = sandbox.uid().unwrap_or_default();
    for fork in &sandbox.spec.forks {
        let copy = short(&[&uid, &fork.name]);
        for pod in space.pods.store.state_filter(|pod| pod.labels().get(COPY_LABEL) == Some(&copy)) {
            let wrong = labels::correct(pod.labels(), &services, &copy);
            if wrong.is_empty() {
                continue;
            }
            let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
            match context.label(&api, &name, &wrong).await {
                Ok(_) => info!(pod = name, namespace, labels = ?wrong, "a Service would have selected a fork's pod"),
                // It has ended meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
