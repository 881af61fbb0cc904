//! Which names lead to which namespaces, read from the directories as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    libc,
    sys::statfs::{NSFS_MAGIC, statfs},
};

use super::netns::{NetnsId, id_of, open_name};

/// What lies in the directories.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Each network namespace with all its names.
    pub namespaces: BTreeMap<NetnsId, Vec<PathBuf>>,
    /// Files that lead to none (yet: the mount comes after the file), and why.
    pub others: BTreeMap<PathBuf, String>,
}

impl Scan {
    /// Reads the directories. One that is missing is empty. `known` need not be opened to know that they are network
    /// namespaces, and not of another kind.
    pub fn read(directories: &[PathBuf], known: &BTreeSet<NetnsId>) -> Self {
        let mut it = Self::default();
        for entry in directories.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
            let path = entry.path();
            match name(&path, known) {
                Ok(Some(id)) => it.namespaces.entry(id).or_default().push(path),
                Ok(None) => {}
                // The name went while it was looked at.
                Err(why) if why.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {}
                Err(why) => {
                    it.others.insert(path, why.to_string());
                }
            }
        }
        // A directory given twice, or by two paths, gives each name once for each path.
        for names in it.namespaces.values_mut() {
            names.sort_unstable();
            names.dedup();
        }
        it
    }
}

/// The namespace that a name leads to; none for a directory.
fn name(path: &Path, known: &BTreeSet<NetnsId>) -> io::Result<Option<NetnsId>> {
    let meta = fs::metadata(path)?;
    if meta.is_dir() {
        return Ok(None);
    }
    let id = NetnsId { dev: meta.dev(), ino: meta.ino() };
    if known.contains(&id) {
        return Ok(Some(id));
    }
    if statfs(path)?.filesystem_type() != NSFS_MAGIC {
        return Err(io::Error::other(
            "a plain file, nothing is mounted on it; if the agent runs in a container, mount this directory with \
             `mountPropagation: HostToContainer`",
        ));
    }
    let file = open_name(path)?;
    if kind(&file)? != libc::CLONE_NEWNET {
        return Err(io::Error::other("a namespace of another kind"));
    }
    id_of(&file).map(Some)
}

/// The `CLONE_NEW` constant of a namespace.
fn kind(file: &File) -> io::Result<libc::c_int> {
    nix::ioctl_none!(ns_get_nstype, 0xb7, 3);
    // SAFETY: NS_GET_NSTYPE takes no argument, and the descriptor is open while `file` is borrowed.
    Ok(unsafe { ns_get_nstype(std::os::fd::AsRawFd::as_raw_fd(file)) }?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::Lab;

    #[test]
    fn one_namespace_under_two_names_is_one() {
        let lab = Lab::new();
        lab.add("a");
        lab.add("b");
        lab.alias("a", "z");
        let dirs = [lab.dir().to_owned(), lab.dir().join("missing"), lab.dir().to_owned()];
        let it = Scan::read(&dirs, &BTreeSet::new());
        assert_eq!(it.namespaces.len(), 2);
        assert!(it.namespaces.values().any(|names| *names == [lab.path("a"), lab.path("z")]));
        assert!(it.others.is_empty());
        let known = it.namespaces.keys().copied().collect();
        assert_eq!(Scan::read(&dirs, &known), it);
    }

    #[test]
    fn what_is_no_network_namespace_is_said() {
        let lab = Lab::new();
        for name in ["plain", "uts"] {
            File::create(lab.path(name)).expect("a tmpfs of one's own");
        }
        fs::create_dir(lab.path("directory")).expect("a tmpfs of one's own");
        std::os::unix::fs::symlink("/nonexistent", lab.path("dangling")).expect("a tmpfs of one's own");
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some("/proc/self/ns/uts"), &lab.path("uts"), None::<&str>, flags, None::<&str>)
            .expect("root may mount");
        let it = Scan::read(&[lab.dir().to_owned()], &BTreeSet::new());
        assert!(it.namespaces.is_empty());
        let names: Vec<_> = it.others.keys().filter_map(|p| p.file_name()?.to_str()).collect();
        assert_eq!(names, ["dangling", "plain", "uts"]);
        assert!(it.others[&lab.path("plain")].contains("HostToContainer"));
        assert!(it.others[&lab.path("uts")].contains("another kind"));
    }
}
