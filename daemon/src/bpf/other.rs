//! Records of another ABI below the same pin directory: what can be said of them without knowing their layouts. `control` has one layout in
//! all versions, and the keys of `connections` and `legs` are tuples; nothing else is read.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData};
use libbpf_rs::{MapCore, MapHandle};
use sidetrack_splice::abi::{ABI, addr::Tuple, control::Control};
use zerocopy::FromBytes;

use crate::{
    state::{maps, pins},
    wire::Wire,
};

/// The pinned records of one other version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its number.
    pub abi: u32,
    /// Its directory.
    pub dir: PathBuf,
}

/// All that are pinned below a pin directory, but for this version's own.
#[must_use]
pub fn others(pin_dir: &Path) -> Vec<Other> {
    let versions = pins::versions(pin_dir).unwrap_or_default();
    let other = |version: &pins::Version| version.abi != ABI && version.control.is_some();
    let found = versions.into_iter().filter(other);
    found.map(|version| Other { abi: version.abi, dir: pins::directory(pin_dir, version.abi) }).collect()
}

/// Whether a successor has told this version's own programs to take no new connection on. `None`: the records are gone.
#[must_use]
pub fn draining(dir: &Path) -> Option<bool> {
    maps::single::<Control>(&dir.join("control")).ok().map(|control| control.draining != 0)
}

impl Other {
    /// Tells its programs, and its agent if one lives, that no new connection is to be taken on. An agent that does not know the word
    /// writes over it: it is to be said again and again.
    pub fn drain(&self) -> io::Result<()> {
        let map = MapData::from_pin(self.dir.join("control")).map_err(io::Error::other)?;
        let mut map = Array::<_, Wire<Control>>::try_from(Map::Array(map)).map_err(io::Error::other)?;
        let control = map.get(&0, 0).map_err(io::Error::other)?.0;
        if control.draining != 0 {
            return Ok(());
        }
        map.set(0, Wire(Control { draining: 1, ..control }), 0).map_err(io::Error::other)
    }

    /// The connections that its programs follow. Empty where its keys are none that this version knows.
    #[must_use]
    pub fn connections(&self) -> HashSet<Tuple> {
        self.keys("connections")
    }

    /// Those of them whose bytes have gone to other backends: the original leg stands in `legs` then, under the connection's own tuple.
    #[must_use]
    pub fn diverted(&self) -> HashSet<Tuple> {
        let legs = self.keys("legs");
        self.connections().into_iter().filter(|conn| legs.contains(conn)).collect()
    }

    fn keys(&self, name: &str) -> HashSet<Tuple> {
        let Ok(map) = MapHandle::from_pinned_path(self.dir.join(name)) else { return HashSet::new() };
        if map.key_size() as usize != size_of::<Tuple>() {
            return HashSet::new();
        }
        // A walk that meets a deleted key starts over.
        let steps = map.max_entries() as usize * 2;
        map.keys().take(steps).filter_map(|key| Tuple::read_from_bytes(&key).ok()).collect()
    }
}
