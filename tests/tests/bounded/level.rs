//! What an agent takes of its machine.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, bail};
use sidetrack_splice::abi::ABI;
use sidetrack_tests::{Agent, Scene, wait_for};

/// How long what has ended may take to be forgotten: TIME-WAIT's 60 s, and a sweep or two of a machine under load.
const FORGOTTEN: Duration = Duration::from_secs(80);

/// Memory that an allocator may keep, and that tables take which were larger for a time, in KiB. A leak of 1 KiB for each of the
/// things that these tests make and end in thousands would be more.
const ALLOWANCE: u64 = 4096;

/// How much there is of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Entries of each map.
    pub maps: BTreeMap<String, u64>,
    /// Descriptors of the agent's process.
    pub descriptors: usize,
    /// Pins of links.
    pub links: usize,
    /// Resident memory of the agent's process, in KiB.
    pub memory: u64,
}

impl Level {
    /// As it is.
    pub fn now(scene: &Scene, agent: &Agent) -> Result<Self> {
        let status = agent.status()?;
        let entry = |map: &serde_json::Value| Some((map["name"].as_str()?.to_owned(), map["entries"].as_u64()?));
        let maps = status["maps"].as_array().context("status shows no maps")?.iter().filter_map(entry).collect();
        let process = format!("/proc/{}", status["agent"]["pid"]);
        let memory = fs::read_to_string(format!("{process}/status"))?;
        let memory = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let links = scene.lab.pin_dir().join(format!("v{ABI}/links"));
        Ok(Self {
            maps,
            descriptors: fs::read_dir(format!("{process}/fd"))?.count(),
            links: fs::read_dir(links)?.count(),
            memory: memory.context("a process has memory")?.parse()?,
        })
    }

    /// What is above this level by now, in words; nothing if all is back.
    fn above(&self, scene: &Scene, agent: &Agent) -> Result<Vec<String>> {
        let now = Self::now(scene, agent)?;
        let mut above = Vec::new();
        for (name, entries) in &now.maps {
            let before = self.maps.get(name).copied().unwrap_or(0);
            if *entries > before {
                above.push(format!("map {name} has {entries} entries, {before} before"));
            }
        }
        if now.descriptors > self.descriptors {
            above.push(format!("{} descriptors, {} before", now.descriptors, self.descriptors));
        }
        if now.links > self.links {
            above.push(format!("{} links, {} before", now.links, self.links));
        }
        if now.memory > self.memory + ALLOWANCE {
            above.push(format!("{} KiB of memory, {} before", now.memory, self.memory));
        }
        Ok(above)
    }

    /// Waits until everything is back at this level. Returns what there is then.
    pub fn back(&self, scene: &Scene, agent: &Agent) -> Result<Self> {
        let mut last = Vec::new();
        let waited = wait_for("all to be as before", FORGOTTEN, || {
            last = self.above(scene, agent).unwrap_or_else(|error| vec![format!("{error:#}")]);
            last.is_empty().then_some(())
        });
        if waited.is_err() {
            bail!("not back after {FORGOTTEN:?}: {}\n{}", last.join("; "), agent.explain());
        }
        let now = Self::now(scene, agent)?;
        eprintln!("memory: {} KiB before, {} after; {} descriptors", self.memory, now.memory, now.descriptors);
        Ok(now)
    }
}
