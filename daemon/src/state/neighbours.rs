//! Which other programs sit on a pod's interface, and in which order packets meet them.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use libbpf_rs::{libbpf_sys, query::ProgInfoIter};
use serde::Serialize;

use crate::{pods::Netns, tc};

/// A program or filter on a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// `tcx` or `clsact`. All of tcx comes before all of clsact.
    pub by: &'static str,
    /// Its number in the kernel; `None` for a filter that is no BPF program.
    pub id: Option<u32>,
    /// Its name, or the filter's kind.
    pub name: String,
    /// Whether it is Sidetrack's.
    pub ours: bool,
}

/// What sits on both hooks, in the order in which packets meet it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hooks {
    /// Towards the network.
    pub egress: Vec<Neighbour>,
    /// From the network.
    pub ingress: Vec<Neighbour>,
}

/// What was found on one hook, before it has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Tcx(u32),
    Filter { id: Option<u32>, name: String },
}

/// Names of all programs in the kernel, and which are ours.
#[derive(Debug, Default)]
pub struct Known {
    names: HashMap<u32, String>,
    ours: Vec<u32>,
}

impl Known {
    /// Asks the kernel for all names.
    #[must_use]
    pub fn read(ours: Vec<u32>) -> Self {
        let names = ProgInfoIter::default().map(|info| (info.id, info.name.to_string_lossy().into_owned())).collect();
        Self { names, ours }
    }

    fn name(&self, found: Found) -> Neighbour {
        let (by, id, given) = match found {
            Found::Tcx(id) => ("tcx", Some(id), String::new()),
            Found::Filter { id, name } => ("clsact", id, name),
        };
        let known = id.and_then(|id| self.names.get(&id)).filter(|name| !name.is_empty());
        let name = known.cloned().unwrap_or(if given.is_empty() { "(no name)".into() } else { given });
        Neighbour { by, id, name, ours: id.is_some_and(|id| self.ours.contains(&id)) }
    }
}

/// Looks at a pod's interface. `Err` says why it could not be seen, in words for a person.
pub fn look(known: &Known, directories: &[PathBuf], name: &str, inode: u64, ifindex: u32) -> Result<Hooks, String> {
    let netns = find(directories, name, inode)?;
    let found = netns.run(|| Ok([hook(ifindex, false)?, hook(ifindex, true)?])).map_err(|error| error.to_string())?;
    let [egress, ingress] = found.map_err(|error: io::Error| format!("the kernel does not say: {error}"))?;
    let named = |found: Vec<Found>| found.into_iter().map(|one| known.name(one)).collect();
    Ok(Hooks { egress: named(egress), ingress: named(ingress) })
}

fn find(directories: &[PathBuf], name: &str, inode: u64) -> Result<Netns, String> {
    let open = |directory: &PathBuf| Netns::open(&directory.join(name)).ok().filter(|netns| netns.id().ino == inode);
    directories.iter().find_map(open).ok_or_else(|| {
        let shown: Vec<_> = directories.iter().map(|d: &PathBuf| Path::display(d).to_string()).collect();
        format!("its namespace is not in {}", shown.join(", "))
    })
}

/// Everything on one hook of an interface in the current namespace.
fn hook(ifindex: u32, ingress: bool) -> io::Result<Vec<Found>> {
    let mut found: Vec<_> = tcx(ifindex, ingress)?.into_iter().map(Found::Tcx).collect();
    let filters = tc::filters(ifindex, ingress)?;
    found.extend(filters.into_iter().map(|filter| Found::Filter { id: filter.id, name: filter.name }));
    Ok(found)
}

/// How many programs fit on a tcx hook (`BPF_MPROG_MAX`).
const TCX_MAX: usize = 64;

/// Numbers of the programs on a tcx hook, in their order; none where the kernel has no tcx.
fn tcx(ifindex: u32, ingress: bool) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; TCX_MAX];
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = TCX_MAX as u32;
    let hook = if ingress { libbpf_sys::BPF_TCX_INGRESS } else { libbpf_sys::BPF_TCX_EGRESS };
    let target = i32::try_from(ifindex).map_err(io::Error::other)?;
    // SAFETY: `options` says its own size; `prog_ids` points to `count` numbers that live until the call returns.
    let result = unsafe { libbpf_sys::bpf_prog_query_opts(target, hook, &raw mut options) };
    match -result {
        0 => {
            // SAFETY: both names of the union are the same number, which the kernel has written.
            let count = unsafe { options.__bindgen_anon_1.count } as usize;
            Ok(ids[..count.min(TCX_MAX)].to_vec())
        }
        // Kernels before 6.6 do not know the hook.
        libc::EINVAL => Ok(Vec::new()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_has_the_kernels_name_or_the_filters_own() {
        let known =
            Known { names: HashMap::from([(7, "cil_from_ctr".into()), (8, "sd_egress".into())]), ours: vec![8] };
        let named = |found| known.name(found);
        assert_eq!(named(Found::Tcx(8)), Neighbour { by: "tcx", id: Some(8), name: "sd_egress".into(), ours: true });
        assert_eq!(
            named(Found::Filter { id: Some(7), name: "a.o:[tc]".into() }),
            Neighbour { by: "clsact", id: Some(7), name: "cil_from_ctr".into(), ours: false }
        );
        assert_eq!(named(Found::Filter { id: None, name: "flower".into() }).name, "flower");
        assert_eq!(named(Found::Tcx(99)).name, "(no name)");
    }

    #[test]
    fn a_namespace_that_is_not_there_is_said_and_no_error() {
        let why = look(&Known::default(), &["/nonexistent".into()], "pod", 1, 2).expect_err("not there");
        assert_eq!(why, "its namespace is not in /nonexistent");
    }
}
