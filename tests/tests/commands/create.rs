//! `sidetrack create`.

use anyhow::{Result, ensure};
use rstest::rstest;
use serde_json::json;

use crate::world::{World, condition};

#[test]
fn what_flags_say_is_what_is_stored() -> Result<()> {
    let Some(world) = World::new("create")? else { return Ok(()) };
    world.deployment("orders", &["app"])?;
    let said = world.me.feed(
        &[
            "create",
            "pr",
            "--key",
            "pr-1",
            "--key",
            "pr-2",
            "--ttl",
            "90m",
            "--on-unreachable",
            "baseline",
            "--fork",
            "deploy/orders",
            "--image",
            "reg:5000/orders:pr",
            "--env",
            "FEATURE=on",
            "--env",
            "other:URL=http://x?a=b c",
            "--replicas",
            "2",
            "--fork",
            "sts/db",
            "--image",
            "db=db:3",
        ],
        "",
    )?;
    ensure!(said.well()? == "sandbox.sidetrack.dev/pr created\n");
    let spec = world.stored("pr")?["spec"].clone();
    let expected = json!({
        "keys": ["pr-1", "pr-2"], "ttl": "90m", "onUnreachable": "Baseline", "follow": "Never", "forks": [
            {"name": "orders", "workload": {"kind": "Deployment", "name": "orders"}, "replicas": 2,
                "images": {"app": "reg:5000/orders:pr"},
                "env": {"app": [{"name": "FEATURE", "value": "on"}], "other": [{"name": "URL", "value": "http://x?a=b c"}]}},
            {"name": "db", "workload": {"kind": "StatefulSet", "name": "db"}, "images": {"db": "db:3"}}]});
    ensure!(spec == expected, "{spec:#}");
    // A second one of this name is none.
    world
        .me
        .say("create pr --fork deploy/orders")?
        .failed(5, &["there is a sandbox pr in namespace", "sidetrack extend"])
}

#[test]
fn a_container_that_is_not_named_is_the_workloads_only_one() -> Result<()> {
    let Some(world) = World::new("containers")? else { return Ok(()) };
    world.deployment("orders", &["app", "proxy"])?;
    let said = world.me.say("create pr --fork deploy/orders --image orders:2")?;
    said.failed(2, &["deployment/orders has the containers app, proxy", "--image app=IMAGE"])?;
    let said = world.me.say("create pr --fork deploy/nope --env A=1")?;
    said.failed(3, &["there is no deployment nope in namespace"])?;
    ensure!(world.me.say("list -o name")?.well()?.is_empty());
    // Who names it needs no right to look.
    let user = world.somebody("namer")?;
    world.kube.run(&[
        "create",
        "role",
        "namer",
        "--verb=create",
        "--resource=sandboxes.sidetrack.dev,deployments.apps",
    ])?;
    world.kube.run(&["create", "rolebinding", "namer", "--role=namer", "--user=namer"])?;
    let named = "create pr --fork deploy/orders --image app=orders:2";
    sidetrack_tests::wait_for("the role to count", crate::world::PATIENCE, || {
        user.say(&format!("{named} --dry-run=server")).ok().filter(|said| said.code == 0)
    })?;
    user.say("create pr --fork deploy/orders --image orders:2")?
        .failed(5, &["cannot get resource \"deployments\"", "the role view"])?;
    user.say(named)?.well().map(drop)
}

#[test]
fn a_dry_run_stores_nothing_and_shows_what_would_be() -> Result<()> {
    let Some(world) = World::new("dry")? else { return Ok(()) };
    let line = "create pr --fork deploy/orders --image app=orders:2";
    let said = world.me.say(&format!("{line} --dry-run=server"))?.well()?;
    ensure!(said == "sandbox.sidetrack.dev/pr created (server dry run)\n", "{said}");
    let object = world.me.say(&format!("{line} --dry-run=server -o json"))?.json()?;
    ensure!(object["metadata"]["uid"].is_string() && object["metadata"]["managedFields"].is_null(), "{object:#}");
    let yaml = world.me.say(&format!("{line} --dry-run=client"))?.well()?;
    ensure!(yaml.starts_with("apiVersion: sidetrack.dev/v1alpha1\n"), "{yaml}");
    ensure!(world.me.say("list -o name")?.well()?.is_empty());
    // What it shows can be applied.
    world.me.feed(&["apply", "-f", "-"], &yaml)?.well()?;
    ensure!(world.stored("pr")?["spec"]["forks"][0]["images"]["app"] == "orders:2");
    Ok(())
}

#[rstest]
#[case::values("create pr --fork deploy/orders --ttl 10s --replicas 99 --key a/b",
    &["sandbox pr in namespace", "is not valid:\n", "\n  spec.keys[0]: ", "\n  spec.forks[0].replicas: "])]
#[case::a_rule("create pr --fork deploy/orders --ttl 10s", &["\n  spec.ttl: Invalid value: \"10s\": expected a time of 1m to 8760h"])]
#[case::twice("create pr --fork deploy/orders --fork deploy/orders", &["two forks of one workload: put what they change into one fork"])]
#[case::its_name("create Pr --fork deploy/orders", &["metadata.name: "])]
fn what_is_not_valid_is_said_one_a_line(#[case] line: &str, #[case] words: &[&str]) -> Result<()> {
    let Some(world) = World::new("invalid")? else { return Ok(()) };
    world.me.say(line)?.failed(5, words)
}

#[test]
fn a_namespace_that_is_not_there_is_named() -> Result<()> {
    let Some(world) = World::new("nowhere")? else { return Ok(()) };
    world.me.say("create pr --fork deploy/orders -n nowhere")?.failed(3, &["there is no namespace nowhere"])
}

#[test]
fn who_waits_is_told_when_every_node_steers() -> Result<()> {
    let Some(world) = World::new("waits")? else { return Ok(()) };
    let mut created = world.me.start("create pr --fork deploy/orders --wait --timeout 60s")?;
    sidetrack_tests::wait_for("the Sandbox", crate::world::PATIENCE, || world.stored("pr").ok())?;
    world.status("pr", &json!({"conditions": [condition("Routed", "True", "Acknowledged", "", 1)]}))?;
    let status = created.wait(crate::world::PATIENCE)?;
    let lines = created.output().lines();
    ensure!(
        status.success() && lines == ["sandbox.sidetrack.dev/pr created", "sandbox.sidetrack.dev/pr routed"],
        "{lines:?}"
    );
    let said = world.me.say("create other --fork deploy/orders --wait --timeout 1s")?;
    said.failed(4, &["is not routed after 1s", "does Sidetrack's controller run?"])?;
    ensure!(said.out == "sandbox.sidetrack.dev/other created\n", "{said:?}");
    Ok(())
}
