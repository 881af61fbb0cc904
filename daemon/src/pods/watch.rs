//! Follows the directories of names, and every namespace in them.
//!
//! Word of a change (inotify on the directories, a changed mount table) is only a reason to look again: what counts is
//! what the directories hold. A name's file is made before its mount, and only the mount table tells of the latter.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    follow::{Finding, follow},
    ledger::Ledger,
    netns::{self, Netns, NetnsError, NetnsId},
    pod::{Outcome, PodEvent},
    ready::register,
    scan::Scan,
};
use crate::preflight::explain_inotify;

/// Why directories cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// inotify cannot be used; mostly, a limit is reached.
    #[error("{}", explain_inotify(.0).unwrap_or_else(|| format!("cannot use inotify: {}", .0)))]
    Inotify(#[source] io::Error),
    /// The mount table cannot be followed.
    #[error("cannot follow /proc/self/mountinfo: {0}; mount /proc")]
    Mounts(#[source] io::Error),
    /// The agent's own namespace is unknown.
    #[error(transparent)]
    Own(#[from] NetnsError),
}

/// How long a file may wait for its mount before that is said.
const MOUNT_WITHIN: Duration = Duration::from_secs(5);
/// First wait before a file without its mount is looked at again; it doubles.
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// The directories are read at least this often: nothing tells of a symbolic link's target.
const ANYHOW: Duration = Duration::from_secs(10);
/// Events that wait for a slow reader.
const QUEUE: usize = 256;

/// Watches directories of named namespaces until the receiver is dropped. Directories that do not exist are waited for.
///
/// Must be called inside a tokio runtime.
pub fn watch(directories: Vec<PathBuf>) -> Result<mpsc::Receiver<PodEvent>, WatchError> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
        .map_err(|errno| WatchError::Inotify(errno.into()))?;
    let names = inotify.as_fd().try_clone_to_owned().and_then(|fd| register(fd, Interest::READABLE));
    let names = names.map_err(WatchError::Inotify)?;
    let mounts = File::open("/proc/self/mountinfo")
        .and_then(|file| register(file.into(), Interest::PRIORITY))
        .map_err(WatchError::Mounts)?;
    let mut own = BTreeSet::from([netns::own()?]);
    // The node's, where the agent may see it: a hostNetwork pod's name would lead there.
    own.extend(File::open("/proc/1/ns/net").ok().and_then(|file| netns::id_of(&file).ok()));
    let (tx, rx) = mpsc::channel(QUEUE);
    let (tell, findings) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        directories,
        inotify,
        names,
        mounts,
        armed: HashMap::new(),
        warned: false,
        own,
        followed: BTreeMap::new(),
        awaited: Some(HashSet::new()),
        pending: BTreeMap::new(),
        ledger: Ledger::default(),
        end: CancellationToken::new(),
        tell,
        tx,
    };
    tokio::spawn(watcher.run(findings));
    Ok(rx)
}

/// A namespace in the directories.
struct Followed {
    netns: Netns,
    /// Ends its follower; cancelled already while the follower is ending.
    end: CancellationToken,
    /// There is a task. There is none for the agent's own namespace.
    task: bool,
}

/// A file that is no namespace.
struct Pending {
    since: Instant,
    look: Instant,
    wait: Duration,
    said: bool,
}

struct Watcher {
    directories: Vec<PathBuf>,
    inotify: Inotify,
    /// The same, in epoll.
    names: AsyncFd<OwnedFd>,
    mounts: AsyncFd<OwnedFd>,
    armed: HashMap<PathBuf, WatchDescriptor>,
    /// Of `fs.inotify.max_user_watches`.
    warned: bool,
    own: BTreeSet<NetnsId>,
    followed: BTreeMap<NetnsId, Followed>,
    /// Namespaces of the first scan that have said nothing yet; `None` once [`PodEvent::Listed`] was sent.
    awaited: Option<HashSet<NetnsId>>,
    pending: BTreeMap<PathBuf, Pending>,
    ledger: Ledger,
    end: CancellationToken,
    tell: mpsc::Sender<Finding>,
    tx: mpsc::Sender<PodEvent>,
}

