//! Writes what was planned: policies before pods, what is not wanted any more last.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Resource, ResourceExt as _, core::DynamicObject};
use serde_json::json;
use sidetrack_objects::{Sandbox, sandbox::WorkloadKind};

use super::{Context, Failed, plan::Plan, write};
use crate::{
    fork::policies::{Seen, copies},
    names::INPUTS,
    spaces::{Space, resource},
    status::Trouble,
};

/// Whether an object is this Sandbox's.
pub(super) fn is_of<K: Resource>(object: &K, sandbox: &Sandbox) -> bool {
    object.owner_references().iter().any(|owner| Some(&owner.uid) == sandbox.meta().uid.as_ref())
}

pub(super) async fn carry_out(
    context: &Context,
    sandbox: &Sandbox,
    space: &Space,
    plans: &mut [Plan],
) -> Result<(), Failed> {
    let namespace = sandbox.namespace().unwrap_or_default();
    if let Some(trouble) = policies(context, sandbox, space, plans).await? {
        for plan in plans.iter_mut().filter(|plan| plan.seen.is_some()) {
            // Without its policies a fork is not what its baseline is.
            plan.write = None;
            plan.found.trouble.get_or_insert_with(|| trouble.clone());
        }
    }
    let kind = resource(WorkloadKind::Deployment);
    let deployments = Api::<DynamicObject>::namespaced_with(context.client.clone(), &namespace, &kind);
    for plan in plans.iter_mut() {
        let (Some(name), Some(object)) = (&plan.object, plan.write.take()) else { continue };
        if let Err(error) = context.apply(&deployments, name, &object).await {
            plan.found.trouble = Some(write::refused(error)?);
        }
    }
    let wanted: BTreeSet<&String> = plans.iter().filter_map(|plan| plan.object.as_ref()).collect();
    for left in space.deployments.store.state_filter(|it| is_of(it, sandbox) && !wanted.contains(&it.name_any())) {
        context.delete(&deployments, &left.name_any()).await?;
    }
    Ok(())
}

/// Writes the copies of policies that differ, and removes those that have no original any more; what the API server says
/// where it takes one not.
async fn policies(
    context: &Context,
    sandbox: &Sandbox,
    space: &Space,
    plans: &[Plan],
) -> Result<Option<Trouble>, Failed> {
    let namespace = sandbox.namespace().unwrap_or_default();
    let api = Api::<NetworkPolicy>::namespaced(context.client.clone(), &namespace);
    let all = space.policies.store.state();
    let seen: Vec<Seen> = plans.iter().filter_map(|plan| plan.seen.clone()).collect();
    let wanted = copies(all.iter().map(|it| &**it), &seen, &sandbox.name_any(), &Context::owner(sandbox));
    for copy in &wanted {
        let name = copy.name_any();
        let there = all.iter().find(|it| it.name_any() == name);
        if there.is_some_and(|there| there.annotations().get(INPUTS) == copy.annotations().get(INPUTS)) {
            continue;
        }
        let mut object = json!(copy);
        object["apiVersion"] = json!("networking.k8s.io/v1");
        object["kind"] = json!("NetworkPolicy");
        if let Err(error) = context.apply(&api, &name, &object).await {
            return Ok(Some(write::refused(error)?));
        }
    }
    // A fork whose baseline is not to be seen at the moment keeps its policies.
    let whole = plans.iter().all(|plan| plan.seen.is_some() || plan.fork.workload.is_none());
    let names: BTreeSet<String> = wanted.iter().map(kube::ResourceExt::name_any).collect();
    for left in all.iter().filter(|it| whole && is_of(&***it, sandbox) && !names.contains(&it.name_any())) {
        context.delete(&api, &left.name_any()).await?;
    }
    Ok(None)
}
