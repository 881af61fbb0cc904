//! `sidetrack extend`, `restart`, `logs` and `delete`.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sidetrack_tests::wait_for;

use crate::world::{PATIENCE, World, sandbox};

#[test]
fn a_sandbox_lives_as_long_as_is_said_or_so_much_longer() -> Result<()> {
    let Some(world) = World::new("extend")? else { return Ok(()) };
    world.sandbox()?;
    let ttl = || world.stored("pr").map(|stored| stored["spec"]["ttl"].clone());
    let said = world.me.say("extend pr --by 30m")?.well()?;
    ensure!(said.starts_with("sandbox.sidetrack.dev/pr lives until 20") && said.contains(", for 2h"), "{said}");
    ensure!(ttl()? == "2h30m");
    ensure!(world.me.say("extend pr --ttl 4h -o json")?.json()?["spec"]["ttl"] == "4h");
    ensure!(ttl()? == "4h");
    // Of the cluster's default, only the status knows.
    world.kube.run(&["patch", "sandbox", "pr", "--type=merge", "--patch", "{\"spec\":{\"ttl\":null}}"])?;
    world.me.say("extend pr --by 1h")?.failed(2, &["has no end that could be moved"])?;
    let created = world.stored("pr")?["metadata"]["creationTimestamp"].as_str().context("a time")?.to_owned();
    world.status("pr", &json!({"expiresAt": created}))?;
    // It is over: it lives an hour from this moment on.
    world.me.say("extend pr --by 1h")?.well()?;
    ensure!(ttl()?.as_str().is_some_and(|ttl| ttl.starts_with("1h")), "{}", ttl()?);
    world
        .me
        .say("extend pr --ttl 9000h")?
        .failed(5, &["\n  spec.ttl: Invalid value: \"9000h\": expected a time of 1m to 8760h"])?;
    world.me.say("extend nope --ttl 1h")?.failed(3, &["there is no sandbox nope"])?;
    world.me.say("extend nope --by 1h")?.failed(3, &["there is no sandbox nope"])
}

#[test]
fn a_restart_is_a_time_on_the_sandbox_for_all_forks_or_for_one() -> Result<()> {
    let Some(world) = World::new("restart")? else { return Ok(()) };
    world.sandbox()?;
    let annotations = || world.stored("pr").map(|stored| stored["metadata"]["annotations"].clone());
    let time = |key: &str| -> Result<jiff::Timestamp> {
        let found = annotations()?;
        Ok(found[key].as_str().with_context(|| format!("{found:#}"))?.parse()?)
    };
    ensure!(world.me.say("restart pr")?.well()? == "sandbox.sidetrack.dev/pr restarts\n");
    let first = time("sidetrack.dev/restarted-at")?;
    ensure!(world.me.say("restart pr orders")?.well()? == "sandbox.sidetrack.dev/pr restarts fork orders\n");
    ensure!(time("sidetrack.dev/restarted-at.orders")? > first && time("sidetrack.dev/restarted-at")? == first);
    world.me.say("restart pr")?.well()?;
    ensure!(time("sidetrack.dev/restarted-at")? > first);
    // Nothing that is wished has changed.
    ensure!(world.stored("pr")?["metadata"]["generation"] == 1);
    world.me.say("restart pr nope")?.failed(3, &["sandbox pr has no fork nope: there are orders, mocks"])?;
    world.me.say("restart pr mocks")?.failed(2, &["the pods of fork mocks are somebody else's"])?;
    world.me.say("restart nope")?.failed(3, &["there is no sandbox nope"])
}

