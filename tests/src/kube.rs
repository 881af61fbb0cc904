//! The real API server of Kubernetes, without anything else of it: etcd and kube-apiserver in a pod of a lab.
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
//! No controller runs: owners' objects are not collected, a namespace that is deleted stays in `Terminating`, and none
//! gets a ServiceAccount `default`. Nobody answers at 10.96.0.1 either, unless a test makes that Service in its lab.
//!
//! * [`ApiServer`]: starts, dies, starts again on the same data.
//! * [`Kubectl`]: kubectl as somebody, in some namespace.
//! * [`users`]: who may log in, and the file by which programs do.

mod api_server;
mod control;
mod kubectl;
mod pki;
pub mod users;

pub use api_server::ApiServer;
pub use kubectl::Kubectl;
