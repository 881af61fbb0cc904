//! One namespace, from its first reading to its end.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    netns::{Netns, NetnsId},
    pod::{Outcome, Pod},
    ready::register,
    rtnetlink::{self, Snapshot},
};

/// What a follower tells.
#[derive(Debug)]
pub(super) enum Finding {
    /// What the namespace looks like.
    State(Netns, Result<Pod, Outcome>),
    /// The follower has ended, and closed its socket in the namespace right behind this.
    Ended(NetnsId),
}

/// A CNI plugin sets addresses and routes in bursts. A pod that is attached waits for their end, one that is not is
/// looked at on every word: its first request may follow at once.
const BURST: Duration = Duration::from_millis(20);

/// After a reading that failed.
const AGAIN: Duration = Duration::from_millis(250);

/// Reads the namespace on every change until `end`.
pub(super) async fn follow(netns: Netns, tell: mpsc::Sender<Finding>, end: CancellationToken) {
    let mut monitor = None;
    // Ended by the token, or because nobody listens any more.
    let _ = end.run_until_cancelled(rounds(&netns, &tell, &mut monitor)).await;
    let _ = tell.send(Finding::Ended(netns.id())).await;
    drop(monitor);
}

async fn rounds(
    netns: &Netns,
    tell: &mpsc::Sender<Finding>,
    monitor: &mut Option<AsyncFd<OwnedFd>>,
) -> Result<(), mpsc::error::SendError<Finding>> {
    loop {
        let found = match read(netns, monitor).await {
            Ok(snapshot) => Pod::read(netns.clone(), &snapshot),
            Err(why) => Err(Outcome::Unreadable(why)),
        };
        let (failed, attached) = (matches!(found, Err(Outcome::Unreadable(_))), found.is_ok());
        tell.send(Finding::State(netns.clone(), found)).await?;
        match monitor {
            Some(monitor) if !failed => {
                let woken = monitor.readable().await.map(|mut guard| guard.clear_ready());
                if woken.is_err() {
                    sleep(AGAIN).await;
                } else if attached {
                    sleep(BURST).await;
                }
                rtnetlink::drain(monitor.get_ref());
            }
            _ => sleep(AGAIN).await,
        }
    }
}

/// Joins the notifications before the first reading, so that nothing is missed in between.
async fn read(netns: &Netns, monitor: &mut Option<AsyncFd<OwnedFd>>) -> Result<Snapshot, String> {
    let fresh = monitor.is_none();
    let work = move || -> io::Result<_> {
        let monitor = if fresh { Some(rtnetlink::monitor()?) } else { None };
        Ok((monitor, Snapshot::read()?))
    };
    let (opened, snapshot) =
        netns.enter(work).await.map_err(|e| e.to_string())?.map_err(|e| format!("rtnetlink: {e}"))?;
    if let Some(opened) = opened {
        *monitor = Some(register(opened, Interest::READABLE).map_err(|e| format!("epoll: {e}"))?);
    }
    Ok(snapshot)
}
