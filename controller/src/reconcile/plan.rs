//! What has to be done for each fork. Nothing is written here.

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Pod,
    scheduling::v1::PriorityClass,
};
use kube::{
    Api, ResourceExt as _,
    api::PostParams,
    core::{DynamicObject, SelectorExt as _},
};
use serde_json::{Value, json};
use sidetrack_objects::{
    Sandbox,
    sandbox::{Baseline as SaidBaseline, Follow, Fork, Workload, WorkloadKind},
};
use sidetrack_resolve::{Fate, Outcome, read};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{Context, Failed, write};
use crate::{
    fork::{
        Baseline, Labels, Maker, Refusal, Selectors,
        baseline::labels_of,
        copy,
        deployment::{self, Living, Step},
        patch,
        policies::Seen,
    },
    names::{COPY_LABEL, PRIORITY_CLASS, RESTARTED_AT},
    spaces::{Lack, Space, resource},
    status::{FoundFork, Trouble, why},
    world::selector,
};

/// What is said of pods that may write Leases.
const LEADS: &str =
    "its service account may write Leases: where its program elects a leader, a fork may be elected for the baseline";

/// What is to be done for a fork, and what was found out by the way.
pub(super) struct Plan {
    pub(super) found: FoundFork,
    pub(super) fork: Fork,
    /// Its Deployment's name, of one that is made here.
    pub(super) object: Option<String>,
    /// Its Deployment, where it has to be written.
    pub(super) write: Option<Value>,
    /// How network policies see its pods.
    pub(super) seen: Option<Seen>,
    copy: String,
}

/// When this fork was last told to begin anew: alone, or with all others of its Sandbox.
fn restarted_at<'a>(sandbox: &'a Sandbox, fork: &str) -> Option<&'a str> {
    let annotations = sandbox.annotations();
    let said = [annotations.get(RESTARTED_AT), annotations.get(&format!("{RESTARTED_AT}.{fork}"))];
    said.into_iter().flatten().map(String::as_str).max()
}

/// Plans for all forks; none where something is not known yet, and its watch will tell.
pub(super) async fn plan(context: &Context, sandbox: &Sandbox, space: &Space) -> Result<Option<Vec<Plan>>, Failed> {
    let known = super::known_forks(sandbox);
    let record = read::sandbox(sandbox);
    let (name, uid) = (sandbox.name_any(), sandbox.uid().unwrap_or_default());
    let key = record.keys.first().cloned().unwrap_or_default();
    let mut plans = Vec::new();
    for (fork, found) in sandbox.spec.forks.iter().zip(known) {
        let maker = Maker {
            sandbox: &name,
            uid: &uid,
            key: sandbox.spec.keys.as_ref().and_then(|keys| keys.first()).unwrap_or(&key),
            restarted_at: restarted_at(sandbox, &fork.name),
            fork,
        };
        let planner = Planner { context, sandbox, space, maker };
        let mut plan = Plan { found, fork: fork.clone(), object: None, write: None, seen: None, copy: maker.copy() };
        if fork.pod_selector.is_none() {
            plan.object = Some(maker.object());
            match planner.plan(&mut plan).await {
                Ok(()) => {}
                Err(Halt::Pending) => return Ok(None),
                Err(Halt::Trouble(trouble)) => plan.found.trouble = Some(trouble),
                Err(Halt::Failed(failed)) => return Err(failed),
            }
        }
        plans.push(plan);
    }
    Ok(Some(plans))
}

/// Why there is no plan for a fork.
enum Halt {
    Pending,
    Trouble(Trouble),
    Failed(Failed),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Trouble((&refusal).into())
    }
}

impl From<Failed> for Halt {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Plans one fork.
struct Planner<'a> {
    context: &'a Context,
    sandbox: &'a Sandbox,
    space: &'a Space,
    maker: Maker<'a>,
}

