//! Takes the agents' connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use sidetrack_acknowledge::{
    Line,
    meeting::{Answer, Hello, LONGEST_LINE, SERVER_NAME, SILENCE},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    server::TlsStream,
};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};
use tracing::{debug, info, warn};

use super::{Agents, Refusal, Reports};

/// How long a connection may take until it is known whose it is.
const MEETING: Duration = Duration::from_secs(10);
/// Connections that are being met at once: each costs a signature and a question to the API server.
const MEETINGS: usize = 32;
/// Connections in all: the largest clusters have 5,000 nodes.
const CONNECTIONS: usize = 8192;
/// After so long an agent must say again who it is: its token has ended by then, or it has gone.
const REVIEWED_FOR: Duration = Duration::from_mins(30);

type Lines = Framed<TlsStream<TcpStream>, LinesCodec>;

/// Listens for agents.
pub struct Listener {
    socket: TcpListener,
    tls: TlsAcceptor,
    certificate: String,
    places: Arc<Semaphore>,
    meetings: Arc<Semaphore>,
}

/// Why it cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The address is taken, or is none of this machine's.
    #[error("cannot listen for agents on {address}: {error}; choose another address with --reports")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// No certificate can be made.
    #[error("no certificate for the connections of agents: {0}")]
    Certificate(#[from] rcgen::Error),
    /// It cannot be used.
    #[error("no TLS for the connections of agents: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

impl Listener {
    /// Listens there, with a certificate of its own.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenerError> {
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let socket = TcpListener::bind(address).await.map_err(|error| ListenerError::Bind { address, error })?;
        Ok(Self {
            socket,
            tls: TlsAcceptor::from(Arc::new(config)),
            certificate: made.cert.pem(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            meetings: Arc::new(Semaphore::new(MEETINGS)),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Serves until it is dropped; connections end with it.
    pub async fn serve(&self, agents: Agents, reports: Arc<Reports>) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let (stream, peer) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!("an agent's connection was not accepted: {error}");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, meetings) = (self.tls.clone(), Arc::clone(&self.meetings));
            let (agents, reports) = (agents.clone(), Arc::clone(&reports));
            connections.spawn(async move {
                match timeout(MEETING, meet(stream, tls, &meetings, &agents)).await {
                    Ok(Ok((node, lines))) => {
                        let why = timeout(REVIEWED_FOR, hear(&node, lines, &reports)).await;
                        debug!(
                            node,
                            why = why.unwrap_or("its token is to be reviewed again"),
                            "an agent is not heard any more"
                        );
                    }
                    Ok(Err(why)) => debug!(%peer, "not heard as an agent: {why}"),
                    Err(_) => debug!(%peer, "not heard as an agent: it does not say who it is"),
                }
                drop(place);
            });
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Unmet {
    #[error("no TLS: {0}")]
    Tls(#[from] io::Error),
    #[error("no lines: {0}")]
    Lines(#[from] LinesCodecError),
    #[error("it has closed the connection")]
    Closed,
    #[error(transparent)]
    Unreadable(#[from] sidetrack_acknowledge::UnreadableLine),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Finds out whose connection it is.
async fn meet(
    stream: TcpStream,
    tls: TlsAcceptor,
    meetings: &Semaphore,
    agents: &Agents,
) -> Result<(String, Lines), Unmet> {
    let _turn = meetings.acquire().await;
    stream.set_nodelay(true)?;
    let mut lines = Framed::new(tls.accept(stream).await?, LinesCodec::new_with_max_length(LONGEST_LINE));
    let hello = Hello::read(&lines.next().await.ok_or(Unmet::Closed)??)?;
    match agents.node_of(hello.token).await {
        Ok(node) => {
            lines.send(Answer::Heard { node: node.clone() }.text()).await?;
            info!(node, version = hello.version, "an agent is heard");
            Ok((node, lines))
        }
        Err(refusal) => {
            lines.send(Answer::Refused { why: refusal.to_string() }.text()).await?;
            Err(refusal.into())
        }
    }
}

/// A stream that is open; it ends with this, however that ends.
struct Open<'a> {
    reports: &'a Reports,
    stream: sidetrack_acknowledge::Stream,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.reports.end(&self.stream);
    }
}

/// Hears a node's lines to their end. Returns why they have ended.
async fn hear(node: &str, mut lines: Lines, reports: &Reports) -> &'static str {
    let open = Open { reports, stream: reports.begin(node) };
    loop {
        let line = match timeout(SILENCE, lines.next()).await {
            Ok(Some(Ok(line))) => line,
            Ok(Some(Err(_)) | None) => return "it has closed the connection",
            Err(_) => return "it says nothing",
        };
        match Line::read(&line) {
            Ok(line) => {
                if !reports.hear(&open.stream, line) {
                    return "another of its node has taken its place";
                }
            }
            // A later version may say more than is understood here.
            Err(error) => debug!(node, "{error}"),
        }
    }
}
