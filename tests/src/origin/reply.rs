//! The answers, by target.

use crate::{digest::fill, http::Answer};
use std::{
    fmt::Write as _,
    io::{self, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

/// Bytes of each piece of a dripping body.
pub const PIECE: usize = 100;

/// What a target asks for; the module's table says what each is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Echo,
    Mirror,
    Bytes { length: u64 },
    Chunked { length: u64, chunks: u64 },
    Drip { pieces: u64, pause: Duration, chunked: bool },
    Rest { length: u64 },
    Slow { pause: Duration },
    Status { status: u16 },
    Early,
    Hints,
    Twice { pause: Duration },
    Refuse,
    Close,
    Reset,
    Cut { length: u64 },
}

impl Reply {
    /// What `target` asks for; what is not understood is an echo.
    pub(super) fn to(target: &str) -> Self {
        let path = target.split('?').next().unwrap_or_default();
        let mut words = path.trim_start_matches('/').split('/');
        let word = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok());
        let (first, second) = (number().unwrap_or(0), number().unwrap_or(0));
        match word {
            "mirror" => Self::Mirror,
            "bytes" => Self::Bytes { length: first },
            "chunked" => Self::Chunked { length: first, chunks: second.max(1) },
            "drip" | "dripchunked" => {
                Self::Drip { pieces: first, pause: Duration::from_millis(second), chunked: word == "dripchunked" }
            }
            "rest" => Self::Rest { length: first },
            "slow" => Self::Slow { pause: Duration::from_millis(first) },
            "status" => Self::Status { status: first as u16 },
            "early" => Self::Early,
            "hints" => Self::Hints,
            "twice" => Self::Twice { pause: Duration::from_millis(first) },
            "refuse" => Self::Refuse,
            "close" => Self::Close,
            "reset" => Self::Reset,
            "cut" => Self::Cut { length: first },
            _ => Self::Echo,
        }
    }

    /// Whether the server closes after it.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, Self::Rest { .. } | Self::Close)
    }
}

/// Sends the answer. Its body, where it is the server's own stream, is made on the fly; where it is the request's, it is `kept`. With
/// `last` it says that the connection ends.
pub(super) fn send(mut out: &TcpStream, answer: &Answer, reply: &Reply, kept: &[u8], last: bool) -> io::Result<()> {
    let server = answer.server.as_str();
    let only_head = answer.method == "HEAD";
    let head = |status: u16, framing: &str| {
        let mut head = format!("HTTP/1.1 {status} {}\r\nx-served-by: {server}\r\n", phrase(status));
        // A String takes all that is written to it.
        let _ = write!(head, "{framing}{}\r\n", if last { "Connection: close\r\n" } else { "" });
        head.into_bytes()
    };
    let json = || serde_json::to_vec(answer).unwrap_or_default();
    match *reply {
        Reply::Mirror => {
            let mut wire = head(200, &content_length(kept.len() as u64));
            wire.extend_from_slice(if only_head { &[] } else { kept });
            out.write_all(&wire)?;
        }
        Reply::Bytes { length } => {
            out.write_all(&head(200, &content_length(length)))?;
            if !only_head {
                stream(out, server, 0, length)?;
            }
        }
        Reply::Chunked { length, chunks } => {
            out.write_all(&head(200, CHUNKED))?;
            if only_head {
                return Ok(());
            }
            let size = length.div_ceil(chunks).max(1);
            let mut at = 0;
            while at < length {
                let part = size.min(length - at);
                chunk(out, server, at, part)?;
                at += part;
            }
            out.write_all(b"0\r\n\r\n")?;
        }
        Reply::Drip { pieces, pause, chunked } => {
            let framing = if chunked { CHUNKED.to_owned() } else { content_length(pieces * PIECE as u64) };
            out.write_all(&head(200, &framing))?;
            if only_head {
                return Ok(());
            }
            for piece in 0..pieces {
                thread::sleep(pause);
                let at = piece * PIECE as u64;
                let send = if chunked { chunk } else { stream };
                send(out, server, at, PIECE as u64)?;
            }
            if chunked {
                out.write_all(b"0\r\n\r\n")?;
            }
        }
        Reply::Rest { length } => {
            out.write_all(&head(200, ""))?;
            if !only_head {
                stream(out, server, 0, length)?;
            }
        }
        Reply::Cut { length } => {
            out.write_all(&head(200, &content_length(2 * length)))?;
            stream(out, server, 0, length)?;
        }
        Reply::Status { status: status @ (204 | 304) } => out.write_all(&head(status, ""))?,
        Reply::Status { .. }
        | Reply::Echo
        | Reply::Slow { .. }
        | Reply::Early
        | Reply::Hints
        | Reply::Twice { .. }
        | Reply::Refuse
        | Reply::Close
        | Reply::Reset => {
            let status = match *reply {
                Reply::Status { status } => status,
                Reply::Refuse => 417,
                _ => 200,
            };
            if let Reply::Slow { pause } = *reply {
                thread::sleep(pause);
            }
            let body = json();
            let mut wire = Vec::new();
            if *reply == Reply::Hints {
                wire.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n");
            }
            let framing = format!("Content-Type: application/json\r\n{}", content_length(body.len() as u64));
            wire.extend_from_slice(&head(status, &framing));
            if !only_head {
                wire.extend_from_slice(&body);
            }
            if let Reply::Twice { pause } = *reply {
                if pause.is_zero() {
                    wire.extend_from_within(..);
                } else {
                    out.write_all(&wire)?;
                    thread::sleep(pause);
                }
            }
            out.write_all(&wire)?;
        }
    }
    Ok(())
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn content_length(length: u64) -> String {
    format!("Content-Length: {length}\r\n")
}

fn stream(mut out: &TcpStream, server: &str, from: u64, length: u64) -> io::Result<()> {
    let mut piece = vec![0; length.min(256 << 10) as usize];
    let mut at = 0;
    while at < length {
        let part = &mut piece[..(length - at).min(256 << 10) as usize];
        fill(server, from + at, part);
        out.write_all(part)?;
        at += part.len() as u64;
    }
    Ok(())
}

fn chunk(mut out: &TcpStream, server: &str, from: u64, length: u64) -> io::Result<()> {
    out.write_all(format!("{length:x}\r\n").as_bytes())?;
    stream(out, server, from, length)?;
    out.write_all(b"\r\n")
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        417 => "Expectation Failed",
        _ => "Status",
    }
}
