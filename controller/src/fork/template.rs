//! Ways into a pod template.

use serde_json::{Map, Value};

/// The field of an object, as an object; made where it is missing.
pub fn object<'a>(value: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let inner = &mut value[field];
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    inner.as_object_mut().expect("it was made one")
}

/// The entries of a list; none where there is no list.
pub fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// The same, to be changed.
pub fn list_mut<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The entries of a list that is made where it is missing.
pub fn list_made<'a>(value: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    let inner = &mut value[field];
    if !inner.is_array() {
        *inner = Value::Array(Vec::new());
    }
    inner.as_array_mut().expect("it was made one")
}

/// A text field.
pub fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// An object's name; empty where it has none.
pub fn name(value: &Value) -> &str {
    text(value, "name").unwrap_or_default()
}

/// The lists of containers that a pod's `spec` may have.
pub const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

/// All containers of a template, those that run first among them.
pub fn containers(template: &Value) -> impl Iterator<Item = &Value> {
    CONTAINERS.into_iter().flat_map(|which| list(&template["spec"], which))
}

/// Does this to each of them.
pub fn each_container(template: &mut Value, mut change: impl FnMut(&mut Value)) {
    for which in CONTAINERS {
        list_mut(&mut template["spec"], which).for_each(&mut change);
    }
}

/// Whether an init container goes on beside the others.
pub fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == Some("Always")
}
