//! Where the records are.

use std::{
    io,
    path::{Path, PathBuf},
};

use sidetrack_splice::abi::{ABI, control::Control};

use super::{StateError, maps};

/// The records of one version below a pin directory.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// The number in the directory's name.
    pub abi: u32,
    /// What its `control` map says; `None` if there is none that can be read.
    pub control: Option<Control>,
}

/// The records that this binary can read.
#[derive(Clone, Debug)]
pub struct Pins {
    /// The pin directory.
    pub base: PathBuf,
    /// The directory of this version's records in it.
    pub dir: PathBuf,
    /// Records of other versions beside them: an agent that is being replaced, or was.
    pub others: Vec<Version>,
}

impl Pins {
    /// Finds the records below a pin directory.
    pub fn open(base: &Path) -> Result<Self, StateError> {
        let mut found = versions(base)?;
        let dir = directory(base, ABI);
        let ours = found.iter().position(|version| version.abi == ABI).map(|at| found.remove(at));
        match ours {
            Some(Version { control: Some(_), .. }) => Ok(Self { base: base.to_owned(), dir, others: found }),
            Some(_) => Err(StateError::Missing(dir.join("control"))),
            None if found.is_empty() => Err(StateError::NoPins(base.to_owned())),
            None => Err(StateError::OtherAbi { base: base.display().to_string(), found, ours: ABI }),
        }
    }

    /// The pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The pin of a program, `egress` or `ingress`.
    #[must_use]
    pub fn program(&self, hook: &str) -> PathBuf {
        self.dir.join("prog").join(hook)
    }

    /// Links that are pinned, as (inode of the namespace, interface index, hook). Names that no agent makes are left out.
    #[must_use]
    pub fn links(&self) -> Vec<(u64, u32, String)> {
        let Ok(entries) = std::fs::read_dir(self.dir.join("links")) else { return Vec::new() };
        let mut links: Vec<_> = entries.flatten().filter_map(|entry| link(entry.file_name().to_str()?)).collect();
        links.sort();
        links
    }
}

/// The directory of a version's records.
#[must_use]
pub fn directory(base: &Path, abi: u32) -> PathBuf {
    base.join(format!("v{abi}"))
}

/// What a link's pin name says.
fn link(name: &str) -> Option<(u64, u32, String)> {
    let mut parts = name.splitn(3, '-');
    let (netns, ifindex, hook) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
    matches!(hook, "egress" | "ingress").then(|| (netns, ifindex, hook.to_owned()))
}

/// All versions whose records are pinned, lowest first. Map `control` has one layout in all of them.
pub fn versions(base: &Path) -> Result<Vec<Version>, StateError> {
    let entries = match std::fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(StateError::NoPins(base.to_owned()));
        }
        Err(source) => return Err(StateError::Denied { path: base.to_owned(), source }),
    };
    let mut versions = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(abi) = name.to_str().and_then(|name| name.strip_prefix('v')).and_then(|n| n.parse().ok()) else {
            continue;
        };
        let control = match maps::single(&entry.path().join("control")) {
            Ok(control) => Some(control),
            Err(error @ StateError::Denied { .. }) => return Err(error),
            Err(_) => None,
        };
        versions.push(Version { abi, control });
    }
    versions.sort_by_key(|version| version.abi);
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_says_that_no_agent_has_run() {
        let error = Pins::open(Path::new("/nonexistent/pins")).expect_err("not there");
        assert!(error.to_string().starts_with("no agent has run with this pin directory: /nonexistent/pins"));
    }

    #[test]
    fn an_empty_directory_says_that_no_agent_has_run() {
        let base = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(base.path().join("venus")).expect("made");
        assert!(matches!(Pins::open(base.path()), Err(StateError::NoPins(_))));
    }

    #[test]
    fn records_of_another_version_are_named() {
        let base = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory(base.path(), ABI + 1)).expect("made");
        let error = Pins::open(base.path()).expect_err("not readable");
        assert!(
            error.to_string().contains(&format!("have ABI {}; this sidetrack reads ABI {ABI}", ABI + 1)),
            "{error}"
        );
    }

    #[test]
    fn a_version_without_control_was_left_half_made() {
        let base = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory(base.path(), ABI)).expect("made");
        assert!(matches!(Pins::open(base.path()), Err(StateError::Missing(_))));
    }

    #[test]
    fn names_of_links_are_read() {
        assert_eq!(link("4026532123-2-egress"), Some((4_026_532_123, 2, "egress".into())));
        assert_eq!(link("4026532123-2-sideways"), None);
        assert_eq!(link("x-2-egress"), None);
    }
}
