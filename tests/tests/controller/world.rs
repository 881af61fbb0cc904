//! A namespace with a workload on a real API server, and a controller at work. The test says what kubelets and Kubernetes' own
//! controllers would.

use std::{
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use sidetrack_tests::{
    ApiServer, agent,
    gate::{self, Need},
    kube::Kubectl,
    process::Process,
    wait_for,
};

const NEEDS: &[Need] = &[Need::Lab, Need::Agent, Need::Kubernetes];
/// How long something may take, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// The address of the baseline's pod.
const BASELINE: &str = "10.99.7.1";

/// Whether the suite can run here.
pub fn open() -> bool {
    gate::open(NEEDS)
}

/// Installs definitions, policies and roles.
pub fn install(server: &ApiServer) -> Result<()> {
    for directory in ["deploy/crd", "deploy/access"] {
        server.kubectl(&["apply", "--filename", &xtask::root().join(directory).to_string_lossy()])?;
    }
    server.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]).map(drop)?;
    server.kubectl(&["create", "namespace", "sidetrack-system"]).map(drop)
}

/// A controller, as the owner of a kubeconfig.
pub fn controller(server: &ApiServer, kubeconfig: &str, identity: &str) -> Result<Process> {
    let mut command = Command::new(agent::binary());
    command.args(["controller", "--kubeconfig", kubeconfig, "--identity", identity]);
    command.args(["--log-level", "info,sidetrack_controller=debug"]).env_remove("POD_NAMESPACE");
    server.pod().spawn(command)
}

/// The server of all tests of this process that need none of their own, and its controller.
struct Shared {
    server: &'static ApiServer,
    controller: Mutex<Process>,
}

fn shared() -> Result<&'static Shared> {
    static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();
    let start = || {
        let server = ApiServer::shared()?;
        install(server)?;
        let controller = controller(server, &server.kubeconfig().to_string_lossy(), "shared")?;
        Ok(Shared { server, controller: Mutex::new(controller) })
    };
    let shared = SHARED.get_or_init(|| start().map_err(|error: anyhow::Error| format!("{error:#}")));
    shared.as_ref().map_err(|error| anyhow!("no shared controller: {error}"))
}

/// A namespace with the Deployment `orders` and its Service.
pub struct Shop<'a> {
    pub kube: Kubectl<'a>,
}

/// A namespace of the shared server; nothing where this machine cannot run it.
pub fn shop(name: &str) -> Result<Option<Shop<'static>>> {
    if !open() {
        return Ok(None);
    }
    Shop::new(shared()?.server.namespace(name)?).map(Some)
}

/// What the shared controller has said last.
fn said() -> String {
    shared().map_or_else(
        |error| format!("{error:#}"),
        |shared| shared.controller.lock().unwrap_or_else(PoisonError::into_inner).output().tail(),
    )
}

/// The pod template of `orders`.
pub fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "orders", "app.kubernetes.io/name": "orders", "team.example/name": "shop"}},
        "spec": {"containers": [{"name": "app", "image": "orders:1", "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "COLOUR", "value": "blue"}]}]},
    })
}

impl<'a> Shop<'a> {
    pub fn new(kube: Kubectl<'a>) -> Result<Self> {
        let shop = Self { kube };
        // Nobody makes it, and no pod can be made without.
        shop.kube.run(&["create", "serviceaccount", "default"])?;
        shop.workload("Deployment", "orders", &json!({"template": template()}))?;
        shop.service("orders", &json!({"app": "orders"}), BASELINE)?;
        Ok(shop)
    }

