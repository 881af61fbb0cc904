//! The client's side: requests that are timed, and checked against who had to answer.

use super::{
    report::{Connection, Row},
    shop::{MEBIBYTE, Shop},
};
use crate::{
    Http, HttpError, Request, Response,
    digest::{Digest, body},
    lab::Pod,
};
use anyhow::{Context, Result, ensure};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

/// A connection from a pod, opened by its first request.
#[derive(Debug)]
pub struct Visitor {
    pod: Pod,
    to: SocketAddr,
    http: Option<Http>,
}

/// What is asked, and who has to answer.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The target, one of those that [`Server`](super::server::Server) knows.
    pub target: &'a str,
    /// The key.
    pub key: Option<&'a str>,
    /// The servers that have to take part.
    pub by: &'a [&'a str],
}

impl Visitor {
    /// One that has not connected yet.
    pub fn new(pod: &Pod, to: SocketAddr) -> Self {
        Self { pod: pod.clone(), to, http: None }
    }

    /// Its own address, once it has connected.
    pub fn local(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|http| http.local().ok())
    }

    /// Asks, and checks all that can be checked of the answer.
    pub fn ask(&mut self, shop: &Shop, ask: Ask) -> Row {
        let upload = (ask.target == "/upload").then(|| body("client", MEBIBYTE));
        let request = match &upload {
            Some(bytes) => Request::post(ask.target, bytes.clone()),
            None => Request::get(ask.target),
        };
        let request = request.maybe_key(ask.key);
        let mut row = self.row(ask, if upload.is_some() { "POST" } else { "GET" });
        let (outcome, time) = self.exchange(&request);
        row.seconds = time.as_secs_f64();
        row.slowest_seconds = row.seconds;
        let checked = outcome.map_err(anyhow::Error::from).and_then(|response| {
            row.answered = path(&response);
            check(shop, &response, ask, upload.as_deref())
        });
        conclude(&mut row, checked);
        if !row.ok {
            self.http = None;
        }
        row
    }

    /// A row that says what is about to be asked.
    pub fn row(&self, ask: Ask, method: &str) -> Row {
        Row {
            sent: format!("{method} {}", ask.target),
            key: ask.key.map(str::to_owned),
            connection: if self.http.is_some() { Connection::Kept } else { Connection::New },
            count: 1,
            expected: ask.by.iter().map(|&server| server.to_owned()).collect(),
            ..Row::default()
        }
    }

    /// One exchange and its time, that of the handshake included where there was one.
    pub fn exchange(&mut self, request: &Request) -> (Result<Response, HttpError>, Duration) {
        let dialled = self.dial();
        let began = Instant::now();
        let (http, dialling) = match dialled {
            Ok(it) => it,
            Err(error) => return (Err(error), Duration::ZERO),
        };
        let outcome = http.exchange(request);
        (outcome, dialling + began.elapsed())
    }

    /// The connection, and how long it took to open it.
    pub fn dial(&mut self) -> Result<(&mut Http, Duration), HttpError> {
        let mut time = Duration::ZERO;
        let http = if let Some(http) = self.http.take() {
            http
        } else {
            let dialled = self.pod.enter(|| {
                let began = Instant::now();
                (dial(self.to), began.elapsed())
            });
            let (http, took) = dialled.map_err(|error| HttpError::Io(std::io::Error::other(error)))?;
            time = took;
            http?
        };
        Ok((self.http.insert(http), time))
    }
}

/// Connects from the namespace of the calling thread.
pub fn dial(to: SocketAddr) -> Result<Http, HttpError> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Http::dial((any, 0).into(), to)
}

/// Who took part, by the answer's own words.
pub fn path(response: &Response) -> Vec<String> {
    let words = response.head.header("x-path").unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
}

/// Writes the outcome into the row.
pub fn conclude(row: &mut Row, checked: Result<Option<String>>) {
    match checked {
        Ok(note) => {
            row.note = note;
            row.ok = true;
        }
        Err(error) => row.error = Some(format!("{error:#}")),
    }
}

/// Fails unless those answered that had to, with the right bytes; what is worth a note.
fn check(shop: &Shop, response: &Response, ask: Ask, upload: Option<&[u8]>) -> Result<Option<String>> {
    ensure!(response.status() == 200, "status {}", response.status());
    let path = path(response);
    ensure!(path == ask.by, "answered by {}", if path.is_empty() { "nobody known".into() } else { path.join(", ") });
    let last = ask.by.last().copied().unwrap_or_default();
    if let Some(sent) = upload {
        let server = shop.server(last).context("only the shop's own servers answer")?;
        let arrived = server.received(&response.body)?;
        same(&arrived, &digest(sent)).context("on the server's disk")?;
        return Ok(Some(format!("digest {}", arrived.hex())));
    }
    if let Some(length) = ask.target.strip_prefix("/bytes/") {
        same(&response.digest, &digest(&body(last, length.parse()?)))?;
        return Ok(Some(format!("digest {}", response.digest.hex())));
    }
    ensure!(response.body == format!("{last}\n").as_bytes(), "the body is not {last}'s own: {response:?}");
    Ok(None)
}

/// Fails unless both are of the same bytes.
pub fn same(found: &Digest, wanted: &Digest) -> Result<()> {
    ensure!(found.len() == wanted.len(), "{} bytes in place of {}", found.len(), wanted.len());
    ensure!(found.hex() == wanted.hex(), "other bytes than were sent: {} in place of {}", found.hex(), wanted.hex());
    Ok(())
}

/// The digest of these bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.update(bytes);
    digest
}
