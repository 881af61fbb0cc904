//! Reading pinned maps.

use std::{
    collections::HashSet,
    hash::Hash,
    io,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use libbpf_rs::{MapCore, MapHandle};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::StateError;
use crate::wire::Wire;

/// What can stand in a map.
pub trait Record: Copy + FromBytes + IntoBytes + Immutable + 'static {}
impl<T: Copy + FromBytes + IntoBytes + Immutable + 'static> Record for T {}

fn open(path: &Path) -> Result<MapData, StateError> {
    // A pin is a file of bpffs: what `stat` says is clearer than what the kernel says of `BPF_OBJ_GET`.
    if let Err(source) = std::fs::symlink_metadata(path) {
        return Err(match source.kind() {
            io::ErrorKind::NotFound => StateError::Missing(path.to_owned()),
            _ => StateError::Denied { path: path.to_owned(), source },
        });
    }
    MapData::from_pin(path).map_err(|error| failed(path)(error))
}

fn failed(path: &Path) -> impl Fn(MapError) -> StateError {
    let path = path.to_owned();
    move |error| match os_error(&error) {
        Some(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            StateError::Denied { path: path.clone(), source }
        }
        Some(source) => StateError::Map { path: path.clone(), reason: source.to_string() },
        None => StateError::Map { path: path.clone(), reason: error.to_string() },
    }
}

/// The system's error at the root of another.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(io::Error::from_raw_os_error(code));
        }
        next = error.source();
    }
    None
}

/// The value of a map with one entry.
pub fn single<V: Record>(path: &Path) -> Result<V, StateError> {
    let array: Array<_, Wire<V>> = Map::Array(open(path)?).try_into().map_err(failed(path))?;
    array.get(&0, 0).map(|wire| wire.0).map_err(failed(path))
}

/// The sums over all processors of a per-processor array of numbers.
pub fn counters(path: &Path) -> Result<Vec<u64>, StateError> {
    let array: PerCpuArray<_, u64> = Map::PerCpuArray(open(path)?).try_into().map_err(failed(path))?;
    (0..array.len())
        .map(|at| array.get(&at, 0).map(|values| values.iter().fold(0, |sum: u64, n| sum.wrapping_add(*n))))
        .collect::<Result<_, _>>()
        .map_err(failed(path))
}

/// All entries of a hash map. The kernel may change it meanwhile: each entry is read whole, at some time between start
/// and end, and none twice.
pub fn entries<K: Record + Eq + Hash, V: Record>(path: &Path) -> Result<Vec<(K, V)>, StateError> {
    let map: HashMap<_, Wire<K>, Wire<V>> = Map::HashMap(open(path)?).try_into().map_err(failed(path))?;
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    // When the key that it stands at is deleted, the walk begins again at the first one: what was seen is left out, and
    // a map that is written faster than it is read is left after as many steps as it has room for, twice over.
    let steps = room(path)? as usize * 2;
    for key in map.keys().take(steps) {
        let key = key.map_err(failed(path))?;
        if !seen.insert(key.0) {
            continue;
        }
        match map.get(&key, 0) {
            Ok(value) => entries.push((key.0, value.0)),
            Err(MapError::KeyNotFound) => {} // deleted meanwhile
            Err(error) => return Err(failed(path)(error)),
        }
    }
    Ok(entries)
}

/// How many entries a hash map has, as [`entries`] would find them.
pub fn count<K: Record + Eq + Hash, V: Record>(path: &Path) -> Result<usize, StateError> {
    let map: HashMap<_, Wire<K>, Wire<V>> = Map::HashMap(open(path)?).try_into().map_err(failed(path))?;
    let mut seen = HashSet::new();
    for key in map.keys().take(room(path)? as usize * 2) {
        seen.insert(key.map_err(failed(path))?.0);
    }
    Ok(seen.len())
}

/// How many entries a map has room for.
pub fn room(path: &Path) -> Result<u32, StateError> {
    let handle = MapHandle::from_pinned_path(path)
        .map_err(|error| StateError::Map { path: PathBuf::from(path), reason: error.to_string() })?;
    Ok(handle.max_entries())
}
