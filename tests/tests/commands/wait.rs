//! `sidetrack wait`: by a watch, for the Sandbox as it was last changed.

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::json;
use sidetrack_tests::{ApiServer, kube::Kubectl, process::Process, wait_for};

use crate::world::{CommandLine, PATIENCE, World, condition, install, open, sandbox};

/// Waits until somebody watches Sandboxes: the API server counts who does.
fn watched(kube: &Kubectl<'_>) -> Result<()> {
    let watches = || {
        let metrics = kube.run(&["get", "--raw", "/metrics"]).ok()?;
        let mut lines = metrics.lines().filter(|line| {
            line.starts_with("apiserver_longrunning_requests{")
                && line.contains("resource=\"sandboxes\"")
                && line.contains("verb=\"WATCH\"")
        });
        // The last word is how many there are; the API server itself is none of them.
        lines.any(|line| line.rsplit(' ').next().is_some_and(|count| count != "0")).then_some(())
    };
    wait_for("a watch of Sandboxes", PATIENCE, watches)
}

fn ended(process: &mut Process, code: i32, words: &[&str]) -> Result<()> {
    let status = process.wait(PATIENCE)?;
    let said = process.output().tail();
    ensure!(status.code() == Some(code), "{status}: {said}");
    for words in words {
        ensure!(said.contains(words), "{words:?} was not said: {said}");
    }
    Ok(())
}

#[rstest]
#[case::ready("ready", "Ready")]
#[case::routed("routed", "Routed")]
#[case::forked("forked", "Forked")]
#[case::expired("expired", "Expired")]
fn what_is_waited_for_ends_the_wait_when_it_is_so(#[case] word: &str, #[case] name: &str) -> Result<()> {
    let Some(world) = World::new("wait")? else { return Ok(()) };
    world.sandbox()?;
    let mut waits = world.me.start(&format!("wait pr --for {word} --timeout 60s"))?;
    watched(&world.kube)?;
    world.status("pr", &json!({"conditions": [condition(name, "False", "NotYet", "", 1)]}))?;
    waits.check_alive()?;
    world.status("pr", &json!({"conditions": [condition(name, "True", "Done", "", 1)]}))?;
    ended(&mut waits, 0, &[&format!("sandbox.sidetrack.dev/pr {word}")])?;
    // It is so already.
    ensure!(world.me.say(&format!("wait pr --for {word}"))?.well()? == format!("sandbox.sidetrack.dev/pr {word}\n"));
    Ok(())
}

#[test]
fn what_is_said_of_a_sandbox_before_its_last_change_does_not_count() -> Result<()> {
    let Some(world) = World::new("stale")? else { return Ok(()) };
    world.sandbox()?;
    world.status(
        "pr",
        &json!({"observedGeneration": 1, "conditions": [condition("Routed", "True", "Acknowledged", "", 1)]}),
    )?;
    world.me.say("wait pr --for routed --timeout 10s")?.well()?;
    world.me.say("extend pr --ttl 3h")?.well()?;
    ensure!(world.stored("pr")?["metadata"]["generation"] == 2);
    let said = world.me.say("wait pr --for routed --timeout 1s")?;
    said.failed(4, &["is not routed after 1s: what is said is older than its last change"])?;
    let mut waits = world.me.start("wait pr --for routed --timeout 60s")?;
    watched(&world.kube)?;
    world.status("pr", &json!({"conditions": [condition("Routed", "True", "Acknowledged", "", 2)]}))?;
    ended(&mut waits, 0, &["routed"])
}

#[test]
fn a_time_out_has_an_exit_code_of_its_own_and_says_how_far_it_is() -> Result<()> {
    let Some(world) = World::new("late")? else { return Ok(()) };
    world.sandbox()?;
    world
        .me
        .say("wait pr --for ready --timeout 300ms")?
        .failed(4, &["after 300ms: ", "does Sidetrack's controller run?"])?;
    world.status("pr", &json!({"conditions": [
        condition("Ready", "False", "ImagePullBackOff", "fork orders: pull access denied", 1),
        condition("Routed", "Unknown", "LeaderChanged", "the controller's leader has changed: nodes say again what they steer", 1)]}))?;
    let said = world.me.say("wait pr --for routed --timeout 1s")?;
    said.failed(
        4,
        &[
            &format!("sandbox pr in namespace {} is not routed after 1s: ", world.ns),
            "Routed=Unknown (LeaderChanged): the controller's leader has changed",
            "Ready=False (ImagePullBackOff): fork orders: pull access denied",
        ],
    )?;
    ensure!(said.out.is_empty(), "{said:?}");
    Ok(())
}

#[test]
fn what_will_not_come_to_be_ends_the_wait_at_once() -> Result<()> {
    let Some(world) = World::new("never")? else { return Ok(()) };
    world.me.say("wait nope --for ready")?.failed(3, &["there is no sandbox nope in namespace"])?;
    world.sandbox()?;
    let mut waits = world.me.start("wait pr --for ready --timeout 60s")?;
    watched(&world.kube)?;
    world.status("pr", &json!({"conditions": [condition("Expired", "True", "TimeOver", "its 2h are over", 1)]}))?;
    ended(&mut waits, 1, &["will not be ready: its time is over (Expired=True (TimeOver): its 2h are over)"])?;
    world.status("pr", &json!({"conditions": []}))?;
    let mut waits = world.me.start("wait pr --for ready --timeout 60s")?;
    watched(&world.kube)?;
    world.kube.run(&["delete", "sandbox", "pr"])?;
    ended(&mut waits, 3, &["sandbox pr in namespace", "was deleted meanwhile"])
}

#[test]
fn a_deletion_is_waited_for_and_what_is_not_there_is_deleted() -> Result<()> {
    let Some(world) = World::new("gone")? else { return Ok(()) };
    world.me.say("wait pr --for deleted")?.well()?;
    world.sandbox()?;
    world.me.say("wait pr --for deleted --timeout 300ms")?.failed(4, &["nobody has deleted it"])?;
    let mut waits = world.me.start("wait pr --for deleted --timeout 60s")?;
    watched(&world.kube)?;
    world.kube.run(&["delete", "sandbox", "pr"])?;
    ended(&mut waits, 0, &["sandbox.sidetrack.dev/pr deleted"])
}

#[test]
fn a_wait_outlives_an_api_server_that_is_away_for_a_while() -> Result<()> {
    if !open() {
        return Ok(());
    }
    let mut server = ApiServer::start()?;
    install(&server)?;
    server.admin().apply(&sandbox("pr").to_string())?;
    let mut waits = {
        let me = CommandLine::new(&server, "default", None)?;
        let waits = me.start("wait pr --for ready --timeout 120s")?;
        watched(&server.admin())?;
        waits
    };
    server.stop()?;
    server.start_again()?;
    waits.check_alive().context("it gave up")?;
    let status = json!({"status": {"conditions": [condition("Ready", "True", "Done", "", 1)]}}).to_string();
    server.kubectl(&["patch", "sandbox", "pr", "--subresource=status", "--type=merge", "--patch", &status])?;
    ended(&mut waits, 0, &["sandbox.sidetrack.dev/pr ready"])
}
