//! A client that controls every byte it sends and distrusts every byte it gets.

mod request;
mod response;

pub use request::Request;
pub use response::{Answer, Head, Response};

use crate::digest::Digest;
use response::Framing;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

/// How long a client waits for a byte before it gives up: longer than any delay that a test allows.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Longest body that a response keeps; of a longer one it keeps the digest.
const KEEP: u64 = 64 << 20;
/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// Longest response head that is read.
const HEAD_MAX: usize = 64 << 10;

/// What a client meets in place of an answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection was refused.
    #[error("connection refused")]
    Refused,
    /// The connection was reset.
    #[error("connection reset")]
    Reset,
    /// The connection was closed before the answer was complete.
    #[error("connection closed, {0} bytes of an incomplete answer before that")]
    Closed(usize),
    /// No byte came within the client's patience.
    #[error("no answer within the client's patience")]
    Timeout,
    /// What came is not the answer to what was asked.
    #[error("bad framing: {0}")]
    Framing(String),
    /// Anything else.
    #[error(transparent)]
    Io(std::io::Error),
}

impl From<std::io::Error> for HttpError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Self::Reset,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

/// Shorthand of this module.
pub type Result<T, E = HttpError> = std::result::Result<T, E>;

/// One connection.
#[derive(Debug)]
pub struct Http {
    stream: TcpStream,
    /// Bytes received and not yet consumed.
    buffer: Vec<u8>,
    /// Where the kernel puts what comes next.
    piece: Box<[u8]>,
    open: bool,
}

