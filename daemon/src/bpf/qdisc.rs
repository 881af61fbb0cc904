//! Which clsact qdiscs Sidetrack has made: those it may remove.
//!
//! The kernel does not say who made one, and every one has the same handle. So there is a note for each beside the pins, an
//! empty directory `clsact/<netns>-<ifindex>`: it outlives the agent, and goes when the machine starts anew, as qdiscs do.
//! Without a note the qdisc is somebody else's and stays.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The notes of one version.
#[derive(Clone, Debug)]
pub struct Made(PathBuf);

impl Made {
    /// Those of a version's directory.
    #[must_use]
    pub fn below(dir: &Path) -> Self {
        Self(dir.join("clsact"))
    }

    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0
    }

    fn path(&self, netns: u64, ifindex: u32) -> PathBuf {
        self.0.join(format!("{netns}-{ifindex}"))
    }

    /// Notes that the interface's qdisc was made. Where that fails, the qdisc is left behind one day.
    pub fn note(&self, netns: u64, ifindex: u32) {
        let path = self.path(netns, ifindex);
        if let Err(error) = fs::create_dir_all(&path) {
            tracing::debug!(path = %path.display(), %error, "not noted: `sidetrack purge` will leave a clsact qdisc behind");
        }
    }

    /// Whether the interface's qdisc was made.
    #[must_use]
    pub fn has(&self, netns: u64, ifindex: u32) -> bool {
        self.path(netns, ifindex).is_dir()
    }

    /// The interface's qdisc is not, or no longer, the one that was made.
    pub fn forget(&self, netns: u64, ifindex: u32) {
        _ = fs::remove_dir(self.path(netns, ifindex));
    }

    /// Forgets all of namespaces that are not `alive`.
    pub fn retain(&self, alive: impl Fn(u64) -> bool) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let netns = name.to_str().and_then(|n| n.split('-').next()).and_then(|n| n.parse().ok());
            if !netns.is_some_and(&alive) {
                _ = fs::remove_dir(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_kept_until_its_interface_or_its_namespace_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = Made::below(directory.path());
        assert!(!made.has(7, 2));
        made.retain(|_| false); // nothing there, nothing wrong
        for (netns, ifindex) in [(7, 2), (7, 3), (8, 2)] {
            made.note(netns, ifindex);
            made.note(netns, ifindex);
        }
        let again = Made::below(directory.path());
        assert!(again.has(7, 2) && again.has(7, 3) && again.has(8, 2) && !again.has(8, 3));
        again.forget(7, 3);
        again.retain(|netns| netns == 7);
        assert!(made.has(7, 2) && !made.has(7, 3) && !made.has(8, 2));
    }
}
