//! Heads and chunked bodies to compare readers with: the reference natively, the kernel's programs with the native code.

use super::{REQUEST, RESPONSE};
use crate::abi::record::HEAD_MAX;

/// Pieces that heads are made of, so that what is drawn is close to what matters.
pub const PIECES: [&str; 72] = [
    "GET / HTTP/1.1\r\n",
    "HEAD /a HTTP/1.0\r\n",
    "CONNECT a:1 HTTP/1.1\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 404\r\n",
    "PRI * HTTP/2.0\r\n",
    "\r\n",
    "\n",
    "\r\n\r\n",
    "\n\n",
    "\n\r\n",
    "\r",
    " ",
    "\t",
    ",",
    ";",
    "=",
    ":",
    ": ",
    "%",
    "%6b",
    "%6B1",
    "%zz",
    "baggage: ",
    "Baggage:",
    "baggage : ",
    "tracestate: ",
    "TraceState:",
    "x-sidetrack-key: ",
    "X-Sidetrack-Key:",
    "sd-routing-key: ",
    "ot-baggage-sd-routing-key: ",
    "uberctx-sd-routing-key:",
    "sidetrack=",
    "sidetrack = ",
    "sd-routing-key=",
    "sd-sandbox=",
    "mirrord-session=",
    "sidetrack2=",
    "xsidetrack=",
    "k1",
    "pr-1234",
    "a.b_c-d",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "userId=42",
    "a=b",
    ";p=1",
    "Content-Length: ",
    "content-length:",
    "Content-Length : ",
    "0",
    "5",
    "17",
    "18446744073709551615",
    "Transfer-Encoding: ",
    "transfer-encoding:",
    "chunked",
    "gzip, chunked",
    "Chunked",
    "gzip",
    "Connection: ",
    "close",
    "keep-alive",
    "Expect: 100-continue",
    "Upgrade: websocket",
    "Host: a",
    "X-Other: some value",
    "x",
    "\0",
    "\u{b}",
    "\u{fc}",
    "Content-Type: text/plain",
];

/// Requests that each say something of their own.
const REQUESTS: [&str; 30] = [
    "GET / HTTP/1.1\r\n\r\n",
    "\r\n\nGET / HTTP/1.0\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\r\nbaggage: a=b ,  sidetrack = k1 ; p=1 , c=d\r\n\r\n",
    "GET / HTTP/1.1\r\nbaggage: a=b\r\nBaggage: c=d,sidetrack=%6b%31\r\n\r\n",
    "GET / HTTP/1.1\r\nbaggage: xsidetrack=k1,sidetrack2=k1,sidetrack=,sidetrack=k/1,sidetrack=k1,sidetrack=k2\r\n\r\n",
    "GET / HTTP/1.1\r\nbaggage: sidetrack=%6,sd-sandbox=k2,mirrord-session=k8\r\n ,x=y\r\n\r\n",
    "GET / HTTP/1.1\r\ntracestate: dd=s:1, sd-routing-key=k3 ,rojo=1\r\nX-Sidetrack-Key: k4 \r\n\r\n",
    "GET / HTTP/1.1\r\nuberctx-sd-routing-key:k6\r\not-baggage-sd-routing-key: k5\r\nsd-routing-key: k7\r\n\r\n",
    "GET / HTTP/1.1\r\nx-sidetrack-key : k4\r\nbaggage\t: sidetrack=k1\r\n\r\n",
    "HEAD / HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4096\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 7\r\ncontent-length:7\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 7\r\nContent-Length: 8\r\nbaggage: sidetrack=k1\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 5764607523034234879\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 5764607523034234880\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length : 7\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 7\r\n 8\r\n\r\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 9\r\n\r\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET / HTTP/1.1\r\n X: folded\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\u{16}\u{3}\u{1}\0\u{5}",
    "*1\r\n$4\r\nPING\r\n",
    "GET /",
    "GET / HTTP/1.1\r\nHost: a\r",
    "\r\n",
    "SSH-2.0-x\r\n",
];

/// Responses likewise.
const RESPONSES: [&str; 12] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nbaggage: sidetrack=k1\r\n\r\n",
    "HTTP/1.0 404\n\n",
    "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1 20",
    "HTTP/2 200\r\n\r\n",
    "\r\nHTTP/1.1 200 OK\r\n\r\n",
];

/// A sequence of numbers that is the same each time (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    fn pieces(&mut self, most: usize, from: usize) -> String {
        (0..self.below(most + 1)).map(|_| PIECES[from + self.below(PIECES.len() - from)]).collect()
    }
}

