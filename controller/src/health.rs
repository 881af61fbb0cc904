//! How the controller is doing, for whoever asks.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Counts of what was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passes over a Sandbox that went well.
    pub passes: u64,
    /// Those that are tried again.
    pub failed: u64,
    /// Requests to the API server that change something.
    pub writes: u64,
    /// Sandboxes that are known.
    pub sandboxes: u64,
}

/// How the controller is doing. Copies show the same.
#[derive(Clone, Debug)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pending: Mutex<BTreeSet<&'static str>>,
    leads: AtomicBool,
    passes: AtomicU64,
    failed: AtomicU64,
    writes: AtomicU64,
    sandboxes: AtomicU64,
}

/// It is not known who leads.
pub(crate) const LEASE: &str = "the Lease";
/// Not all Sandboxes are known to the one that leads.
pub(crate) const SANDBOXES: &str = "sandboxes";

impl Default for Health {
    fn default() -> Self {
        let counts = || AtomicU64::new(0);
        let inner = Inner {
            pending: Mutex::new([LEASE].into()),
            leads: AtomicBool::new(false),
            passes: counts(),
            failed: counts(),
            writes: counts(),
            sandboxes: counts(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Health {
    fn waiting(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.inner.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is waited for; nothing where it is ready. One that does not lead is ready to.
    #[must_use]
    pub fn pending(&self) -> Vec<&'static str> {
        self.waiting().iter().copied().collect()
    }

    /// Whether it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.inner.leads.load(Ordering::Relaxed)
    }

    /// What was done.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Inner { passes, failed, writes, sandboxes, .. } = &*self.inner;
        Counts { passes: of(passes), failed: of(failed), writes: of(writes), sandboxes: of(sandboxes) }
    }

    pub(crate) fn waits(&self, what: &'static str) {
        self.waiting().insert(what);
    }

    pub(crate) fn done(&self, what: &'static str) {
        self.waiting().remove(what);
    }

    pub(crate) fn lead(&self, leads: bool) {
        self.inner.leads.store(leads, Ordering::Relaxed);
    }

    pub(crate) fn passed(&self, well: bool) {
        let counter = if well { &self.inner.passes } else { &self.inner.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self) {
        self.inner.writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn known(&self, sandboxes: usize) {
        self.inner.sandboxes.store(sandboxes as u64, Ordering::Relaxed);
    }
}
