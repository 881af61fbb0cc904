//! A real cluster of two nodes on one machine: a control plane, and two kubelets with their own containerd and kube-proxy.
//!
//! ```no_run
//! use sidetrack_tests::kube::{Cluster, image};
//! use std::path::Path;
//!
//! # fn main() -> anyhow::Result<()> {
//! let cluster = Cluster::start("example")?;
//! cluster.import_cast(Path::new("cast"))?;
//! cluster.import(&image::of_agent())?;
//! let admin = cluster.namespace("shop")?;
//! admin.apply("{apiVersion: v1, kind: Pod, metadata: {name: one}, spec: {containers: [{name: c, image: localhost/cast:1}]}}")?;
//! let pod = cluster.pod(&admin, "one")?; // like any pod of a lab
//! # drop(pod);
//! # Ok(())
//! # }
//! ```
//!
//! The lab's node routes between the two, as the network between real ones. A node is a pod of the lab with a mount namespace
//! (its own `/run/netns`, bpffs, `/var/lib`, `/var/log`) and a process namespace: whatever ends its first process, be it the
//! end of a test that was killed, ends every container, and takes every mount and pin with it. Cgroups have no such
//! namespace: [`cgroups`] removes them.

mod cgroups;
mod config;
mod node;

pub use config::PLUGINS;
pub use node::Node;

use super::{
    api_server::ApiServer,
    image,
    kubectl::Kubectl,
    users::{self, PROXY},
};
use crate::{
    lab::{self, LAB_DIR, Lab, Pod},
    process::Process,
    wait_for,
};
use anyhow::{Context as _, Result, anyhow, ensure};
use cgroups::Cgroups;
use config::Site;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// How long it may take until all is ready: on an idle machine some ten seconds.
const READY: Duration = Duration::from_mins(3);
/// How long a pod may take to run.
pub const POD_READY: Duration = Duration::from_mins(2);

/// The running cluster. All of it goes when it is dropped, and when the test process ends, however that happens.
#[derive(Debug)]
pub struct Cluster {
    /// Before their cgroups, and all of it before the API server.
    nodes: Vec<Node>,
    cgroups: Cgroups,
    _controllers: [Process; 2],
    server: ApiServer,
    lab: Lab,
}

impl Cluster {
    /// Starts it in a lab of its own, and waits until both nodes are ready.
    ///
    /// # Errors
    /// When a program is missing, or when one ends: its last words are in the message.
    pub fn start(name: &str) -> Result<Self> {
        let begin = Instant::now();
        let lab = Lab::new(name)?;
        let control = lab.pod("control", 250)?;
        let server = ApiServer::start_in(&control)?;
        let plane = server.control();
        let controllers = [control.spawn(plane.controller_manager()?)?, control.spawn(plane.scheduler()?)?];
        let cgroups = Cgroups::make(&users::NODES.map(|user| config::name_of(&user)))?;
        let (authority, proxy) = (plane.authority(), plane.kubeconfig(&PROXY));
        let mut nodes = Vec::new();
        for (index, user) in users::NODES.iter().enumerate() {
            let site = Site::new(index, user, cgroups.name(), &authority, &plane.kubeconfig(user), &proxy);
            nodes.push(Node::start(&lab, site)?);
        }
        let mut cluster = Self { nodes, cgroups, _controllers: controllers, server, lab };
        cluster.wait_ready()?;
        eprintln!("cluster of {} nodes ready after {:.1} s", cluster.nodes.len(), begin.elapsed().as_secs_f64());
        Ok(cluster)
    }

