//! Attaching the programs to a pod's interface: tcx links where the kernel has them (6.6), else filters of a clsact qdisc.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};

use sidetrack_splice::abi::ABI;

use super::{Hook, load::Kernel, owner::Owner, qdisc::Made};
use crate::{
    pods::{Netns, NetnsError, NetnsId, Pod},
    tc,
};

/// Priority and handle of the clsact filters: fixed for an ABI, so that a successor finds its predecessor's, and one with another ABI
/// leaves them.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = handle(ABI);

/// The handle of an ABI's filters, below 256.
const fn handle(abi: u32) -> TcHandle {
    TcHandle::new(0, (HANDLES | abi & 0xff) as u16)
}

/// What the handles of all ABIs begin with.
const HANDLES: u32 = 0x5100;

/// How a pod's programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// tcx links, first in order.
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

/// Why a pod's interface refuses the programs.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel refuses.
    #[error(
        "{hook} of {interface}: {error}; it takes CAP_NET_ADMIN and CAP_BPF, and Linux 6.6 (tcx) or the sch_ingress and cls_bpf modules"
    )]
    Kernel {
        /// The hook.
        hook: &'static str,
        /// The interface.
        interface: String,
        /// The kernel's answer.
        error: ProgramError,
    },
    /// The link cannot be pinned.
    #[error("cannot pin {path}: {why}; check the pin directory")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}

/// Attaches the programs, adopts what an earlier agent attached, detaches.
#[derive(Debug)]
pub struct Attacher {
    dir: PathBuf,
    links: PathBuf,
    made: Made,
    programs: Mutex<[SchedClassifier; 2]>,
    clsact_only: bool,
}

impl Attacher {
    /// For the programs of a loaded kernel side. `clsact_only` does as if the kernel had no tcx.
    #[must_use]
    pub fn new(dir: &Path, egress: SchedClassifier, ingress: SchedClassifier, clsact_only: bool) -> Self {
        let programs = Mutex::new([ingress, egress]);
        Self { dir: dir.to_owned(), links: dir.join("links"), made: Made::below(dir), programs, clsact_only }
    }

    fn pin(&self, id: NetnsId, ifindex: u32, hook: Hook) -> PathBuf {
        self.links.join(format!("{}-{ifindex}-{}", id.ino, hook.name()))
    }

    /// Attaches both programs to the pod's interface, or puts them into the links that are pinned for it.
    pub fn attach(&self, pod: &Pod) -> Result<Mode, AttachError> {
        let mut programs = self.programs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut mode = Mode::Tcx;
        let mut qdisc = None;
        for (hook, program) in Hook::ALL.into_iter().zip(programs.iter_mut()) {
            let path = self.pin(pod.id(), pod.link.index, hook);
            if Self::adopt(program, &path) {
                continue;
            }
            let found = self.fresh(pod, hook, program, &path)?;
            if let Some(found) = found {
                mode = Mode::Clsact;
                qdisc = qdisc.max(Some(found));
            }
        }
        match qdisc {
            Some(Found::Nothing) => self.made.note(pod.id().ino, pod.link.index),
            // What a note says of an interface that was here before is not true of this one.
            Some(Found::Qdisc) => self.made.forget(pod.id().ino, pod.link.index),
            Some(Found::Filter) | None => {}
        }
        Ok(mode)
    }

    /// Swaps the program of a pinned link, atomically. A link whose interface has gone is removed.
    fn adopt(program: &mut SchedClassifier, path: &Path) -> bool {
        let Ok(pinned) = PinnedLink::from_pin(path) else { return false };
        let swap = || {
            let link = SchedClassifierLink::try_from(FdLink::from(pinned)).ok()?;
            let id = program.attach_to_link(link).ok()?;
            // The pin keeps the link; its descriptor need not stay open.
            FdLink::try_from(program.take_link(id).ok()?).ok()
        };
        let swapped = swap().is_some();
        if !swapped {
            _ = fs::remove_file(path);
        }
        swapped
    }

    /// By a new link, or by a filter: then, what was there before.
    fn fresh(
        &self,
        pod: &Pod,
        hook: Hook,
        program: &mut SchedClassifier,
        path: &Path,
    ) -> Result<Option<Found>, AttachError> {
        let kind = match hook {
            Hook::Egress => TcAttachType::Egress,
            Hook::Ingress => TcAttachType::Ingress,
        };
        let name = pod.link.name.as_str();
        let refused = |error| AttachError::Kernel { hook: hook.name(), interface: name.to_owned(), error };
        if !self.clsact_only {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            match pod.netns.run(|| program.attach_with_options(name, kind, options))? {
                Ok(id) => {
                    let pin = |why: String| AttachError::Pin { path: path.to_owned(), why };
                    let link = program.take_link(id).map_err(refused)?;
                    let link = FdLink::try_from(link).map_err(|e: LinkError| pin(e.to_string()))?;
                    drop(link.pin(path).map_err(|e| pin(e.to_string()))?);
                    return Ok(None);
                }
                // What the kernel before 6.6 answers to a link type that it does not know.
                Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        pod.netns.run(|| filter(program, name, kind))?.map(Some).map_err(refused)
    }

    /// Takes the programs off a namespace that still stands, and removes its pins. `None`: the namespace is gone, and the
    /// interface with it.
    pub fn detach(&self, id: NetnsId, pod: Option<&Pod>) {
        if let Some(pod) = pod {
            let made = self.made.has(id.ino, pod.link.index);
            let owner = Owner::of([&*self.dir]);
            _ = pod.netns.run(|| remove_filters(&pod.link.name, pod.link.index, made, &owner));
        }
        self.made.retain(|ino| ino != id.ino);
        let prefix = format!("{}-", id.ino);
        for entry in fs::read_dir(&self.links).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                unlink(&entry.path());
            }
        }
    }

