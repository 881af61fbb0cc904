//! What the controller makes of Sandboxes on a real API server, and what it says of them.

mod access;
mod copies;
mod life;
mod said;
mod world;

use anyhow::{Result, ensure};
use serde_json::json;

use self::world::{condition, orders, shop, version};

#[test]
fn a_sandbox_becomes_a_fork_is_ready_with_its_pods_and_leaves_nothing() -> Result<()> {
    let Some(shop) = shop("whole")? else { return Ok(()) };
    let deployment =
        shop.ready(&json!({"images": {"app": "orders:pr"}, "env": {"app": [{"name": "FEATURE", "value": "on"}]}}))?;
    let spec = &deployment["spec"];
    let container = &spec["template"]["spec"]["containers"][0];
    ensure!(container["image"] == "orders:pr", "{deployment:#}");
    let key = format!("pr.{}", shop.kube.namespace());
    let env = json!([{"name": "COLOUR", "value": "blue"}, {"name": "FEATURE", "value": "on"},
        {"name": "SIDETRACK_SANDBOX", "value": "pr"}, {"name": "SIDETRACK_KEY", "value": key}]);
    ensure!(container["env"] == env, "{container:#}");
    let selector = spec["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
    ensure!(!selector.is_empty() && selector.keys().all(|label| label.starts_with("sidetrack.dev/")), "{spec:#}");
    let sandbox = shop.get("sandbox", "pr")?;
    let owner = &deployment["metadata"]["ownerReferences"][0];
    ensure!(owner["uid"] == sandbox["metadata"]["uid"] && owner["controller"] == true, "{deployment:#}");
    let status = &sandbox["status"];
    ensure!(status["keys"] == json!([key]) && status["readyForks"] == "1/1", "{status:#}");
    ensure!(status["observedGeneration"] == sandbox["metadata"]["generation"], "{sandbox:#}");
    let fork = &status["forks"][0];
    ensure!(fork["services"] == json!(["orders"]) && fork["readyEndpoints"] == 1, "{status:#}");
    ensure!(fork["baseline"]["name"] == "orders" && fork["baseline"]["kind"] == "Deployment", "{status:#}");
    for (kind, expected) in [
        ("Forked", "True"),
        ("Hazards", "False"),
        ("BaselineDrifted", "False"),
        ("Conflict", "False"),
        ("Expired", "False"),
    ] {
        ensure!(condition(&sandbox, kind)["status"] == expected, "{kind}: {status:#}");
    }
    let events = shop.wait("events", || {
        let events = shop.kube.run(&[
            "get",
            "events",
            "--output=custom-columns=R:.reason,K:.involvedObject.kind,N:.involvedObject.name",
        ])?;
        Ok(["Forked", "Starting", "Ready"].iter().all(|it| events.contains(it)).then_some(events))
    })?;
    ensure!(events.contains("Sandbox") && events.contains("pr"), "{events}");
    shop.kube.run(&["delete", "sandbox", "pr", "--timeout=30s"])?;
    ensure!(shop.made("deployments,networkpolicies", "pr")?.is_empty());
    Ok(())
}

#[test]
fn while_nothing_changes_nothing_is_written() -> Result<()> {
    let Some(shop) = shop("flat")? else { return Ok(()) };
    shop.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "orders"},
        "spec": {"podSelector": {"matchLabels": {"app": "orders"}}, "policyTypes": ["Ingress"], "ingress": [{}]}}))?;
    shop.ready(&json!({}))?;
    let versions = || -> Result<Vec<String>> {
        let mut all = vec![version(&shop.get("sandbox", "pr")?).to_string()];
        for object in shop.made("deployments,networkpolicies", "pr")? {
            all.push(version(&object).to_string());
        }
        Ok(all)
    };
    let before = versions()?;
    ensure!(before.len() == 3, "{before:?}");
    // Each of these is a reason to look again. The last has an effect, behind all others.
    for n in 0..5 {
        shop.merge("service", "orders", &json!({"metadata": {"annotations": {"touched": n.to_string()}}}))?;
        shop.merge("deployment", "orders", &json!({"metadata": {"annotations": {"touched": n.to_string()}}}))?;
    }
    shop.sandbox("other", &json!({"keys": ["other"], "forks": [orders(&json!({}))]}))?;
    shop.condition("other", "Forked", "True", "Forked")?;
    ensure!(versions()? == before, "{before:?} {:?}", versions()?);
    Ok(())
}

