//! Removing everything: programs, links, maps, pins, in every namespace.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{attach, owner::Owner, qdisc::Made};
use crate::{pods::Netns, state::pins};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Links, so interfaces' hooks.
    pub links: usize,
    /// Maps and programs.
    pub pins: usize,
    /// Namespaces that were looked into for filters.
    pub namespaces: usize,
}

/// Removes what any version has pinned below `pin_dir`, and the filters of those programs in the namespaces of `netns_dirs`, with the
/// clsact qdiscs that were made for them and have nothing else on them. Where nothing is pinned, filters whose agent is gone are
/// what somebody has left who took the pins away by hand; another directory's stay while its agent lives. The
/// caller makes sure that no agent works with the directory: see [`super::Lock::all`].
pub fn purge(pin_dir: &Path, netns_dirs: &[PathBuf]) -> io::Result<Purged> {
    let mut purged = Purged::default();
    let versions = pins::versions(pin_dir).unwrap_or_default();
    let dirs: Vec<_> = versions.iter().map(|version| pins::directory(pin_dir, version.abi)).collect();
    let owner = Owner::of(dirs.iter().map(PathBuf::as_path)).unless_nothing_is_pinned(Owner::gone);
    let made: Vec<_> = dirs.iter().map(|dir| Made::below(dir)).collect();
    purged.namespaces = clean(netns_dirs, &made, &owner);
    if dirs.is_empty() {
        return Ok(purged);
    }
    for dir in &dirs {
        pinned(dir, &mut purged)?;
    }
    // Another's pins below a directory that was named by hand stay.
    _ = fs::remove_dir(pin_dir);
    Ok(purged)
}

/// The same of one version alone.
pub fn version(dir: &Path, netns_dirs: &[PathBuf]) -> io::Result<Purged> {
    let namespaces = clean(netns_dirs, &[Made::below(dir)], &Owner::of([dir]));
    let mut purged = Purged { namespaces, ..Purged::default() };
    pinned(dir, &mut purged)?;
    Ok(purged)
}

/// Removes the owner's filters. Returns how many namespaces were looked into.
fn clean(netns_dirs: &[PathBuf], made: &[Made], owner: &Owner) -> usize {
    let entries = netns_dirs.iter().filter_map(|d| fs::read_dir(d).ok()).flatten().flatten();
    let cleaned =
        |entry: &fs::DirEntry| Netns::open(&entry.path()).is_ok_and(|netns| attach::clean(&netns, made, owner).is_ok());
    entries.filter(cleaned).count()
}

/// Removes what one version has pinned.
fn pinned(dir: &Path, purged: &mut Purged) -> io::Result<()> {
    // Links first: when they are gone, no program runs any more.
    purged.links += empty(&dir.join("links"), true)?;
    purged.pins += empty(&dir.join("prog"), false)?;
    empty(Made::below(dir).dir(), false)?;
    purged.pins += empty(dir, false)?;
    fs::remove_dir(dir)
}

/// Removes the files of a directory (`links`: after detaching them), and directories that are empty by then.
fn empty(dir: &Path, links: bool) -> io::Result<usize> {
    let mut removed = 0;
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        } else {
            if links {
                attach::unlink(&entry.path());
            } else {
                fs::remove_file(entry.path())?;
            }
            removed += 1;
        }
    }
    Ok(removed)
}
