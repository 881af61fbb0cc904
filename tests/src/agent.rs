//! The binary under test: `sidetrack agent`, and what its other commands say.

mod routes;

pub use routes::{Route, Routes};

use crate::{
    lab::{Lab, NETNS_DIR, Pod},
    process::{Output, Process},
    wait_for,
};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

/// How long the agent may take to start, to attach, to take over a route file.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where builds of it lie, in a directory of cargo's.
const BUILT: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu/release/sidetrack"
} else {
    "x86_64-unknown-linux-gnu/release/sidetrack"
};

/// The binary: `SIDETRACK_BIN`, or what `cargo xtask build` has made.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SIDETRACK_BIN") {
        return std::path::absolute(PathBuf::from(path)).unwrap_or_default();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    std::path::absolute(target.join(BUILT)).unwrap_or_default()
}

/// The binary as its successor with another ABI: `SIDETRACK_SUCCESSOR`, or where `cargo xtask test` builds it.
#[must_use]
pub fn successor() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/successor").join(BUILT);
    std::path::absolute(std::env::var_os("SIDETRACK_SUCCESSOR").map_or_else(built, PathBuf::from)).unwrap_or_default()
}

/// The agent of a lab, running or dead, with its route file and its pins.
#[derive(Debug)]
pub struct Agent<'lab> {
    lab: &'lab Lab,
    pin_dir: PathBuf,
    routes_file: PathBuf,
    /// The pod that it runs in, and its kubeconfig, where its routes come from a cluster.
    cluster: Option<(Pod, PathBuf)>,
    process: Option<Process>,
    arguments: Vec<String>,
    /// As on a kernel before 6.6.
    without_tcx: bool,
    binary: PathBuf,
}

