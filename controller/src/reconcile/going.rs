//! The end of a Sandbox, or of its time: nobody is steered to its forks any more, then they are removed, then it goes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Resource as _, ResourceExt as _, core::DynamicObject, runtime::controller::Action};
use sidetrack_objects::{Sandbox, sandbox::WorkloadKind};
use tracing::{info, warn};

use super::{Context, Failed, carry_out::is_of};
use crate::{
    excluded,
    names::FINALIZER,
    spaces::{Lack, Space, resource},
};

/// A Sandbox that somebody has deleted.
pub(super) async fn go(context: &Context, sandbox: &Sandbox) -> Result<Action, Failed> {
    if !sandbox.finalizers().iter().any(|it| it == FINALIZER) {
        context.forget(sandbox);
        return Ok(Action::await_change());
    }
    let namespace = sandbox.namespace().unwrap_or_default();
    let since = sandbox.meta().deletion_timestamp.as_ref().map_or(Timestamp::MIN, |at| at.0);
    if let Some(left) = unrouted_in(context, since) {
        return Ok(Action::requeue(left));
    }
    if !excluded(&namespace, &context.settings.namespace) {
        let space = context.spaces.get(&namespace);
        match space.lack() {
            None => remove(context, sandbox, &space).await?,
            Some(Lack::Pending) => return Ok(Action::await_change()),
            Some(Lack::Refused(words)) => {
                // The cluster removes what has no owner any more.
                warn!(namespace, name = sandbox.name_any(), "its forks are left to the garbage collector: {words}");
            }
        }
    }
    context.set_finalizer(sandbox, false).await?;
    info!(namespace, name = sandbox.name_any(), "gone");
    context.forget(sandbox);
    Ok(Action::await_change())
}

/// A Sandbox whose time is over: it stays, its forks do not.
pub(super) async fn expire(
    context: &Context,
    sandbox: &Sandbox,
    space: &Space,
    since: Timestamp,
) -> Result<Action, Failed> {
    if let Some(left) = unrouted_in(context, since) {
        return Ok(Action::requeue(left));
    }
    remove(context, sandbox, space).await?;
    Ok(Action::await_change())
}

/// How long until no agent steers to the forks of a Sandbox that has gone at this time; nothing where none does. Agents see
/// the end of a Sandbox, or know when it comes, as the controller does.
fn unrouted_in(context: &Context, since: Timestamp) -> Option<Duration> {
    let at = since.checked_add(context.settings.unroute).unwrap_or(Timestamp::MAX);
    let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
    (!left.is_zero()).then_some(left)
}

/// Removes all that was made for a Sandbox.
async fn remove(context: &Context, sandbox: &Sandbox, space: &Space) -> Result<(), Failed> {
    let namespace = sandbox.namespace().unwrap_or_default();
    let kind = resource(WorkloadKind::Deployment);
    let deployments = Api::<DynamicObject>::namespaced_with(context.client.clone(), &namespace, &kind);
    for deployment in space.deployments.store.state_filter(|it| is_of(it, sandbox)) {
        context.delete(&deployments, &deployment.name_any()).await?;
    }
    let policies = Api::<NetworkPolicy>::namespaced(context.client.clone(), &namespace);
    for policy in space.policies.store.state_filter(|it| is_of(it, sandbox)) {
        context.delete(&policies, &policy.name_any()).await?;
    }
    Ok(())
}
