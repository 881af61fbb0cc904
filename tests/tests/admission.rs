//! What the API server takes as a Sandbox or a `SidetrackConfig`, from whom, and what it says of all else.

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};
use sidetrack_tests::{
    ApiServer,
    gate::{self, Need},
    kube::Kubectl,
    wait_for,
};

const NEEDS: &[Need] = &[Need::Lab, Need::Kubernetes];
/// Until definitions and policies count.
const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace on a server that knows the objects, and who may write them.
fn namespace(name: &str) -> Result<Option<Kubectl<'static>>> {
    static INSTALLED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    if !gate::open(NEEDS) {
        return Ok(None);
    }
    let server = ApiServer::shared()?;
    let installed = INSTALLED.get_or_init(|| install(&server.admin()).map_err(|error| format!("{error:#}")));
    installed.clone().map_err(anyhow::Error::msg)?;
    Ok(Some(server.namespace(name)?))
}

fn install(admin: &Kubectl<'_>) -> Result<()> {
    for directory in ["deploy/crd", "deploy/access"] {
        admin.run(&["apply", "--filename", &xtask::root().join(directory).to_string_lossy()])?;
    }
    admin.run(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
    let privileged = sandbox(
        "probe",
        &json!({"forks": [{"name": "a", "workload": ORDERS(), "patch": {"spec": {"hostPID": true}}}]}),
    );
    wait_for("the policy to count", PATIENCE, || {
        dry(admin, &privileged).is_ok_and(|said| said.contains("hostPID")).then_some(())
    })?;
    Ok(())
}

#[expect(non_snake_case, reason = "stands for a constant, which an object of JSON cannot be")]
fn ORDERS() -> Value {
    json!({"kind": "Deployment", "name": "orders"})
}

fn sandbox(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

/// A Sandbox with one fork of a workload that has these fields beside.
fn fork(fields: &Value) -> String {
    let mut fork = json!({"name": "orders", "workload": ORDERS()});
    if let (Some(all), Some(more)) = (fork.as_object_mut(), fields.as_object()) {
        all.extend(more.clone());
        all.retain(|_, value| !value.is_null());
    }
    sandbox("orders", &json!({"forks": [fork]}))
}

/// What is said of an object, of which nothing is stored.
fn dry(kubectl: &Kubectl<'_>, object: &str) -> Result<String> {
    let output = kubectl.attempt(&["create", "--dry-run=server", "--validate=strict", "--filename=-"], object)?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn taken(kubectl: &Kubectl<'_>, object: &str) -> Result<()> {
    let said = dry(kubectl, object)?;
    ensure!(said.contains("created (server dry run)"), "{object}\n{said}");
    Ok(())
}

fn refused(kubectl: &Kubectl<'_>, object: &str, because: &str) -> Result<()> {
    let said = dry(kubectl, object)?;
    ensure!(said.contains(because), "{object}\nis not refused because of {because:?}, but:\n{said}");
    Ok(())
}

#[test]
fn whatever_a_fork_may_say_is_taken() -> Result<()> {
    let Some(kubectl) = namespace("taken")? else { return Ok(()) };
    let template =
        json!({"metadata": {"labels": {"app": "new"}}, "spec": {"containers": [{"name": "app", "image": "new:1"}]}});
    for fields in [
        json!({}),
        json!({"workload": {"kind": "StatefulSet", "name": "orders-db.v2"}}),
        json!({"workload": {"kind": "Rollout", "name": "orders"}}),
        json!({"images": {"app": "registry.example/orders:pr-1234"}, "replicas": 2, "initContainers": "Skip"}),
        json!({"env": {"app": [{"name": "FEATURE", "value": "on"}, {"name": "EMPTY"}]}}),
        json!({"volumes": {"data": "Share", "cache": "ReadOnly"}, "services": ["orders", "orders-internal"]}),
        json!({"patch": {"spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "app", "resources": {"limits": {"cpu": "1"}}}]}}}),
        json!({"workload": null, "podSelector": {"matchLabels": {"app": "mock"}}, "services": ["payments"]}),
        json!({"workload": null, "services": ["payments"],
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["mock"]}, {"key": "old", "operator": "DoesNotExist"}]}}),
        json!({"workload": null, "template": template, "services": ["new"], "replicas": 3}),
    ] {
        taken(&kubectl, &fork(&fields))?;
    }
    let all = json!({
        "keys": ["pr-1234", "PR_1.x"], "ttl": "1h30m", "onUnreachable": "Baseline", "follow": "Always", "acceptPolicyGap": true,
        "forks": [{"name": "a", "workload": ORDERS()}, {"name": "b", "workload": {"kind": "StatefulSet", "name": "orders"}}],
    });
    taken(&kubectl, &sandbox("everything", &all))
}

#[test]
fn what_is_not_said_has_its_default_and_a_null_is_as_if_it_were_not_there() -> Result<()> {
    let Some(kubectl) = namespace("defaults")? else { return Ok(()) };
    let object = json!({
        "apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "orders"},
        "spec": {"keys": null, "ttl": null, "forks": [{"name": "orders", "workload": ORDERS(), "podSelector": null}]},
    });
    kubectl.apply(&object.to_string())?;
    let stored = kubectl.json(&["get", "sbx", "orders"])?;
    let expected =
        json!({"follow": "Never", "onUnreachable": "Fail", "forks": [{"name": "orders", "workload": ORDERS()}]});
    ensure!(stored["spec"] == expected, "{stored:#}");
    Ok(())
}

#[rstest]
#[case::none(json!({"workload": null}), "expected one of workload")]
#[case::two(json!({"podSelector": {"matchLabels": {"app": "mock"}}, "services": ["orders"]}), "expected one of workload")]
#[case::pods_of_no_service(json!({"workload": null, "podSelector": {"matchLabels": {"app": "mock"}}}), "name the Services")]
#[case::nothing_to_change(json!({"workload": null, "podSelector": {"matchLabels": {"app": "m"}}, "services": ["a"], "images": {"app": "x"}}), "there is none here")]
#[case::pods_of_others(json!({"workload": null, "podSelector": {"matchLabels": {"app": "m"}}, "services": ["a"], "replicas": 2}), "somebody else's")]
#[case::every_pod(json!({"workload": null, "podSelector": {}, "services": ["a"]}), "name at least one label")]
#[case::values(json!({"workload": null, "services": ["a"], "podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}), "In and NotIn need values")]
#[case::own_variables(json!({"env": {"app": [{"name": "SIDETRACK_KEY", "value": "x"}]}}), "are set by Sidetrack")]
#[case::twice_a_variable(json!({"env": {"app": [{"name": "A"}, {"name": "A"}]}}), "Duplicate value")]
#[case::name(json!({"name": "Orders"}), "forks[0].name")]
#[case::kind(json!({"workload": {"kind": "DaemonSet", "name": "orders"}}), "supported values: \"Deployment\", \"StatefulSet\", \"Rollout\"")]
#[case::replicas(json!({"replicas": 33}), "less than or equal to 32")]
#[case::no_replica(json!({"replicas": 0}), "greater than or equal to 1")]
#[case::volume(json!({"volumes": {"data": "Copy"}}), "supported values: \"Share\", \"ReadOnly\"")]
#[case::service(json!({"services": ["a", "a"]}), "Duplicate value")]
#[case::typo(json!({"image": {"app": "x"}}), "unknown field \"spec.forks[0].image\"")]
fn what_is_wrong_with_a_fork_is_said(#[case] fields: Value, #[case] because: &str) -> Result<()> {
    let Some(kubectl) = namespace("fork")? else { return Ok(()) };
    refused(&kubectl, &fork(&fields), because)
}

#[rstest]
#[case::no_fork(json!({"forks": []}), "should have at least 1 items")]
#[case::key(json!({"keys": ["pr 1"]}), "spec.keys[0]")]
#[case::long_key(json!({"keys": ["k".repeat(64)]}), "may not be more than 63")]
#[case::no_key(json!({"keys": []}), "should have at least 1 items")]
#[case::keys(json!({"keys": (0..17).map(|n| format!("k{n}")).collect::<Vec<_>>()}), "must have at most 16 items")]
#[case::twice_a_key(json!({"keys": ["a", "a"]}), "Duplicate value")]
#[case::no_duration(json!({"ttl": "2 hours"}), "spec.ttl")]
#[case::days(json!({"ttl": "2d"}), "spec.ttl")]
#[case::short(json!({"ttl": "10s"}), "expected a time of 1m to 8760h")]
#[case::long(json!({"ttl": "9000h"}), "expected a time of 1m to 8760h")]
#[case::unreachable(json!({"onUnreachable": "Ignore"}), "supported values: \"Fail\", \"Baseline\"")]
#[case::follow(json!({"follow": "Sometimes"}), "supported values: \"Never\", \"Always\"")]
#[case::one_workload(json!({"forks": [{"name": "a", "workload": ORDERS()}, {"name": "b", "workload": ORDERS()}]}), "two forks of one workload")]
#[case::one_name(json!({"forks": [{"name": "a", "workload": ORDERS()}, {"name": "a", "workload": {"kind": "Deployment", "name": "b"}}]}), "Duplicate value")]
#[case::many(json!({"forks": (0..17).map(|n| json!({"name": format!("f{n}"), "workload": {"kind": "Deployment", "name": format!("w{n}")}})).collect::<Vec<_>>()}), "must have at most 16 items")]
fn what_is_wrong_with_a_sandbox_is_said(#[case] fields: Value, #[case] because: &str) -> Result<()> {
    let Some(kubectl) = namespace("sandbox")? else { return Ok(()) };
    let mut spec = json!({"forks": [{"name": "orders", "workload": ORDERS()}]});
    if let (Some(all), Some(more)) = (spec.as_object_mut(), fields.as_object()) {
        all.extend(more.clone());
    }
    refused(&kubectl, &sandbox("orders", &spec), because)
}

#[test]
fn a_name_is_a_label_and_with_its_namespace_a_key() -> Result<()> {
    let Some(kubectl) = namespace("names")? else { return Ok(()) };
    let spec = json!({"forks": [{"name": "orders", "workload": ORDERS()}]});
    let keyed = json!({"keys": ["k"], "forks": spec["forks"]});
    let room = 62 - kubectl.namespace().len();
    taken(&kubectl, &sandbox(&"n".repeat(room), &spec))?;
    refused(&kubectl, &sandbox(&"n".repeat(room + 1), &spec), "name one in spec.keys")?;
    taken(&kubectl, &sandbox(&"n".repeat(63), &keyed))?;
    refused(&kubectl, &sandbox(&"n".repeat(64), &keyed), "give it at most 63 characters")
}

/// Of a patch and of a template alike.
#[rstest]
#[case::account(json!({"serviceAccountName": "admin"}), "has its baseline's service account")]
#[case::token(json!({"automountServiceAccountToken": true}), "has its baseline's service account")]
#[case::host_network(json!({"hostNetwork": true}), "namespaces of its node's")]
#[case::host_ipc(json!({"hostIPC": true}), "namespaces of its node's")]
#[case::host_path(json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/"}}]}), "no directory of its node's")]
#[case::node(json!({"nodeName": "n1"}), "scheduled as any pod is")]
#[case::privileged(json!({"containers": [{"name": "app", "securityContext": {"privileged": true}}]}), "has its baseline's privileges")]
#[case::escalation(json!({"initContainers": [{"name": "i", "securityContext": {"allowPrivilegeEscalation": true}}]}), "has its baseline's privileges")]
#[case::capability(json!({"containers": [{"name": "a"}, {"name": "b", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]}), "has its baseline's privileges")]
#[case::proc(json!({"containers": [{"name": "app", "securityContext": {"procMount": "Unmasked"}}]}), "has its baseline's privileges")]
#[case::host_port(json!({"containers": [{"name": "app", "ports": [{"containerPort": 80, "hostPort": 80}]}]}), "no port of its node's")]
fn a_fork_gets_no_right_that_its_baseline_has_not(#[case] pod: Value, #[case] because: &str) -> Result<()> {
    let Some(kubectl) = namespace("rights")? else { return Ok(()) };
    refused(&kubectl, &fork(&json!({"patch": {"spec": pod}})), because)?;
    refused(&kubectl, &fork(&json!({"workload": null, "services": ["new"], "template": {"spec": pod}})), because)
}

#[test]
fn what_takes_rights_away_is_taken() -> Result<()> {
    let Some(kubectl) = namespace("fewer")? else { return Ok(()) };
    let pod = json!({
        "hostNetwork": false, "securityContext": {"runAsNonRoot": true}, "volumes": [{"name": "a", "emptyDir": {}}],
        "containers": [{"name": "app", "ports": [{"containerPort": 80}],
            "securityContext": {"privileged": false, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    });
    taken(&kubectl, &fork(&json!({"patch": {"spec": pod}})))
}

#[test]
fn who_writes_a_sandbox_may_run_pods_there_himself() -> Result<()> {
    let Some(kubectl) = namespace("writers")? else { return Ok(()) };
    let object = fork(&json!({}));
    // `edit` has both; `writer` the Sandboxes alone; `view` reads them.
    kubectl.run(&["create", "rolebinding", "editor", "--clusterrole=edit", "--user=editor"])?;
    kubectl.run(&["create", "rolebinding", "viewer", "--clusterrole=view", "--user=viewer"])?;
    let verbs = "--verb=create,get,update,patch";
    kubectl.run(&["create", "role", "writer", verbs, "--resource=sandboxes.sidetrack.dev"])?;
    kubectl.run(&["create", "rolebinding", "writer", "--role=writer", "--user=writer"])?;
    let user = |name: &str| kubectl.as_user(name, &["developers"]);
    // No controller runs that would add up the roles of `edit` and `view`.
    for (role, of) in [("edit", "sidetrack-edit"), ("edit", "sidetrack-view"), ("view", "sidetrack-view")] {
        let labels = kubectl.json(&["get", "clusterrole", of])?["metadata"]["labels"].clone();
        ensure!(labels[format!("rbac.authorization.k8s.io/aggregate-to-{role}")] == "true", "{labels}");
        let name = format!("{role}-{of}");
        kubectl.run(&["create", "rolebinding", &name, &format!("--clusterrole={of}"), &format!("--user={role}or")])?;
    }
    kubectl.run(&["create", "rolebinding", "views", "--clusterrole=sidetrack-view", "--user=viewer"])?;
    let deploys = ["create", "role", "deployer", "--verb=create", "--resource=deployments.apps"];
    kubectl.run(&deploys)?;
    kubectl.run(&["create", "rolebinding", "deployer", "--role=deployer", "--user=editor"])?;
    wait_for("the roles to count", PATIENCE, || taken(&user("editor"), &object).ok())?;
    wait_for("the role of the other to count", PATIENCE, || {
        dry(&user("writer"), &object)
            .is_ok_and(|said| said.contains("ask for the right to create Deployments"))
            .then_some(())
    })?;
    refused(&user("viewer"), &object, "cannot create resource \"sandboxes\"")?;
    refused(&user("stranger"), &object, "cannot create resource \"sandboxes\"")?;
    kubectl.apply(&object)?;
    user("viewer").run(&["get", "sandbox", "orders"])?;
    ensure!(user("stranger").refused(&["get", "sandbox", "orders"])?.contains("Forbidden"));
    // Who may not run pods may not change what runs, and may label it.
    let other =
        json!({"spec": {"forks": [{"name": "orders", "workload": ORDERS(), "images": {"app": "other"}}]}}).to_string();
    let patch = ["patch", "sandbox", "orders", "--type=merge", "--patch", &other];
    ensure!(user("writer").refused(&patch)?.contains("ask for the right to create Deployments"));
    user("writer").run(&["label", "sandbox", "orders", "team=orders"])?;
    ensure!(user("editor").refused(&["get", "sidetrackconfigs"])?.contains("Forbidden"), "it is the cluster's");
    Ok(())
}

#[test]
fn what_becomes_of_a_sandbox_is_shown_in_columns() -> Result<()> {
    let Some(kubectl) = namespace("columns")? else { return Ok(()) };
    kubectl.apply(&fork(&json!({})))?;
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Because", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {
        "observedGeneration": 1, "keys": ["orders.columns"], "readyForks": "1/1", "expiresAt": "2026-01-01T02:00:00Z",
        "conditions": [condition("Ready", "True"), condition("Routed", "False")],
        "forks": [{"name": "orders", "services": ["orders"], "readyEndpoints": 1,
            "baseline": {"kind": "Deployment", "name": "orders", "revision": "5d8f"}}],
    }});
    kubectl.run(&["patch", "sbx", "orders", "--subresource=status", "--type=merge", "--patch", &status.to_string()])?;
    let shown = kubectl.run(&["get", "sidetrack"])?;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = shown.lines();
    ensure!(
        words(lines.next().context("a head")?) == ["NAME", "KEYS", "FORKS", "READY", "ROUTED", "EXPIRES", "AGE"],
        "{shown}"
    );
    let line = words(lines.next().context("a line")?);
    let cells = &line[1..6];
    ensure!(
        line[0].ends_with("/orders")
            && cells == ["[\"orders.columns\"]", "1/1", "True", "False", "2026-01-01T02:00:00Z"],
        "{shown}"
    );
    // Nobody changes what is wished by writing what has become of it.
    let stored = kubectl.json(&["get", "sandbox", "orders"])?;
    ensure!(stored["metadata"]["generation"] == 1 && stored["status"]["readyForks"] == "1/1", "{stored:#}");
    ensure!(kubectl.run(&["explain", "sandbox.spec.ttl"])?.contains("Go duration"));
    Ok(())
}

/// An agent's settings, as the API server takes them and as a file.
#[test]
fn the_cluster_takes_the_settings_that_an_agent_takes_as_a_file() -> Result<()> {
    let Some(kubectl) = namespace("settings")? else { return Ok(()) };
    let object = |name: &str, spec: &Value| {
        json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "SidetrackConfig", "metadata": {"name": name}, "spec": spec}).to_string()
    };
    for (spec, good) in [
        (json!({}), true),
        (json!({"carriers": ["baggage:sidetrack", "tracestate:a@b/c", "header:X-Key"]}), true),
        (json!({"carriers": []}), false),
        (json!({"carriers": ["cookie:key"]}), false),
        (json!({"carriers": ["header:a b"]}), false),
        (json!({"limits": {"connections": 256, "ringBufferBytes": 262_144, "heldBytes": 2_097_152}}), true),
        (
            json!({"limits": {"connections": 1_048_576, "ringBufferBytes": 268_435_456, "heldBytes": 1_073_741_824}}),
            true,
        ),
        (json!({"limits": {"connections": 255}}), false),
        (json!({"limits": {"connections": 1_048_577}}), false),
        (json!({"limits": {"ringBufferBytes": 300_000}}), false),
        (json!({"limits": {"ringBufferBytes": 131_072}}), false),
        (json!({"limits": {"heldBytes": 1}}), false),
        (
            json!({"dialTimeout": "10ms", "switchTimeout": "100ms", "parkedIdle": "1s", "endpointGrace": "1s", "drainTimeout": "1s", "maxStale": "3s"}),
            true,
        ),
        (
            json!({"dialTimeout": "30s", "switchTimeout": "1m", "parkedIdle": "1h", "endpointGrace": "24h", "drainTimeout": "24h", "maxStale": "24h"}),
            true,
        ),
        (json!({"dialTimeout": "9ms"}), false),
        (json!({"dialTimeout": "31s"}), false),
        (json!({"switchTimeout": "1m1s"}), false),
        (json!({"parkedIdle": "999ms"}), false),
        (json!({"endpointGrace": "25h"}), false),
        (json!({"drainTimeout": "0"}), false),
        (json!({"drainTimeout": "5"}), false),
        (json!({"maxStale": "2999ms"}), false),
        (json!({"maxStale": "25h"}), false),
        (json!({"defaultTtl": "1m", "maxTtl": "8760h"}), true),
        (json!({"defaultTtl": "59s"}), false),
        (json!({"maxTtl": "8761h"}), false),
        (json!({"speed": "fast"}), false),
    ] {
        let text = object("default", &spec);
        let said = dry(&kubectl, &text)?;
        ensure!(said.contains("created (server dry run)") == good, "{spec}: {said}");
        let file = sidetrack::config::parse(&text);
        ensure!(file.is_ok() == good, "{spec}: {file:?}");
    }
    refused(&kubectl, &object("other", &json!({})), "its name is default")
}
