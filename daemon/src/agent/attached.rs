//! The pods that the programs are attached to.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sidetrack_splice::abi::{
    addr::Tuple,
    record::{CONN_DIVERTED, NAME_POD},
};
use tracing::{info, warn};

use super::{Shared, client, older};
use crate::{
    bpf::{Attacher, Mode, other::others},
    cold::{IpSocket, PacketSocket, PortBook, Spare},
    names,
    pods::{NetnsId, Outcome, Pod, PodEvent, background},
    state::{
        self,
        pod::{MODE_CLSACT, MODE_TCX, PodKey, PodRecord},
    },
};

/// A pod with all that the cold path needs of it. Its sockets keep the namespace alive: it is dropped when the
/// namespace's name goes.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pod: Pod,
    /// Its name, as in tools.
    pub(super) name: String,
    /// For held frames.
    pub(super) packets: PacketSocket,
    /// For resets of legs.
    pub(super) raw: IpSocket,
    /// Ports of its legs, those of dials that are under way, and those that rest: they stay when the pod changes.
    pub(super) ports: Arc<PortBook>,
    /// For its next dial.
    pub(super) spare: Spare,
}

#[derive(Debug, Default)]
struct Members {
    by_id: HashMap<NetnsId, Arc<Member>>,
    by_address: HashMap<IpAddr, Arc<Member>>,
    /// Whose other interfaces have an address: several pods' may have the same.
    elsewhere: HashMap<IpAddr, HashSet<NetnsId>>,
    /// Addresses that a pod had that has gone, and no other has: connections of theirs may be known yet.
    departed: HashSet<IpAddr>,
    /// What stands in map `pods` by this agent.
    shown: HashSet<PodKey>,
    listed: bool,
}

impl Members {
    /// Takes a pod's addresses back. Returns those of its default route's interface.
    fn release(&mut self, pod: &Pod) -> Vec<IpAddr> {
        let id = pod.id();
        let mut its = pod.addresses.clone();
        its.retain(|address| self.by_address.get(address).is_some_and(|m| m.pod.id() == id));
        for address in &its {
            self.by_address.remove(address);
            self.departed.insert(*address);
        }
        for address in &pod.elsewhere {
            if let Some(having) = self.elsewhere.get_mut(address) {
                having.remove(&id);
                if having.is_empty() {
                    self.elsewhere.remove(address);
                    self.departed.insert(*address);
                }
            }
        }
        its
    }
}

/// All pods, and what attaches to them.
#[derive(Debug)]
pub(super) struct Attached {
    attacher: Attacher,
    members: Mutex<Members>,
}

