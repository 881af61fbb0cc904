use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn pod(node: Option<&str>, status: &Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "pr-1"}, "spec": {"containers": [], "nodeName": node}, "status": status}),
    )
    .expect("a pod")
}

fn container(name: &str, state: &Value) -> Value {
    let mut status = json!({"name": name, "image": "a", "imageID": "", "ready": false, "restartCount": 0});
    status.as_object_mut().expect("an object").extend(state.as_object().expect("an object").clone());
    status
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"state": {"waiting": {"reason": reason, "message": message}}})
}

#[rstest]
#[case::no_room(
    json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient cpu."}]}),
    "Pending", "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.")]
#[case::image(
    json!({"phase": "Pending", "containerStatuses": [container("app", &waiting("ImagePullBackOff", "Back-off pulling image \"a:1\""))]}),
    "ImagePullBackOff", "container app: ImagePullBackOff: Back-off pulling image \"a:1\"")]
#[case::configuration(
    json!({"phase": "Pending", "containerStatuses": [container("app", &waiting("CreateContainerConfigError", "secret \"db\" not found"))]}),
    "CreateContainerConfigError", "container app: CreateContainerConfigError: secret \"db\" not found")]
#[case::crash(
    json!({"phase": "Running", "containerStatuses": [container("app", &json!({"restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "no database\n"}}}))]}),
    "CrashLoopBackOff",
    "container app: CrashLoopBackOff: back-off 40s restarting failed container; before, it ended with exit code 1: no database")]
#[case::memory(
    json!({"phase": "Running", "containerStatuses": [container("app", &json!({"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}))]}),
    "OOMKilled", "container app: it ended with exit code 137 (OOMKilled)")]
#[case::probe(
    json!({"phase": "Running", "containerStatuses": [container("app", &json!({"started": true, "state": {"running": {}}}))]}),
    "Running", "container app: it runs, and its readiness probe does not succeed")]
#[case::startup(
    json!({"phase": "Running", "containerStatuses": [container("app", &json!({"started": false, "state": {"running": {}}}))]}),
    "Running", "container app: it runs, and its startup probe has not succeeded yet")]
#[case::init(
    json!({"phase": "Pending",
        "initContainerStatuses": [
            container("wait", &json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}})),
            container("migrate", &json!({"state": {"terminated": {"exitCode": 2, "reason": "Error"}}})),
            container("later", &json!({"state": {"waiting": {"reason": "PodInitializing"}}}))],
        "containerStatuses": [container("app", &json!({"state": {"waiting": {"reason": "PodInitializing"}}}))]}),
    "Error", "init container migrate: it ended with exit code 2")]
#[case::init_at_work(
    json!({"phase": "Pending",
        "initContainerStatuses": [container("migrate", &json!({"started": false, "state": {"running": {}}}))],
        "containerStatuses": [container("app", &json!({"state": {"waiting": {"reason": "PodInitializing"}}}))]}),
    "PodInitializing", "init container migrate: it runs")]
#[case::evicted(
    json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
    "Evicted", "Evicted: The node was low on resource: memory.")]
#[case::gate(
    json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": "corresponding condition of pod readiness gate \"lb\" does not exist."}],
        "containerStatuses": [container("app", &json!({"ready": true, "state": {"running": {}}}))]}),
    "Running", "ReadinessGatesNotReady: corresponding condition of pod readiness gate \"lb\" does not exist.")]
#[case::not_begun(json!({"phase": "Pending"}), "Pending", "node n1 has not begun with it yet")]
fn why_a_pod_is_not_ready_is_said_in_the_clusters_words(#[case] status: Value, #[case] state: &str, #[case] why: &str) {
    let pod = pod(Some("n1"), &status);
    assert_eq!(super::why(&pod), [why]);
    assert_eq!(super::state(&pod), state);
    assert!(!is_ready(&pod));
}

#[test]
fn of_a_pod_that_is_ready_nothing_is_said() {
    let mut pod = pod(
        Some("n1"),
        &json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container("app", &json!({"ready": true, "restartCount": 2, "state": {"running": {}}}))]}),
    );
    assert!(is_ready(&pod) && why(&pod).is_empty());
    assert_eq!((state(&pod), restarts(&pod)), ("Running".into(), 2));
    pod.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time"));
    assert!(!is_ready(&pod));
    assert_eq!((why(&pod), state(&pod)), (vec!["it is being deleted".to_owned()], "Terminating".into()));
}

#[test]
fn a_pod_that_nobody_has_placed_says_so() {
    assert_eq!(why(&pod(None, &json!({"phase": "Pending"}))), ["it is not scheduled yet"]);
}

#[test]
fn each_container_that_is_not_ready_has_a_line() {
    let pod = pod(
        Some("n1"),
        &json!({"phase": "Running", "containerStatuses": [
            container("app", &json!({"ready": true, "state": {"running": {}}})),
            container("b", &waiting("ErrImagePull", "not found")),
            container("c", &json!({"state": {"running": {}}})),
        ]}),
    );
    assert_eq!(
        why(&pod),
        ["container b: ErrImagePull: not found", "container c: it runs, and its readiness probe does not succeed"]
    );
}
