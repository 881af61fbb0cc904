//! HTTP/1.1 as the simulator's clients and servers write and read it: nothing of the reader that is tested.

use std::fmt::Write as _;

/// The byte at `at` of the body that belongs to a number and a side.
#[must_use]
pub const fn byte(id: u64, side: u8, at: usize) -> u8 {
    let at = at as u64;
    (at.wrapping_mul(31) ^ (at >> 8).wrapping_mul(7)) as u8 ^ (id.wrapping_mul(0x9e37_79b9) >> 7) as u8 ^ side
}

/// A body.
#[must_use]
pub fn body(id: u64, side: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| byte(id, side, at)).collect()
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none, and no field says so.
    None,
    /// `Content-Length`.
    Length,
    /// Chunks of at most so many bytes.
    Chunked(usize),
    /// It ends with the connection.
    Rest,
}

impl Framing {
    /// The field that says so, with its line end.
    #[must_use]
    pub fn field(self, len: usize) -> String {
        match self {
            Self::None | Self::Rest => String::new(),
            Self::Length => format!("Content-Length: {len}\r\n"),
            Self::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
        }
    }

    /// The body as it goes over the wire.
    #[must_use]
    pub fn wrap(self, body: &[u8]) -> Vec<u8> {
        let Self::Chunked(size) = self else { return body.to_vec() };
        let mut out = Vec::with_capacity(body.len() + 64);
        for (number, part) in body.chunks(size.max(1)).enumerate() {
            let extension = if number % 3 == 1 { ";x=\"y\"" } else { "" };
            out.extend(format!("{:x}{extension}\r\n", part.len()).bytes());
            out.extend(part);
            out.extend(b"\r\n");
        }
        out.extend(if body.len().is_multiple_of(2) { &b"0\r\n\r\n"[..] } else { b"0\r\nTrailer: yes\r\n\r\n" });
        out
    }
}

/// A head that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its first line.
    pub first: String,
    /// Its fields, names in lower case.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// A field's value.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A field's number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no field: {line:?}"))?;
            fields.push((name.to_lowercase(), value.trim().to_owned()));
        }
        Ok(Self { first, fields })
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A head.
    Head(Head),
    /// Bytes of its body.
    Body(Vec<u8>),
    /// The message is complete.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    Rest,
}

/// Reads messages of one direction of a connection.
#[derive(Debug)]
pub struct Reader {
    bytes: Vec<u8>,
    at: usize,
    state: State,
}

impl Default for Reader {
    fn default() -> Self {
        Self { bytes: Vec::new(), at: 0, state: State::Head }
    }
}

impl Reader {
    /// Takes in what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend(bytes);
    }

    /// Whether it is between two messages, with nothing of the next.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state == State::Head && self.at == self.bytes.len()
    }

    /// Whether the message in hand ends with the connection.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::Rest
    }

    fn line(&mut self) -> Option<String> {
        let rest = &self.bytes[self.at..];
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 2;
        Some(line)
    }

    fn take(&mut self, most: u64) -> Option<Vec<u8>> {
        let n = (self.bytes.len() - self.at).min(usize::try_from(most).unwrap_or(usize::MAX));
        let taken = self.bytes[self.at..self.at + n].to_vec();
        self.at += n;
        (n != 0).then_some(taken)
    }

    /// The next item, if it is there. `bodiless`: a response has no body, whatever its head says.
    ///
    /// # Errors
    /// What came is no message.
    pub fn next(&mut self, bodiless: impl Fn(&Head) -> bool) -> Result<Option<Item>, String> {
        loop {
            match self.state {
                State::Head => {
                    let rest = &self.bytes[self.at..];
                    let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
                    let text = std::str::from_utf8(&rest[..end]).map_err(|e| format!("no text: {e}"))?;
                    let head = Head::parse(text)?;
                    if !head.first.contains("HTTP/1.1") {
                        return Err(format!("no first line: {:?}", head.first));
                    }
                    self.at += end + 4;
                    self.state = if bodiless(&head) {
                        State::Length(0)
                    } else if head.field("transfer-encoding").is_some() {
                        State::ChunkSize
                    } else if let Some(length) = head.number("content-length") {
                        State::Length(length)
                    } else if head.first.starts_with("HTTP") {
                        State::Rest
                    } else {
                        State::Length(0)
                    };
                    return Ok(Some(Item::Head(head)));
                }
                State::Length(0) => {
                    self.state = State::Head;
                    return Ok(Some(Item::End));
                }
                State::Length(left) => {
                    let Some(bytes) = self.take(left) else { return Ok(None) };
                    self.state = State::Length(left - bytes.len() as u64);
                    return Ok(Some(Item::Body(bytes)));
                }
                State::Rest => return Ok(self.take(u64::MAX).map(Item::Body)),
                State::ChunkSize => {
                    let Some(line) = self.line() else { return Ok(None) };
                    let digits = line.split(';').next().unwrap_or_default();
                    let size = u64::from_str_radix(digits, 16).map_err(|_| format!("no chunk: {line:?}"))?;
                    self.state = if size == 0 { State::Trailer } else { State::Chunk(size) };
                }
                State::Chunk(0) => self.state = State::ChunkEnd,
                State::Chunk(left) => {
                    let Some(bytes) = self.take(left) else { return Ok(None) };
                    self.state = State::Chunk(left - bytes.len() as u64);
                    return Ok(Some(Item::Body(bytes)));
                }
                State::ChunkEnd => {
                    let Some(line) = self.line() else { return Ok(None) };
                    if !line.is_empty() {
                        return Err(format!("a chunk ends with {line:?}"));
                    }
                    self.state = State::ChunkSize;
                }
                State::Trailer => {
                    let Some(line) = self.line() else { return Ok(None) };
                    if line.is_empty() {
                        self.state = State::Head;
                        return Ok(Some(Item::End));
                    }
                }
            }
        }
    }
}

