//! A slow, obvious reader of heads, to compare with.

use std::collections::BTreeMap;

use super::*;
use crate::carrier::describe;

/// What a head says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub status: u32,
    pub start: usize,
    pub end: usize,
    pub body: u32,
    pub length: u64,
    pub flags: u32,
    pub code: u32,
    pub keys: Vec<(usize, String)>,
    pub invalid: u32,
    pub duplicate: u32,
}

impl Outcome {
    /// What [`super::read`] read. Of a head that was not read to its end only the status counts, and of one that cannot
    /// be read the end and the keys count too.
    pub fn of(head: &Head, found: &Found) -> Self {
        let status = head.status;
        if status != STATUS_COMPLETE && (status != STATUS_UNREADABLE || head.end == 0) {
            return Self { status, ..Self::default() };
        }
        if status == STATUS_UNREADABLE {
            return Self {
                status,
                end: head.end as usize,
                keys: keys(head, found),
                invalid: head.invalid,
                duplicate: head.duplicate,
                ..Self::default()
            };
        }
        Self {
            status,
            start: head.start as usize,
            end: head.end as usize,
            body: head.body,
            length: head.length,
            flags: head.flags,
            code: head.code,
            keys: keys(head, found),
            invalid: head.invalid,
            duplicate: head.duplicate,
        }
    }
}

#[derive(Default)]
struct Reader {
    carriers: Vec<String>,
    response: bool,
    http10: bool,
    flags: u32,
    length: Option<u64>,
    codings: Option<Vec<String>>,
    keys: BTreeMap<usize, String>,
    fresh: Vec<usize>,
    invalid: u32,
    duplicate: u32,
    fault: bool,
}

const FRAMING: [&str; 5] = ["content-length", "transfer-encoding", "connection", "expect", "upgrade"];

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim(value: &[u8]) -> &[u8] {
    let space = |b: &u8| *b == b' ' || *b == b'\t';
    let start = value.iter().position(|b| !space(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !space(b)).map_or(start, |i| i + 1);
    &value[start..end]
}

fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = value;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(out)
}

/// Reads a head.
pub fn reference(text: &[u8], kind: u32, config: &Config) -> Outcome {
    let mut reader = Reader {
        carriers: config.carriers[..config.carriers_len as usize].iter().map(describe).collect(),
        response: kind == RESPONSE,
        ..Reader::default()
    };
    match reader.read(text) {
        Ok(outcome) => outcome,
        Err(status) => Outcome { status, ..Outcome::default() },
    }
}

impl Reader {
    fn read(&mut self, text: &[u8]) -> Result<Outcome, u32> {
        let blank = text.iter().take_while(|b| !self.response && (**b == b'\r' || **b == b'\n')).count();
        let mut lines = text[blank..].split_inclusive(|b| *b == b'\n');
        let line = lines.next().ok_or(STATUS_INCOMPLETE)?;
        let code = if self.response { self.status_line(line)? } else { self.request_line(line)? };
        let mut end = blank + line.len();
        let mut previous: Option<Vec<u8>> = None;
        let mut first = true;
        for line in lines {
            let Some(content) = line.strip_suffix(b"\n") else { return Err(STATUS_INCOMPLETE) };
            end += line.len();
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            if content.is_empty() {
                let framing = self.body();
                let keys = std::mem::take(&mut self.keys).into_iter().collect();
                let (invalid, duplicate) = (self.invalid, self.duplicate);
                let Some((body, length)) = framing else {
                    return Ok(Outcome {
                        status: STATUS_UNREADABLE,
                        end,
                        keys,
                        invalid,
                        duplicate,
                        ..Outcome::default()
                    });
                };
                return Ok(Outcome {
                    status: STATUS_COMPLETE,
                    start: blank,
                    end,
                    body,
                    length,
                    flags: self.flags,
                    code,
                    keys,
                    invalid,
                    duplicate,
                });
            }
            if content[0] == b' ' || content[0] == b'\t' {
                self.folded(first, previous.take().as_deref());
            } else {
                let name = content.split(|b| !is_token(*b)).next().unwrap_or(&[]).to_ascii_lowercase();
                previous = self.field(&name, &content[name.len()..]).then_some(name);
            }
            first = false;
        }
        Err(STATUS_INCOMPLETE)
    }

