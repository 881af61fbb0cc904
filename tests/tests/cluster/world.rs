//! The agents, once for all tests, and an application in a namespace of each test's own.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use sidetrack_tests::{
    Pod, Request,
    gate::{self, Need},
    kube::{Cluster, Kubectl, image},
    wait_for,
};

pub const NEEDS: &[Need] = &[Need::Lab, Need::Curl, Need::Kubernetes, Need::Nodes];
/// How long a change may take to arrive, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// The label of the agents.
const AGENTS: &str = "app.kubernetes.io/component=agent";
/// Where they are.
const SYSTEM: &str = "sidetrack-system";
const PORT: u16 = 8080;
/// The target of requests that ask whether the key is known already.
const WARM: &str = "/warm";

/// An application of two services over two nodes, its forks, and a client on each node.
pub struct World {
    pub cluster: &'static Cluster,
    pub services: Vec<Service>,
    /// In the order of the nodes.
    pub clients: Vec<Pod>,
    /// What leads to the forks.
    pub key: String,
    namespace: String,
}

/// One of the services.
pub struct Service {
    /// Its name, and what its baseline calls itself.
    pub name: String,
    /// What its fork calls itself.
    pub fork: String,
    /// Its own addresses: IPv4, IPv6.
    pub cluster: [SocketAddr; 2],
    /// Its baseline's, which clients have from its headless twin.
    endpoints: Vec<SocketAddr>,
}

impl Service {
    /// All that clients may dial.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.cluster.iter().chain(&self.endpoints).copied().collect()
    }
}

/// The cluster with agents on its nodes; nothing where this machine cannot run it.
fn cluster() -> Result<Option<&'static Cluster>> {
    static INSTALLED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    if !gate::open(&[NEEDS, &[Need::Image]].concat()) {
        return Ok(None);
    }
    let cluster = Cluster::shared()?;
    let installed = INSTALLED.get_or_init(|| install(cluster).map_err(|error| format!("{error:#}")));
    installed.clone().map_err(anyhow::Error::msg)?;
    Ok(Some(cluster))
}

fn install(cluster: &Cluster) -> Result<()> {
    cluster.import_cast(Path::new(env!("CARGO_BIN_EXE_cast")))?;
    cluster.import(&image::of_agent())?;
    let overlay = xtask::root().join("deploy/kustomize/overlays/test");
    let objects = cluster.server().kubectl(&["kustomize", &overlay.to_string_lossy()])?;
    let admin = cluster.server().admin().in_namespace(SYSTEM);
    admin.feed(&["apply", "--server-side", "--filename=-"], &objects)?;
    // What is asked here is what agents do by themselves: the tests make the forks' pods.
    admin.run(&["scale", "--replicas=0", "deployment/sidetrack-controller"])?;
    let rolled = admin.run(&["rollout", "status", "daemonset/sidetrack-agent", "--timeout=120s"]);
    rolled.map(drop).with_context(|| said(cluster))
}

impl World {
    /// Makes the application and its Sandbox, and waits until keyed requests reach the forks from everywhere.
    pub fn new(name: &str) -> Result<Option<Self>> {
        let Some(cluster) = cluster()? else { return Ok(None) };
        let kube = cluster.namespace(name)?;
        let namespace = kube.namespace().to_owned();
        // Whatever is forked on one node has its fork on the other.
        let placed = [("orders", "n1", "n2"), ("payments", "n2", "n1")];
        let key = format!("pr.{namespace}");
        kube.apply(&sandbox(&key, &placed.map(|(service, ..)| service)).to_string())?;
        for (service, node, other) in placed {
            for object in application(service, node, other) {
                kube.apply(&object.to_string())?;
            }
        }
        let nodes = cluster.nodes().iter().map(sidetrack_tests::kube::Node::name).collect::<Vec<_>>();
        for node in &nodes {
            kube.apply(&pod(&format!("client-{node}"), &json!({"app": "client"}), node, &["pause"]).to_string())?;
        }
        let clients = nodes.iter().map(|node| cluster.pod(&kube, &format!("client-{node}"))).collect::<Result<_>>()?;
        kube.run(&["wait", "--for=condition=Ready", "--timeout=120s", "pod", "--all"])?;
        let services = placed.iter().map(|(service, ..)| addresses(&kube, service)).collect::<Result<_>>()?;
        let world = Self { cluster, services, clients, key, namespace };
        world.wait_steered().with_context(|| world.said())?;
        Ok(Some(world))
    }

    /// Until its route has come to a node, a key is unknown there, and its requests are the baseline's.
    fn wait_steered(&self) -> Result<()> {
        for client in &self.clients {
            for service in &self.services {
                for address in service.addresses() {
                    let steered = || {
                        let answer = client.http(address).ok()?.exchange(&Request::get(WARM).key(&self.key)).ok()?;
                        (answer.served_by() == service.fork).then_some(())
                    };
                    let what = format!("{} to reach {} by {address}", client.name(), service.fork);
                    wait_for(&what, PATIENCE, steered)?;
                }
            }
        }
        Ok(())
    }

    /// Sees that no request with the key has reached a baseline since, and that none without it has ever reached a fork.
    pub fn isolated(&self) -> Result<()> {
        for Service { name, fork, .. } in &self.services {
            let keyed = |(key, target): &(String, String)| *key == self.key && target != WARM;
            let at_base = self.log(&format!("deployment/{name}"))?;
            let wrong = at_base.iter().find(|seen| keyed(seen));
            ensure!(wrong.is_none(), "{name} got {wrong:?}");
            let at_fork = self.log(&format!("pod/{fork}"))?;
            let wrong = at_fork.iter().find(|(key, _)| *key != self.key);
            ensure!(wrong.is_none(), "{fork} got {wrong:?}");
            ensure!(!at_fork.is_empty(), "{fork} got nothing");
        }
        Ok(())
    }

