//! Loads the programs, with the maps that are pinned already or new ones.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, Map, MapData, MapError, RingBuf},
    pin::PinError,
    programs::{ProgramError, SchedClassifier},
};
use libbpf_rs::{MapHandle, MapType};
use sidetrack_splice::{
    abi::{
        ABI,
        addr::Tuple,
        config::Config as KernelConfig,
        control::Control,
        record::{Connection, Dial, Handshake, HeadKey, Leg, NameKey, NameText},
        route::{Route, RouteKey, Service, ServiceAddr},
    },
    window::Window,
};

use super::{Hook, counters::Counters, filter::Filter, table::Table};
use crate::{
    config::Config,
    state::{
        pins,
        pod::{self, PodKey, PodRecord},
    },
    wire::Wire,
};

/// The kernel programs, compiled by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sidetrack.bpf.o"));

/// Maps that are pinned: what outlives the agent.
const PINNED: [&str; 13] = [
    "control",
    "config",
    "filter",
    "services",
    "routes",
    "connections",
    "legs",
    "handshakes",
    "dials",
    "heads",
    "names",
    "counters",
    "events",
];

/// Why the programs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel or aya refuses the object.
    #[error(
        "the kernel programs cannot be loaded: {0}; check `sidetrack status` of a running agent, the kernel's version (6.1 or later) and that it has BTF"
    )]
    Object(#[from] EbpfError),
    /// The kernel refuses a program.
    #[error(
        "the kernel refuses program {name}: {error}; this is a defect of sidetrack or of this kernel: please report it with this text"
    )]
    Program {
        /// The program.
        name: &'static str,
        /// The kernel's answer.
        error: ProgramError,
    },
    /// A map is missing or of another kind.
    #[error("map {name}: {error}; if other versions' records are pinned, run `sidetrack purge`")]
    Map {
        /// The map.
        name: &'static str,
        /// What is wrong.
        error: MapError,
    },
    /// Pinning failed.
    #[error("cannot pin {path}: {error}; check that the pin directory is a bpffs that this user may write")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

/// The loaded programs, and all maps.
pub struct Kernel {
    /// Directory of this version's pins.
    pub dir: PathBuf,
    /// Program of egress.
    pub egress: SchedClassifier,
    /// Program of ingress.
    pub ingress: SchedClassifier,
    /// Everything that is shared with the programs.
    pub maps: Maps,
    /// Events of the programs.
    pub events: RingBuf<MapData>,
    /// Whether maps of an earlier agent were found.
    pub adopted: bool,
}

/// The maps that the agent works with.
pub struct Maps {
    /// One entry.
    pub control: std::sync::Mutex<Array<MapData, Wire<Control>>>,
    /// One entry.
    pub config: std::sync::Mutex<Array<MapData, Wire<KernelConfig>>>,
    /// Addresses that the programs look at.
    pub filter: Filter,
    /// Service addresses.
    pub services: Table<ServiceAddr, Service>,
    /// Routes by service and key.
    pub routes: Table<RouteKey, Route>,
    /// Connections.
    pub connections: Table<Tuple, Connection>,
    /// Legs by their own tuple.
    pub legs: Table<Tuple, Leg>,
    /// Handshakes of legs that are dialled.
    pub handshakes: Table<Tuple, Handshake>,
    /// Answers to holds.
    pub dials: Table<Tuple, Dial>,
    /// Parts of heads.
    pub heads: Table<HeadKey, Window>,
    /// Names for tools.
    pub names: Table<NameKey, NameText>,
    /// Pods, for tools.
    pub pods: Table<PodKey, PodRecord>,
    /// What the agent counts itself.
    pub counters: Counters,
}

