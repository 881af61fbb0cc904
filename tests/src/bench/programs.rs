//! Nanoseconds per packet of each program, by the kernel's own count.
//!
//! Only the client's pod has programs here: the servers are pods that the agent does not know, so every run is one of the
//! client's packets. A packet that goes to a fork passes egress twice, the second time as the leg's own: both are counted.

use super::{
    cast::{Ask, Cast, Condition, LARGE},
    client::{Alone, Bulk},
    crowd::Crowd,
    machine,
    measure::{CROWD, Pace},
};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use sidetrack_tests::Agent;
use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
};

/// `BPF_ENABLE_STATS` of linux/bpf.h.
const BPF_ENABLE_STATS: libc::c_long = 32;
/// `BPF_STATS_RUN_TIME` of linux/bpf.h.
const BPF_STATS_RUN_TIME: u32 = 0;

/// What one program has cost for one kind of packets.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What was sent.
    pub kind: &'static str,
    /// Under which condition.
    pub condition: Condition,
    /// `egress` or `ingress`.
    pub hook: String,
    /// Runs of the program: packets, segments not yet cut being one.
    pub packets: u64,
    /// Runs per request.
    pub packets_per_request: f64,
    /// Time of one run.
    pub nanoseconds_per_packet: f64,
}

/// Runs and nanoseconds of a program since it was loaded.
#[derive(Clone, Copy, Default)]
struct Count {
    runs: u64,
    nanos: u64,
}

/// Measures every kind of packet under every condition.
pub fn run(cast: &Cast, agent: &Agent, pace: Pace) -> Result<Vec<Cost>> {
    let _counting = count_run_time()?;
    let mut costs = Vec::new();
    for (kind, ask) in [("small", Ask::Small), ("200 MB down", Ask::Down(LARGE)), ("200 MB up", Ask::Up(LARGE))] {
        eprintln!("bench: nanoseconds per packet: {kind}");
        let turns = (ask == Ask::Small).then_some(Condition::Turns);
        for condition in [Condition::Unwatched, Condition::Unkeyed, Condition::Keyed].into_iter().chain(turns) {
            let what = || format!("nanoseconds per packet: {kind}, {}", condition.label());
            costs.extend(one(cast, agent, pace, (kind, ask), condition).with_context(what)?);
        }
    }
    Ok(costs)
}

fn one(
    cast: &Cast,
    agent: &Agent,
    pace: Pace,
    (kind, ask): (&'static str, Ask),
    condition: Condition,
) -> Result<Vec<Cost>> {
    cast.place_servers(machine::other_cpu())?;
    let (pod, target) = cast.target_alone(condition, ask);
    let (_, small) = cast.target_alone(condition, Ask::Small);
    let (_, unkeyed) = cast.target_alone(Condition::Unkeyed, ask);
    let (before, requests, after) = pod.enter(|| {
        machine::pin(0, 0)?;
        if condition == Condition::Turns {
            let (mut alone, mut times) = (Alone::new(&[target, unkeyed])?, Vec::new());
            let before = counts(agent)?;
            alone.run(pace.time * pace.slices, &mut times)?;
            Ok((before, times.len() as u64, counts(agent)?))
        } else if ask == Ask::Small {
            let mut crowd = Crowd::new(&target, CROWD)?;
            crowd.run(pace.time)?;
            let before = counts(agent)?;
            let requests = crowd.run(pace.time * pace.slices)?;
            anyhow::Ok((before, requests, counts(agent)?))
        } else {
            let mut bulk = Bulk::new(&target, &small)?;
            let before = counts(agent)?;
            for _ in 0..pace.slices {
                bulk.transfer()?;
            }
            Ok((before, u64::from(pace.slices), counts(agent)?))
        }
    })??;
    let difference = |(hook, after): (String, Count)| {
        let before = before.iter().find(|(name, _)| *name == hook).map(|(_, count)| *count).unwrap_or_default();
        let (packets, nanos) = (after.runs - before.runs, after.nanos - before.nanos);
        Cost {
            kind,
            condition,
            hook,
            packets,
            packets_per_request: packets as f64 / requests as f64,
            nanoseconds_per_packet: nanos as f64 / packets.max(1) as f64,
        }
    };
    Ok(after.into_iter().map(difference).collect())
}

fn counts(agent: &Agent) -> Result<Vec<(String, Count)>> {
    let status = agent.status()?;
    let programs = status["programs"].as_array().context("status shows no programs")?;
    let counts = programs.iter().filter_map(|program| {
        let count = Count { runs: program["run_count"].as_u64()?, nanos: program["run_time_ns"].as_u64()? };
        Some((program["hook"].as_str()?.to_owned(), count))
    });
    Ok(counts.collect())
}

/// Makes the kernel count run times, as the sysctl `kernel.bpf_stats_enabled` does, until the result is dropped or the
/// process ends, however it ends.
fn count_run_time() -> Result<impl AsFd> {
    let attributes = [BPF_STATS_RUN_TIME];
    // SAFETY: the command reads `size` bytes of attributes, here one word that lives until the call returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, attributes.as_ptr(), size_of_val(&attributes)) };
    let Ok(fd @ 0..) = i32::try_from(fd) else {
        bail!("the kernel does not count run times (5.8 and CAP_SYS_ADMIN are needed): {}", io::Error::last_os_error());
    };
    // SAFETY: the kernel has just made this descriptor for this call, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
