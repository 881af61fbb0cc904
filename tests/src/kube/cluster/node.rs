//! One node: a pod of the lab in which a container runtime, a kubelet and a kube-proxy run.

use super::config::{SOCKET, Site};
use crate::{
    lab::{self, Lab, Pod},
    process::Process,
    wait_for,
};
use anyhow::{Context as _, Result, bail};
use std::{net::Ipv4Addr, os::fd::OwnedFd, path::PathBuf, process::Command, time::Duration};

/// How long its namespaces and its container runtime may take to be there.
const STARTED: Duration = Duration::from_mins(1);

/// The first process of a node. It says its number, as the machine sees it, and gives the node directories of its own; the lab's
/// stays where it is. The settings of the machine that a kubelet writes are covered by files that have what it wants. Then it
/// buries the processes whose parents have ended.
const INIT: &str = r#"
set -e
lab=$1 node=$2
read -r pid rest </proc/self/stat
mount -t proc proc /proc
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /var/log
mkdir -p /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/lib/lab
mount --bind "$lab" /var/lib/lab
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/containerd "$lab"
mount --move /var/lib/lab "$lab"
mount -t bpf bpf /sys/fs/bpf
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    name=${setting%%=*}
    mkdir -p "$node/sys/${name%/*}"
    echo "${setting#*=}" >"$node/sys/$name"
    mount --bind "$node/sys/$name" "/proc/sys/$name"
done
mount --make-rshared /
echo "node $pid"
sleep infinity &
wait
"#;

/// A running node. When it is dropped its first process ends, and every other one of it.
#[derive(Debug)]
pub struct Node {
    site: Site,
    pod: Pod,
    /// The number of its first process.
    first: u32,
    /// Kubelet, kube-proxy, containerd: so they are asked how they are.
    running: Vec<Process>,
    /// Last: it takes all the others with it.
    init: Process,
}

impl Node {
    /// Makes its namespaces and starts its programs. It is ready when the API server says so.
    pub(super) fn start(lab: &Lab, site: Site) -> Result<Self> {
        let pod = lab.pod(site.name(), site.number())?;
        site.write()?;
        let [v4, v6] = site.pods();
        let host = pod.host_interface();
        lab.ip(&format!("route add {v4} via {} dev {host}", pod.v4()))?;
        lab.ip(&format!("-6 route add {v6} via {} dev {host}", pod.v6()))?;
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/default/forwarding"] {
            pod.sysctl(setting, "1")?;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child=SIGKILL"]);
        command.args(["sh", "-c", INIT, "sh", lab::LAB_DIR]).arg(site.dir());
        let mut init = pod.spawn(command)?;
        let first = wait_for("the namespaces of a node", STARTED, || {
            if let Err(ended) = init.check_alive() {
                return Some(Err(ended));
            }
            let lines = init.output().lines();
            lines.iter().find_map(|line| line.strip_prefix("node ")?.parse().ok()).map(Ok)
        })??;
        let mut node = Self { site, pod, first, running: Vec::new(), init };
        node.start_runtime()?;
        let addresses = format!("{},{}", node.pod.v4(), node.pod.v6());
        for program in [node.site.kubelet(&addresses)?, node.site.kube_proxy()?] {
            let process = node.spawn(&program)?;
            node.running.push(process);
        }
        Ok(node)
    }

    fn start_runtime(&mut self) -> Result<()> {
        let mut runtime = self.spawn(&self.site.containerd())?;
        let answers = || {
            if let Err(ended) = runtime.check_alive() {
                return Some(Err(ended));
            }
            self.ctr(&["version"]).is_ok().then_some(Ok(()))
        };
        let answered = wait_for("containerd to answer", STARTED, answers).flatten();
        answered.with_context(|| runtime.output().tail())?;
        self.running.push(runtime);
        Ok(())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.site.name()
    }

    /// The pod of the lab that it is.
    #[must_use]
    pub fn as_pod(&self) -> &Pod {
        &self.pod
    }

    /// A command that runs inside of it.
    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        // Nothing of this process's environment: no proxy, no settings of another cluster.
        let path = std::env::var("PATH").unwrap_or_default();
        inside.env_clear().env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")).env("HOME", "/var/lib");
        inside.arg(format!("--target={}", self.first)).args(["--mount", "--pid", "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    fn spawn(&self, command: &Command) -> Result<Process> {
        self.pod.spawn(self.inside(command))
    }

    /// Runs a command inside of it to its end; its standard output.
    ///
    /// # Errors
    /// When it fails: its words are in the message.
    pub fn run(&self, command: &Command) -> Result<String> {
        self.pod.run(self.inside(command))
    }

    /// Asks its container runtime.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn ctr(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("ctr");
        command.args(["--address", SOCKET, "--namespace", "k8s.io"]).args(words);
        self.run(&command)
    }

    /// A path inside of it, as this process can open it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first))
    }

    /// The namespace of its pod that has this address.
    pub(super) fn namespace_of(&self, address: Ipv4Addr) -> Result<OwnedFd> {
        for path in super::namespaces(&self.path(lab::NETNS_DIR))? {
            // One that goes at this moment is not the pod's.
            let Ok(netns) = lab::open_netns(&path) else { continue };
            if super::address_in(&netns).is_ok_and(|all| all.contains(&address)) {
                return Ok(netns);
            }
        }
        bail!("no namespace has this address")
    }

    /// Fails, with its last words, if one of its programs has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.running.iter_mut().chain([&mut self.init]).try_for_each(Process::check_alive)
    }

    /// What its programs have said last.
    #[must_use]
    pub fn last_words(&self) -> String {
        let said = self.running.iter().map(|process| process.output().tail()).collect::<Vec<_>>();
        format!("{}:\n{}", self.name(), said.join("\n"))
    }

    /// The number of its first process.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }
}
