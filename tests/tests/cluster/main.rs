//! Two real nodes: the agent from its image as `deploy/kustomize` runs it, and an application whose forks are made by hand.

mod leftovers;
mod world;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sidetrack_tests::{HttpError, Load, Request, kube::image::CAST, wait_for};
use world::{PATIENCE, World, of_agents};

#[test]
fn keyed_requests_reach_their_fork_and_others_the_baseline_from_either_node() -> Result<()> {
    let Some(world) = World::new("steered")? else { return Ok(()) };
    // Client, baseline and fork on one node, on two, on the other: by ClusterIP and by the endpoint's own address, in both families.
    for client in &world.clients {
        for service in &world.services {
            for address in service.addresses() {
                for (key, by) in
                    [(None, &service.name), (Some(&*world.key), &service.fork), (Some("pr-unknown"), &service.name)]
                {
                    let answer = client.http(address)?.exchange(&Request::get("/bytes/3000").maybe_key(key))?;
                    ensure!(
                        answer.served_by() == by,
                        "{} to {address} with {key:?}: {}",
                        client.name(),
                        answer.served_by()
                    );
                    answer.verify_bytes(by, 3000)?;
                }
            }
        }
    }
    world.isolated()
}

#[test]
fn one_connection_carries_keyed_and_unkeyed_requests() -> Result<()> {
    let Some(world) = World::new("mixed")? else { return Ok(()) };
    for client in &world.clients {
        for service in &world.services {
            for address in service.addresses() {
                let load = Load::new(address).connections(4).requests(60);
                let load = load.key(None, &[&service.name]).key(Some(&world.key), &[&service.fork]);
                let report = load.run(client).with_context(|| world.said())?;
                report.all_well().with_context(|| format!("{} to {address}", client.name()))?;
                ensure!(report.connections == 4, "{} connections in place of 4", report.connections);
                ensure!(report.count(Some(&world.key), &service.fork) > 50 && report.count(None, &service.name) > 50);
            }
        }
    }
    world.isolated()
}

/// The agent attaches to a pod's namespace as it appears, before anything of the pod runs.
#[test]
fn the_first_act_of_a_pod_is_steered_already() -> Result<()> {
    const TIMES: usize = 20;
    let Some(world) = World::new("first")? else { return Ok(()) };
    let service = &world.services[0];
    let container = json!({"name": "ask", "image": CAST, "imagePullPolicy": "Never",
        "args": ["ask", service.cluster[0].to_string(), "--key", world.key]});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "first"}, "spec": {
        "completions": TIMES, "parallelism": 5, "backoffLimit": 0,
        "template": {"spec": {"restartPolicy": "Never", "automountServiceAccountToken": false, "containers": [container]}}}});
    world.kube().apply(&job.to_string())?;
    let done = world.kube().run(&["wait", "--for=condition=complete", "--timeout=240s", "job/first"]);
    let logs = ["logs", "--selector=job-name=first", "--tail=-1", "--prefix", "--max-log-requests=100"];
    let said = world.kube().run(&logs)?;
    done.with_context(|| format!("{said}\n{}", world.said()))?;
    let by_fork = said.lines().filter(|line| line.ends_with(&format!("by {}", service.fork))).count();
    ensure!(by_fork == TIMES, "{by_fork} of {TIMES} were the fork's:\n{said}");
    world.isolated()
}

#[test]
fn an_agent_that_is_deleted_under_load_fails_no_request() -> Result<()> {
    let Some(world) = World::new("deleted")? else { return Ok(()) };
    let mut loads = Vec::new();
    for client in &world.clients {
        for service in &world.services {
            let mixed = Load::new(service.cluster[0]).also_to(service.cluster[1]).connections(2);
            let mixed = mixed.key(None, &[&service.name]).key(Some(&world.key), &[&service.fork]);
            loads.push(mixed.start(client)?);
            let plain = Load::new(service.cluster[0]).requests_per_connection(20).key(None, &[&service.name]);
            loads.push(plain.start(client)?);
        }
    }
    let more = |exchanges| loads.iter().try_for_each(|load| load.more(exchanges)).with_context(|| world.said());
    more(100)?;
    for node in world.cluster.nodes() {
        let old = of_agents(world.cluster, node.name())?;
        world.agents().run(&["delete", "pod", &old.name])?;
        more(100)?;
        let back =
            || of_agents(world.cluster, node.name()).is_ok_and(|new| new.ready && new.name != old.name).then_some(());
        wait_for("an agent in its place", PATIENCE, back).with_context(|| world.said())?;
        more(100)?;
    }
    for load in loads {
        load.stop()?.all_well().with_context(|| world.said())?;
    }
    world.isolated()
}

#[test]
fn what_a_deleted_sandbox_steered_fails_and_never_reaches_the_baseline() -> Result<()> {
    let Some(world) = World::new("gone")? else { return Ok(()) };
    let mut loads = Vec::new();
    for client in &world.clients {
        let address = world.services[0].cluster[0];
        loads.push(Load::new(address).connections(2).key(None, &[&world.services[0].name]).start(client)?);
    }
    // Its pods run on, as they do until a controller has heard that nobody is steered to them.
    world.kube().run(&["delete", "sandbox", "pr"])?;
    let ask = |client: &sidetrack_tests::Pod, address| {
        client.http(address)?.exchange(&Request::get("/").key(&world.key)).map(|answer| answer.served_by().to_owned())
    };
    for client in &world.clients {
        for service in &world.services {
            for address in service.addresses() {
                let refused = || match ask(client, address) {
                    Err(HttpError::Reset) => Some(Ok(())),
                    Ok(by) if by == service.fork => None,
                    other => Some(Err(anyhow::anyhow!("{} to {address}: {other:?}", client.name()))),
                };
                wait_for("its key to be refused", Duration::from_secs(10), refused)??;
            }
        }
    }
    for load in loads {
        load.more(50)?;
        load.stop()?.all_well().with_context(|| world.said())?;
    }
    world.isolated()
}

#[test]
fn every_agent_is_ready_and_says_what_it_is_attached_to() -> Result<()> {
    let Some(world) = World::new("ready")? else { return Ok(()) };
    for (node, client) in world.cluster.nodes().iter().zip(&world.clients) {
        let agent = of_agents(world.cluster, node.name())?;
        for path in ["livez", "readyz"] {
            let said = node.as_pod().curl([format!("http://{}:15020/{path}", agent.address)])?;
            ensure!(said == "ok\n", "{path} of {}: {said}", agent.name);
        }
        let said = world.agents().run(&["exec", &agent.name, "--", "/sidetrack", "status", "--output=json"])?;
        let status: serde_json::Value = serde_json::from_str(&said).context("no JSON")?;
        ensure!(status["agent"]["alive"] == true, "{status:#}");
        let address = client.v4().to_string();
        let items = status["items"].as_array().context("items")?;
        let own = items
            .iter()
            .find(|item| item["addresses"].as_array().is_some_and(|all| all.iter().any(|it| *it == address)));
        ensure!(own.is_some_and(|item| item["outcome"] == "attached"), "{} at {address}: {status:#}", client.name());
    }
    Ok(())
}
