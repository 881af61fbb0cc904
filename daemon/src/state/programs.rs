//! The programs at work.

use aya::programs::ProgramInfo;
use jiff::Timestamp;
use serde::Serialize;

use super::Pins;

/// The hooks, as their pins are named.
pub const HOOKS: [&str; 2] = ["egress", "ingress"];

/// One program that is pinned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Program {
    /// `egress` or `ingress`.
    pub hook: &'static str,
    /// Its number in the kernel, as `bpftool prog` shows it.
    pub id: u32,
    /// Its name in the kernel.
    pub name: String,
    /// The kernel's digest of its instructions, in hexadecimal.
    pub tag: String,
    /// When it was loaded, UTC.
    pub loaded_at: Option<Timestamp>,
    /// How often it ran; zero unless the sysctl `kernel.bpf_stats_enabled` is on.
    pub run_count: u64,
    /// Nanoseconds in all that it ran for, under the same condition.
    pub run_time_ns: u64,
}

/// The programs that are pinned. One that cannot be read is left out, as one that is not there.
#[must_use]
pub fn programs(pins: &Pins) -> Vec<Program> {
    let read = |hook| {
        let path = pins.program(hook);
        let info = ProgramInfo::from_pin(path).ok()?;
        Some(Program {
            hook,
            id: info.id(),
            name: String::from_utf8_lossy(info.name()).into_owned(),
            tag: format!("{:016x}", info.tag()),
            loaded_at: info.loaded_at().and_then(|time| Timestamp::try_from(time).ok()).map(whole),
            run_count: info.run_count(),
            run_time_ns: info.run_time().as_nanos() as u64,
        })
    };
    HOOKS.into_iter().filter_map(read).collect()
}

/// To the second: the kernel counts from the boot, whose own time is not known any better.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
