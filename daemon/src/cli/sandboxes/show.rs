//! Objects as they are: JSON, YAML, names.

use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::{Value, json};

/// How Sandboxes are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A table for people.
    #[default]
    Table,
    /// The same with more columns.
    Wide,
    /// The object of the API; of several, a list.
    Json,
    /// The same in YAML.
    Yaml,
    /// Its name, one a line.
    Name,
}

/// How an object is shown in place of what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// The object of the API.
    Json,
    /// The same in YAML.
    Yaml,
    /// Its name.
    Name,
}

impl Form {
    /// None for tables.
    pub(super) fn shape(self) -> Option<Shape> {
        match self {
            Self::Table | Self::Wide => None,
            Self::Json => Some(Shape::Json),
            Self::Yaml => Some(Shape::Yaml),
            Self::Name => Some(Shape::Name),
        }
    }
}

/// `sandbox.sidetrack.dev/pr-1`, as kubectl writes and reads it.
pub(super) fn full_name(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("sandbox".into(), |types| types.kind.to_ascii_lowercase());
    format!("{kind}.{}/{}", sidetrack_objects::GROUP, object.name_any())
}

/// The object without what only the API server's own bookkeeping needs, as kubectl shows it.
fn value(object: &DynamicObject) -> Value {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    serde_json::to_value(&object).expect("an object came from JSON")
}

/// One object, with a line end.
pub(super) fn one(object: &DynamicObject, shape: Shape) -> String {
    match shape {
        Shape::Name => full_name(object) + "\n",
        shape => text(&value(object), shape),
    }
}

/// Several, as a list.
pub(super) fn many(objects: &[DynamicObject], shape: Shape) -> String {
    match shape {
        Shape::Name => objects.iter().map(|object| full_name(object) + "\n").collect(),
        shape => {
            let items: Vec<_> = objects.iter().map(value).collect();
            text(&json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}), shape)
        }
    }
}

fn text(value: &Value, shape: Shape) -> String {
    match shape {
        Shape::Yaml => serde_saphyr::to_string(value).expect("JSON has no form that YAML lacks"),
        _ => format!("{value:#}\n"),
    }
}
