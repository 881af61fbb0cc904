//! Records of another ABI below the same pin directory: what can be said of them without knowing their layouts. `control` has one layout in
//! all versions, the keys of `connections` and `legs` are tuples, and a leg begins with that of its connection; nothing else is read. What is
//! written is one word of `control`, and what is forgotten are connections.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use sidetrack_splice::abi::{ABI, addr::Tuple, control::Control};
use zerocopy::{FromBytes, IntoBytes};

use crate::{state::pins, wire::Wire};

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

/// What their agents say of themselves.
#[must_use]
pub fn controls(pin_dir: &Path) -> Vec<Control> {
    let versions = pins::versions(pin_dir).unwrap_or_default();
    versions.into_iter().filter(|version| version.abi != ABI).filter_map(|version| version.control).collect()
}

/// The connections that other ABIs' programs follow: they are theirs.
pub fn followed(pin_dir: &Path) -> io::Result<HashSet<Tuple>> {
    let mut all = HashSet::new();
    for other in others(pin_dir) {
        all.extend(other.connections()?);
    }
    Ok(all)
}

impl Other {
    /// Tells its programs, and its agent if one lives, that no new connection is to be taken on. An agent that does not know the word
    /// writes over it: it is to be said again and again.
    pub fn drain(&self) -> io::Result<()> {
        let (mut map, control) = self.control()?;
        if control.draining != 0 {
            return Ok(());
        }
        map.set(0, Wire(Control { draining: 1, ..control }), 0).map_err(io::Error::other)
    }

    /// Whether its agent is dead at `now` (`CLOCK_MONOTONIC`, nanoseconds), as its programs see it: they refuse what needs one.
    pub fn abandoned(&self, now: u64) -> io::Result<bool> {
        Ok(Control::dead(self.control()?.1.heartbeat, now))
    }

    /// Its programs follow these connections no longer: their packets pass.
    pub fn forget(&self, connections: &[Tuple]) -> io::Result<()> {
        let map = self.map("connections")?;
        for conn in connections {
            match map.delete(conn.as_bytes()) {
                Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => return Err(io::Error::other(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The connections that its programs follow.
    pub fn connections(&self) -> io::Result<HashSet<Tuple>> {
        Ok(keys(&self.map("connections")?).collect())
    }

    /// The tuples of its legs: their ports are in use.
    pub fn legs(&self) -> io::Result<HashSet<Tuple>> {
        Ok(keys(&self.map("legs")?).collect())
    }

    /// The connections that any leg serves: bytes of theirs may have gone to other backends.
    pub fn diverted(&self) -> io::Result<HashSet<Tuple>> {
        let map = self.map("legs")?;
        let served = |leg: Tuple| {
            let value = map.lookup(leg.as_bytes(), MapFlags::ANY).ok()??;
            Tuple::read_from_prefix(&value).ok().map(|(conn, _)| conn)
        };
        Ok(keys(&map).filter_map(served).collect())
    }

    fn control(&self) -> io::Result<(Array<MapData, Wire<Control>>, Control)> {
        let map = MapData::from_pin(self.dir.join("control")).map_err(io::Error::other)?;
        let map = Array::<_, Wire<Control>>::try_from(Map::Array(map)).map_err(io::Error::other)?;
        let control = map.get(&0, 0).map_err(io::Error::other)?.0;
        Ok((map, control))
    }

    fn map(&self, name: &str) -> io::Result<MapHandle> {
        let map = MapHandle::from_pinned_path(self.dir.join(name)).map_err(io::Error::other)?;
        if map.key_size() as usize != size_of::<Tuple>() {
            return Err(io::Error::other(format!("the keys of map {name} are none that this version knows")));
        }
        Ok(map)
    }
}

/// A walk that meets a deleted key starts over.
fn keys(map: &MapHandle) -> impl Iterator<Item = Tuple> {
    let steps = map.max_entries() as usize * 2;
    map.keys().take(steps).filter_map(|key| Tuple::read_from_bytes(&key).ok())
}