impl Watcher {
    async fn run(mut self, mut findings: mpsc::Receiver<Finding>) {
        // Followers' tokens are children of this one.
        let _end = self.end.clone().drop_guard();
        let mut scan = true;
        let mut first = true;
        loop {
            let mut events = Vec::new();
            if std::mem::take(&mut scan) {
                self.arm();
                events = self.scan(std::mem::take(&mut first));
            }
            let mut closed = self.send(events).await.is_err();
            let next = self.pending.values().filter(|p| !p.said).map(|p| p.look).min();
            let next = next.unwrap_or_else(|| Instant::now() + ANYHOW);
            tokio::select! {
                woken = self.names.readable() => {
                    // The events themselves say nothing that the scan does not see, an overflow least of all.
                    if let Ok(mut guard) = woken {
                        guard.clear_ready();
                    }
                    while self.inotify.read_events().is_ok() {}
                    scan = true;
                }
                woken = self.mounts.ready(Interest::PRIORITY) => {
                    if let Ok(mut guard) = woken {
                        guard.clear_ready();
                    }
                    scan = true;
                }
                Some(finding) = findings.recv() => {
                    let (events, again) = self.found(finding);
                    closed |= self.send(events).await.is_err();
                    scan = again;
                }
                () = sleep_until(next) => scan = true,
                () = self.tx.closed() => closed = true,
            }
            if closed {
                return;
            }
        }
    }

    async fn send(&mut self, events: Vec<PodEvent>) -> Result<(), mpsc::error::SendError<PodEvent>> {
        for event in events {
            self.tx.send(event).await?;
        }
        if self.awaited.as_ref().is_some_and(HashSet::is_empty) {
            self.awaited = None;
            self.tx.send(PodEvent::Listed).await?;
        }
        Ok(())
    }

    /// Watches every directory, or what there is of the way to it.
    fn arm(&mut self) {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut armed = HashMap::new();
        for directory in self.directories.clone() {
            for step in directory.ancestors() {
                // Adding a watch again gives the same one, or that of a directory made anew.
                match self.inotify.add_watch(step, flags) {
                    Ok(watch) => {
                        armed.insert(step.to_owned(), watch);
                        break;
                    }
                    Err(Errno::ENOSPC) => {
                        self.warn_once(step);
                        break;
                    }
                    Err(_) => {}
                }
            }
        }
        let kept: HashSet<_> = armed.values().copied().collect();
        for (_, watch) in self.armed.drain().filter(|(_, watch)| !kept.contains(watch)) {
            // Gone with its directory, mostly.
            let _ = self.inotify.rm_watch(watch);
        }
        self.armed = armed;
    }

    /// The mount table tells of mounts without any watch.
    fn warn_once(&mut self, directory: &Path) {
        if !std::mem::replace(&mut self.warned, true) {
            let why = explain_inotify(&Errno::ENOSPC.into()).unwrap_or_default();
            tracing::warn!(directory = %directory.display(), "{why}; until then a removed name is seen after {ANYHOW:?}");
        }
    }

    fn scan(&mut self, first: bool) -> Vec<PodEvent> {
        let known = self.followed.keys().copied().collect();
        let Scan { namespaces, others } = Scan::read(&self.directories, &known);
        let mut events = Vec::new();
        let lost: Vec<_> = self.followed.keys().filter(|id| !namespaces.contains_key(id)).copied().collect();
        for id in lost {
            if self.followed[&id].task {
                // Its end is said behind everything else that its follower said.
                self.followed[&id].end.cancel();
            } else {
                self.followed.remove(&id);
                events.extend(self.ledger.gone(id));
            }
        }
        for (id, names) in namespaces {
            if let Some(followed) = self.followed.get(&id) {
                followed.netns.set_paths(names);
                continue;
            }
            let (netns, task) = (Netns::new(id, names[0].clone()), !self.own.contains(&id));
            netns.set_paths(names);
            let end = self.end.child_token();
            if task {
                tokio::spawn(follow(netns.clone(), self.tell.clone(), end.clone()));
                if first {
                    self.awaited.get_or_insert_default().insert(id);
                }
            } else {
                events.extend(self.ledger.observe(id, &netns.path(), Err(Outcome::OwnNamespace)));
            }
            self.followed.insert(id, Followed { netns, end, task });
        }
        self.pend(others, &mut events);
        events
    }

