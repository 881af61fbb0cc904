use clap::Parser as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sidetrack_objects::Sandbox;

use super::*;
use crate::{
    cli::{Cli, Command},
    sandboxes::{draft::ForkDraft, pods::ForkPod},
};

const NOW: &str = "2026-01-01T01:00:00Z";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

fn parse(line: &str) -> Result<SandboxCommand, String> {
    let words = std::iter::once("sidetrack").chain(line.split_whitespace());
    match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
        Command::Sandboxes(command) => Ok(command),
        other => panic!("{other:?}"),
    }
}

fn forks(line: &str) -> Vec<ForkDraft> {
    match parse(&format!("create pr {line}")).expect(line) {
        SandboxCommand::Create(args) => args.forks.forks,
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_belong_to_the_fork_before_them() {
    let found = forks(
        "--fork deploy/orders --image app=orders:1 --env A=1 --replicas 2 --key k --fork sts/db --env B=2 --image=db:3 --env C=3",
    );
    let words = |fork: &ForkDraft| {
        let images: Vec<_> = fork.images.iter().map(|one| one.image.as_str()).collect();
        let env: Vec<_> = fork.env.iter().map(|one| one.name.as_str()).collect();
        format!("{} {images:?} {env:?} {:?}", fork.workload.name, fork.replicas)
    };
    assert_eq!(words(&found[0]), r#"orders ["orders:1"] ["A"] Some(2)"#);
    assert_eq!(words(&found[1]), r#"db ["db:3"] ["B", "C"] None"#);
}

#[test]
fn with_one_fork_its_options_may_stand_anywhere() {
    let found = forks("--image orders:1 --fork deploy/orders --env A=1");
    assert_eq!((found.len(), found[0].images.len(), found[0].env.len()), (1, 1, 1));
    let said = parse("create pr --image orders:1 --fork deploy/a --fork deploy/b").expect_err("of which?");
    assert!(said.contains("--image stands before every --fork"), "{said}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_was_expected() {
    for (line, words) in [
        ("create pr", "--fork <KIND/NAME>"),
        ("create --fork deploy/a", "<NAME>"),
        ("create pr --fork orders", "expected KIND/NAME"),
        ("create pr --fork daemonset/a", "expected deployment, statefulset or rollout"),
        ("create pr --fork deploy/a --env A", "expected [CONTAINER:]NAME=VALUE"),
        ("create pr --fork deploy/a --replicas 0", "0 is not in 1.."),
        ("create pr --fork deploy/a --replicas 1 --replicas 2", "two --replicas behind one --fork"),
        ("create pr --fork deploy/a --wait --dry-run=server", "cannot be used with"),
        ("create pr --fork deploy/a --on-unreachable ignore", "possible values: fail, baseline"),
        ("extend pr", "--ttl <TIME>|--by <TIME>"),
        ("extend pr --ttl 1h --by 1h", "cannot be used with"),
        ("extend pr --by 1d", "is no duration"),
        ("wait pr", "--for <WHAT>"),
        ("wait pr --for running", "possible values: ready, routed, forked, deleted, expired"),
        ("wait pr --for ready --timeout soon", "is no duration"),
        ("delete", "<NAME>..."),
        ("apply", "--filename <FILE>"),
        ("list -A -n shop", "cannot be used with"),
    ] {
        let said = parse(line).expect_err(line);
        assert!(said.contains(words), "{line}: {words}\nis not in\n{said}");
    }
}

fn sandbox(spec: &Value, status: &Value) -> Sandbox {
    let metadata =
        json!({"name": "pr", "namespace": "shop", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"});
    serde_json::from_value(
        json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": metadata, "spec": spec, "status": status}),
    )
    .expect("a Sandbox")
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": 2,
        "lastTransitionTime": "2026-01-01T00:59:30Z"})
}

/// One with a fork of a workload, which waits for its image, and one of somebody else's pods.
fn waiting() -> Sandbox {
    let spec = json!({"keys": ["pr-1"], "ttl": "2h", "forks": [
        {"name": "orders", "workload": {"kind": "Deployment", "name": "orders"}, "images": {"app": "orders:pr"}},
        {"name": "mocks", "podSelector": {"matchLabels": {"app": "mock"}}, "services": ["payments"]}]});
    let status = json!({"observedGeneration": 2, "keys": ["pr-1"], "readyForks": "1/2", "expiresAt": "2026-01-01T02:00:00Z",
        "forks": [{"name": "orders", "services": ["orders", "orders-internal"], "readyEndpoints": 0,
            "baseline": {"kind": "Deployment", "name": "orders", "revision": "abc123"}},
            {"name": "mocks", "services": ["payments"], "readyEndpoints": 1}],
        "conditions": [condition("Forked", "True", "Made", ""),
            condition("Ready", "False", "ImagePullBackOff", "fork orders: \u{1b}[31mBack-off")]});
    sandbox(&spec, &status)
}

fn pod() -> ForkPod {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "pr-orders-1", "creationTimestamp": "2026-01-01T00:58:00Z"},
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "orders:pr"}]},
        "status": {"phase": "Pending", "podIP": "10.0.0.9", "containerStatuses": [{"name": "app", "image": "", "imageID": "",
            "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no \u{1b}[2J such"}}}]}
    }))
    .expect("a pod");
    ForkPod { fork: "orders".into(), pod }
}

