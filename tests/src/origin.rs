//! A scriptable HTTP/1.1 server that says who it is and remembers all that reached it.
//!
//! | target | answer |
//! |---|---|
//! | `/echo`, and anything else | JSON ([`Answer`](crate::http::Answer)): who, and length and digest of the body |
//! | `/mirror` | the body of the request |
//! | `/bytes/N` | the first N bytes of the server's own stream ([`digest::fill`](crate::digest::fill)) |
//! | `/chunked/N/K` | the same, in K chunks |
//! | `/drip/N/MS` | N pieces of [`PIECE`] bytes of it, MS ms apart, with a length |
//! | `/dripchunked/N/MS` | the same, chunked |
//! | `/rest/N` | N bytes without a length, then the end of the connection |
//! | `/slow/MS` | as `/echo`, MS ms after the request was complete |
//! | `/status/S` | the status S (204 and 304 without a body) |
//! | `/early` | as `/echo`, but before the body is read, and without its digest |
//! | `/hints` | 103, then as `/echo` |
//! | `/twice/PAUSE` | two answers, milliseconds apart, or at once: the second one nobody has asked for |
//! | `/refuse` | 417 to an `Expect`, no 100, and no body is read |
//! | `/close` | as `/echo`, with `Connection: close` |
//! | `/reset` | a reset |
//! | `/cut/N` | N bytes of a body of twice that length, then a reset |
//!
//! `HEAD` gets the same head and no body; `Expect: 100-continue` gets its 100.

mod journal;
mod reply;
mod serve;

pub use journal::{Fragment, Journal, Seen};
pub use reply::PIECE;

use crate::{lab::Pod, tcp::TcpFigures};
use anyhow::{Context, Result};
use std::{
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

/// A running server.
#[derive(Debug)]
pub struct Origin {
    shared: Arc<Shared>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    journal: Journal,
    connections: Mutex<Vec<(u64, TcpStream)>>,
    numbers: AtomicU64,
    stopping: AtomicBool,
    draining: AtomicBool,
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<(u64, TcpStream)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    /// Starts one in `pod` that calls itself `name`, on all addresses of both families.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(pod: &Pod, name: &str, port: u16) -> Result<Self> {
        Self::serve(pod.listen(port)?, name)
    }

    /// Serves a listener that exists.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn serve(listener: TcpListener, name: &str) -> Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            journal: Journal::default(),
            connections: Mutex::default(),
            numbers: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        });
        let (acceptor, serving) = (listener.try_clone()?, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name(format!("origin-{name}"))
            .spawn(move || accept(&acceptor, &serving))
            .context("cannot start a thread")?;
        Ok(Self { shared, listener, thread: Some(thread) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// All that reached it.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// The clients' addresses of the connections that are open.
    #[must_use]
    pub fn clients(&self) -> Vec<SocketAddr> {
        self.shared.connections().iter().filter_map(|(_, stream)| stream.peer_addr().ok()).collect()
    }

    /// What the kernel says of each connection that is open.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn figures(&self) -> Result<Vec<TcpFigures>> {
        let connections = self.shared.connections();
        connections.iter().map(|(_, stream)| TcpFigures::of(stream).context("no TCP_INFO")).collect()
    }

    /// Ends: closes the port and every connection. The journal stays.
    pub fn stop(&mut self) {
        self.stop_listening();
        self.close_connections();
    }

    /// Ends as a server does that is told to: closes the port, and each connection behind its next answer, which says so. An idle one
    /// stays.
    pub fn drain(&mut self) {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.stop_listening();
    }

    fn stop_listening(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Ends the accept that is under way.
        drop(socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }

    /// Closes its side of every connection, as a server does with idle ones.
    pub fn close_connections(&self) {
        for (_, stream) in self.shared.connections().iter() {
            // A connection that has ended already needs no end.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Ends every connection by a reset.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn reset_connections(&self) -> Result<()> {
        for (_, stream) in self.shared.connections().iter() {
            // The reset is sent when who serves it finds that nothing more can be read, and lets go of it.
            socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))?;
            drop(stream.shutdown(Shutdown::Read));
        }
        Ok(())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, client)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(copy) = stream.try_clone() else { continue };
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        shared.connections().push((number, copy));
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // How a connection ends is the client's to judge; what reached it is in the journal.
            drop(serve::connection(&shared.name, &shared.journal, number, client, &stream, &shared.draining));
            shared.connections().retain(|(other, _)| *other != number);
        });
    }
}
