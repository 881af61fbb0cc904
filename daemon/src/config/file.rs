//! The configuration as a file.

use std::{fmt::Display, ops::RangeInclusive, path::Path, time::Duration};

use serde::{Deserialize, de::IgnoredAny};
use serde_saphyr::Spanned;
use sidetrack_objects::parse_duration;
use sidetrack_splice::carrier;

use super::{
    CONNECTIONS_RANGE, Config, DIAL_TIMEOUT_RANGE, DRAIN_TIMEOUT_RANGE, ENDPOINT_GRACE_RANGE, HELD_RANGE,
    MAX_STALE_RANGE, PARKED_IDLE_RANGE, RING_RANGE, SWITCH_TIMEOUT_RANGE, TTL_RANGE,
};
use crate::document::{self, DocumentError, Mistake};

/// `kind` of the object.
pub const KIND: &str = "SidetrackConfig";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    // As a cluster stores it: the object is one, whatever its labels are.
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    spec: RawSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSpec {
    carriers: Option<Spanned<Vec<Spanned<String>>>>,
    limits: Option<RawLimits>,
    dial_timeout: Option<Spanned<String>>,
    switch_timeout: Option<Spanned<String>>,
    parked_idle: Option<Spanned<String>>,
    endpoint_grace: Option<Spanned<String>>,
    drain_timeout: Option<Spanned<String>>,
    max_stale: Option<Spanned<String>>,
    // The controller's: read as strictly, and of no use to an agent.
    default_ttl: Option<Spanned<String>>,
    max_ttl: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawLimits {
    connections: Option<Spanned<u32>>,
    ring_buffer_bytes: Option<Spanned<u32>>,
    held_bytes: Option<Spanned<u32>>,
}

/// Reads the configuration from a file. What the file does not say keeps its default.
pub fn load(path: &Path) -> Result<Config, DocumentError> {
    parse(&document::read(path, KIND)?).map_err(|mistakes| DocumentError::Invalid { path: path.to_owned(), mistakes })
}

/// Reads the configuration from a file's text.
pub fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    let Raw { spec, .. } = document::parse(text, KIND)?;
    let mut config = Config::default();
    let mut mistakes = Vec::new();
    if let Some(carriers) = &spec.carriers {
        set_carriers(&mut config, carriers, &mut mistakes);
    }
    if let Some(limits) = &spec.limits {
        if let Some(value) = &limits.connections {
            let field = "spec.limits.connections";
            set(&mut config.connections, value, field, Ok(value.value), CONNECTIONS_RANGE, &mut mistakes);
        }
        if let Some(value) = &limits.ring_buffer_bytes {
            let read = match value.value {
                bytes if bytes.is_power_of_two() => Ok(bytes),
                bytes => Err(format!("{bytes} is no power of two: expected one, as in {}", super::DEFAULT_RING_BYTES)),
            };
            set(&mut config.ring_bytes, value, "spec.limits.ringBufferBytes", read, RING_RANGE, &mut mistakes);
        }
        if let Some(value) = &limits.held_bytes {
            let field = "spec.limits.heldBytes";
            set(&mut config.held_bytes, value, field, Ok(value.value), HELD_RANGE, &mut mistakes);
        }
    }
    let (mut default_ttl, mut max_ttl) = (Duration::ZERO, Duration::ZERO);
    for (field, given, place, range) in [
        ("spec.dialTimeout", &spec.dial_timeout, &mut config.dial_timeout, DIAL_TIMEOUT_RANGE),
        ("spec.switchTimeout", &spec.switch_timeout, &mut config.switch_timeout, SWITCH_TIMEOUT_RANGE),
        ("spec.parkedIdle", &spec.parked_idle, &mut config.parked_idle, PARKED_IDLE_RANGE),
        ("spec.endpointGrace", &spec.endpoint_grace, &mut config.endpoint_grace, ENDPOINT_GRACE_RANGE),
        ("spec.drainTimeout", &spec.drain_timeout, &mut config.drain_timeout, DRAIN_TIMEOUT_RANGE),
        ("spec.maxStale", &spec.max_stale, &mut config.max_stale, MAX_STALE_RANGE),
        ("spec.defaultTtl", &spec.default_ttl, &mut default_ttl, TTL_RANGE),
        ("spec.maxTtl", &spec.max_ttl, &mut max_ttl, TTL_RANGE),
    ] {
        if let Some(given) = given {
            let read = parse_duration(&given.value).map(Shown).map_err(|error| error.to_string());
            let mut shown = Shown(*place);
            set(&mut shown, given, field, read, Shown(*range.start())..=Shown(*range.end()), &mut mistakes);
            *place = shown.0;
        }
    }
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
}

