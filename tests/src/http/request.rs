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
    /// A length that is announced for a body which is sent by other means.
    announced: Option<u64>,
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
            announced: None,
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

    /// Announces a body of this length, which is sent by other means ([`Http::send_made`](super::Http::send_made)).
    #[must_use]
    pub fn announce(mut self, length: u64) -> Self {
        self.announced = Some(length);
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
        let has_body = self.method == "POST" || !self.body.is_empty();
        let length = self.announced.or_else(|| has_body.then_some(self.body.len() as u64));
        match (self.chunk, length) {
            (Some(_), _) => head.push_str("Transfer-Encoding: chunked\r\n"),
            (None, Some(length)) => {
                let _ = write!(head, "Content-Length: {length}\r\n");
            }
            (None, None) => {}
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
