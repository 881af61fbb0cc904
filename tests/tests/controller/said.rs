//! Why a fork is not ready, in the cluster's own words.

use anyhow::{Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{Shop, shop, version};

fn container(state: &Value) -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "app", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
}

/// A fork with a pod that is not ready yet.
fn unready(name: &str) -> Result<Option<Shop<'static>>> {
    let Some(shop) = shop(name)? else { return Ok(None) };
    shop.fork(&json!({}))?;
    shop.pod("pr-orders-1", &shop.copy("pr")?, "10.99.7.2")?;
    Ok(Some(shop))
}

#[rstest]
#[case::unschedulable(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient cpu.", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}), "Unschedulable", "3 Insufficient cpu")]
#[case::image(container(&json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"orders:1\""}})), "ImagePullBackOff", "container app: Back-off pulling")]
#[case::secret(container(&json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"x\" not found"}})), "CreateContainerConfigError", "secret \"x\" not found")]
#[case::crash(container(&json!({"terminated": {"exitCode": 3, "reason": "Error", "message": "no database"}})), "CrashLoopBackOff", "exit code 3 (Error): no database")]
#[case::memory(container(&json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})), "CrashLoopBackOff", "exit code 137 (OOMKilled)")]
fn what_hinders_a_pod_is_said(#[case] status: Value, #[case] reason: &str, #[case] words: &str) -> Result<()> {
    let Some(shop) = unready("hindered")? else { return Ok(()) };
    let mut status = status;
    if status["conditions"].is_null() {
        status["conditions"] =
            json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    }
    shop.status("pod", "pr-orders-1", &status)?;
    let said = shop.condition("pr", "Ready", "False", reason)?;
    ensure!(said.contains(words), "{said}");
    Ok(())
}

#[test]
fn that_no_pod_may_be_made_is_said() -> Result<()> {
    let Some(shop) = shop("quota")? else { return Ok(()) };
    shop.fork(&json!({}))?;
    let name = shop.copy("pr")?["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let words = "pods \"x\" is forbidden: exceeded quota: tight, requested: pods=1, used: pods=5, limited: pods=5";
    let failed = json!({"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}]});
    shop.status("deployment", &name, &failed)?;
    let said = shop.condition("pr", "Ready", "False", "FailedCreate")?;
    ensure!(said.contains(words), "{said}");
    Ok(())
}

#[test]
fn that_no_deployment_may_be_made_is_said_and_it_is_made_when_it_may() -> Result<()> {
    let Some(shop) = shop("admission")? else { return Ok(()) };
    let resource = "count/deployments.apps";
    shop.apply(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"}, "spec": {"hard": {resource: "1"}}}))?;
    shop.status("resourcequota", "tight", &json!({"hard": {resource: "1"}, "used": {resource: "1"}}))?;
    shop.fork(&json!({}))?;
    let said = shop.condition("pr", "Forked", "False", "Forbidden")?;
    ensure!(said.contains("exceeded quota: tight"), "{said}");
    let services = shop.get("sandbox", "pr")?["status"]["forks"][0]["services"].clone();
    ensure!(services == json!(["orders"]), "its key is no baseline's: {services}");
    shop.kube.run(&["delete", "resourcequota", "tight"])?;
    shop.condition("pr", "Forked", "True", "Forked").map(drop)
}

#[test]
fn a_container_that_goes_back_and_forth_between_two_words_is_said_once() -> Result<()> {
    let Some(shop) = unready("flap")? else { return Ok(()) };
    let ready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let set = |state: &Value| {
        let mut status = container(state);
        status["conditions"] = ready.clone();
        shop.status("pod", "pr-orders-1", &status)
    };
    set(&json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}))?;
    let said = shop.condition("pr", "Ready", "False", "ErrImagePull")?;
    let before = shop.get("sandbox", "pr")?;
    for reason in ["ImagePullBackOff", "ErrImagePull", "ImagePullBackOff"] {
        set(&json!({"waiting": {"reason": reason, "message": format!("{reason} of it")}}))?;
    }
    // Behind all these, something that has an effect.
    shop.sandbox("other", &json!({"keys": ["other"], "forks": [crate::world::orders(&json!({}))]}))?;
    shop.condition("other", "Forked", "True", "Forked")?;
    ensure!(shop.condition("pr", "Ready", "False", "ErrImagePull")? == said);
    ensure!(version(&shop.get("sandbox", "pr")?) == version(&before));
    Ok(())
}

#[test]
fn a_condition_keeps_the_time_at_which_it_changed() -> Result<()> {
    let Some(shop) = shop("times")? else { return Ok(()) };
    shop.ready(&json!({}))?;
    let time = |kind: &str| -> Result<Value> {
        let sandbox = shop.get("sandbox", "pr")?;
        Ok(crate::world::condition(&sandbox, kind)["lastTransitionTime"].clone())
    };
    let (forked, ready) = (time("Forked")?, time("Ready")?);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    shop.kube.run(&["delete", "pod", "pr-orders-1", "--force", "--grace-period=0"])?;
    shop.condition("pr", "Ready", "False", "Starting")?;
    ensure!(time("Forked")? == forked && time("Ready")? != ready, "{forked} {ready}");
    Ok(())
}
