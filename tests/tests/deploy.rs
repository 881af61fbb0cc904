//! What `deploy/` installs: rendered, taken by a real API server, and no more than it has to be.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sidetrack_tests::{
    ApiServer,
    gate::{self, Need},
    kube::Kubectl,
    wait_for,
};

const NEEDS: &[Need] = &[Need::Lab, Need::Kubernetes];
/// All that the agent may do beside what anybody may.
const CAPABILITIES: [&str; 5] = ["BPF", "NET_ADMIN", "NET_RAW", "PERFMON", "SYS_ADMIN"];

/// kubectl in the namespace of all that is in one.
fn system(server: &ApiServer) -> Kubectl<'_> {
    server.admin().in_namespace("sidetrack-system")
}

/// The objects that a directory below `deploy/` renders to.
fn render(server: &ApiServer, directory: &str) -> Result<Vec<Value>> {
    let path = xtask::root().join("deploy").join(directory);
    let text = server.kubectl(&["kustomize", path.to_str().context("the project's path is no UTF-8")?])?;
    // kubectl reads YAML and writes JSON, without asking anybody.
    let words = ["create", "--dry-run=client", "--validate=false", "--output=json", "--filename=-"];
    let said = system(server).feed(&words, &text)?;
    let objects = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    let mut all = Vec::new();
    for object in objects {
        let object = object?;
        match object["items"].as_array() {
            Some(items) => all.extend(items.iter().cloned()),
            None => all.push(object),
        }
    }
    ensure!(!all.is_empty(), "{directory}: nothing");
    Ok(all)
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is).with_context(|| format!("there is no {kind} {name}"))
}

/// Names of the objects of a kind.
fn names(objects: &[Value], kind: &str) -> Vec<String> {
    let of_kind = objects.iter().filter(|object| object["kind"] == kind);
    let mut names: Vec<_> = of_kind.filter_map(|it| it["metadata"]["name"].as_str()).map(ToOwned::to_owned).collect();
    names.sort();
    names
}

/// An API server with the definitions, and with the namespace that objects are put into.
fn server() -> Result<Option<&'static ApiServer>> {
    if !gate::open(NEEDS) {
        return Ok(None);
    }
    let server = ApiServer::shared()?;
    let namespace = xtask::root().join("deploy/kustomize/base/system/namespace.yaml");
    system(server).apply(&std::fs::read_to_string(namespace)?)?;
    let definitions = xtask::root().join("deploy/crd");
    server.kubectl(&["apply", "--server-side", "--filename", &definitions.to_string_lossy()])?;
    server.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
    Ok(Some(server))
}

fn taken(server: &ApiServer, directory: &str) -> Result<Vec<Value>> {
    let path = xtask::root().join("deploy").join(directory);
    let text = server.kubectl(&["kustomize", &path.to_string_lossy()])?;
    system(server).feed(&["apply", "--dry-run=server", "--filename=-"], &text)?;
    render(server, directory)
}

#[test]
fn the_whole_of_it_is_taken_by_the_api_server() -> Result<()> {
    let Some(server) = server()? else { return Ok(()) };
    let objects = taken(server, "kustomize")?;
    ensure!(
        names(&objects, "CustomResourceDefinition") == ["sandboxes.sidetrack.dev", "sidetrackconfigs.sidetrack.dev"]
    );
    ensure!(names(&objects, "ValidatingAdmissionPolicy") == ["sandboxes.sidetrack.dev"]);
    find(&objects, "Deployment", "sidetrack-controller")?;
    let forks = find(&objects, "PriorityClass", "sidetrack-forks")?;
    ensure!(forks["preemptionPolicy"] == "Never" && forks["value"].as_i64() < Some(0), "{forks:#}");
    // What applies to the one for tests applies to it, too.
    ensure!(taken(server, "kustomize/overlays/test")?.len() == objects.len());
    Ok(())
}

#[test]
fn routes_from_a_file_need_no_right_and_no_definition() -> Result<()> {
    let Some(server) = server()? else { return Ok(()) };
    let objects = taken(server, "kustomize/overlays/routes-file")?;
    for kind in ["CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Deployment"] {
        ensure!(names(&objects, kind).is_empty(), "{:?}", names(&objects, kind));
    }
    let agent = &find(&objects, "DaemonSet", "sidetrack-agent")?["spec"]["template"]["spec"];
    ensure!(agent["automountServiceAccountToken"] == false, "{agent:#}");
    let routes = find(&objects, "ConfigMap", "sidetrack-routes")?;
    ensure!(routes["data"]["routes.yaml"].as_str().is_some_and(|it| it.contains("kind: RouteTable")), "{routes:#}");
    Ok(())
}

