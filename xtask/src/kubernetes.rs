//! The programs of Kubernetes that tests run: which, of which version, and where they lie.
//!
//! `cargo xtask setup` builds from source what is not there: Kubernetes is a Go module, and `tests/kubernetes/` says with
//! go.mod and go.sum what exactly it consists of.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    process::{find_program, output},
    root, tools,
};

/// The version of all of them. `tests/kubernetes/go.mod` names the same.
pub const VERSION: &str = "1.35.4";
/// The Go module that they are built in, below the root of the tree.
pub const MODULE: &str = "tests/kubernetes";
/// Where envtest, and whoever follows its convention, keeps such programs.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// The API server.
pub const KUBE_APISERVER: Program = Program { name: "kube-apiserver", ask: &["--version"] };
/// Its command line.
pub const KUBECTL: Program = Program { name: "kubectl", ask: &["version", "--client"] };

/// What makes pods of Deployments, endpoints of pods, and so on.
pub const KUBE_CONTROLLER_MANAGER: Program = Program { name: "kube-controller-manager", ask: &["--version"] };
/// Says which pod runs where.
pub const KUBE_SCHEDULER: Program = Program { name: "kube-scheduler", ask: &["--version"] };
/// Runs a node's pods.
pub const KUBELET: Program = Program { name: "kubelet", ask: &["--version"] };
/// Translates a node's Services.
pub const KUBE_PROXY: Program = Program { name: "kube-proxy", ask: &["--version"] };

/// What a test with an API server alone runs.
pub const OF_API_SERVER: [Program; 2] = [KUBE_APISERVER, KUBECTL];
/// What a test with nodes runs besides.
pub const OF_NODES: [Program; 4] = [KUBE_CONTROLLER_MANAGER, KUBE_SCHEDULER, KUBELET, KUBE_PROXY];
/// All that tests run, what most of them need first. Each is imported by `tests/kubernetes/tools.go`, so that go.sum covers it.
pub const PROGRAMS: [Program; 6] =
    [KUBE_APISERVER, KUBECTL, KUBE_CONTROLLER_MANAGER, KUBE_SCHEDULER, KUBELET, KUBE_PROXY];

/// A program of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name, and that of its directory below `cmd/` of the module.
    pub name: &'static str,
    /// How it is asked for its version.
    ask: &'static [&'static str],
}

/// Where `cargo xtask setup` puts them.
#[must_use]
pub fn dir() -> PathBuf {
    tools::dir().join(format!("kubernetes-{VERSION}"))
}

impl Program {
    /// Where it lies: `$KUBEBUILDER_ASSETS`, else `PATH`, else [`dir`]. One of another version is passed over.
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        let assets = env::var_os(ASSETS).filter(|dir| !dir.is_empty()).map(|dir| PathBuf::from(dir).join(self.name));
        let built = dir().join(self.name);
        let there = || [assets, find_program(self.name)].into_iter().flatten().find(|file| self.is_right(file));
        // What was built is complete when it has its name, and its directory says the version.
        there().or_else(|| built.is_file().then_some(built))
    }

    /// The package of it.
    #[must_use]
    pub fn package(&self) -> String {
        format!("k8s.io/kubernetes/cmd/{}", self.name)
    }

    fn is_right(&self, file: &Path) -> bool {
        output(Command::new(file).args(self.ask)).is_some_and(|said| says(&said, VERSION))
    }
}

/// Whether an answer such as `Kubernetes v1.35.4` or `Client Version: v1.35.4` names this version.
fn says(answer: &str, version: &str) -> bool {
    answer.split_whitespace().any(|word| word.strip_prefix('v') == Some(version))
}

/// What Kubernetes' own build tells the linker: without it the programs call themselves v0.0.0-master.
#[must_use]
pub fn linker_flags() -> String {
    let mut numbers = VERSION.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let set = [("gitVersion", format!("v{VERSION}")), ("gitMajor", major.to_owned()), ("gitMinor", minor.to_owned())];
    let set = set.map(|(name, value)| format!(" -X k8s.io/component-base/version.{name}={value}"));
    format!("-s -w{}", set.concat())
}

/// The version of Go that a go.mod asks for.
#[must_use]
pub fn go_wanted(go_mod: &str) -> Option<&str> {
    go_mod.lines().find_map(|line| line.strip_prefix("go ")).map(str::trim)
}

/// Whether the Go that calls itself `found`, as in `go1.26.8`, compiles a module that asks for `wanted`.
#[must_use]
pub fn go_suffices(found: &str, wanted: &str) -> bool {
    let numbers = |version: &str| -> Vec<u32> {
        version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(found) >= numbers(wanted)
}

/// What its go.mod says.
#[must_use]
pub fn go_mod() -> String {
    std::fs::read_to_string(root().join(MODULE).join("go.mod")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_requires_this_version_of_all_parts() {
        let text = go_mod();
        assert!(text.lines().any(|line| line == format!("require k8s.io/kubernetes v{VERSION}")), "{text}");
        // The parts are published as v0 with the same minor version and patch.
        let part = VERSION.replacen("1.", " v0.", 1);
        let replaced: Vec<_> = text.lines().filter(|line| line.contains("=>")).collect();
        assert!(replaced.len() > 30 && replaced.iter().all(|line| line.ends_with(&part)), "{replaced:?}");
    }

    #[test]
    fn what_is_built_is_what_the_module_imports() {
        let source = std::fs::read_to_string(root().join(MODULE).join("tools.go")).expect("it is in the tree");
        let imported: Vec<_> = source.lines().filter(|line| line.contains("/cmd/")).collect();
        assert_eq!(imported.len(), PROGRAMS.len());
        for program in PROGRAMS {
            assert!(source.contains(&format!("_ \"{}\"\n", program.package())), "{}", program.name);
        }
    }

    #[test]
    fn a_program_of_another_version_is_not_taken() {
        assert!(says("Kubernetes v1.35.4", "1.35.4"));
        assert!(says("Client Version: v1.35.4\nKustomize Version: v5.7.1", "1.35.4"));
        assert!(!says("Client Version: v1.35.4-dispatcher", "1.35.4"));
        assert!(!says("Kubernetes v1.35.40", "1.35.4"));
    }

    #[test]
    fn a_go_that_is_too_old_is_told_from_one_that_suffices() {
        assert_eq!(go_wanted("module a\n\ngo 1.25.0\n"), Some("1.25.0"));
        for (found, suffices) in
            [("go1.25.0", true), ("go1.26.8", true), ("go1.26rc1", true), ("go1.19.8", false), ("go1.24.13", false)]
        {
            assert_eq!(go_suffices(found, "1.25.0"), suffices, "{found}");
        }
    }

    #[test]
    fn the_programs_are_told_their_version() {
        let flags = linker_flags();
        assert!(flags.contains("version.gitVersion=v1.35.4 ") && flags.ends_with("version.gitMinor=35"), "{flags}");
    }
}
