//! Carriers as people write them: `baggage:sidetrack`, `tracestate:sd-routing-key`, `header:x-sidetrack-key`.

use thiserror::Error;

use crate::{
    abi::config::{
        CARRIER_BAGGAGE, CARRIER_HEADER, CARRIER_NONE, CARRIER_TRACESTATE, CARRIERS, Carrier, Config, FILTER_WORDS,
        NAME_MAX, Name,
    },
    http::{
        self,
        swar::{self, ascii, coarse},
    },
};

/// The carriers that are read when nothing else is configured, in the order in which they decide.
const DEFAULT: [&str; 10] = [
    "baggage:sidetrack",
    "baggage:sd-routing-key",
    "baggage:sd-sandbox",
    "tracestate:sd-routing-key",
    "header:x-sidetrack-key",
    "header:ot-baggage-sd-routing-key",
    "header:uberctx-sd-routing-key",
    "header:sd-routing-key",
    "baggage:mirrord-session",
    "baggage:okteto-divert",
];

/// Header names that cannot be a carrier of their own: they decide about framing, or are lists that have carriers.
const RESERVED: [&str; 7] =
    ["baggage", "connection", "content-length", "expect", "tracestate", "transfer-encoding", "upgrade"];

/// Why a carrier cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CarrierError {
    /// It has no kind, or one that nobody knows.
    #[error("carrier {0:?}: write baggage:MEMBER, tracestate:MEMBER or header:NAME")]
    Kind(String),
    /// Its name is empty or too long.
    #[error("carrier {0:?}: the name has {1} bytes, give it 1 to {NAME_MAX}")]
    Length(String, usize),
    /// Its name has a character that no such name can have.
    #[error("carrier {0:?}: the name has the character {1:?}, use letters, digits and !#$%&'*+-.^_`|~")]
    Character(String, char),
    /// A header that means something else.
    #[error("carrier {0:?}: this header cannot hold a key of its own, choose another name")]
    Reserved(String),
    /// It stands there twice.
    #[error("carrier {0:?} stands there twice: remove one")]
    Duplicate(String),
    /// There are more than the kernel programs have room for.
    #[error("{0} carriers: remove some, there can be {CARRIERS}")]
    TooMany(usize),
}

/// Reads one carrier.
pub fn parse(text: &str) -> Result<Carrier, CarrierError> {
    let (kind, name) = match text.split_once(':') {
        Some(("baggage", name)) => (CARRIER_BAGGAGE, name.to_owned()),
        Some(("tracestate", name)) => (CARRIER_TRACESTATE, name.to_owned()),
        Some(("header", name)) => (CARRIER_HEADER, name.to_ascii_lowercase()),
        _ => return Err(CarrierError::Kind(text.to_owned())),
    };
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(CarrierError::Length(text.to_owned(), name.len()));
    }
    // the keys of tracestate have `@` and `/` too (multi-tenant vendors)
    let vendor = |c: char| kind == CARRIER_TRACESTATE && matches!(c, '@' | '/');
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if let Some(c) = name.chars().find(|c| !token(*c) && !vendor(*c)) {
        return Err(CarrierError::Character(text.to_owned(), c));
    }
    if kind == CARRIER_HEADER && RESERVED.contains(&name.as_str()) {
        return Err(CarrierError::Reserved(text.to_owned()));
    }
    let mut words = Name::default();
    for (word, part) in words.words.iter_mut().zip(name.as_bytes().chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        *word = u64::from_le_bytes(bytes);
    }
    Ok(Carrier { kind, len: name.len() as u32, name: words })
}

