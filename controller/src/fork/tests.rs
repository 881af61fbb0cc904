mod copies;
mod labels;
mod policies;
mod rights;
mod steps;

use serde_json::{Value, json};
use sidetrack_objects::sandbox::Fork;

use super::*;

/// A Deployment with this pod template.
fn workload(template: &Value) -> Baseline {
    object("Deployment", &json!({"selector": {"matchLabels": {"app": "orders"}}, "template": template}))
        .expect("a baseline")
}

fn object(kind: &str, spec: &Value) -> Result<Baseline, Refusal> {
    let kind = serde_json::from_value(json!(kind)).expect("a kind");
    let object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "orders"}, "spec": spec});
    Baseline::read(kind, &serde_json::from_value(object).expect("an object"))
}

/// A fork of it that says this beside.
fn fork(more: &Value) -> Fork {
    let mut fork = json!({"name": "orders", "workload": {"kind": "Deployment", "name": "orders"}});
    fork.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    serde_json::from_value(fork).expect("a fork")
}

fn maker(fork: &Fork) -> Maker<'_> {
    Maker { sandbox: "pr", uid: "u1", key: "pr-1", restarted_at: None, fork }
}

/// The copy of a template that the patch has made this of.
fn copy_of(baseline: &Value, patched: &Value, more: &Value) -> Result<Copy, Refusal> {
    let fork = fork(more);
    patch::check(&fork, baseline)?;
    copy::make(maker(&fork), patched.clone(), Some(baseline), &Selectors::default(), false)
}

fn app(more: &Value) -> Value {
    let mut container = json!({"name": "app", "image": "orders:1"});
    container.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    container
}

fn pod(spec: &Value) -> Value {
    let mut all = json!({"containers": [app(&json!({}))]});
    all.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
    json!({"metadata": {"labels": {"app": "orders"}}, "spec": all})
}
