//! The usual cast with an API server beside it, which a test tells what a cluster's controllers and kubelets would.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sidetrack_tests::{
    Agent, ApiServer, HttpError, Request, Scene,
    gate::{self, Need},
    kube::Kubectl,
    lab::{BBR, Pod},
    scene::{KEY, PORT, Via},
    wait_for,
};

const NEEDS: &[Need] = &[Need::Lab, Need::Agent, Need::Kubernetes];
/// The namespace of all that is forked.
const NS: &str = "shop";
/// Where the agent serves health and metrics, in its own pod.
pub const LISTEN: &str = "[::]:15020";
/// How long a change may take to arrive, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The cast, and the API server of its cluster: Service `shop/orders` with the endpoint `base`.
pub struct World<'s> {
    pub server: ApiServer,
    pub agent_pod: Pod,
    pub scene: &'s Scene,
}

/// A pod of a fork, by what the API server says of it.
#[derive(Clone, Copy)]
pub enum Ready {
    Yes,
    No,
}

/// The cast; nothing where this machine cannot run it.
pub fn scene(name: &str) -> Result<Option<Scene>> {
    gate::open(NEEDS).then(|| Scene::new(name, BBR)).transpose()
}

impl<'s> World<'s> {
    /// Starts the API server, and tells it of the Service.
    pub fn new(scene: &'s Scene) -> Result<Self> {
        let (control, agent_pod) = (scene.lab.pod("control", 250)?, scene.lab.pod("agent", 251)?);
        let world = Self { server: ApiServer::start_in(&control)?, agent_pod, scene };
        world.server.kubectl(&["apply", "--filename", &xtask::root().join("deploy/crd").to_string_lossy()])?;
        world.server.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
        world.server.kubectl(&["create", "namespace", NS])?;
        // Nobody makes it, and no pod can be made without.
        world.kube().run(&["create", "serviceaccount", "default"])?;
        world.service("orders", ["10.96.0.10", "fd00:96::10"], &world.scene.base_pod)?;
        Ok(world)
    }