impl<'lab> Agent<'lab> {
    /// Writes the route file, starts the agent, and waits until it is at work and its routes are in the kernel.
    ///
    /// # Errors
    /// When it does not start, or not in time: its last words are in the message.
    pub fn start(lab: &'lab Lab, routes: &Routes) -> Result<Self> {
        Self::start_with(lab, routes, &[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_with(lab: &'lab Lab, routes: &Routes, arguments: &[&str]) -> Result<Self> {
        Self::idle(lab, arguments).started(routes)
    }

    /// An agent that was never started.
    #[must_use]
    pub fn idle(lab: &'lab Lab, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        Self {
            lab,
            pin_dir: lab.pin_dir(),
            routes_file: lab.dir().join("routes/routes.yaml"),
            cluster: None,
            process: None,
            arguments,
            without_tcx: false,
            binary: binary(),
        }
    }

    /// An agent that has its routes from a cluster and runs in a pod, as those of a `DaemonSet` do. It was never started.
    #[must_use]
    pub fn of_cluster(lab: &'lab Lab, pod: &Pod, kubeconfig: PathBuf, arguments: &[&str]) -> Self {
        Self { cluster: Some((pod.clone(), kubeconfig)), ..Self::idle(lab, arguments) }
    }

    /// [`Agent::start`], but as on a kernel before 6.6, which has no tcx.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_without_tcx(lab: &'lab Lab, routes: &Routes) -> Result<Self> {
        Self { without_tcx: true, ..Self::idle(lab, &[]) }.started(routes)
    }

    /// An agent of [`successor`]'s for the same lab and routes that was never started.
    #[must_use]
    pub fn succeeding(&self, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        Self {
            lab: self.lab,
            pin_dir: self.pin_dir.clone(),
            routes_file: self.routes_file.clone(),
            cluster: self.cluster.clone(),
            process: None,
            arguments,
            without_tcx: self.without_tcx,
            binary: successor(),
        }
    }

    /// An agent for the same lab and routes, with a pin directory of its own, that was never started.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        Self {
            lab: self.lab,
            pin_dir: self.pin_dir.with_file_name("elsewhere"),
            routes_file: self.routes_file.clone(),
            cluster: self.cluster.clone(),
            process: None,
            arguments: self.arguments.clone(),
            without_tcx: self.without_tcx,
            binary: self.binary.clone(),
        }
    }

    fn started(mut self, routes: &Routes) -> Result<Self> {
        self.write(routes.yaml())?;
        self.restart()?;
        self.wait_routes(routes)?;
        Ok(self)
    }

    /// Starts it (again) and waits until it is at work.
    ///
    /// # Errors
    /// When it does not start, or not in time: its last words are in the message.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_alive()
    }

    /// Starts it without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        self.process = Some(self.spawn()?);
        Ok(())
    }

    /// Starts one more process with the same arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self) -> Result<Process> {
        let mut command = Command::new(&self.binary);
        match &self.cluster {
            None => command.arg("agent").arg("--routes").arg(&self.routes_file),
            Some((_, kubeconfig)) => command.arg("agent").arg("--kubeconfig").arg(kubeconfig),
        };
        command.args(["--netns-dir", NETNS_DIR, "--log-format", "json"]).arg("--pin-dir").arg(&self.pin_dir);
        command.args(&self.arguments);
        if self.without_tcx {
            command.env("SIDETRACK_CLSACT", "1");
        }
        match &self.cluster {
            None => self.lab.spawn("sidetrack agent", command),
            Some((pod, _)) => pod.spawn(command),
        }
    }

    /// Waits until the running process itself has said, through the pinned records, that it is at work.
    ///
    /// # Errors
    /// When it ends, or takes too long: its last words are in the message.
    pub fn wait_alive(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent was not started")?;
        let pid = process.id();
        let waited = wait_for("the agent to be at work", PATIENCE, || {
            if let Err(error) = process.check_alive() {
                return Some(Err(error));
            }
            let status = self.status().ok()?;
            let agent = &status["agent"];
            (agent["alive"] == true && agent["pid"] == pid).then_some(Ok(()))
        });
        let said = process.output().tail();
        self.process = Some(process);
        waited.and_then(|result| result).with_context(|| format!("the agent's last lines:\n{said}"))
    }

    /// Waits until the agent is attached to each of these pods.
    ///
    /// # Errors
    /// When that takes too long: what `status` says is in the message.
    pub fn wait_attached<S: AsRef<str>>(&self, pods: impl IntoIterator<Item = S>) -> Result<()> {
        for pod in pods {
            let pod = pod.as_ref();
            let waited = wait_for(&format!("{pod} to be attached"), PATIENCE, || self.is_attached(pod).then_some(()));
            waited.with_context(|| self.explain())?;
        }
        Ok(())
    }

    /// Whether `status` shows the pod as attached.
    #[must_use]
    pub fn is_attached(&self, pod: &str) -> bool {
        self.pod(pod).is_some_and(|item| item["outcome"] == "attached")
    }

    /// What `status` says about a pod.
    #[must_use]
    pub fn pod(&self, pod: &str) -> Option<Value> {
        let status = self.status().ok()?;
        status["items"].as_array()?.iter().find(|item| item["name"] == pod).cloned()
    }

    /// What the agent and `status` say, for a message.
    #[must_use]
    pub fn explain(&self) -> String {
        let status = self.status().map_or_else(|error| format!("{error:#}"), |status| format!("{status:#}"));
        let said = self.output().map(|output| output.tail()).unwrap_or_default();
        format!("status:\n{status}\nthe agent's last lines:\n{said}")
    }

    /// Its route file.
    #[must_use]
    pub fn routes_file(&self) -> &Path {
        &self.routes_file
    }

    /// What the agent has written so far.
    #[must_use]
    pub fn output(&self) -> Option<Output> {
        self.process.as_ref().map(|process| process.output().clone())
    }

    /// Puts a text, or what is none, in the place of the route file by renaming, as editors and `ConfigMap`s do. Does not wait.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, text: impl AsRef<[u8]>) -> Result<()> {
        let directory = self.routes_file.parent().context("the route file lies in a directory")?;
        std::fs::create_dir_all(directory)?;
        let fresh = directory.join(".routes.new");
        std::fs::write(&fresh, text).with_context(|| format!("cannot write {}", fresh.display()))?;
        std::fs::rename(&fresh, &self.routes_file).context("cannot put the route file in place")
    }

    /// Replaces the route file and waits until the kernel's tables say the same.
    ///
    /// # Errors
    /// When that takes too long: what `routes` says is in the message.
    pub fn set_routes(&self, routes: &Routes) -> Result<()> {
        self.write(routes.yaml())?;
        self.wait_routes(routes)
    }

    /// Waits until the kernel's tables say what `routes` says.
    ///
    /// # Errors
    /// When that takes too long: what `routes` says is in the message.
    pub fn wait_routes(&self, routes: &Routes) -> Result<()> {
        let mut want: Vec<_> = routes.keys().map(|(service, route)| wanted(service, route)).collect();
        want.sort();
        let waited = wait_for("the routes to be in the kernel", PATIENCE, || {
            let mut have: Vec<_> = self.routes().ok()?["items"].as_array()?.iter().filter_map(shown).collect();
            have.sort();
            (have == want).then_some(())
        });
        waited.with_context(|| format!("routes: {:?}\n{}", self.routes(), self.explain()))
    }

    /// Stops it where it stands (`SIGSTOP`), and waits until each of its threads does.
    ///
    /// # Errors
    /// When it was not started.
    pub fn freeze(&self) -> Result<()> {
        let process = self.process.as_ref().context("the agent was not started")?;
        process.signal(Signal::SIGSTOP)?;
        let stopped = || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", process.id())).ok()?;
            let stands = |thread: std::io::Result<std::fs::DirEntry>| {
                let stat = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat")));
                // The name before the state may have anything in it.
                stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
            };
            threads.into_iter().all(stands).then_some(())
        };
        wait_for("the agent to be stopped", PATIENCE, stopped)
    }

    /// Lets it go on after [`Agent::freeze`].
    ///
    /// # Errors
    /// When it was not started.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("the agent was not started")?.signal(Signal::SIGCONT)
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Errors
    /// When it was not started.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().context("the agent was not started")?.kill9()
    }

    /// `SIGTERM`, and waits for its end.
    ///
    /// # Errors
    /// When it was not started, or does not end.
    pub fn term(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the agent was not started")?;
        process.signal(Signal::SIGTERM)?;
        process.wait(PATIENCE).with_context(|| process.output().tail())
    }

    /// `SIGTERM`, and no wait.
    ///
    /// # Errors
    /// When it was not started.
    pub fn signal_term(&self) -> Result<()> {
        self.process.as_ref().context("the agent was not started")?.signal(Signal::SIGTERM)
    }

    /// Waits for its end, which has another cause.
    ///
    /// # Errors
    /// When it was not started, does not end in time, or fails: its last words are in the message.
    pub fn wait_end(&mut self, within: Duration) -> Result<()> {
        let mut process = self.process.take().context("the agent was not started")?;
        let status = process.wait(within).with_context(|| process.output().tail())?;
        ensure!(status.success(), "it ended with {status}: {}", process.output().tail());
        Ok(())
    }

    /// `sidetrack purge`.
    ///
    /// # Errors
    /// When it fails: its words are in the message.
    pub fn purge(&self) -> Result<String> {
        self.command(&["purge", "--netns-dir", NETNS_DIR])
    }

    /// `sidetrack status -o json`.
    ///
    /// # Errors
    /// When it fails, or says no JSON.
    pub fn status(&self) -> Result<Value> {
        self.json("status")
    }

    /// `sidetrack flows -o json`.
    ///
    /// # Errors
    /// When it fails, or says no JSON.
    pub fn flows(&self) -> Result<Value> {
        self.json("flows")
    }

    /// `sidetrack routes -o json`.
    ///
    /// # Errors
    /// When it fails, or says no JSON.
    pub fn routes(&self) -> Result<Value> {
        self.json("routes")
    }

    /// The counters that `status` shows, by name: those that are not zero.
    ///
    /// # Errors
    /// When there are none.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.status()?;
        let counters = status["counters"].as_array().context("status shows no counters")?;
        let entry = |item: &Value| Some((item["name"].as_str()?.to_owned(), item["count"].as_u64()?));
        Ok(counters.iter().filter_map(entry).collect())
    }

    /// One counter; zero when it is not shown.
    ///
    /// # Errors
    /// When there are no counters.
    pub fn counter(&self, name: &str) -> Result<u64> {
        Ok(self.counters()?.get(name).copied().unwrap_or(0))
    }

    /// Fails if any counter of an error is not zero.
    ///
    /// # Errors
    /// Names it.
    pub fn no_errors(&self) -> Result<()> {
        let errors: Vec<_> =
            self.counters()?.into_iter().filter(|(name, n)| name.starts_with("err_") && *n > 0).collect();
        ensure!(errors.is_empty(), "error counters: {errors:?}");
        Ok(())
    }

    fn json(&self, what: &str) -> Result<Value> {
        let text = self.command(&[what, "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("`sidetrack {what} -o json` says: {text:.300}"))
    }

    /// Runs a command of the binary with `--pin-dir`; its standard output.
    ///
    /// # Errors
    /// When it fails: its words are in the message.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let Some((first, rest)) = words.split_first() else { bail!("a command has a name") };
        let mut command = Command::new(&self.binary);
        command.arg(first).arg("--pin-dir").arg(&self.pin_dir).args(rest);
        self.lab.run(command)
    }
}

/// A route as one comparable text: service, key, forks or reason.
fn wanted(service: &str, route: &Route) -> String {
    let to = match &route.to {
        Ok(endpoints) => sorted(endpoints.iter().map(ToString::to_string).collect()),
        Err(reason) => format!("fail: {reason}"),
    };
    let instead = if route.or_baseline { "baseline" } else { "fail" };
    format!("{service} {} {to} {instead}", route.key)
}

/// The same from an item of `sidetrack routes`; `None` for a service without routes.
fn shown(item: &Value) -> Option<String> {
    let (service, key) = (item["service"].as_str()?, item["key"].as_str()?);
    let endpoints = item["endpoints"].as_array().filter(|endpoints| !endpoints.is_empty());
    let to = match endpoints {
        Some(endpoints) => sorted(endpoints.iter().filter_map(|e| Some(e.as_str()?.to_owned())).collect()),
        None => format!("fail: {}", item["reason"].as_str()?),
    };
    Some(format!("{service} {key} {to} {}", item["on_unreachable"].as_str()?))
}

fn sorted(mut words: Vec<String>) -> String {
    words.sort();
    words.join(",")
}