/// Makes the kernel's table of carriers; they decide in the order given.
pub fn table<T: AsRef<str>>(texts: &[T]) -> Result<Config, CarrierError> {
    if texts.len() > CARRIERS {
        return Err(CarrierError::TooMany(texts.len()));
    }
    let mut config = Config::default();
    for (i, text) in texts.iter().enumerate() {
        let carrier = parse(text.as_ref())?;
        if config.carriers[..i].contains(&carrier) {
            return Err(CarrierError::Duplicate(text.as_ref().to_owned()));
        }
        config.carriers[i] = carrier;
        config.carriers_len = i as u32 + 1;
    }
    filters(&mut config);
    Ok(config)
}

/// Fills in the filters of the names that matter.
fn filters(config: &mut Config) {
    config.fields = [http::FIXED; 2];
    let [request, _] = &mut config.fields;
    for carrier in &config.carriers[..config.carriers_len as usize] {
        let word = carrier.name.words[0];
        // a name too short to fill its slot stands for every slot
        let short = carrier.len < swar::SLOT_BYTES;
        let bit = |word| if short { !0 } else { 1 << (swar::slot(word) & 63) };
        match carrier.kind {
            CARRIER_BAGGAGE => {
                config.baggage |= bit(word);
                swar::note(request, ascii(*b"baggage:"));
            }
            CARRIER_TRACESTATE => {
                config.tracestate |= bit(word);
                swar::note(request, ascii(*b"tracesta"));
            }
            _ => {
                config.own |= bit(coarse(word));
                swar::note(request, word);
                if short {
                    *request = [!0; FILTER_WORDS];
                }
            }
        }
    }
}

/// The carriers that are read when nothing else is configured.
///
/// # Panics
/// Never: the table is a constant, and a test reads it.
#[must_use]
pub fn default_carriers() -> Config {
    table(&DEFAULT).expect("the default carriers are valid")
}

/// A carrier as [`parse`] reads it; empty for an empty slot.
#[must_use]
pub fn describe(carrier: &Carrier) -> String {
    let kind = match carrier.kind {
        CARRIER_BAGGAGE => "baggage",
        CARRIER_TRACESTATE => "tracestate",
        CARRIER_HEADER => "header",
        CARRIER_NONE => return String::new(),
        _ => "unknown",
    };
    let bytes: Vec<u8> =
        carrier.name.words.iter().flat_map(|w| w.to_le_bytes()).take((carrier.len as usize).min(NAME_MAX)).collect();
    format!("{kind}:{}", String::from_utf8_lossy(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_table_is_what_the_documentation_says() {
        let config = default_carriers();
        let read: Vec<String> = config.carriers[..config.carriers_len as usize].iter().map(describe).collect();
        assert_eq!(read, DEFAULT);
    }

    #[test]
    fn names_of_headers_have_no_case_and_those_of_members_have() {
        assert_eq!(parse("header:X-Key").map(|c| describe(&c)), Ok("header:x-key".into()));
        assert_eq!(parse("baggage:userKey").map(|c| describe(&c)), Ok("baggage:userKey".into()));
    }

    #[test]
    fn what_cannot_be_a_carrier_is_refused_with_what_to_do() {
        let long = format!("header:{}", "x".repeat(NAME_MAX + 1));
        for (text, says) in [
            ("sidetrack", "write baggage:MEMBER"),
            ("cookie:sidetrack", "write baggage:MEMBER"),
            ("header:", "give it 1 to 48"),
            (long.as_str(), "the name has 49 bytes"),
            ("header:x y", "the character ' '"),
            ("baggage:a=b", "the character '='"),
            ("header:Content-Length", "cannot hold a key"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_table_is_bounded_and_has_no_duplicates() {
        let many: Vec<String> = (0..=CARRIERS).map(|i| format!("baggage:k{i}")).collect();
        assert_eq!(table(&many), Err(CarrierError::TooMany(17)));
        assert_eq!(table(&many[..CARRIERS]).map(|c| c.carriers_len), Ok(16));
        assert_eq!(table(&["header:a", "header:A"]), Err(CarrierError::Duplicate("header:A".into())));
        assert_eq!(table::<&str>(&[]).map(|c| c.carriers_len), Ok(0));
    }
}
