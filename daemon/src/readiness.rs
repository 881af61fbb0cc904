//! Who must be done before the agent is ready.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Names of what is waited for. Ready once nobody was, ready for ever: what comes later has an agent at work.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    pending: BTreeSet<String>,
    ready: bool,
}

impl Readiness {
    /// One that waits for these from the beginning.
    #[must_use]
    pub fn new(pending: &[&str]) -> Self {
        let pending = pending.iter().map(|&name| name.to_owned()).collect();
        Self { inner: Arc::new(Mutex::new(Inner { pending, ready: false })) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one more.
    pub fn waits_for(&self, name: impl Into<String>) {
        self.inner().pending.insert(name.into());
    }

    /// This one is done.
    pub fn done(&self, name: &str) {
        let mut inner = self.inner();
        inner.pending.remove(name);
        inner.ready |= inner.pending.is_empty();
    }

    /// Who is waited for; nobody where it is ready.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        let inner = self.inner();
        if inner.ready { Vec::new() } else { inner.pending.iter().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_all_are_done_and_stays_so() {
        let readiness = Readiness::new(&["pods", "routes"]);
        readiness.waits_for("sandboxes");
        for (done, left) in [("sandboxes", vec!["pods", "routes"]), ("pods", vec!["routes"]), ("routes", vec![])] {
            readiness.done(done);
            assert_eq!(readiness.pending(), left);
        }
        readiness.waits_for("endpoints of namespace shop");
        assert_eq!(readiness.pending(), [""; 0]);
    }
}
