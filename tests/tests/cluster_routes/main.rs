//! Routes from a real API server: what it says of Sandboxes, Services, endpoints and pods is what the kernel does.

mod told;
mod world;

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sidetrack_tests::{
    Load, Request,
    scene::{KEY, OTHER_KEY, PORT},
    wait_for,
};
use world::{LISTEN, PATIENCE, Ready, World, said, scene};

#[test]
fn a_sandbox_leads_its_requests_to_its_fork_and_never_to_the_baseline() -> Result<()> {
    let Some(scene) = scene("sandbox")? else { return Ok(()) };
    let world = World::new(&scene)?;
    let agent = world.agent(&[])?;
    world.sandbox("pr", KEY, &["orders"])?;
    world.wait_refused(&agent, KEY, "fork app of sandbox pr has no pod")?;
    let fork = &world.scene.fork_pod;
    world.pod("pr-1", "pr", fork, Ready::No)?;
    world.wait_refused(&agent, KEY, "has no pod that is ready")?;
    world.ready("pr-1", fork, Ready::Yes)?;
    world.wait_served(&agent, KEY, "fork")?;
    for answer in world.ask(None) {
        ensure!(answer? == "base");
    }
    world.ready("pr-1", fork, Ready::No)?;
    world.wait_refused(&agent, KEY, "has no pod that is ready")?;
    // Another pod takes its place.
    world.pod("pr-2", "pr", &world.scene.other_pod, Ready::Yes)?;
    world.wait_served(&agent, KEY, "other")?;
    world.kube().run(&["delete", "pod", "pr-2", "--force", "--grace-period=0"])?;
    world.wait_refused(&agent, KEY, "has no pod that is ready")?;
    world.ready("pr-1", fork, Ready::Yes)?;
    world.wait_served(&agent, KEY, "fork")?;
    world.kube().run(&["delete", "sandbox", "pr"])?;
    world.wait_refused(&agent, KEY, "gone")?;
    agent.no_errors()?;
    world.isolated()
}

#[test]
fn of_two_sandboxes_with_one_key_the_older_wins_until_it_goes() -> Result<()> {
    let Some(scene) = scene("conflict")? else { return Ok(()) };
    let world = World::new(&scene)?;
    world.forked()?;
    // Times of creation are whole seconds.
    thread::sleep(Duration::from_millis(1100));
    world.sandbox("young", KEY, &["orders"])?;
    world.pod("young-1", "young", &world.scene.other_pod, Ready::Yes)?;
    let agent = world.agent(&[])?;
    world.wait_served(&agent, KEY, "fork")?;
    world.kube().run(&["delete", "sandbox", "pr"])?;
    world.wait_served(&agent, KEY, "other")?;
    ensure!(world.scene.other.journal().matching(|seen| seen.key() == Some(KEY)).len() >= 4);
    world.isolated()
}

#[test]
fn services_and_selectors_that_come_later_are_followed_and_disturb_nobody() -> Result<()> {
    let Some(scene) = scene("later")? else { return Ok(()) };
    let world = World::new(&scene)?;
    world.forked()?;
    let agent = world.agent(&[])?;
    world.wait_served(&agent, KEY, "fork")?;
    let load =
        Load::new(world.scene.service.v4).also_to(world.scene.service.v6).connections(4).key(Some(KEY), &["fork"]);
    let load = load.start(&world.scene.client)?;
    load.more(50)?;
    // A second Service over the baseline's pod, and somebody else's pods as its fork. The pod's own address is both Services'.
    world.service("shadow", ["10.96.0.20", "fd00:96::20"], &world.scene.base_pod)?;
    let fork = json!({"name": "mocks", "podSelector": {"matchLabels": {"app": "mock"}}, "services": ["shadow"]});
    world.sandbox_of("mocked", &json!({"keys": [OTHER_KEY], "forks": [fork]}))?;
    world.pod_with("mock-1", &json!({"app": "mock"}), &world.scene.other_pod, Ready::Yes)?;
    let endpoint = world.scene.base_pod.v4_port(PORT);
    let served = |key: &str| {
        let mut http = world.scene.client.http(endpoint)?;
        Ok::<_, anyhow::Error>(http.exchange(&Request::get("/").key(key))?.served_by().to_owned())
    };
    let shared = || served(OTHER_KEY).is_ok_and(|by| by == "other").then_some(());
    wait_for("the other key to reach other at what the two share", PATIENCE, shared).with_context(|| said(&agent))?;
    ensure!(served(KEY)? == "fork");
    load.more(50)?;
    world.kube().run(&["delete", "sandbox", "mocked"])?;
    let refused = || served(OTHER_KEY).is_err().then_some(());
    wait_for("the other key to be refused", PATIENCE, refused).with_context(|| said(&agent))?;
    load.more(50)?;
    load.stop()?.all_well().with_context(|| said(&agent))?;
    agent.no_errors()
}

