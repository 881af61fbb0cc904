//! Map `filter`: the addresses that the programs look at.
//!
//! A bit stays until the next agent starts: one that nobody needs any more costs a look-up, and one that is taken away from a live leg
//! would hide it.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use aya::maps::{Array, Map, MapData, MapError};
use sidetrack_splice::{abi::addr::Addr, filter};

/// The bitmap.
pub struct Filter {
    map: Mutex<Array<MapData, u64>>,
}

impl Filter {
    /// Takes the map of the loaded object, as an earlier agent has left it.
    pub fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { map: Mutex::new(Array::try_from(map)?) })
    }

    /// Sets an address's bit, before anything that is known of the address stands in another map.
    pub fn add(&self, addr: SocketAddr) -> Result<(), MapError> {
        self.add_record(&addr.ip().into(), addr.port().to_be())
    }

    /// The same by address and port as the records have them.
    pub fn add_record(&self, addr: &Addr, port: u16) -> Result<(), MapError> {
        let (at, mask) = filter::bit(addr, port);
        // Nothing panics while it is held, and no other process writes the map: one agent has the pin directory.
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let word = map.get(&at, 0)?;
        if word & mask == 0 { map.set(at, word | mask, 0) } else { Ok(()) }
    }

    /// Takes away all bits but those of these addresses: of all that stands in the maps when an agent starts. Nobody else adds a
    /// bit meanwhile, and what the programs add to the maps has an address that a service has.
    pub fn keep(&self, needed: impl IntoIterator<Item = (Addr, u16)>) -> Result<(), MapError> {
        let mut bits = vec![0; filter::WORDS];
        for (addr, port) in needed {
            let (at, mask) = filter::bit(&addr, port);
            bits[at as usize] |= mask;
        }
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, kept) in (0..).zip(bits) {
            let word = map.get(&at, 0)?;
            if word & !kept != 0 {
                map.set(at, word & kept, 0)?;
            }
        }
        Ok(())
    }
}
