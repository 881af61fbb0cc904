//! What agents have in force is said of each Sandbox: condition `Routed`.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sidetrack_tests::{Agent, agent, kube::Kubectl, process::Process, wait_for};

use crate::world::{PATIENCE, Ready, World, said, scene};

/// Where the controller and its Lease are.
const SYSTEM: &str = "sidetrack-system";
const REPORTS: &str = "127.0.0.1:15443";

/// The parts of a cluster that the test plays: nodes, and the agent's own pod.
struct Told<'w> {
    world: &'w World<'w>,
}

impl Told<'_> {
    fn system(&self) -> Kubectl<'_> {
        self.world.server.admin().in_namespace(SYSTEM)
    }

    fn node(&self, name: &str) -> Result<()> {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.world.server.admin().apply(&node.to_string())
    }

    /// A ServiceAccount with a pod on `node-1`, and the token that a kubelet would give it.
    fn token(&self, account: &str) -> Result<String> {
        self.system().run(&["create", "serviceaccount", account])?;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": account}, "spec": {
            "serviceAccountName": account, "nodeName": "node-1", "containers": [{"name": "app", "image": "app"}]}});
        self.system().apply(&pod.to_string())?;
        let token = self.system().run(&[
            "create",
            "token",
            account,
            "--audience",
            "sidetrack.dev/controller",
            "--bound-object-kind",
            "Pod",
            "--bound-object-name",
            account,
        ])?;
        let path = self.world.scene.lab.dir().join(format!("token-{account}"));
        fs::write(&path, token)?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn controller(&self, identity: &str) -> Result<Process> {
        let mut command = Command::new(agent::binary());
        command.args(["controller", "--kubeconfig", &self.world.server.kubeconfig().to_string_lossy()]);
        command.args(["--identity", identity, "--reports", REPORTS]);
        command.args(["--log-level", "info,sidetrack_controller=debug"]).env_remove("POD_NAMESPACE");
        self.world.agent_pod.spawn(command)
    }

    fn agent(&self, token: &str) -> Result<Agent<'_>> {
        self.world.agent(&["--controller-namespace", SYSTEM, "--controller-token", token, "--log-level", "debug"])
    }

    /// Status, message and time of the condition.
    fn routed(&self) -> Result<[String; 3]> {
        let path = r#"jsonpath={range .status.conditions[?(@.type=="Routed")]}{.status}|{.message}|{.lastTransitionTime}{end}"#;
        let said = self.world.kube().run(&["get", "sandbox", "pr", "--output", path])?;
        let mut parts = said.split('|').map(str::to_owned);
        Ok(std::array::from_fn(|_| parts.next().unwrap_or_default()))
    }

    fn wait(&self, status: &str, words: &str, agent: &Agent<'_>, controller: &Process) -> Result<()> {
        let is = || self.routed().is_ok_and(|[is, message, _]| is == status && message.contains(words)).then_some(());
        let more = || format!("{:?}\n{}\n{}", self.routed(), controller.output().tail(), said(agent));
        wait_for(&format!("Routed={status}: {words}"), PATIENCE, is).with_context(more)
    }
}

#[test]
fn a_sandbox_is_routed_when_every_node_has_said_that_it_is_in_force() -> Result<()> {
    let Some(scene) = scene("told")? else { return Ok(()) };
    let world = World::new(&scene)?;
    world.server.kubectl(&["create", "namespace", SYSTEM])?;
    let told = Told { world: &world };
    told.node("node-1")?;
    let token = told.token("sidetrack-agent")?;
    world.forked()?;
    let mut first = told.controller("first")?;
    let agent = told.agent(&token)?;
    told.wait("True", "in force on all 1 nodes", &agent, &first)?;
    world.wait_served(&agent, crate::KEY, "fork")?;

    // A node without an agent holds it up, and is named.
    told.node("node-2")?;
    told.wait("False", "not in force on 1 of 2 nodes: node-2 (no agent is heard)", &agent, &first)?;
    world.server.kubectl(&["delete", "node", "node-2"])?;
    told.wait("True", "", &agent, &first)?;

    // What becomes another is in force again when the agent has it.
    world.ready("pr-1", &scene.fork_pod, Ready::No)?;
    world.wait_refused(&agent, crate::KEY, "has no pod that is ready")?;
    told.wait("True", "", &agent, &first)?;

    // Another leads: nothing is said before it has heard the agents.
    let before = told.routed()?;
    first.kill9()?;
    let second = told.controller("second")?;
    let leads = || second.output().lines().iter().any(|line| line.contains("an agent is heard")).then_some(());
    wait_for("the second to hear the agent", PATIENCE, leads).with_context(|| second.output().tail())?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(told.routed()?[2] == before[2], "{before:?}, {:?}", told.routed()?);
    agent.no_errors()
}

#[test]
fn nobody_but_an_agent_says_what_is_in_force() -> Result<()> {
    let Some(scene) = scene("stranger")? else { return Ok(()) };
    let world = World::new(&scene)?;
    world.server.kubectl(&["create", "namespace", SYSTEM])?;
    let told = Told { world: &world };
    told.node("node-1")?;
    let token = told.token("somebody")?;
    world.forked()?;
    let controller = told.controller("first")?;
    let agent = told.agent(&token)?;
    let words = "only system:serviceaccount:sidetrack-system:sidetrack-agent may say what is in force";
    let refused = || agent.output().is_some_and(|it| it.lines().iter().any(|line| line.contains(words))).then_some(());
    wait_for("the agent to be refused", PATIENCE, refused)
        .with_context(|| format!("{}\n{}", controller.output().tail(), said(&agent)))?;
    told.wait("False", "node-1 (no agent is heard)", &agent, &controller)?;
    // What it has to do with routes goes on.
    world.wait_served(&agent, crate::KEY, "fork")
}
