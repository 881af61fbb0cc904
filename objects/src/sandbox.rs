//! `Sandbox`: which workloads are forked, and for which keys.

mod fork;
mod status;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use self::{
    fork::{EnvVar, Fork, InitContainers, Operator, PodSelector, Requirement, Volume, Workload, WorkloadKind},
    status::{Baseline, ForkStatus, SandboxStatus},
};

/// What requests with a sandbox's keys meet in place of the workloads that it forks: everything else stays as it is.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "sidetrack.dev",
    version = "v1alpha1",
    kind = "Sandbox",
    plural = "sandboxes",
    shortname = "sbx",
    category = "sidetrack",
    namespaced,
    status = "SandboxStatus",
    derive = "PartialEq",
    doc = "A Sandbox forks some workloads of its namespace: requests that carry one of its keys are steered to the forks, all others stay on the baseline.",
    printcolumn(name = "Keys", type_ = "string", json_path = ".status.keys", description = "Requests with one of these keys are steered"),
    printcolumn(name = "Forks", type_ = "string", json_path = ".status.readyForks", description = "Forks that are ready, of all"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether every fork has an endpoint that is ready"),
    printcolumn(name = "Routed", type_ = "string", json_path = r#".status.conditions[?(@.type=="Routed")].status"#, description = "Whether every node steers its requests"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt", description = "When its forks are removed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63").message("the name of a Sandbox is a label of its pods: give it at most 63 characters")
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    /// Requests that carry one of these keys are steered. Default: `<name>.<namespace>`, unique by itself. Several keys act alone, and
    /// together with those of other Sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9._-]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub keys: Option<Vec<String>>,

    /// How long the forks live, as a Go duration (`90m`, `2h`); default and maximum are in `SidetrackConfig`. At its end the forks are
    /// removed, the Sandbox stays and says `Expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('8760h')").message("expected a time of 1m to 8760h, as in \"2h\""))]
    pub ttl: Option<String>,

    /// What becomes of a keyed request whose fork cannot be reached at the moment: `Fail` answers with an error, `Baseline` lets the
    /// baseline answer.
    #[serde(default)]
    pub on_unreachable: OnUnreachable,

    /// What the forks do when their baseline changes: `Never` keeps them and says `BaselineDrifted`, `Always` rolls them.
    #[serde(default)]
    pub follow: Follow,

    /// Forks whose labels a policy may look at that can deny (Calico, Cilium, `AdminNetworkPolicy`, Istio) are made all the same: such
    /// policies may not apply to them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_policy_gap: bool,

    /// What is forked.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = Rule::new("self.all(f, !has(f.workload) || self.exists_one(g, has(g.workload) && g.workload.kind == f.workload.kind && g.workload.name == f.workload.name))").message("two forks of one workload: put what they change into one fork"))]
    pub forks: Vec<Fork>,
}

/// What becomes of a keyed request whose fork cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum OnUnreachable {
    /// It is answered with an error.
    #[default]
    Fail,
    /// The baseline answers it.
    Baseline,
}

/// What a fork does when its baseline changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Follow {
    /// It stays as it is.
    #[default]
    Never,
    /// It is rolled to the new baseline.
    Always,
}
