//! `sidetrack list`, `get` and `key`.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::world::{World, condition, sandbox, words};

/// As kubectl shows it.
fn without_managers(mut object: Value) -> Value {
    object["metadata"].as_object_mut().map(|metadata| metadata.remove("managedFields"));
    object
}

#[test]
fn a_list_is_a_table_a_list_of_the_api_or_names() -> Result<()> {
    let Some(world) = World::new("list")? else { return Ok(()) };
    let Some(other) = World::new("list-other")? else { return Ok(()) };
    let said = world.me.say("list")?.well()?;
    ensure!(said.contains(&format!("no Sandbox in namespace {}", world.ns)), "{said}");
    ensure!(world.me.say("list -o json")?.json()?["items"] == json!([]));
    world.sandbox()?;
    other.kube.apply(&sandbox("other").to_string())?;
    world.status(
        "pr",
        &json!({"observedGeneration": 1, "keys": ["pr.x"], "readyForks": "1/2", "conditions": [
        condition("Ready", "False", "ImagePullBackOff", "", 1), condition("Routed", "True", "Acknowledged", "", 1)]}),
    )?;
    let said = world.me.say("list")?.well()?;
    let lines: Vec<_> = said.lines().map(words).collect();
    ensure!(lines[0] == ["NAME", "KEYS", "FORKS", "READY", "ROUTED", "EXPIRES", "AGE"], "{said}");
    ensure!(lines.len() == 2 && lines[1][..6] == ["pr", "pr.x", "1/2", "no", "yes", "in"], "{said}");
    let wide = world.me.say("list -A -o wide")?.well()?;
    let line = wide.lines().find(|line| line.starts_with(&world.ns)).context("the namespace's")?;
    ensure!(line.contains("deployment/orders,pods of others") && line.ends_with("ImagePullBackOff"), "{wide}");
    ensure!(wide.contains(&other.ns), "{wide}");
    let list = world.me.say("list -o json")?.json()?;
    ensure!(list["apiVersion"] == "v1" && list["kind"] == "List", "{list:#}");
    ensure!(list["items"] == json!([without_managers(world.stored("pr")?)]), "{list:#}");
    ensure!(world.me.say("list -o name")?.well()? == "sandbox.sidetrack.dev/pr\n");
    // kubectl takes the names as they are.
    world.kube.run(&["label", "sandbox.sidetrack.dev/pr", "team=shop"])?;
    ensure!(world.me.say("list -l team=shop -o name")?.well()? == "sandbox.sidetrack.dev/pr\n");
    ensure!(world.me.say("list -l team=other")?.well()?.contains("no Sandbox with these labels"));
    ensure!(world.me.say("list -n nowhere -o name")?.well()?.is_empty());
    Ok(())
}

#[test]
fn a_sandbox_is_shown_with_its_pods_and_why_one_is_not_ready() -> Result<()> {
    let Some(world) = World::new("get")? else { return Ok(()) };
    world.sandbox()?;
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"app:2\""}});
    let container =
        json!({"name": "app", "image": "app:2", "imageID": "", "ready": false, "restartCount": 3, "state": waiting});
    world.pod("pr-orders-1", Some("n1"), &json!({"phase": "Pending", "containerStatuses": [container]}))?;
    let unschedulable = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/2 nodes are available: 2 Insufficient cpu."}]);
    world.pod("pr-orders-2", None, &json!({"phase": "Pending", "conditions": unschedulable}))?;
    world.kube.apply("{apiVersion: v1, kind: Pod, metadata: {name: mock-1, labels: {app: mock}}, spec: {automountServiceAccountToken: false, nodeName: n2, containers: [{name: m, image: m}]}}")?;
    let ready =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
    world.kube.run(&["patch", "pod", "mock-1", "--subresource=status", "--type=merge", "--patch", &ready])?;
    world.status(
        "pr",
        &json!({"observedGeneration": 1, "conditions": [
        condition("Ready", "False", "ImagePullBackOff", "fork orders: Back-off pulling image", 1)]}),
    )?;
    let said = world.me.say("get pr")?.well()?;
    let lines: Vec<_> = said.lines().map(words).collect();
    for line in [
        &["pr-orders-1", "orders", "ImagePullBackOff", "no", "3", "n1"][..],
        &["pr-orders-2", "orders", "Pending", "no", "0", "-"],
        &["mock-1", "mocks", "Running", "yes", "0", "n2"],
        &["mocks", "pods", "of", "others", "payments", "0"],
    ] {
        ensure!(lines.iter().any(|found| found.starts_with(line)), "{line:?}\nis not in\n{said}");
    }
    for part in [
        format!("sandbox pr in namespace {}: not ready\n", world.ns),
        "pr-orders-1: container app: ImagePullBackOff: Back-off pulling image \"app:2\"\n".into(),
        "pr-orders-2: Unschedulable: 0/2 nodes are available: 2 Insufficient cpu.\n".into(),
        "fork orders: Back-off pulling image\n".into(),
        format!("keys         pr.{}\n", world.ns),
    ] {
        ensure!(said.contains(&part), "{part}\nis not in\n{said}");
    }
    let object = world.me.say("get pr -o json")?.json()?;
    ensure!(object == without_managers(world.stored("pr")?), "{object:#}");
    ensure!(world.me.say("get pr -o name")?.well()? == "sandbox.sidetrack.dev/pr\n");
    ensure!(world.me.say("get pr -o yaml")?.well()?.contains("\nkind: Sandbox\n"));
    ensure!(world.me.say("get pr -o wide")?.well()?.contains("app:2"));
    let said = world.me.say("get nope")?;
    said.failed(3, &[&format!("there is no sandbox nope in namespace {}; `sidetrack list -n {0}`", world.ns)])
}

