//! Map `filter`: the addresses that the programs look at.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use aya::maps::{Array, Map, MapData, MapError};
use sidetrack_splice::{abi::addr::Addr, filter};

/// The bitmap, with a copy of it at this side.
pub struct Filter {
    state: Mutex<(Array<MapData, u64>, Box<[u64; filter::WORDS]>)>,
}

impl Filter {
    /// Takes the map of the loaded object, as an earlier agent has left it.
    pub fn new(map: Map) -> Result<Self, MapError> {
        let array: Array<_, u64> = Array::try_from(map)?;
        let mut words = Box::new([0; filter::WORDS]);
        for (at, word) in words.iter_mut().enumerate() {
            *word = array.get(&(at as u32), 0)?;
        }
        Ok(Self { state: Mutex::new((array, words)) })
    }

    /// Sets an address's bit, before anything that is known of the address stands in another map.
    pub fn add(&self, addr: SocketAddr) -> Result<(), MapError> {
        self.add_record(&addr.ip().into(), addr.port().to_be())
    }

    /// The same by address and port as the records have them.
    pub fn add_record(&self, addr: &Addr, port: u16) -> Result<(), MapError> {
        let (at, mask) = filter::bit(addr, port);
        // Nothing panics while it is held.
        let (array, words) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let word = &mut words[at as usize];
        if *word & mask == 0 {
            array.set(at, *word | mask, 0)?;
            *word |= mask;
        }
        Ok(())
    }

    /// Leaves no bit but those of `addrs`: all that the other maps hold when an agent starts. What came and went under
    /// earlier agents is forgotten.
    pub fn keep(&self, addrs: impl IntoIterator<Item = (Addr, u16)>) -> Result<(), MapError> {
        let mut kept = Box::new([0; filter::WORDS]);
        for (addr, port) in addrs {
            let (at, mask) = filter::bit(&addr, port);
            kept[at as usize] |= mask;
        }
        let (array, words) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, (word, kept)) in words.iter_mut().zip(*kept).enumerate() {
            if *word != kept {
                array.set(at as u32, kept, 0)?;
                *word = kept;
            }
        }
        Ok(())
    }
}
