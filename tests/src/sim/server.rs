//! A server on a machine: answers each request as the request asks, and checks every byte of it.

use std::net::IpAddr;

use smoltcp::{iface::SocketHandle, socket::tcp::State, time::Duration};

use super::{
    book::Book,
    host::{Host, Nanos, SECOND},
    http::{self, Framing, Head, Item, Outbox, Reader},
    rng::Rng,
};

/// The side of bodies that clients send, for [`http::byte`].
pub const CLIENT_SIDE: u8 = 0x55;
/// Sockets that wait for connections at a time: as many SYNs may come at one moment.
const LISTENING: usize = 6;

/// How a server behaves.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// How long it takes for an answer, from and to.
    pub think: (Nanos, Nanos),
    /// It closes connections that were idle for so long.
    pub idle_close: Option<Nanos>,
    /// Nobody listens: what comes is reset.
    pub refuses: bool,
    /// Answers of a million that go out in parts.
    pub dribble: u32,
}

/// The answer that a request asks for, as the value of its field `X-Reply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub code: u32,
    /// How its body is framed.
    pub framing: Framing,
    /// How long that is.
    pub len: usize,
    /// The server closes behind it.
    pub close: bool,
}

impl Reply {
    /// The field's value.
    #[must_use]
    pub fn text(&self) -> String {
        let (framing, size) = match self.framing {
            Framing::None => ("none", 0),
            Framing::Length => ("length", 0),
            Framing::Chunked(size) => ("chunked", size),
            Framing::Rest => ("rest", 0),
        };
        format!("{} {framing} {size} {} {}", self.code, self.len, u8::from(self.close))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let code = words.next()?.parse().ok()?;
        let framing = words.next()?;
        let size = words.next()?.parse().ok()?;
        let framing = match framing {
            "length" => Framing::Length,
            "chunked" => Framing::Chunked(size),
            "rest" => Framing::Rest,
            _ => Framing::None,
        };
        Some(Self { code, framing, len: words.next()?.parse().ok()?, close: words.next()? == "1" })
    }

    /// The whole answer of a server to a request, head and body.
    fn write(&self, id: u64, server: usize, to_head: bool) -> (Vec<u8>, Vec<u8>) {
        let bodiless = to_head || self.code == 204 || self.code == 304;
        let mut fields = vec![format!("X-Id: {id}\r\n"), format!("X-Served-By: {server}\r\n")];
        if self.code != 204 {
            fields.push(self.framing.field(self.len));
        }
        if self.close {
            fields.push("Connection: close\r\n".to_owned());
        }
        let head = http::head(&format!("HTTP/1.1 {} Said", self.code), &fields, 0);
        let body = if bodiless { Vec::new() } else { self.framing.wrap(&http::body(id, side(server), self.len)) };
        (head, body)
    }
}

/// The side of bodies that a server sends.
#[must_use]
pub const fn side(server: usize) -> u8 {
    server as u8 + 1
}

/// When a server that can send nothing asks for its client's window. The stacks do not probe a window of zero (RFC 9293, section 3.8.6.1):
/// where the word that it has opened is lost, or overtaken, nothing would ever move again. Their keep-alive probes stand for it.
const PROBE: Nanos = 10 * SECOND;

struct Request {
    id: u64,
    head: Head,
    got: usize,
}

struct Conn {
    handle: SocketHandle,
    reader: Reader,
    outbox: Outbox,
    request: Option<Request>,
    last: Nanos,
    /// Nothing more is read: it closes when all is written.
    closing: bool,
    /// How much its socket has to send, and since when it is as much.
    waits: (usize, Nanos),
}

/// A server.
pub struct Server {
    /// Its number; zero is the baseline.
    pub number: usize,
    /// How it behaves.
    pub manners: Manners,
    ip: IpAddr,
    port: u16,
    listening: Vec<SocketHandle>,
    conns: Vec<Conn>,
}

impl Server {
    /// A server that listens there.
    #[must_use]
    pub fn new(number: usize, address: (IpAddr, u16), manners: Manners) -> Self {
        Self { number, manners, ip: address.0, port: address.1, listening: Vec::new(), conns: Vec::new() }
    }

    /// Resets all its connections.
    pub fn reset_all(&mut self, host: &mut Host) {
        for conn in &self.conns {
            host.tcp(conn.handle).abort();
        }
    }

    /// How many connections it has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Does what there is to do. Returns when there is something to do again.
    pub fn step(&mut self, now: Nanos, host: &mut Host, book: &mut Book, rng: &mut Rng) -> Nanos {
        self.listen(now, host);
        let mut next = Nanos::MAX;
        let mut at = 0;
        while at < self.conns.len() {
            let due = self.serve(at, now, host, book, rng);
            let conn = &self.conns[at];
            if host.tcp(conn.handle).state() == State::Closed {
                host.sockets.remove(conn.handle);
                self.conns.swap_remove(at);
                continue;
            }
            next = next.min(due);
            at += 1;
        }
        next
    }

