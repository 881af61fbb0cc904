//! What is needed beside Rust: one line each, with its reason.

use std::path::Path;

use xtask::process::find_program;

/// For whom the machine is made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To build.
    Build,
    /// To run demo, tests, bench and lints too.
    All,
}

impl Scope {
    /// Whether what is needed for `other` is needed here.
    pub fn covers(self, other: Self) -> bool {
        self == Self::All || other == Self::Build
    }
}

/// How it is seen that something is there, whoever installed it.
#[derive(Clone, Copy)]
enum Proof {
    Program(&'static str),
    File(&'static str),
}

/// A package of Debian and what it is for.
#[derive(Clone, Copy)]
pub struct Package {
    /// Its name for apt.
    pub name: &'static str,
    proof: Proof,
    scope: Scope,
    /// Why it is needed, for the person who is asked to install it.
    pub why: &'static str,
    /// A service that the package would start, and enable for the next boot.
    pub service: Option<&'static str>,
}

const fn row(name: &'static str, proof: Proof, scope: Scope, why: &'static str) -> Package {
    Package { name, proof, scope, why, service: None }
}

const fn serving(service: &'static str, package: Package) -> Package {
    Package { service: Some(service), ..package }
}

use Proof::{File, Program};
use Scope::{All, Build};

#[rustfmt::skip]
const PACKAGES: &[Package] = &[
    row("gcc", Program("cc"), Build, "links every binary, compiles libbpf"),
    row("libc6-dev", File("/usr/include/stdio.h"), Build, "headers for libbpf"),
    row("make", Program("make"), Build, "builds libbpf"),
    row("pkg-config", Program("pkg-config"), Build, "libbpf's build asks it for libelf and zlib"),
    row("libelf-dev", File("/usr/include/libelf.h"), Build, "libbpf, with which `sidetrack status` reads a pod's other programs"),
    row("zlib1g-dev", File("/usr/include/zlib.h"), Build, "libelf reads compressed sections with it"),
    row("iproute2", Program("ip"), All, "makes the lab's network namespaces, veths and routes; `tc` for a second program in a pod"),
    row("nftables", Program("nft"), All, "the lab's service addresses: DNAT as kube-proxy writes it"),
    row("curl", Program("curl"), All, "the client of the demo and of many tests"),
    serving("nginx", row("nginx-light", Program("nginx"), All, "the origin of baselines and forks")),
    row("wrk", Program("wrk"), All, "the load of the bench and of tests under load"),
    serving("haproxy", row("haproxy", Program("haproxy"), All, "a pool of connections under test")),
    row("golang-go", Program("go"), All, "a pool of connections under test: net/http; a newer one builds Kubernetes' programs"),
    row("default-jdk-headless", Program("javac"), All, "a pool of connections under test: HttpClient"),
    row("nodejs", Program("node"), All, "a pool of connections under test: undici"),
    row("npm", Program("npm"), All, "brings undici"),
    serving("etcd", row("etcd-server", Program("etcd"), All, "where the API server under test keeps its objects")),
    serving("containerd", row("containerd", Program("containerd"), All, "runs the pods of the cluster under test")),
    row("runc", Program("runc"), All, "starts their containers"),
    row("containernetworking-plugins", File("/usr/lib/cni/ptp"), All, "links their networks"),
    row("util-linux", Program("unshare"), All, "makes and enters the namespaces of the cluster's nodes"),
    row("python3", Program("python3"), All, "pools of connections under test: requests, aiohttp"),
];

/// What Debian's Python needs to make an environment of its own.
pub const VENV: Package = row("python3-venv", Program("python3"), All, "brings requests and aiohttp");

/// Debian's compiler with a prebuilt `core` for bpf, where rustup has no rust-src.
pub const RUSTC: &[Package] = &[
    row("rustc-web", File("/usr/bin/rustc"), Build, "a Rust compiler that knows bpf"),
    row("libstd-rust-web-dev-bpf", File("/usr/lib/rustlib/bpfel-unknown-none/lib"), Build, "its `core` for bpf"),
];

/// The lints for what that compiler compiles.
pub const CLIPPY: Package = row("rust-web-clippy", File("/usr/bin/cargo-clippy"), All, "lints the kernel programs");

/// For `cargo xtask kernels`.
pub const GUEST: &[Package] = &[
    row("qemu-system-x86", Program("qemu-system-x86_64"), All, "runs other kernels, emulated"),
    row("busybox-static", Program("busybox"), All, "what a guest has beside the tests"),
    row("cpio", Program("cpio"), All, "packs a guest's files"),
    row("xz-utils", Program("xz"), All, "unpacks a kernel's modules"),
    row("kmod", Program("depmod"), All, "says which modules a module needs"),
];

impl Package {
    fn is_there(&self) -> bool {
        match self.proof {
            Program(name) => find_program(name).is_some(),
            File(path) => Path::new(path).exists(),
        }
    }
}

/// What of the table is not there.
pub fn missing(scope: Scope) -> Vec<&'static Package> {
    missing_of(PACKAGES).into_iter().filter(|package| scope.covers(package.scope)).collect()
}

/// What of these is not there.
pub fn missing_of(packages: &'static [Package]) -> Vec<&'static Package> {
    packages.iter().filter(|package| !package.is_there()).collect()
}
