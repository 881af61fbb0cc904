//! Putting load on one service under one condition, slice by slice.

use super::{
    cast::{Ask, Cast, Condition},
    client::{Alone, Bulk, Fresh},
    crowd::Crowd,
    machine::{self, busy},
    measure::{CROWD, Measure, Pace, Quantity},
    statistics::median_micros,
};
use anyhow::Result;
use sidetrack_tests::Pod;
use std::time::{Duration, Instant};

/// The load tool, with its connections: they stay from one slice to the next.
enum Tool {
    Alone(Alone),
    Crowd(Crowd),
    Bulk(Bulk),
    Fresh(Fresh),
}

/// A load on one service, and what it has measured in its slices.
pub struct Load<'cast> {
    pod: &'cast Pod,
    tool: Tool,
    /// Nanoseconds of each request, where they are taken by themselves.
    times: Vec<u64>,
    /// All requests.
    requests: u64,
    /// Time of all slices.
    time: Duration,
    /// Time of all processors meanwhile.
    cpu: Duration,
}

impl<'cast> Load<'cast> {
    /// Connects, and warms up.
    pub fn new(cast: &'cast Cast, measure: Measure, condition: Condition, pace: Pace) -> Result<Self> {
        let (pod, target) = cast.target(measure.part(condition), measure.ask());
        let other = (condition == Condition::Turns).then(|| cast.target(Condition::Unkeyed, measure.ask()).1);
        let tool = pod.enter(|| {
            machine::pin(0, 0)?;
            anyhow::Ok(match measure {
                Measure::Single | Measure::Turns => {
                    Tool::Alone(Alone::new(&[target].into_iter().chain(other).collect::<Vec<_>>())?)
                }
                Measure::Fresh => Tool::Fresh(Fresh::new(&target)?),
                Measure::Crowd | Measure::MediumDown | Measure::MediumUp => {
                    let mut crowd = Crowd::new(&target, CROWD)?;
                    crowd.run(pace.time)?;
                    Tool::Crowd(crowd)
                }
                Measure::LargeDown | Measure::LargeUp => {
                    Tool::Bulk(Bulk::new(&target, &cast.target(condition, Ask::Small).1)?)
                }
            })
        })??;
        Ok(Self {
            pod,
            tool,
            times: Vec::with_capacity(1 << 18),
            requests: 0,
            time: Duration::ZERO,
            cpu: Duration::ZERO,
        })
    }

    /// Measures for a slice of a round: one transfer, or for as long as `pace` says.
    pub fn slice(&mut self, pace: Pace) -> Result<()> {
        let Self { pod, tool, times, .. } = self;
        let (requests, time, cpu) = pod.enter(|| {
            machine::pin(0, 0)?;
            let (before, start) = (busy()?, Instant::now());
            let timed = times.len();
            let requests = match tool {
                Tool::Alone(alone) => alone.run(pace.time, times).map(|()| times.len() - timed)? as u64,
                Tool::Fresh(fresh) => fresh.run(pace.connections, times).map(|()| times.len() - timed)? as u64,
                Tool::Crowd(crowd) => crowd.run(pace.time)?,
                Tool::Bulk(bulk) => bulk.transfer().map(|()| 1)?,
            };
            anyhow::Ok((requests, start.elapsed(), busy()?.saturating_sub(before)))
        })??;
        self.requests += requests;
        self.time += time;
        self.cpu += cpu;
        Ok(())
    }

    /// What came out.
    pub fn values(&self) -> Vec<(Quantity, f64)> {
        let requests = self.requests as f64;
        let cpu = (Quantity::Cpu, self.cpu.as_secs_f64() * 1e6 / requests);
        match self.tool {
            Tool::Alone(_) | Tool::Fresh(_) => vec![(Quantity::P50, median_micros(&self.times))],
            Tool::Crowd(_) => vec![(Quantity::Throughput, requests / self.time.as_secs_f64()), cpu],
            Tool::Bulk(_) => vec![(Quantity::Time, self.time.as_secs_f64() * 1e3 / requests), cpu],
        }
    }
}
