//! The real API server of Kubernetes, etcd and kube-apiserver in a pod of a lab, without anything else of it; and a whole
//! cluster with two nodes around it.
//!
//! ```no_run
//! use sidetrack_tests::ApiServer;
//!
//! # fn main() -> anyhow::Result<()> {
//! // One for all tests of this process, each in a namespace of its own.
//! let admin = ApiServer::shared()?.namespace("example")?;
//! admin.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: colours}, data: {sky: blue}}")?;
//! assert_eq!(admin.json(&["get", "configmap", "colours"])?["data"]["sky"], "blue");
//!
//! let somebody = admin.as_user("somebody", &["developers"]);
//! assert!(somebody.refused(&["get", "configmap", "colours"])?.contains("forbidden"));
//! # Ok(())
//! # }
//! ```
//!
//! Beside the API server alone no controller runs: owners' objects are not collected, a namespace that is deleted stays in `Terminating`, and none
//! gets a ServiceAccount `default`. Nobody answers at 10.96.0.1 either, unless a test makes that Service in its lab.
//!
//! * [`ApiServer`]: starts, dies, starts again on the same data.
//! * [`Kubectl`]: kubectl as somebody, in some namespace.
//! * [`Cluster`]: the same with controllers, a scheduler and two nodes that run pods.
//! * [`image`]: what pods are made of.
//! * [`users`]: who may log in, and the file by which programs do.

mod api_server;
mod cluster;
mod control;
pub mod image;
mod kubectl;
mod pki;
pub mod users;

pub use api_server::ApiServer;
pub use cluster::{Cluster, Node, PLUGINS};
pub use kubectl::Kubectl;
