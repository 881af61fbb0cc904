//! What the command line shows.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sidetrack_tests::{
    Agent, HttpError, Request, Scene, agent,
    lab::BBR,
    scene::{FAIL_KEY, KEY, OTHER_KEY, PORT},
    wait_for,
};
use std::time::Duration;

fn items(object: &Value) -> Result<&Vec<Value>> {
    object["items"].as_array().with_context(|| format!("no items in {object}"))
}

#[test]
fn routes_shows_every_key_and_where_it_leads() -> Result<()> {
    let Some(scene) = Scene::open("routes", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let routes = agent.routes()?;
    let find = |key: &str| items(&routes)?.iter().find(|item| item["key"] == key).context(key.to_owned());
    ensure!(items(&routes)?.len() == 3, "{routes}");
    let fork = find(KEY)?;
    ensure!(fork["service"] == "shop/orders" && fork["kind"] == "fork", "{fork}");
    ensure!(fork["endpoints"].as_array().is_some_and(|all| all.contains(&"10.99.0.12:8080".into())), "{fork}");
    ensure!(fork["endpoints"].as_array().is_some_and(|all| all.contains(&"[fd00::12]:8080".into())), "{fork}");
    ensure!(find(FAIL_KEY)?["reason"] == "its fork is not ready");
    let table = agent.command(&["routes"])?;
    for word in ["shop/orders", KEY, OTHER_KEY, FAIL_KEY, "10.99.0.12:8080", "its fork is not ready"] {
        ensure!(table.contains(word), "no {word} in\n{table}");
    }
    Ok(())
}

#[test]
fn flows_shows_who_serves_each_connection() -> Result<()> {
    let Some(scene) = Scene::open("flows", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let mut http = scene.client.http(scene.service.v6)?;
    let client = http.local()?.to_string();
    let flow = || -> Result<Value> {
        let flows = agent.flows()?;
        items(&flows)?
            .iter()
            .find(|item| item["client"] == client)
            .cloned()
            .with_context(|| format!("{client}: {flows}"))
    };
    http.exchange(&Request::get("/"))?;
    let shown = flow()?;
    ensure!(shown["service"] == "shop/orders" && shown["owner"] == "baseline" && shown["legs"] == 1, "{shown}");
    ensure!(shown["client_pod"] == "client" && shown["phase"] == "watch" && shown["key"].is_null(), "{shown}");
    http.exchange(&Request::get("/").key(KEY))?;
    let shown = flow()?;
    ensure!(shown["owner"] == "fork" && shown["key"] == KEY && shown["legs"] == 2, "{shown}");
    ensure!(shown["owner_address"] == "[fd00::12]:8080" && shown["asked"] == 2, "{shown}");
    ensure!(shown["age_seconds"].is_number(), "{shown}");
    let legs = shown["leg_items"].as_array().context("no legs")?;
    let states: Vec<_> = legs.iter().map(|leg| (&leg["kind"], &leg["state"])).collect();
    ensure!(states == [(&"baseline".into(), &"parked".into()), (&"fork".into(), &"owner".into())], "{shown:#}");
    ensure!(legs[1]["backend"] == "[fd00::12]:8080" && legs[1]["key"] == KEY, "{shown:#}");
    ensure!(legs[0]["local"] == client && legs[1]["local"] != client, "{shown:#}");
    ensure!(legs.iter().all(|leg| leg["idle_seconds"].is_number() && leg["age_seconds"].is_number()), "{shown:#}");
    ensure!(agent.command(&["flows"])?.contains("shop/orders"));
    let wide = agent.command(&["flows", "-o", "wide"])?;
    let line = |words: &[&str]| wide.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(line(&["  leg ", &client, "baseline", "parked"]), "{wide}");
    ensure!(line(&["  leg ", "fork [fd00::12]:8080", KEY, "owner"]), "{wide}");
    drop(http);
    let gone = || flow().is_err().then_some(());
    wait_for("the closed connection to be gone", Duration::from_secs(10), gone)
}

#[test]
fn status_shows_pods_programs_and_version() -> Result<()> {
    let Some(scene) = Scene::open("status", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let status = agent.status()?;
    ensure!(status["version"].is_string() && status["abi"].is_number(), "{status:#}");
    let programs = status["programs"].as_array().context("no programs")?;
    ensure!(programs.len() == 2 && programs.iter().all(|program| program["id"].is_number()), "{status:#}");
    for pod in ["client", "base", "fork", "other"] {
        let shown = agent.pod(pod).with_context(|| format!("no {pod} in {status:#}"))?;
        ensure!(shown["mode"] == "tcx" && shown["interface"] == "eth0", "{shown:#}");
        let hooks = &shown["hooks"];
        ensure!(hooks["egress"][0]["ours"] == true && hooks["ingress"][0]["ours"] == true, "{shown:#}");
    }
    ensure!(agent.command(&["status"])?.contains("client"));
    Ok(())
}

#[test]
fn status_has_the_reason_of_every_reset_and_of_every_opaque_connection() -> Result<()> {
    let Some(scene) = Scene::open("reasons", BBR)? else { return Ok(()) };
    let agent = scene.agent()?;
    let before = agent.command(&["status"])?;
    ensure!(!before.contains("RESETS") && !before.contains("OPAQUE"), "{before}");
    let refused = scene.http()?.exchange(&Request::get("/").key(FAIL_KEY));
    ensure!(matches!(refused, Err(HttpError::Reset)), "{refused:?}");
    scene.http()?.send(b"\x16\x03\x01\x02\x00\x01")?;
    let opaque = || (agent.counter("opaque_tls").ok()? == 1).then_some(());
    wait_for("a connection to be opaque", Duration::from_secs(10), opaque).with_context(|| agent.explain())?;
    let status = agent.status()?;
    for (list, reason) in [("resets", "reset_route_fail"), ("opaque", "opaque_tls")] {
        let all = status[list].as_array().with_context(|| format!("no {list}"))?;
        let counted: Vec<_> = all.iter().filter(|one| one["count"] != 0).map(|one| &one["name"]).collect();
        ensure!(counted == [reason], "{list}: {counted:?}");
        ensure!(all.len() > 3 && all.iter().all(|one| one["meaning"].is_string()), "{status:#}");
    }
    let text = agent.command(&["status"])?;
    let at = |words: &str| text.find(words).with_context(|| format!("no {words} in\n{text}"));
    let order = [at("RESETS")?, at("reset_route_fail")?, at("OPAQUE")?, at("opaque_tls")?, at("COUNTER")?];
    ensure!(order.is_sorted(), "{text}");
    Ok(())
}

#[test]
fn a_counter_is_explained_without_any_agent_and_a_wrong_name_is_a_mistake_of_usage() -> Result<()> {
    let explain = |words: &[&str]| {
        let output = std::process::Command::new(agent::binary()).arg("explain-counter").args(words).output()?;
        let text = |bytes| String::from_utf8(bytes).context("UTF-8");
        Ok::<_, anyhow::Error>((output.status.code(), text(output.stdout)?, text(output.stderr)?))
    };
    let (code, said, _) = explain(&["reset_sticky"])?;
    ensure!(code == Some(0) && said.contains("reset_sticky: The response has no length"), "{code:?}\n{said}");
    let (code, said, error) = explain(&["reset_stiky"])?;
    ensure!(code == Some(2) && said.is_empty() && error.contains("there are reset_sticky"), "{code:?}\n{said}{error}");
    let (code, said, _) = explain(&["-o", "json"])?;
    let all: Value = serde_json::from_str(&said)?;
    ensure!(code == Some(0) && items(&all)?.len() > 60, "{code:?}\n{said}");
    Ok(())
}

#[test]
fn every_splice_is_one_debug_line() -> Result<()> {
    let Some(scene) = Scene::open("debug-line", BBR)? else { return Ok(()) };
    let agent = Agent::start_with(&scene.lab, &scene.routes(), &["--log-level", "debug"])?;
    agent.wait_attached(["client"])?;
    scene.http()?.exchange(&Request::get("/").key(KEY))?;
    let line = || {
        let lines = agent.output()?.lines();
        let json = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let words = [KEY, "shop/orders", "10.99.0.12:8080", "micros"];
        json.map(|line| line.to_string()).find(|line| words.iter().all(|word| line.contains(word)))
    };
    wait_for("a line with key, service, fork and microseconds", Duration::from_secs(5), line)
        .with_context(|| agent.explain())?;
    Ok(())
}

/// The line of the log, an object, that has these words.
fn logged(agent: &Agent, words: &str) -> Result<Value> {
    let find = || {
        let lines = agent.output()?.lines();
        let mut json = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        json.find(|line| line["message"].as_str().is_some_and(|said| said.contains(words)))
    };
    wait_for(&format!("the log to say: {words}"), Duration::from_secs(20), find).with_context(|| agent.explain())
}

/// Waits until a head has been held for a leg.
fn held(agent: &Agent) -> Result<()> {
    let held = || agent.counter("hold_dial").is_ok_and(|n| n > 0).then_some(());
    wait_for("a head to be held", Duration::from_secs(10), held).with_context(|| agent.explain())
}

#[test]
fn a_leg_whose_client_has_gone_meanwhile_is_a_debug_line_with_that_reason() -> Result<()> {
    let Some(scene) = Scene::open("unused-leg", BBR)? else { return Ok(()) };
    // SYNs are sent again after 1, 3 and 7 seconds.
    let config = scene.lab.dir().join("config.yaml");
    std::fs::write(&config, "apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\nspec: {dialTimeout: 15s}\n")?;
    let config = config.to_str().context("a path in UTF-8")?;
    let agent =
        Agent::start_with(&scene.lab, &scene.routes(), &["--log-level", "info,sidetrack=debug", "--config", config])?;
    agent.wait_attached(["client"])?;
    scene.fork_pod.black_hole(PORT)?;
    let mut http = scene.http()?;
    http.send(&Request::get("/").key(KEY).wire())?;
    let dialled = || agent.counter("dial_syn").is_ok_and(|count| count > 0).then_some(());
    wait_for("the agent to dial", Duration::from_secs(10), dialled).with_context(|| agent.explain())?;
    http.abort()?;
    scene.fork_pod.unfilter()?;
    let line = logged(&agent, "the leg is not used")?;
    let said = line["message"].as_str().unwrap_or_default();
    ensure!(line["level"] == "DEBUG" && said.contains("the client has closed the connection"), "{line}");
    scene.isolated()
}

#[test]
fn a_client_that_has_gone_before_the_dial_is_not_taken_for_a_changed_route() -> Result<()> {
    let Some(scene) = Scene::open("gone-before", BBR)? else { return Ok(()) };
    let agent = Agent::start_with(&scene.lab, &scene.routes(), &["--log-level", "info,sidetrack=debug"])?;
    agent.wait_attached(["client"])?;
    agent.freeze()?;
    let mut http = scene.http()?;
    http.send(&Request::get("/").key(KEY).wire())?;
    held(&agent)?;
    http.abort()?;
    let gone = || agent.flows().is_ok_and(|flows| items(&flows).is_ok_and(Vec::is_empty)).then_some(());
    wait_for("the connection to be forgotten", Duration::from_secs(10), gone)?;
    agent.thaw()?;
    let line = logged(&agent, "no leg is made")?;
    let said = line["message"].as_str().unwrap_or_default();
    ensure!(line["level"] == "DEBUG" && said.contains("the connection is over"), "{line}");
    let lines = agent.output().context("it was started")?.lines();
    ensure!(!lines.iter().any(|line| line.contains("route has changed")), "{}", agent.explain());
    ensure!(agent.counter("dial_syn")? == 0, "a dial for nobody\n{}", agent.explain());
    scene.isolated()
}

#[test]
fn a_pin_directory_that_nobody_used_is_named() -> Result<()> {
    let Some(scene) = Scene::open("unused", BBR)? else { return Ok(()) };
    let agent = Agent::idle(&scene.lab, &[]);
    for command in ["routes", "flows", "status"] {
        let error = agent.command(&[command]).err().context("it succeeds without pins")?;
        ensure!(format!("{error:#}").contains("no agent has run"), "{error:#}");
    }
    Ok(())
}

#[test]
fn a_pin_directory_outside_a_bpffs_is_refused_with_what_to_do() -> Result<()> {
    let Some(scene) = Scene::open("no-bpffs", BBR)? else { return Ok(()) };
    let agent = Agent::idle(&scene.lab, &[]);
    agent.write(scene.routes().yaml())?;
    let directory = scene.lab.dir().join("no-bpffs");
    std::fs::create_dir_all(&directory)?;
    let mut command = std::process::Command::new(agent::binary());
    command.arg("agent").arg("--routes").arg(agent.routes_file()).arg("--pin-dir").arg(directory.join("pins"));
    command.args(["--netns-dir", sidetrack_tests::lab::NETNS_DIR]);
    let mut process = scene.lab.spawn("agent", command)?;
    let status = process.wait(Duration::from_secs(10))?;
    let said = process.output().tail();
    ensure!(!status.success() && said.contains("bpf"), "{status}\n{said}");
    Ok(())
}
