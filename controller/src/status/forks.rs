//! What the routes say of one fork.

use sidetrack_resolve::{Fate, Note, Outcome, Ruling, Why};

use super::{FoundFork, Trouble};

/// Whether a fork serves.
pub(super) enum Readiness {
    /// Wherever it is to.
    Ready,
    /// Not everywhere.
    Not(Trouble),
}

fn rulings<'a>(fork: &'a FoundFork, fate: Option<&'a Fate>) -> impl Iterator<Item = &'a Ruling> + Clone {
    let rulings = fate.map(|fate| fate.rulings.as_slice()).unwrap_or_default();
    rulings.iter().filter(|ruling| ruling.fork == fork.name && fork.services.contains(&ruling.service))
}

pub(super) fn readiness(fork: &FoundFork, fate: Option<&Fate>) -> Readiness {
    // A fork that was not made has no pods, one that was not changed may have.
    let waits = || match (&fork.trouble, &fork.hindrance) {
        (Some(trouble), _) | (None, Some(trouble)) => Readiness::Not(trouble.clone()),
        (None, None) => Readiness::Not(Trouble::new(Some("Starting"), Some("no pod is ready yet"))),
    };
    if fork.services.is_empty() {
        return if fork.ready_pods > 0 { Readiness::Ready } else { waits() };
    }
    let mut known = rulings(fork, fate).peekable();
    if known.peek().is_none() {
        return waits();
    }
    for ruling in known {
        match &ruling.outcome {
            Outcome::Routed(_) => {}
            Outcome::Refused(why) | Outcome::Baseline(why) | Outcome::Unsteered(why) => {
                return match why {
                    Why::NoPod { .. } | Why::NotReady { .. } => waits(),
                    why => Readiness::Not(trouble(why)),
                };
            }
        }
    }
    // The routes know of a Service as soon as its status is written.
    let all = fork.services.iter().all(|service| rulings(fork, fate).any(|ruling| ruling.service == *service));
    if all { Readiness::Ready } else { waits() }
}

/// Why a fork is none: it was not made, or its pods are the baseline's.
pub(super) fn refused(fork: &FoundFork, fate: Option<&Fate>) -> Option<Trouble> {
    let of_baseline = rulings(fork, fate).find_map(|ruling| match &ruling.outcome {
        Outcome::Refused(why @ Why::IsBaseline { .. }) => Some(trouble(why)),
        _ => None,
    });
    fork.trouble.clone().or(of_baseline)
}

/// Which keys are an older Sandbox's.
pub(super) fn conflict(fork: &FoundFork, fate: Option<&Fate>) -> Option<Trouble> {
    let notes = |ruling: &Ruling| -> Vec<String> {
        let conflicts = ruling.notes.iter().filter(|note| matches!(note, Note::Conflict { .. }));
        conflicts.map(|note| format!("at Service {}: {note}", ruling.service)).collect()
    };
    let mut all: Vec<String> = rulings(fork, fate).flat_map(notes).collect();
    all.dedup();
    (!all.is_empty()).then(|| Trouble { reason: "OlderSandbox".to_owned(), message: all.join("; ") })
}

/// What its author should know.
pub(super) fn hazards(fork: &FoundFork, fate: Option<&Fate>) -> Option<Trouble> {
    let notes = rulings(fork, fate).flat_map(|ruling| {
        let others = ruling.notes.iter().filter(|note| !matches!(note, Note::Conflict { .. }));
        others.map(move |note| format!("Service {}: {note}", ruling.service))
    });
    let nothing = "no Service selects the baseline's pods: no request is steered to the fork";
    let unsteered = (fork.services.is_empty() && fork.trouble.is_none()).then(|| nothing.to_owned());
    let mut all: Vec<String> = fork.hazards.iter().cloned().chain(notes).chain(unsteered).collect();
    all.dedup();
    (!all.is_empty()).then(|| Trouble { reason: "Seen".to_owned(), message: all.join("; ") })
}

fn trouble(why: &Why) -> Trouble {
    let reason = match why {
        Why::Gone(_) => "Gone",
        Why::NoPod { .. } | Why::NotReady { .. } | Why::PodsUnknown { .. } | Why::EndpointsUnknown(_) => "Starting",
        Why::IsBaseline { .. } => "PodsAreBaseline",
        Why::NoNamedPort { .. } => "NoNamedPort",
        Why::NoService(_) => "NoService",
        Why::External(_) => "ExternalName",
        Why::NoTcpPort(_) => "NoTcpPort",
        Why::NoAddress(_) => "NoAddress",
        Why::NoKey(_) => "NoKey",
        Why::TableFull => "TableFull",
    };
    Trouble { reason: reason.to_owned(), message: why.to_string() }
}
