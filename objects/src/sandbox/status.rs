//! What has become of a Sandbox.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Workload;

/// What has become of a Sandbox. Written when something changes, not otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// The generation of the Sandbox that this describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The keys in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub keys: Vec<String>,
    /// Sandboxes of other namespaces that have a key of this one's, as `namespace/name`: a change across namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 127)))]
    pub group: Vec<String>,
    /// How many forks are ready, of all: `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub ready_forks: Option<String>,
    /// When the forks are removed, by RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
    /// `Forked`, `Ready`, `Routed`, `Degraded`, `Hazards`, `BaselineDrifted`, `Conflict`, `Expired`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The forks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub forks: Vec<ForkStatus>,
}

/// What has become of one fork.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForkStatus {
    /// Its name.
    #[schemars(length(max = 40))]
    pub name: String,
    /// Services whose keyed requests are steered to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub services: Vec<String>,
    /// How many of its pods can be sent requests.
    #[serde(default)]
    pub ready_endpoints: i32,
    /// What it was copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
}

/// What a fork was copied from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// The workload.
    #[serde(flatten)]
    pub workload: Workload,
    /// Its pod template's hash.
    #[schemars(length(max = 64))]
    pub revision: String,
}
