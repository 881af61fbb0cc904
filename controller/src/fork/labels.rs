//! The labels of a fork's pods: nothing that selects the baseline's pods selects them.
//!
//! Services know only equality, so another *value* is enough for them, and policies that demand a label still find it. What
//! a budget or a workload selects by a label's mere presence, the fork's pods do not have.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector, SelectorExt as _};

use crate::names::{PREFIX, short, with_hash};

/// Labels of a pod.
pub type Labels = BTreeMap<String, String>;

/// Labels that a workload's controller gives its pods: those of a fork get their own.
const GIVEN: &[&str] = &[
    "pod-template-hash",
    "rollouts-pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];
/// Names of applications, by which Services and workloads select.
const APPLICATION: &str = "app.kubernetes.io/";

/// What selects pods in a namespace.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    all: Vec<(String, Selector)>,
}

impl Selectors {
    /// A Service, which selects by equality; by nothing, where it has no selector.
    pub fn service(&mut self, name: &str, labels: &Labels) {
        if !labels.is_empty() {
            self.all.push((format!("Service {name}"), labels.clone().into_iter().collect()));
        }
    }

    /// Anything else, with words for it. An empty selector selects every pod.
    pub fn add(&mut self, what: String, selector: &LabelSelector) {
        // One that cannot be read the API server has not taken either.
        if let Ok(selector) = Selector::try_from(selector.clone()) {
            self.all.push((what, selector));
        }
    }

    /// Who selects pods with these labels.
    pub fn selecting<'a>(&'a self, labels: &Labels) -> impl Iterator<Item = (&'a str, &'a Selector)> {
        let matching = self.all.iter().filter(|(_, selector)| selector.matches(labels));
        matching.map(|(what, selector)| (what.as_str(), selector))
    }

    /// Labels that anybody selects by.
    fn keys(&self) -> BTreeSet<String> {
        self.all.iter().flat_map(|(_, selector)| selector.clone()).map(|it| key(&it).0.to_owned()).collect()
    }
}

/// Labels of a fork's pods, and who counts them among the baseline's all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The labels.
    pub labels: Labels,
    /// Words for whoever selects them by labels that they have not.
    pub still: Vec<String>,
}

/// The labels of a fork of pods that have these, with its own.
#[must_use]
pub fn change(baseline: &Labels, own: &Labels, selectors: &Selectors, hash: &str) -> Changed {
    let used = selectors.keys();
    let changes = |key: &str| !key.contains('/') || key.starts_with(APPLICATION) || used.contains(key);
    let kept = baseline.iter().filter(|(key, _)| !GIVEN.contains(&key.as_str()) && !key.starts_with(PREFIX));
    let mut labels: Labels = kept
        .map(|(key, value)| (key.clone(), if changes(key) { with_hash(value, hash) } else { value.clone() }))
        .collect();
    labels.extend(own.clone());
    let mut still = Vec::new();
    for (what, selector) in selectors.selecting(baseline) {
        if !selector.matches(&labels) {
            continue;
        }
        // It is there, whatever its value is: it must not be.
        for expression in selector.clone() {
            if let (key, true) = key(&expression)
                && !own.contains_key(key)
            {
                labels.remove(key);
            }
        }
        if selector.matches(&labels) {
            still.push(what.to_owned());
        }
    }
    Changed { labels, still }
}

/// What must change on a living pod so that no Service selects it: label by label the new value. A Service that selects by
/// Sidetrack's own labels alone means the fork.
#[must_use]
pub fn correct(pod: &Labels, services: &Selectors, hash: &str) -> Labels {
    let mut wrong = Labels::new();
    for (_, selector) in services.selecting(pod) {
        for expression in selector.clone() {
            let (key, _) = key(&expression);
            if let Some(value) = pod.get(key).filter(|_| !key.starts_with(PREFIX)) {
                // Where it has the hash already somebody has written that into his selector.
                let value = if value.ends_with(hash) {
                    with_hash("fork", &short(&[hash, value]))
                } else {
                    with_hash(value, hash)
                };
                wrong.insert(key.to_owned(), value);
            }
        }
    }
    wrong
}

/// The label that is asked for, and whether it must be there.
fn key(expression: &Expression) -> (&str, bool) {
    match expression {
        Expression::In(key, _) | Expression::Equal(key, _) | Expression::Exists(key) => (key, true),
        Expression::NotIn(key, _) | Expression::NotEqual(key, _) | Expression::DoesNotExist(key) => (key, false),
    }
}