#[test]
fn what_changes_in_a_sandbox_changes_its_fork_and_what_it_names_no_longer_goes() -> Result<()> {
    let Some(shop) = shop("change")? else { return Ok(()) };
    shop.workload(
        "Deployment",
        "payments",
        &json!({"template": {"metadata": {"labels": {"app": "payments"}},
        "spec": {"containers": [{"name": "app", "image": "payments:1"}]}}}),
    )?;
    let payments = json!({"name": "payments", "workload": {"kind": "Deployment", "name": "payments"}});
    shop.sandbox("pr", &json!({"forks": [orders(&json!({})), payments]}))?;
    shop.wait("two forks", || Ok((shop.made("deployments", "pr")?.len() == 2).then_some(())))?;
    shop.sandbox("pr", &json!({"forks": [orders(&json!({"replicas": 2}))]}))?;
    let scaled = shop.wait("one fork of two pods", || {
        let mut all = shop.made("deployments", "pr")?;
        Ok(all.pop().filter(|it| all.is_empty() && it["spec"]["replicas"] == 2))
    })?;
    shop.fork(&json!({"replicas": 2, "images": {"app": "orders:pr"}}))?;
    let changed = shop.wait("another image", || {
        let copy = shop.copy("pr")?;
        Ok((copy["spec"]["template"]["spec"]["containers"][0]["image"] == "orders:pr").then_some(copy))
    })?;
    ensure!(changed["metadata"]["uid"] == scaled["metadata"]["uid"], "it is rolled, not made anew");
    let at = "2026-01-01T00:00:00Z";
    shop.merge("sandbox", "pr", &json!({"metadata": {"annotations": {"sidetrack.dev/restarted-at": at}}}))?;
    shop.wait("a restart", || {
        let copy = shop.copy("pr")?;
        Ok((copy["spec"]["template"]["metadata"]["annotations"]["sidetrack.dev/restarted-at"] == at).then_some(()))
    })
}

#[test]
fn a_sandbox_that_changes_all_the_time_gets_its_fork_all_the_same() -> Result<()> {
    let Some(shop) = shop("busy")? else { return Ok(()) };
    shop.fork(&json!({}))?;
    for n in 0..30 {
        shop.merge(
            "sandbox",
            "pr",
            &json!({"metadata": {"annotations": {"n": n.to_string()}}, "spec": {"ttl": format!("{}m", n + 5)}}),
        )?;
    }
    shop.condition("pr", "Forked", "True", "Forked")?;
    shop.wait("the last generation to be looked at", || {
        let sandbox = shop.get("sandbox", "pr")?;
        Ok((sandbox["status"]["observedGeneration"] == sandbox["metadata"]["generation"]).then_some(()))
    })?;
    shop.copy("pr").map(drop)
}

#[test]
fn a_service_made_later_gets_no_living_pod_of_a_fork_and_nothing_is_rolled_out() -> Result<()> {
    let Some(shop) = shop("guard")? else { return Ok(()) };
    shop.ready(&json!({}))?;
    let before = shop.get("pod", "pr-orders-1")?["metadata"]["labels"].clone();
    ensure!(before["team.example/name"] == "shop" && before["app"] != "orders", "{before:#}");
    let generation = shop.copy("pr")?["metadata"]["generation"].clone();
    shop.service("all-of-shop", &json!({"team.example/name": "shop"}), "10.99.7.9")?;
    shop.wait("another label", || {
        let labels = shop.get("pod", "pr-orders-1")?["metadata"]["labels"].clone();
        Ok((labels["team.example/name"] != "shop").then_some(()))
    })?;
    ensure!(shop.copy("pr")?["metadata"]["generation"] == generation);
    shop.wait("both Services", || {
        let services = shop.get("sandbox", "pr")?["status"]["forks"][0]["services"].clone();
        Ok((services == json!(["all-of-shop", "orders"])).then_some(()))
    })
}
