//! The readers on real maps, real pins and a real interface.

use std::{
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use sidetrack_splice::{
    abi::{
        ABI,
        addr::Tuple,
        control::Control,
        reason::COUNTERS,
        record::{ConnState, Connection, Dial, Handshake, HeadKey, Leg, NameKey, NameText, PHASE_WATCH},
        route::{Route, RouteKey, Service, ServiceAddr},
    },
    table::{self, OnUnreachable, RouteTable, To},
    window::Window,
};
use zerocopy::{Immutable, IntoBytes};

use super::{
    neighbours::{Known, look},
    pod::{MODE_TCX, PodKey, PodRecord},
    snapshot::programmed,
    status::Status,
    *,
};
use crate::{names, pods::testing::Lab};

fn put<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(map: &MapHandle, key: &K, value: &V) {
    map.update(key.as_bytes(), value.as_bytes(), MapFlags::ANY).expect("there is room");
}

fn pinned<K, V>(dir: &Path, kind: MapType, name: &str, room: usize) -> MapHandle {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let (key, value) = (size_of::<K>() as u32, size_of::<V>() as u32);
    let mut map = MapHandle::create(kind, Some(name), key, value, room as u32, &options).expect("root may make maps");
    map.pin(dir.join(name)).expect("a bpffs of one's own");
    map
}

/// The maps of an agent, on a bpffs that nobody else sees: the caller's thread gets a mount namespace of its own.
struct Maps {
    base: tempfile::TempDir,
    connections: MapHandle,
    pods: MapHandle,
}

impl Drop for Maps {
    fn drop(&mut self) {
        // The directory below can be removed only then; a failure leaves it empty.
        _ = umount2(self.base.path(), MntFlags::MNT_DETACH);
    }
}

fn maps() -> Maps {
    assert!(nix::unistd::geteuid().is_root(), "this test makes BPF maps: run it as root");
    unshare(CloneFlags::CLONE_NEWNS).expect("root may unshare");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("root may mount");
    let base = tempfile::tempdir().expect("a directory");
    mount(Some("bpf"), base.path(), Some("bpf"), MsFlags::empty(), None::<&str>).expect("root may mount");
    let dir = pins::directory(base.path(), ABI);
    std::fs::create_dir(&dir).expect("a bpffs of one's own");
    let control = pinned::<u32, Control>(&dir, MapType::Array, "control", 1);
    put(&control, &0_u32, &Control { abi: ABI, heartbeat: now(), pid: 7, ..Control::default() });
    let services = pinned::<ServiceAddr, Service>(&dir, MapType::Hash, "services", 64);
    let routes = pinned::<RouteKey, Route>(&dir, MapType::Hash, "routes", 64);
    let names = pinned::<NameKey, NameText>(&dir, MapType::Hash, "names", 64);
    for op in table::Programmed::default().plan(&a_table()).expect("ids are left").ops {
        match op {
            table::Op::PutService(key, value) => put(&services, &key, &value),
            table::Op::PutRoute(key, value) => put(&routes, &key, &value),
            table::Op::PutName(key, text) => put(&names, &key, &names::encode(&text)),
            other => panic!("a first table deletes nothing: {other:?}"),
        }
    }
    let connections = pinned::<Tuple, Connection>(&dir, MapType::Hash, "connections", 2_000);
    pinned::<Tuple, Leg>(&dir, MapType::Hash, "legs", 64);
    pinned::<Tuple, Handshake>(&dir, MapType::Hash, "handshakes", 64);
    pinned::<Tuple, Dial>(&dir, MapType::Hash, "dials", 64);
    pinned::<HeadKey, Window>(&dir, MapType::Hash, "heads", 2);
    pinned::<u32, u64>(&dir, MapType::PercpuArray, "counters", COUNTERS);
    let pods = pinned::<PodKey, PodRecord>(&dir, MapType::Hash, pod::MAP, pod::ROOM as usize);
    Maps { base, connections, pods }
}

fn a_table() -> RouteTable {
    let endpoints = vec!["10.99.0.12:8080".parse().expect("an address")];
    let routes =
        vec![table::Route { key: "pr-1".into(), to: To::Fork { endpoints, on_unreachable: OnUnreachable::default() } }];
    let addresses = vec!["10.96.0.10:80".parse().expect("an address")];
    RouteTable::new(vec![table::Service { name: "shop/orders".into(), addresses, routes }]).expect("valid")
}

#[test]
fn what_an_agent_has_pinned_is_read_whole() {
    let maps = maps();
    let pins = Pins::open(maps.base.path()).expect("pinned");
    for port in 1..=1_500_u16 {
        let tuple = Tuple::new(([10, 0, 0, 1], port).into(), ([10, 96, 0, 10], 80).into());
        let now = ConnState { phase: PHASE_WATCH, ..ConnState::default() };
        put(&maps.connections, &tuple, &Connection { service: 1, opened: super::now(), now, ..Connection::default() });
    }
    put(&maps.pods, &PodKey::netns(77), &PodRecord::attached(Path::new("/n/p"), 2, "eth0", &[], MODE_TCX, now()));

    let snapshot = Snapshot::flows(&pins).expect("readable");
    let flows = flows::Flows::of(&snapshot, &flows::Filter::default()).items;
    assert_eq!(flows.len(), 1_500);
    assert!(flows.iter().all(|flow| flow.service == "shop/orders"
        && flow.phase == "watch"
        && flow.age_seconds.is_some_and(|age| age < 60.0)));
    let routes = routes::Routes::of(&snapshot).items;
    assert_eq!((routes[0].key.as_str(), routes[0].endpoints.len()), ("pr-1", 1));

    let status = Status::read(&pins, &["/nonexistent".into()]).expect("readable");
    assert!(status.agent.alive);
    assert_eq!(status.items[0].name.as_deref(), Some("p"));
    assert_eq!(status.items[0].hooks_unknown.as_deref(), Some("its namespace is not in /nonexistent"));
    let connections = status.maps.iter().find(|map| map.name == "connections").expect("listed");
    assert_eq!((connections.entries, connections.room), (1_500, 2_000));
    let pods = status.maps.iter().find(|map| map.name == "pods").expect("listed");
    assert_eq!((pods.entries, pods.room), (1, pod::ROOM));
    assert_eq!((status.programs, status.counters), (vec![], vec![]));

    let adopted = programmed(&pins).expect("readable");
    assert_eq!(adopted.plan(&a_table()).expect("ids are left").ops, [], "what is pinned is the table already");
}

#[test]
fn a_map_of_another_size_is_refused_with_a_way_out() {
    let maps = maps();
    let pins = Pins::open(maps.base.path()).expect("pinned");
    std::fs::remove_file(pins.map("legs")).expect("ours");
    let error = Snapshot::flows(&pins).expect_err("a map is missing").to_string();
    assert!(error.contains("legs is not pinned") && error.contains("sidetrack purge"), "{error}");
    pinned::<Tuple, u64>(&pins.dir, MapType::Hash, "legs", 8);
    let error = Snapshot::flows(&pins).expect_err("a map has another size").to_string();
    assert!(error.contains("invalid value size") && error.contains("sidetrack purge"), "{error}");
}

/// A program that passes everything on: `return TC_ACT_UNSPEC`.
fn pass() -> OwnedFd {
    // mov32 r0, -1; exit
    let code = [(0xb4, -1), (0x95, 0)].map(|(code, imm)| libbpf_sys::bpf_insn { code, imm, ..Default::default() });
    // SAFETY: name and licence are C strings, `code` holds as many instructions as said; no options.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            c"bystander".as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr(),
            code.len() as libbpf_sys::size_t,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just given it to us, nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Pins a program where `tc` finds it.
fn pin(lab: &Lab, program: &OwnedFd) -> String {
    let dir = lab.path("bpf");
    std::fs::create_dir(&dir).expect("a tmpfs of one's own");
    mount(Some("bpf"), &dir, Some("bpf"), MsFlags::empty(), None::<&str>).expect("root may mount");
    let path = dir.join("bystander").display().to_string();
    let name = std::ffi::CString::new(path.clone()).expect("no zero in it");
    // SAFETY: `name` is a C string, the descriptor is a program's.
    let result = unsafe { libbpf_sys::bpf_obj_pin(program.as_raw_fd(), name.as_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    path
}

#[test]
fn programs_of_others_on_a_pods_interface_are_seen_in_their_order() {
    let lab = Lab::new();
    let path = lab.add("pod");
    let netns = crate::pods::Netns::open(&path).expect("made by us");
    let program = pass();
    let pin = pin(&lab, &program);
    lab.command("pod", "tc", "qdisc add dev lo clsact");
    lab.command("pod", "tc", &format!("filter add dev lo ingress pref 9 bpf da object-pinned {pin}"));
    lab.command("pod", "tc", &format!("filter add dev lo ingress pref 3 bpf object-pinned {pin}"));
    let attached = netns.run(|| {
        // SAFETY: the descriptor is a program's; no options; interface 1 is `lo`.
        unsafe {
            libbpf_sys::bpf_prog_attach_opts(
                program.as_fd().as_raw_fd(),
                1,
                libbpf_sys::BPF_TCX_INGRESS,
                std::ptr::null(),
            )
        }
    });
    assert_eq!(attached.expect("entered"), 0, "this test needs tcx (Linux 6.6)");
    let see = || look(&Known::read(vec![]), &[lab.dir().to_owned()], "pod", netns.id().ino, 1).expect("seen");
    let names = |found: &[neighbours::Neighbour]| -> Vec<_> {
        found.iter().map(|one| format!("{} {} {}", one.by, one.name, one.id.is_some())).collect()
    };
    let seen = see();
    assert_eq!(names(&seen.ingress), ["tcx bystander true", "clsact bystander true", "clsact bystander true"]);
    assert!(seen.egress.is_empty());
    lab.command("pod", "tc", "qdisc del dev lo clsact");
    assert_eq!(names(&see().ingress), ["tcx bystander true"]);
}
