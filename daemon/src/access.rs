//! How the API server of a cluster is reached.

use std::{env, path::PathBuf};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// How the API server is reached. Without a file: as `KUBECONFIG` says, else as the pod's ServiceAccount, else as
/// `~/.kube/config` says.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// A context in it; without one its current one.
    pub context: Option<String>,
}

/// Why it cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Nothing says where it is.
    #[error(
        "nothing says where the cluster is: name one by --kubeconfig or KUBECONFIG, or run as a pod with a ServiceAccount ({0})"
    )]
    Nothing(KubeconfigError),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {file} cannot be used: {error}")]
    Kubeconfig {
        /// The file, or where it was looked for.
        file: String,
        /// Why.
        error: KubeconfigError,
    },
    /// The pod's own token or authority cannot be read.
    #[error("the pod's ServiceAccount cannot be used: {0}; is its token mounted (automountServiceAccountToken)?")]
    InCluster(#[from] kube::config::InClusterError),
    /// What is said makes no client.
    #[error("no client for the cluster's API server: {0}")]
    Client(#[from] kube::Error),
}

impl Access {
    /// A client. Whether somebody answers is not asked.
    pub async fn client(&self) -> Result<Client, AccessError> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// What a client is made of: the server's address among it, and the namespace that is meant where none is named.
    pub async fn config(&self) -> Result<Config, AccessError> {
        let (file, read) = match &self.kubeconfig {
            Some(path) => (path.display().to_string(), Kubeconfig::read_from(path)),
            None => match Kubeconfig::from_env() {
                Ok(None) if self.context.is_none() && env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
                    return Ok(Config::incluster()?);
                }
                Ok(None) if self.context.is_none() => {
                    ("~/.kube/config".to_owned(), Ok(Kubeconfig::read().map_err(AccessError::Nothing)?))
                }
                Ok(None) => ("~/.kube/config".to_owned(), Kubeconfig::read()),
                Ok(Some(read)) => ("that KUBECONFIG names".to_owned(), Ok(read)),
                Err(error) => ("that KUBECONFIG names".to_owned(), Err(error)),
            },
        };
        let unusable = |error| AccessError::Kubeconfig { file: file.clone(), error };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(read.map_err(unusable)?, &options).await.map_err(unusable)
    }
}
