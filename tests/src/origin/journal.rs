//! What reached a server: complete requests, and what never became one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// A request head that arrived whole, and what is known of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When its head was complete.
    pub at: SystemTime,
    /// Number of the connection at this server.
    pub connection: u64,
    /// The client's address, as the server sees it.
    pub client: SocketAddr,
    /// Its method.
    pub method: String,
    /// Its target.
    pub target: String,
    /// Its header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Bytes of its body that have arrived.
    pub length: u64,
    /// Their digest, once the body is complete.
    pub digest: Option<String>,
}

impl Seen {
    /// The value of the first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The key that [`Request::key`](crate::Request::key) gave it.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.header("baggage").and_then(|value| value.split(',').find_map(|member| member.strip_prefix("sidetrack=")))
    }

    /// Whether `key` stands in any header.
    #[must_use]
    pub fn mentions(&self, key: &str) -> bool {
        self.headers.iter().any(|(_, value)| value.contains(key))
    }
}

/// Bytes of a request head that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Number of the connection at this server.
    pub connection: u64,
    /// What has arrived of it.
    pub bytes: Vec<u8>,
    /// Whether the connection has ended.
    pub ended: bool,
}

/// A server's memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    requests: Vec<Seen>,
    fragments: BTreeMap<u64, Fragment>,
    connections: u64,
}

impl Journal {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All requests whose head arrived whole, in the order of their heads' ends.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.state().requests.clone()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state().requests.len()
    }

    /// Those for which `wanted` holds.
    #[must_use]
    pub fn matching(&self, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        self.state().requests.iter().filter(|seen| wanted(seen)).cloned().collect()
    }

    /// Bytes of heads that are not complete, of open connections and of ended ones.
    #[must_use]
    pub fn fragments(&self) -> Vec<Fragment> {
        self.state().fragments.values().filter(|fragment| !fragment.bytes.is_empty()).cloned().collect()
    }

    /// How many connections there were.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state().connections
    }

    /// All requests, which it forgets: for a server that is asked again and again and never ends.
    #[must_use]
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().requests)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    pub(super) fn opened(&self) {
        self.state().connections += 1;
    }

    /// A head is complete. The number by which its body is reported.
    pub(super) fn head(&self, seen: Seen) -> usize {
        let mut state = self.state();
        state.fragments.remove(&seen.connection);
        state.requests.push(seen);
        state.requests.len() - 1
    }

    pub(super) fn body(&self, number: usize, length: u64, digest: Option<String>) {
        // The journal may have been cleared while the body was on its way.
        if let Some(seen) = self.state().requests.get_mut(number) {
            seen.length = length;
            seen.digest = digest;
        }
    }

    pub(super) fn partial(&self, connection: u64, bytes: &[u8]) {
        let fragment = Fragment { connection, bytes: bytes.to_vec(), ended: false };
        self.state().fragments.insert(connection, fragment);
    }

    pub(super) fn ended(&self, connection: u64) {
        if let Some(fragment) = self.state().fragments.get_mut(&connection) {
            fragment.ended = true;
        }
    }
}