impl Http {
    /// Connects from the calling thread's namespace. Port zero in `from` means any; `SO_REUSEADDR` is set, so that a
    /// port in TIME-WAIT may be used again.
    pub fn dial(from: SocketAddr, to: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if from.port() != 0 {
            socket.bind(&from.into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        Self::over(socket.into())
    }

    /// Speaks over a stream that is connected already.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new(), piece: vec![0; PIECE].into(), open: true })
    }

    /// Sets how long it waits for a byte.
    pub fn patience(&mut self, patience: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(patience))?)
    }

    /// Its own address.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// The stream itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether another request may follow on it, as far as the answers said.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Sends the request and reads its answer. Fails if bytes had come that nobody asked for.
    pub fn exchange(&mut self, request: &Request) -> Result<Response> {
        self.quiet()?;
        self.send(&request.wire())?;
        self.response(request)
    }

    /// Sends these bytes in one write.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends these bytes in parts, each in a segment of its own: `cuts` are offsets, ascending.
    pub fn send_cut(&mut self, bytes: &[u8], cuts: &[usize]) -> Result<()> {
        let mut from = 0;
        for &to in cuts.iter().chain([&bytes.len()]) {
            self.send(&bytes[from..to])?;
            from = to;
        }
        Ok(())
    }

    /// Sends these bytes in parts of `size`, each in a segment of its own.
    pub fn send_in_parts(&mut self, bytes: &[u8], size: usize) -> Result<()> {
        bytes.chunks(size).try_for_each(|part| self.send(part))
    }

    /// Waits until the other side has acknowledged all that was sent.
    pub fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.unacknowledged()? > 0 {
            if Instant::now() > deadline {
                return Err(HttpError::Timeout);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn unacknowledged(&self) -> Result<i32> {
        let mut bytes = 0;
        // SAFETY: TIOCOUTQ (tcp(7): SIOCOUTQ) writes one int, into memory that outlives the call.
        let result = unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if result != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(bytes)
    }

    /// Sends `length` bytes that `make` writes piece by piece, given the offset; their digest.
    pub fn send_made(&mut self, length: u64, mut make: impl FnMut(u64, &mut [u8])) -> Result<Digest> {
        let mut digest = Digest::default();
        let mut piece = vec![0; 256 << 10];
        while digest.len() < length {
            let part = &mut piece[..(length - digest.len()).min(256 << 10) as usize];
            make(digest.len(), part);
            digest.update(part);
            self.stream.write_all(part)?;
        }
        Ok(digest)
    }

    /// Reads the whole answer to `request`.
    pub fn response(&mut self, request: &Request) -> Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = self.head()?;
            if (100..200).contains(&head.status) && head.status != 101 {
                interim.push(head.status);
                continue;
            }
            let (body, digest) = self.body(&head, request.is_head())?;
            return Ok(Response { head, interim, body, digest });
        }
    }

    /// Reads the next head, of an interim answer too.
    pub fn head(&mut self) -> Result<Head> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(HttpError::Framing("a head without an end".into()));
            }
            self.more()?;
        };
        let head = Head::parse(&self.buffer[..end])?;
        self.buffer.drain(..end);
        Ok(head)
    }

    /// Reads the body that belongs to `head`; the bytes, unless they are too many to keep, and their digest.
    pub fn body(&mut self, head: &Head, to_head_request: bool) -> Result<(Vec<u8>, Digest)> {
        let mut sink = Sink::default();
        let framing = head.framing(to_head_request)?;
        self.open &= framing != Framing::Rest && !head.has("connection", "close");
        match framing {
            Framing::None => {}
            Framing::Length(length) => self.take(length, &mut sink)?,
            Framing::Chunked => self.chunks(&mut sink)?,
            Framing::Rest => self.rest(&mut sink)?,
        }
        Ok((sink.kept, sink.digest))
    }

    /// Reads exactly `length` bytes of whatever comes.
    pub fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut sink = Sink::default();
        self.take(length as u64, &mut sink)?;
        Ok(sink.kept)
    }

    /// Fails if a byte is there that belongs to no answer asked for, or if the server has closed.
    pub fn quiet(&mut self) -> Result<()> {
        self.stream.set_nonblocking(true)?;
        let more = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match more {
            Ok(0) => return Err(HttpError::Closed(self.buffer.len())),
            Err(error) if error.kind() == ErrorKind::WouldBlock && self.buffer.is_empty() => return Ok(()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        let shown = String::from_utf8_lossy(&self.buffer);
        Err(HttpError::Framing(format!(
            "bytes that nobody asked for, {} of them read: {shown:.100}",
            self.buffer.len()
        )))
    }

    /// Ends the sending side.
    pub fn finish(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Waits for the end of the connection and says how it came: `Ok` is an orderly close. A byte is an error.
    pub fn end(&mut self) -> Result<()> {
        match self.more() {
            Err(HttpError::Closed(0)) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(HttpError::Framing(format!("{} bytes where the end was expected", self.buffer.len()))),
        }
    }

    /// Closes with a reset, so that the port is free at once.
    pub fn abort(self) -> Result<()> {
        let socket = socket2::SockRef::from(&self.stream);
        Ok(socket.set_linger(Some(Duration::ZERO))?)
    }

    fn more(&mut self) -> Result<()> {
        loop {
            match self.stream.read(&mut self.piece) {
                Ok(0) => return Err(HttpError::Closed(self.buffer.len())),
                Ok(length) => {
                    self.buffer.extend_from_slice(&self.piece[..length]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, length: u64, sink: &mut Sink) -> Result<()> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() {
                self.more()?;
            }
            let part = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink.push(&self.buffer[..part]);
            self.buffer.drain(..part);
            left -= part as u64;
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(HttpError::Framing("a line without an end".into()));
            }
            self.more()?;
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 2);
        Ok(line)
    }

    fn chunks(&mut self, sink: &mut Sink) -> Result<()> {
        loop {
            let line = self.line()?;
            let size = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                .map_err(|_| HttpError::Framing(format!("{line:?} is no chunk size")))?;
            self.take(size, sink)?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(());
            }
            let end = self.line()?;
            if !end.is_empty() {
                return Err(HttpError::Framing(format!("{end:?} after a chunk")));
            }
        }
    }

    fn rest(&mut self, sink: &mut Sink) -> Result<()> {
        loop {
            sink.push(&self.buffer);
            self.buffer.clear();
            match self.more() {
                Err(HttpError::Closed(_)) => return Ok(()),
                other => other?,
            }
        }
    }
}

#[derive(Default)]
struct Sink {
    kept: Vec<u8>,
    digest: Digest,
}

impl Sink {
    fn push(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        if self.digest.len() <= KEEP {
            self.kept.extend_from_slice(bytes);
        } else {
            self.kept.clear();
        }
    }
}
