//! A pod: a named network namespace whose eth0 is one end of a routed veth.

use super::{Inner, NETNS_DIR, NODE, netns, service::like_v4, tools};
use crate::{
    http::{Http, HttpError},
    process::Process,
};
use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

/// A pod. Cheap to clone; the namespace goes when [`Pod::delete`] was called and nothing else holds it.
#[derive(Clone, Debug)]
pub struct Pod {
    inner: Arc<Identity>,
}

#[derive(Debug)]
struct Identity {
    lab: Arc<Inner>,
    name: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    /// The node's end of its veth.
    host: String,
    netns: OwnedFd,
}

impl Pod {
    /// The pod's IPv4 address is a /32 and its gateway answers on the link alone, as Calico's does; the node has a
    /// route for each pod and no bridge.
    pub(super) fn new(lab: &Arc<Inner>, name: &str, number: u8) -> Result<Self> {
        let netns = tools::make_namespace(&lab.keeper, name, &lab.congestion)?;
        let (v4, v6) = (Ipv4Addr::new(10, 99, 0, number), like_v4("fd00::", number));
        let pod = Self::of(lab, name, netns, v4, v6, format!("veth{number}"));
        pod.plug()?;
        Ok(pod)
    }

    /// A pod that a container runtime has made: it can be entered like any other, and its runtime alone unplugs and deletes it.
    pub(super) fn adopted(lab: &Arc<Inner>, name: &str, netns: OwnedFd, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self::of(lab, name, netns, v4, v6, format!("the runtime's end of {name}"))
    }

    fn of(lab: &Arc<Inner>, name: &str, netns: OwnedFd, v4: Ipv4Addr, v6: Ipv6Addr, host: String) -> Self {
        Self { inner: Arc::new(Identity { lab: Arc::clone(lab), name: name.to_owned(), v4, v6, host, netns }) }
    }

    fn plug(&self) -> Result<()> {
        let (name, v4, v6, host) = (self.name(), self.v4(), self.v6(), self.host_interface());
        tools::ip_batch(
            &self.inner.lab.keeper,
            Some(NODE),
            &format!(
                "link add {host} type veth peer name eth0 netns {name}\n\
                 address add 169.254.1.1/32 dev {host} scope link\n\
                 address add fe80::1/64 dev {host} nodad\n\
                 link set {host} up\n\
                 route add {v4}/32 dev {host}\n\
                 route add {v6}/128 dev {host}\n"
            ),
        )?;
        tools::ip_batch(
            &self.inner.lab.keeper,
            Some(name),
            &format!(
                "address add {v4}/32 dev eth0\n\
                 address add {v6}/128 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add 169.254.1.1/32 dev eth0 scope link\n\
                 route add default via 169.254.1.1 dev eth0\n\
                 route add default via fe80::1 dev eth0\n"
            ),
        )
    }

