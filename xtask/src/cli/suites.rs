//! Which suites there are.

use std::fs;

use anyhow::{Result, bail};
use xtask::root;

use super::build::Executable;

/// What a suite consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All test runners of one package.
    Package {
        /// Its name for cargo.
        name: &'static str,
        /// Its directory.
        dir: &'static str,
    },
    /// The unit tests of the lab that the real-kernel suites stand on.
    Lab,
    /// One file of `tests/tests`, with the name of the suite.
    File,
    /// The examples in the documentation.
    Examples,
}

/// A part of the tests that can be run alone.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Its name, for `--only`.
    pub name: String,
    /// What it covers.
    pub covers: String,
    /// What it consists of.
    pub kind: Kind,
    /// Whether it makes namespaces and loads programs.
    pub root: bool,
    /// After so many minutes something hangs.
    pub limit_minutes: u64,
}

/// Name, what it covers, what it consists of, root, limit in minutes.
#[rustfmt::skip]
const NATIVE: &[(&str, &str, Kind, bool, u64)] = &[
    ("splice", "the decisions, natively: framing, carriers, arithmetic, tables",
        Kind::Package { name: "sidetrack-splice", dir: "splice" }, false, 15),
    ("objects", "the objects of the cluster's API and their definitions",
        Kind::Package { name: "sidetrack-objects", dir: "objects" }, false, 5),
    ("resolve", "what a cluster's Sandboxes, Services and pods mean for the route table",
        Kind::Package { name: "sidetrack-resolve", dir: "resolve" }, false, 5),
    ("acknowledge", "what agents say is in force, and what follows for a Sandbox",
        Kind::Package { name: "sidetrack-acknowledge", dir: "acknowledge" }, false, 5),
    ("controller-units", "forks of workloads, and what is said of Sandboxes",
        Kind::Package { name: "sidetrack-controller", dir: "controller" }, false, 5),
    ("daemon", "the agent's parts: routes, pods, pins, command line",
        Kind::Package { name: "sidetrack", dir: "daemon" }, false, 10),
    ("xtask", "set-up and test runner",
        Kind::Package { name: "xtask", dir: "xtask" }, false, 5),
    ("examples", "the examples in the documentation",
        Kind::Examples, false, 10),
    ("lab-units", "the lab's own parts: peers, origins, tools",
        Kind::Lab, true, 10),
];

/// The package whose `tests/` are the real-kernel suites.
const LAB: &str = "tests";
/// Real-kernel suites end well before.
const FILE_LIMIT: u64 = 25;

/// The suites that run a real API server.
const ON_KUBERNETES: &[&str] =
    &["admission", "apiserver", "cluster", "cluster_routes", "commands", "controller", "deploy"];
/// Those that put the agent's image on nodes.
const WITH_IMAGE: &[&str] = &["cluster"];

/// All suites: the table's, then each file of `tests/tests`.
pub fn all() -> Result<Vec<Suite>> {
    let mut suites = NATIVE
        .iter()
        .map(|&(name, covers, kind, root, limit_minutes)| Suite {
            name: name.to_owned(),
            covers: covers.to_owned(),
            kind,
            root,
            limit_minutes,
        })
        .collect::<Vec<_>>();
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(LAB).join("tests")).into_iter().flatten() {
        let path = entry?.path();
        let source = if path.is_dir() { path.join("main.rs") } else { path.clone() };
        if source.extension().is_some_and(|extension| extension == "rs") && source.is_file() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let covers = covers(&fs::read_to_string(&source)?);
            files.push(Suite { name, covers, kind: Kind::File, root: true, limit_minutes: FILE_LIMIT });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    suites.extend(files);
    Ok(suites)
}

/// The first sentence of a file's own documentation.
fn covers(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let text = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let end = text.find(". ").unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}

/// Those that `--only` names, in their own order; all without it.
pub fn select(suites: Vec<Suite>, only: &[String]) -> Result<Vec<Suite>> {
    if only.is_empty() {
        return Ok(suites);
    }
    for pattern in only {
        if !suites.iter().any(|suite| matches(pattern, &suite.name, &suites)) {
            let names = suites.iter().map(|suite| suite.name.as_str()).collect::<Vec<_>>();
            bail!("no suite is called `{pattern}`: there are {}", names.join(", "));
        }
    }
    let chosen = |suite: &Suite| only.iter().any(|pattern| matches(pattern, &suite.name, &suites));
    Ok(suites.iter().filter(|suite| chosen(suite)).cloned().collect())
}