    pub fn kube(&self) -> Kubectl<'_> {
        self.server.admin().in_namespace(NS)
    }

    /// A Service whose endpoint is this pod.
    pub fn service(&self, name: &str, own: [&str; 2], pod: &Pod) -> Result<()> {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": own[0], "clusterIPs": own, "ipFamilyPolicy": "RequireDualStack",
                "ports": [{"port": 80, "targetPort": "http"}]}});
        self.kube().apply(&service.to_string())?;
        for (family, address) in [("IPv4", pod.v4().to_string()), ("IPv6", pod.v6().to_string())] {
            let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
                "metadata": {"name": format!("{name}-{}", family.to_lowercase()), "labels": {"kubernetes.io/service-name": name}},
                "ports": [{"name": "", "port": PORT, "protocol": "TCP"}],
                "endpoints": [{"addresses": [address], "conditions": {"ready": true}}]});
            self.kube().apply(&slice.to_string())?;
        }
        Ok(())
    }

    /// A Sandbox with the fork `app` of these Services.
    pub fn sandbox(&self, name: &str, key: &str, services: &[&str]) -> Result<()> {
        let template = json!({"metadata": {}, "spec": {"containers": [{"name": "app", "image": "app"}]}});
        let fork = json!({"name": "app", "template": template, "services": services});
        self.sandbox_of(name, &json!({"keys": [key], "forks": [fork]}))
    }

    pub fn sandbox_of(&self, name: &str, spec: &Value) -> Result<()> {
        let object = json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name}, "spec": spec});
        self.kube().apply(&object.to_string())
    }

    /// A pod of a Sandbox's fork `app`, with the addresses of a pod of the cast.
    pub fn pod(&self, name: &str, sandbox: &str, like: &Pod, ready: Ready) -> Result<()> {
        self.pod_with(name, &json!({"sidetrack.dev/sandbox": sandbox, "sidetrack.dev/fork": "app"}), like, ready)
    }

    pub fn pod_with(&self, name: &str, labels: &Value, like: &Pod, ready: Ready) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {
            "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "app", "ports": [{"name": "http", "containerPort": PORT}]}]}});
        self.kube().apply(&object.to_string())?;
        self.ready(name, like, ready)
    }

    /// What a kubelet says of a pod.
    pub fn ready(&self, name: &str, like: &Pod, ready: Ready) -> Result<()> {
        let says = if matches!(ready, Ready::Yes) { "True" } else { "False" };
        let ips = json!([{"ip": like.v4().to_string()}, {"ip": like.v6().to_string()}]);
        let status = json!({"status": {"phase": "Running", "podIP": like.v4().to_string(), "podIPs": ips,
            "conditions": [{"type": "Ready", "status": says, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let patch = ["patch", "pod", name, "--subresource=status", "--type=merge", "--patch", &status.to_string()];
        self.kube().run(&patch).map(drop)
    }

    /// Sandbox `pr` with [`KEY`] forks `orders`, and its pod `pr-1`, which is `fork` of the cast, is ready.
    pub fn forked(&self) -> Result<()> {
        self.sandbox("pr", KEY, &["orders"])?;
        self.pod("pr-1", "pr", &self.scene.fork_pod, Ready::Yes)
    }

    /// An agent of this cluster that was not started.
    pub fn idle(&self, arguments: &[&str]) -> Agent<'s> {
        Agent::of_cluster(&self.scene.lab, &self.agent_pod, self.server.kubeconfig(), arguments)
    }

    /// An agent of this cluster at work.
    pub fn agent(&self, arguments: &[&str]) -> Result<Agent<'s>> {
        let mut agent = self.idle(arguments);
        agent.restart()?;
        agent.wait_attached(["client", "base", "fork", "other"])?;
        Ok(agent)
    }

    /// Asks with a key at every address of `shop/orders`, on new connections.
    pub fn ask(&self, key: Option<&str>) -> [Result<String, HttpError>; 4] {
        Via::ALL.map(|via| {
            let mut http = self.scene.client.http(self.scene.address(via))?;
            Ok(http.exchange(&Request::get("/").maybe_key(key))?.served_by().to_owned())
        })
    }

    /// Waits until a key has routes to forks only (before it has any it is the baseline's), and sees that its requests reach this
    /// server at every address; where another has served them, they may do so for a while.
    pub fn wait_served(&self, agent: &Agent<'_>, key: &str, by: &str) -> Result<()> {
        let served = || {
            let routes = agent.routes().ok()?;
            let mut items = routes["items"].as_array()?.iter().filter(|item| item["key"] == key).peekable();
            items.peek()?;
            let all = items.all(|item| item["kind"] == "fork");
            (all && self.ask(Some(key)).iter().all(|it| it.as_deref().is_ok_and(|server| server == by))).then_some(())
        };
        wait_for(&format!("{key} to reach {by}"), PATIENCE, served).with_context(|| said(agent))
    }

    /// Waits until the table refuses a key for a reason that has these words, and sees that it does so at every address.
    pub fn wait_refused(&self, agent: &Agent<'_>, key: &str, words: &str) -> Result<()> {
        let refused = || {
            let routes = agent.routes().ok()?;
            let mut items = routes["items"].as_array()?.iter().filter(|item| item["key"] == key).peekable();
            items.peek()?;
            items.all(|item| item["reason"].as_str().is_some_and(|reason| reason.contains(words))).then_some(())
        };
        wait_for(&format!("{key} to be refused: {words}"), PATIENCE, refused).with_context(|| said(agent))?;
        for answer in self.ask(Some(key)) {
            ensure!(matches!(answer, Err(HttpError::Reset)), "{key}: {answer:?}\n{}", said(agent));
        }
        Ok(())
    }

    /// Sees that no request with a key has ever reached the baseline, and none without one a fork.
    pub fn isolated(&self) -> Result<()> {
        let keyed = self.scene.base.journal().matching(|seen| seen.key().is_some());
        ensure!(keyed.is_empty(), "the baseline got {keyed:#?}");
        for fork in [&self.scene.fork, &self.scene.other] {
            let unkeyed = fork.journal().matching(|seen| seen.key().is_none());
            ensure!(unkeyed.is_empty(), "{} got {unkeyed:#?}", fork.name());
        }
        Ok(())
    }

    /// What the agent answers at a path: status and body.
    pub fn get(&self, path: &str) -> Result<(String, String)> {
        let url = format!("http://127.0.0.1:15020{path}");
        let said = self.agent_pod.curl(["--max-time", "5", "--write-out", "\n%{http_code}", &url])?;
        let (body, status) = said.rsplit_once('\n').context("a status")?;
        Ok((status.to_owned(), body.to_owned()))
    }
}

/// What an agent says and has in force, for a message.
pub fn said(agent: &Agent<'_>) -> String {
    format!(
        "routes: {:#}\n{}",
        agent.routes().unwrap_or_default(),
        agent.output().map(|it| it.tail()).unwrap_or_default()
    )
}
