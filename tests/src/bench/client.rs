//! The load tool: closed loops on plain sockets, with no more work per request than it takes to see that the right
//! server has answered all of it.

use anyhow::{Context, Result, ensure};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// How long a byte may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes read or written at once.
pub const PIECE: usize = 256 << 10;
/// Longest head of an answer.
pub const HEAD: usize = 1024;

/// A request's bytes; its body is zeros.
#[derive(Clone, Debug)]
pub struct Request {
    /// Up to the empty line, with it.
    pub head: Vec<u8>,
    /// Length of the body.
    pub body: usize,
}

/// Where a request goes, and who has to answer.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service.
    pub to: SocketAddr,
    /// The server's name.
    pub server: &'static str,
    /// What is sent.
    pub request: Request,
}

/// What every answer to a request looks like. The servers' answers differ in nothing but the digits of the date.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Bytes, head and body.
    pub length: usize,
    mark_at: usize,
    mark: String,
}

impl Shape {
    /// Fails unless the head of an answer says that it is good and who has served it.
    pub fn check(&self, head: &[u8]) -> Result<()> {
        let mark = head.get(self.mark_at..self.mark_at + self.mark.len());
        let good = head.starts_with(b"HTTP/1.1 200 ") && mark == Some(self.mark.as_bytes());
        ensure!(good, "not an answer with {:?}: {:?}", self.mark, String::from_utf8_lossy(head));
        Ok(())
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// The socket.
    pub stream: TcpStream,
    piece: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn connect(to: SocketAddr) -> Result<Self> {
        Self::connect_with(to, vec![0; PIECE])
    }

    /// Connects, and uses the buffer of an earlier connection.
    fn connect_with(to: SocketAddr, piece: Vec<u8>) -> Result<Self> {
        let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, piece })
    }

    /// Sends a request for the first time on this connection, and learns what its answer looks like.
    pub fn learn(&mut self, target: &Target) -> Result<Shape> {
        self.send(&target.request)?;
        let mut answer = Vec::new();
        let end = loop {
            let n = self.stream.read(&mut self.piece).context("no answer to the first request")?;
            ensure!(n > 0, "closed before its first answer");
            answer.extend_from_slice(&self.piece[..n]);
            if let Some(end) = find(&answer, b"\r\n\r\n") {
                break end + 4;
            }
        };
        ensure!(end <= HEAD, "the answer's head has {end} bytes: it has to fit {HEAD}");
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let body: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .with_context(|| format!("the answer has no length: {head}"))?;
        let mark = format!("x-served-by: {}\r\n", target.server);
        let mark_at = head.find(&mark).with_context(|| format!("{} has not answered: {head}", target.server))?;
        let shape = Shape { length: end + body, mark_at, mark };
        shape.check(&answer[..end])?;
        self.drain(shape.length - answer.len())?;
        Ok(shape)
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: &Request, shape: &Shape) -> Result<()> {
        self.send(request)?;
        let mut head = 0;
        while head < HEAD.min(shape.length) {
            let n = self.stream.read(&mut self.piece[head..])?;
            ensure!(n > 0, "closed in the middle of an answer");
            head += n;
        }
        shape.check(&self.piece[..HEAD.min(head)])?;
        ensure!(head <= shape.length, "{} bytes more than were asked for", head - shape.length);
        self.drain(shape.length - head)
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        self.stream.write_all(&request.head)?;
        let mut left = request.body;
        while left > 0 {
            left -= self.stream.write(&BODY[..left.min(PIECE)])?;
        }
        Ok(())
    }

    fn drain(&mut self, mut left: usize) -> Result<()> {
        while left > 0 {
            let n = self.stream.read(&mut self.piece[..left.min(PIECE)])?;
            ensure!(n > 0, "closed with {left} bytes of an answer left");
            left -= n;
        }
        Ok(())
    }
}

/// What bodies are made of.
pub static BODY: [u8; PIECE] = [0; PIECE];

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// One connection, one request after the other: the targets take turns. They are one address's.
pub struct Alone {
    client: Client,
    asks: Vec<(Request, Shape)>,
    turn: usize,
}

impl Alone {
    /// Connects, and asks until caches are warm and the congestion window is large.
    pub fn new(targets: &[Target]) -> Result<Self> {
        let mut client = Client::connect(targets.first().context("somebody to ask")?.to)?;
        let learn = |target: &Target| Ok((target.request.clone(), client.learn(target)?));
        let asks = targets.iter().map(learn).collect::<Result<Vec<_>>>()?;
        for (request, shape) in asks.iter().cycle().take(50) {
            client.ask(request, shape)?;
        }
        Ok(Self { client, asks, turn: 0 })
    }

    /// Asks until `time` is over: adds how long each request took, in nanoseconds.
    pub fn run(&mut self, time: Duration, times: &mut Vec<u64>) -> Result<()> {
        let start = Instant::now();
        let mut last = start;
        while last.duration_since(start) < time {
            let (request, shape) = &self.asks[self.turn];
            self.client.ask(request, shape)?;
            self.turn = (self.turn + 1) % self.asks.len();
            let now = Instant::now();
            times.push(now.duration_since(last).as_nanos() as u64);
            last = now;
        }
        Ok(())
    }
}

/// A connection for large transfers, on which one was made.
pub struct Bulk {
    client: Client,
    request: Request,
    shape: Shape,
}

impl Bulk {
    /// Connects, sends a small request, so that a leg is made of a frame that is cheap to hold, and transfers once.
    pub fn new(target: &Target, small: &Target) -> Result<Self> {
        let mut client = Client::connect(target.to)?;
        client.learn(small)?;
        let shape = client.learn(target)?;
        Ok(Self { client, request: target.request.clone(), shape })
    }

    /// Transfers once more.
    pub fn transfer(&mut self) -> Result<()> {
        self.client.ask(&self.request, &self.shape)
    }
}

/// A new connection for each request.
pub struct Fresh {
    to: SocketAddr,
    request: Request,
    shape: Shape,
    /// The buffer goes from one to the next: making it costs system calls.
    piece: Vec<u8>,
}

impl Fresh {
    /// Learns what an answer looks like.
    pub fn new(target: &Target) -> Result<Self> {
        let mut client = Client::connect(target.to)?;
        let shape = client.learn(target)?;
        Ok(Self { to: target.to, request: target.request.clone(), shape, piece: client.piece })
    }

    /// Asks `count` times: adds how long each took from `connect` to the end of the answer, in nanoseconds. Must be called where
    /// its client is.
    pub fn run(&mut self, count: u32, times: &mut Vec<u64>) -> Result<()> {
        for _ in 0..count {
            let piece = std::mem::take(&mut self.piece);
            let start = Instant::now();
            let mut client = Client::connect_with(self.to, piece)?;
            client.ask(&self.request, &self.shape)?;
            times.push(start.elapsed().as_nanos() as u64);
            self.piece = client.piece;
        }
        Ok(())
    }
}
