use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn sandbox(metadata: &Value, status: &Value) -> Sandbox {
    let mut meta = json!({"name": "pr", "namespace": "shop", "generation": 3});
    meta.as_object_mut().expect("an object").extend(metadata.as_object().expect("an object").clone());
    serde_json::from_value(json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox",
        "metadata": meta, "spec": {"forks": []}, "status": status}))
    .expect("a Sandbox")
}

/// One that says this of itself: type, status, generation.
fn saying(conditions: &[(&str, &str, Option<i64>)], observed: Option<i64>) -> Sandbox {
    let all: Vec<_> = conditions
        .iter()
        .map(|(kind, status, generation)| {
            json!({"type": kind, "status": status, "reason": format!("{kind}Reason"), "message": "words",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation})
        })
        .collect();
    sandbox(&json!({}), &json!({"observedGeneration": observed, "conditions": all}))
}

#[rstest]
#[case::it_holds(&[("Routed", "True", Some(3))], None, true)]
#[case::by_the_whole_status(&[("Routed", "True", None)], Some(3), true)]
#[case::of_before(&[("Routed", "True", Some(2))], Some(3), false)]
#[case::of_before_by_the_whole_status(&[("Routed", "True", None)], Some(2), false)]
#[case::of_nobody_knows_when(&[("Routed", "True", None)], None, false)]
#[case::not(&[("Routed", "False", Some(3))], None, false)]
#[case::unknown(&[("Routed", "Unknown", Some(3))], None, false)]
#[case::unsaid(&[("Ready", "True", Some(3))], None, false)]
fn a_condition_counts_only_for_the_sandbox_as_it_is(
    #[case] conditions: &[(&str, &str, Option<i64>)],
    #[case] observed: Option<i64>,
    #[case] met: bool,
) {
    assert_eq!(verdict(&saying(conditions, observed), Aim::Routed) == Verdict::Met, met);
}

#[test]
fn what_is_not_so_is_said_with_what_comes_before_it() {
    let words = |sandbox: &Sandbox, aim| match verdict(sandbox, aim) {
        Verdict::NotYet(why) => why,
        other => panic!("{other:?}"),
    };
    let starting =
        saying(&[("Forked", "True", Some(3)), ("Ready", "False", Some(3)), ("Routed", "Unknown", Some(3))], None);
    assert_eq!(words(&starting, Aim::Routed), "Routed=Unknown (RoutedReason): words; Ready=False (ReadyReason): words");
    assert_eq!(words(&starting, Aim::Ready), "Ready=False (ReadyReason): words");
    assert!(
        words(&saying(&[], None), Aim::Ready)
            .contains("nothing is said of Ready yet: does Sidetrack's controller run?")
    );
    let old = saying(&[("Ready", "True", Some(2))], Some(2));
    assert!(words(&old, Aim::Ready).contains("older than its last change (Ready=True (ReadyReason): words)"));
    assert!(words(&sandbox(&json!({}), &json!({})), Aim::Deleted).contains("nobody has deleted it"));
    let going = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["sidetrack.dev/routes"]});
    assert!(words(&sandbox(&going, &json!({})), Aim::Deleted).contains("waits for sidetrack.dev/routes"));
}

#[test]
fn what_will_not_come_to_be_is_not_waited_for() {
    let expired = saying(&[("Expired", "True", Some(3)), ("Ready", "False", Some(3))], None);
    for aim in [Aim::Ready, Aim::Routed, Aim::Forked] {
        assert!(matches!(verdict(&expired, aim), Verdict::Never(why) if why.contains("its time is over")), "{aim:?}");
    }
    assert_eq!(verdict(&expired, Aim::Expired), Verdict::Met);
    // It was given more time since.
    let extended = saying(&[("Expired", "True", Some(2)), ("Ready", "False", Some(3))], None);
    assert!(matches!(verdict(&extended, Aim::Ready), Verdict::NotYet(_)));
    assert!(matches!(verdict(&extended, Aim::Expired), Verdict::NotYet(_)));
    let going = sandbox(&json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), &json!({}));
    assert!(matches!(verdict(&going, Aim::Ready), Verdict::Never(why) if why.contains("being deleted")));
}
