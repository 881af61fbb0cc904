//! How long forks live, and what becomes of them when their baseline or an older Sandbox is in the way.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sidetrack_tests::wait_for;
use std::time::Duration;

use crate::world::{orders, shop, template};

#[test]
fn a_sandbox_expires_keeps_its_name_and_lives_again_when_it_gets_more_time() -> Result<()> {
    let Some(shop) = shop("expires")? else { return Ok(()) };
    shop.sandbox("pr", &json!({"ttl": "1m", "forks": [orders(&json!({}))]}))?;
    shop.copy("pr")?;
    let created = shop.get("sandbox", "pr")?["metadata"]["creationTimestamp"].clone();
    let created: jiff::Timestamp = created.as_str().unwrap_or_default().parse()?;
    let expires = |minutes: u64| -> Result<()> {
        let at = (created + Duration::from_mins(minutes)).to_string();
        shop.wait(&format!("expiresAt {at}"), || {
            Ok((shop.get("sandbox", "pr")?["status"]["expiresAt"] == at.as_str()).then_some(()))
        })
    };
    expires(1)?;
    let gone = || shop.made("deployments", "pr").is_ok_and(|all| all.is_empty()).then_some(());
    wait_for("the fork to go", Duration::from_secs(100), gone)?;
    ensure!(jiff::Timestamp::now() >= created + Duration::from_mins(1), "too early");
    shop.condition("pr", "Expired", "True", "Expired")?;
    shop.condition("pr", "Ready", "False", "Expired")?;
    let sandbox = shop.get("sandbox", "pr")?;
    ensure!(
        sandbox["status"]["readyForks"] == "0/1" && sandbox["status"]["forks"][0]["services"] == json!(["orders"]),
        "{sandbox:#}"
    );
    shop.merge("sandbox", "pr", &json!({"spec": {"ttl": "2h"}}))?;
    shop.copy("pr")?;
    shop.condition("pr", "Expired", "False", "NotExpired")?;
    shop.condition("pr", "Forked", "True", "Forked")?;
    expires(120)
}

#[test]
fn a_sandbox_without_a_time_lives_for_a_day() -> Result<()> {
    let Some(shop) = shop("day")? else { return Ok(()) };
    shop.fork(&json!({}))?;
    shop.condition("pr", "Forked", "True", "Forked")?;
    let sandbox = shop.get("sandbox", "pr")?;
    let created: jiff::Timestamp = sandbox["metadata"]["creationTimestamp"].as_str().unwrap_or_default().parse()?;
    let expected = (created + Duration::from_hours(24)).to_string();
    ensure!(sandbox["status"]["expiresAt"] == expected.as_str(), "{sandbox:#}");
    Ok(())
}

fn of_image(image: &str) -> Value {
    let mut template = template();
    template["spec"]["containers"][0]["image"] = json!(image);
    json!({"template": template})
}

#[test]
fn a_fork_stays_as_it_is_when_its_baseline_changes_and_says_so() -> Result<()> {
    let Some(shop) = shop("drift")? else { return Ok(()) };
    let before = shop.ready(&json!({}))?;
    shop.workload("Deployment", "orders", &of_image("orders:2"))?;
    let said = shop.condition("pr", "BaselineDrifted", "True", "BaselineChanged")?;
    ensure!(said.contains("Deployment orders has changed"), "{said}");
    ensure!(shop.copy("pr")?["metadata"]["generation"] == before["metadata"]["generation"]);
    // A restart makes new pods of the same; a change copies what is there by then.
    let at = json!({"metadata": {"annotations": {"sidetrack.dev/restarted-at": "2026-01-01T00:00:00Z"}}});
    shop.merge("sandbox", "pr", &at)?;
    let image = |copy: &Value| copy["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let restarted = shop.wait("a restart", || {
        let copy = shop.copy("pr")?;
        Ok((copy["metadata"]["generation"] != before["metadata"]["generation"]).then_some(copy))
    })?;
    ensure!(image(&restarted) == "orders:1", "{restarted:#}");
    shop.condition("pr", "BaselineDrifted", "True", "BaselineChanged")?;
    shop.fork(&json!({"env": {"app": [{"name": "FEATURE", "value": "on"}]}}))?;
    shop.wait("the new baseline", || Ok((image(&shop.copy("pr")?) == "orders:2").then_some(())))?;
    shop.condition("pr", "BaselineDrifted", "False", "UpToDate")?;
    shop.kube.run(&["delete", "deployment", "orders"])?;
    shop.condition("pr", "BaselineDrifted", "True", "BaselineGone")?;
    shop.copy("pr")?;
    let services = shop.get("sandbox", "pr")?["status"]["forks"][0]["services"].clone();
    ensure!(services == json!(["orders"]), "its keys are the fork's all the same: {services}");
    Ok(())
}

#[test]
fn a_fork_that_follows_is_rolled_when_its_baseline_changes() -> Result<()> {
    let Some(shop) = shop("follow")? else { return Ok(()) };
    shop.sandbox("pr", &json!({"follow": "Always", "forks": [orders(&json!({}))]}))?;
    shop.copy("pr")?;
    shop.workload("Deployment", "orders", &of_image("orders:2"))?;
    shop.wait("the new baseline", || {
        let copy = shop.copy("pr")?;
        Ok((copy["spec"]["template"]["spec"]["containers"][0]["image"] == "orders:2").then_some(()))
    })?;
    shop.condition("pr", "BaselineDrifted", "False", "UpToDate").map(drop)
}

#[test]
fn of_two_with_one_key_the_younger_says_conflict_until_the_older_goes() -> Result<()> {
    let Some(shop) = shop("conflict")? else { return Ok(()) };
    let spec = json!({"keys": [format!("key-{}", shop.kube.namespace())], "forks": [orders(&json!({}))]});
    shop.sandbox("older", &spec)?;
    shop.condition("older", "Forked", "True", "Forked")?;
    // The API server keeps a time's seconds.
    let second = || (jiff::Timestamp::now().subsec_millisecond() < 100).then_some(());
    wait_for("another second", Duration::from_secs(3), second)?;
    wait_for("its beginning to pass", Duration::from_secs(3), || second().is_none().then_some(()))?;
    wait_for("one more", Duration::from_secs(3), second)?;
    shop.sandbox("younger", &spec)?;
    let said = shop.condition("younger", "Conflict", "True", "OlderSandbox")?;
    ensure!(said.contains("/older"), "{said}");
    shop.condition("older", "Conflict", "False", "NoConflict")?;
    shop.kube.run(&["delete", "sandbox", "older", "--timeout=30s"])?;
    shop.condition("younger", "Conflict", "False", "NoConflict").map(drop)
}

#[test]
fn sandboxes_of_several_namespaces_with_one_key_know_one_another() -> Result<()> {
    let (Some(shop), Some(other)) = (shop("group")?, shop("group")?) else { return Ok(()) };
    let spec = json!({"keys": [format!("key-{}", shop.kube.namespace())], "forks": [orders(&json!({}))]});
    shop.sandbox("pr", &spec)?;
    other.sandbox("pr", &spec)?;
    for (one, another) in [(&shop, &other), (&other, &shop)] {
        let name = json!([format!("{}/pr", another.kube.namespace())]);
        one.wait("the other", || Ok((one.get("sandbox", "pr")?["status"]["group"] == name).then_some(())))?;
    }
    other.kube.run(&["delete", "sandbox", "pr", "--timeout=30s"])?;
    shop.wait("nobody else", || Ok(shop.get("sandbox", "pr")?["status"]["group"].is_null().then_some(())))
}
