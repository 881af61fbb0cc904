//! What a cluster leaves on its machine, also behind a test that was killed: nothing.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sidetrack_tests::{gate, kube::Cluster, wait_for};

use crate::world::NEEDS;

/// Set for the process that is killed.
const VICTIM: &str = "SIDETRACK_TEST_TO_BE_KILLED";
/// How long the kernel may take to end some fifty processes, and the cgroups to be removed.
const GONE: Duration = Duration::from_secs(30);

/// Processes by what outlasts the reuse of numbers: number and time of start (proc(5), fields 1, 4 and 22 of `stat`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    id: u32,
    started: String,
}

/// All processes, each with its parent.
fn processes() -> Result<Vec<(Process, u32)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile is none.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields: Vec<_> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let (Some(parent), Some(started)) = (fields.get(1), fields.get(19)) else { continue };
        all.push((Process { id, started: (*started).to_owned() }, parent.parse()?));
    }
    Ok(all)
}

/// A process and all that descend from it.
fn family(of: u32) -> Result<BTreeSet<Process>> {
    let all = processes()?;
    let mut ids = BTreeSet::from([of]);
    loop {
        let more: Vec<_> = all.iter().filter(|(it, parent)| ids.contains(parent) && !ids.contains(&it.id)).collect();
        if more.is_empty() {
            break;
        }
        ids.extend(more.into_iter().map(|(process, _)| process.id));
    }
    Ok(all.into_iter().map(|(process, _)| process).filter(|process| ids.contains(&process.id)).collect())
}

/// Cgroups of a cluster, in whichever hierarchy.
fn cgroups(name: &str) -> Result<Vec<String>> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root)?.flatten().map(|entry| entry.path()).chain([root.to_owned()]);
    Ok(hierarchies
        .map(|top| top.join(name))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect())
}

/// What is mounted for this process, and which namespaces have names.
fn machine() -> Result<(String, Vec<String>)> {
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut named: Vec<_> = named.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    named.sort();
    Ok((fs::read_to_string("/proc/self/mountinfo")?, named))
}

fn setting(name: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).with_context(|| name.to_owned())
}

#[test]
fn a_cluster_whose_test_was_killed_leaves_nothing() -> Result<()> {
    if !gate::open(NEEDS) {
        return Ok(());
    }
    if env::var_os(VICTIM).is_some() {
        return victim();
    }
    let settings = ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];
    let before = (machine()?, settings.map(setting).map(Result::ok));
    let mut command = Command::new(env::current_exe()?);
    command.args(["--exact", "leftovers::a_cluster_whose_test_was_killed_leaves_nothing", "--nocapture"]);
    let mut child = command.env(VICTIM, "1").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
    let cgroup = loop {
        let line = lines.next().context("the process that is to be killed has ended; its words are above")??;
        if let Some(name) = line.strip_prefix("cgroup ") {
            break name.to_owned();
        }
    };
    let family = family(child.id())?;
    // API server, etcd, two of the control plane, and on each of two nodes five at least.
    ensure!(family.len() > 14, "only {} processes: {family:?}", family.len());
    ensure!(!cgroups(&cgroup)?.is_empty(), "{cgroup} is not there");
    child.kill()?;
    child.wait()?;
    let gone = || {
        let all = processes().ok()?;
        let alive = all.iter().any(|(process, _)| family.contains(process));
        (!alive && cgroups(&cgroup).ok()?.is_empty()).then_some(())
    };
    wait_for("all of it to be gone", GONE, gone).with_context(|| {
        let left = processes().unwrap_or_default().into_iter().filter(|(process, _)| family.contains(process));
        format!("{:?} {:?}", left.collect::<Vec<_>>(), cgroups(&cgroup))
    })?;
    ensure!((machine()?, settings.map(setting).map(Result::ok)) == before, "the machine is another one");
    Ok(())
}

/// Starts a cluster with a pod in it, says so, and waits for its end.
fn victim() -> Result<()> {
    let cluster = Cluster::start("victim")?;
    cluster.import_cast(Path::new(env!("CARGO_BIN_EXE_cast")))?;
    let admin = cluster.namespace("victim")?;
    admin.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: one}, spec: {terminationGracePeriodSeconds: 600, containers: \
         [{name: c, image: 'localhost/cast:1', imagePullPolicy: Never}]}}",
    )?;
    cluster.pod(&admin, "one")?;
    writeln!(std::io::stdout(), "\ncgroup {}", cluster.cgroup())?;
    loop {
        std::thread::park();
    }
}
