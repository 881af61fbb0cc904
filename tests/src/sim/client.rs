//! A client with a pool of connections: sends requests, checks every byte of their answers.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

use sidetrack_splice::abi::{addr::Tuple, reason::Reason};
use smoltcp::{iface::SocketHandle, socket::tcp::State};

use super::{
    book::{Book, Failure},
    host::{Host, Nanos, SECOND},
    http::{self, Framing, Head, Item, Outbox, Reader},
    mix::{Mix, Wish},
    rng::Rng,
    server::side,
};

/// A request that waits for its answer.
struct Pending {
    id: u64,
    wish: Wish,
    sent: Nanos,
    /// The server that answers.
    server: usize,
    got: usize,
    /// What is sent when the server says `100 Continue`.
    body: Option<Vec<u8>>,
}

struct Conn {
    handle: SocketHandle,
    port: u16,
    reader: Reader,
    outbox: Outbox,
    pending: VecDeque<Pending>,
    left: u64,
    next: Nanos,
    opened: Nanos,
    established: bool,
    /// The server has said that it closes.
    last: bool,
}

/// A client.
pub struct Client {
    /// Exchanges that it has yet to begin.
    pub left: u64,
    /// What it asks for.
    pub mix: Mix,
    ip: IpAddr,
    service: SocketAddr,
    pool: Vec<Option<Conn>>,
    /// When each place in the pool may connect again.
    again: Vec<Nanos>,
    ending: Vec<SocketHandle>,
    port: u16,
}

/// Lowest and highest port of its own connections.
const PORTS: (u16, u16) = (32768, 60999);

impl Client {
    /// A client with a pool of so many connections, and so many requests to send from `begin` on.
    #[must_use]
    pub fn new(ip: IpAddr, service: SocketAddr, pool: usize, left: u64, mix: Mix, begin: Nanos) -> Self {
        let places = (0..pool).map(|_| None).collect();
        Self { left, mix, ip, service, pool: places, again: vec![begin; pool], ending: Vec::new(), port: PORTS.0 }
    }

