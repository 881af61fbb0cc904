//! What is copied: the pod template of a workload, and nothing else of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{ResourceExt as _, core::DynamicObject};
use serde_json::{Value, json};
use sidetrack_objects::sandbox::WorkloadKind;

use super::{
    Labels, Refusal,
    template::{list, name, text},
};
use crate::names::digest;

/// When somebody has last asked a workload for new pods: no change of what runs.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// A workload, as far as a fork depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: String,
    /// Its pod template: `metadata` and `spec`. The claims of a `StatefulSet` are volumes of it.
    pub template: Value,
    /// Names that tell one state of the template from another.
    pub revision: String,
    /// How it selects its pods.
    pub selector: LabelSelector,
    /// Which version of its `spec` this is.
    pub generation: i64,
    /// How long its pods may take to get ready, before somebody says so.
    pub deadline: Option<i64>,
}

impl Baseline {
    /// Reads a workload.
    pub fn read(kind: WorkloadKind, object: &DynamicObject) -> Result<Self, Refusal> {
        let (name, spec) = (object.name_any(), &object.data["spec"]);
        if kind == WorkloadKind::Rollout && spec.get("workloadRef").is_some_and(Value::is_object) {
            let of = |field| text(&spec["workloadRef"], field).unwrap_or_default().to_owned();
            return Err(Refusal::Elsewhere { rollout: name, kind: of("kind"), name: of("name") });
        }
        if list(&spec["template"]["spec"], "containers").next().is_none() {
            return Err(Refusal::NoTemplate(format!("spec.template of {kind:?} {name}")));
        }
        let mut template = json!({"metadata": {}, "spec": spec["template"]["spec"]});
        for field in ["labels", "annotations"] {
            if let Some(map) = spec["template"]["metadata"].get(field).filter(|map| map.is_object()) {
                template["metadata"][field] = map.clone();
            }
        }
        if let Some(annotations) = template["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(RESTARTED);
        }
        let first = spec["ordinals"]["start"].as_i64().unwrap_or(0);
        for claim in list(spec, "volumeClaimTemplates") {
            let volume = self::name(&claim["metadata"]).to_owned();
            let claim = format!("{volume}-{name}-{first}");
            let volumes = super::template::list_made(&mut template["spec"], "volumes");
            // The StatefulSet's own claims hide volumes of the same name.
            volumes.retain(|other| self::name(other) != volume);
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
        }
        let revision = digest(&[&template.to_string()]);
        // A selector that cannot be read selects nothing that a fork could be.
        let selector = serde_json::from_value(spec["selector"].clone()).unwrap_or_default();
        let deadline = spec["progressDeadlineSeconds"].as_i64();
        let generation = object.metadata.generation.unwrap_or_default();
        Ok(Self { kind, name, template, revision, selector, generation, deadline })
    }

    /// The labels of its pods, as its template says.
    #[must_use]
    pub fn labels(&self) -> Labels {
        labels_of(&self.template)
    }
}

/// The labels of a template.
pub fn labels_of(template: &Value) -> Labels {
    let labels = template["metadata"].get("labels").and_then(Value::as_object);
    labels.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
