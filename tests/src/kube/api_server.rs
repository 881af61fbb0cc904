//! A running API server.

use super::{
    control::{Control, ETCD, PORT},
    kubectl::Kubectl,
    users::ADMIN,
};
use crate::{
    lab::{Lab, Pod},
    process::Process,
    wait_for,
};
use anyhow::{Context as _, Result, anyhow};
use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long it may take until all is ready: on an idle machine some seconds.
const READY: Duration = Duration::from_mins(2);

/// etcd and kube-apiserver. Both are killed when it is dropped, and by the kernel when the test process ends, however
/// that happens; their data goes with the lab.
#[derive(Debug)]
pub struct ApiServer {
    control: Control,
    /// The API server before etcd: so they are killed. None while it is stopped.
    running: Option<[Process; 2]>,
    spaces: AtomicU32,
    pod: Pod,
    /// Its own lab, if it has one: last, so that it goes last.
    _lab: Option<Lab>,
}

impl ApiServer {
    /// Starts one with data of its own in a lab of its own, and waits until it is ready.
    ///
    /// # Errors
    /// When a program is missing, or when one ends: its last words are in the message.
    pub fn start() -> Result<Self> {
        let lab = Lab::new("apiserver")?;
        let pod = lab.pod("control", 250)?;
        Ok(Self { _lab: Some(lab), ..Self::start_in(&pod)? })
    }

    /// Starts one in a pod of a lab that has more in it. Whoever is routed to the pod can use it; see
    /// [`ApiServer::addresses`] and [`ApiServer::kubeconfig`].
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub fn start_in(pod: &Pod) -> Result<Self> {
        let control = Control::prepare(pod)?;
        let mut server = Self { control, running: None, spaces: AtomicU32::new(0), pod: pod.clone(), _lab: None };
        server.start_again()?;
        Ok(server)
    }

    /// The one that all tests of this process share, started by whoever asks first. It cannot be stopped; tests keep
    /// apart by [`ApiServer::namespace`].
    ///
    /// # Errors
    /// As [`ApiServer::start`]; then every other test gets the same error.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<ApiServer, String>> = OnceLock::new();
        // A lab moves the thread that makes it into its own mount namespace: this one is nobody else's.
        let start = || {
            let server = thread::spawn(Self::start).join().map_err(|_| "its thread panicked".to_owned())?;
            server.map_err(|error| format!("{error:#}"))
        };
        SHARED.get_or_init(start).as_ref().map_err(|error| anyhow!("no shared API server: {error}"))
    }

    /// Kills API server and etcd with `SIGKILL`. The data stays.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn stop(&mut self) -> Result<()> {
        self.running.take().into_iter().flatten().try_for_each(|mut process| process.kill9())
    }

    /// Starts both on the data that is there, and waits until they are ready. Does nothing while they run.
    ///
    /// # Errors
    /// When one ends: its last words are in the message.
    pub fn start_again(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let begin = Instant::now();
        let mut etcd = self.pod.spawn(self.control.etcd())?;
        let listens = || {
            if let Err(ended) = etcd.check_alive() {
                return Some(Err(ended));
            }
            self.pod.enter(|| TcpStream::connect(ETCD).is_ok()).map(|listens| listens.then_some(())).transpose()
        };
        // An API server that is refused at its first dial lets a second go by before the next.
        wait_for("etcd to listen", READY, listens)??;
        let mut running = [self.pod.spawn(self.control.api_server())?, etcd];
        let ready = || {
            if let Err(ended) = running.iter_mut().try_for_each(Process::check_alive) {
                return Some(Err(ended));
            }
            self.is_ready().then_some(Ok(()))
        };
        let answered = wait_for("the API server to be ready", READY, ready).flatten();
        let last_words = || running.iter().map(|process| process.output().tail()).collect::<Vec<_>>().join("\n");
        answered.with_context(last_words)?;
        let [api, etcd] = running.each_ref().map(Process::id);
        eprintln!("API server ready after {:.1} s, processes {api} and {etcd}", begin.elapsed().as_secs_f64());
        self.running = Some(running);
        Ok(())
    }

    /// Whether it says so, and has its own Service. It makes that when it says so, and tries again until the namespace
    /// `default` and the ranges of addresses are there, which it makes by the way, too.
    fn is_ready(&self) -> bool {
        let says = |words: &[&str]| self.kubectl(words).unwrap_or_default();
        says(&["get", "--raw", "/readyz"]) == "ok" && !says(&["get", "service", "kubernetes"]).is_empty()
    }

    /// kubectl as the administrator.
    #[must_use]
    pub fn admin(&self) -> Kubectl<'_> {
        Kubectl::new(self)
    }

    /// Runs kubectl as the administrator; its standard output.
    ///
    /// # Errors
    /// When it fails: its words are in the message.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.admin().run(words)
    }

    /// kubectl as somebody who has no rights but those that a test gives him.
    #[must_use]
    pub fn as_user(&self, name: &str, groups: &[&str]) -> Kubectl<'_> {
        self.admin().as_user(name, groups)
    }

    /// Makes a namespace that no other test has, and gives the administrator's kubectl for it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn namespace(&self, begin: &str) -> Result<Kubectl<'_>> {
        let name = format!("{begin}-{}", self.spaces.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "namespace", &name])?;
        Ok(self.admin().in_namespace(&name))
    }

    /// Where it listens, for programs of its lab: an address of each family.
    #[must_use]
    pub fn addresses(&self) -> [SocketAddr; 2] {
        [self.pod.v4_port(PORT), self.pod.v6_port(PORT)]
    }

    /// The administrator's kubeconfig, for programs of its lab.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.control.kubeconfig(&ADMIN)
    }

    /// The certificate by which programs of its lab know it.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.control.authority()
    }

    /// The pod that it runs in.
    #[must_use]
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Its processes' numbers: API server, etcd; none while it is stopped.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        self.running.iter().flatten().map(Process::id).collect()
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }
}
