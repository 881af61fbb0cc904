//! What the control plane is started with: files, and command lines.

use super::{
    pki,
    users::{self, CONTROLLERS, SCHEDULER, USERS, User},
};
use crate::lab::{LAB_DIR, Pod};
use anyhow::{Context as _, Result};
use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};
use xtask::{
    kubernetes::{KUBE_APISERVER, KUBE_CONTROLLER_MANAGER, KUBE_SCHEDULER, KUBECTL, Program, VERSION},
    process::find_program,
};

/// The port of the API server.
pub const PORT: u16 = 6443;
/// The addresses of Services, as `kubeadm` has them; the lab's own Services have theirs in the same ranges.
const SERVICES: &str = "10.96.0.0/16,fd00:96::/112";
/// The Service that leads to the API server has the first address of each range.
const SERVICE_V4: &str = "10.96.0.1";
const SERVICE_V6: &str = "fd00:96::1";
/// Where etcd listens for the API server.
pub const ETCD: &str = "127.0.0.1:2379";
const ETCD_PEERS: &str = "http://localhost:2380";
const ISSUER: &str = "https://kubernetes.default.svc";

/// The control plane of one pod.
#[derive(Debug)]
pub struct Control {
    dir: PathBuf,
    address: Ipv4Addr,
    etcd: PathBuf,
    api_server: PathBuf,
    kubectl: PathBuf,
}

impl Control {
    /// Makes its files: certificates, keys, tokens, kubeconfigs.
    pub fn prepare(pod: &Pod) -> Result<Self> {
        let dir = Path::new(LAB_DIR).join(format!("kubernetes-{}", pod.name()));
        fs::create_dir_all(dir.join("home"))?;
        let etcd = find_program("etcd").context("etcd is missing: run `cargo xtask setup`")?;
        let control = Self { dir, address: pod.v4(), etcd, api_server: find(KUBE_APISERVER)?, kubectl: find(KUBECTL)? };
        pki::write(&control.dir, &control.names(pod)).context("the certificates cannot be made")?;
        fs::write(control.file("tokens.csv"), users::tokens())?;
        for user in USERS {
            fs::write(control.kubeconfig(user), users::kubeconfig(user, &control.server(), &control.authority()))?;
        }
        Ok(control)
    }

    /// What clients may call the API server.
    fn names(&self, pod: &Pod) -> Vec<String> {
        let addresses = [self.address.to_string(), pod.v6().to_string()];
        let fixed = [SERVICE_V4, SERVICE_V6, "127.0.0.1", "::1", "localhost"];
        let service = ["", ".default", ".default.svc", ".default.svc.cluster.local"];
        let service = service.into_iter().map(|domain| format!("kubernetes{domain}"));
        addresses.into_iter().chain(fixed.map(str::to_owned)).chain(service).collect()
    }

    fn server(&self) -> String {
        format!("https://{}:{PORT}", self.address)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.file(pki::CA)
    }

    /// A user's kubeconfig.
    pub fn kubeconfig(&self, user: &User) -> PathBuf {
        self.file(&format!("{}.conf", user.file_name()))
    }

    /// A program with nothing of this process's environment but `PATH`: no proxy, no settings of another cluster.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", self.file("home"));
        command
    }

    /// etcd, on the data that is there.
    pub fn etcd(&self) -> Command {
        let mut command = self.command(&self.etcd);
        command.arg("--data-dir").arg(self.file("etcd"));
        let clients = format!("http://{ETCD}");
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", ETCD_PEERS]);
        command.args(["--initial-cluster", &format!("default={ETCD_PEERS}")]);
        // Processes are killed here, machines are not: what was written is there for the next one.
        command.args(["--unsafe-no-fsync", "--log-level", "warn"]);
        command
    }

    /// The API server.
    pub fn api_server(&self) -> Command {
        let mut command = self.command(&self.api_server);
        let mut option = |name: &str, value: &str| {
            command.arg(format!("--{name}={value}"));
        };
        option("etcd-servers", &format!("http://{ETCD}"));
        option("advertise-address", &self.address.to_string());
        option("bind-address", "::");
        option("secure-port", &PORT.to_string());
        option("authorization-mode", "Node,RBAC");
        option("allow-privileged", "true");
        option("service-cluster-ip-range", SERVICES);
        option("service-account-issuer", ISSUER);
        // Nobody resolves the nodes' names.
        option("kubelet-preferred-address-types", "InternalIP");
        for (name, file) in [
            ("tls-cert-file", pki::SERVER),
            ("tls-private-key-file", pki::SERVER_KEY),
            ("client-ca-file", pki::CA),
            ("token-auth-file", "tokens.csv"),
            ("kubelet-client-certificate", pki::CLIENT),
            ("kubelet-client-key", pki::CLIENT_KEY),
            ("service-account-key-file", pki::ACCOUNTS),
            ("service-account-signing-key-file", pki::ACCOUNTS_KEY),
        ] {
            option(name, &self.file(file).to_string_lossy());
        }
        command
    }

    /// What makes pods of Deployments, endpoints of pods, and so on.
    pub fn controller_manager(&self) -> Result<Command> {
        let mut command = self.command(&find(KUBE_CONTROLLER_MANAGER)?);
        command.arg("--leader-elect=false").arg("--use-service-account-credentials=true");
        command.arg(option("kubeconfig", &self.kubeconfig(&CONTROLLERS)));
        command.arg(option("root-ca-file", &self.authority()));
        command.arg(option("service-account-private-key-file", &self.file(pki::ACCOUNTS_KEY)));
        Ok(command)
    }

    /// What says which pod runs where.
    pub fn scheduler(&self) -> Result<Command> {
        let mut command = self.command(&find(KUBE_SCHEDULER)?);
        command.arg("--leader-elect=false").arg(option("kubeconfig", &self.kubeconfig(&SCHEDULER)));
        Ok(command)
    }

    /// kubectl, as the owner of this kubeconfig.
    pub fn kubectl(&self, user: &User) -> Command {
        let mut command = self.command(&self.kubectl);
        command.env("KUBECONFIG", self.kubeconfig(user));
        command
    }
}

fn option(name: &str, value: &Path) -> String {
    format!("--{name}={}", value.display())
}

/// Where a program of Kubernetes lies.
pub fn find(program: Program) -> Result<PathBuf> {
    program.find().with_context(|| format!("{} {VERSION} is missing: run `cargo xtask setup`", program.name))
}