    /// Removes pins of links whose namespace is not among `alive`: their interfaces went while no agent ran.
    pub fn retain(&self, alive: impl Fn(u64) -> bool) {
        for entry in fs::read_dir(&self.links).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let netns = name.to_str().and_then(|n| n.split('-').next()).and_then(|n| n.parse().ok());
            if !netns.is_some_and(&alive) {
                _ = fs::remove_file(entry.path());
            }
        }
        self.made.retain(alive);
    }
}

/// Detaches a pinned link and removes its pin. Removing the pin alone detaches it too, but some time later: the kernel
/// leaves that to a work queue.
pub(super) fn unlink(path: &Path) {
    if let Ok(link) = libbpf_rs::Link::open(path) {
        _ = link.detach();
    }
    _ = fs::remove_file(path);
}

/// What was on an interface before a filter was attached. Of both hooks the last in this order counts: the second one finds
/// the qdisc that was made for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// A clsact qdisc without a filter of ours on this hook: somebody else's.
    Qdisc,
    /// A filter that an earlier agent left, so in the qdisc that it has made or found.
    Filter,
    /// No clsact qdisc: it was made.
    Nothing,
}

/// Attaches a filter, or replaces the program of the one that an earlier agent left. Runs inside the namespace.
fn filter(program: &mut SchedClassifier, name: &str, kind: TcAttachType) -> Result<Found, ProgramError> {
    let mut found = Found::Nothing;
    if let Err(error) = qdisc_add_clsact(name) {
        // Another program's qdisc, or an earlier agent's.
        let there = matches!(&error, TcError::NetlinkError(e) if e.raw_os_error() == Some(libc::EEXIST));
        if !there {
            return Err(error.into());
        }
        found = Found::Qdisc;
    }
    let options = || TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, ..NlOptions::default() });
    let id = if let Ok(id) = program.attach_with_options(name, kind, options()) {
        id
    } else {
        let link = SchedClassifierLink::attached(name, kind, PRIORITY, HANDLE, None).map_err(|io_error| {
            ProgramError::SyscallError(aya::sys::SyscallError { call: "if_nametoindex", io_error })
        })?;
        found = Found::Filter;
        program.attach_to_link(link)?
    };
    // The filter stays when the agent goes.
    std::mem::forget(program.take_link(id)?);
    Ok(found)
}

/// Removes the owner's filters of an interface, and, where Sidetrack has `made` it, the clsact qdisc that they were in, unless
/// something else hangs on it. Runs inside the namespace. That there are none is no error.
fn remove_filters(name: &str, ifindex: u32, made: bool, owner: &Owner) {
    let ours = |f: &tc::Filter| f.preference == u32::from(PRIORITY) && f.handle & !0xff == HANDLES && owner.has(f.id);
    let hanging = || Some([tc::filters(ifindex, true).ok()?, tc::filters(ifindex, false).ok()?].concat());
    // Where nothing of ours is, a note that says otherwise is about an interface that was here before.
    let were_there = hanging().is_some_and(|all| all.iter().any(ours));
    for (kind, ingress) in [(TcAttachType::Egress, false), (TcAttachType::Ingress, true)] {
        for filter in tc::filters(ifindex, ingress).into_iter().flatten().filter(ours) {
            let at = TcHandle::from(filter.handle);
            if let Ok(link) = SchedClassifierLink::attached(name, kind, PRIORITY, at, None) {
                // Dropping it detaches.
                drop(link);
            }
        }
    }
    // The kernel knows no "if it is empty": what somebody attaches between these two steps goes with it.
    if made && were_there && hanging().is_some_and(|all| all.is_empty()) {
        _ = tc::remove_clsact(ifindex);
    }
}

/// Removes the owner's filters of every interface of a namespace, and the qdiscs that were made for them.
pub(super) fn clean(netns: &Netns, made: &[Made], owner: &Owner) -> Result<(), NetnsError> {
    netns.run(|| {
        let interfaces = nix::net::if_::if_nameindex();
        for interface in interfaces.iter().flat_map(|all| all.iter()) {
            let made = made.iter().any(|made| made.has(netns.id().ino, interface.index()));
            remove_filters(&interface.name().to_string_lossy(), interface.index(), made, owner);
        }
    })
}

impl Kernel {
    /// Parts the kernel side: programs go to an attacher.
    #[must_use]
    pub fn into_parts(
        self,
        clsact_only: bool,
    ) -> (Attacher, super::load::Maps, aya::maps::RingBuf<aya::maps::MapData>, bool) {
        (Attacher::new(&self.dir, self.egress, self.ingress, clsact_only), self.maps, self.events, self.adopted)
    }
}
