//! Conditions: written when something changes, with the time at which it did.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Trouble;

/// The conditions that the controller writes here. `Routed` and `Degraded` have writers of their own, who apply them under
/// another field manager.
pub const OURS: &[&str] = &["Forked", "Ready", "Hazards", "BaselineDrifted", "Conflict", "Expired"];

/// Whether a condition is the controller's.
#[must_use]
pub fn ours(condition: &Condition) -> bool {
    OURS.contains(&condition.type_.as_str())
}

/// So long at most is a condition's message (the API takes 32 KiB of each; a table of people, less).
const MESSAGE_MAX: usize = 4096;
/// Reasons between which a container goes back and forth: as long as it does, nothing has changed, whatever else its words say.
const SAME: &[&[&str]] = &[&["ErrImagePull", "ImagePullBackOff"]];

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    kind: &'static str,
    holds: bool,
    reason: String,
    message: String,
}

impl Finding {
    pub(crate) fn yes(kind: &'static str, reason: &str, message: &str) -> Self {
        Self { kind, holds: true, reason: reason.to_owned(), message: message.to_owned() }
    }

    pub(crate) fn no(kind: &'static str, trouble: &Trouble) -> Self {
        Self { kind, holds: false, reason: trouble.reason.clone(), message: trouble.message.clone() }
    }

    /// What is found of several forks: the reason of the first, the words of all; nothing where there is none.
    pub(crate) fn joined(kind: &'static str, holds: bool, of: &[(String, Trouble)]) -> Option<Self> {
        let (_, first) = of.first()?;
        let all: Vec<String> = of.iter().map(|(fork, trouble)| format!("fork {fork}: {}", trouble.message)).collect();
        Some(Self { kind, holds, reason: first.reason.clone(), message: all.join("\n") })
    }
}

/// The conditions that say this, of which those that stand keep their time.
pub(crate) fn set(
    old: &[Condition],
    findings: Vec<Finding>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |mut finding: Finding| {
        let stands = old.iter().find(|condition| condition.type_ == finding.kind);
        let status = if finding.holds { "True" } else { "False" };
        let same = stands.filter(|stands| stands.status == status);
        let of_it = same.filter(|it| it.observed_generation == generation && is_same(&it.reason, &finding.reason));
        if let Some(same) = of_it {
            (finding.reason, finding.message) = (same.reason.clone(), same.message.clone());
        }
        finding.message.truncate(finding.message.floor_char_boundary(MESSAGE_MAX));
        // Seconds are what the API keeps of a time.
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        Condition {
            type_: finding.kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: same.map_or(now, |same| same.last_transition_time.clone()),
            observed_generation: generation,
            reason: finding.reason,
            message: finding.message,
        }
    };
    findings.into_iter().map(condition).collect()
}

fn is_same(one: &str, other: &str) -> bool {
    SAME.iter().any(|family| family.contains(&one) && family.contains(&other))
}
