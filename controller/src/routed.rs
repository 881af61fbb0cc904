//! Says of each Sandbox whether it is in force on every node: condition `Routed`, in writing of its own.
//!
//! What agents say folds into transitions: a Sandbox is looked at when something was heard, not more often than every [`EVERY`], and written
//! where its condition says something else.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher,
    },
};
use serde_json::json;
use sidetrack_acknowledge::{InForce, Verdict};
use sidetrack_objects::Sandbox;
use sidetrack_resolve::{Fate, Name, State, read};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::{
    reports::Reports,
    status::{
        Trouble,
        conditions::{self, Finding},
    },
    world::{Held, World},
};

/// How often it is looked at most. Agents are a tenth of that behind one another.
const EVERY: Duration = Duration::from_millis(100);
/// How often it is looked at least: time alone makes a silent node a laggard.
const LEAST: Duration = Duration::from_secs(1);
/// Who writes.
const MANAGER: &str = "sidetrack-routed";
/// The condition.
const ROUTED: &str = "Routed";

/// Keeps condition `Routed` of all Sandboxes.
pub(crate) struct Routed {
    client: Client,
    sandboxes: Store<Held>,
    world: Arc<World>,
    reports: Arc<Reports>,
}

impl Routed {
    pub(crate) fn new(client: Client, sandboxes: Store<Held>, world: Arc<World>, reports: Arc<Reports>) -> Self {
        Self { client, sandboxes, world, reports }
    }

    /// Looks for ever.
    pub(crate) async fn run(self) {
        let (nodes, _following) = follow_nodes(self.client.clone(), Arc::clone(&self.reports));
        // Before it is known which nodes count, all of none would be all.
        if nodes.wait_until_ready().await.is_err() {
            return;
        }
        let mut changes = self.reports.changes();
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut idle) = (None, Duration::ZERO);
        loop {
            tick.tick().await;
            let view = self.world.view();
            let same = seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &view));
            idle += EVERY;
            if same && idle < LEAST && !changes.has_changed().unwrap_or(false) {
                continue;
            }
            changes.mark_unchanged();
            idle = Duration::ZERO;
            for (name, fate) in &view.resolved.sandboxes {
                if fate.state == State::Living {
                    self.look(name, fate).await;
                }
            }
            seen = Some(view);
        }
    }

    async fn look(&self, name: &Name, fate: &Fate) {
        let Some(held) = self.sandboxes.get(&reflector::ObjectRef::new(&name.name).within(&name.namespace)) else {
            return;
        };
        let Ok(sandbox) = &held.0 else { return };
        // The view may be a moment older, or younger.
        let this =
            sandbox.metadata.uid.as_ref() == Some(&fate.uid) && sandbox.metadata.generation == Some(fate.generation);
        if !this || read::name(&sandbox.metadata) != *name {
            return;
        }
        let verdict = self.reports.verdict(&fate.uid, InForce { generation: fate.generation, hash: fate.hash });
        let Some(condition) = condition(sandbox, &verdict, Timestamp::now()) else { return };
        let conditions = [&condition];
        let patch = json!({
            "apiVersion": "sidetrack.dev/v1alpha1",
            "kind": "Sandbox",
            "metadata": {"name": name.name, "namespace": name.namespace, "uid": fate.uid},
            "status": {"conditions": conditions},
        });
        let api: Api<Sandbox> = Api::namespaced(self.client.clone(), &name.namespace);
        match api.patch_status(&name.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await {
            Ok(_) => debug!(sandbox = %name.name, namespace = name.namespace, said = condition.message, "Routed"),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => warn!(sandbox = %name.name, namespace = name.namespace, "Routed cannot be said: {error}"),
        }
    }
}

/// The condition that says this; nothing where it stands already, or where nothing can be said yet.
fn condition(sandbox: &Sandbox, verdict: &Verdict, now: Timestamp) -> Option<Condition> {
    let (status, reason) = match verdict {
        Verdict::Everywhere(_) => ("True", "InForce"),
        Verdict::Waiting { .. } => ("False", "Waiting"),
        Verdict::TooEarly => return None,
    };
    let message = verdict.to_string();
    let stands = sandbox.status.iter().flat_map(|status| &status.conditions).find(|stands| stands.type_ == ROUTED);
    let generation = sandbox.metadata.generation;
    let same = stands.filter(|stands| stands.status == status && stands.reason == reason);
    // How many nodes there are is no news of a Sandbox that is in force on all of them.
    let said =
        same.is_some_and(|it| it.observed_generation == generation && (status == "True" || it.message == message));
    if said {
        return None;
    }
    let old = sandbox.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let finding = match verdict {
        Verdict::Everywhere(_) => Finding::yes(ROUTED, reason, &message),
        _ => Finding::no(ROUTED, &Trouble { reason: reason.to_owned(), message }),
    };
    conditions::set(old, vec![finding], generation, now).pop()
}

