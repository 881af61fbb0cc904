//! A named network namespace, and running code inside it.

use std::{
    fmt,
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, RwLock, mpsc},
    thread,
};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

/// Identifies a network namespace for as long as it lives: device and inode of its nsfs file. A number is used again
/// once the namespace is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Device of nsfs.
    pub dev: u64,
    /// Inode, as `readlink /proc/PID/ns/net` shows it.
    pub ino: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.ino)
    }
}

/// Why something could not be done inside a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// None of its names leads to it any more.
    #[error("network namespace {id} ({path}) is gone: its name was removed; nothing is to be done")]
    Gone {
        /// The namespace.
        id: NetnsId,
        /// The last name known.
        path: PathBuf,
    },
    /// `setns` was refused.
    #[error("cannot enter network namespace {path}: {source}; give the agent CAP_SYS_ADMIN")]
    Enter {
        /// The namespace's name.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The agent's own namespace could not be opened.
    #[error("cannot open the agent's own network namespace: {0}; is /proc mounted?")]
    Home(io::Error),
    /// The closure panicked.
    #[error("the work inside network namespace {0} panicked; please report this with the agent's log")]
    Panicked(PathBuf),
}

#[derive(Debug)]
struct Inner {
    id: NetnsId,
    /// Every name that leads to it, the one in use first. Never empty.
    paths: RwLock<Vec<PathBuf>>,
}

/// A network namespace with at least one name in a directory that is watched.
///
/// It holds no descriptor: an open one would keep the namespace alive after its pod. Each use opens the name again, and
/// sees by device and inode that it still is the same namespace.
#[derive(Clone, Debug)]
pub struct Netns(Arc<Inner>);

impl Netns {
    /// The namespace that `path` names.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open_name(path)?;
        Ok(Self::new(id_of(&file)?, path.to_owned()))
    }

    pub(super) fn new(id: NetnsId, path: PathBuf) -> Self {
        Self(Arc::new(Inner { id, paths: RwLock::new(vec![path]) }))
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.0.id
    }

    /// A name of it: the first that was found and still stands.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.paths.read().unwrap_or_else(PoisonError::into_inner)[0].clone()
    }

    /// Replaces its names. The one in use stays first while it stands; an empty list changes nothing.
    pub(super) fn set_paths(&self, mut paths: Vec<PathBuf>) {
        let mut held = self.0.paths.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = paths.iter().position(|p| *p == held[0]) {
            paths.swap(0, at);
        }
        if !paths.is_empty() {
            *held = paths;
        }
    }

    /// Opens its name, if that still leads to it.
    fn file(&self) -> Result<File, NetnsError> {
        let paths = self.0.paths.read().unwrap_or_else(PoisonError::into_inner);
        paths
            .iter()
            .find_map(|path| open_name(path).ok().filter(|file| id_of(file).is_ok_and(|id| id == self.0.id)))
            .ok_or_else(|| NetnsError::Gone { id: self.0.id, path: paths[0].clone() })
    }

    /// Runs `work` inside the namespace on one of a few threads kept for this, for what may take its time (netlink,
    /// making sockets, closing them). The caller's thread never leaves its own namespace.
    pub async fn enter<T, F>(&self, work: F) -> Result<T, NetnsError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (tx, rx) = oneshot::channel();
        let netns = self.clone();
        POOL.submit(Box::new(move || {
            let _ = tx.send(netns.run(work));
        }));
        rx.await.map_err(|_| NetnsError::Panicked(self.path()))?
    }

    /// Runs `work` inside the namespace on the calling thread, which is brought back before this returns, also when
    /// `work` panics. `work` must not block and not await: 10 us go into the way there and back.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetnsError> {
        let home = home()?;
        let there = self.file()?;
        setns(&there, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetnsError::Enter { path: self.path(), source: errno.into() })?;
        let _back = Back(home);
        drop(there);
        Ok(work())
    }
}

/// Brings the thread back into the agent's own namespace.
struct Back(&'static File);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(errno) = setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET) {
            // A thread that stays in a pod's namespace would make the agent's own sockets there.
            tracing::error!(%errno, "cannot return to the agent's own network namespace: stopping at once");
            std::process::abort();
        }
    }
}

/// The namespace of the agent's main thread, opened once for the life of the process.
fn home() -> Result<&'static File, NetnsError> {
    static HOME: OnceLock<File> = OnceLock::new();
    if let Some(file) = HOME.get() {
        return Ok(file);
    }
    let file = File::open("/proc/self/ns/net").map_err(NetnsError::Home)?;
    Ok(HOME.get_or_init(|| file))
}

