//! A fork's Deployment.

use serde_json::{Value, json};
use sidetrack_objects::sandbox::Workload;

use super::{Baseline, Copy, Maker, Refusal, copy};
use crate::names::{BASELINE, HAZARDS, INPUTS, PREFIX, digest};

/// A fork's Deployment, as it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Living {
    /// What it was made of.
    pub inputs: String,
    /// The revision of the pod template that was copied, of a workload.
    pub baseline: Option<(Workload, String)>,
    /// What its author should know.
    pub hazards: Vec<String>,
    /// How many pods it is to have.
    pub replicas: i64,
    /// Its pod template.
    pub template: Value,
}

impl Living {
    /// Reads one; none where it is not one of the controller's.
    #[must_use]
    pub fn read(object: &Value) -> Option<Self> {
        let annotation = |name: &str| object["metadata"]["annotations"].get(name).and_then(Value::as_str);
        let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
        let baseline = annotation(BASELINE).and_then(parse);
        let baseline = baseline.and_then(|it| serde_json::from_value::<sidetrack_objects::sandbox::Baseline>(it).ok());
        Some(Self {
            inputs: annotation(INPUTS)?.to_owned(),
            baseline: baseline.map(|it| (it.workload, it.revision)),
            hazards: annotation(HAZARDS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
            replicas: object["spec"]["replicas"].as_i64().unwrap_or(1),
            template: object["spec"]["template"].clone(),
        })
    }
}

/// What has to be done about a fork's Deployment.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing: it is as it should be.
    Keep,
    /// It is made of the baseline.
    Copy,
    /// Its template stays, but for this: when new pods were asked for, and how many there are.
    Touch,
}

/// What a Deployment is made of. Of the baseline only where the fork is to follow it.
#[must_use]
pub fn inputs(maker: Maker<'_>, followed: Option<&Baseline>) -> String {
    // What does not change the pods does not make them anew.
    let mut fork = maker.fork.clone();
    (fork.services, fork.replicas) = (None, None);
    let fork = json!(fork).to_string();
    let revision = followed.map(|baseline| baseline.revision.as_str()).unwrap_or_default();
    digest(&["1", maker.uid, maker.key, &fork, revision])
}

/// What has to be done about a fork's Deployment.
#[must_use]
pub fn step(maker: Maker<'_>, inputs: &str, living: Option<&Living>) -> Step {
    let Some(living) = living else { return Step::Copy };
    if living.inputs != inputs {
        return Step::Copy;
    }
    let annotation = living.template["metadata"]["annotations"].get(crate::names::RESTARTED_AT).and_then(Value::as_str);
    let same = annotation == maker.restarted_at && living.replicas == replicas(maker);
    if same { Step::Keep } else { Step::Touch }
}

fn replicas(maker: Maker<'_>) -> i64 {
    i64::from(maker.fork.replicas.unwrap_or(1))
}

/// The Deployment of a copy.
#[must_use]
pub fn deployment(maker: Maker<'_>, owner: &Value, inputs: &str, baseline: Option<&Baseline>, copy: &Copy) -> Value {
    let mut annotations = json!({INPUTS: inputs, HAZARDS: json!(copy.hazards).to_string()});
    if let Some(baseline) = baseline {
        let of = json!({"kind": baseline.kind, "name": baseline.name, "revision": baseline.revision});
        annotations[BASELINE] = json!(of.to_string());
    }
    let mut object = body(maker, owner, &annotations, &copy.template);
    if let Some(deadline) = baseline.and_then(|baseline| baseline.deadline) {
        object["spec"]["progressDeadlineSeconds"] = json!(deadline);
    }
    object
}

/// The living one with the same pods, but for when new ones were asked for and how many there are.
#[must_use]
pub fn touched(maker: Maker<'_>, owner: &Value, living: &Value) -> Value {
    let mut template = json!({
        "metadata": {"labels": living["spec"]["template"]["metadata"]["labels"],
            "annotations": living["spec"]["template"]["metadata"]["annotations"]},
        "spec": living["spec"]["template"]["spec"],
    });
    copy::restart(&mut template, maker.restarted_at);
    let all = living["metadata"]["annotations"].as_object();
    let annotations: serde_json::Map<_, _> = all
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with(PREFIX))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let mut object = body(maker, owner, &Value::Object(annotations), &template);
    object["spec"]["progressDeadlineSeconds"] = living["spec"]["progressDeadlineSeconds"].clone();
    object
}

fn body(maker: Maker<'_>, owner: &Value, annotations: &Value, template: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": maker.object(),
            "labels": maker.own_labels(),
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": {
            "replicas": replicas(maker),
            "selector": {"matchLabels": maker.own_labels()},
            // A new pod is ready before an old one goes: a keyed request always has somewhere to go.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "revisionHistoryLimit": 1,
            "template": template,
        },
    })
}

/// Whether an object that has a fork's name is this Sandbox's.
pub fn is_ours(object: &Value, uid: &str) -> Result<(), Refusal> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    if owners.into_iter().flatten().any(|owner| owner["uid"] == uid) {
        return Ok(());
    }
    Err(Refusal::Foreign(format!("Deployment {}", object["metadata"]["name"].as_str().unwrap_or_default())))
}