/// What the server has told before it was killed is too old for it afterwards: it answers `410 Gone`, and all is listed anew.
#[test]
fn routes_outlive_an_api_server_that_is_away_and_lists_that_begin_again() -> Result<()> {
    let Some(scene) = scene("away")? else { return Ok(()) };
    let mut world = World::new(&scene)?;
    world.forked()?;
    let agent = world.agent(&["--log-level", "info,sidetrack::routes=debug"])?;
    world.wait_served(&agent, KEY, "fork")?;
    let before = agent.routes()?;
    let load = Load::new(scene.service.v4).connections(4).requests_per_connection(20).key(Some(KEY), &["fork"]);
    let load = load.start(&scene.client)?;
    load.more(50)?;
    world.server.stop()?;
    load.more(200)?;
    ensure!(agent.routes()? == before, "{}", said(&agent));
    world.server.start_again()?;
    load.more(200)?;
    // Listed anew or gone on with: what has happened meanwhile arrives, and nothing was forgotten on the way.
    world.sandbox("other", OTHER_KEY, &["orders"])?;
    world.pod("other-1", "other", &scene.other_pod, Ready::Yes)?;
    world.wait_served(&agent, OTHER_KEY, "other")?;
    load.stop()?.all_well().with_context(|| said(&agent))?;
    let anew = agent.output().is_some_and(|it| it.lines().iter().any(|line| line.contains("listed anew")));
    ensure!(anew, "no watch was too old: {}", said(&agent));
    world.kube().run(&["delete", "sandbox", "pr"])?;
    world.wait_refused(&agent, KEY, "gone")?;
    agent.no_errors()?;
    world.isolated()
}

#[test]
fn an_agent_that_starts_without_the_api_server_keeps_what_is_pinned_and_refuses_what_went_meanwhile() -> Result<()> {
    let Some(scene) = scene("restart")? else { return Ok(()) };
    let mut world = World::new(&scene)?;
    world.forked()?;
    world.sandbox("other", OTHER_KEY, &["orders"])?;
    world.pod("other-1", "other", &scene.other_pod, Ready::Yes)?;
    let mut agent = world.agent(&["--listen", LISTEN])?;
    world.wait_served(&agent, KEY, "fork")?;
    world.wait_served(&agent, OTHER_KEY, "other")?;
    ensure!(agent.term()?.success());
    world.kube().run(&["delete", "sandbox", "other"])?;
    world.server.stop()?;
    agent.restart()?;
    agent.wait_attached(["client", "base", "fork", "other"])?;
    let (status, body) = world.get("/readyz")?;
    ensure!(status == "503" && body.contains("sandboxes") && body.contains("routes in the kernel"), "{status} {body}");
    ensure!(world.get("/livez")? == ("200".into(), "ok\n".into()));
    for (key, server) in [(KEY, "fork"), (OTHER_KEY, "other")] {
        for answer in world.ask(Some(key)) {
            ensure!(answer.with_context(|| said(&agent))? == server);
        }
    }
    world.server.start_again()?;
    // What went while nobody watched is not the baseline's.
    world.wait_refused(&agent, OTHER_KEY, "gone")?;
    world.wait_served(&agent, KEY, "fork")?;
    ensure!(world.get("/readyz")? == ("200".into(), "ok\n".into()), "{:?}", world.get("/readyz")?);
    world.isolated()
}

