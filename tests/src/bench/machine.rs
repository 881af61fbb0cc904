//! The machine that is measured on: what it is, what it has done, and which processor does what.

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, SysconfVar, sysconf},
};
use serde::Serialize;
use std::time::Duration;

/// What the figures belong to.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processors.
    pub processor: String,
    /// How many the process may use.
    pub cpus: usize,
    /// TCP congestion control in all namespaces.
    pub congestion_control: String,
    /// Load average of one minute before the start.
    pub load: f64,
}

impl Machine {
    /// Asks the kernel.
    pub fn look(congestion: &str) -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let info = read("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            cpus: cpus(),
            congestion_control: congestion.to_owned(),
            load: read("/proc/loadavg")?.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0),
        })
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The processor of the servers when they do not share the client's, which is the first.
pub fn other_cpu() -> usize {
    usize::from(cpus() > 1)
}

/// Binds a process to one processor; zero is the calling thread.
pub fn pin(process: u32, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(process.cast_signed()), &set)
        .with_context(|| format!("cannot bind process {process} to processor {cpu}: is it in this container's cpuset?"))
}

/// Time that all processors have spent on anything, softirq and all processes, since boot.
pub fn busy() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let ticks = busy_ticks(&text).context("/proc/stat does not begin as proc(5) says")?;
    let second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64(ticks as f64 / second as f64))
}

/// User, nice, system, irq and softirq of the first line: neither idle and iowait nor what was stolen from the machine.
fn busy_ticks(text: &str) -> Option<u64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields[..] else { return None };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_are_not_busy() {
        assert_eq!(busy_ticks("cpu  10 20 40 1000 2000 80 160 4000 0 0\ncpu0 1"), Some(310));
        assert_eq!(busy_ticks("cpu  10 20"), None);
    }
}
