//! The application of the cluster under test: a server that says what reached it, and a client whose first act is a request.

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use sidetrack_tests::{Http, Origin, Request};
use std::{
    io::Write as _,
    net::{Ipv6Addr, SocketAddr, TcpListener},
    process::ExitCode,
    thread,
    time::Duration,
};

/// How often it is looked what has reached the server.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Parser)]
#[command(version)]
enum Cli {
    /// Does nothing until it is told to end
    Pause,
    /// Serves requests, and says of each its key and its target: `got KEY /`, or `got - /`
    Serve {
        /// What it calls itself in its answers
        name: String,
        /// On all addresses of both families
        port: u16,
    },
    /// Asks once, and says who has answered: `by NAME`
    Ask {
        /// The service
        address: SocketAddr,
        /// The key that the request has
        #[arg(long)]
        key: Option<String>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Pause => until_told(|| Ok(())),
        Cli::Serve { name, port } => until_told(|| serve(&name, port)),
        Cli::Ask { address, key } => ask(address, key.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first process of a container has no ending but the one that it makes itself.
fn until_told(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    // Before any thread starts, so that none gets them.
    signals.thread_block()?;
    work()?;
    signals.wait()?;
    Ok(())
}

fn serve(name: &str, port: u16) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("cannot listen on {port}"))?;
    let origin = Origin::serve(listener, name)?;
    thread::spawn(move || {
        loop {
            for seen in origin.journal().take() {
                // Nobody may read it; then nothing is to be said.
                drop(writeln!(std::io::stdout(), "got {} {}", seen.key().unwrap_or("-"), seen.target));
            }
            thread::sleep(LOOK);
        }
    });
    Ok(())
}

fn ask(address: SocketAddr, key: Option<&str>) -> Result<()> {
    let any = SocketAddr::new(if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
    let mut http = Http::dial(any, address).context("cannot connect")?;
    let answer = http.exchange(&Request::get("/").maybe_key(key))?;
    ensure!(!answer.served_by().is_empty(), "an answer of nobody's");
    writeln!(std::io::stdout(), "by {}", answer.served_by()).context("nobody reads the answer")
}
