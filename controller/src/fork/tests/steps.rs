use super::*;
use crate::fork::deployment::{Living, Step, deployment, inputs, step, touched};

fn made(fork: &Fork, baseline: &Baseline, followed: bool) -> Value {
    let inputs = inputs(maker(fork), followed.then_some(baseline));
    let copy =
        copy::make(maker(fork), baseline.template.clone(), Some(&baseline.template), &Selectors::default(), false);
    deployment(maker(fork), &json!({"uid": "u1"}), &inputs, Some(baseline), &copy.expect("a copy"))
}

fn orders(image: &str) -> Baseline {
    workload(&pod(&json!({"containers": [{"name": "app", "image": image}]})))
}

#[test]
fn a_deployment_selects_by_sidetracks_labels_alone_and_its_pods_have_them() {
    let object = made(&fork(&json!({})), &orders("orders:1"), false);
    let selector = object["spec"]["selector"]["matchLabels"].as_object().expect("labels");
    assert!(!selector.is_empty() && selector.keys().all(|key| key.starts_with("sidetrack.dev/")));
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    assert!(selector.iter().all(|(key, value)| labels[key] == *value), "{object:#}");
    assert_eq!(object["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let living = Living::read(&object).expect("one of ours");
    assert_eq!(
        living.baseline.map(|(workload, revision)| (workload.name, revision)),
        Some(("orders".into(), orders("orders:1").revision))
    );
    assert!(deployment::is_ours(&object, "u1").is_ok() && deployment::is_ours(&object, "u2").is_err());
}

#[test]
fn while_it_is_made_of_the_same_nothing_is_done() {
    let one = fork(&json!({"env": {"app": [{"name": "A", "value": "1"}]}}));
    let (old, new) = (orders("orders:1"), orders("orders:2"));
    let living = Living::read(&made(&one, &old, false));
    let now =
        |fork: &Fork, followed: Option<&Baseline>| step(maker(fork), &inputs(maker(fork), followed), living.as_ref());
    assert_eq!(step(maker(&one), &inputs(maker(&one), None), None), Step::Copy);
    assert_eq!(now(&one, None), Step::Keep);
    let services = fork(&json!({"env": {"app": [{"name": "A", "value": "1"}]}, "services": ["orders"]}));
    assert_eq!(now(&services, None), Step::Keep);
    assert_eq!(now(&fork(&json!({})), None), Step::Copy);
    let living = Living::read(&made(&one, &old, true));
    assert_eq!(step(maker(&one), &inputs(maker(&one), Some(&old)), living.as_ref()), Step::Keep);
    assert_eq!(step(maker(&one), &inputs(maker(&one), Some(&new)), living.as_ref()), Step::Copy);
}

#[test]
fn new_pods_and_another_number_of_them_copy_nothing() {
    let one = fork(&json!({"replicas": 3}));
    let object = made(&fork(&json!({})), &orders("orders:1"), false);
    let living = Living::read(&object).expect("one of ours");
    let again = Maker { restarted_at: Some("2026-01-01T00:00:00Z"), ..maker(&one) };
    assert_eq!(step(again, &inputs(again, None), Some(&living)), Step::Touch);
    let touched = touched(again, &json!({"uid": "u1"}), &object);
    let mut expected = object.clone();
    expected["spec"]["replicas"] = json!(3);
    expected["spec"]["template"]["metadata"]["annotations"] =
        json!({"sidetrack.dev/restarted-at": "2026-01-01T00:00:00Z"});
    expected["spec"]["progressDeadlineSeconds"] = Value::Null;
    assert_eq!(touched, expected);
    assert_eq!(step(again, &inputs(again, None), Living::read(&touched).as_ref()), Step::Keep);
}

#[test]
fn a_restart_of_the_baseline_is_no_other_baseline() {
    let mut template = orders("orders:1").template;
    template["metadata"]["annotations"] = json!({});
    let before = workload(&template);
    template["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
    assert_eq!(workload(&template).revision, before.revision);
    assert_ne!(orders("orders:2").revision, orders("orders:1").revision);
}