    /// Whether there is nothing left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.pool.iter().all(Option::is_none)
    }

    /// Whether it has a socket for this connection, as its kernel would say.
    pub fn has(&self, host: &mut Host, conn: &Tuple) -> bool {
        let port = conn.local_addr().port();
        let open = self.pool.iter().flatten().any(|c| c.port == port);
        open || self.ending.iter().any(|h| host.tcp(*h).local_endpoint().is_some_and(|e| e.port == port))
    }

    /// The requests of a connection that are not answered.
    #[must_use]
    pub fn under_way(&self, conn: &Tuple) -> Vec<u64> {
        let port = conn.local_addr().port();
        let conn = self.pool.iter().flatten().filter(|c| c.port == port);
        conn.flat_map(|c| c.pending.iter().map(|pending| pending.id)).collect()
    }

    /// Its connections that are established, and whether anything that was written is not acknowledged.
    pub fn open_connections(&self, host: &mut Host) -> Vec<(Tuple, bool)> {
        let open = self.pool.iter().flatten().filter_map(|c| {
            let socket = host.tcp(c.handle);
            let conn = Tuple::new((self.ip, c.port).into(), self.service);
            (socket.state() == State::Established).then(|| (conn, socket.send_queue() != 0))
        });
        open.collect()
    }

    /// Does what there is to do. Returns when there is something to do again.
    pub fn step(
        &mut self,
        now: Nanos,
        host: &mut Host,
        book: &mut Book,
        rng: &mut Rng,
        why: &mut BTreeMap<Tuple, Reason>,
    ) -> Nanos {
        self.ending.retain(|handle| {
            let closed = host.tcp(*handle).state() == State::Closed;
            if closed {
                host.sockets.remove(*handle);
            }
            !closed
        });
        let mut next = Nanos::MAX;
        for place in 0..self.pool.len() {
            if self.pool[place].is_none() && self.left > 0 && now >= self.again[place] {
                self.open(place, now, host, book, rng, why);
            }
            let due = match self.pool[place].take() {
                Some(conn) => self.work(place, conn, now, host, book, rng, why),
                None if self.left > 0 => self.again[place],
                None => Nanos::MAX,
            };
            next = next.min(due);
        }
        next
    }

    fn open(
        &mut self,
        place: usize,
        now: Nanos,
        host: &mut Host,
        book: &mut Book,
        rng: &mut Rng,
        why: &mut BTreeMap<Tuple, Reason>,
    ) {
        let handle = host.socket();
        let port = self.port;
        self.port = if port == PORTS.1 { PORTS.0 } else { port + 1 };
        host.connect(handle, (self.ip, port), (self.service.ip(), self.service.port()));
        why.remove(&Tuple::new((self.ip, port).into(), self.service));
        book.note(now, || format!("client opens {port}"));
        let left = rng.between(self.mix.per_connection.0, self.mix.per_connection.1);
        self.pool[place] = Some(Conn {
            handle,
            port,
            reader: Reader::default(),
            outbox: Outbox::default(),
            pending: VecDeque::new(),
            left,
            next: now,
            opened: now,
            established: false,
            last: false,
        });
    }

    #[expect(clippy::too_many_arguments, reason = "the world's parts, each borrowed by itself")]
    fn work(
        &mut self,
        place: usize,
        mut conn: Conn,
        now: Nanos,
        host: &mut Host,
        book: &mut Book,
        rng: &mut Rng,
        why: &mut BTreeMap<Tuple, Reason>,
    ) -> Nanos {
        let tuple = Tuple::new((self.ip, conn.port).into(), self.service);
        let socket = host.tcp(conn.handle);
        conn.established |= socket.may_send();
        let mut bytes = [0; 8192];
        let mut broken = false;
        while socket.can_recv() && !broken {
            let n = socket.recv_slice(&mut bytes).unwrap_or(0);
            if n == 0 {
                break;
            }
            conn.reader.push(&bytes[..n]);
            broken = !conn.read(now, book);
        }
        let state = socket.state();
        // The answer that ends with the connection has ended.
        if conn.reader.ends_with_connection() && !broken && state == State::CloseWait {
            conn.end(now, book);
        }
        let late = conn.pending.front().is_some_and(|p| now >= p.sent + self.mix.patience)
            || !conn.established && now >= conn.opened + self.mix.patience;
        let over = broken || late || conn.last || matches!(state, State::Closed | State::CloseWait);
        let finished = conn.pending.is_empty() && conn.outbox.is_empty() && (conn.left == 0 || self.left == 0);
        if over || finished {
            let how = match (state, why.get(&tuple)) {
                _ if late => Failure::TimedOut,
                (State::Closed, Some(reason)) => Failure::Reset(reason.name()),
                (State::Closed, None) if conn.established => Failure::ByServer,
                (State::Closed, None) => Failure::NoConnection,
                _ => Failure::Closed,
            };
            book.note(now, || {
                format!("client leaves {}: {state} {:?}, {} pending", conn.port, how, conn.pending.len())
            });
            for pending in &conn.pending {
                book.fail(now, pending.id, how);
                if late && !self.mix.may_time_out {
                    book.violation(now, &format!("exchange {} (port {}) hangs", pending.id, conn.port));
                }
            }
            if late || broken || rng.chance(self.mix.aborts) {
                socket.abort();
            } else {
                socket.close();
            }
            self.ending.push(conn.handle);
            self.again[place] = now + rng.between(0, 50 * super::host::MILLI);
            if late || state == State::Closed {
                self.again[place] += SECOND;
            }
            return self.again[place].max(now + 1);
        }
        if conn.established && conn.pending.is_empty() && conn.outbox.is_empty() && now >= conn.next {
            self.burst(&mut conn, now, book, rng);
        }
        let socket = host.tcp(conn.handle);
        if socket.may_send() {
            conn.outbox.write(now, |bytes| socket.send_slice(bytes).unwrap_or(0));
        }
        let patience = conn.pending.front().map_or(conn.opened, |p| p.sent) + self.mix.patience;
        let patience = if conn.pending.is_empty() && conn.established { Nanos::MAX } else { patience };
        let due = if conn.pending.is_empty() && conn.established { conn.next } else { Nanos::MAX };
        let due = due.min(patience).min(conn.outbox.due(now).unwrap_or(Nanos::MAX));
        self.pool[place] = Some(conn);
        due.max(now + 1)
    }

    /// Sends one request, or some at once.
    fn burst(&mut self, conn: &mut Conn, now: Nanos, book: &mut Book, rng: &mut Rng) {
        let most = if rng.chance(self.mix.pipelines) { 1 + rng.below(4) } else { 1 };
        let mut together = Vec::new();
        for number in 0..most.min(self.left).min(conn.left) {
            let wish = self.mix.wish(rng, number == 0 && most == 1);
            self.left -= 1;
            conn.left -= 1;
            let id = book.begin(wish.key, now, wish.body);
            book.note(now, || format!("client {} sends {id}: {wish:?}", conn.port));
            let (head, body) = wish.write(id, &self.mix, rng);
            let mut pending = Pending { id, wish, sent: now, server: 0, got: 0, body: None };
            if wish.expect {
                pending.body = Some(body);
                together.extend(head);
            } else {
                together.extend([head, body].concat());
            }
            conn.pending.push_back(pending);
            if wish.reply.close {
                break;
            }
        }
        if rng.chance(self.mix.dribble) {
            let mut at = now;
            let mut rest = &together[..];
            for _ in 0..rng.between(1, 4) {
                let cut = rng.below(rest.len().min(600) as u64 + 1) as usize;
                conn.outbox.add(at, rest[..cut].to_vec());
                rest = &rest[cut..];
                at += rng.below(40) * super::host::MILLI;
            }
            conn.outbox.add(at, rest.to_vec());
        } else {
            conn.outbox.add(now, together);
        }
        // Counted from the last answer on: until then it is kept as a length.
        conn.next = self.mix.pause(rng);
    }
}