/// Loads the programs below `pin_dir`, with the maps that are pinned there, or new ones.
pub fn load(pin_dir: &Path, config: &Config) -> Result<Kernel, LoadError> {
    let dir = pins::directory(pin_dir, ABI);
    for sub in ["", "prog", "links"] {
        let path = dir.join(sub);
        fs::create_dir_all(&path).map_err(|error| LoadError::Pin { path, error })?;
    }
    let adopted = dir.join("connections").exists();
    let mut loader = EbpfLoader::new();
    for name in PINNED {
        loader.map_pin_path(name, dir.join(name));
    }
    for (name, times) in [("connections", 1), ("legs", 4)] {
        loader.map_max_entries(name, config.connections * times);
    }
    loader.map_max_entries("events", config.ring_bytes);
    let mut object = loader.load(OBJECT)?;
    verify(&mut object)?;
    let egress = program(&mut object, &dir, Hook::Egress)?;
    let ingress = program(&mut object, &dir, Hook::Ingress)?;
    let maps = Maps {
        control: array(&mut object, "control")?.into(),
        config: array(&mut object, "config")?.into(),
        filter: take(&mut object, "filter").and_then(|m| Filter::new(m).map_err(wrong("filter")))?,
        services: table(&mut object, "services")?,
        routes: table(&mut object, "routes")?,
        connections: table(&mut object, "connections")?,
        legs: table(&mut object, "legs")?,
        handshakes: table(&mut object, "handshakes")?,
        dials: table(&mut object, "dials")?,
        heads: table(&mut object, "heads")?,
        names: table(&mut object, "names")?,
        pods: pods(&dir.join(pod::MAP))?,
        counters: take(&mut object, "counters").and_then(|m| Counters::new(m).map_err(wrong("counters")))?,
    };
    let events = take(&mut object, "events").and_then(|m| RingBuf::try_from(m).map_err(wrong("events")))?;
    Ok(Kernel { dir, egress, ingress, maps, events, adopted })
}

fn wrong(name: &'static str) -> impl FnOnce(MapError) -> LoadError {
    move |error| LoadError::Map { name, error }
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    object.take_map(name).ok_or(LoadError::Map { name, error: MapError::KeyNotFound })
}

fn table<K, V>(object: &mut Ebpf, name: &'static str) -> Result<Table<K, V>, LoadError>
where
    K: crate::state::maps::Record,
    V: crate::state::maps::Record,
{
    Table::new(take(object, name)?).map_err(wrong(name))
}

fn array<V: crate::state::maps::Record>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<Array<MapData, Wire<V>>, LoadError> {
    Array::try_from(take(object, name)?).map_err(wrong(name))
}

/// Loads the programs side by side: the verifier takes most of an agent's start, and held requests wait for it.
fn verify(object: &mut Ebpf) -> Result<(), LoadError> {
    std::thread::scope(|scope| {
        let loads: Vec<_> = object
            .programs_mut()
            .filter_map(|(name, program)| Some((Hook::ALL.into_iter().find(|hook| hook.program() == name)?, program)))
            .map(|(hook, program)| {
                scope.spawn(move || {
                    let failed = |error| LoadError::Program { name: hook.program(), error };
                    let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
                    program.load().map_err(failed)
                })
            })
            .collect();
        loads.into_iter().try_for_each(|load| load.join().expect("loading a program does not panic"))
    })
}

/// Pins one loaded program in place of the one before.
fn program(object: &mut Ebpf, dir: &Path, hook: Hook) -> Result<SchedClassifier, LoadError> {
    let name = hook.program();
    let failed = |error| LoadError::Program { name, error };
    let program: &mut SchedClassifier =
        object.program_mut(name).ok_or_else(|| failed(ProgramError::NotLoaded))?.try_into().map_err(failed)?;
    let path = dir.join("prog").join(hook.name());
    let fresh = dir.join("prog").join(format!("{}_new", hook.name()));
    let pin = |error| LoadError::Pin { path: path.clone(), error };
    // A pin cannot be overwritten, but renamed over; bpffs keeps names with a dot for itself.
    _ = fs::remove_file(&fresh);
    program.pin(&fresh).map_err(|e| pin(pin_error(e)))?;
    fs::rename(&fresh, &path).map_err(pin)?;
    SchedClassifier::from_pin(&path).map_err(failed)
}

fn pin_error(error: PinError) -> io::Error {
    match error {
        PinError::SyscallError(e) => e.io_error,
        other => io::Error::other(other.to_string()),
    }
}

/// Map `pods`: no program knows it, so it is made here.
fn pods(path: &Path) -> Result<Table<PodKey, PodRecord>, LoadError> {
    let failed = |error| LoadError::Pin { path: path.to_owned(), error };
    if !path.exists() {
        let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as u64,
            map_flags: libbpf_rs::libbpf_sys::BPF_F_NO_PREALLOC,
            ..Default::default()
        };
        let (key, value) = (size_of::<PodKey>() as u32, size_of::<PodRecord>() as u32);
        let mut map = MapHandle::create(MapType::Hash, Some(pod::MAP), key, value, pod::ROOM, &options)
            .map_err(|e| failed(io::Error::other(e)))?;
        map.pin(path).map_err(|e| failed(io::Error::other(e)))?;
    }
    let map = MapData::from_pin(path).map_err(wrong(pod::MAP))?;
    Table::new(Map::HashMap(map)).map_err(wrong(pod::MAP))
}
