//! Why a fork has no pod that is ready, in the cluster's own words.

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{ContainerState, ContainerStatus, Pod},
};
use serde_json::Value;

use super::Trouble;

/// Reasons of a container that waits which say nothing.
const ON_ITS_WAY: &[&str] = &["ContainerCreating", "PodInitializing"];

/// What hinders a fork's pods, if the cluster says so. The first that hinders all that comes behind it: no pod may be made,
/// a pod finds no node, a container does not start, it does not stay.
#[must_use]
pub fn hindrance<'a>(
    deployment: &Value,
    sets: impl IntoIterator<Item = &'a ReplicaSet>,
    pods: impl IntoIterator<Item = &'a Pod> + Clone,
) -> Option<Trouble> {
    let conditions = deployment["status"]["conditions"].as_array();
    let failed = conditions.into_iter().flatten().find(|it| it["type"] == "ReplicaFailure" && it["status"] == "True");
    if let Some(failed) = failed {
        return Some(Trouble::new(failed["reason"].as_str(), failed["message"].as_str()));
    }
    for condition in sets.into_iter().filter_map(|set| set.status.as_ref()?.conditions.as_ref()).flatten() {
        if condition.type_ == "ReplicaFailure" && condition.status == "True" {
            return Some(Trouble::new(condition.reason.as_deref(), condition.message.as_deref()));
        }
    }
    let living = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let statuses: Vec<_> = living.filter_map(|pod| pod.status.as_ref()).collect();
    for status in &statuses {
        let scheduled =
            status.conditions.iter().flatten().find(|it| it.type_ == "PodScheduled" && it.status == "False");
        if let Some(condition) = scheduled {
            return Some(Trouble::new(condition.reason.as_deref(), condition.message.as_deref()));
        }
        if status.phase.as_deref() == Some("Failed") {
            return Some(Trouble::new(status.reason.as_deref().or(Some("PodFailed")), status.message.as_deref()));
        }
    }
    let containers: Vec<&ContainerStatus> = statuses
        .iter()
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten())
        .collect();
    containers.iter().find_map(|it| waits(it)).or_else(|| containers.iter().find_map(|it| crashes(it)))
}

/// A container that does not start.
fn waits(status: &ContainerStatus) -> Option<Trouble> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if ON_ITS_WAY.contains(&reason) || reason == CRASHES {
        return None;
    }
    let words = waiting.message.as_deref().unwrap_or(reason);
    Some(Trouble::new(Some(reason), Some(&format!("container {}: {words}", status.name))))
}

/// The cluster's own word for it.
const CRASHES: &str = "CrashLoopBackOff";

/// A container that has ended with an error, and is not ready. Whether it waits for its next start, runs again or has ended at this
/// moment is the same trouble.
fn crashes(status: &ContainerStatus) -> Option<Trouble> {
    if status.ready {
        return None;
    }
    let ended = |state: &Option<ContainerState>| state.as_ref()?.terminated.clone();
    let ended = ended(&status.state).or_else(|| ended(&status.last_state)).filter(|ended| ended.exit_code != 0)?;
    let reason = ended.reason.as_deref().unwrap_or("Error");
    let words = ended.message.as_deref().map(|words| format!(": {}", words.trim())).unwrap_or_default();
    let message = format!("container {} ends with exit code {} ({reason}){words}", status.name, ended.exit_code);
    Some(Trouble::new(Some(CRASHES), Some(&message)))
}