#[test]
fn ready_is_said_when_the_routes_are_in_the_kernel_and_metrics_count() -> Result<()> {
    let Some(scene) = scene("ready")? else { return Ok(()) };
    let world = World::new(&scene)?;
    world.forked()?;
    let mut agent = world.idle(&["--listen", LISTEN]);
    agent.launch()?;
    let ready = || world.get("/readyz").is_ok_and(|(status, _)| status == "200").then_some(());
    wait_for("the agent to be ready", PATIENCE, ready).with_context(|| agent.explain())?;
    let routes = agent.routes()?;
    ensure!(routes["items"][0]["key"] == KEY && routes["items"][0]["kind"] == "fork", "{routes:#}");
    agent.wait_attached(["client"])?;
    world.wait_served(&agent, KEY, "fork")?;
    let (status, metrics) = world.get("/metrics")?;
    ensure!(status == "200");
    let value = |name: &str| {
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name}: {metrics}"))?;
        Ok::<u64, anyhow::Error>(line.trim().parse()?)
    };
    ensure!(
        value("sidetrack_counted_total{name=\"splice_cold\"}")? > 0
            && value("sidetrack_map_entries{map=\"routes\"}")? == 1
    );
    ensure!(value("sidetrack_ready")? == 1 && value("sidetrack_cluster_known")? == 1);
    ensure!(value("sidetrack_cluster_cut_off")? == 0 && value("sidetrack_pods{outcome=\"attached\"}")? >= 4);
    ensure!(world.get("/else")?.0 == "404");
    Ok(())
}

#[test]
fn a_sandbox_expires_without_anybody_saying_so() -> Result<()> {
    let Some(scene) = scene("expires")? else { return Ok(()) };
    let mut world = World::new(&scene)?;
    world.forked()?;
    let agent = world.agent(&[])?;
    world.wait_served(&agent, KEY, "fork")?;
    let at = jiff::Timestamp::now() + Duration::from_secs(5);
    let status = json!({"status": {"expiresAt": at.to_string()}}).to_string();
    world.kube().run(&["patch", "sandbox", "pr", "--subresource=status", "--type=merge", "--patch", &status])?;
    // Not even the API server.
    thread::sleep(Duration::from_secs(1));
    world.server.stop()?;
    world.wait_refused(&agent, KEY, "gone")?;
    ensure!(jiff::Timestamp::now() >= at, "too early");
    world.isolated()
}

#[test]
fn an_agent_that_is_cut_off_for_too_long_refuses_what_is_a_forks() -> Result<()> {
    let Some(scene) = scene("cut-off")? else { return Ok(()) };
    let mut world = World::new(&scene)?;
    world.forked()?;
    let config = scene.lab.dir().join("config.yaml");
    std::fs::write(&config, "apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\nspec: {maxStale: 6s}\n")?;
    let agent = world.agent(&["--config", &config.to_string_lossy()])?;
    world.wait_served(&agent, KEY, "fork")?;
    // A cluster in which nothing happens is heard all the same.
    thread::sleep(Duration::from_secs(13));
    ensure!(agent.routes()?["items"][0]["kind"] == "fork", "{}", said(&agent));
    world.server.stop()?;
    world.wait_refused(&agent, KEY, "has not been heard for 6s")?;
    for answer in world.ask(None) {
        ensure!(answer? == "base");
    }
    world.server.start_again()?;
    world.wait_served(&agent, KEY, "fork")?;
    world.isolated()
}

#[test]
fn without_a_file_and_without_a_cluster_an_agent_says_what_it_needs() -> Result<()> {
    let Some(scene) = scene("nothing")? else { return Ok(()) };
    let mut command = std::process::Command::new(sidetrack_tests::agent::binary());
    command.arg("agent").arg("--pin-dir").arg(scene.lab.pin_dir()).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    let said = scene.client.attempt(command, "")?;
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(!said.status.success() && words.contains("--routes") && words.contains("--kubeconfig"), "{words}");
    Ok(())
}
