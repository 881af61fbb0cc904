//! kubectl as somebody.

use super::{api_server::ApiServer, users::ADMIN};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::process::Output;

/// kubectl for one API server. It runs in the server's pod, so that a test can use it from any thread.
#[derive(Clone, Debug)]
pub struct Kubectl<'a> {
    server: &'a ApiServer,
    /// What stands behind all words of a call.
    options: Vec<String>,
    namespace: Option<String>,
}

impl<'a> Kubectl<'a> {
    pub(super) fn new(server: &'a ApiServer) -> Self {
        Self { server, options: Vec::new(), namespace: None }
    }

    /// The same as this user, by impersonation: what he may do is asked as if he had logged in.
    #[must_use]
    pub fn as_user(&self, name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| format!("--as-group={group}"));
        let options = std::iter::once(format!("--as={name}")).chain(groups).collect();
        Self { options, ..self.clone() }
    }

    /// The same in another namespace.
    #[must_use]
    pub fn in_namespace(&self, name: &str) -> Self {
        Self { namespace: Some(name.to_owned()), ..self.clone() }
    }

    /// The namespace of what it is asked for.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// Runs it with these words and this on its standard input; how it ended, and what it said.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn attempt(&self, words: &[&str], input: &str) -> Result<Output> {
        let mut command = self.server.control().kubectl(&ADMIN);
        command.arg("--namespace").arg(self.namespace()).arg("--request-timeout=30s").args(&self.options).args(words);
        self.server.pod().attempt(command, input)
    }

    /// Runs it; its standard output.
    ///
    /// # Errors
    /// When it fails: its words are in the message.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        self.feed(words, "")
    }

    /// Runs it with this on its standard input; its standard output.
    ///
    /// # Errors
    /// When it fails: its words are in the message.
    pub fn feed(&self, words: &[&str], input: &str) -> Result<String> {
        let output = self.attempt(words, input)?;
        if !output.status.success() {
            bail!("kubectl {} failed ({}): {}{input}", words.join(" "), output.status, said(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it with `--output=json`; the object.
    ///
    /// # Errors
    /// When it fails, or says something that is no JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.run(&[words, &["--output=json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {}: no JSON: {text}", words.join(" ")))
    }

    /// Applies these objects, in YAML or JSON.
    ///
    /// # Errors
    /// When one is refused: the server's words are in the message.
    pub fn apply(&self, objects: &str) -> Result<()> {
        self.feed(&["apply", "--filename=-"], objects).map(drop)
    }

    /// Runs it to be refused; with which words.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn refused(&self, words: &[&str]) -> Result<String> {
        let output = self.attempt(words, "")?;
        ensure!(!output.status.success(), "kubectl {} was not refused", words.join(" "));
        Ok(said(&output))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned() + "\n"
}