/// Whether an agent is to be there: not on nodes without a Linux kernel of their own.
fn counts(node: &Node) -> bool {
    let label = |name: &str| node.labels().get(name).map(String::as_str);
    label("kubernetes.io/os").is_none_or(|os| os == "linux")
        && label("type") != Some("virtual-kubelet")
        && label("eks.amazonaws.com/compute-type") != Some("fargate")
}

/// Tells the reports which nodes count, for as long as the handle is kept.
fn follow_nodes(client: Client, reports: Arc<Reports>) -> (Store<Node>, AbortOnDropHandle<()>) {
    let (nodes, writer) = reflector::store::<Node>();
    let known = nodes.clone();
    let follow = watcher(Api::all(client), watcher::Config::default())
        .default_backoff()
        .modify(|node: &mut Node| {
            // Kubelets change the rest every ten seconds.
            (node.spec, node.status) = (None, None);
            node.managed_fields_mut().clear();
            node.annotations_mut().clear();
        })
        .reflect(writer)
        .for_each(move |event| {
            match event {
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => {
                    let counted: BTreeSet<String> =
                        known.state().iter().filter(|node| counts(node)).map(|node| node.name_any()).collect();
                    reports.count(counted);
                }
                Ok(_) => {}
                Err(error) => debug!("nodes cannot be watched, it is tried again: {error}"),
            }
            std::future::ready(())
        });
    (nodes, AbortOnDropHandle::new(tokio::spawn(follow)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn sandbox(generation: i64, conditions: Vec<Condition>) -> Sandbox {
        let mut sandbox: Sandbox = serde_json::from_value(json!({
            "apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox",
            "metadata": {"name": "pr", "namespace": "shop", "uid": "u", "generation": generation},
            "spec": {"forks": []},
        }))
        .expect("a Sandbox");
        sandbox.status = Some(sidetrack_objects::sandbox::SandboxStatus { conditions, ..Default::default() });
        sandbox
    }

    fn waiting(message: &str) -> Verdict {
        let why = sidetrack_acknowledge::Why::Behind;
        Verdict::Waiting {
            nodes: 2,
            missing: 1,
            laggards: vec![sidetrack_acknowledge::Laggard { node: message.to_owned(), why }],
        }
    }

    #[test]
    fn it_is_written_when_it_says_something_else_and_not_otherwise() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert_eq!(condition(&sandbox(1, vec![]), &Verdict::TooEarly, at(1)), None);
        let first = condition(&sandbox(1, vec![]), &waiting("a"), at(1)).expect("it is new");
        assert_eq!((first.status.as_str(), &first.last_transition_time), ("False", &Time(at(1))));
        assert_eq!(condition(&sandbox(1, vec![first.clone()]), &waiting("a"), at(2)), None);
        let other = condition(&sandbox(1, vec![first.clone()]), &waiting("b"), at(2)).expect("another laggard");
        assert_eq!(other.last_transition_time, Time(at(1)), "it was false before");
        let done = condition(&sandbox(1, vec![first]), &Verdict::Everywhere(2), at(3)).expect("it is in force");
        assert_eq!((done.status.as_str(), &done.last_transition_time), ("True", &Time(at(3))));
        assert_eq!(condition(&sandbox(1, vec![done.clone()]), &Verdict::Everywhere(3), at(4)), None, "a node more");
        assert_eq!(condition(&sandbox(1, vec![done.clone()]), &Verdict::TooEarly, at(4)), None, "another leads");
        let anew = condition(&sandbox(2, vec![done]), &Verdict::Everywhere(3), at(5)).expect("of another generation");
        assert_eq!((anew.observed_generation, &anew.last_transition_time), (Some(2), &Time(at(3))));
    }

    #[test]
    fn nodes_without_a_kernel_of_their_own_do_not_count() {
        let node = |labels: &[(&str, &str)]| {
            let mut node = Node::default();
            node.labels_mut().extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            node
        };
        assert!(counts(&node(&[])) && counts(&node(&[("kubernetes.io/os", "linux")])));
        for odd in [
            ("kubernetes.io/os", "windows"),
            ("type", "virtual-kubelet"),
            ("eks.amazonaws.com/compute-type", "fargate"),
        ] {
            assert!(!counts(&node(&[odd])), "{odd:?}");
        }
    }
}