fn set_carriers(config: &mut Config, carriers: &Spanned<Vec<Spanned<String>>>, mistakes: &mut Vec<Mistake>) {
    let before = mistakes.len();
    for (n, text) in carriers.value.iter().enumerate() {
        if let Err(error) = carrier::parse(&text.value) {
            mistakes.push(Mistake::new(text.referenced, format!("spec.carriers[{n}]"), error.to_string()));
        }
    }
    let texts: Vec<_> = carriers.value.iter().map(|text| text.value.as_str()).collect();
    match carrier::table(&texts) {
        _ if texts.is_empty() => {
            let what = "empty: expected at least one, as in \"baggage:sidetrack\", or leave the field out";
            mistakes.push(Mistake::new(carriers.referenced, "spec.carriers", what));
        }
        Ok(table) => config.carriers = table,
        Err(_) if mistakes.len() > before => {} // said already, with its place
        Err(error) => mistakes.push(Mistake::new(carriers.referenced, "spec.carriers", error.to_string())),
    }
}

fn set<T: Copy + PartialOrd + Display, V>(
    place: &mut T,
    at: &Spanned<V>,
    field: &str,
    read: Result<T, String>,
    range: RangeInclusive<T>,
    mistakes: &mut Vec<Mistake>,
) {
    let what = match read {
        Ok(value) if range.contains(&value) => {
            *place = value;
            return;
        }
        Ok(value) => format!("{value}, expected {} to {}", range.start(), range.end()),
        Err(what) => what,
    };
    mistakes.push(Mistake::new(at.referenced, field, what));
}

/// A duration with a text form.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Shown(Duration);

impl Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(spec: &str) -> Result<Config, Vec<String>> {
        let text = format!("apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\nspec:{spec}\n");
        parse(&text).map_err(|mistakes| {
            mistakes.iter().map(|m| format!("{}:{}: {}: {}", m.line, m.column, m.field, m.what)).collect()
        })
    }

    #[test]
    fn what_is_not_said_keeps_its_default() {
        assert_eq!(with(" {}"), Ok(Config::default()));
    }

    #[test]
    fn an_object_as_a_cluster_stores_it_is_read() {
        let text = "apiVersion: sidetrack.dev/v1alpha1\nkind: SidetrackConfig\n\
            metadata: {name: default, labels: {team: mesh}, generation: 3}\nspec: {parkedIdle: 10s}\n";
        let expected = Config { parked_idle: Duration::from_secs(10), ..Config::default() };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn every_field_is_read() {
        let spec = "
  carriers: [\"header:x-key\"]
  limits: {connections: 1024, ringBufferBytes: 1048576, heldBytes: 2097152}
  dialTimeout: 300ms
  switchTimeout: 1m
  parkedIdle: 2m30s
  endpointGrace: 45s
  drainTimeout: 1h
  maxStale: 30s";
        let expected = Config {
            carriers: carrier::table(&["header:x-key"]).expect("valid"),
            connections: 1024,
            ring_bytes: 1 << 20,
            held_bytes: 2 << 20,
            dial_timeout: Duration::from_millis(300),
            switch_timeout: Duration::from_mins(1),
            parked_idle: Duration::from_secs(150),
            endpoint_grace: Duration::from_secs(45),
            drain_timeout: Duration::from_hours(1),
            max_stale: Duration::from_secs(30),
        };
        assert_eq!(with(spec), Ok(expected));
    }

    #[test]
    fn every_mistake_says_where_and_what_was_expected() {
        let spec = "
  carriers: [\"cookie:key\", \"header:content-length\"]
  limits: {connections: 1, ringBufferBytes: 300000, heldBytes: 1}
  dialTimeout: 5
  switchTimeout: 1h";
        let said = with(spec).expect_err("not valid");
        let starts = [
            "4:14: spec.carriers[0]: carrier \"cookie:key\": write baggage:MEMBER, tracestate:MEMBER or header:NAME",
            "4:28: spec.carriers[1]: carrier \"header:content-length\": this header cannot hold a key",
            "5:25: spec.limits.connections: 1, expected 256 to 1048576",
            "5:45: spec.limits.ringBufferBytes: 300000 is no power of two: expected one, as in 16777216",
            "5:64: spec.limits.heldBytes: 1, expected 2097152 to 1073741824",
            "6:16: spec.dialTimeout: \"5\" is no duration: expected a number and a unit",
            "7:18: spec.switchTimeout: 3600s, expected 100ms to 60s",
        ];
        assert_eq!(said.len(), starts.len(), "{said:#?}");
        for (said, start) in said.iter().zip(starts) {
            assert!(said.starts_with(start), "{said}\nis not\n{start}");
        }
        assert_eq!(
            with("\n  carriers: []"),
            Err(vec![
                "4:13: spec.carriers: empty: expected at least one, as in \"baggage:sidetrack\", or leave the field out"
                    .into()
            ])
        );
        assert_eq!(
            with(" {carrier: []}"),
            Err(vec![
                concat!(
                    "3:8: spec.carrier: unknown field `carrier`, expected one of ",
                    "carriers, limits, dialTimeout, switchTimeout, parkedIdle, endpointGrace, drainTimeout, maxStale, defaultTtl, maxTtl"
                )
                .into()
            ])
        );
    }
}