fn lines(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn a_list_has_a_line_for_each_sandbox() {
    let text = list::table(&[waiting(), sandbox(&json!({"forks": []}), &json!({}))], false, false, now());
    let lines = lines(&text);
    assert_eq!(lines[0], ["NAME", "KEYS", "FORKS", "READY", "ROUTED", "EXPIRES", "AGE"]);
    assert_eq!(lines[1], ["pr", "pr-1", "1/2", "no", "?", "in", "1h00m", "1h00m"]);
    assert_eq!(lines[2], ["pr", "pr.shop", "?/0", "?", "?", "-", "1h00m"]);
    let text = list::table(&[waiting()], true, true, now());
    assert!(text.contains("deployment/orders,pods of others") && text.contains("ImagePullBackOff"), "{text}");
    assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("shop ")), "{text}");
}

#[test]
fn a_page_says_what_each_fork_waits_for() {
    let sandbox = waiting();
    let pods = [pod()];
    let known = get::Known { sandbox: &sandbox, pods: Ok(&pods), now: now() };
    let text = get::page(&known, false);
    for words in [
        "sandbox pr in namespace shop: not ready\n",
        "keys         pr-1\n",
        "expires      in 1h00m, at 2026-01-01T02:00:00Z\n",
        "pr-orders-1: container app: ImagePullBackOff: no \\u{1b}[2J such\n",
        "fork orders: \\u{1b}[31mBack-off\n",
    ] {
        assert!(text.contains(words), "{words}\nis not in\n{text}");
    }
    let lines = lines(&text);
    for line in [
        &["orders", "deployment/orders", "orders", "0"][..],
        &["orders-internal"],
        &["mocks", "pods", "of", "others", "payments", "1"],
        &["pr-orders-1", "orders", "ImagePullBackOff", "no", "3", "n1", "2m00s"],
        &["Forked", "True", "Made", "30s"],
    ] {
        assert!(lines.contains(&line.to_vec()), "{line:?}\nis not in\n{text}");
    }
    let wide = get::page(&known, true);
    assert!(wide.contains("abc123") && wide.contains("app=orders:pr") && wide.contains("10.0.0.9"), "{wide}");
    assert!(!text.contains('\u{1b}') && !wide.contains('\u{1b}'));
}

#[test]
fn a_page_says_why_pods_are_not_known_and_that_no_controller_speaks() {
    let sandbox = sandbox(&json!({"forks": []}), &json!({}));
    let known = get::Known { sandbox: &sandbox, pods: Err("not allowed: ...".into()), now: now() };
    let text = get::page(&known, false);
    assert!(text.contains("pods are not known: not allowed"), "{text}");
    assert!(text.contains("does Sidetrack's controller run?"), "{text}");
}

#[test]
fn what_is_of_before_a_change_says_so() {
    let mut old = waiting();
    old.metadata.generation = Some(3);
    let text = get::page(&get::Known { sandbox: &old, pods: Ok(&[]), now: now() }, false);
    assert!(text.contains("(before its last change) fork orders") && text.contains("no fork has a pod"), "{text}");
}

#[test]
fn objects_are_shown_as_the_api_has_them() {
    let object = |name: &str| {
        serde_json::from_value(json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox",
            "metadata": {"name": name, "managedFields": [{"manager": "a"}]}, "spec": {"later": [1]}, "status": {}}))
        .expect("an object")
    };
    let one: Value = serde_json::from_str(&show::one(&object("a"), Shape::Json)).expect("JSON");
    let expected = json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "a"},
        "spec": {"later": [1]}, "status": {}});
    assert_eq!(one, expected);
    let list: Value = serde_json::from_str(&show::many(&[object("a"), object("b")], Shape::Json)).expect("JSON");
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&json!("List"), Some(2)));
    let yaml: Value = serde_saphyr::from_str(&show::one(&object("a"), Shape::Yaml)).expect("YAML");
    assert_eq!(yaml, expected);
    assert_eq!(
        show::many(&[object("a"), object("b")], Shape::Name),
        "sandbox.sidetrack.dev/a\nsandbox.sidetrack.dev/b\n"
    );
    assert_eq!(show::many(&[], Shape::Name), "");
}

#[test]
fn of_several_failures_the_first_decides_the_exit_code() {
    let nothing = || Failure::Nothing("none".into());
    let failed = || Failure::Never("no".into());
    assert_eq!(exit_code(&Failure::Several(vec![nothing(), failed()])), EXIT_NOTHING);
    assert_eq!(exit_code(&Failure::Several(vec![failed(), nothing()])), EXIT_FAILED);
    assert_eq!(exit_code(&Failure::NotInstalled("x".into())), EXIT_REFUSED);
}
