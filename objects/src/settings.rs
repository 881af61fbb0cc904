//! `SidetrackConfig`: what holds in the whole cluster.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// What holds in the whole cluster. What is not said keeps its default.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "sidetrack.dev",
    version = "v1alpha1",
    kind = "SidetrackConfig",
    plural = "sidetrackconfigs",
    singular = "sidetrackconfig",
    category = "sidetrack",
    doc = "SidetrackConfig holds the settings of all agents and of the controller: one object, named `default`. An agent's `--config FILE` is the same object.",
    derive = "PartialEq",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == 'default'").message("there is one SidetrackConfig, and its name is default")
)]
#[serde(rename_all = "camelCase")]
pub struct SidetrackConfigSpec {
    /// Where requests may hold their key, in the order in which they decide: `baggage:MEMBER`, `tracestate:MEMBER`, `header:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 80), regex(pattern = r"^(baggage|header):[A-Za-z0-9!#$%&'*+.^_`|~-]+$|^tracestate:[A-Za-z0-9!#$%&'*+.^_`|~@/-]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub carriers: Option<Vec<String>>,
    /// How much of a node's memory may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// How long a fork may take to accept a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10ms') && duration(self) <= duration('30s')").message("expected a time of 10ms to 30s"))]
    pub dial_timeout: Option<String>,
    /// How long a request's head waits for the end of the response before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('100ms') && duration(self) <= duration('1m')").message("expected a time of 100ms to 1m"))]
    pub switch_timeout: Option<String>,
    /// How long a connection to a fork is kept without an exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('1h')").message("expected a time of 1s to 1h"))]
    pub parked_idle: Option<String>,
    /// How long an exchange may go on with an endpoint that has left its route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("expected a time of 1s to 24h"))]
    pub endpoint_grace: Option<String>,
    /// How long connections that an agent of another version follows may go on beside its successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("expected a time of 1s to 24h"))]
    pub drain_timeout: Option<String>,
    /// How long forks are steered to while a node does not hear the API server: behind it their addresses may be other pods'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('3s') && duration(self) <= duration('24h')").message("expected a time of 3s to 24h"))]
    pub max_stale: Option<String>,
    /// How long the forks of a Sandbox live that does not say so. Default: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('8760h')").message("expected a time of 1m to 8760h"))]
    pub default_ttl: Option<String>,
    /// How long the forks of a Sandbox live at most, whatever it says. Default: 8760h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('8760h')").message("expected a time of 1m to 8760h"))]
    pub max_ttl: Option<String>,
}

/// How much of a node's memory may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Connections that can be followed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 1_048_576))]
    pub connections: Option<u32>,
    /// Bytes of held requests that may wait for the agent at once: a power of two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 262_144, max = 268_435_456))]
    #[x_kube(validation = Rule::new("self in [262144, 524288, 1048576, 2097152, 4194304, 8388608, 16777216, 33554432, 67108864, 134217728, 268435456]").message("expected a power of two, as in 16777216"))]
    pub ring_buffer_bytes: Option<u32>,
    /// Bytes of held requests that the agent keeps at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2_097_152, max = 1_073_741_824))]
    pub held_bytes: Option<u32>,
}
