//! What the pinned records say, read without any agent.
//!
//! [`Pins`] finds the records below a pin directory, [`Snapshot`] reads them once, and each report is made of a snapshot:
//! [`routes`], [`flows`], [`status`]. Their field names are stable and documented in `docs/cli.md`.

pub mod flows;
pub mod maps;
pub mod neighbours;
pub mod pins;
pub mod pod;
pub mod programs;
pub mod routes;
pub mod snapshot;
pub mod status;

use std::{io, path::PathBuf, time::Duration};

use nix::time::{ClockId, clock_gettime};

pub use self::{
    pins::{Pins, Version},
    snapshot::Snapshot,
};

/// Why the records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Nothing is pinned.
    #[error(
        "no agent has run with this pin directory: {0}\nstart one (`sidetrack agent`), or name its \
         directory with --pin-dir"
    )]
    NoPins(PathBuf),
    /// Only records of other versions are pinned.
    #[error(
        "the records in {base} have ABI {}; this sidetrack reads ABI {ours}: use the one that the agent runs \
         (`sidetrack --version` says which ABI a binary has)", list(.found)
    )]
    OtherAbi {
        /// The pin directory.
        base: String,
        /// What is there.
        found: Vec<Version>,
        /// What this binary reads.
        ours: u32,
    },
    /// The kernel or the file system refused.
    #[error("{path}: {source}; reading pinned records takes root, or CAP_BPF and the right to read that directory")]
    Denied {
        /// What was refused.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A map is not there, though others are.
    #[error(
        "{0} is not pinned, though other maps are: an agent was stopped while it made them; start it again, or run \
         `sidetrack purge`"
    )]
    Missing(PathBuf),
    /// A map cannot be read, or has other sizes than this version's records.
    #[error("{path}: {reason}; if the agent is another version's, use its own `sidetrack`, else run `sidetrack purge`")]
    Map {
        /// The pin.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

fn list(found: &[Version]) -> String {
    found.iter().map(|version| version.abi.to_string()).collect::<Vec<_>>().join(", ")
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of all records.
///
/// # Panics
/// Never: Linux always has this clock.
#[must_use]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("this clock is always there");
    Duration::from(time).as_nanos() as u64
}

/// Seconds from an earlier time of a record to a later one, to a thousandth.
pub(crate) fn seconds(from: u64, to: u64) -> f64 {
    let millis = Duration::from_nanos(to.saturating_sub(from)).as_millis();
    f64::from(u32::try_from(millis).unwrap_or(u32::MAX)) / 1_000.0
}

#[cfg(test)]
mod tests;