#[test]
fn who_may_not_see_pods_sees_the_sandbox_and_which_right_is_missing() -> Result<()> {
    let Some(world) = World::new("podless")? else { return Ok(()) };
    world.sandbox()?;
    world.kube.run(&["create", "rolebinding", "viewer", "--clusterrole=sidetrack-view", "--user=podless"])?;
    let user = world.somebody("podless")?;
    let said = sidetrack_tests::wait_for("the role to count", crate::world::PATIENCE, || {
        user.say("get pr").ok().filter(|said| said.code == 0)
    })?;
    ensure!(
        said.out.contains("pods are not known: not allowed: ") && said.out.contains("cannot list resource \"pods\""),
        "{said:?}"
    );
    Ok(())
}

#[test]
fn the_header_to_send_is_that_of_the_clusters_first_carrier() -> Result<()> {
    let Some(world) = World::new("key")? else { return Ok(()) };
    world.sandbox()?;
    let key = format!("pr.{}", world.ns);
    ensure!(world.me.say("key pr")?.well()? == format!("baggage: sidetrack={key}\n"));
    let command = world.me.feed(&["key", "pr", "--curl", "http://orders/?a=1&b='2'"], "")?.well()?;
    // As a shell reads it: with the header and the URL as one word each.
    let echo = command.replacen("curl", "printf '%s|'", 1);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &echo]);
    let said = world.me.run(shell, "")?.well()?;
    ensure!(said == format!("-H|baggage: sidetrack={key}|http://orders/?a=1&b='2'|"), "{command}{said}");
    world.me.feed(&["key", "pr", "--curl", "http://a\nb"], "")?.failed(2, &["is no URL"])?;
    let all = world.me.say("key pr --all")?.well()?;
    ensure!(all.lines().count() == 10 && all.contains(&format!("\nx-sidetrack-key: {key}\n")), "{all}");
    // The keys in force, by the carriers of the cluster.
    world.status("pr", &json!({"keys": ["k1", "k2"]}))?;
    let config = json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "SidetrackConfig", "metadata": {"name": "default"},
        "spec": {"carriers": ["header:x-team-key", "tracestate:st"]}});
    world.me.feed(&["apply", "-f", "-"], &config.to_string())?.well()?;
    let all = world.me.say("key pr --all");
    let one = world.me.say("key pr");
    world.kube.run(&["create", "rolebinding", "keys", "--clusterrole=sidetrack-view", "--user=keys"])?;
    let user = world.somebody("keys")?;
    let blind = sidetrack_tests::wait_for("the role to count", crate::world::PATIENCE, || {
        user.say("key pr").ok().filter(|said| said.code == 0)
    });
    // It is the cluster's: other tests must not meet it.
    world.kube.run(&["delete", "sidetrackconfig", "default"])?;
    ensure!(one?.well()? == "x-team-key: k1\n");
    ensure!(all?.well()? == "x-team-key: k1\ntracestate: st=k1\nx-team-key: k2\ntracestate: st=k2\n");
    let blind = blind?;
    ensure!(
        blind.out == "baggage: sidetrack=k1\n" && blind.err.contains("cannot get resource \"sidetrackconfigs\""),
        "{blind:?}"
    );
    world.me.say("key nope")?.failed(3, &["there is no sandbox nope"])
}
