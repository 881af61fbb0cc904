//! What a pod may do and read: a copy has nothing of it that its baseline has not.
//!
//! The admission policy refuses what a Sandbox can be seen to ask for. What it names by name (Secrets, say) is seen here
//! only, beside the baseline. Known kinds of volumes are looked into; any other is a right of its own.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::template::{containers, list, name, text};

/// A right, in words that name what to remove.
pub type Grants = BTreeSet<String>;

/// Which names of a template count as rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Secrets, `ConfigMap`s and claims are.
    Count,
    /// They are not: a template of a new service has no baseline that could name them, and its author may make such pods
    /// himself.
    Free,
}

/// What a copy has and its baseline has not. Without one it is compared with a pod that has nothing.
#[must_use]
pub fn gained(copy: &Value, baseline: Option<&Value>) -> Grants {
    let nothing = json!({"spec": {}});
    let names = if baseline.is_some() { Names::Count } else { Names::Free };
    let of_baseline = match baseline {
        Some(baseline) => grants(baseline, names),
        // Rights that are there unless somebody takes them away: every pod has them.
        None => containers(copy).flat_map(|it| by_default(name(it))).chain(grants(&nothing, names)).collect(),
    };
    let mut gained: Grants = grants(copy, names).difference(&of_baseline).cloned().collect();
    for (dropped, container) in baseline.into_iter().flat_map(dropped) {
        if !self::dropped(copy).any(|(other, of)| of == container && (other == dropped || other == "ALL")) {
            gained.insert(format!("capability {dropped}, which container {container} drops"));
        }
    }
    gained
}

fn grants(template: &Value, names: Names) -> Grants {
    let spec = &template["spec"];
    let mut all = Grants::new();
    for volume in list(spec, "volumes") {
        of_volume(volume, names, &mut all);
    }
    of_pod(spec, names, &mut all);
    for container in containers(template) {
        of_container(container, &spec["securityContext"], names, &mut all);
    }
    all
}

fn named(all: &mut Grants, names: Names, kind: &str, name: Option<&str>) {
    if let (Names::Count, Some(name)) = (names, name) {
        all.insert(format!("{kind} {name}"));
    }
}

fn of_volume(volume: &Value, names: Names, all: &mut Grants) {
    for (kind, source) in volume.as_object().into_iter().flatten().filter(|(kind, _)| *kind != "name") {
        match kind.as_str() {
            "emptyDir" | "downwardAPI" | "ephemeral" | "image" => {}
            "configMap" => named(all, names, "ConfigMap", text(source, "name")),
            "secret" => named(all, names, "Secret", text(source, "secretName")),
            "persistentVolumeClaim" => named(all, names, "claim", text(source, "claimName")),
            "hostPath" => _ = all.insert(format!("host path {}", text(source, "path").unwrap_or_default())),
            "projected" => list(source, "sources").for_each(|source| of_projection(source, names, all)),
            _ => _ = all.insert(format!("volume {} ({kind} {source})", name(volume))),
        }
    }
}

fn of_projection(source: &Value, names: Names, all: &mut Grants) {
    for (kind, source) in source.as_object().into_iter().flatten() {
        match kind.as_str() {
            "downwardAPI" => {}
            "configMap" => named(all, names, "ConfigMap", text(source, "name")),
            "secret" => named(all, names, "Secret", text(source, "name")),
            "serviceAccountToken" => {
                all.insert(format!("token for {}", text(source, "audience").unwrap_or("the API server")));
            }
            _ => _ = all.insert(format!("projection {kind} {source}")),
        }
    }
}

