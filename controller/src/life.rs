//! When a Sandbox's forks go.

use jiff::{SignedDuration, Timestamp};
use sidetrack_objects::{Sandbox, SidetrackConfigSpec, parse_duration};

/// How long forks live where neither a Sandbox nor the cluster says so: a day's work.
pub const DEFAULT_TTL: SignedDuration = SignedDuration::from_hours(24);
/// The longest that they may live where the cluster does not say so: as long as a Sandbox can ask for.
pub const MAX_TTL: SignedDuration = SignedDuration::from_hours(8_760);

/// When forks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When.
    pub expires_at: Timestamp,
    /// Whether that is sooner than its author has asked for.
    pub limited: bool,
}

/// When the forks of a Sandbox go, by its `ttl` and the cluster's default and maximum. Counted from its creation: longer
/// time is more of it.
#[must_use]
pub fn life(sandbox: &Sandbox, config: Option<&SidetrackConfigSpec>) -> Life {
    // What cannot be read the API server has not taken.
    let read = |text: &Option<String>| SignedDuration::try_from(parse_duration(text.as_ref()?).ok()?).ok();
    let said = |field: fn(&SidetrackConfigSpec) -> &Option<String>| read(field(config?));
    let most = said(|config| &config.max_ttl).unwrap_or(MAX_TTL);
    let asked = read(&sandbox.spec.ttl);
    let wished = asked.or_else(|| said(|config| &config.default_ttl)).unwrap_or(DEFAULT_TTL);
    let created = sandbox.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |at| at.0);
    let expires_at = created.checked_add(wished.min(most)).unwrap_or(Timestamp::MAX);
    Life { expires_at, limited: asked.is_some_and(|asked| asked > most) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expires(ttl: Option<&str>, config: &serde_json::Value) -> (String, bool) {
        let object = json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox",
            "metadata": {"name": "pr", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"ttl": ttl, "forks": []}});
        let sandbox = serde_json::from_value(object).expect("a Sandbox");
        let life = life(&sandbox, serde_json::from_value(config.clone()).ok().as_ref());
        (life.expires_at.to_string(), life.limited)
    }

    #[test]
    fn forks_go_after_their_time_the_clusters_or_a_day_and_never_later_than_the_most() {
        let at = |text: &str, limited| (text.to_owned(), limited);
        assert_eq!(expires(Some("90m"), &json!(null)), at("2026-01-01T01:30:00Z", false));
        assert_eq!(expires(None, &json!(null)), at("2026-01-02T00:00:00Z", false));
        let config = json!({"defaultTtl": "2h", "maxTtl": "4h"});
        assert_eq!(expires(None, &config), at("2026-01-01T02:00:00Z", false));
        assert_eq!(expires(Some("3h"), &config), at("2026-01-01T03:00:00Z", false));
        assert_eq!(expires(Some("5h"), &config), at("2026-01-01T04:00:00Z", true));
        assert_eq!(expires(None, &json!({"defaultTtl": "8h", "maxTtl": "4h"})), at("2026-01-01T04:00:00Z", false));
    }

    /// Agents evaluate the records, by what the controller says.
    #[test]
    fn agents_come_to_the_same_time() {
        let object = json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox",
            "metadata": {"name": "pr", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"ttl": "1h30m", "forks": []}});
        let mut sandbox: Sandbox = serde_json::from_value(object).expect("a Sandbox");
        let life = life(&sandbox, None);
        assert_eq!(sidetrack_resolve::read::sandbox(&sandbox).expires_at, Some(life.expires_at));
        let status = json!({"expiresAt": life.expires_at.to_string()});
        sandbox.status = serde_json::from_value(status).expect("a status");
        assert_eq!(sidetrack_resolve::read::sandbox(&sandbox).expires_at, Some(life.expires_at));
    }
}
