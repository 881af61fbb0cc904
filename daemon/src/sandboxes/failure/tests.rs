use kube::core::response::StatusDetails;
use rstest::rstest;

use super::*;

const SERVER: &str = "https://10.0.0.1:6443";

fn asked(verb: &'static str) -> Asked {
    Asked { verb, kind: "sandbox".into(), name: Some("pr".into()), namespace: Some("shop".into()) }
}

fn details(kind: &str, causes: Vec<StatusCause>) -> StatusDetails {
    StatusDetails {
        name: "pr".into(),
        group: String::new(),
        kind: kind.into(),
        uid: String::new(),
        causes,
        retry_after_seconds: 0,
    }
}

fn cause(reason: &str, field: &str, message: &str) -> StatusCause {
    StatusCause { reason: reason.into(), message: message.into(), field: field.into() }
}

fn of(code: u16, reason: &str, message: &str, details: Option<StatusDetails>, verb: &'static str) -> Failure {
    Failure::status(&Status { details, ..Status::failure(message, reason).with_code(code) }, asked(verb), SERVER)
}

#[test]
fn a_missing_right_is_named_with_who_has_it() {
    let message = "sandboxes.sidetrack.dev is forbidden: User \"eve\" cannot list resource \"sandboxes\" in API group \"sidetrack.dev\" in the namespace \"shop\"";
    let said = of(403, "Forbidden", message, Some(details("sandboxes", vec![])), "list").to_string();
    assert_eq!(
        said,
        "not allowed: User \"eve\" cannot list resource \"sandboxes\" in API group \"sidetrack.dev\" in the namespace \"shop\"; \
         whoever has the role view in namespace shop has it, ask for that"
    );
    assert!(of(403, "Forbidden", message, None, "create").to_string().contains("the role edit"));
}

#[test]
fn a_policys_words_are_shown_whichever_way_it_refuses() {
    let message = "sandboxes.sidetrack.dev \"pr\" is forbidden: ValidatingAdmissionPolicy 'sandboxes.sidetrack.dev' with binding 'sandboxes.sidetrack.dev' denied request: a fork adds no directory of its node's: remove the volumes with hostPath";
    for (code, reason) in [(403, "Forbidden"), (422, "Invalid")] {
        let said = of(code, reason, message, Some(details("sandboxes", vec![])), "create").to_string();
        assert_eq!(
            said,
            "sandbox pr in namespace shop is refused by the policy sandboxes.sidetrack.dev: a fork adds no directory of its \
             node's: remove the volumes with hostPath"
        );
    }
}

#[test]
fn what_is_wrong_with_an_object_stands_one_a_line() {
    let causes = vec![
        cause(
            "FieldValueInvalid",
            "spec.ttl",
            "Invalid value: \"string\": expected a time of 1m to 8760h, as in \"2h\"",
        ),
        cause(
            "FieldValueInvalid",
            "spec.keys[0]",
            "Invalid value: \"a b\": spec.keys[0] in body should match '^[A-Za-z0-9._-]+$'",
        ),
        cause("FieldValueInvalid", "<nil>", "Invalid value: \"\": some validation rules were not checked"),
    ];
    let failure = of(422, "Invalid", "Sandbox \"pr\" is invalid: [...]", Some(details("Sandbox", causes)), "create");
    assert_eq!(
        failure.to_string(),
        "sandbox pr in namespace shop is not valid:\n  spec.ttl: expected a time of 1m to 8760h, as in \"2h\"\n  \
         spec.keys[0]: Invalid value: \"a b\": spec.keys[0] in body should match '^[A-Za-z0-9._-]+$'"
    );
}

#[rstest]
#[case::of_a_decoder("strict decoding error: unknown field \"spec.fork\", unknown field \"spec.ttls\"",
    &["unknown field \"spec.fork\"", "unknown field \"spec.ttls\""])]
#[case::of_an_apply("failed to create typed patch object (shop/pr; sidetrack.dev/v1alpha1, Kind=Sandbox): .spec.fork: field not declared in schema",
    &["spec.fork: field not declared in schema"])]
#[case::several("failed to create typed patch object (shop/pr; sidetrack.dev/v1alpha1, Kind=Sandbox): errors:\n  .spec.fork: field not declared in schema\n  .spec.ttls: field not declared in schema\n",
    &["spec.fork: field not declared in schema", "spec.ttls: field not declared in schema"])]
fn unknown_fields_are_named(#[case] message: &str, #[case] fields: &[&str]) {
    match of(500, "", message, None, "patch") {
        Failure::Invalid { mistakes, .. } => assert_eq!(mistakes, fields),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_there_is_told_from_what_is_not_installed() {
    let missing =
        of(404, "NotFound", "sandboxes.sidetrack.dev \"pr\" not found", Some(details("sandboxes", vec![])), "get");
    assert_eq!(
        missing.to_string(),
        "there is no sandbox pr in namespace shop; `sidetrack list -n shop` shows which there are"
    );
    let namespace = of(404, "NotFound", "namespaces \"shop\" not found", Some(details("namespaces", vec![])), "create");
    assert_eq!(namespace.to_string(), "there is no namespace shop: name another one (-n)");
    for (reason, message) in [
        ("Failed to parse error data", "404 page not found"),
        ("NotFound", "the server could not find the requested resource"),
    ] {
        let said = of(404, reason, message, None, "list").to_string();
        assert!(said.contains("Sidetrack is not installed there") && said.contains(SERVER), "{said}");
    }
}

#[test]
fn fields_of_others_are_named_with_what_to_do() {
    let causes =
        vec![cause("FieldManagerConflict", ".spec.ttl", "conflict with \"argocd\" using sidetrack.dev/v1alpha1")];
    let said =
        of(409, "Conflict", "Apply failed with 1 conflict", Some(details("sandboxes", causes)), "patch").to_string();
    assert!(said.contains("\n  .spec.ttl: conflict with \"argocd\"") && said.contains("--force-conflicts"), "{said}");
    // Of a version that somebody else has overtaken nothing is said of fields.
    assert!(matches!(
        of(409, "Conflict", "the object has been modified", None, "patch"),
        Failure::Refused { code: 409, .. }
    ));
    assert!(matches!(of(409, "AlreadyExists", "exists", None, "create"), Failure::Exists(_)));
}

#[test]
fn only_what_may_pass_is_asked_again() {
    assert!(of(503, "ServiceUnavailable", "etcd is away", None, "get").may_pass());
    assert!(of(429, "TooManyRequests", "slow down", None, "get").may_pass());
    assert!(!of(403, "Forbidden", "no", None, "get").may_pass());
    assert!(Failure::Unreachable { server: SERVER.into(), why: "refused".into() }.may_pass());
}

#[test]
fn a_time_out_says_after_how_long_and_how_far_it_is() {
    let failure =
        |limit| Failure::TimedOut { what: "sandbox pr is not ready".into(), limit, why: "Ready=False".into() };
    assert_eq!(failure(Duration::from_secs(30)).to_string(), "sandbox pr is not ready after 30s: Ready=False");
    assert_eq!(failure(Duration::from_millis(300)).to_string(), "sandbox pr is not ready after 300ms: Ready=False");
}
