//! One pass over a Sandbox: what it wants, what is there, the steps from the one to the other, and what is said of it.
//!
//! - `plan` finds out what has to be done for each fork, and asks the API server to apply patches in a dry run. It writes
//!   nothing.
//! - `carry_out` writes: policies before pods, what is not wanted any more last.
//! - `guard` keeps living pods from being selected by Services.
//! - `going` is the end: forks are removed when nobody is steered to them any more.
//! - `write` are the requests themselves, counted, and what their errors mean.

mod carry_out;
mod going;
mod guard;
mod plan;
mod write;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Client, Resource as _, ResourceExt as _,
    runtime::{
        controller::Action,
        events::{Event, EventType, Recorder},
        reflector::Store,
    },
};
use sidetrack_objects::{Sandbox, SidetrackConfig};
use sidetrack_resolve::read;
use tracing::{debug, warn};

use crate::{
    Settings, excluded,
    health::Health,
    life::life,
    names::FINALIZER,
    spaces::{Lack, Spaces},
    status::{self, Found, FoundFork, Trouble, said},
    world::{Held, World},
};

pub(crate) use self::write::Failed;

/// How long until it is tried again what the cluster refuses: a quota or a right that changes is told by no watch.
const REFUSED: Duration = Duration::from_secs(15);
/// Pauses behind a pass that failed: the first, which each further failure doubles, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What all passes share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) health: Health,
    pub(crate) spaces: Arc<Spaces>,
    pub(crate) world: Arc<World>,
    pub(crate) configs: Store<SidetrackConfig>,
    pub(crate) recorder: Recorder,
    /// By the Sandbox's UID.
    pub(crate) memory: Arc<Mutex<BTreeMap<String, Memory>>>,
}

/// What is remembered of a Sandbox from pass to pass.
#[derive(Default)]
pub(crate) struct Memory {
    /// As it was after the last write: watches bring that later.
    written: Option<Sandbox>,
    /// Passes that failed one after the other.
    failures: u32,
}

impl Context {
    fn memory<T>(&self, sandbox: &Sandbox, with: impl FnOnce(&mut Memory) -> T) -> T {
        let mut all = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        with(all.entry(sandbox.uid().unwrap_or_default()).or_default())
    }

    fn forget(&self, sandbox: &Sandbox) {
        let mut all = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&sandbox.uid().unwrap_or_default());
    }

    /// The newer one of what a watch has brought and what was written last.
    fn newest(&self, sandbox: &Sandbox) -> Sandbox {
        let version = |of: &Sandbox| of.resource_version().and_then(|version| version.parse::<u64>().ok());
        self.memory(sandbox, |memory| {
            let newer = memory.written.take_if(|written| version(written) <= version(sandbox)).is_none();
            memory.written.clone().filter(|_| newer).unwrap_or_else(|| sandbox.clone())
        })
    }

    /// Whose the objects of a Sandbox are.
    fn owner(sandbox: &Sandbox) -> OwnerReference {
        sandbox.controller_owner_ref(&()).unwrap_or_default()
    }
}

/// One pass, counted.
pub(crate) async fn reconcile(held: Arc<Held>, context: Arc<Context>) -> Result<Action, Failed> {
    let sandbox = match &held.0 {
        Ok(sandbox) => context.newest(sandbox),
        Err(invalid) => {
            let name = read::name(&invalid.metadata);
            warn!(%name, "this Sandbox cannot be read, it is left alone: {invalid}");
            return Ok(Action::await_change());
        }
    };
    let done = pass(&context, &sandbox).await;
    context.health.passed(done.is_ok());
    if done.is_ok() && sandbox.meta().deletion_timestamp.is_none() {
        context.memory(&sandbox, |memory| memory.failures = 0);
    }
    done
}

/// When a pass is tried again that failed.
pub(crate) fn again(held: &Held, error: &Failed, context: &Context) -> Action {
    let Ok(sandbox) = &held.0 else { return Action::await_change() };
    let failures = context.memory(sandbox, |memory| {
        memory.failures += 1;
        memory.failures - 1
    });
    let name = read::name(sandbox.meta());
    match error {
        Failed::Conflict(_) => debug!(%name, "somebody else was quicker: {error}"),
        Failed::Api(_) => warn!(%name, failures, "not done, it is tried again: {error}"),
    }
    Action::requeue(PAUSES.0.saturating_mul(1 << failures.min(10)).min(PAUSES.1))
}

