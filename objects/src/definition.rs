//! The objects' definitions, as a cluster wants them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::{Sandbox, SidetrackConfig};

/// Where the definitions lie in the source tree.
pub const DIRECTORY: &str = "deploy/crd";

const HEAD: &str = "# Written by `cargo xtask docs` from objects/src: change it there.\n";

/// A definition, and the file that holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its file, below [`DIRECTORY`].
    pub file: String,
    /// A `CustomResourceDefinition`.
    pub object: Value,
}

/// Those of all objects.
#[must_use]
pub fn definitions() -> Vec<Definition> {
    [Sandbox::crd(), SidetrackConfig::crd()].map(|crd| definition(&crd)).into()
}

fn definition(crd: &CustomResourceDefinition) -> Definition {
    let file = format!("{}.yaml", crd.spec.names.plural);
    let mut object = serde_json::to_value(crd).unwrap_or_default();
    plain(&mut object["spec"]["versions"]);
    Definition { file, object }
}

/// What a schema made of Rust types says and the API has no word for. An optional field is one that can be left out: the API server
/// removes a `null` there, and no rule is to meet one. Formats of numbers are `int32` and `int64`.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| match name.as_str() {
                "nullable" => !value.is_boolean(),
                "format" => value.as_str().is_none_or(|format| !format.starts_with("uint")),
                _ => true,
            });
            fields.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

impl Definition {
    /// The text of its file.
    #[must_use]
    pub fn yaml(&self) -> String {
        // A value of JSON has no form that YAML lacks.
        HEAD.to_owned() + &serde_saphyr::to_string(&self.object).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All schemas below one.
    fn walk<'a>(at: &str, value: &'a Value, visit: &mut dyn FnMut(&str, &'a Value)) {
        visit(at, value);
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, field)| walk(&format!("{at}.{name}"), field, visit));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(at, item, visit)),
            _ => {}
        }
    }

    #[test]
    fn each_definition_is_read_back_from_its_text_as_it_was() {
        for definition in definitions() {
            let read: Value = serde_saphyr::from_str(&definition.yaml()).expect("YAML");
            assert_eq!(read, definition.object, "{}", definition.file);
        }
    }

    #[test]
    fn every_field_is_explained_and_every_list_and_text_is_bounded() {
        for definition in definitions() {
            let schema = &definition.object["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            walk("", schema, &mut |at, value| {
                // What the API itself defines has its own words and bounds.
                if at.contains(".conditions") {
                    return;
                }
                if at.ends_with(".properties") {
                    for (name, field) in value.as_object().expect("fields") {
                        assert!(field["description"].is_string(), "{at}.{name} is not explained");
                    }
                }
                let bound = |kind: &str| match kind {
                    "array" => Some("maxItems"),
                    "string" => Some("maxLength"),
                    _ => None,
                };
                if let Some(bound) = value["type"].as_str().and_then(bound) {
                    let bounded = !value[bound].is_null() || !value["enum"].is_null() || !value["format"].is_null();
                    assert!(bounded, "{at} has no {bound}");
                }
                if !value["additionalProperties"].is_null() {
                    assert!(!value["maxProperties"].is_null(), "{at} has no maxProperties");
                }
            });
        }
    }

    #[test]
    fn what_lies_in_the_tree_is_what_the_types_say() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(DIRECTORY);
        for definition in definitions() {
            let stands = std::fs::read_to_string(directory.join(&definition.file)).unwrap_or_default();
            assert!(stands == definition.yaml(), "{DIRECTORY}/{}: run `cargo xtask docs`", definition.file);
        }
    }

    #[test]
    fn every_rule_says_what_to_do() {
        for definition in definitions() {
            walk("", &definition.object, &mut |at, value| {
                for rule in value["x-kubernetes-validations"].as_array().into_iter().flatten() {
                    assert!(rule["message"].as_str().is_some_and(|message| message.len() > 10), "{at}: {rule}");
                }
            });
        }
    }
}
