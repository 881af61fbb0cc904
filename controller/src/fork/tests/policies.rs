use k8s_openapi::{
    api::networking::v1::NetworkPolicy,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference},
};

use super::*;
use crate::fork::policies::{Seen, copies};

fn seen(copy: &str, app: &str) -> Seen {
    let labels = |app: &str, copy: &str| -> Labels {
        let mut labels = Labels::from([("app".to_owned(), app.to_owned())]);
        if !copy.is_empty() {
            labels.insert("sidetrack.dev/copy".into(), copy.into());
        }
        labels
    };
    Seen {
        copy: copy.into(),
        baseline: labels(app, ""),
        labels: labels(&format!("{app}-{copy}"), copy),
        own: Labels::from([("sidetrack.dev/copy".to_owned(), copy.to_owned())]),
    }
}

fn policy(name: &str, spec: &Value) -> NetworkPolicy {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})).expect("a policy")
}

fn made(spec: &Value) -> Vec<Value> {
    let owner = OwnerReference { uid: "u1".into(), ..OwnerReference::default() };
    let forks = [seen("c1", "orders"), seen("c2", "payments")];
    let all = copies(&[policy("p", spec)], &forks, "pr", &owner);
    assert!(all.iter().all(|it| it.metadata.owner_references.as_ref().is_some_and(|owners| owners[0].uid == "u1")));
    let again = copies(&all, &forks, "pr", &owner);
    assert_eq!(again, [], "copies are not copied");
    all.into_iter().map(|it| serde_json::to_value(it.spec).expect("JSON")).collect()
}

#[test]
fn a_policy_for_the_baselines_pods_is_copied_for_the_forks() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "orders"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80, "protocol": "TCP"}]}]});
    let mut expected = spec.clone();
    expected["podSelector"] = json!({"matchLabels": {"sidetrack.dev/copy": "c1"}});
    assert_eq!(made(&spec), [expected]);
}

#[test]
fn a_policy_that_lets_the_baseline_in_lets_the_fork_in_too() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "orders"}}}, {"podSelector": {"matchLabels": {"app": "web"}}}]},
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "payments"}}, "namespaceSelector": {"matchLabels": {"a": "b"}}}]}]});
    let expected = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"sidetrack.dev/copy": "c1"}}}]}],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"sidetrack.dev/copy": "c2"}}, "namespaceSelector": {"matchLabels": {"a": "b"}}}]}]});
    assert_eq!(made(&spec), [expected]);
}

#[test]
fn forks_of_one_sandbox_may_do_to_one_another_what_their_baselines_may() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "payments"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "orders"}}}]}]});
    let peer = |label: &str, value: &str| json!({"podSelector": {"matchLabels": {label: value}}});
    let subject = json!({"podSelector": {"matchLabels": {"sidetrack.dev/copy": "c2"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [peer("app", "orders"), peer("sidetrack.dev/copy", "c1")]}]});
    let peers = json!({"podSelector": {"matchLabels": {"app": "payments"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [peer("sidetrack.dev/copy", "c1")]}]});
    assert_eq!(made(&spec), [subject, peers]);
}

#[test]
fn what_means_every_pod_means_the_fork_already() {
    let all: LabelSelector = LabelSelector::default();
    for spec in [
        json!({"podSelector": all, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]}),
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": [{}]}),
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}),
    ] {
        assert_eq!(made(&spec), [] as [Value; 0]);
    }
}
