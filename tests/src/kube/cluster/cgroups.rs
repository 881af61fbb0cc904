//! The cgroups that a cluster's pods are in.
//!
//! Whatever else a cluster has made goes with its namespaces; directories of cgroups stay. So a process watches over them: it
//! ends what is left in them and removes them when the test process ends, however that happens.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Where cgroups lie: a directory for each hierarchy of version 1, or the only one of version 2.
const ROOT: &str = "/sys/fs/cgroup";
/// Controllers of version 2 that a kubelet asks for.
const CONTROLLERS: [&str; 5] = ["+cpuset", "+cpu", "+io", "+memory", "+pids"];

/// Its standard input ends with the process that holds the other end. What is killed takes a moment to leave its cgroup.
const WATCH: &str = r#"
cat >/dev/null
for try in $(seq 300); do
    left=no
    for top in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
        [ -d "$top" ] || continue
        left=yes
        find "$top" -name cgroup.procs -exec cat {} + 2>/dev/null | xargs -r kill -9 2>/dev/null
        find "$top" -depth -type d -exec rmdir {} + 2>/dev/null
    done
    [ $left = no ] && exit 0
    sleep 0.1
done
exit 1
"#;

/// The cgroups of one cluster, removed when it is dropped.
#[derive(Debug)]
pub struct Cgroups {
    name: String,
    watch: Child,
}

impl Cgroups {
    /// Makes one for each node, below one for all.
    pub fn make(nodes: &[&str]) -> Result<Self> {
        let name = format!("sidetrack-cluster-{}", std::process::id());
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "sh", &name]).current_dir("/");
        // It outlives this process, and holds nothing of it open.
        watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let cgroups = Self { watch: watch.spawn().context("cannot start sh")?, name };
        for top in tops()? {
            for node in nodes {
                cgroups.make_in(&top, node).with_context(|| format!("no cgroup can be made in {}", top.display()))?;
            }
        }
        Ok(cgroups)
    }

    fn make_in(&self, top: &Path, node: &str) -> Result<()> {
        let all = top.join(&self.name);
        let own = all.join(node);
        fs::create_dir_all(&own)?;
        for (from, to) in [(top, &all), (&all, &own)] {
            // Version 1: a cpuset without processors and memory takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|file| from.join(file).is_file()) {
                if !top.join("cgroup.controllers").is_file() {
                    fs::write(to.join(file), fs::read(from.join(file))?)?;
                }
            }
            // Version 2: what a kubelet needs is handed down. A controller that is not there is the kubelet's to name.
            let down = from.join("cgroup.subtree_control");
            if down.is_file() {
                for controller in CONTROLLERS {
                    drop(fs::write(&down, controller));
                }
            }
        }
        Ok(())
    }

    /// The name of the one for all nodes, in every hierarchy.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        match self.watch.wait() {
            Ok(status) if status.success() => {}
            other => eprintln!("the cgroups {} are still there: {other:?}", self.name),
        }
    }
}

/// The hierarchies.
fn tops() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut tops = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("cannot read {ROOT}"))? {
        tops.extend(Some(entry?.path()).filter(|path| path.join("cgroup.procs").is_file()));
    }
    ensure!(!tops.is_empty(), "no hierarchy of cgroups is mounted below {ROOT}: mount them");
    Ok(tops)
}
