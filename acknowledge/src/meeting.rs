//! How an agent and the controller's leader meet: over TLS, in lines of JSON.
//!
//! The leader makes itself a certificate and says in the annotations of its Lease where it listens and which certificate that is: whoever
//! may write the Lease is believed. The agent says who it is by a token of its ServiceAccount for [`AUDIENCE`], which the leader has
//! the API server review; the node that it speaks for is the one of the token's pod.
//!
//! The agent's first line is a [`Hello`], the leader's an [`Answer`]; [`crate::Line`]s follow, with a beat every [`BEAT`]. Either may close
//! at any time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::line::UnreadableLine;

/// The Lease that the controller's leader holds.
pub const LEASE: &str = "sidetrack-controller";
/// Its annotation with the address at which reports are heard: `10.0.0.7:15443`.
pub const ANNOTATION_ADDRESS: &str = "sidetrack.dev/reports-to";
/// Its annotation with the certificate there, in PEM.
pub const ANNOTATION_CERTIFICATE: &str = "sidetrack.dev/reports-certificate";
/// The name that the certificate is for.
pub const SERVER_NAME: &str = "sidetrack-controller";
/// The audience of an agent's token.
pub const AUDIENCE: &str = "sidetrack.dev/controller";
/// How often an agent says something.
pub const BEAT: Duration = Duration::from_secs(5);
/// Whoever says nothing for so long is gone.
pub const SILENCE: Duration = Duration::from_secs(16);
/// The longest line, in bytes: a token has some thousand.
pub const LONGEST_LINE: usize = 16 << 10;

/// An agent's first line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Its ServiceAccount's token for [`AUDIENCE`].
    pub token: String,
    /// Its version, for people.
    pub version: String,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The leader's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub enum Answer {
    /// It hears what the agent says of this node.
    Heard {
        /// The node.
        node: String,
    },
    /// It does not.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

macro_rules! line {
    ($($type:ty),*) => {$(
        impl $type {
            /// As one line of JSON, without its end.
            #[must_use]
            pub fn text(&self) -> String {
                serde_json::to_string(self).expect("strings and numbers are JSON")
            }

            /// Reads one.
            pub fn read(text: &str) -> Result<Self, UnreadableLine> {
                serde_json::from_str(text).map_err(UnreadableLine)
            }
        }
    )*};
}

line!(Hello, Answer, crate::Line);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_and_never_logged() {
        let hello = Hello { token: "secret".to_owned(), version: "0.1.0".to_owned() };
        assert_eq!(Hello::read(&hello.text()).expect("it was written here"), hello);
        assert!(!format!("{hello:?}").contains("secret"));
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        for answer in [Answer::Heard { node: "a".to_owned() }, Answer::Refused { why: "expired".to_owned() }] {
            assert_eq!(Answer::read(&answer.text()).expect("it was written here"), answer);
        }
    }
}