/// No kubelet runs here that would have a log: what the API server itself says of that is shown. How lines are copied is tested
/// beside the code.
#[test]
fn logs_that_cannot_be_had_say_why_of_each_container() -> Result<()> {
    let Some(world) = World::new("logs")? else { return Ok(()) };
    world.sandbox()?;
    world.me.say("logs pr")?.failed(3, &["sandbox pr has no pod: `sidetrack get pr` says why"])?;
    world.me.say("logs pr mocks")?.failed(3, &["fork mocks of sandbox pr has no pod"])?;
    world.me.say("logs pr nope")?.failed(3, &["has no fork nope"])?;
    world.pod("pr-orders-1", None, &json!({"phase": "Pending"}))?;
    let said = world.me.say("logs pr")?;
    said.failed(3, &["pod pr-orders-1 has no log, no node runs it: it is not scheduled yet"])?;
    world.pod("pr-orders-2", Some("n1"), &json!({"phase": "Pending"}))?;
    for follow in ["", " -f --tail 10 --since 5m"] {
        let said = world.me.say(&format!("logs pr{follow}"))?;
        let asked = format!("there is no log of container app of pod pr-orders-2 in namespace {} (", world.ns);
        said.failed(3, &[&asked, "\"n1\" not found", "pod pr-orders-1 has no log"])?;
        ensure!(said.out.is_empty(), "{said:?}");
    }
    world.kube.run(&["delete", "pod", "pr-orders-1", "--force", "--grace-period=0"])?;
    let said = world.me.say("logs pr orders -c nope")?;
    said.failed(3, &["no pod of fork orders of sandbox pr has a container nope: there are app"])
}

#[test]
fn what_is_deleted_is_gone_and_what_is_not_there_is_said() -> Result<()> {
    let Some(world) = World::new("delete")? else { return Ok(()) };
    for name in ["a", "b"] {
        world.kube.apply(&sandbox(name).to_string())?;
    }
    let said = world.me.say("delete a nope b")?;
    said.failed(3, &["there is no sandbox nope"])?;
    ensure!(said.out == "sandbox.sidetrack.dev/a deleted\nsandbox.sidetrack.dev/b deleted\n", "{said:?}");
    ensure!(world.me.say("list -o name")?.well()?.is_empty());
    ensure!(world.me.say("delete a --ignore-not-found")?.well()?.is_empty());
    Ok(())
}

#[test]
fn who_waits_for_a_deletion_waits_for_all_that_must_come_before_it() -> Result<()> {
    let Some(world) = World::new("finalizer")? else { return Ok(()) };
    let mut object = sandbox("pr");
    object["metadata"]["finalizers"] = json!(["sidetrack.dev/routes"]);
    world.kube.apply(&object.to_string())?;
    ensure!(world.me.say("delete pr")?.well()? == "sandbox.sidetrack.dev/pr is being deleted\n");
    let said = world.me.say("delete pr --wait --timeout 1s")?;
    said.failed(4, &["sandbox pr in namespace", "is not deleted after 1s", "waits for sidetrack.dev/routes"])?;
    let mut waits = world.me.start("delete pr --wait --timeout 60s")?;
    let begun = || waits.output().lines().iter().any(|line| line.ends_with("is being deleted")).then_some(());
    wait_for("the deletion", PATIENCE, begun)?;
    waits.check_alive()?;
    world.kube.run(&["patch", "sandbox", "pr", "--type=merge", "--patch", "{\"metadata\":{\"finalizers\":null}}"])?;
    let status = waits.wait(PATIENCE)?;
    let lines = waits.output().lines();
    ensure!(
        status.success() && lines.last().is_some_and(|line| line == "sandbox.sidetrack.dev/pr deleted"),
        "{lines:?}"
    );
    ensure!(world.stored("pr").is_err());
    Ok(())
}

#[test]
fn fields_of_an_object_are_those_that_were_written() -> Result<()> {
    let Some(world) = World::new("managers")? else { return Ok(()) };
    world.me.say("create pr --fork deploy/orders")?.well()?;
    world.me.say("extend pr --ttl 1h")?.well()?;
    let stored = world.kube.json(&["get", "sandbox", "pr", "--show-managed-fields"])?;
    let managers: Vec<_> =
        stored["metadata"]["managedFields"].as_array().into_iter().flatten().map(|one| &one["manager"]).collect();
    ensure!(!managers.is_empty() && managers.iter().all(|one| *one == "sidetrack"), "{managers:?}");
    Ok(())
}
