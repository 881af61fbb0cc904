//! A test that cannot run says why; where `CI=true` it fails.

use crate::agent;
use std::process::Command;
use xtask::{
    kubernetes::{OF_API_SERVER, OF_NODES, Program, VERSION},
    libraries::{Libraries, NODE, PYTHON},
};

/// What a test needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Root, `ip` and `nft`: namespaces.
    Lab,
    /// nginx.
    Nginx,
    /// curl.
    Curl,
    /// haproxy.
    Haproxy,
    /// Go.
    Go,
    /// Node, with undici.
    Undici,
    /// Python, with requests and aiohttp.
    Python,
    /// Java.
    Java,
    /// `tc`.
    Tc,
    /// A kernel with tcx (6.6).
    Tcx,
    /// A kernel that says whether `CHECKSUM_COMPLETE` is right behind a test run (6.16).
    SummedRuns,
    /// A second processor.
    TwoProcessors,
    /// etcd, the API server and kubectl.
    Kubernetes,
    /// What a node runs, and what the control plane runs besides.
    Nodes,
    /// The image of the agent.
    Image,
    /// The built agent.
    Agent,
    /// The same with another ABI.
    Successor,
}

/// Whether all `needs` are met. If not, says which is missing, and fails where `CI=true`.
///
/// # Panics
/// When a need is not met and `CI=true`.
#[must_use]
pub fn open(needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find_map(|need| need.missing()) else { return true };
    let demanded = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!demanded, "cannot run: {missing}");
    eprintln!("SKIPPED: {missing}");
    false
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Lab => {
                let root = crate::lab::require_root().err().map(|error| error.to_string());
                root.or_else(|| tool("ip", "-V")).or_else(|| tool("nft", "--version"))
            }
            Self::Nginx => tool("nginx", "-v"),
            Self::Curl => tool("curl", "--version"),
            Self::Haproxy => tool("haproxy", "-v"),
            Self::Go => tool("go", "version"),
            Self::Undici => tool("node", "--version").or_else(|| libraries(NODE)),
            Self::Python => tool("python3", "--version").or_else(|| libraries(PYTHON)),
            Self::Java => tool("javac", "-version"),
            Self::Kubernetes => tool("etcd", "--version").or_else(|| built(&OF_API_SERVER)),
            Self::Nodes => {
                let tools = [("containerd", "--version"), ("runc", "--version"), ("unshare", "--version")];
                let tools = tools.into_iter().find_map(|(name, question)| tool(name, question));
                tools.or_else(plugins).or_else(|| built(&OF_NODES))
            }
            Self::Image => {
                let image = crate::kube::image::of_agent();
                (!image.is_file()).then(|| format!("{} is not there: run `cargo xtask image`", image.display()))
            }
            Self::Tc => tool("tc", "-V"),
            Self::Tcx => (!kernel_has("BPF_TCX_INGRESS")).then(|| "this kernel has no tcx".to_owned()),
            // The flag of test runs came with this one, and is no name in the kernel's types.
            Self::SummedRuns => {
                (!kernel_has("BPF_F_IPV6")).then(|| "this kernel does not look at sums behind test runs".to_owned())
            }
            Self::TwoProcessors => {
                let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
                (online < Some(2)).then(|| "this machine has one processor".to_owned())
            }
            Self::Successor => {
                let binary = agent::successor();
                (!binary.is_file()).then(|| format!("{} is not there: run `cargo xtask test`", binary.display()))
            }
            Self::Agent => {
                let binary = agent::binary();
                let there = binary.is_file();
                (!there).then(|| format!("there is no {}: build it, or set SIDETRACK_BIN", binary.display()))
            }
        }
    }
}

/// Whether the kernel's types have this name.
fn kernel_has(name: &str) -> bool {
    let types = std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let name = [name.as_bytes(), b"\0"].concat();
    types.windows(name.len()).any(|bytes| bytes == name)
}

fn libraries(wanted: Libraries) -> Option<String> {
    let missing = format!("what {} names is missing: run `cargo xtask setup`", wanted.lock);
    (!wanted.are_there()).then_some(missing)
}

/// Whether programs of Kubernetes are there.
fn built(programs: &[Program]) -> Option<String> {
    let missing = programs.iter().find(|program| program.find().is_none())?;
    Some(format!("{} {VERSION} is missing: run `cargo xtask setup`, it says why it cannot be built", missing.name))
}

fn plugins() -> Option<String> {
    let dir = std::path::Path::new(crate::kube::PLUGINS);
    let missing = ["ptp", "host-local"].into_iter().find(|name| !dir.join(name).is_file())?;
    Some(format!("{} is missing: run `cargo xtask setup`", dir.join(missing).display()))
}

fn tool(name: &str, question: &str) -> Option<String> {
    let answer = Command::new(name).arg(question).output();
    answer.is_err().then(|| format!("{name} is missing: run `cargo xtask setup`"))
}
