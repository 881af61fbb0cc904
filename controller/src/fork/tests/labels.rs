use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector, SelectorExt as _};
use proptest::{collection, prelude::*, sample};

use super::*;
use crate::{
    fork::labels::{Changed, change, correct},
    names::PREFIX,
};

fn labels(of: &[(&str, &str)]) -> Labels {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn own() -> Labels {
    labels(&[("sidetrack.dev/sandbox", "pr"), ("sidetrack.dev/fork", "orders"), ("sidetrack.dev/copy", "0a1b2c3d")])
}

fn changed(baseline: &[(&str, &str)], selectors: &Selectors) -> Changed {
    change(&labels(baseline), &own(), selectors, "0a1b2c3d")
}

#[test]
fn names_of_applications_keep_their_key_and_others_stay_unless_somebody_selects_by_them() {
    let baseline = [
        ("app", "orders"),
        ("app.kubernetes.io/name", "orders"),
        ("sidecar.istio.io/inject", "true"),
        ("team.example/name", "shop"),
        ("pod-template-hash", "abc"),
        ("sidetrack.dev/old", "x"),
    ];
    let mut selectors = Selectors::default();
    let expected = |team: &str| {
        let mut all = own();
        all.extend(labels(&[
            ("app", "orders-0a1b2c3d"),
            ("app.kubernetes.io/name", "orders-0a1b2c3d"),
            ("sidecar.istio.io/inject", "true"),
            ("team.example/name", team),
        ]));
        all
    };
    assert_eq!(changed(&baseline, &selectors).labels, expected("shop"));
    selectors.service("shop", &labels(&[("team.example/name", "other")]));
    assert_eq!(changed(&baseline, &selectors), Changed { labels: expected("shop-0a1b2c3d"), still: Vec::new() });
}

#[test]
fn a_label_whose_mere_presence_selects_is_not_there_and_what_selects_by_absence_is_named() {
    let mut selectors = Selectors::default();
    let add = |selectors: &mut Selectors, what: &str, selector: Value| {
        selectors.add(what.to_owned(), &serde_json::from_value(selector).expect("a selector"));
    };
    add(&mut selectors, "PodDisruptionBudget any", json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}));
    add(&mut selectors, "PodDisruptionBudget all", json!({}));
    add(
        &mut selectors,
        "PodDisruptionBudget no-db",
        json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]}),
    );
    let changed = changed(&[("app", "orders"), ("tier", "web")], &selectors);
    assert_eq!(changed.labels.get("app"), None);
    assert_eq!(changed.still, ["PodDisruptionBudget all", "PodDisruptionBudget no-db"]);
}

#[test]
fn a_service_made_later_gets_no_living_pod() {
    let pod = changed(&[("app", "orders"), ("team.example/name", "shop")], &Selectors::default()).labels;
    let mut later = Selectors::default();
    later.service("all-of-shop", &labels(&[("team.example/name", "shop")]));
    later.service("greedy", &labels(&[("app", "orders-0a1b2c3d")]));
    later.service("of-the-fork", &labels(&[("sidetrack.dev/sandbox", "pr")]));
    let mut corrected = pod.clone();
    corrected.extend(correct(&pod, &later, "0a1b2c3d"));
    assert_eq!(corrected["team.example/name"], "shop-0a1b2c3d");
    let selecting: Vec<_> = later.selecting(&corrected).map(|(what, _)| what).collect();
    assert_eq!(selecting, ["Service of-the-fork"]);
    assert_eq!(correct(&corrected, &later, "0a1b2c3d"), Labels::new());
}

const KEYS: [&str; 8] = [
    "app",
    "tier",
    "version",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "team.example/name",
    "x.io/inject",
    "pod-template-hash",
];

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        sample::select(vec!["orders", "web", "a.b", "", "x"]).prop_map(str::to_owned),
        "[a-z0-9]([a-z0-9._-]{0,60}[a-z0-9])?"
    ]
}

fn any_labels() -> impl Strategy<Value = Labels> {
    collection::btree_map(sample::select(&KEYS[..]).prop_map(str::to_owned), any_value(), 0..6)
}

/// Demands that pods with these labels meet, most of them.
fn any_selector(labels: Labels) -> impl Strategy<Value = Selector> {
    let held: Vec<(String, String)> = labels.into_iter().collect();
    let held = if held.is_empty() { vec![("app".to_owned(), "none".to_owned())] } else { held };
    let demand = (sample::select(held), 0..6_u8, any_value()).prop_map(|((key, value), kind, other)| match kind {
        0 | 1 => Expression::Equal(key, value),
        2 => Expression::In(key, [value, other].into()),
        3 => Expression::Exists(key),
        4 => Expression::NotIn(key, [other].into()),
        _ => Expression::DoesNotExist(other.replace(['.', '_'], "x") + "-y"),
    });
    collection::vec(demand, 0..4).prop_map(|all| all.into_iter().collect())
}

fn demands_presence(selector: &Selector) -> bool {
    selector
        .clone()
        .into_iter()
        .any(|it| matches!(it, Expression::Equal(..) | Expression::In(..) | Expression::Exists(_)))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_selects_the_baseline_selects_no_fork_or_is_named(
        (baseline, chosen) in any_labels().prop_flat_map(|labels| {
            let selectors = collection::vec(any_selector(labels.clone()), 0..6);
            (Just(labels), selectors)
        })
    ) {
        let mut selectors = Selectors::default();
        for (number, selector) in chosen.iter().enumerate() {
            let as_object: LabelSelector = selector.clone().into();
            selectors.add(number.to_string(), &as_object);
        }
        let changed = change(&baseline, &own(), &selectors, "0a1b2c3d");
        for (number, selector) in chosen.iter().enumerate().filter(|(_, selector)| selector.matches(&baseline)) {
            let matches = selector.matches(&changed.labels);
            prop_assert!(!matches || !demands_presence(selector), "{selector} selects {:?}", changed.labels);
            prop_assert_eq!(matches, changed.still.contains(&number.to_string()));
        }
        for (key, value) in &changed.labels {
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            prop_assert!(value.len() <= 63 && (value.is_empty() || ends(value.chars().next()) && ends(value.chars().last())), "{key}={value}");
            prop_assert!(baseline.contains_key(key) || key.starts_with(PREFIX));
        }
        // Services that are made afterwards, by any of the baseline's labels.
        let named: BTreeMap<_, _> = baseline.iter().filter(|(key, _)| !key.contains('/')).collect();
        for (key, value) in named {
            prop_assert_ne!(changed.labels.get(key), Some(value));
        }
        let mut later = Selectors::default();
        for (key, value) in &changed.labels {
            later.service(key, &[(key.clone(), value.clone())].into());
        }
        let mut corrected = changed.labels.clone();
        corrected.extend(correct(&changed.labels, &later, "0a1b2c3d"));
        prop_assert!(later.selecting(&corrected).all(|(what, _)| what.contains(PREFIX)));
    }
}
