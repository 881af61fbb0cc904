//! What is copied, and what is refused.

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{condition, orders, shop, template};

#[test]
fn a_patch_makes_of_the_copy_what_kubectl_makes_of_the_baseline() -> Result<()> {
    let Some(shop) = shop("patch")? else { return Ok(()) };
    let mut rich = template();
    rich["spec"]["containers"] = json!([rich["spec"]["containers"][0],
        {"name": "side", "image": "side:1", "args": ["a", "b"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]);
    rich["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]);
    rich["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    shop.workload("Deployment", "orders", &json!({"template": rich}))?;
    let patch = json!({"metadata": {"annotations": {"note": "patched"}}, "spec": {
        "terminationGracePeriodSeconds": 5, "nodeSelector": {"disk": "ssd"},
        "containers": [
            {"name": "side", "args": ["c"], "volumeMounts": [{"mountPath": "/w", "name": "w"}]},
            {"name": "app", "env": [{"name": "COLOUR", "$patch": "delete"}, {"name": "SHAPE", "value": "round"}], "resources": {"limits": {"cpu": "1"}}}],
        "$setElementOrder/containers": [{"name": "side"}, {"name": "app"}],
        "volumes": [{"name": "x", "emptyDir": {"medium": "Memory"}}],
        "tolerations": [{"key": "b", "operator": "Exists"}], "dnsPolicy": null}});
    let whole = json!({"spec": {"template": patch}}).to_string();
    let words = ["patch", "deployment", "orders", "--dry-run=server", "--type=strategic", "--patch", &whole];
    let mut expected = shop.kube.json(&words)?["spec"]["template"].clone();
    shop.fork(&json!({"patch": patch}))?;
    let mut made = shop.copy("pr")?["spec"]["template"].clone();
    ensure!(made["metadata"]["annotations"]["note"] == "patched", "{made:#}");
    // What Sidetrack itself changes: labels, and two variables behind all others.
    for container in made["spec"]["containers"].as_array_mut().context("containers")? {
        let env = container["env"].as_array_mut().context("variables")?;
        env.retain(|variable| !variable["name"].as_str().is_some_and(|name| name.starts_with("SIDETRACK_")));
        if env.is_empty() {
            container.as_object_mut().context("an object")?.remove("env");
        }
    }
    for template in [&mut made, &mut expected] {
        template["metadata"] = json!({"annotations": template["metadata"]["annotations"]});
    }
    ensure!(made == expected, "{made:#}\n{expected:#}");
    let baseline = shop.get("deployment", "orders")?;
    ensure!(baseline["metadata"]["generation"] == 2, "nothing of the patch is kept: {baseline:#}");
    Ok(())
}

#[rstest]
#[case::workload(json!({"workload": {"kind": "Deployment", "name": "order"}}), "BaselineMissing", "there is no Deployment order")]
#[case::image(json!({"images": {"ap": "x"}}), "UnknownContainer", "images names container ap, there is app")]
#[case::patched_container(json!({"patch": {"spec": {"containers": [{"name": "ap", "image": "x"}]}}}), "UnknownContainer", "patch.spec.containers")]
#[case::volume(json!({"volumes": {"data": "Share"}}), "UnknownVolume", "volumes names data")]
#[case::secret(json!({"patch": {"spec": {"volumes": [{"name": "s", "secret": {"secretName": "bank"}}]}}}), "MoreThanBaseline", "Secret bank")]
#[case::claim(json!({"patch": {"spec": {"volumes": [{"name": "s", "persistentVolumeClaim": {"claimName": "db"}}]}}}), "MoreThanBaseline", "claim db")]
#[case::label(json!({"patch": {"metadata": {"labels": {"sidetrack.dev/fork": "x"}}}}), "PatchRefused", "set by Sidetrack")]
#[case::nonsense(json!({"patch": {"spec": {"containers": [{"name": "app", "imagePullPolicy": "Sometimes"}]}}}), "PatchRefused", "imagePullPolicy")]
#[case::form(json!({"patch": {"spec": {"tolerations": "none"}}}), "PatchRefused", "patch:")]
fn what_cannot_be_copied_is_said_and_nothing_runs(
    #[case] fork: Value,
    #[case] reason: &str,
    #[case] words: &str,
) -> Result<()> {
    let Some(shop) = shop("refused")? else { return Ok(()) };
    shop.fork(&fork)?;
    let said = shop.condition("pr", "Forked", "False", reason)?;
    ensure!(said.starts_with("fork orders: ") && said.contains(words), "{said}");
    ensure!(shop.made("deployments", "pr")?.is_empty());
    // It is put right, and made.
    shop.kube.run(&["delete", "sandbox", "pr", "--timeout=30s"])?;
    shop.fork(&json!({}))?;
    shop.condition("pr", "Forked", "True", "Forked").map(drop)
}

#[test]
fn a_change_that_cannot_be_made_leaves_the_fork_as_it_is() -> Result<()> {
    let Some(shop) = shop("kept")? else { return Ok(()) };
    let before = shop.ready(&json!({}))?;
    shop.fork(&json!({"images": {"ap": "x"}}))?;
    shop.condition("pr", "Forked", "False", "UnknownContainer")?;
    let sandbox = shop.get("sandbox", "pr")?;
    ensure!(
        condition(&sandbox, "Ready")["status"] == "True"
            && sandbox["status"]["forks"][0]["services"] == json!(["orders"]),
        "{sandbox:#}"
    );
    ensure!(shop.copy("pr")?["spec"]["template"] == before["spec"]["template"]);
    Ok(())
}

#[test]
fn a_stateful_set_is_forked_as_a_deployment_with_empty_volumes() -> Result<()> {
    let Some(shop) = shop("stateful")? else { return Ok(()) };
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let pod = json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [
        {"name": "app", "image": "db:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}});
    shop.workload(
        "StatefulSet",
        "db",
        &json!({"serviceName": "db", "template": pod, "volumeClaimTemplates": [claim]}),
    )?;
    shop.service("db", &json!({"app": "db"}), "10.99.7.5")?;
    let fork = json!({"name": "db", "workload": {"kind": "StatefulSet", "name": "db"}, "patch": {"spec": {"terminationGracePeriodSeconds": 1}}});
    shop.sandbox("pr", &json!({"forks": [fork]}))?;
    let spec = shop.copy("pr")?["spec"]["template"]["spec"].clone();
    ensure!(spec["volumes"] == json!([{"name": "data", "emptyDir": {}}]), "{spec:#}");
    ensure!(spec["terminationGracePeriodSeconds"] == 1, "{spec:#}");
    let said = shop.condition("pr", "Hazards", "True", "Seen")?;
    ensure!(said.contains("volume data is empty"), "{said}");
    Ok(())
}

#[test]
fn a_rollout_is_forked_as_soon_as_there_are_any() -> Result<()> {
    let Some(shop) = shop("rollout")? else { return Ok(()) };
    let fork = json!({"name": "web", "workload": {"kind": "Rollout", "name": "web"}, "images": {"app": "web:pr"},
        "patch": {"spec": {"terminationGracePeriodSeconds": 1}}});
    shop.sandbox("pr", &json!({"forks": [fork]}))?;
    shop.condition("pr", "Forked", "False", "NoRollouts")?;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    shop.apply(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "rollouts.argoproj.io"},
        "spec": {"group": "argoproj.io", "scope": "Namespaced", "names": {"plural": "rollouts", "singular": "rollout", "kind": "Rollout"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}}))?;
    shop.kube.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd/rollouts.argoproj.io"])?;
    shop.condition("pr", "Forked", "False", "BaselineMissing")?;
    let pod =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}});
    shop.apply(&json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": pod}}))?;
    let spec = shop.copy("pr")?["spec"]["template"]["spec"].clone();
    ensure!(spec["containers"][0]["image"] == "web:pr" && spec["terminationGracePeriodSeconds"] == 1, "{spec:#}");
    Ok(())
}

#[test]
fn a_new_service_needs_no_baseline() -> Result<()> {
    let Some(shop) = shop("new")? else { return Ok(()) };
    shop.service("new", &json!({"app": "new"}), "10.99.7.5")?;
    let pod = json!({"metadata": {"labels": {"app": "new"}}, "spec": {"containers": [{"name": "app", "image": "new:1",
        "ports": [{"name": "http", "containerPort": 8080}]}]}});
    shop.sandbox("pr", &json!({"forks": [{"name": "new", "template": pod, "services": ["new"]}]}))?;
    let deployment = shop.copy("pr")?;
    ensure!(deployment["spec"]["template"]["metadata"]["labels"]["app"] != "new", "{deployment:#}");
    shop.pod("new-1", &deployment, "10.99.7.2")?;
    shop.condition("pr", "Ready", "True", "Ready").map(drop)
}

#[test]
fn pods_that_serve_the_baseline_are_no_fork() -> Result<()> {
    let Some(shop) = shop("selected")? else { return Ok(()) };
    let mocks = json!({"metadata": {"labels": {"app": "mock"}}, "spec": {"containers": [{"name": "app", "image": "mock:1",
        "ports": [{"name": "http", "containerPort": 8080}]}]}});
    let like = json!({"spec": {"template": mocks}});
    // The address of the baseline's own endpoint.
    shop.pod("mock-1", &like, "10.99.7.1")?;
    let fork = json!({"name": "mocks", "podSelector": {"matchLabels": {"app": "mock"}}, "services": ["orders"]});
    shop.sandbox("pr", &json!({"forks": [fork]}))?;
    let said = shop.condition("pr", "Forked", "False", "PodsAreBaseline")?;
    ensure!(said.contains("endpoints of service orders"), "{said}");
    shop.pod("mock-2", &like, "10.99.7.3")?;
    shop.condition("pr", "Ready", "True", "Ready")?;
    shop.condition("pr", "Forked", "True", "Forked")?;
    ensure!(shop.made("deployments", "pr")?.is_empty());
    let endpoints = shop.get("sandbox", "pr")?["status"]["forks"][0]["readyEndpoints"].clone();
    ensure!(endpoints == 1, "{endpoints}");
    Ok(())
}

#[test]
fn network_policies_of_the_baseline_are_copied_and_go_with_their_original() -> Result<()> {
    let Some(shop) = shop("policies")? else { return Ok(()) };
    let policy = |port: u16| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "orders"},
            "spec": {"podSelector": {"matchLabels": {"app": "orders"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": port, "protocol": "TCP"}]}]}})
    };
    shop.apply(&policy(8080))?;
    shop.fork(&json!({}))?;
    let port = |wanted: u16| {
        shop.wait("a copy", || {
            let copy = shop.made("networkpolicies", "pr")?.pop();
            Ok(copy.filter(|copy| copy["spec"]["ingress"][0]["ports"][0]["port"] == wanted))
        })
    };
    let copy = port(8080)?;
    let labels = shop.copy("pr")?["spec"]["selector"]["matchLabels"].clone();
    ensure!(copy["spec"]["podSelector"]["matchLabels"] == labels, "{copy:#}");
    shop.apply(&policy(9090))?;
    port(9090)?;
    shop.kube.run(&["delete", "networkpolicy", "orders"])?;
    shop.wait("no copy", || Ok(shop.made("networkpolicies", "pr")?.is_empty().then_some(())))
}

#[test]
fn a_fork_that_may_be_elected_a_leader_is_a_hazard() -> Result<()> {
    let Some(shop) = shop("leader")? else { return Ok(()) };
    shop.kube.run(&["create", "role", "leader", "--verb=update", "--resource=leases"])?;
    let account = format!("--serviceaccount={}:default", shop.kube.namespace());
    shop.kube.run(&["create", "rolebinding", "leader", "--role=leader", &account])?;
    let may = || -> Result<Option<()>> {
        let user = format!("--as=system:serviceaccount:{}:default", shop.kube.namespace());
        let said = shop.kube.attempt(&["auth", "can-i", "update", "leases", &user], "")?;
        Ok(said.status.success().then_some(()))
    };
    shop.wait("the role to count", may)?;
    shop.fork(&json!({}))?;
    let said = shop.condition("pr", "Hazards", "True", "Seen")?;
    ensure!(said.contains("may write Leases"), "{said}");
    Ok(())
}

#[test]
fn nothing_is_forked_in_the_clusters_own_namespaces() -> Result<()> {
    let Some(mut shop) = shop("excluded")? else { return Ok(()) };
    shop.kube = shop.kube.in_namespace("kube-public");
    shop.sandbox("pr", &json!({"forks": [orders(&json!({}))]}))?;
    shop.condition("pr", "Forked", "False", "NamespaceExcluded")?;
    shop.kube.run(&["delete", "sandbox", "pr", "--timeout=30s"]).map(drop)
}
