//! What is said of a Sandbox. Pure: from what was found out to its `status`, which is written where it differs.

pub(crate) mod conditions;
mod forks;
mod said;
#[cfg(test)]
mod tests;
pub mod why;

use jiff::Timestamp;
use sidetrack_objects::{
    Sandbox,
    sandbox::{Baseline, ForkStatus, SandboxStatus},
};
use sidetrack_resolve::{Fate, read};

use self::{conditions::Finding, forks::Readiness};
pub use self::{
    conditions::{OURS, ours},
    said::{Said, said},
};

/// Something that is not as it should be: a word for machines, and words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// As a condition has it.
    pub reason: String,
    /// What to do, or the cluster's own words.
    pub message: String,
}

impl Trouble {
    /// One in the cluster's words, whose reason may be anything.
    #[must_use]
    pub fn new(reason: Option<&str>, message: Option<&str>) -> Self {
        let reason: String = reason.unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(128).collect();
        let reason = if reason.starts_with(|c: char| c.is_ascii_alphabetic()) { reason } else { "Failed".to_owned() };
        let message = message.filter(|message| !message.is_empty()).unwrap_or(&reason).to_owned();
        Self { reason, message }
    }
}

impl From<&crate::fork::Refusal> for Trouble {
    fn from(refusal: &crate::fork::Refusal) -> Self {
        Self { reason: refusal.reason().to_owned(), message: refusal.to_string() }
    }
}

/// What was found out of a Sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// When its forks go.
    pub expires_at: Timestamp,
    /// That is sooner than it asks for.
    pub limited: bool,
    /// That is past.
    pub expired: bool,
    /// Sandboxes of other namespaces that share a key.
    pub group: Vec<String>,
    /// Why nothing can be done for it at all.
    pub trouble: Option<Trouble>,
    /// Its forks.
    pub forks: Vec<FoundFork>,
}

/// What was found out of one fork.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundFork {
    /// Its name.
    pub name: String,
    /// Services whose keyed requests it gets.
    pub services: Vec<String>,
    /// What it was copied from.
    pub baseline: Option<Baseline>,
    /// Why it was not made, or not changed.
    pub trouble: Option<Trouble>,
    /// What of its baseline is another by now.
    pub drift: Option<Trouble>,
    /// What its author should know.
    pub hazards: Vec<String>,
    /// What hinders its pods, in the cluster's words.
    pub hindrance: Option<Trouble>,
    /// How many of its pods are ready.
    pub ready_pods: i32,
    /// How many of them get keyed requests.
    pub ready_endpoints: i32,
}

/// The status that says what was found out. Conditions that are not the controller's are not in it.
#[must_use]
pub fn status(sandbox: &Sandbox, found: &Found, fate: Option<&Fate>, now: Timestamp) -> SandboxStatus {
    let old = sandbox.status.clone().unwrap_or_default();
    let record = read::sandbox(sandbox);
    let readiness: Vec<Readiness> = found.forks.iter().map(|fork| forks::readiness(fork, fate)).collect();
    let ready = readiness.iter().filter(|it| matches!(it, Readiness::Ready)).count();
    let findings = findings(found, &readiness, fate);
    let generation = sandbox.metadata.generation;
    let fork = |fork: &FoundFork| ForkStatus {
        name: fork.name.clone(),
        services: fork.services.clone(),
        ready_endpoints: if found.expired { 0 } else { fork.ready_endpoints },
        baseline: fork.baseline.clone(),
    };
    SandboxStatus {
        observed_generation: generation,
        keys: record.keys.into_iter().collect(),
        group: found.group.clone(),
        ready_forks: Some(format!("{}/{}", if found.expired { 0 } else { ready }, found.forks.len())),
        expires_at: Some(found.expires_at.to_string()),
        conditions: conditions::set(&old.conditions, findings, generation, now),
        forks: found.forks.iter().map(fork).collect(),
    }
}

fn findings(found: &Found, readiness: &[Readiness], fate: Option<&Fate>) -> Vec<Finding> {
    let of_all = |of: &dyn Fn(&FoundFork) -> Option<Trouble>| -> Vec<(String, Trouble)> {
        found.forks.iter().filter_map(|fork| Some((fork.name.clone(), of(fork)?))).collect()
    };
    let forked = match &found.trouble {
        Some(trouble) => Finding::no("Forked", trouble),
        None if found.expired => Finding::no("Forked", &expired(found)),
        None => Finding::joined("Forked", false, &of_all(&|fork| forks::refused(fork, fate)))
            .unwrap_or_else(|| Finding::yes("Forked", "Forked", "all forks are made")),
    };
    let not_ready = |(fork, readiness): (&FoundFork, &Readiness)| match readiness {
        Readiness::Ready => None,
        Readiness::Not(trouble) => Some((fork.name.clone(), trouble.clone())),
    };
    let not_ready: Vec<_> = found.forks.iter().zip(readiness).filter_map(not_ready).collect();
    let ready = match &found.trouble {
        _ if found.expired => Finding::no("Ready", &expired(found)),
        Some(trouble) => Finding::no("Ready", trouble),
        None => Finding::joined("Ready", false, &not_ready)
            .unwrap_or_else(|| Finding::yes("Ready", "Ready", "every fork has endpoints that are ready")),
    };
    let drift = Finding::joined("BaselineDrifted", true, &of_all(&|fork| fork.drift.clone()));
    let conflict = Finding::joined("Conflict", true, &of_all(&|fork| forks::conflict(fork, fate)));
    let hazards = Finding::joined("Hazards", true, &of_all(&|fork| forks::hazards(fork, fate)));
    let no = |kind, reason: &str, message: &str| {
        Finding::no(kind, &Trouble { reason: reason.to_owned(), message: message.to_owned() })
    };
    vec![
        forked,
        ready,
        hazards.unwrap_or_else(|| no("Hazards", "NoneSeen", "nothing was seen that a fork could damage or lack")),
        drift.unwrap_or_else(|| no("BaselineDrifted", "UpToDate", "the baselines are as they were copied")),
        conflict
            .unwrap_or_else(|| no("Conflict", "NoConflict", "no older Sandbox has one of the keys at these Services")),
        if found.expired {
            let Trouble { reason, message } = expired(found);
            Finding::yes("Expired", &reason, &message)
        } else if found.limited {
            no("Expired", "Limited", "ttl is longer than the cluster allows (maxTtl of SidetrackConfig)")
        } else {
            no("Expired", "NotExpired", "the forks are removed at expiresAt")
        },
    ]
}

fn expired(found: &Found) -> Trouble {
    let more =
        if found.limited { "it is as long as the cluster allows" } else { "a longer spec.ttl makes its forks anew" };
    Trouble { reason: "Expired".to_owned(), message: format!("its time was over at {}: {more}", found.expires_at) }
}
