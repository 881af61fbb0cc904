//! Many connections on one thread, each a closed loop, by edge-triggered epoll.

use super::client::{BODY, Client, HEAD, PIECE, Request, Shape, Target};
use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// How long all connections may stand still. A busy machine may leave a server without a processor for seconds.
const PATIENCE_MS: u16 = 20_000;

/// One of the connections, and how far its exchange is.
struct Loop {
    stream: TcpStream,
    sent: usize,
    received: usize,
    head: [u8; HEAD],
}

/// Connections that have each made one exchange and wait for the start.
pub struct Crowd {
    epoll: Epoll,
    loops: Vec<Loop>,
    shape: Shape,
    request: Vec<u8>,
    piece: Vec<u8>,
}

impl Crowd {
    /// Connects, and sends one request on each connection.
    pub fn new(target: &Target, connections: usize) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut crowd = Vec::new();
        let mut learned = None;
        for number in 0..connections {
            let mut client = Client::connect(target.to)?;
            learned = Some(client.learn(target).with_context(|| format!("connection {number}"))?);
            let stream = client.stream;
            stream.set_nonblocking(true)?;
            let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            epoll.add(&stream, EpollEvent::new(both, number as u64))?;
            crowd.push(Loop { stream, sent: 0, received: 0, head: [0; HEAD] });
        }
        let shape = learned.context("a crowd has at least one connection")?;
        Ok(Self { epoll, loops: crowd, shape, request: whole(&target.request), piece: vec![0; PIECE] })
    }

    /// Lets all of them begin requests until `time` is over, and ends with the last answer. Returns how many there were.
    pub fn run(&mut self, time: Duration) -> Result<u64> {
        let start = Instant::now();
        for one in &mut self.loops {
            one.send(&self.request)?;
        }
        let mut requests = 0;
        let mut events = [EpollEvent::empty(); 64];
        let mut under_way = self.loops.len() as u64;
        while under_way > 0 {
            let more = start.elapsed() < time;
            let n = self.epoll.wait(&mut events, EpollTimeout::from(PATIENCE_MS))?;
            ensure!(n > 0, "no connection has moved for {PATIENCE_MS} ms: is the agent or a server gone?");
            for event in &events[..n] {
                let one = &mut self.loops[event.data() as usize];
                let done = one.step(&self.request, &self.shape, &mut self.piece)?;
                requests += done;
                match done {
                    1 if more => one.send(&self.request)?,
                    n => under_way -= n,
                }
            }
        }
        Ok(requests)
    }
}

fn whole(request: &Request) -> Vec<u8> {
    let mut bytes = request.head.clone();
    bytes.extend_from_slice(&BODY[..request.body]);
    bytes
}

impl Loop {
    fn send(&mut self, request: &[u8]) -> Result<()> {
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        Ok(())
    }

    /// Goes on as far as the socket lets it. Returns whether the answer is complete, one or none.
    fn step(&mut self, request: &[u8], shape: &Shape, piece: &mut [u8]) -> Result<u64> {
        if self.sent > 0 {
            self.send(request)?;
        }
        loop {
            let n = match self.stream.read(piece) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(error).context("no answer"),
            };
            ensure!(n > 0, "closed in the middle of an answer");
            if self.received < HEAD {
                let more = n.min(HEAD - self.received);
                self.head[self.received..self.received + more].copy_from_slice(&piece[..more]);
            }
            self.received += n;
            if self.received >= shape.length {
                ensure!(self.received == shape.length, "{} bytes too many", self.received - shape.length);
                shape.check(&self.head[..HEAD.min(shape.length)])?;
                (self.sent, self.received) = (0, 0);
                // The socket is empty: nothing more was asked for.
                return Ok(1);
            }
            // A short read has emptied the socket, the next byte is a new edge (epoll(7)).
            if n < piece.len() {
                return Ok(0);
            }
        }
    }
}
