//! Child processes that are killed with their handle, and whose output is kept.

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// A running process, killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Output,
    readers: Vec<JoinHandle<()>>,
}

/// What a process has written so far, line by line, both streams together.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Mutex<Vec<String>>>);

impl Output {
    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last lines, for a message.
    #[must_use]
    pub fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let output = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                output.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        })
    }
}

impl Process {
    /// Takes over a child whose output streams, where piped, are read from here on.
    #[must_use]
    pub fn new(name: &str, mut child: Child) -> Self {
        let output = Output::default();
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|stream| output.follow(stream)));
        readers.extend(child.stderr.take().map(|stream| output.follow(stream)));
        Self { name: name.to_owned(), child, output, readers }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Fails, with its last words, if it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.drain();
            bail!("{} ended ({status}); its last lines:\n{}", self.name, self.output.tail());
        }
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits until it ends.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let name = format!("{} to end", self.name);
        let status = crate::wait_for(&name, within, || self.child.try_wait().transpose())??;
        self.drain();
        Ok(status)
    }

    /// Kills it with `SIGKILL` and waits for its end.
    pub fn kill9(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait()?;
        self.drain();
        Ok(())
    }

    fn drain(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader ends when the stream does, and panics at nothing.
            drop(reader.join());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already: then both fail, and nothing is left to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