    fn request_line(&mut self, line: &[u8]) -> Result<u32, u32> {
        if line == [0x16] || line.starts_with(&[0x16, 3]) {
            return Err(STATUS_TLS);
        }
        let method = line.iter().take_while(|b| is_token(**b)).count();
        if method > 32 || (method < line.len() && (method == 0 || line[method] != b' ')) {
            return Err(STATUS_NOT_HTTP);
        }
        let Some(content) = line.strip_suffix(b"\n") else { return Err(STATUS_INCOMPLETE) };
        // not before the target: a line that is too short is none, whatever it ends in
        let mut rest = &content[method + 1..];
        while rest.len() >= 10 && b" \t\r".contains(&rest[rest.len() - 1]) {
            rest = &rest[..rest.len() - 1];
        }
        if rest.len() < 10 {
            return Err(STATUS_NOT_HTTP);
        }
        let version = &rest[rest.len() - 9..];
        if version == b" HTTP/2.0" && line.starts_with(b"PRI * ") {
            return Err(STATUS_HTTP2);
        }
        if !version.starts_with(b" HTTP/1.") || !version[8].is_ascii_digit() {
            return Err(STATUS_NOT_HTTP);
        }
        self.http10 = version[8] == b'0';
        self.flags = match &line[..method] {
            b"HEAD" => FLAG_HEAD,
            b"CONNECT" => FLAG_CONNECT,
            _ => 0,
        };
        Ok(0)
    }

    fn status_line(&mut self, line: &[u8]) -> Result<u32, u32> {
        let start = b"HTTP/1.";
        if !line.starts_with(&start[..line.len().min(7)]) {
            return Err(STATUS_NOT_HTTP);
        }
        // a line end where the code should be comes with what stands behind it
        let Some([minor, b' ', a, b, c, behind]) = line.get(7..13) else {
            return Err(if line.len() < 13 && !line.ends_with(b"\n") { STATUS_INCOMPLETE } else { STATUS_UNREADABLE });
        };
        if ![minor, a, b, c].iter().all(|d| d.is_ascii_digit()) || *a == b'0' || !b" \t\r\n".contains(behind) {
            return Err(STATUS_UNREADABLE);
        }
        if !line.ends_with(b"\n") {
            return Err(STATUS_INCOMPLETE);
        }
        self.http10 = *minor == b'0';
        Ok([a, b, c].iter().fold(0, |n, d| n * 10 + u32::from(**d - b'0')))
    }

    fn folded(&mut self, first: bool, previous: Option<&[u8]>) {
        self.fault |= first;
        let Some(name) = previous else { return };
        self.fault |= FRAMING.iter().any(|f| f.as_bytes() == name);
        if self.carries(name) {
            self.invalid += 1;
            for carrier in self.fresh.drain(..) {
                self.keys.remove(&carrier);
            }
        }
    }