/// Identity of the namespace that the agent itself lives in.
pub(super) fn own() -> Result<NetnsId, NetnsError> {
    id_of(home()?).map_err(NetnsError::Home)
}

/// `O_NONBLOCK`, because any file may lie in a watched directory, a FIFO among them.
pub(super) fn open_name(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)
}

pub(super) fn id_of(file: &File) -> io::Result<NetnsId> {
    let meta = file.metadata()?;
    Ok(NetnsId { dev: meta.dev(), ino: meta.ino() })
}

/// Runs `work` on one of the threads of [`Netns::enter`], in the agent's own namespace, and does not wait for it.
pub(crate) fn background(work: impl FnOnce() + Send + 'static) {
    POOL.submit(Box::new(work));
}

type Job = Box<dyn FnOnce() + Send>;

/// How many threads work inside namespaces at a time. Their jobs wait for the kernel a few milliseconds at most.
const THREADS: usize = 4;

static POOL: LazyLock<Pool> = LazyLock::new(Pool::start);

struct Pool(Mutex<mpsc::Sender<Job>>);

impl Pool {
    fn start() -> Self {
        let (tx, rx) = mpsc::channel::<Job>();
        let rx = Arc::new(Mutex::new(rx));
        for n in 0..THREADS {
            let rx = Arc::clone(&rx);
            thread::Builder::new()
                .name(format!("sidetrack-ns-{n}"))
                .spawn(move || worker(&rx))
                .expect("a thread can be made when the agent starts");
        }
        Self(Mutex::new(tx))
    }

    fn submit(&self, job: Job) {
        let tx = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tx.send(job).expect("the workers hold the receiver as long as the process lives");
    }
}

fn worker(jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic is the job's own: its sender is dropped, and whoever waits is told.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::Lab;

    fn inside() -> NetnsId {
        id_of(&File::open("/proc/thread-self/ns/net").expect("proc is mounted")).expect("nsfs has inodes")
    }

    #[tokio::test]
    async fn work_runs_inside_and_the_thread_comes_back() {
        let lab = Lab::new();
        let ns = Netns::open(&lab.add("a")).expect("a fresh namespace");
        let home = inside();
        assert_eq!(ns.run(inside).expect("root may enter"), ns.id());
        assert_eq!(inside(), home);
        assert_eq!(ns.enter(inside).await.expect("root may enter"), ns.id());
        assert_ne!(ns.id(), home);
    }

    #[tokio::test]
    async fn a_panic_inside_is_an_error_and_the_worker_comes_back() {
        let lab = Lab::new();
        let ns = Netns::open(&lab.add("a")).expect("a fresh namespace");
        for _ in 0..THREADS * 2 {
            let end: Result<(), _> = ns.enter(|| panic!("on purpose")).await;
            assert!(matches!(end, Err(NetnsError::Panicked(_))));
        }
        assert_eq!(ns.enter(inside).await.expect("the pool is whole"), ns.id());
    }

    #[test]
    fn a_name_that_is_gone_or_leads_elsewhere_is_gone() {
        let lab = Lab::new();
        let path = lab.add("a");
        let ns = Netns::open(&path).expect("a fresh namespace");
        lab.del("a");
        assert!(matches!(ns.run(inside), Err(NetnsError::Gone { .. })));
        // Only while the first lives on elsewhere is its inode sure to differ from the second's.
        let kept = lab.add("b");
        let ns = Netns::open(&kept).expect("a fresh namespace");
        lab.alias("b", "c");
        lab.del("b");
        lab.add("b");
        assert!(matches!(ns.run(inside), Err(NetnsError::Gone { .. })));
        ns.set_paths(vec![lab.path("c")]);
        assert_eq!(ns.run(inside).expect("its other name leads there"), ns.id());
    }

    #[tokio::test]
    async fn the_port_range_is_that_of_the_thread_that_reads() {
        let lab = Lab::new();
        let ns = Netns::open(&lab.add("a")).expect("a fresh namespace");
        let path = "/proc/sys/net/ipv4/ip_local_port_range";
        ns.run(|| std::fs::write(path, "41000 42000")).expect("entered").expect("root may write");
        let there = ns.enter(move || std::fs::read_to_string(path)).await.expect("entered").expect("readable");
        assert_eq!(there.split_whitespace().collect::<Vec<_>>(), ["41000", "42000"]);
        let here = std::fs::read_to_string(path).expect("readable");
        assert_ne!(here.split_whitespace().collect::<Vec<_>>(), ["41000", "42000"]);
    }
}
