//! Namespaces for tests: named below a directory of their own, so that they never meet the machine's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, sleep},
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

use super::{Pod, netns::Netns, rtnetlink::Snapshot};

/// A directory of namespaces, a tmpfs of its own. All is gone when it is dropped.
pub(crate) struct Lab(PathBuf);

impl Lab {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(geteuid().is_root(), "this test makes network namespaces: run it as root");
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sidetrack-lab-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory of one's own");
        mount(Some("lab"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("root may mount");
        mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).expect("root may mount");
        Self(dir)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a namespace and names it, the file first and the mount second, as container runtimes do.
    pub(crate) fn add(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::File::create(&path).expect("a tmpfs of one's own");
        let at = path.clone();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may unshare");
            bind(Path::new("/proc/thread-self/ns/net"), &at);
        })
        .join()
        .expect("made");
        path
    }

    /// Gives a namespace a second name.
    pub(crate) fn alias(&self, name: &str, other: &str) {
        fs::File::create(self.path(other)).expect("a tmpfs of one's own");
        bind(&self.path(name), &self.path(other));
    }

    /// Takes a name away, as `ip netns del` does.
    pub(crate) fn del(&self, name: &str) {
        umount2(&self.path(name), MntFlags::MNT_DETACH).expect("mounted by us");
        fs::remove_file(self.path(name)).expect("made by us");
    }

    /// Runs `ip` inside a namespace.
    pub(crate) fn ip(&self, name: &str, arguments: &str) {
        self.command(name, "ip", arguments);
    }

    /// Runs a command inside a namespace and waits for its success. Returns what it says.
    pub(crate) fn command(&self, name: &str, program: &str, arguments: &str) -> String {
        let ns = Netns::open(&self.path(name)).expect("made by us");
        let out = ns.run(|| Command::new(program).args(arguments.split_whitespace()).output()).expect("entered");
        let out = out.expect("installed");
        assert!(out.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// What the agent knows of a pod with a default route.
    pub(crate) fn pod(&self, name: &str) -> Pod {
        let netns = Netns::open(&self.path(name)).expect("made by us");
        let snapshot = netns.run(Snapshot::read).expect("entered").expect("read");
        Pod::read(netns, &snapshot).expect("it has a default route")
    }

    /// Two namespaces `a` and `b` joined by a veth pair, eth0 in each: `10.9.0.1` and `.2`, `fd09::1` and `::2`,
    /// each the other's default route.
    pub(crate) fn pair(&self) -> (Netns, Netns) {
        let (a, b) = (self.add("a"), self.add("b"));
        self.ip("a", &format!("link add eth0 type veth peer name eth0 netns {}", b.display()));
        for (name, me, other) in [("a", 1, 2), ("b", 2, 1)] {
            for line in [
                "link set lo up".to_owned(),
                "link set eth0 up".to_owned(),
                format!("addr add 10.9.0.{me}/24 dev eth0"),
                format!("addr add fd09::{me}/64 dev eth0 nodad"),
            ] {
                self.ip(name, &line);
            }
            self.ip(name, &format!("route add default via 10.9.0.{other}"));
            self.ip(name, &format!("-6 route add default via fd09::{other}"));
        }
        // The kernel drops, in silence, what is sent before it has seen to the carrier, which it does on its own time.
        for name in ["a", "b"] {
            while !self.command(name, "ip", "link show eth0").contains("state UP") {
                sleep(Duration::from_millis(1));
            }
        }
        (Netns::open(&a).expect("made by us"), Netns::open(&b).expect("made by us"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("root may mount");
}
