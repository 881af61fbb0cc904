//! One fork.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A copy of a workload with changes, or pods that somebody else runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.workload), has(self.podSelector), has(self.template)].filter(one, one).size() == 1").message("expected one of workload (a copy of it is made), podSelector (pods that run already) and template (a new service)"),
    validation = Rule::new("has(self.workload) || has(self.services)").message("without a workload nothing says whose requests are steered: name the Services in services"),
    validation = Rule::new("has(self.workload) || !(has(self.images) || has(self.env) || has(self.patch) || has(self.volumes) || has(self.initContainers))").message("images, env, patch, volumes and initContainers change a copy of a workload: there is none here"),
    validation = Rule::new("!has(self.podSelector) || !has(self.replicas)").message("replicas is for pods that are made here: those of a podSelector are somebody else's")
)]
pub struct Fork {
    /// Its name within the Sandbox.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// The workload whose pod template is copied, and then changed by what stands below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,

    /// Pods that somebody else runs, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<PodSelector>,

    /// A whole pod template (`metadata` and `spec`), for a service that has no workload yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub template: Option<Map<String, Value>>,

    /// Services whose keyed requests are steered here. Default for a workload: every Service that selects its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$")), extend("x-kubernetes-list-type" = "set"))]
    pub services: Option<Vec<String>>,

    /// Other images, by the name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), schema_with = "images")]
    pub images: Option<BTreeMap<String, String>>,

    /// Variables that are added or replaced, by the name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "env")]
    pub env: Option<BTreeMap<String, Vec<EnvVar>>>,

    /// A strategic merge patch of the pod template (`metadata` and `spec`), for all else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub patch: Option<Map<String, Value>>,

    /// How many pods run. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub replicas: Option<i32>,

    /// Whether the copy's init containers run: `Skip` leaves out those that change what the baseline uses, as migrations do. Default: `Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_containers: Option<InitContainers>,

    /// What becomes of the baseline's persistent volumes, by the name of the volume. Default: an empty one in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "volumes")]
    pub volumes: Option<BTreeMap<String, Volume>>,
}

/// A workload of the Sandbox's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its kind: of `apps/v1`, or Argo's `Rollout`.
    pub kind: WorkloadKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// Kinds of workloads that can be forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// `apps/v1`.
    Deployment,
    /// `apps/v1`; its fork is a Deployment.
    StatefulSet,
    /// `argoproj.io/v1alpha1`; its fork is a Deployment.
    Rollout,
}

/// Pods by their labels; all that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.matchLabels) && size(self.matchLabels) > 0 || has(self.matchExpressions) && size(self.matchExpressions) > 0").message("empty: it would be every pod; name at least one label"))]
pub struct PodSelector {
    /// Labels with these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels")]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Labels with other demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub match_expressions: Option<Vec<Requirement>>,
}

/// What a label must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)").message("In and NotIn need values, Exists and DoesNotExist have none"))]
pub struct Requirement {
    /// The label.
    #[schemars(length(min = 1, max = 316))]
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub values: Option<Vec<String>>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// It is one of the values.
    In,
    /// It is none of the values, or not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// A variable of a container, with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!self.name.startsWith('SIDETRACK_')").message("variables that begin with SIDETRACK_ are set by Sidetrack"))]
pub struct EnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[^=]+$"))]
    pub name: String,
    /// Its value; what is to come from a Secret or a field goes into `patch`.
    #[serde(default)]
    #[schemars(length(max = 32_768))]
    pub value: String,
}

/// Whether init containers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InitContainers {
    /// They run.
    #[default]
    Keep,
    /// They are left out.
    Skip,
}

/// What becomes of a persistent volume of the baseline's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Volume {
    /// The fork writes to it, too.
    Share,
    /// The fork reads it.
    ReadOnly,
}

fn opaque(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A map with so many entries at most, of this value.
fn map_of(value: &schemars::Schema, most: u32) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "maxProperties": most, "additionalProperties": value})
}

fn images(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    map_of(&schemars::json_schema!({"type": "string", "minLength": 1, "maxLength": 1024}), 32)
}

fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    map_of(&schemars::json_schema!({"type": "string", "maxLength": 63}), 16)
}

fn env(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let one = generator.subschema_for::<EnvVar>();
    map_of(
        &schemars::json_schema!({
            "type": "array", "maxItems": 64, "items": one,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        }),
        32,
    )
}

fn volumes(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    map_of(&generator.subschema_for::<Volume>(), 32)
}