    /// The one that all tests of this process share, started by whoever asks first.
    ///
    /// # Errors
    /// As [`Cluster::start`]; then every other test gets the same error.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        // A lab moves the thread that makes it into its own mount namespace: this one is nobody else's.
        let start = || {
            let cluster = thread::spawn(|| Self::start("cluster")).join();
            cluster.map_err(|_| "its thread panicked".to_owned())?.map_err(|error| format!("{error:#}"))
        };
        SHARED.get_or_init(start).as_ref().map_err(|error| anyhow!("no shared cluster: {error}"))
    }

    fn wait_ready(&mut self) -> Result<()> {
        let admin = self.server.admin();
        let (nodes, count) = (&mut self.nodes, users::NODES.len());
        let ready = || {
            if let Err(ended) = nodes.iter_mut().try_for_each(Node::check_alive) {
                return Some(Err(ended));
            }
            let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
            let said = admin.run(&["get", "nodes", "-o", path]).unwrap_or_default();
            (said.split_whitespace().filter(|status| *status == "True").count() == count).then_some(Ok(()))
        };
        let answered = wait_for("the nodes to be ready", READY, ready).flatten();
        answered.with_context(|| {
            let said = admin.run(&["describe", "nodes"]).unwrap_or_default();
            format!("{said}\n{}", self.nodes.iter().map(Node::last_words).collect::<Vec<_>>().join("\n"))
        })
    }

    /// The API server, with an administrator's kubectl.
    #[must_use]
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Makes a namespace that no other test has, and waits until pods can be made in it; the administrator's kubectl for it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn namespace(&self, begin: &str) -> Result<Kubectl<'_>> {
        let kubectl = self.server.namespace(begin)?;
        let account = || kubectl.run(&["get", "serviceaccount", "default"]).ok();
        wait_for("a ServiceAccount in a new namespace", POD_READY, account)?;
        Ok(kubectl)
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The name of the cgroups that its pods are in.
    #[must_use]
    pub fn cgroup(&self) -> &str {
        self.cgroups.name()
    }

    /// Puts the images of an archive on every node.
    ///
    /// # Errors
    /// When it cannot be read, or containerd does not take it: its words are in the message.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.import_from(|to| {
            let copied = fs::copy(archive, to);
            copied.map(drop).with_context(|| format!("cannot copy {}", archive.display()))
        })
    }

    /// Puts the image of this program, `src/bin/cast.rs`, on every node; pods are made of it, too.
    ///
    /// # Errors
    /// As [`Cluster::import`].
    pub fn import_cast(&self, program: &Path) -> Result<()> {
        self.import_from(|to| image::write_cast(program, to))
    }

    /// The archive lies in the lab for a while, which all nodes see.
    fn import_from(&self, put: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let inside = format!("{LAB_DIR}/images.tar");
        let outside = self.nodes.first().context("a cluster has nodes")?.path(&inside);
        put(&outside)?;
        let imported = self.nodes.iter().try_for_each(|node| node.ctr(&["images", "import", &inside]).map(drop));
        fs::remove_file(&outside)?;
        imported
    }

    /// Waits until a pod is ready, and gives it as a pod of the lab: tests enter it as any other.
    ///
    /// # Errors
    /// When it is not ready in time: what the cluster says of it is in the message.
    pub fn pod(&self, kubectl: &Kubectl<'_>, name: &str) -> Result<Pod> {
        let limit = format!("--timeout={}s", POD_READY.as_secs());
        let waited = kubectl.attempt(&["wait", "--for=condition=Ready", &limit, "pod", name], "")?;
        if !waited.status.success() {
            let said = kubectl.run(&["describe", "pod", name]).unwrap_or_else(|error| error.to_string());
            return Err(anyhow!("pod {name} is not ready within {POD_READY:?}\n{said}"));
        }
        let pod = kubectl.json(&["get", "pod", name])?;
        let node = pod["spec"]["nodeName"].as_str().context("a pod that is ready has a node")?;
        let node =
            self.nodes.iter().find(|it| it.name() == node).with_context(|| format!("no node is called {node}"))?;
        let ips = pod["status"]["podIPs"].as_array().context("a pod that is ready has addresses")?;
        let ips = ips.iter().filter_map(|it| it["ip"].as_str()?.parse().ok()).collect::<Vec<IpAddr>>();
        let v4 = ips.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
        let v6 = ips.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
        let v4 = v4.with_context(|| format!("pod {name} has no IPv4 address: {ips:?}"))?;
        let netns = node.namespace_of(v4).with_context(|| format!("pod {name} at {v4} on {}", node.name()))?;
        Ok(self.lab.adopt(name, netns, v4, v6.unwrap_or(Ipv6Addr::UNSPECIFIED)))
    }
}

/// The address of `eth0` in a namespace.
fn address_in(netns: &std::os::fd::OwnedFd) -> Result<Vec<Ipv4Addr>> {
    lab::in_netns(netns, || {
        let addresses = nix::ifaddrs::getifaddrs()?;
        let eth0 = addresses.filter(|it| it.interface_name == "eth0").filter_map(|it| it.address);
        anyhow::Ok(eth0.filter_map(|address| Some(address.as_sockaddr_in()?.ip())).collect())
    })?
}

/// The namespaces in a node's `/run/netns`, as its runtime names them.
fn namespaces(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let found = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    ensure!(!found.is_empty(), "no pod has a namespace in {}", directory.display());
    Ok(found)
}
