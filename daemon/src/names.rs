//! Texts in map `names`: how what belongs to an id is written for tools that run while no agent does.
//!
//! | key | text |
//! |---|---|
//! | a service's id | its name |
//! | a route's id | `{"key":"pr-1","to":["10.99.0.12:8080"]}` or `{"key":"pr-1","fail":"why"}` |
//! | a pod's address | its name |
//! | id 0 of services, of routes | the lowest id that was never given away, in decimal |
//!
//! A route's text that does not fit says how many endpoints are missing, with a fingerprint of all:
//! `{"key":"pr-1","to":["10.99.0.12:8080"],"more":7,"sum":"af63dc4c8601ec8c"}`. A reason that does not fit ends in `…`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use sidetrack_splice::{
    abi::{
        addr::Addr,
        record::{NAME_POD, NAME_ROUTE, NAME_SERVICE, NAME_TEXT, NameKey, NameText},
    },
    table::{Recorded, Text, fingerprint},
};

#[derive(Debug, Default, Serialize, Deserialize)]
struct RouteText {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Vec<SocketAddr>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    more: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fail: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Puts a text into bytes. What is longer than [`NAME_TEXT`] is cut, and marked so.
#[must_use]
pub fn encode(text: &Text) -> NameText {
    match text {
        Text::Service(name) => bytes(name),
        Text::NextId(next) => bytes(&next.to_string()),
        Text::Route { key, to: Recorded::Fork { endpoints, more, fingerprint } } => {
            let mut shown = endpoints.clone();
            loop {
                let missing = more + (endpoints.len() - shown.len()) as u32;
                let sum = (missing > 0).then(|| format!("{fingerprint:016x}"));
                let route =
                    RouteText { key: key.clone(), to: Some(shown.clone()), more: missing, sum, ..RouteText::default() };
                let text = json(&route);
                if text.len() <= NAME_TEXT || shown.pop().is_none() {
                    return bytes(&text);
                }
            }
        }
        Text::Route { key, to: Recorded::Fail { reason } } => {
            let mut shown: Vec<char> = reason.chars().collect();
            let mut mark = "";
            loop {
                let fail = Some(shown.iter().collect::<String>() + mark);
                let text = json(&RouteText { key: key.clone(), fail, ..RouteText::default() });
                if text.len() <= NAME_TEXT || shown.pop().is_none() {
                    return bytes(&text);
                }
                mark = "…";
            }
        }
    }
}

fn json(route: &RouteText) -> String {
    serde_json::to_string(route).expect("a struct of texts and numbers has a JSON form")
}

/// Reads a text of a service or a route; `None` for other kinds, and for what no agent of this version wrote.
#[must_use]
pub fn decode(key: &NameKey, text: &NameText) -> Option<Text> {
    let text = to_str(text);
    match (key.kind, key.id) {
        (NAME_SERVICE | NAME_ROUTE, 0) => text.parse().ok().map(Text::NextId),
        (NAME_SERVICE, _) => (!text.is_empty()).then_some(Text::Service(text)),
        (NAME_ROUTE, _) => {
            let route: RouteText = serde_json::from_str(&text).ok()?;
            let to = match (route.to, route.fail) {
                (Some(endpoints), None) => {
                    let fingerprint = match route.sum {
                        Some(sum) => u64::from_str_radix(&sum, 16).ok()?,
                        None => fingerprint(&endpoints),
                    };
                    Recorded::Fork { endpoints, more: route.more, fingerprint }
                }
                (None, Some(reason)) => Recorded::Fail { reason },
                _ => return None,
            };
            Some(Text::Route { key: route.key, to })
        }
        _ => None,
    }
}

/// The key in map `names` of the pod that has an address.
#[must_use]
pub fn pod_key(address: IpAddr) -> NameKey {
    NameKey { kind: NAME_POD, id: 0, addr: Addr::from(address) }
}

/// A text as it stands in map `names`, for instance a pod's name; cut at [`NAME_TEXT`] bytes.
#[must_use]
pub fn bytes(text: &str) -> NameText {
    NameText { text: padded(text) }
}

/// A text in a field of fixed size: zeros behind its end; cut where a character ends if it is too long.
#[must_use]
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let end = text.floor_char_boundary(N);
    field[..end].copy_from_slice(&text.as_bytes()[..end]);
    field
}

/// The text in a field of fixed size.
#[must_use]
pub fn unpadded(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// A text that stands in map `names`.
#[must_use]
pub fn to_str(text: &NameText) -> String {
    unpadded(&text.text)
}

#[cfg(test)]
mod tests {
    use sidetrack_splice::table::{OnUnreachable, To};

    use super::*;

    fn key(kind: u32, id: u32) -> NameKey {
        NameKey { kind, id, addr: Addr::default() }
    }

    fn route(sandbox: &str, to: &To) -> Text {
        Text::Route { key: sandbox.into(), to: Recorded::from(to) }
    }

    fn fork(n: u16) -> To {
        To::Fork {
            endpoints: (1..=n).map(|port| ([10, 99, 0, 12], 8000 + port).into()).collect(),
            on_unreachable: OnUnreachable::default(),
        }
    }

    #[test]
    fn what_fits_comes_back_as_it_was() {
        let cases = [
            (key(NAME_SERVICE, 1), Text::Service("shop/orders".into())),
            (key(NAME_SERVICE, 0), Text::NextId(7)),
            (key(NAME_ROUTE, 0), Text::NextId(u32::MAX)),
            (key(NAME_ROUTE, 3), route("pr-1", &fork(4))),
            (key(NAME_ROUTE, 4), route("pr-2", &To::Fail { reason: "it \"broke\"".into() })),
        ];
        for (key, text) in cases {
            assert_eq!(decode(&key, &encode(&text)), Some(text));
        }
    }

    #[test]
    fn a_route_with_many_endpoints_says_how_many_are_missing() {
        let full = Recorded::from(&fork(64));
        let Some(Text::Route { key, to }) = decode(&key(NAME_ROUTE, 1), &encode(&route(&"k".repeat(63), &fork(64))))
        else {
            panic!("readable");
        };
        let (Recorded::Fork { endpoints, more, fingerprint }, Recorded::Fork { fingerprint: all, .. }) = (to, full)
        else {
            panic!("a fork");
        };
        assert_eq!(key.len(), 63);
        assert!(!endpoints.is_empty());
        assert_eq!((endpoints.len() + more as usize, fingerprint), (64, all));
    }

    #[test]
    fn a_long_reason_is_cut_and_marked() {
        let text = route(&"k".repeat(63), &To::Fail { reason: "\"é".repeat(60) });
        let Some(Text::Route { to: Recorded::Fail { reason }, .. }) = decode(&key(NAME_ROUTE, 1), &encode(&text))
        else {
            panic!("readable");
        };
        assert!(reason.ends_with('…') && reason.starts_with("\"é\"é"), "{reason}");
    }

    #[test]
    fn what_nobody_wrote_is_nothing() {
        assert_eq!(decode(&key(NAME_ROUTE, 1), &bytes("pr-1")), None);
        assert_eq!(decode(&key(NAME_ROUTE, 1), &bytes("{\"key\":\"k\"}")), None);
        assert_eq!(decode(&key(NAME_SERVICE, 0), &bytes("soon")), None);
        assert_eq!(decode(&key(9, 1), &bytes("x")), None);
    }

    #[test]
    fn a_text_is_cut_where_a_character_ends() {
        assert_eq!(unpadded(&padded::<3>("aéé")), "aé");
        assert_eq!(unpadded(&padded::<4>("ab")), "ab");
    }
}
