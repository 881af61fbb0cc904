//! Whose a clsact filter is. All agents' filters have one place on an interface, whatever their pin directory is; the maps that a
//! filter's program works with say whose it is.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::{ProgramInfo, loaded_programs},
};
use sidetrack_splice::abi::control::Control;

use super::Hook;
use crate::{state, wire::Wire};

/// What may be removed, as the kernel's programs and maps were when it was asked.
#[derive(Debug, Default)]
pub(super) struct Owner {
    /// Numbers of Sidetrack's programs, and of their maps.
    programs: HashMap<u32, Vec<u32>>,
    /// Maps of the directories in question.
    own: HashSet<u32>,
    /// Maps of living agents, where what is nobody's may be removed too.
    living: Option<HashSet<u32>>,
}

impl Owner {
    /// The owner of what is pinned in these versions' directories.
    pub(super) fn of<'a>(dirs: impl IntoIterator<Item = &'a Path>) -> Self {
        Self { programs: programs(), own: dirs.into_iter().flat_map(pinned).collect(), living: None }
    }

    /// Whoever is gone: all whose agent gives no sign of life. Map `control` says that, and it has one layout in all versions; only
    /// egress reads it, and shares its other maps with ingress.
    pub(super) fn gone() -> Self {
        let programs = programs();
        let living = programs.values().filter(|maps| maps.iter().copied().any(beats)).flatten().copied().collect();
        Self { programs, own: HashSet::new(), living: Some(living) }
    }

    /// Itself, or another where its directories hold no map.
    pub(super) fn unless_nothing_is_pinned(self, other: impl FnOnce() -> Self) -> Self {
        if self.own.is_empty() { other() } else { self }
    }

    /// Whether a filter with this program is its.
    pub(super) fn has(&self, program: Option<u32>) -> bool {
        let Some(maps) = program.and_then(|id| self.programs.get(&id)) else { return false };
        let none_in = |living: &HashSet<u32>| !maps.iter().any(|map| living.contains(map));
        maps.iter().any(|map| self.own.contains(map)) || self.living.as_ref().is_some_and(none_in)
    }
}

/// Sidetrack's programs in the kernel, with their maps. One that goes meanwhile is on no interface.
fn programs() -> HashMap<u32, Vec<u32>> {
    let ours = |info: &ProgramInfo| Hook::ALL.iter().any(|hook| info.name_as_str() == Some(hook.program()));
    loaded_programs().flatten().filter(ours).map(|info| (info.id(), maps(&info))).collect()
}

fn maps(program: &ProgramInfo) -> Vec<u32> {
    program.map_ids().ok().flatten().unwrap_or_default()
}

/// The maps that are pinned in a version's directory, and those of the programs there.
fn pinned(dir: &Path) -> Vec<u32> {
    let files = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let direct = files(dir).filter_map(|path| MapInfo::from_pin(path).ok()).map(|info| info.id());
    let by_program = files(&dir.join("prog")).filter_map(|path| ProgramInfo::from_pin(path).ok());
    direct.chain(by_program.flat_map(|info| maps(&info))).collect()
}

/// Whether this is the map `control` of an agent that lives.
fn beats(map: u32) -> bool {
    let control = || {
        let info = MapInfo::from_id(map).ok()?;
        (info.name_as_str() == Some("control")).then_some(())?;
        let array = Array::<_, Wire<Control>>::try_from(Map::Array(MapData::from_id(map).ok()?)).ok()?;
        array.get(&0, 0).ok()
    };
    control().is_some_and(|control| control.0.lives(state::now()))
}
