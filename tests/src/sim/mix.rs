//! What a client asks for: keys, methods, sizes, pauses.

use super::{
    host::Nanos,
    http::{self, Framing},
    rng::Rng,
    server::{CLIENT_SIDE, Reply},
};

/// The mixture. Chances are of a million.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Sandbox keys.
    pub keys: Vec<String>,
    /// Requests that have one.
    pub keyed: u32,
    /// Longest body of either direction.
    pub longest: u64,
    /// Bodies that are longer than a few kilobytes.
    pub long: u32,
    /// Bursts of several requests.
    pub pipelines: u32,
    /// Bursts that are written in parts.
    pub dribble: u32,
    /// Heads of more than some hundred bytes.
    pub big_heads: u32,
    /// Answers behind which the server closes.
    pub closes: u32,
    /// Connections that end by a reset of the client's.
    pub aborts: u32,
    /// Pause behind an answer, from and to.
    pub pause: (Nanos, Nanos),
    /// Long pauses.
    pub idles: u32,
    /// How long these are, from and to.
    pub idle: (Nanos, Nanos),
    /// Exchanges on one connection, from and to.
    pub per_connection: (u64, u64),
    /// How long an answer is waited for.
    pub patience: Nanos,
    /// Whether it may be that none comes.
    pub may_time_out: bool,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Number of its key.
    pub key: Option<usize>,
    /// Its method.
    pub method: &'static str,
    /// Length of its body.
    pub body: usize,
    /// How that is framed.
    pub framing: Framing,
    /// It waits for `100 Continue`.
    pub expect: bool,
    /// The answer that it asks for.
    pub reply: Reply,
}

impl Mix {
    /// A pause.
    pub fn pause(&self, rng: &mut Rng) -> Nanos {
        if rng.chance(self.idles) {
            rng.between(self.idle.0, self.idle.1)
        } else {
            rng.between(self.pause.0, self.pause.1)
        }
    }

    fn length(&self, rng: &mut Rng) -> usize {
        let most = if rng.chance(self.long) { self.longest } else { self.longest.min(3000) };
        rng.below(most + 1) as usize
    }

    /// A request. `alone`: nothing is sent together with it.
    pub fn wish(&self, rng: &mut Rng, alone: bool) -> Wish {
        let key = rng.chance(self.keyed).then(|| rng.below(self.keys.len() as u64) as usize);
        let method = *rng.pick(&["GET", "GET", "GET", "POST", "POST", "HEAD"]);
        let chunked = |rng: &mut Rng| Framing::Chunked(rng.between(1, 2000) as usize);
        let (body, framing) = match method {
            "POST" if rng.chance(400_000) => (self.length(rng), chunked(rng)),
            "POST" => (self.length(rng), Framing::Length),
            _ => (0, Framing::None),
        };
        let code = *rng.pick(&[200, 200, 200, 200, 200, 200, 404, 204, 304]);
        let close = rng.chance(self.closes);
        let (framing_back, len) = match code {
            204 => (Framing::None, 0),
            _ if close && rng.chance(300_000) => (Framing::Rest, self.length(rng)),
            _ if rng.chance(300_000) => (chunked(rng), self.length(rng)),
            _ => (Framing::Length, self.length(rng)),
        };
        let expect = alone && method == "POST" && body > 0 && rng.chance(100_000);
        Wish { key, method, body, framing, expect, reply: Reply { code, framing: framing_back, len, close } }
    }
}

impl Wish {
    /// Its head and its body, as they go over the wire.
    #[must_use]
    pub fn write(&self, id: u64, mix: &Mix, rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
        let mut fields = vec!["Host: service.example\r\n".to_owned(), format!("X-Reply: {}\r\n", self.reply.text())];
        if let Some(key) = self.key {
            let key = &mix.keys[key];
            fields.push(match rng.below(4) {
                0 => format!("Baggage: other=1, sidetrack={key}\r\n"),
                1 => format!("tracestate: a=b,sd-routing-key={key}\r\n"),
                2 => format!("X-Sidetrack-Key: {key}\r\n"),
                _ => format!("baggage: sd-routing-key={key};p=1\r\n"),
            });
        } else if rng.chance(200_000) {
            fields.push("baggage: other=1, some=thing\r\n".to_owned());
        }
        fields.push(self.framing.field(self.body));
        if self.expect {
            fields.push("Expect: 100-continue\r\n".to_owned());
        }
        let filler = if rng.chance(mix.big_heads) { rng.below(9000) } else { rng.below(300) } as usize;
        let head = http::head(&format!("{} /{id} HTTP/1.1", self.method), &fields, filler);
        (head, self.framing.wrap(&http::body(id, CLIENT_SIDE, self.body)))
    }
}