    fn listen(&mut self, now: Nanos, host: &mut Host) {
        let mut at = 0;
        while at < self.listening.len() {
            let handle = self.listening[at];
            if self.manners.refuses && host.tcp(handle).state() == State::Listen {
                host.sockets.remove(handle);
                self.listening.swap_remove(at);
            } else if host.tcp(handle).state() == State::Listen {
                at += 1;
            } else {
                self.listening.swap_remove(at);
                let (reader, outbox) = (Reader::default(), Outbox::default());
                self.conns.push(Conn {
                    handle,
                    reader,
                    outbox,
                    request: None,
                    last: now,
                    closing: false,
                    waits: (0, now),
                });
            }
        }
        while !self.manners.refuses && self.listening.len() < LISTENING {
            let handle = host.socket();
            host.tcp(handle).listen((self.ip, self.port)).expect("a new socket can listen");
            self.listening.push(handle);
        }
    }

    fn serve(&mut self, at: usize, now: Nanos, host: &mut Host, book: &mut Book, rng: &mut Rng) -> Nanos {
        let conn = &mut self.conns[at];
        let socket = host.tcp(conn.handle);
        let mut bytes = [0; 4096];
        while socket.can_recv() && !conn.closing {
            let n = socket.recv_slice(&mut bytes).unwrap_or(0);
            if n == 0 {
                break;
            }
            conn.last = now;
            conn.reader.push(&bytes[..n]);
            loop {
                match conn.reader.next(|_| false) {
                    Ok(Some(item)) => conn.take(item, self.number, self.manners, now, book, rng),
                    Ok(None) => break,
                    Err(why) => {
                        book.violation(now, &format!("server {} got what is no request: {why}", self.number));
                        conn.closing = true;
                        break;
                    }
                }
                if conn.closing {
                    break;
                }
            }
        }
        if !conn.outbox.is_empty() {
            conn.last = now;
            conn.outbox.write(
                now,
                |bytes| if socket.may_send() { socket.send_slice(bytes).unwrap_or(0) } else { bytes.len() },
            );
        }
        let done = conn.outbox.is_empty();
        let ended = conn.closing || !socket.may_recv() && !matches!(socket.state(), State::SynReceived);
        if done && ended && socket.may_send() {
            socket.close();
        }
        let mut next = conn.outbox.due(now).unwrap_or(Nanos::MAX);
        if socket.send_queue() != conn.waits.0 {
            conn.waits = (socket.send_queue(), now);
            socket.set_keep_alive(None);
        } else if conn.waits.0 != 0 && now >= conn.waits.1 + PROBE {
            socket.set_keep_alive(Some(Duration::from_micros(PROBE / 1000)));
        }
        if conn.waits.0 != 0 && now < conn.waits.1 + PROBE {
            next = next.min(conn.waits.1 + PROBE);
        }
        if let Some(idle) = self.manners.idle_close
            && done
            && conn.request.is_none()
            && conn.reader.is_idle()
            && socket.state() == State::Established
        {
            if now >= conn.last + idle {
                socket.close();
            } else {
                next = next.min(conn.last + idle);
            }
        }
        next
    }
}

impl Conn {
    fn take(&mut self, item: Item, server: usize, manners: Manners, now: Nanos, book: &mut Book, rng: &mut Rng) {
        match item {
            Item::Head(head) => {
                let id = head.first.split(['/', ' ']).find_map(|word| word.parse().ok());
                let Some(id) = id else {
                    return book.violation(now, &format!("server {server} got an unknown request: {:?}", head.first));
                };
                book.note(now, || format!("server {server} has the head of {id}"));
                book.arrived(id, server, now);
                if head.field("expect").is_some() {
                    self.outbox.add(now, b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
                }
                self.request = Some(Request { id, head, got: 0 });
            }
            Item::Body(bytes) => {
                let Some(request) = &mut self.request else { return };
                let wrong = |(at, byte): &(usize, &u8)| **byte != http::byte(request.id, CLIENT_SIDE, request.got + at);
                if let Some((at, _)) = bytes.iter().enumerate().find(wrong) {
                    let (id, at) = (request.id, request.got + at);
                    book.violation(now, &format!("server {server}: byte {at} of the body of {id} is wrong"));
                }
                request.got += bytes.len();
            }
            Item::End => {
                let Some(Request { id, head, got }) = self.request.take() else { return };
                if let Some(exchange) = book.exchanges.get(&id)
                    && exchange.body != got
                {
                    let sent = exchange.body;
                    book.violation(
                        now,
                        &format!("server {server}: the body of {id} has {got} bytes, {sent} were sent"),
                    );
                }
                let Some(reply) = head.field("x-reply").and_then(Reply::parse) else {
                    return book.violation(now, &format!("server {server}: request {id} does not say what it wants"));
                };
                let (head, body) = reply.write(id, server, head.first.starts_with("HEAD"));
                let mut at = now + rng.between(manners.think.0, manners.think.1);
                if rng.chance(manners.dribble) {
                    let cut = rng.below(head.len() as u64) as usize;
                    self.outbox.add(at, head[..cut].to_vec());
                    at += rng.below(30) * super::host::MILLI;
                    self.outbox.add(at, head[cut..].to_vec());
                    for part in body.chunks(body.len() / 3 + 1) {
                        at += rng.below(20) * super::host::MILLI;
                        self.outbox.add(at, part.to_vec());
                    }
                } else {
                    self.outbox.add(at, [head, body].concat());
                }
                self.closing = reply.close;
            }
        }
    }
}
