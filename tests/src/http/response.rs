//! Responses, and the rules of their framing (RFC 9112, section 6.3).

use super::{HttpError, Result};
use crate::digest::{Digest, body};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
    Rest,
}

/// Status line and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |what: &str| HttpError::Framing(format!("{what}: {:.200}", String::from_utf8_lossy(bytes)));
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("a head that is no text"))?;
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let status = status.and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse().ok());
        let status = status.ok_or_else(|| wrong("no status line where one is due"))?;
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':')?;
                let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
                token.then(|| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| wrong("a line that is no header"))?;
        Ok(Self { status, headers })
    }

    /// The value of the first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a header has that value.
    #[must_use]
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.header(name).is_some_and(|v| v.eq_ignore_ascii_case(value))
    }

    pub(super) fn framing(&self, to_head_request: bool) -> Result<Framing> {
        let lengths: Vec<_> = self.headers.iter().filter(|(name, _)| name == "content-length").collect();
        let chunked = self.has("transfer-encoding", "chunked");
        if lengths.len() > 1 || (chunked && !lengths.is_empty()) {
            return Err(HttpError::Framing(format!("more than one framing in {:?}", self.headers)));
        }
        if to_head_request || self.status < 200 || self.status == 204 || self.status == 304 {
            return Ok(Framing::None);
        }
        if chunked {
            return Ok(Framing::Chunked);
        }
        let Some((_, length)) = lengths.first() else { return Ok(Framing::Rest) };
        let length = length.parse().map_err(|_| HttpError::Framing(format!("{length:?} is no length")))?;
        Ok(Framing::Length(length))
    }
}

/// A whole response.
#[derive(Clone)]
pub struct Response {
    /// Status line and headers.
    pub head: Head,
    /// The interim statuses that came before it.
    pub interim: Vec<u16>,
    /// The body; empty when it was too long to keep.
    pub body: Vec<u8>,
    /// Length and digest of the body.
    pub digest: Digest,
}

/// What the lab's [`Origin`](crate::Origin) says about a request that it served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who served it.
    pub server: String,
    /// The request's method.
    pub method: String,
    /// The request's target.
    pub target: String,
    /// Bytes of the request's body.
    pub length: u64,
    /// Their digest.
    pub digest: String,
}

impl fmt::Debug for Response {
    /// The body as text, and no more of it than a person would read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]);
        let Head { status, headers } = &self.head;
        write!(f, "{status} {headers:?} after {:?}, {} bytes: {text:?}", self.interim, self.digest.len())
    }
}

impl Response {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Who served it, empty when nobody said so.
    #[must_use]
    pub fn served_by(&self) -> &str {
        self.head.header("x-served-by").unwrap_or_default()
    }

    /// What the origin says about the request.
    ///
    /// # Errors
    /// When the body is no such thing.
    pub fn answer(&self) -> anyhow::Result<Answer> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not an answer of the origin: {:.200}", String::from_utf8_lossy(&self.body)))
    }

    /// Fails unless `server` served it and the body is the first `length` bytes of that server's own stream.
    ///
    /// # Errors
    /// Says what differs, and where.
    pub fn verify_bytes(&self, server: &str, length: usize) -> anyhow::Result<()> {
        ensure!(self.status() == 200, "status {}", self.status());
        ensure!(self.served_by() == server, "served by {:?}, not by {server:?}", self.served_by());
        ensure!(self.digest.len() == length as u64, "{} bytes in place of {length}", self.digest.len());
        let want = body(server, length);
        if Digest::of(&want) != self.digest.hex() {
            let at = want.iter().zip(&self.body).position(|(a, b)| a != b);
            anyhow::bail!("the body is not {server}'s own from byte {at:?} on");
        }
        Ok(())
    }

    /// Fails unless `server` served it and received `body` whole, as its answer to `/echo` says.
    ///
    /// # Errors
    /// Says what differs.
    pub fn verify_echo(&self, server: &str, body: &[u8]) -> anyhow::Result<()> {
        self.verify_upload(server, body.len() as u64, &Digest::of(body))
    }

    /// The same with a body known by its length and digest.
    ///
    /// # Errors
    /// Says what differs.
    pub fn verify_upload(&self, server: &str, length: u64, digest: &str) -> anyhow::Result<()> {
        ensure!(self.status() == 200, "status {}", self.status());
        ensure!(self.served_by() == server, "served by {:?}, not by {server:?}", self.served_by());
        let answer = self.answer()?;
        ensure!(answer.server == server, "the body says {:?}, the header {server:?}", answer.server);
        ensure!(answer.length == length, "{} bytes arrived of {length}", answer.length);
        ensure!(answer.digest == digest, "other bytes arrived than were sent");
        Ok(())
    }
}
