//! What the agents say is in force: whoever leads hears them.
//!
//! `listener` takes their connections, `review` finds out who they are, and [`Reports`] keeps what they say, in the ledger of the crate
//! `acknowledge`.

mod listener;
mod review;

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use sidetrack_acknowledge::{InForce, Ledger, Line, Stream, Verdict};
use tokio::sync::watch;

pub use self::{
    listener::{Listener, ListenerError},
    review::{Agents, Refusal},
};

/// What all agents have said to this process.
#[derive(Debug)]
pub struct Reports {
    began: Instant,
    ledger: Mutex<Ledger>,
    changed: watch::Sender<()>,
}

impl Default for Reports {
    fn default() -> Self {
        let began = Instant::now();
        Self { began, ledger: Mutex::new(Ledger::new(began.elapsed())), changed: watch::Sender::new(()) }
    }
}

impl Reports {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whenever a verdict may have changed because of what was heard. Time alone changes some, too.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// These nodes must have a Sandbox in force.
    pub fn count(&self, nodes: BTreeSet<String>) {
        self.ledger().count(nodes);
        self.changed.send_replace(());
    }

    /// Whether `want` of the Sandbox with this UID is in force everywhere.
    #[must_use]
    pub fn verdict(&self, uid: &str, want: InForce) -> Verdict {
        self.ledger().verdict(uid, want, self.began.elapsed())
    }

    fn begin(&self, node: &str) -> Stream {
        self.ledger().begin(node)
    }

    fn hear(&self, stream: &Stream, line: Line) -> bool {
        let news = line != Line::Beat;
        let heard = self.ledger().hear(stream, line);
        if news {
            self.changed.send_replace(());
        }
        heard
    }

    fn end(&self, stream: &Stream) {
        self.ledger().end(stream, self.began.elapsed());
        self.changed.send_replace(());
    }
}
