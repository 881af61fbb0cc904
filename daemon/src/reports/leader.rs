//! The controller's leader: its Lease says where it listens, and by which certificate it is known.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use sidetrack_acknowledge::meeting::{ANNOTATION_ADDRESS, ANNOTATION_CERTIFICATE, LEASE, SERVER_NAME};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Who leads.
#[derive(Debug)]
pub(super) struct Leader {
    holder: String,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
}

/// Why there is no connection to a leader.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaderError {
    #[error("the Lease {LEASE} in namespace {namespace} cannot be read: {error}; the agent needs the right to get it")]
    Api { namespace: String, error: Box<kube::Error> },
    #[error("nobody holds the Lease {LEASE} in namespace {0}: is the controller running?")]
    Nobody(String),
    #[error("the Lease {LEASE} does not say where reports are heard: annotation {annotation} {why}")]
    Unsaid { annotation: &'static str, why: String },
    #[error("no connection to the controller {holder} at {address}: {why}")]
    Unreachable { holder: String, address: SocketAddr, why: String },
}

impl Leader {
    /// Whoever holds the Lease in this namespace.
    pub(super) async fn find(client: &kube::Client, namespace: &str) -> Result<Self, LeaderError> {
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let lease = leases.get_opt(LEASE).await;
        let lease =
            lease.map_err(|error| LeaderError::Api { namespace: namespace.to_owned(), error: Box::new(error) })?;
        let lease = lease.ok_or_else(|| LeaderError::Nobody(namespace.to_owned()))?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
        let holder = holder.ok_or_else(|| LeaderError::Nobody(namespace.to_owned()))?;
        let annotations = lease.metadata.annotations.unwrap_or_default();
        let said = |annotation| {
            let text = annotations.get(annotation);
            text.ok_or_else(|| LeaderError::Unsaid { annotation, why: "is not there".to_owned() })
        };
        let unusable =
            |annotation, why: &dyn std::fmt::Display| LeaderError::Unsaid { annotation, why: why.to_string() };
        let address = said(ANNOTATION_ADDRESS)?.parse().map_err(|why| unusable(ANNOTATION_ADDRESS, &why))?;
        let certificate = CertificateDer::from_pem_slice(said(ANNOTATION_CERTIFICATE)?.as_bytes());
        let certificate = certificate.map_err(|why| unusable(ANNOTATION_CERTIFICATE, &why))?;
        Ok(Self { holder, address, certificate })
    }

    /// Who it is: the name of its pod.
    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    /// A connection to it, and to nobody else.
    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, LeaderError> {
        let unreachable = |why: &dyn std::fmt::Display| LeaderError::Unreachable {
            holder: self.holder.clone(),
            address: self.address,
            why: why.to_string(),
        };
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(|why| unreachable(&why))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| unreachable(&why))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(SERVER_NAME).map_err(|why| unreachable(&why))?;
        let connect = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        };
        let connected = timeout(CONNECT, connect).await.map_err(|_| unreachable(&"it does not answer"))?;
        connected.map_err(|why| unreachable(&why))
    }
}
