//! Requests, made piece by piece.

use std::fmt::Write;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Sizes of the chunks, `None` for a body with a length.
    chunk: Option<usize>,
}

impl Request {
    /// Any request without a body.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("Host".into(), "service".into())],
            body: Vec::new(),
            chunk: None,
        }
    }

    /// A `GET`.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A `HEAD`.
    #[must_use]
    pub fn head(target: &str) -> Self {
        Self::new("HEAD", target)
    }

    /// A `POST` whose body has a length.
    #[must_use]
    pub fn post(target: &str, body: Vec<u8>) -> Self {
        Self { body, ..Self::new("POST", target) }
    }

    /// Puts the key into `baggage`, among another member.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.header("baggage", &format!("tenant=7,sidetrack={key}"))
    }

    /// The same where there is a key, and the request as it is where there is none.
    #[must_use]
    pub fn maybe_key(self, key: Option<&str>) -> Self {
        match key {
            Some(key) => self.key(key),
            None => self,
        }
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the body in chunks of `size`.
    #[must_use]
    pub fn chunked(mut self, size: usize) -> Self {
        self.chunk = Some(size);
        self
    }

    /// Adds cookies until the head is exactly `length` bytes long; whatever is added later lies behind them.
    ///
    /// # Panics
    /// When it is longer already.
    #[must_use]
    pub fn pad_to(self, length: usize) -> Self {
        let bare = self.clone().header("Cookie", "").head_bytes().len();
        assert!(bare <= length, "the head is {bare} bytes long already");
        self.header("Cookie", &"c".repeat(length - bare))
    }

    /// Whether it is a `HEAD`.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The head's bytes.
    #[must_use]
    pub fn head_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            // A String takes all that is written to it.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        match self.chunk {
            Some(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
            None if self.method == "POST" || self.method == "PUT" || !self.body.is_empty() => {
                let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
            }
            None => {}
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The body as it goes over the wire.
    #[must_use]
    pub fn body_bytes(&self) -> Vec<u8> {
        let Some(size) = self.chunk else { return self.body.clone() };
        let mut wire = Vec::new();
        for part in self.body.chunks(size) {
            wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            wire.extend_from_slice(part);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        wire
    }

    /// Head and body.
    #[must_use]
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = self.head_bytes();
        wire.extend_from_slice(&self.body_bytes());
        wire
    }
}
