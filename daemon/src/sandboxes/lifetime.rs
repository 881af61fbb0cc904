//! How long a Sandbox lives.

use std::{fmt::Write as _, time::Duration};

use jiff::{SignedDuration, Timestamp};
use sidetrack_objects::{Sandbox, parse_duration};
use sidetrack_resolve::read;

use super::Failure;

/// A time as Go writes it, in whole seconds: `1h30m`.
#[must_use]
pub fn go(time: Duration) -> String {
    let seconds = time.as_secs();
    let mut text = String::new();
    for (count, unit) in [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')] {
        if count > 0 {
            _ = write!(text, "{count}{unit}"); // never fails on a string
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// When a Sandbox ends: as its status says, else as it says itself.
#[must_use]
pub fn end(sandbox: &Sandbox) -> Option<Timestamp> {
    read::sandbox(sandbox).expires_at
}

/// When it ends that has this `ttl`.
#[must_use]
pub fn end_by(sandbox: &Sandbox, ttl: &str) -> Option<Timestamp> {
    let created = sandbox.metadata.creation_timestamp.as_ref()?.0;
    created.checked_add(SignedDuration::try_from(parse_duration(ttl).ok()?).ok()?).ok()
}

/// The `ttl` with which it ends so much later than it would; one that has ended lives so long from now on.
pub fn longer(sandbox: &Sandbox, by: Duration, now: Timestamp) -> Result<String, Failure> {
    let name = sandbox.metadata.name.as_deref().unwrap_or_default();
    let unending =
        || Failure::Usage(format!("sandbox {name} has no end that could be moved: give it one, as in --ttl 2h"));
    let created = sandbox.metadata.creation_timestamp.as_ref().ok_or_else(unending)?.0;
    // What it says itself counts: a status may be of before its last change.
    let end = sandbox
        .spec
        .ttl
        .as_deref()
        .and_then(|ttl| end_by(sandbox, ttl))
        .or_else(|| end(sandbox))
        .ok_or_else(unending)?;
    let until = end.max(now).duration_since(created);
    let ttl = Duration::try_from(until).unwrap_or_default().saturating_add(by);
    // Whole seconds, never less than was asked for.
    Ok(go(Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T02:00:00Z";

    fn sandbox(spec: &Value, status: &Value) -> Sandbox {
        let metadata = json!({"name": "pr", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let mut spec = spec.clone();
        spec["forks"] = json!([]);
        serde_json::from_value(json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox",
            "metadata": metadata, "spec": spec, "status": status}))
        .expect("a Sandbox")
    }

    fn longer_by(sandbox: &Sandbox, minutes: u64) -> Result<String, Failure> {
        longer(sandbox, Duration::from_mins(minutes), NOW.parse().expect("a time"))
    }

    #[test]
    fn times_are_written_as_the_api_reads_them() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (3600, "1h"), (5400, "1h30m"), (90_061, "25h1m1s")]
        {
            assert_eq!(go(Duration::from_secs(seconds)), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn a_sandbox_that_lives_ends_later_than_it_would() {
        let own = sandbox(&json!({"ttl": "3h"}), &json!({}));
        assert_eq!(longer_by(&own, 30).expect("longer"), "3h30m");
        // The cluster's default, which only the status shows.
        let default = sandbox(&json!({}), &json!({"expiresAt": "2026-01-01T04:00:00Z"}));
        assert_eq!(longer_by(&default, 60).expect("longer"), "5h");
        // The status of before its last change.
        let changed = sandbox(&json!({"ttl": "6h"}), &json!({"expiresAt": "2026-01-01T04:00:00Z"}));
        assert_eq!(longer_by(&changed, 60).expect("longer"), "7h");
    }

    #[test]
    fn one_that_has_ended_lives_so_long_from_now_on() {
        let over = sandbox(&json!({"ttl": "1h"}), &json!({}));
        assert_eq!(longer_by(&over, 30).expect("longer"), "2h30m");
    }

    #[test]
    fn one_without_an_end_says_what_to_do() {
        let said = longer_by(&sandbox(&json!({}), &json!({})), 30).expect_err("no end").to_string();
        assert!(said.contains("sandbox pr has no end that could be moved: give it one, as in --ttl 2h"), "{said}");
    }
}