    /// Looks at files without a mount again, ever more rarely, and says so in the end.
    fn pend(&mut self, mut others: BTreeMap<PathBuf, String>, events: &mut Vec<PodEvent>) {
        let at = Instant::now();
        self.pending.retain(|path, pending| {
            let there = others.contains_key(path);
            if !there && pending.said {
                events.push(PodEvent::Vanished(path.clone()));
            }
            there
        });
        for (path, pending) in &mut self.pending {
            let why = others.remove(path).unwrap_or_default();
            if pending.said || at < pending.look {
                continue;
            }
            if at - pending.since >= MOUNT_WITHIN {
                pending.said = true;
                events.push(PodEvent::Odd(None, path.clone(), Outcome::NotANamespace(why)));
            }
            pending.wait = (pending.wait * 2).min(MOUNT_WITHIN / 8);
            pending.look = at + pending.wait;
        }
        for path in others.into_keys() {
            self.pending.insert(path, Pending { since: at, look: at + FIRST_LOOK, wait: FIRST_LOOK, said: false });
        }
    }

    /// Returns the events, and whether the directories are to be read again.
    fn found(&mut self, finding: Finding) -> (Vec<PodEvent>, bool) {
        match finding {
            Finding::State(netns, found) => {
                let id = netns.id();
                self.awaited.as_mut().map(|ids| ids.remove(&id));
                (self.ledger.observe(id, &netns.path(), found), false)
            }
            Finding::Ended(id) => {
                self.awaited.as_mut().map(|ids| ids.remove(&id));
                self.followed.remove(&id);
                // The same number may stand there again already, and was passed over while the follower was ending.
                (self.ledger.gone(id), true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::pods::{NextHop, Pod, testing::Lab};

    async fn next(rx: &mut mpsc::Receiver<PodEvent>) -> PodEvent {
        let event = tokio::time::timeout(Duration::from_secs(5), rx.recv()).await;
        event.expect("an event within 5 s").expect("the watcher is alive")
    }

    async fn pod(rx: &mut mpsc::Receiver<PodEvent>) -> Pod {
        match next(rx).await {
            PodEvent::Appeared(pod) | PodEvent::Changed(pod) => pod,
            other => panic!("{other:?}"),
        }
    }

    async fn odd(rx: &mut mpsc::Receiver<PodEvent>) -> Outcome {
        match next(rx).await {
            PodEvent::Odd(_, _, outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_pod_is_followed_from_its_name_to_its_end() {
        let lab = Lab::new();
        let mut rx = watch(vec![lab.dir().to_owned()]).expect("watched");
        assert!(matches!(next(&mut rx).await, PodEvent::Listed));
        lab.add("a");
        assert_eq!(odd(&mut rx).await, Outcome::NoDefaultRoute);
        lab.ip("a", "link add eth0 type veth peer name other");
        lab.ip("a", "link set eth0 up");
        lab.ip("a", "link set other up");
        lab.ip("a", "addr add 10.9.0.2/24 dev eth0");
        lab.ip("a", "route add default via 10.9.0.1");
        let first = pod(&mut rx).await;
        assert_eq!((first.link.name.as_str(), first.link.mtu), ("eth0", 1500));
        assert_eq!(first.addresses, ["10.9.0.2".parse::<std::net::IpAddr>().expect("v4")]);
        assert_eq!((first.v4, first.v6), ("10.9.0.1".parse().ok().map(NextHop::Gateway), None));
        lab.ip("a", "addr add fd09::2/64 dev eth0 nodad");
        let mut second = pod(&mut rx).await;
        while second.addresses.len() < 2 {
            second = pod(&mut rx).await;
        }
        lab.ip("a", "route add default dev other metric 9");
        let names = vec!["other".to_owned(), "eth0".to_owned()];
        assert_eq!(odd(&mut rx).await, Outcome::SeveralDefaultRoutes(names));
        lab.ip("a", "route del default dev other");
        assert_eq!(pod(&mut rx).await.link, first.link);
        lab.del("a");
        assert!(matches!(next(&mut rx).await, PodEvent::Gone(id) if id == first.id()));
    }

    #[tokio::test]
    async fn what_is_there_already_comes_before_listed_and_each_namespace_once() {
        let lab = Lab::new();
        let (a, b) = lab.pair();
        lab.alias("a", "again");
        let mut rx = watch(vec![lab.dir().to_owned(), lab.dir().to_owned()]).expect("watched");
        let mut ids = vec![pod(&mut rx).await.id(), pod(&mut rx).await.id()];
        ids.sort_unstable();
        let mut expected = vec![a.id(), b.id()];
        expected.sort_unstable();
        assert_eq!(ids, expected);
        assert!(matches!(next(&mut rx).await, PodEvent::Listed));
        lab.del("a");
        lab.del("b");
        assert!(matches!(next(&mut rx).await, PodEvent::Gone(id) if id == b.id()), "a has another name");
        assert_eq!(a.run(|| ()).map_err(|e| matches!(e, NetnsError::Gone { .. })), Err(true));
        lab.del("again");
        assert!(matches!(next(&mut rx).await, PodEvent::Gone(id) if id == a.id()));
    }

    #[tokio::test]
    async fn a_directory_that_comes_later_is_waited_for() {
        let lab = Lab::new();
        let late = lab.dir().join("later/netns");
        let mut rx = watch(vec![late.clone()]).expect("watched");
        assert!(matches!(next(&mut rx).await, PodEvent::Listed));
        for _ in 0..2 {
            fs::create_dir_all(&late).expect("a tmpfs of one's own");
            lab.add("later/netns/a");
            assert_eq!(odd(&mut rx).await, Outcome::NoDefaultRoute);
            lab.del("later/netns/a");
            assert!(matches!(next(&mut rx).await, PodEvent::Gone(_)));
            fs::remove_dir_all(lab.dir().join("later")).expect("empty");
        }
    }

    #[tokio::test]
    async fn the_second_pod_with_an_address_waits_for_the_first_to_go() {
        let lab = Lab::new();
        for name in ["a", "b"] {
            lab.add(name);
            lab.ip(name, "link add eth0 type veth peer name other");
            lab.ip(name, "link set eth0 up");
            lab.ip(name, "link set other up");
            lab.ip(name, "addr add 10.9.0.2/24 dev eth0");
            lab.ip(name, "route add default via 10.9.0.1");
        }
        let mut rx = watch(vec![lab.dir().to_owned()]).expect("watched");
        let first = pod(&mut rx).await;
        let Outcome::AddressTaken(conflict) = odd(&mut rx).await else { panic!("taken") };
        assert_eq!((conflict.holder, &conflict.path), (first.id(), &first.netns.path()));
        assert!(matches!(next(&mut rx).await, PodEvent::Listed));
        lab.del(first.netns.path().file_name().and_then(|n| n.to_str()).expect("named by us"));
        assert!(matches!(next(&mut rx).await, PodEvent::Gone(id) if id == first.id()));
        assert_ne!(pod(&mut rx).await.id(), first.id());
    }

    #[tokio::test]
    async fn a_watched_namespace_is_not_kept_alive() {
        let lab = Lab::new();
        lab.pair();
        let mut rx = watch(vec![lab.dir().to_owned()]).expect("watched");
        while !matches!(next(&mut rx).await, PodEvent::Listed) {}
        lab.del("a");
        assert!(matches!(next(&mut rx).await, PodEvent::Gone(_)));
        // Its veth dies with it, and takes the other end along: b has no default route any more.
        assert_eq!(odd(&mut rx).await, Outcome::NoDefaultRoute);
    }

    #[tokio::test]
    async fn the_agents_own_namespace_is_never_attached() {
        let lab = Lab::new();
        let path = lab.path("own");
        std::os::unix::fs::symlink("/proc/self/ns/net", &path).expect("a tmpfs of one's own");
        let mut rx = watch(vec![lab.dir().to_owned()]).expect("watched");
        assert_eq!(odd(&mut rx).await, Outcome::OwnNamespace);
        assert!(matches!(next(&mut rx).await, PodEvent::Listed));
        fs::remove_file(path).expect("made by us");
        assert!(matches!(next(&mut rx).await, PodEvent::Gone(_)));
    }
}