impl Attached {
    pub(super) fn new(attacher: Attacher) -> Self {
        Self { attacher, members: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod with this address. None, too, if several have it on other interfaces than that of their default route.
    pub(super) fn find(&self, address: IpAddr) -> Option<Arc<Member>> {
        let members = self.lock();
        if let Some(member) = members.by_address.get(&address) {
            return Some(Arc::clone(member));
        }
        let mut having = members.elsewhere.get(&address)?.iter();
        let id = having.next().filter(|_| having.next().is_none())?;
        members.by_id.get(id).cloned()
    }

    /// Whether the pod with this address has gone. An address that is not known may be one that a pod forwards for.
    pub(super) fn departed(&self, address: IpAddr) -> bool {
        self.lock().departed.contains(&address)
    }

    /// Forgets addresses of pods that have gone, but for those of which something is known yet.
    pub(super) fn forget_departed(&self, known: impl Fn(IpAddr) -> bool) {
        self.lock().departed.retain(|address| known(*address));
    }

    /// All of them.
    pub(super) fn pods(&self) -> Vec<Pod> {
        self.lock().by_id.values().map(|member| member.pod.clone()).collect()
    }

    /// Whether every pod that was there at the start has been seen.
    pub(super) fn listed(&self) -> bool {
        self.lock().listed
    }

    /// Follows one event.
    pub(super) async fn apply(&self, shared: &Arc<Shared>, event: PodEvent) {
        match event {
            PodEvent::Appeared(pod) | PodEvent::Changed(pod) => self.appear(shared, pod).await,
            PodEvent::Gone(id) => {
                self.leave(shared, id);
                self.attacher.detach(id, None);
                self.hide(shared, PodKey::netns(id.ino));
                info!(netns = id.ino, "pod gone");
            }
            PodEvent::Odd(id, path, outcome) => self.odd(shared, id, &path, &outcome),
            PodEvent::Vanished(path) => self.hide(shared, PodKey::file(&path)),
            PodEvent::Listed => {
                let mut members = self.lock();
                members.listed = true;
                let alive: Vec<u64> = members.by_id.keys().map(|id| id.ino).collect();
                drop(members);
                self.attacher.retain(|ino| alive.contains(&ino));
                self.forget_predecessors(shared);
            }
        }
    }

    /// Shows tools what became of a namespace.
    fn show(&self, shared: &Shared, key: PodKey, record: &PodRecord) {
        self.lock().shown.insert(key);
        _ = shared.maps.pods.put(&key, record);
    }

    fn hide(&self, shared: &Shared, key: PodKey) {
        self.lock().shown.remove(&key);
        _ = shared.maps.pods.remove(&key);
    }

    /// Forgets what an earlier agent has shown of pods that went while none ran.
    fn forget_predecessors(&self, shared: &Shared) {
        let mut members = self.lock();
        for (key, _) in shared.maps.pods.entries() {
            if !members.shown.contains(&key) {
                _ = shared.maps.pods.remove(&key);
            }
        }
        for (key, _) in shared.maps.names.entries() {
            let address = IpAddr::from(key.addr);
            if key.kind == NAME_POD && !members.by_address.contains_key(&address) {
                members.departed.insert(address);
                _ = shared.maps.names.remove(&key);
            }
        }
    }

    async fn appear(&self, shared: &Arc<Shared>, pod: Pod) {
        let (id, path) = (pod.id(), pod.netns.path());
        let known = self.lock().by_id.get(&id).cloned();
        let record = |r: PodRecord| self.show(shared, PodKey::netns(id.ino), &r);
        let failed = |why: &str| {
            warn!(pod = %path.display(), interface = %pod.link.name, "not attached: {why}");
            record(PodRecord::failed(&path, pod.link.index, &pod.link.name, why, state::now()));
        };
        if let Some(old) = &known
            && old.pod.link.index != pod.link.index
        {
            self.abandon(shared, &old.pod);
        }
        let mode = match self.attacher.attach(&pod) {
            Ok(mode) => mode,
            Err(error) => return failed(&error.to_string()),
        };
        let sockets = async {
            let packets = PacketSocket::open_in(&pod.netns, pod.link.index).await??;
            let raw = IpSocket::open_in(&pod.netns).await??;
            anyhow::Ok((packets, raw))
        };
        let (packets, raw) = match sockets.await {
            Ok(sockets) => sockets,
            Err(error) => return failed(&format!("{error:#}")),
        };
        // Before it is said that the pod is attached: what its clients ask next is steered from then on.
        older::adopt(shared, &pod, older::services(shared));
        let number = if mode == Mode::Tcx { MODE_TCX } else { MODE_CLSACT };
        record(PodRecord::attached(&path, pod.link.index, &pod.link.name, &pod.addresses, number, state::now()));
        let ports = known.map_or_else(|| Arc::new(PortBook::anywhere()), |old| Arc::clone(&old.ports));
        for (tuple, leg) in shared.maps.legs.walk() {
            if leg.moved != 0 && pod.has(tuple.local_addr().ip()) {
                ports.adopt(tuple.remote_addr(), tuple.local_addr().port());
            }
        }
        // Legs of another ABI have no socket that would keep their ports.
        for leg in others(&shared.pin_dir).iter().filter_map(|other| other.legs().ok()).flatten() {
            if pod.has(leg.local_addr().ip()) {
                ports.adopt(leg.remote_addr(), leg.local_addr().port());
            }
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        for address in &pod.addresses {
            _ = shared.maps.names.put(&names::pod_key(*address), &names::bytes(&name));
        }
        info!(pod = %name, interface = %pod.link.name, addresses = ?pod.addresses, ?mode, "attached");
        let member = Arc::new(Member { pod, name, packets, raw, ports, spare: Spare::default() });
        let mut members = self.lock();
        // At no moment is a pod that changes one that is gone: its connections would be forgotten.
        let old = members.by_id.insert(id, Arc::clone(&member));
        for address in old.iter().flat_map(|old| members.release(&old.pod)) {
            if !member.pod.addresses.contains(&address) {
                _ = shared.maps.names.remove(&names::pod_key(address));
            }
        }
        for address in &member.pod.addresses {
            members.by_address.insert(*address, Arc::clone(&member));
            members.departed.remove(address);
        }
        for address in &member.pod.elsewhere {
            members.elsewhere.entry(*address).or_default().insert(id);
            members.departed.remove(address);
        }
        drop(members);
        if let Some(old) = old {
            background(move || drop(old));
        }
    }

    /// Forgets a pod. Its sockets are closed elsewhere: that takes milliseconds.
    fn leave(&self, shared: &Shared, id: NetnsId) {
        let mut members = self.lock();
        let Some(member) = members.by_id.remove(&id) else { return };
        for address in members.release(&member.pod) {
            let key = names::pod_key(address);
            debug_assert_eq!(key.kind, NAME_POD);
            _ = shared.maps.names.remove(&key);
        }
        drop(members);
        background(move || drop(member));
    }

    /// Leaves an interface whose connections may go on. Those that were diverted cannot without the programs: their clients are told.
    /// Of the others nothing is known any more once they have.
    fn abandon(&self, shared: &Shared, pod: &Pod) {
        let its = |conn: &Tuple| pod.has(conn.local_addr().ip());
        let known: Vec<_> = shared.maps.connections.walk().filter(|(conn, _)| its(conn)).collect();
        let (diverted, plain): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|(_, c)| c.now.flags & CONN_DIVERTED != 0);
        // While the programs are there: the owner's backend hears of it in its own numbers.
        for (conn, _) in diverted {
            if let Err(error) = client::abort(shared, &conn) {
                warn!(%conn, "a connection that was steered cannot be reset, and hangs: {error}");
            }
        }
        self.attacher.detach(pod.id(), Some(pod));
        for (conn, _) in plain {
            _ = shared.maps.connections.remove(&conn);
        }
    }

    fn odd(&self, shared: &Shared, id: Option<NetnsId>, path: &std::path::Path, outcome: &Outcome) {
        warn!(netns = %path.display(), "not attached: {outcome}");
        let key = match id {
            Some(id) => {
                let known = self.lock().by_id.get(&id).cloned();
                if let Some(member) = known {
                    self.abandon(shared, &member.pod);
                    self.leave(shared, id);
                }
                PodKey::netns(id.ino)
            }
            None => PodKey::file(path),
        };
        self.show(shared, key, &PodRecord::odd(path, outcome, state::now()));
    }
}
