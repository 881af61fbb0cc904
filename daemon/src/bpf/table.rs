//! A hash map of the kernel's, with records for keys and values.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{HashMap, Map, MapData, MapError};

use crate::{state::maps::Record, wire::Wire};

/// A hash map that any task may use: each call is one system call.
#[derive(Debug)]
pub struct Table<K: Record, V: Record> {
    map: Mutex<HashMap<MapData, Wire<K>, Wire<V>>>,
}

/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

impl<K: Record, V: Record> Table<K, V> {
    /// Takes a map of the loaded object.
    pub fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { map: Mutex::new(HashMap::try_from(map)?) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, Wire<K>, Wire<V>>> {
        // Nothing panics while it is held, and the map has no state on this side.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key, if it is there.
    pub fn find(&self, key: &K) -> Option<V> {
        self.lock().get(&Wire(*key), 0).ok().map(|v| v.0)
    }

    /// Inserts or replaces.
    pub fn put(&self, key: &K, value: &V) -> Result<(), MapError> {
        self.lock().insert(Wire(*key), Wire(*value), 0)
    }

    /// Inserts. False: the key is there already.
    pub fn add(&self, key: &K, value: &V) -> Result<bool, MapError> {
        match self.lock().insert(Wire(*key), Wire(*value), NOEXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes; that it is gone already is no error.
    pub fn remove(&self, key: &K) -> Result<(), MapError> {
        match self.lock().remove(&Wire(*key)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// All entries. The kernel may change the map meanwhile: an entry may be missed, or stand there twice.
    pub fn entries(&self) -> Vec<(K, V)> {
        let map = self.lock();
        // A walk that meets a deleted key starts over: bounded by what a full map needs, twice.
        map.iter().flatten().map(|(k, v)| (k.0, v.0)).take(1 << 20).collect()
    }
}
