//! A fork's pods, and why one is not ready: in the cluster's own words.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus,
};

/// A pod, and the fork that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct ForkPod {
    /// The fork's name.
    pub fork: String,
    /// The pod.
    pub pod: Pod,
}

/// Reasons of a container that only say that it will start soon.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

fn condition<'a>(status: &'a PodStatus, name: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == name)
}

/// Whether it can be sent requests.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let ready = pod.status.as_ref().and_then(|status| condition(status, "Ready"));
    ready.is_some_and(|ready| ready.status == "True") && pod.metadata.deletion_timestamp.is_none()
}

/// Whether a node was chosen that runs it.
#[must_use]
pub fn is_placed(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// How often its containers were started again.
#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.iter();
    status.flat_map(|status| status.container_statuses.iter().flatten()).map(|container| container.restart_count).sum()
}

/// Its state in one word, as kubectl has it: the phase, or what keeps it there.
#[must_use]
pub fn state(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return "Pending".into() };
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".into();
    }
    if let Some(reason) = &status.reason {
        return reason.clone();
    }
    let of = |state: &ContainerState, init: bool| match (&state.waiting, &state.terminated) {
        (Some(waiting), _) => waiting.reason.clone(),
        (_, Some(ended)) if !init || ended.exit_code != 0 => ended.reason.clone(),
        _ => None,
    };
    let waits = |all: &Option<Vec<ContainerStatus>>, init: bool| {
        all.iter().flatten().find_map(|container| of(container.state.as_ref()?, init))
    };
    waits(&status.init_container_statuses, true)
        .filter(|reason| reason != "PodInitializing")
        .or_else(|| waits(&status.container_statuses, false))
        .or_else(|| status.phase.clone())
        .unwrap_or_else(|| "Pending".into())
}

/// Why it cannot be sent requests; nothing where it can.
#[must_use]
pub fn why(pod: &Pod) -> Vec<String> {
    if is_ready(pod) {
        return Vec::new();
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return vec!["it is being deleted".into()];
    }
    let Some(status) = &pod.status else { return vec!["nothing is said of it yet".into()] };
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if matches!(phase, "Failed" | "Succeeded") {
        let reason = status.reason.as_deref().unwrap_or(phase);
        let mut why = vec![with(reason, status.message.as_deref())];
        why.extend(containers(status));
        return why;
    }
    if let Some(scheduled) = condition(status, "PodScheduled").filter(|scheduled| scheduled.status != "True") {
        return vec![of(scheduled, "it is not scheduled")];
    }
    let mut why = containers(status);
    if why.is_empty() {
        why.extend(gates(status));
    }
    if why.is_empty() {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        why.push(match (node, &status.container_statuses) {
            (None, _) => "it is not scheduled yet".into(),
            (Some(node), None) => format!("node {node} has not begun with it yet"),
            _ => "its node does not say why".into(),
        });
    }
    why
}

/// What the pod's own conditions say.
fn gates(status: &PodStatus) -> Option<String> {
    ["PodReadyToStartContainers", "Ready", "ContainersReady"].iter().find_map(|name| {
        let found = condition(status, name).filter(|found| found.status != "True")?;
        (found.reason.is_some() || found.message.is_some()).then(|| of(found, name))
    })
}

fn of(condition: &PodCondition, otherwise: &str) -> String {
    with(condition.reason.as_deref().unwrap_or(otherwise), condition.message.as_deref())
}

/// A reason, and its message where there is one.
fn with(reason: &str, message: Option<&str>) -> String {
    match message.filter(|message| !message.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    }
}

/// What each container waits for; of init containers the first that has not done its work.
fn containers(status: &PodStatus) -> Vec<String> {
    let init = status.init_container_statuses.iter().flatten().find_map(|container| {
        let words = unready(container, true)?;
        Some(format!("init container {}: {words}", container.name))
    });
    let own = status.container_statuses.iter().flatten().filter_map(|container| {
        let words = unready(container, false)?;
        Some(format!("container {}: {words}", container.name))
    });
    match init {
        Some(init) => vec![init],
        None => own.collect(),
    }
}

/// Why a container is not ready; of an init container: why it is not done.
fn unready(container: &ContainerStatus, init: bool) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("it waits");
        if init && STARTING.contains(&reason) {
            return None;
        }
        let words = with(reason, waiting.message.as_deref());
        let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        return Some(match last {
            Some(last) => format!("{words}; before, it {}", ended(last)),
            None => words,
        });
    }
    if let Some(last) = &state.terminated {
        return (!init || last.exit_code != 0).then(|| format!("it {}", ended(last)));
    }
    state.running.as_ref()?;
    if init {
        // One that goes on beside the others is done with starting when it has started.
        return (container.started != Some(true)).then(|| "it runs".into());
    }
    if container.ready {
        return None;
    }
    Some(match container.started {
        Some(false) => "it runs, and its startup probe has not succeeded yet".into(),
        _ => "it runs, and its readiness probe does not succeed".into(),
    })
}

fn ended(last: &ContainerStateTerminated) -> String {
    let how = match last.signal {
        Some(signal) => format!("was killed by signal {signal}"),
        None => format!("ended with exit code {}", last.exit_code),
    };
    let reason = last.reason.as_deref().filter(|reason| !matches!(*reason, "Error" | "Completed"));
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let message = last.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
    format!("{how}{reason}{}", message.map(|message| format!(": {message}")).unwrap_or_default())
}

#[cfg(test)]
mod tests;