impl Conn {
    /// Takes in what the reader has. False: it is no answer.
    fn read(&mut self, now: Nanos, book: &mut Book) -> bool {
        loop {
            let (to_head, code) =
                self.pending.front().map_or((false, 0), |p| (p.wish.method == "HEAD", p.wish.reply.code));
            let bodiless = |head: &Head| to_head || head.first.contains(" 1") || code == 204 || code == 304;
            match self.reader.next(bodiless) {
                Ok(None) => return true,
                Ok(Some(item)) => {
                    if !self.take(item, now, book) {
                        return false;
                    }
                }
                Err(why) => {
                    book.violation(now, &format!("client {} got what is no answer: {why}", self.port));
                    return false;
                }
            }
        }
    }

    fn take(&mut self, item: Item, now: Nanos, book: &mut Book) -> bool {
        let port = self.port;
        let Some(pending) = self.pending.front_mut() else {
            book.violation(now, &format!("client {port} got an answer that it has not asked for: {item:?}"));
            return false;
        };
        match item {
            Item::Head(head) if head.first.contains(" 100 ") => {
                if let Some(body) = pending.body.take() {
                    self.outbox.add(now, body);
                }
                pending.server = usize::MAX;
            }
            Item::Head(head) => {
                let (id, server) = (head.number("x-id"), head.number("x-served-by").map(|n| n as usize));
                pending.server = server.unwrap_or(usize::MAX);
                let code = format!(" {} ", pending.wish.reply.code);
                if id != Some(pending.id) || !head.first.contains(&code) {
                    book.violation(now, &format!("client {port} waits for {}, and got {head:?}", pending.id));
                    return false;
                }
                if !book.may(pending.id, pending.server, now) {
                    let (id, key) = (pending.id, pending.wish.key);
                    book.violation(now, &format!("exchange {id} (key {key:?}) was answered by {server:?}"));
                }
            }
            Item::Body(bytes) => {
                let wrong = |(at, byte): &(usize, &u8)| {
                    **byte != http::byte(pending.id, side(pending.server), pending.got + at)
                };
                if let Some((at, _)) = bytes.iter().enumerate().find(wrong) {
                    let (id, at) = (pending.id, pending.got + at);
                    book.violation(now, &format!("byte {at} of the answer to {id} is wrong"));
                    return false;
                }
                pending.got += bytes.len();
            }
            Item::End if pending.server == usize::MAX => {}
            Item::End => self.end(now, book),
        }
        true
    }

    /// The first answer is complete.
    fn end(&mut self, now: Nanos, book: &mut Book) {
        let Some(pending) = self.pending.pop_front() else { return };
        let reply = pending.wish.reply;
        let bodiless =
            pending.wish.method == "HEAD" || matches!(reply.code, 204 | 304) || reply.framing == Framing::None;
        let len = if bodiless { 0 } else { reply.len };
        if pending.got != len {
            let (id, got) = (pending.id, pending.got);
            book.violation(now, &format!("the answer to {id} has {got} bytes, and should have {len}"));
        }
        book.note(now, || format!("exchange {} answered by {}", pending.id, pending.server));
        book.finish();
        self.last |= reply.close;
        if self.pending.is_empty() {
            self.next = now.saturating_add(self.next);
        }
    }
}