    fn carries(&self, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name);
        !self.response
            && (name == "baggage" && self.carriers.iter().any(|c| c.starts_with("baggage:"))
                || name == "tracestate" && self.carriers.iter().any(|c| c.starts_with("tracestate:"))
                || self.carriers.contains(&format!("header:{name}")))
    }

    /// Reads one line; whether its name means something to a folded one behind it.
    fn field(&mut self, name: &[u8], rest: &[u8]) -> bool {
        let framing = FRAMING.iter().any(|f| f.as_bytes() == name);
        let carries = self.carries(name);
        let Some(value) = rest.strip_prefix(b":") else {
            self.fault |= framing;
            self.invalid += u32::from(carries);
            return framing;
        };
        if carries {
            self.fresh.clear();
        }
        let members: Vec<&[u8]> = value.split(|b| *b == b',').map(trim).filter(|m| !m.is_empty()).collect();
        let tokens = members.iter().map(|m| {
            let token = m.split(|b| *b == b' ' || *b == b'\t').next().unwrap_or(m);
            String::from_utf8_lossy(token).to_ascii_lowercase()
        });
        match name {
            b"content-length" => {
                let digits = trim(value);
                let length = digits
                    .iter()
                    .try_fold(0_u64, |n, d| (n < 1 << 59 && d.is_ascii_digit()).then(|| n * 10 + u64::from(d - b'0')));
                let differs = self.length.is_some() && self.length != length;
                self.fault |= digits.is_empty() || length.is_none() || differs;
                self.length = length;
            }
            b"transfer-encoding" => self.codings.get_or_insert_default().extend(tokens),
            b"connection" => {
                for token in tokens {
                    self.flags |= match token.as_str() {
                        "close" => FLAG_CLOSE,
                        "keep-alive" => FLAG_KEEP_ALIVE,
                        _ => 0,
                    };
                }
            }
            b"expect" => {
                for token in tokens.filter(|t| t == "100-continue") {
                    self.flags |= FLAG_EXPECT;
                    drop(token);
                }
            }
            b"upgrade" => self.flags |= FLAG_UPGRADE,
            b"baggage" if carries => members.iter().for_each(|m| self.baggage(m)),
            b"tracestate" if carries => members.iter().for_each(|m| self.tracestate(m)),
            _ if carries => {
                let own = format!("header:{}", String::from_utf8_lossy(name));
                self.key(&own, Some(trim(value).to_vec()));
            }
            _ => {}
        }
        framing || carries
    }

    fn baggage(&mut self, member: &[u8]) {
        let pair = member.split(|b| *b == b';').next().unwrap_or(member);
        if let Some(at) = pair.iter().position(|b| *b == b'=') {
            let name = String::from_utf8_lossy(trim(&pair[..at])).into_owned();
            self.key(&format!("baggage:{name}"), decode(trim(&pair[at + 1..])));
        }
    }

    fn tracestate(&mut self, member: &[u8]) {
        if let Some(at) = member.iter().position(|b| *b == b'=') {
            let name = String::from_utf8_lossy(&member[..at]).into_owned();
            self.key(&format!("tracestate:{name}"), Some(member[at + 1..].to_vec()));
        }
    }

    fn key(&mut self, carrier: &str, value: Option<Vec<u8>>) {
        let Some(number) = self.carriers.iter().position(|c| c == carrier) else { return };
        if self.keys.contains_key(&number) {
            self.duplicate += 1;
            return;
        }
        let valid = |v: &Vec<u8>| {
            (1..=63).contains(&v.len()) && v.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
        };
        if let Some(key) = value.filter(valid) {
            self.keys.insert(number, String::from_utf8(key).expect("ASCII"));
            self.fresh.push(number);
        } else {
            self.invalid += 1;
        }
    }

    /// What follows the head; nothing, if that cannot be said.
    fn body(&mut self) -> Option<(u32, u64)> {
        if self.fault {
            return None;
        }
        self.flags |= if self.http10 { FLAG_HTTP10 } else { 0 };
        let length = self.length.unwrap_or(0);
        let chunked = |c: &Vec<String>| {
            c.last().is_some_and(|l| l == "chunked") && c.iter().filter(|l| *l == "chunked").count() == 1
        };
        Some(match (&self.codings, self.length) {
            (Some(codings), _) if chunked(codings) && !self.http10 => (BODY_CHUNKED, length),
            (Some(_), _) if self.response => (BODY_REST, length),
            (Some(_), _) => return None,
            (None, Some(length)) => (BODY_LENGTH, length),
            (None, None) => (if self.response { BODY_REST } else { BODY_NONE }, 0),
        })
    }
}