#[test]
fn the_agent_has_five_capabilities_and_nothing_of_its_node_but_two_directories() -> Result<()> {
    let Some(server) = server()? else { return Ok(()) };
    let objects = render(server, "kustomize")?;
    let set = find(&objects, "DaemonSet", "sidetrack-agent")?;
    let pod = &set["spec"]["template"]["spec"];
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        ensure!(pod[shared].is_null(), "{shared}");
    }
    ensure!(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "{pod:#}");
    let containers = pod["containers"].as_array().context("containers")?;
    ensure!(containers.len() == 1 && pod["initContainers"].is_null());
    let rights = &containers[0]["securityContext"];
    ensure!(rights["privileged"].is_null() && rights["allowPrivilegeEscalation"] == false, "{rights:#}");
    ensure!(rights["readOnlyRootFilesystem"] == true, "{rights:#}");
    let mut added: Vec<_> =
        rights["capabilities"]["add"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    added.sort_unstable();
    ensure!(added == CAPABILITIES && rights["capabilities"]["drop"][0] == "ALL", "{rights:#}");
    let volumes = pod["volumes"].as_array().context("volumes")?;
    let of_others = |volume: &&Value| volume["projected"].is_null();
    let mut paths: Vec<_> =
        volumes.iter().filter(of_others).map(|volume| volume["hostPath"]["path"].as_str()).collect();
    paths.sort_unstable();
    ensure!(paths == [Some("/run/netns"), Some("/sys/fs/bpf")], "{paths:?}");
    for mount in containers[0]["volumeMounts"].as_array().context("mounts")? {
        // AppArmor's default profile for containers forbids writing there.
        ensure!(!mount["mountPath"].as_str().unwrap_or("/sys").starts_with("/sys"), "{mount:#}");
    }
    Ok(())
}

#[test]
fn a_rollout_ends_the_agent_of_a_node_before_it_starts_the_next() -> Result<()> {
    let Some(server) = server()? else { return Ok(()) };
    let objects = render(server, "kustomize")?;
    let set = find(&objects, "DaemonSet", "sidetrack-agent")?;
    let rolling = &set["spec"]["updateStrategy"]["rollingUpdate"];
    // A successor that is started beside the old agent waits for its lock and is not ready: the rollout would never go on.
    ensure!(rolling["maxUnavailable"] == "10%", "{rolling:#}");
    ensure!(rolling["maxSurge"].is_null() || rolling["maxSurge"] == 0, "{rolling:#}");
    Ok(())
}

#[test]
fn the_controller_has_no_privilege_at_all() -> Result<()> {
    let Some(server) = server()? else { return Ok(()) };
    let objects = render(server, "kustomize")?;
    let controller = find(&objects, "Deployment", "sidetrack-controller")?;
    ensure!(controller["spec"]["replicas"] == 2);
    let pod = &controller["spec"]["template"];
    // What the strictest Pod Security level takes: a namespace that enforces it takes such a pod.
    let restricted = server.namespace("restricted")?;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    server.kubectl(&["label", "namespace", restricted.namespace(), level])?;
    restricted.run(&["create", "serviceaccount", "sidetrack-controller"])?;
    let mut one = pod.clone();
    (one["apiVersion"], one["kind"]) = ("v1".into(), "Pod".into());
    one["metadata"]["name"] = "controller".into();
    restricted.feed(&["create", "--dry-run=server", "--filename=-"], &one.to_string())?;
    Ok(())
}

#[test]
fn an_agents_account_may_read_what_routes_depend_on_and_nothing_else() -> Result<()> {
    let Some(server) = server()? else { return Ok(()) };
    system(server).apply(&std::fs::read_to_string(xtask::root().join("deploy/kustomize/base/agent/access.yaml"))?)?;
    let agent = server.as_user("system:serviceaccount:sidetrack-system:sidetrack-agent", &["system:serviceaccounts"]);
    let may = |verb: &str, what: &str| {
        let answer = agent.attempt(&["auth", "can-i", verb, what, "--all-namespaces"], "")?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&answer.stdout).trim() == "yes")
    };
    // The authorizer hears of a role by a watch of its own.
    let known = || may("watch", "pods").is_ok_and(|may| may).then_some(());
    wait_for("the role to count", Duration::from_secs(10), known)?;
    for what in ["sandboxes.sidetrack.dev", "services", "endpointslices.discovery.k8s.io", "pods"] {
        ensure!(may("list", what)? && may("watch", what)?, "{what}");
        for verb in ["get", "create", "update", "patch", "delete"] {
            ensure!(!may(verb, what)?, "{verb} {what}");
        }
    }
    for what in ["secrets", "configmaps", "nodes", "deployments.apps", "sidetrackconfigs.sidetrack.dev"] {
        ensure!(!may("list", what)? && !may("get", what)?, "{what}");
    }
    Ok(())
}

/// Its kind is `OpenShift`'s own: no other API server takes it.
#[test]
fn openshift_is_asked_for_what_the_agent_has_and_nothing_else() -> Result<()> {
    let component = xtask::root().join("deploy/kustomize/components/openshift");
    let text = std::fs::read_to_string(component.join("scc.yaml"))?;
    ensure!(text.contains(&format!(
        "allowedCapabilities: [{}]",
        ["BPF", "NET_ADMIN", "PERFMON", "NET_RAW", "SYS_ADMIN"].join(", ")
    )));
    for refused in ["PrivilegedContainer", "HostNetwork", "HostPID", "HostIPC", "HostPorts", "PrivilegeEscalation"] {
        ensure!(text.contains(&format!("allow{refused}: false\n")), "{refused}");
    }
    Ok(())
}