async fn pass(context: &Context, sandbox: &Sandbox) -> Result<Action, Failed> {
    if sandbox.meta().deletion_timestamp.is_some() {
        return going::go(context, sandbox).await;
    }
    let namespace = sandbox.namespace().unwrap_or_default();
    let now = Timestamp::now();
    let config = context.configs.find(|config| config.name_any() == "default");
    let life = life(sandbox, config.as_ref().map(|config| &config.spec));
    let view = context.world.view();
    let mut found = Found {
        expires_at: life.expires_at,
        limited: life.limited,
        expired: life.expires_at <= now,
        group: view.groups.get(&read::name(sandbox.meta())).cloned().unwrap_or_default(),
        trouble: None,
        forks: known_forks(sandbox),
    };
    if excluded(&namespace, &context.settings.namespace) {
        found.trouble = Some(Trouble {
            reason: "NamespaceExcluded".to_owned(),
            message: format!("nothing is forked in namespace {namespace}: it is the cluster's, or Sidetrack's own"),
        });
        say(context, sandbox, &found, now).await?;
        return Ok(Action::await_change());
    }
    let space = context.spaces.get(&namespace);
    match space.lack() {
        None => {}
        // Its watches tell when it is known.
        Some(Lack::Pending) => return Ok(Action::await_change()),
        Some(Lack::Refused(words)) => {
            found.trouble = Some(forbidden(&namespace, &words));
            say(context, sandbox, &found, now).await?;
            return Ok(Action::requeue(REFUSED));
        }
    }
    // What it means is told, too.
    if !view.known.contains(&namespace) {
        return Ok(Action::await_change());
    }
    if found.expired {
        say(context, sandbox, &found, now).await?;
        return going::expire(context, sandbox, &space, life.expires_at).await;
    }
    let sandbox = &if sandbox.finalizers().iter().any(|it| it == FINALIZER) {
        sandbox.clone()
    } else {
        context.set_finalizer(sandbox, true).await?
    };
    let Some(mut plans) = plan::plan(context, sandbox, &space).await? else { return Ok(Action::await_change()) };
    carry_out::carry_out(context, sandbox, &space, &mut plans).await?;
    guard::correct(context, sandbox, &space).await?;
    let fate = view.fate(sandbox);
    found.forks = plans.into_iter().map(|plan| plan.found(&space, fate)).collect();
    say(context, sandbox, &found, now).await?;
    let left = Duration::try_from(life.expires_at.duration_since(Timestamp::now())).unwrap_or_default();
    let refused = found.forks.iter().any(|fork| fork.trouble.is_some());
    Ok(Action::requeue(if refused { left.min(REFUSED) } else { left } + Duration::from_millis(1)))
}

/// The forks with what was said of them last: a key of a living Sandbox never loses its routes because something cannot be
/// looked at.
fn known_forks(sandbox: &Sandbox) -> Vec<FoundFork> {
    let status = sandbox.status.as_ref();
    let fork = |fork: &sidetrack_objects::sandbox::Fork| {
        let said = status.and_then(|status| status.forks.iter().find(|said| said.name == fork.name));
        FoundFork {
            name: fork.name.clone(),
            services: fork.services.clone().or_else(|| said.map(|said| said.services.clone())).unwrap_or_default(),
            baseline: said.and_then(|said| said.baseline.clone()),
            ready_endpoints: said.map_or(0, |said| said.ready_endpoints),
            ..FoundFork::default()
        }
    };
    sandbox.spec.forks.iter().map(fork).collect()
}

fn forbidden(namespace: &str, words: &str) -> Trouble {
    let hint = "opt it in by a RoleBinding to ClusterRole sidetrack-forks";
    Trouble {
        reason: "Forbidden".to_owned(),
        message: format!("the controller may not work in namespace {namespace}, {hint}: {words}"),
    }
}

/// Writes what was found out, where it differs, and says what has changed.
async fn say(context: &Context, sandbox: &Sandbox, found: &Found, now: Timestamp) -> Result<(), Failed> {
    let view = context.world.view();
    let new = status::status(sandbox, found, view.fate(sandbox), now);
    let mut stands = sandbox.status.clone().unwrap_or_default();
    stands.conditions.retain(status::ours);
    stands.conditions.sort_by_key(|it| status::OURS.iter().position(|of| *of == it.type_));
    if stands == new {
        return Ok(());
    }
    let (old, conditions) = (stands.conditions, new.conditions.clone());
    context.write_status(sandbox, &new).await?;
    for said in said(&old, &conditions) {
        let event = Event {
            type_: if said.warning { EventType::Warning } else { EventType::Normal },
            reason: said.reason,
            note: Some(said.note),
            action: said.action,
            secondary: None,
        };
        context.health.wrote();
        // What is said once is of no use later: nothing waits for it.
        if let Err(error) = context.recorder.publish(&event, &sandbox.object_ref(&())).await {
            debug!("an event was not written: {error}");
        }
    }
    Ok(())
}
