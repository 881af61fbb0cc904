//! The clients: whose pool of connections each is.

use super::{
    plan::Plan,
    program, proxy,
    said::Said,
    stage::{PORT, Stage},
    visitor,
};
use crate::{
    gate::Need,
    lab::{LAB_DIR, Pod},
    process::Process,
};
use anyhow::{Result, anyhow};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};

/// How long a client may take to end: its requests are given up after 30 s.
const END: Duration = Duration::from_mins(1);

/// Whose pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Go's `net/http`.
    Go,
    /// Node's undici.
    Undici,
    /// Python's requests, which is urllib3's.
    Requests,
    /// Python's aiohttp.
    Aiohttp,
    /// Java's `HttpClient`.
    Java,
    /// nginx in front.
    Nginx,
    /// haproxy in front.
    Haproxy,
}

impl Pool {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Go, Self::Undici, Self::Requests, Self::Aiohttp, Self::Java, Self::Nginx, Self::Haproxy];

    /// Its name, and its pod's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Undici => "undici",
            Self::Requests => "requests",
            Self::Aiohttp => "aiohttp",
            Self::Java => "java",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// What it needs of the machine.
    #[must_use]
    pub fn need(self) -> Need {
        match self {
            Self::Go => Need::Go,
            Self::Undici => Need::Undici,
            Self::Requests | Self::Aiohttp => Need::Python,
            Self::Java => Need::Java,
            Self::Nginx => Need::Nginx,
            Self::Haproxy => Need::Haproxy,
        }
    }

    /// The file that ends all clients.
    #[must_use]
    pub fn stop_file() -> PathBuf {
        Path::new(LAB_DIR).join("stop")
    }

    /// Starts it in `pod`. A proxy's requests come from `visitor`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self, stage: &Stage, pod: &Pod, visitor: &Pod) -> Result<Client> {
        let plan = |to: &[SocketAddr]| Plan {
            client: self.name().to_owned(),
            to: to.to_vec(),
            kinds: Stage::kinds(),
            stop: Self::stop_file(),
        };
        let work = match self {
            Self::Nginx | Self::Haproxy => {
                let to = if self == Self::Nginx { stage.service.v4 } else { stage.service.v6 };
                let start = if self == Self::Nginx { proxy::nginx } else { proxy::haproxy };
                let process = start(pod, to)?;
                let plan = plan(&[pod.v4_port(PORT)]);
                Work::Visitor { process, visitor: visitor::start(visitor, &plan)? }
            }
            _ => {
                let plan = plan(&[stage.service.v4, stage.service.v6]);
                Work::Program(program::start(&stage.lab, pod, self, &plan)?)
            }
        };
        Ok(Client { pool: self, work })
    }
}

/// A client at work.
#[derive(Debug)]
pub struct Client {
    /// Whose pool it has.
    pub pool: Pool,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Program(Process),
    Visitor { process: Process, visitor: JoinHandle<Result<Said>> },
}

impl Client {
    /// Fails, with its last words, if it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match &mut self.work {
            Work::Program(process) | Work::Visitor { process, .. } => process.check_alive(),
        }
    }

    /// What it has said, when it has ended: it was told to.
    ///
    /// # Errors
    /// When it does not end.
    pub fn said(self) -> Result<Said> {
        match self.work {
            Work::Program(mut process) => {
                process.wait(END)?;
                Ok(Said::read(process.output()))
            }
            Work::Visitor { mut process, visitor } => {
                let said = visitor.join().map_err(|_| anyhow!("a visitor has panicked"))??;
                process.check_alive()?;
                Ok(Said { other: process.output().lines(), ..said })
            }
        }
    }
}
