//! Follows a file as it changes.
//!
//! Its directory is watched, not the file: editors and Kubernetes put another file in its place. A mounted `ConfigMap` is
//! two links (`routes.yaml -> ..data/routes.yaml`, `..data -> ..2026_11_23`) of which the second is renamed over, so each
//! link on the way is watched too.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use sidetrack_splice::table::RouteTable;
use tokio::{
    io::unix::AsyncFd,
    sync::watch as channel,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{DocumentError, Meant, Routes, SourceError, file};
use crate::document;

/// How long it must be quiet before the file is read: an editor writes, renames and removes within a few milliseconds.
const QUIET: Duration = Duration::from_millis(50);
/// After this time it is read, quiet or not.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// The file is read this often without any sign, for file systems that give none (NFS, some overlays).
const REREAD: Duration = Duration::from_secs(30);
/// The same while its directory cannot be watched.
const REREAD_UNWATCHED: Duration = Duration::from_secs(1);
/// Links that are followed, as many as the kernel does.
const LINKS_MAX: usize = 40;

pub(super) fn start(path: PathBuf, stop: CancellationToken) -> Result<Routes, SourceError> {
    let path = std::path::absolute(&path).unwrap_or(path);
    let watches = Watches::new(&path).map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => "make the directory first",
            io::ErrorKind::StorageFull => "raise the sysctl fs.inotify.max_user_watches",
            _ if source.raw_os_error() == Some(libc::EMFILE) => "raise the sysctl fs.inotify.max_user_instances",
            _ => "check that it is a directory and that this user may read it",
        };
        SourceError::Watch { path: path.clone(), source, hint }
    })?;
    let mut file = File { path, text: None, unreadable: None };
    let (first, first_error) = match file.read() {
        Some(Ok(table)) => (Some(Arc::new(Meant { table, ..Meant::default() })), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let (sender, meant) = channel::channel(first);
    Ok(Routes { meant, first_error, task: tokio::spawn(follow(file, watches, sender, stop)) })
}

async fn follow(
    mut file: File,
    watches: Watches,
    sender: channel::Sender<Option<Arc<Meant>>>,
    stop: CancellationToken,
) {
    let mut watches = Some(watches);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(if watches.is_some() { REREAD } else { REREAD_UNWATCHED }) => {}
            () = changed(watches.as_mut()) => settle(watches.as_mut()).await,
        }
        // Watch first, read then: what changes in between is seen. The links may lead elsewhere than before.
        let anew = Watches::new(&file.path);
        if let (Err(error), true) = (&anew, watches.is_some()) {
            tracing::warn!(file = %file.path.display(), %error, "the directory of the route table cannot be watched: \
                looking every second until it can; the last valid table stays in force");
        }
        watches = anew.ok();
        let Ok((back, read)) = tokio::task::spawn_blocking(move || {
            let read = file.read();
            (file, read)
        })
        .await
        else {
            return; // the runtime ends
        };
        file = back;
        match read {
            None => {}
            Some(Ok(table)) => {
                let (services, routes) = (table.services().len(), table.routes());
                let taken = sender.send_if_modified(|current| {
                    let differs = current.as_ref().is_none_or(|current| current.table != table);
                    if differs {
                        *current = Some(Arc::new(Meant { table, ..Meant::default() }));
                    }
                    differs
                });
                if taken {
                    tracing::info!(file = %file.path.display(), services, routes, "route table read");
                }
            }
            Some(Err(error)) => {
                tracing::error!("route table not taken, the last valid one stays in force\n{error}");
            }
        }
    }
}

/// Waits until it is quiet.
async fn settle(mut watches: Option<&mut Watches>) {
    let end = Instant::now() + QUIET_MAX;
    while Instant::now() < end && timeout(QUIET, changed(watches.as_deref_mut())).await.is_ok() {}
}

/// Waits for a sign that the file has changed.
async fn changed(watches: Option<&mut Watches>) {
    match watches {
        Some(watches) => watches.changed().await,
        None => std::future::pending().await,
    }
}

/// The file, and what it held when it was last read.
#[derive(Debug)]
struct File {
    path: PathBuf,
    text: Option<String>,
    /// Why it could not be read the last time, so that each reason is said once.
    unreadable: Option<String>,
}

impl File {
    /// What the file says, if it is not what it said before.
    fn read(&mut self) -> Option<Result<RouteTable, DocumentError>> {
        match document::read(&self.path, file::KIND) {
            Ok(text) => {
                self.unreadable = None;
                if self.text.as_ref() == Some(&text) {
                    return None;
                }
                let table = file::parse(&text);
                self.text = Some(text);
                Some(table.map_err(|mistakes| DocumentError::Invalid { path: self.path.clone(), mistakes }))
            }
            Err(error) => {
                let why = error.to_string();
                let news = self.unreadable.as_ref() != Some(&why);
                self.unreadable = Some(why);
                news.then_some(Err(error))
            }
        }
    }
}

/// An inotify instance as tokio wants it.
#[derive(Debug)]
struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The directories on the way to the file, and the names in them that matter.
#[derive(Debug)]
struct Watches {
    fd: AsyncFd<Fd>,
    names: HashMap<WatchDescriptor, Vec<OsString>>,
}

impl Watches {
    fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut names: HashMap<_, Vec<_>> = HashMap::new();
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        for (n, (directory, name)) in way(path).into_iter().enumerate() {
            match inotify.add_watch(&directory, flags) {
                Ok(watch) => names.entry(watch).or_default().push(name),
                // A link may lead to nowhere for a moment; the directory of the file itself must be there.
                Err(error) if n == 0 => return Err(error.into()),
                Err(_) => {}
            }
        }
        // SAFETY: the descriptor belongs to the `Inotify` inside, which is neither replaced nor closed before the
        // `AsyncFd` that owns it is dropped.
        let fd = unsafe { AsyncFd::register(Fd(inotify)) }?;
        Ok(Self { fd, names })
    }

    async fn changed(&mut self) {
        loop {
            let Ok(mut ready) = self.fd.readable().await else { return };
            let events = self.fd.get_ref().0.read_events();
            match events {
                Ok(events) => {
                    let matters = |name: &OsStr, watch| {
                        self.names.get(&watch).is_some_and(|names: &Vec<OsString>| names.iter().any(|n| n == name))
                    };
                    // Events without a name concern the directory itself, or say that some were lost.
                    if events.iter().any(|e| e.name.as_deref().is_none_or(|name| matters(name, e.wd))) {
                        return;
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                Err(_) => return,
            }
        }
    }
}

/// Each name that is looked up on the way to a file, with its directory: the file's own, and those that links lead over.
fn way(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut way = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { break };
        way.push((directory.to_owned(), name.to_owned()));
        let Ok(target) = std::fs::read_link(&path) else { break };
        let mut at = directory.to_owned();
        if target.is_relative()
            && let Some(parents) = target.parent()
        {
            for component in parents.components() {
                way.push((at.clone(), component.as_os_str().to_owned()));
                at.push(component);
            }
        }
        path = directory.join(target);
    }
    way
}

#[cfg(test)]
mod tests;