    /// kubectl in the application's namespace.
    pub fn kube(&self) -> Kubectl<'static> {
        self.cluster.server().admin().in_namespace(&self.namespace)
    }

    /// kubectl in the agents' namespace.
    pub fn agents(&self) -> Kubectl<'static> {
        self.cluster.server().admin().in_namespace(SYSTEM)
    }

    /// What a server says of what has reached it: keys and targets.
    fn log(&self, of: &str) -> Result<Vec<(String, String)>> {
        let said = self.kube().run(&["logs", of, "--tail=-1"])?;
        let seen = said.lines().filter_map(|line| line.strip_prefix("got ")?.split_once(' '));
        Ok(seen.map(|(key, target)| (key.to_owned(), target.to_owned())).collect())
    }

    /// What agents say, for a message.
    pub fn said(&self) -> String {
        said(self.cluster)
    }
}

/// What agents and nodes say, for a message.
fn said(cluster: &Cluster) -> String {
    let admin = cluster.server().admin().in_namespace(SYSTEM);
    let ask = |words: &[&str]| admin.run(words).unwrap_or_else(|error| format!("{error:#}"));
    let pods = ask(&["get", "pods", "--all-namespaces", "--output=wide"]);
    let agents = ask(&["logs", "--selector", AGENTS, "--tail=30", "--prefix"]);
    let events = ask(&["get", "events", "--sort-by=.lastTimestamp"]);
    format!("{pods}\n{agents}\n{events}")
}

/// An agent's pod.
pub struct AgentPod {
    pub name: String,
    pub address: IpAddr,
    pub ready: bool,
}

/// The agent of a node.
pub fn of_agents(cluster: &Cluster, node: &str) -> Result<AgentPod> {
    let admin = cluster.server().admin().in_namespace(SYSTEM);
    let list = admin.json(&["get", "pods", "--selector", AGENTS, &format!("--field-selector=spec.nodeName={node}")])?;
    let [pod] = list["items"].as_array().map_or(&[][..], Vec::as_slice) else {
        return Err(anyhow!("not one agent on {node}: {list:#}"));
    };
    let name = pod["metadata"]["name"].as_str().context("a name")?.to_owned();
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
    Ok(AgentPod { name, address: pod["status"]["podIP"].as_str().context("an address")?.parse()?, ready })
}

fn pod(name: &str, labels: &Value, node: &str, arguments: &[&str]) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
    let template = template(labels, node, arguments);
    object["metadata"]["labels"] = labels.clone();
    object["spec"] = template["spec"].clone();
    object
}

fn template(labels: &Value, node: &str, arguments: &[&str]) -> Value {
    let mut container = json!({"name": "cast", "image": image::CAST, "imagePullPolicy": "Never", "args": arguments});
    if arguments.first() == Some(&"serve") {
        container["ports"] = json!([{"name": "http", "containerPort": PORT}]);
        container["readinessProbe"] = json!({"tcpSocket": {"port": PORT}, "periodSeconds": 1});
    }
    json!({"metadata": {"labels": labels}, "spec": {"nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 2, "automountServiceAccountToken": false, "containers": [container]}})
}

/// A workload with its Service and a headless twin; and, in place of a controller, the fork's pod.
fn application(name: &str, node: &str, other: &str) -> [Value; 4] {
    let labels = json!({"app": name});
    let serve = |name: &str| ["serve".to_owned(), name.to_owned(), PORT.to_string()];
    let (base, fork) = (serve(name), serve(&format!("{name}-fork")));
    let workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": labels}, "template": template(&labels, node, &base.each_ref().map(String::as_str))}});
    let service = |name: &str, own: Value| {
        let mut spec = json!({"selector": labels, "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80, "targetPort": "http"}]});
        spec["clusterIP"] = own;
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
    };
    let of_fork = json!({"sidetrack.dev/sandbox": "pr", "sidetrack.dev/fork": name});
    let fork = pod(&format!("{name}-fork"), &of_fork, other, &fork.each_ref().map(String::as_str));
    [workload, service(name, Value::Null), service(&format!("{name}-headless"), "None".into()), fork]
}

fn sandbox(key: &str, services: &[&str]) -> Value {
    let fork = |name: &&str| json!({"name": name, "workload": {"kind": "Deployment", "name": name}, "services": [name, format!("{name}-headless")]});
    let forks = services.iter().map(fork).collect::<Vec<_>>();
    json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "pr"},
        "spec": {"keys": [key], "forks": forks}})
}

fn addresses(kube: &Kubectl<'_>, name: &str) -> Result<Service> {
    let service = kube.json(&["get", "service", name])?;
    let own = service["spec"]["clusterIPs"].as_array().context("a Service has addresses")?;
    let own = own
        .iter()
        .map(|ip| Ok(SocketAddr::new(ip.as_str().context("a text")?.parse()?, 80)))
        .collect::<Result<Vec<_>>>()?;
    let pods = kube.json(&["get", "pods", &format!("--selector=app={name}")])?;
    let mut endpoints = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        for ip in pod["status"]["podIPs"].as_array().into_iter().flatten() {
            endpoints.push(SocketAddr::new(ip["ip"].as_str().context("a text")?.parse()?, PORT));
        }
    }
    ensure!(endpoints.len() == 2, "{name} has the endpoints {endpoints:?}");
    let cluster = <[SocketAddr; 2]>::try_from(own).map_err(|own| anyhow!("{name} has the addresses {own:?}"))?;
    Ok(Service { name: name.to_owned(), fork: format!("{name}-fork"), cluster, endpoints })
}
