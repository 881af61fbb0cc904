//! One connection: requests in, one after the other, answers out.

use super::{
    journal::{Journal, Seen},
    reply::{self, Reply},
};
use crate::{digest::Digest, http::Answer};
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

/// Longest request head that is read.
const HEAD_MAX: usize = 512 << 10;

/// What a request's body is framed by.
enum Framing {
    Length(u64),
    Chunked,
}

struct Connection<'a> {
    name: &'a str,
    journal: &'a Journal,
    number: u64,
    client: SocketAddr,
    input: BufReader<&'a TcpStream>,
    output: &'a TcpStream,
    /// Whether each answer is its connection's last.
    draining: &'a AtomicBool,
    /// The body of the request, where the answer needs it.
    kept: Option<Vec<u8>>,
}

/// Serves until the client leaves or something is wrong.
pub(super) fn connection(
    name: &str,
    journal: &Journal,
    number: u64,
    client: SocketAddr,
    stream: &TcpStream,
    draining: &AtomicBool,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    journal.opened();
    let input = BufReader::with_capacity(256 << 10, stream);
    let mut connection = Connection { name, journal, number, client, input, output: stream, draining, kept: None };
    let result = connection.run();
    journal.ended(number);
    result
}

impl Connection<'_> {
    fn run(&mut self) -> io::Result<()> {
        while let Some(head) = self.head()? {
            let Some(seen) = self.parse(&head) else {
                self.journal.partial(self.number, &head);
                return self
                    .output
                    .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            };
            if !self.exchange(seen)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads up to the empty line. Every byte of an unfinished head is in the journal at once.
    fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut head = Vec::new();
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let before = head.len();
            head.extend_from_slice(buffer);
            let from = before.saturating_sub(3);
            if let Some(at) = head[from..].windows(4).position(|w| w == b"\r\n\r\n") {
                let end = from + at + 4;
                head.truncate(end);
                self.input.consume(end - before);
                return Ok(Some(head));
            }
            let all = head.len() - before;
            self.input.consume(all);
            self.journal.partial(self.number, &head);
            if head.len() > HEAD_MAX {
                return Err(io::Error::new(ErrorKind::InvalidData, "a head without an end"));
            }
        }
    }

    fn parse(&self, head: &[u8]) -> Option<Seen> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.trim_start_matches("\r\n").trim_end_matches("\r\n").split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target, version) = (first.next()?, first.next()?, first.next()?);
        if first.next().is_some() || !version.starts_with("HTTP/1.") {
            return None;
        }
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Some(Seen {
            at: SystemTime::now(),
            connection: self.number,
            client: self.client,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers.collect::<Option<_>>()?,
            length: 0,
            digest: None,
        })
    }

    /// Whether another request may follow.
    fn exchange(&mut self, seen: Seen) -> io::Result<bool> {
        let framing = match seen.header("transfer-encoding") {
            Some(_) => Framing::Chunked,
            None => Framing::Length(seen.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0)),
        };
        let expects = seen.header("expect").is_some();
        let close = seen.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        let mut answer = Answer {
            server: self.name.to_owned(),
            method: seen.method.clone(),
            target: seen.target.clone(),
            length: 0,
            digest: String::new(),
        };
        let reply = Reply::to(&seen.target);
        let number = self.journal.head(seen);
        if reply == Reply::Refuse && expects {
            reply::send(self.output, &answer, &reply, &[], false)?;
            return Ok(true);
        }
        if reply == Reply::Early {
            reply::send(self.output, &answer, &reply, &[], close)?;
        }
        if expects {
            self.output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.kept = (reply == Reply::Mirror).then(Vec::new);
        let digest = self.body(&framing, number)?;
        (answer.length, answer.digest) = (digest.len(), digest.hex());
        let last = close || reply.ends_connection() || self.draining.load(Ordering::SeqCst);
        match reply {
            // What it said of the connection's end holds.
            Reply::Early => return Ok(!close),
            Reply::Cut { .. } | Reply::Reset => {
                if reply != Reply::Reset {
                    reply::send(self.output, &answer, &reply, &[], false)?;
                }
                socket2::SockRef::from(self.output).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
            _ => reply::send(self.output, &answer, &reply, self.kept.as_deref().unwrap_or_default(), last)?,
        }
        Ok(!last)
    }

    fn body(&mut self, framing: &Framing, number: usize) -> io::Result<Digest> {
        let mut digest = Digest::default();
        match framing {
            Framing::Length(length) => self.take(*length, &mut digest, number)?,
            Framing::Chunked => loop {
                let size = self.line()?;
                let size = u64::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("{size:?} is no chunk size")))?;
                self.take(size, &mut digest, number)?;
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    break;
                }
                if !self.line()?.is_empty() {
                    return Err(io::Error::new(ErrorKind::InvalidData, "no line end after a chunk"));
                }
            },
        }
        self.journal.body(number, digest.len(), Some(digest.hex()));
        Ok(digest)
    }

    fn take(&mut self, length: u64, digest: &mut Digest, number: usize) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let part = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            digest.update(&buffer[..part]);
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(&buffer[..part]);
            }
            self.input.consume(part);
            left -= part as u64;
            self.journal.body(number, digest.len(), None);
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.input).take(1024).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None => Err(io::Error::new(ErrorKind::InvalidData, "a line without an end")),
        }
    }
}
