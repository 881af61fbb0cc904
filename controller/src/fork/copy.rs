//! The copy: the template that a fork's pods have.

use serde_json::{Value, json};
use sidetrack_objects::sandbox::{Fork, InitContainers};

use super::{
    Labels, Refusal, Selectors,
    baseline::labels_of,
    grants, labels, patch,
    template::{each_container, is_sidecar, list, list_mut, name, object, text},
    volumes,
};
use crate::names::{
    COPY_LABEL, FORK_LABEL, PREFIX, PRIORITY_CLASS, RESTARTED_AT, SANDBOX_LABEL, object as object_name, short,
};

/// In every container: the Sandbox's name.
const SANDBOX_VARIABLE: &str = "SIDETRACK_SANDBOX";
/// In every container: its first key.
const KEY_VARIABLE: &str = "SIDETRACK_KEY";

/// For which fork of which Sandbox a copy is made.
#[derive(Clone, Copy, Debug)]
pub struct Maker<'a> {
    /// The Sandbox's name.
    pub sandbox: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its first key.
    pub key: &'a str,
    /// When somebody has asked for new pods.
    pub restarted_at: Option<&'a str>,
    /// The fork.
    pub fork: &'a Fork,
}

impl Maker<'_> {
    /// Tells this copy from any other.
    #[must_use]
    pub fn copy(&self) -> String {
        short(&[self.uid, &self.fork.name])
    }

    /// The labels by which a fork's Deployment knows its pods.
    #[must_use]
    pub fn own_labels(&self) -> Labels {
        let own = [(SANDBOX_LABEL, self.sandbox), (FORK_LABEL, &self.fork.name), (COPY_LABEL, &self.copy())];
        own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// What its Deployment is called.
    #[must_use]
    pub fn object(&self) -> String {
        object_name(self.sandbox, &self.fork.name, &self.copy())
    }
}

/// A copy, and what its author should know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// The pod template.
    pub template: Value,
    /// Hazards, in words.
    pub hazards: Vec<String>,
}

/// Makes the copy of a template to which the patch was applied. `baseline` is the one before that; none where the template
/// is a new service's.
pub fn make(
    maker: Maker<'_>,
    mut template: Value,
    baseline: Option<&Value>,
    selectors: &Selectors,
    priority_class: bool,
) -> Result<Copy, Refusal> {
    if list(&template["spec"], "containers").next().is_none() {
        return Err(Refusal::NoTemplate(format!("template of fork {}", maker.fork.name)));
    }
    if template["spec"]["hostNetwork"] == true {
        return Err(Refusal::HostNetwork);
    }
    let gained = grants::gained(&template, baseline);
    if !gained.is_empty() {
        return Err(Refusal::Gains(gained.into_iter().collect::<Vec<_>>().join(", ")));
    }
    patch::set(maker.fork, &mut template);
    let mut hazards = volumes::change(&mut template, &maker.fork.volumes.clone().unwrap_or_default())?;
    first_containers(&mut template, maker.fork.init_containers.unwrap_or_default(), &mut hazards);
    host(&mut template, &mut hazards);
    priority(&mut template, priority_class);
    each_container(&mut template, |container| {
        patch::set_variable(container, SANDBOX_VARIABLE, maker.sandbox);
        patch::set_variable(container, KEY_VARIABLE, maker.key);
    });
    let changed = labels::change(&labels_of(&template), &maker.own_labels(), selectors, &maker.copy());
    hazards.extend(changed.still.iter().map(|what| format!("{what} counts the fork's pods as the baseline's")));
    let mut annotations = object(&mut template["metadata"], "annotations").clone();
    annotations.retain(|key, _| !key.starts_with(PREFIX));
    template["metadata"] = json!({"labels": changed.labels, "annotations": annotations});
    restart(&mut template, maker.restarted_at);
    Ok(Copy { template, hazards })
}

/// Notes when new pods were asked for: with another time the Deployment makes some.
pub fn restart(template: &mut Value, at: Option<&str>) {
    let annotations = object(&mut template["metadata"], "annotations");
    match at {
        Some(at) => _ = annotations.insert(RESTARTED_AT.to_owned(), json!(at)),
        None => _ = annotations.remove(RESTARTED_AT),
    }
}

fn first_containers(template: &mut Value, wished: InitContainers, hazards: &mut Vec<String>) {
    let once = |container: &Value| !is_sidecar(container);
    let names: Vec<_> = list(&template["spec"], "initContainers").filter(|it| once(it)).map(name).collect();
    if names.is_empty() {
        return;
    }
    match wished {
        InitContainers::Keep => hazards.push(format!(
            "init containers run with each pod and may change what the baseline uses ({}): initContainers: Skip leaves them out",
            names.join(", ")
        )),
        InitContainers::Skip => {
            if let Some(all) = template["spec"]["initContainers"].as_array_mut() {
                all.retain(is_sidecar);
            }
        }
    }
}

/// What a pod has of its node.
fn host(template: &mut Value, hazards: &mut Vec<String>) {
    let spec = object(template, "spec");
    spec.remove("nodeName");
    for field in ["hostPID", "hostIPC"] {
        if spec.get(field) == Some(&json!(true)) {
            hazards.push(format!("the fork has its baseline's {field}"));
        }
    }
    let mut removed = Vec::new();
    each_container(template, |container| {
        for port in list_mut(container, "ports").filter_map(Value::as_object_mut) {
            removed.extend(port.remove("hostPort").and_then(|port| port.as_i64()).filter(|port| *port != 0));
        }
    });
    if !removed.is_empty() {
        let ports: Vec<_> = removed.iter().map(ToString::to_string).collect();
        hazards.push(format!("host ports are the baseline's alone ({})", ports.join(", ")));
    }
}

/// A fork gives way to everything else and pushes nobody out.
fn priority(template: &mut Value, class: bool) {
    let spec = object(template, "spec");
    for field in ["priority", "priorityClassName", "preemptionPolicy"] {
        spec.remove(field);
    }
    if class {
        spec.insert("priorityClassName".into(), json!(PRIORITY_CLASS));
    }
}

/// The service account of a template's pods.
#[must_use]
pub fn account(template: &Value) -> &str {
    text(&template["spec"], "serviceAccountName").unwrap_or("default")
}
