//! What a Sandbox says of a copy: images, variables, and a strategic merge patch, which the API server applies.

use k8s_openapi::{DeepMerge as _, api::core::v1::PodTemplateSpec};
use serde_json::{Value, json};
use sidetrack_objects::sandbox::Fork;

use super::{
    Refusal,
    template::{CONTAINERS, containers, each_container, list, list_made, name, object, text},
};
use crate::names::PREFIX;

/// Looks whether every container that a fork names is one of the template's, and whether its patch keeps off what is
/// Sidetrack's.
pub fn check(fork: &Fork, template: &Value) -> Result<(), Refusal> {
    let known: Vec<&str> = containers(template).map(name).collect();
    let unknown = |field: &str, name: &str| Refusal::UnknownContainer {
        field: field.to_owned(),
        name: name.to_owned(),
        known: known.iter().map(|&name| name.to_owned()).collect(),
    };
    let images = fork.images.iter().flatten().map(|(name, _)| ("images", name.as_str()));
    let env = fork.env.iter().flatten().map(|(name, _)| ("env", name.as_str()));
    for (field, name) in images.chain(env) {
        if !known.contains(&name) {
            return Err(unknown(field, name));
        }
    }
    let Some(patch) = &fork.patch else { return Ok(()) };
    let spec = patch.get("spec").unwrap_or(&Value::Null);
    for which in CONTAINERS {
        let here: Vec<&str> = list(&template["spec"], which).map(name).collect();
        for entry in list(spec, which) {
            // A directive for the whole list names nobody.
            if entry.get("name").is_some() && !here.contains(&name(entry)) {
                return Err(unknown(&format!("patch.spec.{which}"), name(entry)));
            }
        }
    }
    for field in ["labels", "annotations"] {
        let keys = patch.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_object);
        if let Some((key, _)) = keys.into_iter().flatten().find(|(key, _)| key.starts_with(PREFIX)) {
            return Err(Refusal::OwnName(key.clone()));
        }
    }
    Ok(())
}

/// Sets images and variables.
pub fn set(fork: &Fork, template: &mut Value) {
    each_container(template, |container| {
        let name = name(container).to_owned();
        if let Some(image) = fork.images.as_ref().and_then(|images| images.get(&name)) {
            object_of(container).insert("image".into(), json!(image));
        }
        let variables = fork.env.iter().flatten().filter(|(of, _)| **of == name).flat_map(|(_, variables)| variables);
        for variable in variables {
            set_variable(container, &variable.name, &variable.value);
        }
    });
}

/// Sets one variable of a container.
pub fn set_variable(container: &mut Value, name: &str, value: &str) {
    let all = list_made(container, "env");
    let one = json!({"name": name, "value": value});
    match all.iter_mut().find(|it| text(it, "name") == Some(name)) {
        Some(there) => *there = one,
        None => all.push(one),
    }
}

fn object_of(value: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was made one")
}

/// The patch, as what the API server applies to a workload.
#[must_use]
pub fn of_workload(fork: &Fork) -> Option<Value> {
    Some(json!({"spec": {"template": fork.patch.as_ref()?}}))
}

/// Applies the patch to the template of a Rollout. The API server merges strategically only into kinds of its own, so the
/// same rules are taken from their descriptions: lists of containers, volumes and variables are merged by name. What
/// removes or reorders is refused.
pub fn merge(fork: &Fork, template: &Value) -> Result<Value, Refusal> {
    let Some(patch) = &fork.patch else { return Ok(template.clone()) };
    let patch = Value::Object(patch.clone());
    directive(&patch).map_or(Ok(()), |word| Err(Refusal::Directive(word)))?;
    let read = |value: &Value| -> Result<PodTemplateSpec, Refusal> {
        serde_json::from_value(value.clone()).map_err(|error| Refusal::Patch(error.to_string()))
    };
    let mut merged = read(template)?;
    let mut with_containers = patch.clone();
    // The types demand a list that a patch need not have.
    list_made(&mut with_containers["spec"], "containers");
    object(&mut with_containers, "metadata");
    merged.merge_from(read(&with_containers)?);
    serde_json::to_value(merged).map_err(|error| Refusal::Patch(error.to_string()))
}

/// A word of the patch that is more than a value.
fn directive(patch: &Value) -> Option<String> {
    match patch {
        Value::Null => Some("null".to_owned()),
        Value::Object(fields) => fields
            .iter()
            .find_map(|(key, value)| if key.starts_with('$') { Some(key.clone()) } else { directive(value) }),
        Value::Array(all) => all.iter().find_map(directive),
        _ => None,
    }
}
