//! What a node is started with: addresses, files, command lines.

use crate::{
    kube::{control::find, users::User},
    lab::LAB_DIR,
};
use anyhow::Result;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use xtask::kubernetes::{KUBE_PROXY, KUBELET};

/// Where Debian puts the plugins that link pods' networks.
pub const PLUGINS: &str = "/usr/lib/cni";
/// The addresses of all pods.
const PODS: &str = "10.244.0.0/16,fd00:244::/32";
/// Where containerd answers.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// The name of the node that logs in as this user.
pub fn name_of(user: &User) -> &'static str {
    user.name.rsplit(':').next().unwrap_or(user.name)
}

/// One node: what it is called, where its pods are, whom it asks.
#[derive(Debug)]
pub struct Site {
    name: &'static str,
    index: usize,
    dir: PathBuf,
    cgroup: String,
    authority: PathBuf,
    kubelet: PathBuf,
    proxy: PathBuf,
}

impl Site {
    /// The node with this index, which is `user`; the files by which its programs log in.
    pub fn new(index: usize, user: &User, cgroup: &str, authority: &Path, kubelet: &Path, proxy: &Path) -> Self {
        let name = name_of(user);
        Self {
            name,
            index,
            dir: Path::new(LAB_DIR).join(format!("node-{name}")),
            cgroup: format!("/{cgroup}/{name}"),
            authority: authority.to_owned(),
            kubelet: kubelet.to_owned(),
            proxy: proxy.to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The number of its pod in the lab.
    pub fn number(&self) -> u8 {
        u8::try_from(240 + self.index).unwrap_or(u8::MAX)
    }

    /// Its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The addresses of its pods, of both families.
    pub fn pods(&self) -> [String; 2] {
        [format!("10.244.{}.0/24", self.index), format!("fd00:244:{}::/64", self.index)]
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes its files.
    pub fn write(&self) -> Result<()> {
        fs::create_dir_all(self.file("cni"))?;
        fs::write(self.file("cni/10-pods.conflist"), self.network().to_string())?;
        fs::write(self.file("containerd.toml"), self.containerd_config())?;
        fs::write(self.file("kubelet.yaml"), self.kubelet_config().to_string())?;
        Ok(())
    }

    /// A routed veth for each pod: no bridge, no masquerading.
    fn network(&self) -> serde_json::Value {
        let [v4, v6] = self.pods();
        let ipam = json!({"type": "host-local", "dataDir": "/var/lib/cni/addresses",
            "ranges": [[{"subnet": v4}], [{"subnet": v6}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
        let plugin = json!({"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": ipam});
        json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]})
    }

    /// Without what a container in a virtual machine may not do: lower scores of the kernel's choice of victims, profiles of `AppArmor`.
    fn containerd_config(&self) -> String {
        let cni = self.file("cni");
        format!(
            r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{PLUGINS}"
  conf_dir = "{}"
"#,
            super::super::image::PAUSE,
            cni.display(),
        )
    }

    fn kubelet_config(&self) -> serde_json::Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.authority}},
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup,
            "failCgroupV1": false,
            "failSwapOn": false,
            // Lower ones are for those who may lower them.
            "oomScoreAdj": 0,
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "podLogsDir": "/var/log/pods",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            // Nothing of a test is removed for want of room.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
            // Pods of a test come in crowds.
            "registryPullQPS": 0, "eventRecordQPS": 0, "kubeAPIQPS": 50, "kubeAPIBurst": 100,
        })
    }

    /// containerd.
    pub fn containerd(&self) -> Command {
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.file("containerd.toml"));
        command
    }

    /// The kubelet.
    pub fn kubelet(&self, addresses: &str) -> Result<Command> {
        let mut command = Command::new(find(KUBELET)?);
        command.arg(option("config", &self.file("kubelet.yaml"))).arg(option("kubeconfig", &self.kubelet));
        command.args(["--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki"]);
        command.arg(format!("--hostname-override={}", self.name)).arg(format!("--node-ip={addresses}"));
        Ok(command)
    }

    /// kube-proxy. How many connections are tracked is the machine's own setting.
    pub fn kube_proxy(&self) -> Result<Command> {
        let mut command = Command::new(find(KUBE_PROXY)?);
        command
            .arg(option("kubeconfig", &self.proxy))
            .arg("--proxy-mode=nftables")
            .arg(format!("--cluster-cidr={PODS}"));
        command.args(["--conntrack-max-per-core=0", "--healthz-bind-address=127.0.0.1:10256"]);
        command.arg(format!("--hostname-override={}", self.name));
        Ok(command)
    }
}

fn option(name: &str, value: &Path) -> String {
    format!("--{name}={}", value.display())
}