/// A request of `len` bytes with its key at the end.
fn long(len: usize) -> String {
    let (mut text, end) = (String::from("GET / HTTP/1.1\r\n"), "baggage: a=b,sidetrack=k1\r\n\r\n");
    while text.len() + end.len() < len {
        let left = len - end.len() - text.len();
        let line = format!("X-Filler: {}\r\n", "f".repeat(left.min(100).saturating_sub(12)));
        text += &line[line.len().saturating_sub(left)..];
    }
    text + end
}

/// Heads, with their kind: those above, long ones, and two thousand made of pieces.
#[must_use]
pub fn heads() -> Vec<(u32, Vec<u8>)> {
    let mut heads: Vec<(u32, String)> = REQUESTS.iter().map(|text| (REQUEST, (*text).to_owned())).collect();
    heads.extend(RESPONSES.iter().map(|text| (RESPONSE, (*text).to_owned())));
    heads.extend([1000, 3000, 7000, 12_345, HEAD_MAX - 1, HEAD_MAX].map(|len| (REQUEST, long(len))));
    let members: Vec<String> = (0..64).map(|i| format!("member-{i}=value-{i};p={i}")).collect();
    for at in [0, 31, 64] {
        let mut members = members.clone();
        members.insert(at, "sidetrack=pr-1234".into());
        heads.push((REQUEST, format!("GET / HTTP/1.1\r\nbaggage: {}\r\n\r\n", members.join(" , "))));
    }
    let mut draw = Draw(0x5eed);
    for i in 0..2000 {
        let kind = if i % 4 == 0 { RESPONSE } else { REQUEST };
        let mut text = if kind == RESPONSE { PIECES[3 + draw.below(2)] } else { PIECES[draw.below(3)] }.to_owned();
        if i % 10 == 9 {
            text = draw.pieces(12, 0);
        }
        for _ in 0..draw.below(8) {
            text += &draw.pieces(6, 12);
            text += ["\r\n", "\n"][draw.below(2)];
        }
        heads.push((kind, text + "\r\n\r\n"));
    }
    heads.into_iter().map(|(kind, text)| (kind, text.into_bytes())).collect()
}

/// Requests whose heads are longer than the window.
#[must_use]
pub fn long_heads() -> Vec<Vec<u8>> {
    let (value, lines) = ("v".repeat(HEAD_MAX), "X-Filler: 0123456789\r\n".repeat(900));
    let mut heads: Vec<String> = [HEAD_MAX + 1, HEAD_MAX + 2, 17_000, 20_000, 40_000, 100_000].map(long).to_vec();
    for line in ["Cookie", "x", "baggage", "tracestate", "x-sidetrack-key", "Content-Length", "Connection"] {
        heads.push(format!("POST / HTTP/1.1\r\nContent-Length: 7\r\n{line}: {value}\r\nbaggage: sidetrack=k1\r\n\r\n"));
        heads
            .push(format!("POST / HTTP/1.1\r\nContent-Length: 7\r\n {line}: {value}\r\nbaggage: sidetrack=k1\r\n\r\n"));
        heads.push(format!("HEAD / HTTP/1.0\r\nbaggage: sidetrack=k1\r\n{lines}{line}: close\r\n 8\r\n\r\n"));
    }
    heads.push(format!("GET /{value} HTTP/1.1\r\nbaggage: sidetrack=k1\r\n\r\n"));
    heads.push(format!("GET / HTTP/1.1\r\nCookie: {value}{value}{value}\r\nTransfer-Encoding: chunked\r\n\r\n"));
    heads.into_iter().map(String::into_bytes).collect()
}

/// Chunked bodies: whole ones, unfinished ones, and what is none.
#[must_use]
pub fn chunked() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "0\r\n\r\n",
        "0\n\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "5 ;a=b\nhello\n0;x\r\nTrailer: y\r\nbaggage: sidetrack=k1\n\r\n",
        "00000a\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
        "12a05f200\r\nxxxx",
        "1\nx\n1\ny",
        "0\r\nTrailer",
        "5\r\nhello!\r\n",
        "x\r\n",
        "8000000000000000\r\n",
        "5\rhello",
        "",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    let mut tiny = b"1\nx\n".repeat(400);
    tiny.extend(b"0\n\n");
    bodies.push(tiny);
    let mut draw = Draw(0xc0de);
    for _ in 0..300 {
        let mut body = Vec::new();
        for _ in 0..draw.below(12) {
            let data: Vec<u8> = (0..=draw.below(60)).map(|_| draw.below(256) as u8).collect();
            body.extend(format!("{:x}{}", data.len(), ["\r\n", "\n", ";a=b\r\n"][draw.below(3)]).into_bytes());
            body.extend(&data);
            body.extend(["\r\n", "\n"][draw.below(2)].as_bytes());
        }
        if draw.below(3) != 0 {
            body.extend(["0\r\n\r\n", "0\nA: b\r\n\n"][draw.below(2)].as_bytes());
        }
        bodies.push(body);
    }
    bodies
}