impl Planner<'_> {
    async fn plan(&self, plan: &mut Plan) -> Result<(), Halt> {
        let namespace = self.sandbox.namespace().unwrap_or_default();
        let there = self.space.deployments.store.find(|it| it.name_any() == self.maker.object());
        let there = there.map(|it| serde_json::to_value(&*it).expect("its keys are texts"));
        if let Some(there) = &there {
            deployment::is_ours(there, self.maker.uid)?;
        }
        let living = there.as_ref().and_then(Living::read);
        if let Some(living) = &living {
            plan.found.hazards.clone_from(&living.hazards);
            plan.found.baseline =
                living.baseline.clone().map(|(workload, revision)| SaidBaseline { workload, revision });
        }
        let baseline = match &self.maker.fork.workload {
            Some(workload) => self.baseline(workload, living.as_ref(), plan)?,
            None => None,
        };
        if self.maker.fork.workload.is_some() && baseline.is_none() {
            // The baseline has gone and the fork stays as it is.
            return Ok(());
        }
        if let Some(baseline) = &baseline
            && self.maker.fork.services.is_none()
        {
            plan.found.services = services(&self.space.selecting_services(), &baseline.labels());
        }
        let followed = baseline.as_ref().filter(|_| self.sandbox.spec.follow == Follow::Always);
        let inputs = deployment::inputs(self.maker, followed);
        let owner = json!(Context::owner(self.sandbox));
        let step = deployment::step(self.maker, &inputs, living.as_ref());
        let labels = match (step, &there) {
            (Step::Touch, Some(there)) => {
                plan.write = Some(deployment::touched(self.maker, &owner, there));
                labels_of(&there["spec"]["template"])
            }
            (Step::Keep, Some(there)) => labels_of(&there["spec"]["template"]),
            _ => {
                let template = self.template(&namespace, baseline.as_ref()).await?;
                let class = self.has_priority_class().await;
                let before = baseline.as_ref().map(|baseline| &baseline.template);
                let mut copy = copy::make(self.maker, template, before, &self.space.selectors(), class)?;
                if self.may_lead(&namespace, &copy.template).await {
                    copy.hazards.push(LEADS.to_owned());
                }
                plan.found.hazards.clone_from(&copy.hazards);
                plan.found.baseline = baseline.as_ref().map(|it| SaidBaseline {
                    workload: Workload { kind: it.kind, name: it.name.clone() },
                    revision: it.revision.clone(),
                });
                plan.found.drift = None;
                let made = deployment::deployment(self.maker, &owner, &inputs, baseline.as_ref(), &copy);
                let labels = labels_of(&copy.template);
                plan.write = Some(made);
                labels
            }
        };
        plan.seen = baseline.map(|baseline| Seen {
            copy: self.maker.copy(),
            baseline: baseline.labels(),
            labels,
            own: self.maker.own_labels(),
        });
        Ok(())
    }

    /// The workload; none where it has gone and its fork lives.
    fn baseline(
        &self,
        workload: &Workload,
        living: Option<&Living>,
        plan: &mut Plan,
    ) -> Result<Option<Baseline>, Halt> {
        let copied = living.and_then(|living| living.baseline.as_ref()).filter(|(of, _)| of == workload);
        match self.space.baseline(workload.kind, &workload.name) {
            Err(Lack::Pending) => Err(Halt::Pending),
            Err(Lack::Refused(words)) => Err(Halt::Trouble(Trouble { reason: "Forbidden".to_owned(), message: words })),
            Ok(Err(refusal @ Refusal::NoBaseline { .. })) => {
                let Some(_) = copied else { return Err(refusal.into()) };
                plan.found.drift = Some(Trouble {
                    reason: "BaselineGone".to_owned(),
                    message: format!(
                        "{:?} {} has gone since it was copied: the fork stays as it is",
                        workload.kind, workload.name
                    ),
                });
                Ok(None)
            }
            Ok(Err(refusal)) => Err(refusal.into()),
            Ok(Ok(baseline)) => {
                if copied.is_some_and(|(_, revision)| *revision != baseline.revision) {
                    plan.found.drift = Some(Trouble {
                        reason: "BaselineChanged".to_owned(),
                        message: format!(
                            "{:?} {} has changed since it was copied: a change of the fork, or follow: Always, copies it anew",
                            workload.kind, workload.name
                        ),
                    });
                }
                Ok(Some(baseline))
            }
        }
    }

    /// The pod template with the fork's patch.
    async fn template(&self, namespace: &str, baseline: Option<&Baseline>) -> Result<Value, Halt> {
        let Some(baseline) = baseline else {
            return Ok(self.maker.fork.template.clone().map(Value::Object).unwrap_or_default());
        };
        patch::check(self.maker.fork, &baseline.template)?;
        let Some(patch) = patch::of_workload(self.maker.fork) else { return Ok(baseline.template.clone()) };
        if baseline.kind == WorkloadKind::Rollout {
            return Ok(patch::merge(self.maker.fork, &baseline.template)?);
        }
        let api =
            Api::<DynamicObject>::namespaced_with(self.context.client.clone(), namespace, &resource(baseline.kind));
        let patched = match self.context.patched(&api, &baseline.name, &patch).await {
            Ok(patched) => patched,
            Err(error) => {
                let trouble = write::refused(error)?;
                let reason = if trouble.reason == "Invalid" { "PatchRefused".to_owned() } else { trouble.reason };
                return Err(Halt::Trouble(Trouble { reason, message: format!("patch: {}", trouble.message) }));
            }
        };
        let generation = patched.metadata.generation.unwrap_or_default();
        // A patch that changes something is a generation of its own.
        if !(baseline.generation..=baseline.generation + 1).contains(&generation) {
            return Err(Halt::Failed(Failed::Conflict("the baseline has changed meanwhile".to_owned())));
        }
        Ok(Baseline::read(baseline.kind, &patched)?.template)
    }

    /// Whether its pods may write Leases, and so may be elected in the place of the baseline's.
    async fn may_lead(&self, namespace: &str, template: &Value) -> bool {
        if template["spec"]["automountServiceAccountToken"] == false {
            return false;
        }
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{}", copy::account(template))),
                groups: Some(groups.into()),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_owned()),
                    verb: Some("update".to_owned()),
                    group: Some("coordination.k8s.io".to_owned()),
                    resource: Some("leases".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = Api::<SubjectAccessReview>::all(self.context.client.clone());
        // Without the right to ask nothing is known of it.
        let said = reviews.create(&PostParams::default(), &review).await;
        said.is_ok_and(|review| review.status.is_some_and(|status| status.allowed))
    }

    async fn has_priority_class(&self) -> bool {
        let classes = Api::<PriorityClass>::all(self.context.client.clone());
        // Without the right to look there is none.
        classes.get_opt(PRIORITY_CLASS).await.is_ok_and(|class| class.is_some())
    }
}

