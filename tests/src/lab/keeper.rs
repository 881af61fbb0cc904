//! The thread that starts the lab's processes.
//!
//! A child's parent-death signal fires when the *thread* that started it ends (prctl(2)), so children must not be
//! started by whichever thread a test happens to be on.

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use std::{
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command},
    sync::mpsc,
    thread::JoinHandle,
};

type Job = Box<dyn FnOnce() + Send>;

/// Handle of the thread. It ends, and its children with it, when the handle is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread, in the mount namespace of the caller.
    pub(super) fn start() -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("lab-keeper".into())
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .context("cannot start a thread")?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Starts `command` in the lab's mount namespace and, if given, in a network namespace. It dies with the lab, and
    /// not before: a terminal's interrupt is for who has made the lab, and ends no server under a request.
    pub(super) fn spawn(&self, mut command: Command, netns: Option<&OwnedFd>) -> Result<Child> {
        let netns = netns.map(OwnedFd::try_clone).transpose()?;
        let name = format!("{command:?}");
        command.process_group(0);
        // SAFETY: between fork and exec only system calls are made (setns, prctl), which are async-signal-safe, and no
        // memory is allocated: an error carries a number.
        unsafe {
            command.pre_exec(move || {
                if let Some(netns) = &netns {
                    setns(netns, CloneFlags::CLONE_NEWNET)?;
                }
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let (reply, answer) = mpsc::sync_channel(1);
        // A caller that has gone needs no reply.
        let job = Box::new(move || drop(reply.send(command.spawn())));
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(|| anyhow!("the lab is closed"))?;
        answer.recv().context("the lab's keeper thread ended")?.with_context(|| format!("cannot start {name}"))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // The thread runs nothing that panics; were it otherwise, the children's end is all that matters here.
            drop(thread.join());
        }
    }
}
