//! A hash map of the kernel's, with records for keys and values.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{HashMap, Map, MapData, MapError};
use libbpf_rs::libbpf_sys;

use crate::{state::maps::Record, wire::Wire};

/// A hash map that any task may use: each call is one system call.
#[derive(Debug)]
pub struct Table<K: Record, V: Record> {
    /// For what `HashMap` cannot do: [`Table::take`].
    fd: OwnedFd,
    /// For reading: a walk through thousands of entries must not keep a dial waiting.
    read: HashMap<MapData, Wire<K>, Wire<V>>,
    /// For writing, which aya wants alone.
    map: Mutex<HashMap<MapData, Wire<K>, Wire<V>>>,
}

/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

impl<K: Record, V: Record> Table<K, V> {
    /// Takes a map of the loaded object.
    pub fn new(map: Map) -> Result<Self, MapError> {
        // The object has no other kind for a table.
        let Map::HashMap(data) = map else { return Err(io::Error::from(io::ErrorKind::Unsupported).into()) };
        let fd = data.fd().as_fd().try_clone_to_owned()?;
        let read = HashMap::try_from(Map::HashMap(MapData::from_fd(fd.try_clone()?)?))?;
        let map = Mutex::new(HashMap::try_from(Map::HashMap(data))?);
        Ok(Self { fd, read, map })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, Wire<K>, Wire<V>>> {
        // Nothing panics while it is held, and the map has no state on this side.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key, if it is there.
    pub fn find(&self, key: &K) -> Option<V> {
        self.read.get(&Wire(*key), 0).ok().map(|v| v.0)
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

    /// Removes, and returns what was there at that moment (`BPF_MAP_LOOKUP_AND_DELETE_ELEM`, of hash maps since Linux 5.14).
    pub fn take(&self, key: &K) -> io::Result<Option<V>> {
        let (key, mut value) = (key.as_bytes(), V::new_zeroed());
        // SAFETY: the map's keys and values have these sizes, which was checked when it was made a `HashMap` of these types; any
        // bytes are a value.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_and_delete_elem(
                self.fd.as_raw_fd(),
                key.as_ptr().cast(),
                (&raw mut value).cast(),
            )
        };
        match -result {
            0 => Ok(Some(value)),
            libc::ENOENT => Ok(None),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// All entries, one at a time. The kernel may change the map meanwhile: an entry may be missed, or stand there twice.
    pub fn walk(&self) -> impl Iterator<Item = (K, V)> {
        // A walk that meets a deleted key starts over: bounded by what a full map needs, twice.
        self.read.iter().flatten().map(|(k, v)| (k.0, v.0)).take(1 << 20)
    }

    /// The same all at once, for who removes some of them on the way.
    pub fn entries(&self) -> Vec<(K, V)> {
        self.walk().collect()
    }
}
