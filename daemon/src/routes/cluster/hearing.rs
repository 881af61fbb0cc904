//! Whether the cluster is heard, for metrics.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// Whether the cluster is heard.
#[derive(Debug, Default)]
pub struct Hearing {
    known: AtomicBool,
    cut_off: AtomicBool,
    silent_millis: AtomicU64,
}

impl Hearing {
    pub(super) fn note(&self, known: bool, silent: Duration, cut_off: bool) {
        self.known.store(known, Ordering::Relaxed);
        self.silent_millis.store(silent.as_millis() as u64, Ordering::Relaxed);
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    /// Whether the first lists were complete.
    #[must_use]
    pub fn known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// For how long the watch was not heard that was not heard for longest.
    #[must_use]
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.silent_millis.load(Ordering::Relaxed))
    }

    /// Whether that is too long.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }
}