/// A whole name; with `*` a glob; else a prefix.
fn matches(pattern: &str, name: &str, suites: &[Suite]) -> bool {
    if pattern.contains('*') {
        glob(pattern, name)
    } else if suites.iter().any(|suite| suite.name == pattern) {
        name == pattern
    } else {
        name.starts_with(pattern)
    }
}

fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(tail, &rest[at..]))),
    }
}

impl Suite {
    /// Whether a test runner belongs to it.
    pub fn has(&self, executable: &Executable) -> bool {
        let of = |dir: &str| executable.package_dir == root().join(dir);
        executable.test
            && match self.kind {
                Kind::Package { dir, .. } => of(dir),
                Kind::Lab => of(LAB) && !executable.integration,
                Kind::File => of(LAB) && executable.integration && executable.target == self.name,
                Kind::Examples => false,
            }
    }
}

/// What cargo has to build for these suites. All of them are built as one workspace: a package built alone has
/// other features in its dependencies, and those would be compiled twice.
pub fn cargo_args(chosen: &[Suite], all: usize) -> Vec<&str> {
    let mut args = vec!["--no-run", "--all-features"];
    if chosen.len() == all {
        args.push("--workspace");
        return args;
    }
    for suite in chosen {
        if let Kind::Package { name, .. } = suite.kind {
            args.extend(["-p", name]);
        }
    }
    let lab = chosen.iter().filter(|suite| matches!(suite.kind, Kind::Lab | Kind::File)).collect::<Vec<_>>();
    if !lab.is_empty() {
        let alone = args.len() == 2;
        args.extend(["-p", "sidetrack-tests"]);
        // A choice of targets would apply to the other packages too.
        for suite in lab.into_iter().filter(|_| alone) {
            match suite.kind {
                Kind::File => args.extend(["--test", suite.name.as_str()]),
                _ => args.extend(["--lib", "--bins"]),
            }
        }
    }
    args
}

/// Whether a suite among them drives the real binary.
pub fn need_daemon(chosen: &[Suite]) -> bool {
    chosen.iter().any(|suite| suite.kind == Kind::File)
}

/// Whether a suite among them needs a binary with another ABI as well.
pub fn need_successor(chosen: &[Suite]) -> bool {
    chosen.iter().any(|suite| suite.kind == Kind::File && suite.name == "upgrade")
}

/// Whether a suite among them needs the agent's image.
pub fn need_image(chosen: &[Suite]) -> bool {
    chosen.iter().any(|suite| suite.kind == Kind::File && WITH_IMAGE.contains(&suite.name.as_str()))
}

/// Whether a suite among them needs the programs of Kubernetes.
pub fn need_kubernetes(chosen: &[Suite]) -> bool {
    chosen.iter().any(|suite| suite.kind == Kind::File && ON_KUBERNETES.contains(&suite.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(names: &[&str]) -> Vec<Suite> {
        let suite = |name: &&str| Suite {
            name: (*name).to_owned(),
            covers: String::new(),
            kind: Kind::File,
            root: true,
            limit_minutes: 1,
        };
        names.iter().map(suite).collect()
    }

    fn chosen(only: &[&str]) -> Vec<String> {
        let only = only.iter().map(|&pattern| pattern.to_owned()).collect::<Vec<_>>();
        let all = suites(&["splice", "splice_hot", "splice_cold", "agent"]);
        select(all, &only).expect("there is such a suite").into_iter().map(|suite| suite.name).collect()
    }

    #[test]
    fn a_whole_name_chooses_that_suite_alone() {
        assert_eq!(chosen(&["splice"]), ["splice"]);
    }

    #[test]
    fn a_prefix_or_a_glob_chooses_several() {
        assert_eq!(chosen(&["splice_"]), ["splice_hot", "splice_cold"]);
        assert_eq!(chosen(&["*cold", "ag"]), ["splice_cold", "agent"]);
        assert_eq!(chosen(&[]).len(), 4);
    }

    #[test]
    fn a_name_that_nothing_has_is_an_error_that_lists_the_names() {
        let error = select(suites(&["agent"]), &["agnet".to_owned()]).expect_err("there is none");
        assert!(error.to_string().contains("there are agent"), "{error}");
    }

    #[test]
    fn one_file_of_the_lab_is_built_without_the_others() {
        assert_eq!(
            cargo_args(&suites(&["agent"]), 4),
            ["--no-run", "--all-features", "-p", "sidetrack-tests", "--test", "agent"]
        );
    }

    #[test]
    fn a_file_is_described_by_its_first_sentence() {
        assert_eq!(
            covers("//! Keyed requests reach\n//! their fork. More.\n//!\n//! Else.\n"),
            "Keyed requests reach their fork"
        );
        assert_eq!(covers("use std::fs;\n"), "");
    }
}
