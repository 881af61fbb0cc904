use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use serde_json::{Value, json};
use sidetrack_objects::Sandbox;
use sidetrack_resolve::{Fate, Note, Outcome, Ruling, State, Why};

use super::{why::hindrance, *};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn sandbox(status: Option<SandboxStatus>) -> Sandbox {
    let object = json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "pr", "namespace": "shop", "generation": 3},
        "spec": {"forks": [{"name": "orders", "workload": {"kind": "Deployment", "name": "orders"}}]}});
    Sandbox { status, ..serde_json::from_value(object).expect("a Sandbox") }
}

fn fork() -> FoundFork {
    FoundFork { name: "orders".into(), services: vec!["orders".into()], ..FoundFork::default() }
}

fn found(fork: FoundFork) -> Found {
    let expires_at = now() + SignedDuration::from_hours(2);
    Found { expires_at, limited: false, expired: false, group: Vec::new(), trouble: None, forks: vec![fork] }
}

fn fate(outcome: Outcome, notes: Vec<Note>) -> Fate {
    let ruling = Ruling { fork: "orders".into(), service: "orders".into(), port: Some(80), outcome, notes };
    Fate { uid: "u1".into(), generation: 3, state: State::Living, rulings: vec![ruling], hash: 0 }
}

fn routed() -> Outcome {
    Outcome::Routed(vec!["10.1.0.1:80".parse().expect("an address")])
}

fn no_pod() -> Outcome {
    Outcome::Refused(Why::NoPod { sandbox: "pr".into(), fork: "orders".into() })
}

/// Status, reason and message of a condition.
fn says(status: &SandboxStatus, kind: &str) -> (String, String, String) {
    let condition = status.conditions.iter().find(|it| it.type_ == kind).expect("a condition");
    (condition.status.clone(), condition.reason.clone(), condition.message.clone())
}

fn is(status: &SandboxStatus, kind: &str, value: &str, reason: &str, words: &str) {
    let (is, why, message) = says(status, kind);
    assert!(is == value && why == reason && message.contains(words), "{kind}={is} ({why}): {message}");
}

#[test]
fn a_fork_is_ready_where_every_ruling_leads_to_it() {
    let status = |fork: FoundFork, fate: Option<&Fate>| super::status(&sandbox(None), &found(fork), fate, now());
    let ready = status(fork(), Some(&fate(routed(), Vec::new())));
    is(&ready, "Forked", "True", "Forked", "all");
    is(&ready, "Ready", "True", "Ready", "every fork");
    assert_eq!((ready.ready_forks.as_deref(), ready.observed_generation), (Some("1/1"), Some(3)));
    assert_eq!(
        (ready.keys.as_slice(), ready.expires_at.as_deref()),
        (&["pr.shop".to_owned()][..], Some("2026-01-01T02:00:00Z"))
    );
    for unknown in [None, Some(&fate(no_pod(), Vec::new()))] {
        is(&status(fork(), unknown), "Ready", "False", "Starting", "no pod is ready");
    }
    let external = fate(Outcome::Unsteered(Why::External("orders".into())), Vec::new());
    is(&status(fork(), Some(&external)), "Ready", "False", "ExternalName", "ExternalName");
    let hindered = FoundFork { hindrance: Some(Trouble::new(Some("Unschedulable"), Some("no node"))), ..fork() };
    is(&status(hindered, Some(&fate(no_pod(), Vec::new()))), "Ready", "False", "Unschedulable", "fork orders: no node");
    // One of two Services is not known to the routes yet.
    let two = FoundFork { services: vec!["orders".into(), "other".into()], ..fork() };
    is(&status(two, Some(&fate(routed(), Vec::new()))), "Ready", "False", "Starting", "");
    let worker = FoundFork { services: Vec::new(), ready_pods: 1, ..fork() };
    let worker = status(worker, None);
    is(&worker, "Ready", "True", "Ready", "");
    is(&worker, "Hazards", "True", "Seen", "no Service selects");
}

#[test]
fn what_was_refused_what_conflicts_and_what_is_hazardous_is_said_of_each_fork() {
    let trouble = Trouble::new(Some("UnknownContainer"), Some("images names x"));
    let conflict =
        Note::Conflict { key: "k".into(), sandbox: sidetrack_resolve::Name::new("shop", "older"), fork: "o".into() };
    let refused = FoundFork { trouble: Some(trouble), hazards: vec!["volume v is empty".into()], ..fork() };
    let status =
        super::status(&sandbox(None), &found(refused), Some(&fate(no_pod(), vec![conflict, Note::NoBaseline])), now());
    is(&status, "Forked", "False", "UnknownContainer", "fork orders: images names x");
    is(&status, "Ready", "False", "UnknownContainer", "images");
    is(&status, "Conflict", "True", "OlderSandbox", "sandbox shop/older");
    is(&status, "Hazards", "True", "Seen", "volume v is empty; Service orders: the service has no endpoint");
    let pods = fate(Outcome::Refused(Why::IsBaseline { fork: "orders".into(), service: "orders".into() }), Vec::new());
    is(
        &super::status(&sandbox(None), &found(fork()), Some(&pods), now()),
        "Forked",
        "False",
        "PodsAreBaseline",
        "change the labels",
    );
}