fn of_pod(spec: &Value, names: Names, all: &mut Grants) {
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[field] == true {
            all.insert(field.to_owned());
        }
    }
    if spec.get("hostUsers") != Some(&json!(false)) {
        all.insert("its node's users (hostUsers)".to_owned());
    }
    if let Some(node) = text(spec, "nodeName") {
        all.insert(format!("node {node}"));
    }
    all.insert(format!("service account {}", text(spec, "serviceAccountName").unwrap_or("default")));
    if spec.get("automountServiceAccountToken") != Some(&json!(false)) {
        all.insert("the service account's token (automountServiceAccountToken)".to_owned());
    }
    if let Some(class) = text(spec, "runtimeClassName") {
        all.insert(format!("runtime class {class}"));
    }
    for secret in list(spec, "imagePullSecrets") {
        named(all, names, "Secret", text(secret, "name"));
    }
    for claim in list(spec, "resourceClaims") {
        all.insert(format!("resource claim {claim}"));
    }
    let context = &spec["securityContext"];
    for sysctl in list(context, "sysctls") {
        all.insert(format!("sysctl {}={}", name(sysctl), text(sysctl, "value").unwrap_or_default()));
    }
    for group in list(context, "supplementalGroups").chain(context.get("fsGroup")) {
        all.insert(format!("group {group}"));
    }
}

/// What a container may do unless it says that it must not.
fn by_default(container: &str) -> [String; 3] {
    ["allowPrivilegeEscalation", "user root", "every system call (seccompProfile)"]
        .map(|right| format!("{right} in container {container}"))
}

fn of_container(container: &Value, pod: &Value, names: Names, all: &mut Grants) {
    let of = name(container);
    for variable in list(container, "env") {
        let from = &variable["valueFrom"];
        named(all, names, "Secret", text(&from["secretKeyRef"], "name"));
        named(all, names, "ConfigMap", text(&from["configMapKeyRef"], "name"));
    }
    for source in list(container, "envFrom") {
        named(all, names, "Secret", text(&source["secretRef"], "name"));
        named(all, names, "ConfigMap", text(&source["configMapRef"], "name"));
    }
    for port in list(container, "ports").filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0) {
        all.insert(format!("host port {port}"));
    }
    let own = &container["securityContext"];
    let effective = |field: &str| own.get(field).or_else(|| pod.get(field)).filter(|value| !value.is_null());
    let [escalation, root, calls] = by_default(of);
    if own["privileged"] == true {
        all.insert(format!("privileged container {of}"));
    }
    if own.get("allowPrivilegeEscalation") != Some(&json!(false)) {
        all.insert(escalation);
    }
    // A user's number that is not 0 is as good as a demand that it is not.
    let user = effective("runAsUser").and_then(Value::as_i64);
    if user == Some(0) || user.is_none() && effective("runAsNonRoot") != Some(&json!(true)) {
        all.insert(root);
    }
    for capability in list(&own["capabilities"], "add").filter_map(Value::as_str) {
        all.insert(format!("capability {capability} in container {of}"));
    }
    if text(own, "procMount").is_some_and(|mount| mount != "Default") {
        all.insert(format!("procMount in container {of}"));
    }
    match effective("seccompProfile") {
        Some(profile) if text(profile, "type") == Some("RuntimeDefault") => {}
        Some(profile) if text(profile, "type") == Some("Localhost") => {
            all.insert(format!("seccompProfile {profile} in container {of}"));
        }
        _ => _ = all.insert(calls),
    }
    if let Some(profile) = effective("appArmorProfile").filter(|it| text(it, "type") != Some("RuntimeDefault")) {
        all.insert(format!("appArmorProfile {profile} in container {of}"));
    }
    for options in ["seLinuxOptions", "windowsOptions"] {
        if let Some(said) = effective(options) {
            all.insert(format!("{options} {said} in container {of}"));
        }
    }
}

/// Capabilities that containers give up: capability, container.
fn dropped(template: &Value) -> impl Iterator<Item = (&str, &str)> {
    containers(template).flat_map(|container| {
        let all = list(&container["securityContext"]["capabilities"], "drop");
        all.filter_map(|capability| Some((capability.as_str()?, name(container))))
    })
}
