//! Builds by cargo, and where their results lie.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::shell;

/// One executable that cargo has built.
#[derive(Debug)]
pub struct Executable {
    /// The file.
    pub path: PathBuf,
    /// The directory of its package, where its tests expect to run.
    pub package_dir: PathBuf,
    /// The name of its target.
    pub target: String,
    /// It is `tests/*.rs` of its package, not a library or a program.
    pub integration: bool,
    /// It is a test runner.
    pub test: bool,
}

/// Runs `cargo <args>` and tells from its messages what came out; what the compiler says goes to standard error.
pub fn build(subcommand: &str, args: &[&str]) -> Result<Vec<Executable>> {
    build_with(subcommand, args, &[])
}

/// [`build`] with these variables in the environment.
pub fn build_with(subcommand: &str, args: &[&str], variables: &[(&str, &str)]) -> Result<Vec<Executable>> {
    let mut command = shell::cargo(subcommand);
    command.envs(variables.iter().copied());
    command.args(args).args(["--locked", "--message-format=json-render-diagnostics"]).stdout(Stdio::piped());
    shell::say(format_args!("cargo {subcommand} {}", args.join(" ")));
    let mut child = command.spawn().context("cargo cannot be started: is it on PATH?")?;
    let stdout = child.stdout.take().expect("it is piped");
    let mut executables = Vec::new();
    for line in BufReader::new(stdout).lines() {
        // Other lines are what build scripts and macros print.
        if let Ok(message) = serde_json::from_str(&line?) {
            executables.extend(executable(&message));
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "cargo {subcommand} failed: the compiler's messages above say why");
    Ok(executables)
}

fn executable(message: &Value) -> Option<Executable> {
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    Some(Executable {
        path: message["executable"].as_str()?.into(),
        package_dir: manifest.parent()?.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        integration: message["target"]["kind"].as_array()?.iter().any(|kind| kind == "test"),
        test: message["profile"]["test"] == true,
    })
}

/// The program of this name among what was built.
pub fn find(built: &[Executable], name: &str) -> Result<PathBuf> {
    let found = built.iter().find(|executable| executable.target == name && !executable.test);
    found.map(|executable| executable.path.clone()).with_context(|| format!("cargo did not say where it put `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integration_test_is_told_from_a_program_and_a_library() {
        let message = serde_json::json!({
            "reason": "compiler-artifact",
            "manifest_path": "/tree/tests/Cargo.toml",
            "target": { "name": "splice_hot", "kind": ["test"] },
            "profile": { "test": true },
            "executable": "/tree/target/debug/deps/splice_hot-1",
        });
        let test = executable(&message).expect("it has an executable");
        assert!(test.test && test.integration);
        assert_eq!(test.package_dir, PathBuf::from("/tree/tests"));
        let library = serde_json::json!({ "reason": "compiler-artifact", "executable": null });
        assert!(executable(&library).is_none());
    }
}