    /// A workload of `apps/v1` that selects by `app`.
    pub fn workload(&self, kind: &str, name: &str, more: &Value) -> Result<()> {
        let mut spec = json!({"selector": {"matchLabels": {"app": name}}});
        spec.as_object_mut().context("an object")?.extend(more.as_object().context("an object")?.clone());
        self.apply(&json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}))
    }

    /// A Service, and its endpoint.
    pub fn service(&self, name: &str, selector: &Value, endpoint: &str) -> Result<()> {
        self.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": "http"}]}}))?;
        self.apply(&json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [endpoint], "conditions": {"ready": true}}]}))
    }

    pub fn apply(&self, object: &Value) -> Result<()> {
        self.kube.apply(&object.to_string())
    }

    pub fn sandbox(&self, name: &str, spec: &Value) -> Result<()> {
        self.apply(&json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name}, "spec": spec}))
    }

    /// Sandbox `pr` that forks `orders` and says this of the fork.
    pub fn fork(&self, more: &Value) -> Result<()> {
        self.sandbox("pr", &json!({"forks": [orders(more)]}))
    }

    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.kube.json(&["get", kind, name])
    }

    /// All objects of a kind that were made for a Sandbox.
    pub fn made(&self, kind: &str, sandbox: &str) -> Result<Vec<Value>> {
        let label = format!("--selector=sidetrack.dev/sandbox={sandbox}");
        let all = self.kube.json(&["get", kind, &label])?;
        Ok(all["items"].as_array().cloned().unwrap_or_default())
    }

    /// The one Deployment that was made for a Sandbox.
    pub fn copy(&self, sandbox: &str) -> Result<Value> {
        self.wait("a Deployment", || Ok(self.made("deployments", sandbox)?.pop()))
    }

    /// Waits until this gives something.
    pub fn wait<T>(&self, what: &str, mut found: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let found = wait_for(what, PATIENCE, || found().transpose());
        found.and_then(|found| found).with_context(|| {
            let sandboxes = self.kube.run(&["get", "sandboxes", "--output=yaml"]).unwrap_or_default();
            format!("{sandboxes}\n{}", said())
        })
    }

    /// Waits until a condition of a Sandbox is this, with this reason; its message.
    pub fn condition(&self, sandbox: &str, kind: &str, status: &str, reason: &str) -> Result<String> {
        self.wait(&format!("{sandbox} to say {kind}={status} ({reason})"), || {
            let object = self.get("sandbox", sandbox)?;
            let is = condition(&object, kind);
            let said = is["status"] == status && is["reason"] == reason;
            Ok(said.then(|| is["message"].as_str().unwrap_or_default().to_owned()))
        })
    }

    /// Makes the pod that a Deployment asks for, as a kubelet and Kubernetes' own controllers would.
    pub fn pod(&self, name: &str, deployment: &Value, address: &str) -> Result<()> {
        let template = &deployment["spec"]["template"];
        let mut spec = template["spec"].clone();
        spec["automountServiceAccountToken"] = json!(false);
        let metadata = json!({"name": name, "labels": template["metadata"]["labels"]});
        self.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))?;
        let ready = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        self.status("pod", name, &ready)
    }

    pub fn status(&self, kind: &str, name: &str, status: &Value) -> Result<()> {
        let patch = json!({"status": status}).to_string();
        self.kube.run(&["patch", kind, name, "--subresource=status", "--type=merge", "--patch", &patch]).map(drop)
    }

    pub fn merge(&self, kind: &str, name: &str, patch: &Value) -> Result<()> {
        self.kube.run(&["patch", kind, name, "--type=merge", "--patch", &patch.to_string()]).map(drop)
    }

    /// Sandbox `pr` with a fork of `orders` that is ready; its Deployment.
    pub fn ready(&self, more: &Value) -> Result<Value> {
        self.fork(more)?;
        let deployment = self.copy("pr")?;
        self.pod("pr-orders-1", &deployment, "10.99.7.2")?;
        self.condition("pr", "Ready", "True", "Ready")?;
        Ok(deployment)
    }
}

/// A fork of `orders` that says this beside.
pub fn orders(more: &Value) -> Value {
    let mut fork = json!({"name": "orders", "workload": {"kind": "Deployment", "name": "orders"}});
    if let (Some(all), Some(more)) = (fork.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    fork
}

/// A condition of an object.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array();
    all.into_iter().flatten().find(|it| it["type"] == kind).unwrap_or(&Value::Null)
}

/// What changes with each write.
pub fn version(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}
