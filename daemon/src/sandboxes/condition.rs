//! How far a Sandbox is, by its conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use sidetrack_objects::Sandbox;

/// What a Sandbox can be waited for to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Aim {
    /// Every fork has a pod that can be sent requests.
    Ready,
    /// Every node steers its requests.
    Routed,
    /// Its forks are made.
    Forked,
    /// It is gone.
    Deleted,
    /// Its time is over, and its forks are removed.
    Expired,
}

impl Aim {
    /// The condition that says so; none for what no condition can say.
    #[must_use]
    pub fn condition(self) -> Option<&'static str> {
        match self {
            Self::Ready => Some("Ready"),
            Self::Routed => Some("Routed"),
            Self::Forked => Some("Forked"),
            Self::Expired => Some("Expired"),
            Self::Deleted => None,
        }
    }

    /// As a word in a sentence.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Routed => "routed",
            Self::Forked => "forked",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
        }
    }
}

/// Whether a Sandbox is what it is waited for to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Met,
    /// Not yet, and why.
    NotYet(String),
    /// It will not be, and why.
    Never(String),
}

/// What a condition says of the Sandbox as it was last changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Said<'a> {
    /// Nobody has said anything.
    Nothing,
    /// What was said is of an earlier generation.
    Outdated(&'a Condition),
    /// This.
    Current(&'a Condition),
}

impl Said<'_> {
    /// `True`, `False` or `Unknown`; an outdated condition knows nothing.
    #[must_use]
    pub fn status(&self) -> &str {
        match self {
            Self::Current(condition) => &condition.status,
            Self::Nothing | Self::Outdated(_) => "Unknown",
        }
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.status() == "True"
    }
}

/// What a condition says. It is of the generation that it names, else of the one that the whole status names.
#[must_use]
pub fn said<'a>(sandbox: &'a Sandbox, condition: &str) -> Said<'a> {
    let Some(status) = &sandbox.status else { return Said::Nothing };
    let Some(found) = status.conditions.iter().find(|one| one.type_ == condition) else { return Said::Nothing };
    let of = found.observed_generation.or(status.observed_generation);
    // An object without a generation was never in a cluster.
    if of >= sandbox.metadata.generation { Said::Current(found) } else { Said::Outdated(found) }
}

/// Whether a Sandbox that is there is what it is waited for to be.
#[must_use]
pub fn verdict(sandbox: &Sandbox, aim: Aim) -> Verdict {
    let going = sandbox.metadata.deletion_timestamp.is_some();
    let Some(condition) = aim.condition() else {
        return Verdict::NotYet(match (going, &sandbox.metadata.finalizers) {
            (true, Some(finalizers)) if !finalizers.is_empty() => {
                format!("it is being deleted, and waits for {}", finalizers.join(", "))
            }
            (true, _) => "it is being deleted".into(),
            (false, _) => "nobody has deleted it: `sidetrack delete` does".into(),
        });
    };
    let found = said(sandbox, condition);
    if found.holds() {
        return Verdict::Met;
    }
    if aim != Aim::Expired {
        if going {
            return Verdict::Never("it is being deleted".into());
        }
        if let Said::Current(expired) = said(sandbox, "Expired")
            && expired.status == "True"
        {
            return Verdict::Never(format!("its time is over ({})", words(expired)));
        }
    }
    let mut why = vec![why(condition, found)];
    // What it is that a later step waits for.
    for before in ["Forked", "Ready", "Conflict"].into_iter().filter(|before| *before != condition) {
        let bad = if before == "Conflict" { "True" } else { "False" };
        if let Said::Current(found) = said(sandbox, before)
            && found.status == bad
            && aim != Aim::Expired
        {
            why.push(words(found));
        }
    }
    Verdict::NotYet(why.join("; "))
}

/// Why a condition does not hold.
fn why(name: &str, said: Said<'_>) -> String {
    match said {
        Said::Nothing => format!("nothing is said of {name} yet: does Sidetrack's controller run?"),
        Said::Outdated(condition) => {
            format!(
                "what is said is older than its last change ({}): does Sidetrack's controller run?",
                words(condition)
            )
        }
        Said::Current(condition) => words(condition),
    }
}

/// `Ready=False (ImagePullBackOff): pull access denied`.
#[must_use]
pub fn words(condition: &Condition) -> String {
    let Condition { type_, status, reason, message, .. } = condition;
    let colon = if message.is_empty() { "" } else { ": " };
    format!("{type_}={status} ({reason}){colon}{message}")
}

#[cfg(test)]
mod tests;