#[test]
fn a_sandbox_whose_time_is_over_says_so_and_what_to_do() {
    let mut over = found(FoundFork { ready_endpoints: 1, ..fork() });
    over.expired = true;
    let status = super::status(&sandbox(None), &over, Some(&fate(routed(), Vec::new())), now());
    for (kind, value) in [("Expired", "True"), ("Ready", "False"), ("Forked", "False")] {
        is(&status, kind, value, "Expired", "a longer spec.ttl");
    }
    assert_eq!((status.ready_forks.as_deref(), status.forks[0].ready_endpoints), (Some("0/1"), 0));
    assert_eq!(status.forks[0].services, ["orders"]);
    over.limited = true;
    is(
        &super::status(&sandbox(None), &over, None, now()),
        "Expired",
        "True",
        "Expired",
        "as long as the cluster allows",
    );
}

#[test]
fn conditions_that_stand_keep_their_time_and_the_same_status_is_not_written_again() {
    let later = now() + SignedDuration::from_secs(60);
    let first = super::status(&sandbox(None), &found(fork()), Some(&fate(no_pod(), Vec::new())), now());
    let same = super::status(&sandbox(Some(first.clone())), &found(fork()), Some(&fate(no_pod(), Vec::new())), later);
    assert_eq!(same, first);
    let ready = super::status(&sandbox(Some(first)), &found(fork()), Some(&fate(routed(), Vec::new())), later);
    let time =
        |kind: &str| ready.conditions.iter().find(|it| it.type_ == kind).map(|it| it.last_transition_time.clone());
    assert_eq!((time("Forked"), time("Ready")), (Some(Time(now())), Some(Time(later))));
}

#[test]
fn only_news_are_events() {
    let condition = |kind: &str, status: &str, reason: &str| Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: "words".into(),
        last_transition_time: Time(now()),
        observed_generation: None,
    };
    let first = [
        condition("Forked", "True", "Forked"),
        condition("Ready", "False", "Starting"),
        condition("Conflict", "False", "NoConflict"),
    ];
    let events = said(&[], &first);
    let shown: Vec<_> = events.iter().map(|it| (it.warning, it.reason.as_str(), it.note.as_str())).collect();
    assert_eq!(shown, [(false, "Forked", "words"), (false, "Starting", "Ready: words")]);
    assert_eq!(said(&first, &first), []);
    let then = [
        condition("Forked", "True", "Forked"),
        condition("Ready", "False", "Unschedulable"),
        condition("Conflict", "True", "OlderSandbox"),
    ];
    let events = said(&first, &then);
    assert_eq!(
        events.iter().map(|it| (it.warning, it.action.as_str())).collect::<Vec<_>>(),
        [(true, "Ready"), (true, "Conflict")]
    );
}

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).expect("a pod")
}

#[test]
fn the_first_that_hinders_is_said_and_what_is_on_its_way_is_not() {
    let container = |state: Value, last: Value| {
        pod(
            &json!({"containerStatuses": [{"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 1, "state": state, "lastState": last}]}),
        )
    };
    let of = |pods: &[Pod]| hindrance(&Value::Null, [], pods).map(|it| (it.reason, it.message));
    let said = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
    assert_eq!(of(&[container(json!({"waiting": {"reason": "ContainerCreating"}}), json!({}))]), None);
    assert_eq!(of(&[container(json!({"running": {}}), json!({}))]), None);
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
    let words = "container app ends with exit code 1 (Error)";
    for state in [
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}),
        json!({"running": {}}),
        ended.clone(),
    ] {
        assert_eq!(of(&[container(state, ended.clone())]), said("CrashLoopBackOff", words));
    }
    let waits = container(json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}), json!({}));
    let unscheduled = pod(
        &json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]}),
    );
    assert_eq!(of(std::slice::from_ref(&waits)), said("ErrImagePull", "container app: no such image"));
    assert_eq!(of(&[waits, unscheduled]), said("Unschedulable", "0/3"));
}

#[test]
fn a_reason_is_a_word_whatever_the_cluster_says() {
    assert_eq!(
        Trouble::new(Some("FailedCreate"), None),
        Trouble { reason: "FailedCreate".into(), message: "FailedCreate".into() }
    );
    assert_eq!(Trouble::new(Some("not a word!"), Some("x")).reason, "notaword");
    assert_eq!(Trouble::new(None, Some("x")).reason, "Failed");
    assert_eq!(Trouble::new(Some("1st"), Some("x")).reason, "Failed");
}
