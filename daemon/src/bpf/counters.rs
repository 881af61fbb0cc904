//! Map `counters`, as far as the agent counts: what it does with frames that the programs have handed over.

use std::sync::{Mutex, PoisonError};

use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues};
use sidetrack_splice::abi::reason::Reason;
use tracing::debug;

/// The counters.
pub struct Counters {
    map: Mutex<PerCpuArray<MapData, u64>>,
}

impl Counters {
    /// Takes the map of the loaded object.
    pub fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { map: Mutex::new(PerCpuArray::try_from(map)?) })
    }

    /// Adds one. The reason must be one that no program counts: what a program adds between reading and writing would be lost.
    pub fn add(&self, reason: Reason) {
        // Nothing panics while it is held, and no other process writes these: one agent has the pin directory.
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let at = reason as u32;
        let added = map.get(&at, 0).and_then(|values| {
            let mut values: Vec<u64> = values.to_vec();
            if let Some(first) = values.first_mut() {
                *first = first.wrapping_add(1);
            }
            map.set(at, PerCpuValues::try_from(values)?, 0)
        });
        if let Err(error) = added {
            debug!(counter = reason.name(), "not counted: {error}");
        }
    }
}