/// A head's text with these fields and a filler of so many bytes.
#[must_use]
pub fn head(first: &str, fields: &[String], filler: usize) -> Vec<u8> {
    let mut text = format!("{first}\r\n");
    for field in fields {
        text.push_str(field);
    }
    let mut left = filler;
    let mut number = 0;
    while left > 0 {
        let n = left.min(200);
        let _ = write!(text, "X-Filler-{number}: {}\r\n", "f".repeat(n));
        left -= n;
        number += 1;
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Bytes that wait to be written, in parts that may have to wait for their time.
#[derive(Debug, Default)]
pub struct Outbox {
    parts: std::collections::VecDeque<(u64, Vec<u8>, usize)>,
}

impl Outbox {
    /// Adds bytes that are not to be written before a time.
    pub fn add(&mut self, not_before: u64, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.parts.push_back((not_before, bytes, 0));
        }
    }

    /// Whether all was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Lets the first parts go whose time has come.
    pub fn write(&mut self, now: u64, mut to: impl FnMut(&[u8]) -> usize) {
        while let Some((not_before, bytes, at)) = self.parts.front_mut() {
            if *not_before > now {
                return;
            }
            let n = to(&bytes[*at..]);
            *at += n;
            if *at < bytes.len() {
                return;
            }
            self.parts.pop_front();
        }
    }

    /// When the first part's time comes, if it is not here yet.
    #[must_use]
    pub fn due(&self, now: u64) -> Option<u64> {
        self.parts.front().map(|(at, ..)| *at).filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], step: usize) -> Vec<Item> {
        let mut reader = Reader::default();
        let mut items: Vec<Item> = Vec::new();
        for part in bytes.chunks(step) {
            reader.push(part);
            while let Some(item) = reader.next(|_| false).expect("messages") {
                match (items.last_mut(), item) {
                    (Some(Item::Body(all)), Item::Body(more)) => all.extend(more),
                    (_, item) => items.push(item),
                }
            }
        }
        assert!(reader.is_idle());
        items
    }

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let content = body(7, 1, 1000);
        let mut bytes = Vec::new();
        for framing in [Framing::Length, Framing::Chunked(300), Framing::Chunked(1)] {
            bytes.extend(head("POST / HTTP/1.1", &[framing.field(content.len())], 500));
            bytes.extend(framing.wrap(&content));
        }
        for step in [1, 2, 7, 100, bytes.len()] {
            let items = read(&bytes, step);
            assert_eq!(items.len(), 9, "three heads, bodies, ends");
            assert!(items.iter().skip(1).step_by(3).all(|item| *item == Item::Body(content.clone())), "step {step}");
        }
    }
}
