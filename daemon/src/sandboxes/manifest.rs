//! The objects of a file, for `sidetrack apply`: one or several documents of YAML or JSON, or lists of objects.

use kube::core::{DynamicObject, TypeMeta};
use serde_json::Value;
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use super::Failure;
use crate::document::API_VERSION;

/// What a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Sandbox.
    Sandbox,
    /// The settings of the cluster.
    SidetrackConfig,
}

impl Kind {
    /// As the API names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "Sandbox",
            Self::SidetrackConfig => "SidetrackConfig",
        }
    }
}

/// An object that is to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its namespace, where it says one.
    pub namespace: Option<String>,
    /// All that it says, without what the API server alone writes.
    pub body: DynamicObject,
}

/// Fields of `metadata` that the API server writes: in an object that came from there they mean nothing.
const OF_THE_SERVER: [&str; 7] =
    ["creationTimestamp", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];

/// Reads a file's text; `file` is its name for people.
pub fn parse(text: &str, file: &str) -> Result<Vec<Object>, Failure> {
    // Numbers and words mean what they mean to kubectl, which reads YAML 1.1: `0644` is a file's mode.
    let options = serde_saphyr::options! { with_snippet: false, legacy_octal_numbers: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        let what = UserMessageFormatter.format_message(error.without_snippet()).into_owned();
        Failure::Manifest(format!("{file}:{line}:{column}: {what}"))
    })?;
    let mut objects = Vec::new();
    for (n, document) in documents.into_iter().enumerate() {
        let place = format!("{file}: document {}", n + 1);
        match document["kind"].as_str() {
            Some("List" | "SandboxList") => {
                let Value::Array(items) = document["items"].clone() else {
                    return Err(Failure::Manifest(format!("{place}: expected a list of objects in items")));
                };
                for (m, item) in items.into_iter().enumerate() {
                    objects.push(object(item, &format!("{place}: items[{m}]"))?);
                }
            }
            _ => objects.push(object(document, &place)?),
        }
    }
    if objects.is_empty() {
        return Err(Failure::Manifest(format!("{file}: nothing stands there, expected a Sandbox")));
    }
    Ok(objects)
}

fn object(mut value: Value, place: &str) -> Result<Object, Failure> {
    let wrong = |what: String| Failure::Manifest(format!("{place}: {what}"));
    let kind = match value["kind"].as_str() {
        Some("Sandbox") => Kind::Sandbox,
        Some("SidetrackConfig") => Kind::SidetrackConfig,
        Some(other) => {
            return Err(wrong(format!(
                "kind {other:?}, expected Sandbox or SidetrackConfig; `kubectl apply` is for all else"
            )));
        }
        None => return Err(wrong("it has no kind, expected Sandbox or SidetrackConfig".into())),
    };
    if value["apiVersion"] != API_VERSION {
        return Err(wrong(format!("apiVersion {}, expected {API_VERSION:?}", value["apiVersion"])));
    }
    let name = value["metadata"]["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let name = name.ok_or_else(|| wrong("metadata.name is missing: give it a name".into()))?;
    let namespace = value["metadata"]["namespace"].as_str().map(str::to_owned);
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
        fields.remove("apiVersion");
        fields.remove("kind");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !OF_THE_SERVER.contains(&field.as_str()));
        }
    }
    let mut body: DynamicObject =
        serde_json::from_value(value).map_err(|error| wrong(format!("metadata is not understood: {error}")))?;
    body.types = Some(TypeMeta { api_version: API_VERSION.into(), kind: kind.name().into() });
    Ok(Object { kind, name, namespace, body })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SANDBOX: &str = "apiVersion: sidetrack.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: pr}\n";

    fn said(text: &str) -> String {
        parse(text, "f.yaml").expect_err("a failure").to_string()
    }

    #[test]
    fn a_file_may_have_several_documents_and_lists() {
        let config = "{\"apiVersion\": \"sidetrack.dev/v1alpha1\", \"kind\": \"SidetrackConfig\", \"metadata\": {\"name\": \"default\"}}";
        let list = format!("kind: List\napiVersion: v1\nitems:\n- {}", SANDBOX.replace('\n', "\n  "));
        let text = format!("---\n{SANDBOX}spec: {{ttl: 2h}}\n---\n# nothing\n---\n{config}\n---\n{list}\n");
        let objects = parse(&text, "f.yaml").expect("objects");
        let kinds: Vec<_> = objects.iter().map(|object| (object.kind, object.name.as_str())).collect();
        assert_eq!(kinds, [(Kind::Sandbox, "pr"), (Kind::SidetrackConfig, "default"), (Kind::Sandbox, "pr")]);
        assert_eq!(objects[0].body.data, json!({"spec": {"ttl": "2h"}}));
    }

    #[test]
    fn an_object_as_the_api_server_shows_it_can_be_applied_again() {
        let text = "apiVersion: sidetrack.dev/v1alpha1\nkind: Sandbox\n\
            metadata: {name: pr, namespace: shop, labels: {team: a}, uid: u, resourceVersion: '7', generation: 2, managedFields: [], creationTimestamp: '2026-01-01T00:00:00Z'}\n\
            spec: {forks: []}\nstatus: {keys: [pr]}\n";
        let object = &parse(text, "f.yaml").expect("an object")[0];
        let body = serde_json::to_value(&object.body).expect("JSON");
        let expected = json!({"apiVersion": API_VERSION, "kind": "Sandbox",
            "metadata": {"name": "pr", "namespace": "shop", "labels": {"team": "a"}}, "spec": {"forks": []}});
        assert_eq!((body, object.namespace.as_deref()), (expected, Some("shop")));
    }

    #[test]
    fn unknown_fields_stay_for_the_api_server_to_refuse() {
        let object = &parse(&format!("{SANDBOX}spec: {{fork: []}}\nspecs: 1\n"), "f.yaml").expect("an object")[0];
        assert_eq!(object.body.data, json!({"spec": {"fork": []}, "specs": 1}));
    }

    #[test]
    fn numbers_mean_what_they_mean_to_kubectl() {
        let object =
            &parse(&format!("{SANDBOX}spec: {{mode: 0644, text: '0644', on: yes}}\n"), "f.yaml").expect("one")[0];
        assert_eq!(object.body.data["spec"]["mode"], 0o644);
        assert_eq!(object.body.data["spec"]["text"], "0644");
    }

    #[test]
    fn what_is_wrong_says_where_it_is_and_what_was_expected() {
        for (text, words) in [
            ("", "f.yaml: nothing stands there, expected a Sandbox"),
            ("kind: Sandbox\n", "f.yaml: document 1: apiVersion null, expected \"sidetrack.dev/v1alpha1\""),
            ("apiVersion: apps/v1\nkind: Deployment\n", "f.yaml: document 1: kind \"Deployment\", expected Sandbox or"),
            ("a: 1\n", "f.yaml: document 1: it has no kind"),
            ("apiVersion: sidetrack.dev/v1alpha1\nkind: Sandbox\n", "f.yaml: document 1: metadata.name is missing"),
            ("kind: List\nitems: 3\n", "f.yaml: document 1: expected a list of objects"),
            ("kind: List\nitems: [{}]\n", "f.yaml: document 1: items[0]: it has no kind"),
            ("kind: [\n", "f.yaml:"),
            ("kind: a\nkind: b\n", "f.yaml:2:1: "),
        ] {
            assert!(said(text).starts_with(words), "{text:?}: {}", said(text));
        }
    }
}
