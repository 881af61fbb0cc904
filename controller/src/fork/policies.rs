//! Network policies that name the baseline's pods do not name the fork's, whose labels are others: for each there are
//! copies that do. Policies only ever add to one another, so a copy takes nothing away.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicySpec},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};
use kube::core::{Selector, SelectorExt as _};

use super::Labels;
use crate::names::{INPUTS, SANDBOX_LABEL, digest, object, short};

/// A fork, as policies see its pods.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Tells its copy from any other.
    pub copy: String,
    /// Labels of the baseline's pods.
    pub baseline: Labels,
    /// Labels of its own.
    pub labels: Labels,
    /// Labels that its pods alone have.
    pub own: Labels,
}

impl Seen {
    fn selector(&self) -> LabelSelector {
        LabelSelector { match_labels: Some(self.own.clone()), match_expressions: None }
    }

    /// Whether a selector names the baseline's pods and not the fork's.
    fn is_missed(&self, selector: Option<&LabelSelector>) -> bool {
        // Without a selector of pods, all pods are meant.
        let Some(selector) = selector.and_then(|it| Selector::try_from(it.clone()).ok()) else { return false };
        selector.matches(&self.baseline) && !selector.matches(&self.labels)
    }
}

/// The copies for these forks of one Sandbox.
#[must_use]
pub fn copies<'a>(
    policies: impl IntoIterator<Item = &'a NetworkPolicy>,
    forks: &[Seen],
    sandbox: &str,
    owner: &OwnerReference,
) -> Vec<NetworkPolicy> {
    let mut made = Vec::new();
    for policy in policies {
        // Copies are not copied.
        let labels = policy.metadata.labels.as_ref();
        if labels.is_some_and(|labels| labels.contains_key(SANDBOX_LABEL)) {
            continue;
        }
        let (Some(name), Some(spec)) = (&policy.metadata.name, &policy.spec) else { continue };
        let mut copy = |spec: NetworkPolicySpec, of: &str| made.push(finish(name, spec, of, sandbox, owner));
        for fork in forks.iter().filter(|fork| fork.is_missed(spec.pod_selector.as_ref())) {
            let mut subject = spec.clone();
            subject.pod_selector = Some(fork.selector());
            for peers in peers_mut(&mut subject) {
                let more: Vec<_> = peers.iter().flat_map(|peer| replaced(peer, forks)).collect();
                peers.extend(more);
            }
            copy(subject, &fork.copy);
        }
        if let Some(spec) = as_peers(spec, forks) {
            copy(spec, &owner.uid);
        }
    }
    made
}

/// A policy with those of its rules alone that name the baseline's pods as the other side, and the forks' in their place.
fn as_peers(spec: &NetworkPolicySpec, forks: &[Seen]) -> Option<NetworkPolicySpec> {
    let only = |peers: &Option<Vec<NetworkPolicyPeer>>| -> Option<Vec<NetworkPolicyPeer>> {
        let peers: Vec<_> = peers.iter().flatten().flat_map(|peer| replaced(peer, forks)).collect();
        (!peers.is_empty()).then_some(peers)
    };
    let mut kinds = Vec::new();
    let mut copy = NetworkPolicySpec { pod_selector: spec.pod_selector.clone(), ..NetworkPolicySpec::default() };
    let ingress = spec.ingress.iter().flatten().filter_map(|rule| {
        let mut rule = rule.clone();
        rule.from = Some(only(&rule.from)?);
        Some(rule)
    });
    let ingress: Vec<_> = ingress.collect();
    let egress = spec.egress.iter().flatten().filter_map(|rule| {
        let mut rule = rule.clone();
        rule.to = Some(only(&rule.to)?);
        Some(rule)
    });
    let egress: Vec<_> = egress.collect();
    if !ingress.is_empty() {
        kinds.push("Ingress".to_owned());
        copy.ingress = Some(ingress);
    }
    if !egress.is_empty() {
        kinds.push("Egress".to_owned());
        copy.egress = Some(egress);
    }
    // A copy isolates its pods on the sides that it names: on these the original does that already.
    let isolated = spec.policy_types.as_ref();
    kinds.retain(|kind| isolated.is_none_or(|isolated| isolated.contains(kind)));
    if kinds.is_empty() {
        return None;
    }
    copy.policy_types = Some(kinds);
    Some(copy)
}

/// The same peer with the pods of those forks whose baseline's it names. What it says of namespaces stays: where that means
/// others, the copy means nobody.
fn replaced(peer: &NetworkPolicyPeer, forks: &[Seen]) -> Vec<NetworkPolicyPeer> {
    let missed = forks.iter().filter(|fork| fork.is_missed(peer.pod_selector.as_ref()));
    missed.map(|fork| NetworkPolicyPeer { pod_selector: Some(fork.selector()), ..peer.clone() }).collect()
}

fn peers_mut(spec: &mut NetworkPolicySpec) -> impl Iterator<Item = &mut Vec<NetworkPolicyPeer>> {
    let from = spec.ingress.iter_mut().flatten().filter_map(|rule| rule.from.as_mut());
    let to = spec.egress.iter_mut().flatten().filter_map(|rule| rule.to.as_mut());
    from.chain(to)
}

fn finish(name: &str, spec: NetworkPolicySpec, of: &str, sandbox: &str, owner: &OwnerReference) -> NetworkPolicy {
    let said = serde_json::to_string(&spec).expect("its keys are texts");
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(object(sandbox, name, &short(&[&owner.uid, of, name]))),
            labels: Some(BTreeMap::from([(SANDBOX_LABEL.to_owned(), sandbox.to_owned())])),
            annotations: Some(BTreeMap::from([(INPUTS.to_owned(), digest(&[&said]))])),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    }
}
