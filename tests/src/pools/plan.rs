//! What a client is to do, as a text that a program in any language reads word by word.
//!
//! | line | means |
//! |---|---|
//! | `stop PATH` | end as soon as this file is there |
//! | `workers N` | so many requests at a time |
//! | `pause MS` | each worker rests for up to so long between two requests |
//! | `header NAME VALUE` | a header of every request |
//! | `url URL` | where to send requests; of several lines one at random |
//! | `stream SERVER PATH` | the file with the beginning of that server's own stream |
//! | `kind NAME SERVERS [HEADER VALUE]` | a kind of request, who may answer it (with commas), and its header; of several lines one at random |
//!
//! No word has a space in it. A client sends, at random, `GET /bytes/N`, `GET /chunked/N/5`, `HEAD /bytes/N` and `POST /mirror` with a
//! part of any stream as its body, with a length or chunked. N is mostly at most [`USUAL`], now and then up to [`LONGEST`].
//! Every request has the headers [`KIND`] and [`SENT`].

use super::stage::Stage;
use std::{fmt::Write as _, net::SocketAddr, path::PathBuf};

/// The header that says which kind a request is of.
pub const KIND: &str = "x-kind";
/// The header that says when it was sent: microseconds since 1970.
pub const SENT: &str = "x-sent";
/// The header that says which client sent it.
pub const CLIENT: &str = "x-client";
/// What a body is mostly at most long.
pub const USUAL: usize = 64 << 10;
/// What a body is at most long.
pub const LONGEST: usize = 512 << 10;
/// So many requests a client has under way.
pub const WORKERS: usize = 6;
/// A worker rests for up to so many milliseconds: two processors are there for all clients, servers and proxies.
pub const PAUSE: u64 = 100;

/// A kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// Who may answer it, at one time or another.
    pub servers: &'static [&'static str],
    /// The header that holds its key.
    pub header: Option<(&'static str, String)>,
}

/// What one client is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub client: String,
    /// Where it sends its requests.
    pub to: Vec<SocketAddr>,
    /// What it sends.
    pub kinds: Vec<Kind>,
    /// The file that ends it.
    pub stop: PathBuf,
}

impl Plan {
    /// As a client reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("stop {}\nworkers {WORKERS}\npause {PAUSE}\n", self.stop.display());
        // A String takes all that is written to it.
        let _ = writeln!(text, "header {CLIENT} {}", self.client);
        for to in &self.to {
            let _ = writeln!(text, "url http://{to}");
        }
        for server in Stage::SERVERS {
            let _ = writeln!(text, "stream {server} {}", Stage::stream(server).display());
        }
        for kind in &self.kinds {
            let _ = write!(text, "kind {} {}", kind.name, kind.servers.join(","));
            if let Some((name, value)) = &kind.header {
                let _ = write!(text, " {name} {value}");
            }
            text.push('\n');
        }
        text
    }
}
