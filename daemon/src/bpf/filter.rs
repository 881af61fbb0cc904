//! Map `filter`: the addresses that the programs look at.
//!
//! A bit stays until `sidetrack purge`: one that nobody needs any more costs a look-up, and one that is taken away from a live leg
//! would hide it.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{Array, Map, MapData, MapError};
use sidetrack_splice::{abi::addr::Addr, filter};

/// The bitmap.
pub struct Filter {
    bitmap: Mutex<Bitmap>,
}

/// The map, and what stands in it.
struct Bitmap {
    map: Array<MapData, u64>,
    words: Vec<u64>,
}

impl Bitmap {
    /// Writes a word, if it is another than the one that stands there.
    fn write(&mut self, at: u32, word: u64) -> Result<(), MapError> {
        let stands = &mut self.words[at as usize];
        if *stands != word {
            self.map.set(at, word, 0)?;
            *stands = word;
        }
        Ok(())
    }
}

impl Filter {
    /// Takes the map of the loaded object, as an earlier agent has left it.
    pub fn new(map: Map) -> Result<Self, MapError> {
        let map: Array<_, u64> = Array::try_from(map)?;
        let words = (0..filter::WORDS as u32).map(|at| map.get(&at, 0)).collect::<Result<_, _>>()?;
        Ok(Self { bitmap: Mutex::new(Bitmap { map, words }) })
    }

    fn lock(&self) -> MutexGuard<'_, Bitmap> {
        // Nothing panics while it is held.
        self.bitmap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets an address's bit, before anything that is known of the address stands in another map.
    pub fn add(&self, addr: SocketAddr) -> Result<(), MapError> {
        self.add_record(&addr.ip().into(), addr.port().to_be())
    }

    /// The same by address and port as the records have them.
    pub fn add_record(&self, addr: &Addr, port: u16) -> Result<(), MapError> {
        let (at, mask) = filter::bit(addr, port);
        let mut bitmap = self.lock();
        let word = bitmap.words[at as usize] | mask;
        bitmap.write(at, word)
    }
}