    /// Its name, and its namespace's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        self.inner.v4
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        self.inner.v6
    }

    /// Its IPv4 address with a port.
    #[must_use]
    pub fn v4_port(&self, port: u16) -> SocketAddr {
        (self.v4(), port).into()
    }

    /// Its IPv6 address with a port.
    #[must_use]
    pub fn v6_port(&self, port: u16) -> SocketAddr {
        (self.v6(), port).into()
    }

    /// Its address of the family of `like`.
    #[must_use]
    pub fn ip_like(&self, like: SocketAddr) -> IpAddr {
        if like.is_ipv4() { self.v4().into() } else { self.v6().into() }
    }

    /// The node's end of its veth.
    #[must_use]
    pub fn host_interface(&self) -> String {
        self.inner.host.clone()
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &OwnedFd {
        &self.inner.netns
    }

    /// Runs `work` on a thread inside the pod.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        netns::run(self.inner.netns.as_fd(), work)
    }

    /// Opens an HTTP connection from the pod.
    ///
    /// # Errors
    /// As a client would see it: refused, timed out.
    pub fn http(&self, to: SocketAddr) -> Result<Http, HttpError> {
        self.http_from(to, 0)
    }

    /// The same from a given local port (zero: any), with `SO_REUSEADDR`.
    ///
    /// # Errors
    /// As a client would see it: refused, timed out, port in use.
    pub fn http_from(&self, to: SocketAddr, port: u16) -> Result<Http, HttpError> {
        let from = SocketAddr::new(self.ip_like(to), port);
        self.enter(|| Http::dial(from, to)).map_err(|error| HttpError::Io(std::io::Error::other(error)))?
    }

    /// Listens on all addresses of both families.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        let listener = self.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
        listener.with_context(|| format!("{} cannot listen on port {port}", self.name()))
    }

    /// Runs a command in the pod to its end; its standard output.
    ///
    /// # Errors
    /// When it fails: its standard error is in the message.
    pub fn run(&self, command: Command) -> Result<String> {
        tools::run(&self.inner.lab.keeper, Some(&self.inner.netns), command)
    }

    /// Runs a command in the pod to its end, with this on its standard input; how it ended and what it said.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn attempt(&self, command: Command, input: &str) -> Result<Output> {
        tools::attempt(&self.inner.lab.keeper, Some(&self.inner.netns), command, Some(input))
    }

    /// Runs `curl` in the pod with these arguments, silently but with errors; its standard output.
    ///
    /// # Errors
    /// When curl fails: its words are in the message.
    pub fn curl<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]).args(arguments);
        self.run(command)
    }

    /// Starts a command in the pod. It dies with the lab.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.inner.lab.spawn(
            &format!("{} in {}", command.get_program().display(), self.name()),
            command,
            Some(self.netns()),
        )
    }

    /// Runs `ip` with these words in the pod.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, words: &str) -> Result<()> {
        self.tool("ip", words).map(drop)
    }

    /// Runs `tc` with these words in the pod; its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn tc(&self, words: &str) -> Result<String> {
        self.tool("tc", words)
    }

    fn tool(&self, program: &str, words: &str) -> Result<String> {
        let mut command = Command::new(program);
        command.args(words.split_whitespace());
        self.run(command)
    }

    /// Writes a sysctl of the pod's network namespace, by its path below `/proc/sys`.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.enter(|| tools::sysctl(name, value))?
    }

    /// What the pod's kernel has counted: the numbers of `/proc/net/netstat` and `/proc/net/snmp`, by names such as
    /// `TcpExt:PAWSEstab`.
    ///
    /// # Errors
    /// When the files cannot be read, or are not what proc(5) says.
    pub fn kernel_counters(&self) -> Result<BTreeMap<String, i64>> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        let text = self.enter(|| Ok::<_, std::io::Error>(read("netstat")? + &read("snmp")?))??;
        let mut counters = BTreeMap::new();
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let mut names = pair[0].split_whitespace();
            let group = names.next().context("an empty line of counters")?;
            for (name, count) in names.zip(pair[1].split_whitespace().skip(1)) {
                counters.insert(format!("{group}{name}"), count.parse()?);
            }
        }
        Ok(counters)
    }

    /// Loads rules in the pod's own namespace. [`Pod::unfilter`] removes them.
    fn filter(&self, rules: &str) -> Result<()> {
        let rules = format!("table inet lab\ndelete table inet lab\ntable inet lab {{\n{rules}\n}}\n");
        tools::nft(&self.inner.lab.keeper, Some(self.netns()), &rules)
    }

    /// Makes a port a black hole: what comes to it is dropped without a word.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn black_hole(&self, port: u16) -> Result<()> {
        self.filter(&format!("chain input {{ type filter hook input priority 0; tcp dport {port} drop; }}"))
    }

    /// Turns what the pod sends to a port round to a port of its own, as a mesh's sidecar has it.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn redirect(&self, from: u16, to: u16) -> Result<()> {
        self.filter(&format!(
            "chain output {{ type nat hook output priority -100; tcp dport {from} redirect to :{to}; }}"
        ))
    }

    /// Lets the pod track its connections, and drop all that belongs to none that it has begun.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn track(&self) -> Result<()> {
        self.filter(
            "chain input { type filter hook input priority 0; policy drop;\n\
             ct state established,related accept; iif lo accept; meta l4proto ipv6-icmp accept; }\n\
             chain output { type filter hook output priority 0; ct state invalid drop; }",
        )
    }

    /// The TCP connections that the pod tracks to these addresses, as `/proc/net/nf_conntrack` shows them.
    ///
    /// # Errors
    /// When this kernel has no such file.
    pub fn tracked(&self, to: &[SocketAddr]) -> Result<Vec<String>> {
        let path = "/proc/thread-self/net/nf_conntrack";
        let text = self.enter(|| std::fs::read_to_string(path))?.with_context(|| format!("cannot read {path}"))?;
        let is = |line: &&str| {
            let first = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok());
            let ip = line.split_whitespace().find_map(|word| word.strip_prefix("dst=")?.parse::<IpAddr>().ok());
            line.contains(" tcp ") && ip.zip(first("dport=")).is_some_and(|(ip, port)| to.contains(&(ip, port).into()))
        };
        Ok(text.lines().filter(is).map(ToOwned::to_owned).collect())
    }

    /// Undoes [`Pod::black_hole`], [`Pod::redirect`] and [`Pod::track`].
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn unfilter(&self) -> Result<()> {
        tools::nft(&self.inner.lab.keeper, Some(self.netns()), "table inet lab\ndelete table inet lab\n")
    }

    /// Cuts the pod off, as a dead node does: the node's end of its link goes down.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unplug(&self) -> Result<()> {
        tools::ip_batch(&self.inner.lab.keeper, Some(NODE), &format!("link set {} down\n", self.host_interface()))
    }

    /// Removes the pod as a container runtime does: its link first, then its name.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn delete(self) -> Result<()> {
        let keeper = &self.inner.lab.keeper;
        tools::ip_batch(keeper, Some(NODE), &format!("link delete {}\n", self.host_interface()))?;
        tools::ip_batch(keeper, None, &format!("netns del {}\n", self.name()))
    }

    /// Whether its name still stands in `/run/netns`.
    #[must_use]
    pub fn exists(&self) -> bool {
        Path::new(NETNS_DIR).join(self.name()).exists()
    }
}