/// The Services that select these pods.
fn services(selectors: &Selectors, labels: &Labels) -> Vec<String> {
    let names = selectors.selecting(labels).filter_map(|(what, _)| what.strip_prefix("Service "));
    names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().take(SERVICES_MAX).collect()
}

/// So many Services of a fork a Sandbox's status has room for.
const SERVICES_MAX: usize = 32;

impl Plan {
    /// What was found out, with what has become of the pods.
    pub(super) fn found(mut self, space: &Space, fate: Option<&Fate>) -> FoundFork {
        let pods = self.pods(space);
        if let Some(object) = &self.object {
            let deployment = space.deployments.store.find(|it| it.name_any() == *object);
            let sets = space.replica_sets.store.state_filter(|it| it.labels().get(COPY_LABEL) == Some(&self.copy));
            let data = deployment.map(|it| it.data.clone()).unwrap_or_default();
            let sets: Vec<_> = sets.iter().map(|set| &**set).collect();
            let living: Vec<_> = pods.iter().map(|pod| &**pod).collect();
            self.found.hindrance = why::hindrance(&data, sets, living);
        }
        let records: Vec<_> = pods.iter().map(|pod| read::pod(pod)).collect();
        let ready = records.iter().filter(|pod| pod.state == sidetrack_resolve::PodState::Ready);
        self.found.ready_pods = count(ready.clone().count());
        let routed: BTreeSet<IpAddr> = fate
            .into_iter()
            .flat_map(|fate| &fate.rulings)
            .filter(|ruling| ruling.fork == self.found.name)
            .filter_map(|ruling| match &ruling.outcome {
                Outcome::Routed(endpoints) => Some(endpoints.iter().map(std::net::SocketAddr::ip)),
                _ => None,
            })
            .flatten()
            .collect();
        let steered = ready.filter(|pod| pod.addresses.iter().any(|address| routed.contains(address)));
        self.found.ready_endpoints = count(steered.count());
        self.found
    }

    fn pods(&self, space: &Space) -> Vec<Arc<Pod>> {
        match &self.fork.pod_selector {
            None => space.pods.store.state_filter(|pod| pod.labels().get(COPY_LABEL) == Some(&self.copy)),
            Some(pods) => {
                let selector = selector(pods);
                space.pods.store.state_filter(|pod| selector.as_ref().is_some_and(|it| it.matches(pod.labels())))
            }
        }
    }
}

fn count(of: usize) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}
