//! Where the route table comes from.
//!
//! A [`RouteSource`] gives out each valid table over a watch channel. An invalid file is logged and changes nothing: the
//! last valid table stays in force.

pub mod cluster;
pub mod file;
mod watch;

use std::{path::PathBuf, sync::Arc};

use sidetrack_acknowledge::Report;
use sidetrack_splice::table::RouteTable;
use tokio::{sync::watch as channel, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use crate::document::{DocumentError, Mistake};

/// Where the route table comes from.
#[derive(Clone)]
pub enum RouteSource {
    /// A file with one `RouteTable` object, read again whenever it changes.
    File(PathBuf),
    /// A cluster's API server.
    Cluster(cluster::Cluster),
}

/// What a source gives out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// Where keys are to lead.
    pub table: RouteTable,
    /// Which Sandboxes that is; of a file, none.
    pub report: Report,
}

/// A source at work.
#[derive(Debug)]
pub struct Routes {
    /// What is meant, with the latest valid table; `None` until there is one.
    pub meant: channel::Receiver<Option<Arc<Meant>>>,
    /// Why there is none, if the source was invalid at the start. It has not been logged.
    pub first_error: Option<DocumentError>,
    /// Ends when the token is cancelled.
    pub task: JoinHandle<()>,
}

/// A source that cannot be followed at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file's directory cannot be watched.
    #[error("{}: its directory cannot be watched ({source}): {hint}", path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
        /// What to do about it.
        hint: &'static str,
    },
}

impl RouteSource {
    /// Reads the first table and follows the source from then on, until the token is cancelled. Must be called in a tokio
    /// runtime with IO and time.
    pub fn start(self, stop: CancellationToken) -> Result<Routes, SourceError> {
        match self {
            Self::File(path) => watch::start(path, stop),
            Self::Cluster(cluster) => Ok(cluster::start(cluster, stop)),
        }
    }
}
