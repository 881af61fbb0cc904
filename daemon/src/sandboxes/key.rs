//! The header by which a request says to which Sandbox it belongs.

use std::fmt;

use serde::Serialize;
use sidetrack_objects::Sandbox;
use sidetrack_resolve::read;
use sidetrack_splice::carrier;

use super::Failure;

/// A header of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.value)
    }
}

/// A Sandbox's keys: those in force, else those that it asks for, else the one of its name.
#[must_use]
pub fn keys(sandbox: &Sandbox) -> Vec<String> {
    match &sandbox.status {
        Some(status) if !status.keys.is_empty() => status.keys.clone(),
        _ => match &sandbox.spec.keys {
            Some(keys) => keys.clone(),
            None => read::sandbox(sandbox).keys.into_iter().collect(),
        },
    }
}

/// The carriers where nothing else is configured.
#[must_use]
pub fn default_carriers() -> Vec<String> {
    let config = carrier::default_carriers();
    config.carriers[..config.carriers_len as usize].iter().map(carrier::describe).collect()
}

/// The header that holds a key in a carrier such as `baggage:sidetrack`; none for what is no carrier.
#[must_use]
pub fn header(carrier: &str, key: &str) -> Option<Header> {
    let (kind, name) = carrier.split_once(':')?;
    match kind {
        "baggage" | "tracestate" => Some(Header { name: kind.into(), value: format!("{name}={key}") }),
        "header" => Some(Header { name: name.into(), value: key.into() }),
        _ => None,
    }
}

/// A whole command for a shell, which asks with that header.
pub fn curl(header: &Header, url: &str) -> Result<String, Failure> {
    // No quotes keep a terminal from obeying a control character, and curl from reading an option.
    if url.is_empty() || url.starts_with('-') || url.chars().any(char::is_control) {
        return Err(Failure::Usage(format!("{url:?} is no URL: expected one as in \"http://orders/\"")));
    }
    let header = header.to_string();
    let words = ["curl", "-H", &header, url];
    shlex::try_join(words).map_err(|error| Failure::Usage(format!("{url:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sandbox(spec: &Value, status: &Value) -> Sandbox {
        let mut spec = spec.clone();
        spec["forks"] = json!([]);
        serde_json::from_value(json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox",
            "metadata": {"name": "pr", "namespace": "shop"}, "spec": spec, "status": status}))
        .expect("a Sandbox")
    }

    #[test]
    fn every_default_carrier_has_a_header_that_holds_a_key() {
        let headers: Vec<_> = default_carriers().iter().map(|it| header(it, "pr-1").expect(it).to_string()).collect();
        assert_eq!(headers[0], "baggage: sidetrack=pr-1");
        assert!(headers.contains(&"tracestate: sd-routing-key=pr-1".into()), "{headers:?}");
        assert!(headers.contains(&"x-sidetrack-key: pr-1".into()), "{headers:?}");
        assert_eq!(header("cookie:a", "pr-1"), None);
        assert_eq!(header("sidetrack", "pr-1"), None);
    }

    #[test]
    fn the_keys_in_force_count_before_those_that_were_asked_for_and_those_before_the_name() {
        assert_eq!(keys(&sandbox(&json!({"keys": ["b", "a"]}), &json!({"keys": ["a"]}))), ["a"]);
        assert_eq!(keys(&sandbox(&json!({"keys": ["b", "a"]}), &json!({}))), ["b", "a"]);
        assert_eq!(keys(&sandbox(&json!({}), &json!({}))), ["pr.shop"]);
    }

    #[test]
    fn a_command_is_quoted_for_a_shell() {
        let header = header("baggage:sidetrack", "pr-1").expect("a carrier");
        for url in ["http://orders/", "http://orders/?a=1&b=2", "http://orders/it's", "http://orders/$(reboot)`id`"] {
            let command = curl(&header, url).expect("a URL");
            let words = shlex::split(&command).expect("words of a shell");
            assert_eq!(words, ["curl", "-H", "baggage: sidetrack=pr-1", url], "{command}");
        }
        assert_eq!(curl(&header, "http://orders/").expect("a URL"), "curl -H 'baggage: sidetrack=pr-1' http://orders/");
        for url in ["http://orders/\x1b[2J", "", "-o/etc/passwd"] {
            assert!(curl(&header, url).is_err(), "{url:?}");
        }
    }
}
