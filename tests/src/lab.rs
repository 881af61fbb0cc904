//! Pods out of network namespaces, on a node that routes and translates as Kubernetes' nodes do.
//!
//! A [`Lab`] lives in a mount namespace of its own, with its own `/run/netns` and its own bpffs: it never meets the
//! machine's other namespaces, and when the process ends, however it ends, the kernel takes all of it away.

mod keeper;
mod netns;
mod pod;
mod service;
mod tools;

pub use netns::{join, open as open_netns, run as in_netns};
pub use pod::Pod;
pub use service::Service;

use crate::process::Process;
use anyhow::{Context, Result, ensure};
use keeper::Keeper;
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::File,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::ThreadId,
};

/// Where named network namespaces are mounted, in the lab's own mount namespace.
pub const NETNS_DIR: &str = "/run/netns";
/// The lab's directory, a tmpfs of its own.
pub const LAB_DIR: &str = "/run/sidetrack-lab";
/// The namespace that plays the node.
const NODE: &str = "node";
/// The congestion control of the development kernels, and of many production ones.
pub const BBR: &str = "bbr";
/// The one whose throughput varies least.
pub const RENO: &str = "reno";

/// A node with pods. Use it on the thread that made it and on threads started from there.
#[derive(Debug)]
pub struct Lab {
    inner: Arc<Inner>,
    home: Home,
}

/// What pods and servers need of the lab.
#[derive(Debug)]
pub(crate) struct Inner {
    name: String,
    congestion: String,
    node: OwnedFd,
    keeper: Keeper,
    services: Mutex<Vec<Service>>,
}

/// The mount namespace and directory to return to.
#[derive(Debug)]
struct Home {
    mounts: File,
    directory: Option<PathBuf>,
    thread: ThreadId,
}

impl Lab {
    /// A lab under bbr, the development kernels' default.
    ///
    /// # Errors
    /// When not root, or when a tool is missing: the message names it.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_congestion(name, BBR)
    }

    /// A lab whose namespaces all use the given TCP congestion control.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn with_congestion(name: &str, congestion: &str) -> Result<Self> {
        let home = Home {
            mounts: File::open("/proc/thread-self/ns/mnt").context("cannot open the mount namespace")?,
            directory: std::env::current_dir().ok(),
            thread: std::thread::current().id(),
        };
        netns::private_mounts()?;
        netns::mount_on("tmpfs", Path::new(NETNS_DIR))?;
        netns::mount_on("tmpfs", Path::new(LAB_DIR))?;
        netns::mount_on("bpf", &Path::new(LAB_DIR).join("bpf"))?;
        let keeper = Keeper::start()?;
        let node = tools::make_namespace(&keeper, NODE, congestion)?;
        tools::make_node(&keeper)?;
        let inner = Inner {
            name: name.to_owned(),
            congestion: congestion.to_owned(),
            node,
            keeper,
            services: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), home })
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A directory of its own, gone with the lab.
    #[must_use]
    pub fn dir(&self) -> &'static Path {
        Path::new(LAB_DIR)
    }

    /// Where an agent may pin: below a bpffs of the lab's own.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        self.dir().join("bpf/sidetrack")
    }

    /// Makes a pod with the addresses `10.99.0.<number>` and `fd00::<number>`, routed over a veth as ptp and Calico do.
    ///
    /// # Errors
    /// When `ip` fails: its own words are in the message.
    pub fn pod(&self, name: &str, number: u8) -> Result<Pod> {
        Pod::new(&self.inner, name, number)
    }

    /// A pod that a container runtime has made in this lab, by its namespace.
    #[must_use]
    pub fn adopt(&self, name: &str, netns: OwnedFd, v4: Ipv4Addr, v6: Ipv6Addr) -> Pod {
        Pod::adopted(&self.inner, name, netns, v4, v6)
    }

    /// Makes a Service: `10.96.0.<number>:<port>` and `fd00:96::<number>` are translated to the endpoints of their
    /// family, at random where there are several, as kube-proxy does.
    ///
    /// # Errors
    /// When `nft` fails: its own words are in the message.
    pub fn service(&self, name: &str, number: u8, port: u16, endpoints: &[SocketAddr]) -> Result<Service> {
        let service = Service::new(name, number, port, endpoints);
        let mut services = self.inner.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|other| other.v4 != service.v4);
        services.push(service.clone());
        self.nft(&service::ruleset(&services))?;
        Ok(service)
    }

    /// A namespace with nothing in it but `lo`.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn bare_namespace(&self, name: &str) -> Result<()> {
        tools::make_namespace(&self.inner.keeper, name, &self.inner.congestion).map(drop)
    }

    /// Removes a namespace's name: what `ip netns del` does.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn delete_namespace(&self, name: &str) -> Result<()> {
        self.ip(&format!("netns del {name}"))
    }

    /// Runs `ip` with these words, in the node's namespace (`-n NAME` chooses another).
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, words: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(words.split_whitespace());
        self.run_on_node(command).map(drop)
    }

    /// Feeds `nft -f -` in the node's namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn nft(&self, rules: &str) -> Result<()> {
        tools::nft(&self.inner.keeper, Some(&self.inner.node), rules)
    }

    /// Runs a command on the node to its end; its standard output.
    ///
    /// # Errors
    /// When it fails: its standard error is in the message.
    pub fn run_on_node(&self, command: Command) -> Result<String> {
        tools::run(&self.inner.keeper, Some(&self.inner.node), command)
    }

    /// Runs a command in the lab's mount namespace and the machine's own network namespace; its standard output.
    ///
    /// # Errors
    /// When it fails: its standard error is in the message.
    pub fn run(&self, command: Command) -> Result<String> {
        tools::run(&self.inner.keeper, None, command)
    }

    /// Starts a command in the lab's mount namespace and the machine's own network namespace. It dies with the lab.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        self.inner.spawn(name, command, None)
    }
}

impl Inner {
    pub(crate) fn spawn(&self, name: &str, mut command: Command, netns: Option<&OwnedFd>) -> Result<Process> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Process::new(name, self.keeper.spawn(command, netns)?))
    }
}

impl Drop for Lab {
    /// Returns the thread to the mount namespace that it came from, so that the lab's own vanishes.
    fn drop(&mut self) {
        if std::thread::current().id() != self.home.thread {
            return;
        }
        // Entering a mount namespace is refused to a thread that shares its working directory with another.
        let back = unshare(CloneFlags::CLONE_FS).and_then(|()| setns(&self.home.mounts, CloneFlags::CLONE_NEWNS));
        match (back, &self.home.directory) {
            (Err(error), _) => eprintln!("lab {}: cannot leave its mount namespace: {error}", self.inner.name),
            // The directory may have been removed meanwhile; nothing here depends on it.
            (Ok(()), Some(directory)) => drop(std::env::set_current_dir(directory)),
            (Ok(()), None) => {}
        }
    }
}

/// Fails with a readable message unless the calling process is root.
pub fn require_root() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root: run as root");
    Ok(())
}
