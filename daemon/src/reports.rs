//! What an agent tells the controller's leader: which Sandboxes are in force on its node.
//!
//! `leader` finds the leader and connects to it. The words are those of the crate `acknowledge`.

mod leader;

use std::{io, path::PathBuf, time::Duration};

use futures::{SinkExt, StreamExt};
use sidetrack_acknowledge::{
    Line, Report,
    meeting::{Answer, BEAT, Hello, LONGEST_LINE},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, timeout},
};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};
use tracing::{debug, info, warn};

use self::leader::{Leader, LeaderError};

/// How long the leader may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it is waited before the next attempt: from the shortest to the longest, twice as long each time.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Tells one node's report.
pub(crate) struct Reporter {
    /// The cluster in which the leader is.
    pub(crate) client: kube::Client,
    /// Namespace of the controller's Lease.
    pub(crate) namespace: String,
    /// File with the token that says who this is: read again each time, because it changes.
    pub(crate) token: PathBuf,
    /// What is in force.
    pub(crate) report: watch::Receiver<Report>,
}

/// Why nothing is told at the moment.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error(transparent)]
    Leader(#[from] LeaderError),
    #[error("the token {file} cannot be read: {error}; mount a projected ServiceAccount token there")]
    Token { file: PathBuf, error: io::Error },
    #[error("the connection to the controller has failed: {0}")]
    Connection(#[from] LinesCodecError),
    #[error("the controller has not answered within {ANSWER:?}")]
    NoAnswer,
    #[error("the controller has closed the connection")]
    Closed,
    #[error("the controller does not speak as it should: {0}")]
    Unreadable(#[from] sidetrack_acknowledge::UnreadableLine),
    #[error("the controller does not hear this agent: {0}")]
    Refused(String),
}

impl Reporter {
    /// Tells what is in force for ever; who hears it changes. Nothing that an agent does depends on it.
    pub(crate) async fn run(mut self) {
        let (shortest, longest) = PAUSES;
        let (mut pause, mut said) = (shortest, String::new());
        loop {
            let began = Instant::now();
            let Err(error) = self.tell().await else { return };
            if began.elapsed() > longest {
                pause = shortest;
            }
            // A leader that has changed is no news, and the same reason is said once.
            let text = error.to_string();
            if matches!(error, ReportError::Closed) || text == said {
                debug!("not telling the controller what is in force: {error}");
            } else {
                warn!("not telling the controller what is in force, trying again: {error}");
                said = text;
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Meets the leader, tells it everything and then what changes. Ends without an error where the agent does.
    async fn tell(&mut self) -> Result<(), ReportError> {
        let token = tokio::fs::read_to_string(&self.token).await;
        let token = token.map_err(|error| ReportError::Token { file: self.token.clone(), error })?;
        let leader = Leader::find(&self.client, &self.namespace).await?;
        let mut lines = Framed::new(leader.connect().await?, LinesCodec::new_with_max_length(LONGEST_LINE));
        let hello = Hello { token: token.trim().to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        lines.send(hello.text()).await?;
        let answer = timeout(ANSWER, lines.next()).await.map_err(|_| ReportError::NoAnswer)?;
        let node = match Answer::read(&answer.ok_or(ReportError::Closed)??)? {
            Answer::Heard { node } => node,
            Answer::Refused { why } => return Err(ReportError::Refused(why)),
        };
        info!(node, leader = leader.holder(), "telling the controller what is in force");
        let mut told = self.report.borrow_and_update().clone();
        for line in Line::between(&Report::new(), &told) {
            lines.feed(line.text()).await?;
        }
        lines.send(Line::Told.text()).await?;
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.report.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let report = self.report.borrow_and_update().clone();
                    for line in Line::between(&told, &report) {
                        lines.feed(line.text()).await?;
                    }
                    SinkExt::<String>::flush(&mut lines).await?;
                    told = report;
                }
                _ = beat.tick() => lines.send(Line::Beat.text()).await?,
                said = lines.next() => match said {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(ReportError::Closed),
                },
            }
        }
    }
}

/// Between half of it and all: agents that lost one leader at one moment do not come to the next at one moment.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let part = RandomState::new().hash_one(0) % 512 + 512;
    pause * u32::try_from(part).unwrap_or(1024) / 1024
}
