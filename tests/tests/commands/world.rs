//! The binary as somebody's command line, and what a cluster's controllers would write.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sidetrack_tests::{
    ApiServer, agent,
    gate::{self, Need},
    kube::{Kubectl, users::ADMIN},
    process::Process,
};

const NEEDS: &[Need] = &[Need::Lab, Need::Agent, Need::Kubernetes];
/// How long something may take on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Whether this machine can run the tests.
pub fn open() -> bool {
    gate::open(NEEDS)
}

/// A file that goes with its handle.
#[derive(Debug)]
pub struct File(PathBuf);

impl File {
    /// Writes one that no other test has.
    pub fn write(name: &str, text: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{count}-{name}", std::process::id()));
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn text(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // It may be gone already.
        drop(fs::remove_file(&self.0));
    }
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Its answer; it must have gone well.
    pub fn well(self) -> Result<String> {
        ensure!(self.code == 0 && self.err.is_empty(), "{self:#?}");
        Ok(self.out)
    }

    /// Its answer as JSON; it must have gone well.
    pub fn json(self) -> Result<Value> {
        let text = self.well()?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// It must have ended so, with these words on standard error.
    pub fn failed(&self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(self.code == code, "expected exit code {code}: {self:#?}");
        for words in words {
            ensure!(self.err.contains(words), "{words:?} was not said: {self:#?}");
        }
        Ok(())
    }
}

/// The binary, for one who has a kubeconfig.
pub struct CommandLine<'s> {
    server: &'s ApiServer,
    pub kubeconfig: File,
}

impl<'s> CommandLine<'s> {
    /// The administrator's, or somebody's who has no rights but those that a test gives him; in a namespace.
    pub fn new(server: &'s ApiServer, namespace: &str, user: Option<&str>) -> Result<Self> {
        let address = format!("https://{}", server.addresses()[0]);
        let mut who = json!({"token": ADMIN.token()});
        if let Some(user) = user {
            who["as"] = json!(user);
        }
        let context = json!({"cluster": "lab", "user": "user", "namespace": namespace});
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": address, "certificate-authority": server.authority()}}],
            "users": [{"name": "user", "user": who}], "contexts": [{"name": "lab", "context": context}]});
        let kubeconfig = File::write("kubeconfig", &config.to_string())?;
        Ok(Self { server, kubeconfig })
    }

    /// The command that these words are, with nothing of this process's environment that a user's would not have.
    pub fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(agent::binary());
        command.args(line).env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("KUBECONFIG", self.kubeconfig.path());
        command
    }

    /// Runs it with this on its standard input.
    pub fn feed(&self, line: &[&str], input: &str) -> Result<Said> {
        self.run(self.command(line), input)
    }

    /// Runs a command to its end, where the API server is reached.
    pub fn run(&self, command: Command, input: &str) -> Result<Said> {
        let output = self.server.pod().attempt(command, input)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said {
            code: output.status.code().context("it was killed")?,
            out: text(&output.stdout),
            err: text(&output.stderr),
        })
    }

    /// Runs what these words say.
    pub fn say(&self, line: &str) -> Result<Said> {
        self.feed(&line.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// Starts what these words say.
    pub fn start(&self, line: &str) -> Result<Process> {
        self.server.pod().spawn(self.command(&line.split_whitespace().collect::<Vec<_>>()))
    }
}

/// A namespace, with the administrator's kubectl and command line.
pub struct World {
    pub kube: Kubectl<'static>,
    pub me: CommandLine<'static>,
    pub ns: String,
}

impl World {
    /// One that no other test has, on a server that knows Sandboxes; nothing where this machine cannot run it.
    pub fn new(name: &str) -> Result<Option<Self>> {
        static INSTALLED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
        if !open() {
            return Ok(None);
        }
        let server = ApiServer::shared()?;
        let installed = INSTALLED.get_or_init(|| install(server).map_err(|error| format!("{error:#}")));
        installed.clone().map_err(anyhow::Error::msg)?;
        let kube = server.namespace(name)?;
        // Nobody makes it, and no pod can be made without.
        kube.run(&["create", "serviceaccount", "default"])?;
        let ns = kube.namespace().to_owned();
        Ok(Some(Self { me: CommandLine::new(server, &ns, None)?, kube, ns }))
    }

    /// Somebody's command line in the same namespace.
    pub fn somebody(&self, name: &str) -> Result<CommandLine<'static>> {
        CommandLine::new(ApiServer::shared()?, &self.ns, Some(name))
    }

    /// A Deployment with these containers.
    pub fn deployment(&self, name: &str, containers: &[&str]) -> Result<()> {
        let labels = json!({"app": name});
        let containers: Vec<_> = containers.iter().map(|name| json!({"name": name, "image": "app:1"})).collect();
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}});
        self.kube.apply(&object.to_string())
    }

    /// Sandbox `pr` with the fork `orders` of a Deployment and the fork `mocks` of somebody else's pods.
    pub fn sandbox(&self) -> Result<()> {
        self.kube.apply(&sandbox("pr").to_string())
    }

    /// A Sandbox as it is stored.
    pub fn stored(&self, name: &str) -> Result<Value> {
        self.kube.json(&["get", "sandbox", name])
    }

    /// What a controller says of a Sandbox.
    pub fn status(&self, name: &str, status: &Value) -> Result<()> {
        let patch = json!({"status": status}).to_string();
        self.kube.run(&["patch", "sandbox", name, "--subresource=status", "--type=merge", "--patch", &patch]).map(drop)
    }

    /// A pod of fork `orders` of Sandbox `pr`, and what is said of it.
    pub fn pod(&self, name: &str, node: Option<&str>, status: &Value) -> Result<()> {
        let labels = json!({"sidetrack.dev/sandbox": "pr", "sidetrack.dev/fork": "orders"});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {
            "automountServiceAccountToken": false, "nodeName": node, "containers": [{"name": "app", "image": "app:2"}]}});
        self.kube.apply(&pod.to_string())?;
        let patch = json!({"status": status}).to_string();
        self.kube.run(&["patch", "pod", name, "--subresource=status", "--type=merge", "--patch", &patch]).map(drop)
    }
}

/// The object of [`World::sandbox`], under this name.
pub fn sandbox(name: &str) -> Value {
    json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name}, "spec": {
        "ttl": "2h", "forks": [
            {"name": "orders", "workload": {"kind": "Deployment", "name": "orders"}},
            {"name": "mocks", "podSelector": {"matchLabels": {"app": "mock"}}, "services": ["payments"]}]}})
}

/// A condition of a Sandbox.
pub fn condition(kind: &str, status: &str, reason: &str, message: &str, generation: i64) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": generation,
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// Makes the objects known to a server.
pub fn install(server: &ApiServer) -> Result<()> {
    for directory in ["deploy/crd", "deploy/access"] {
        server.kubectl(&["apply", "--filename", &xtask::root().join(directory).to_string_lossy()])?;
    }
    server.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]).map(drop)
}

/// Words of a line of a table.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}
