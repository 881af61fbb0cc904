//! What a controller may do, and which of several does it.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sidetrack_tests::{ApiServer, lab::LAB_DIR, wait_for};

use crate::world::{PATIENCE, Shop, condition, controller, install, open, version};

/// What a ServiceAccount needs beside the roles that are installed.
fn account(server: &ApiServer) -> Result<String> {
    let system = server.admin().in_namespace("sidetrack-system");
    system.run(&["create", "serviceaccount", "controller"])?;
    let user = "--serviceaccount=sidetrack-system:controller";
    system.run(&[
        "create",
        "clusterrolebinding",
        "sidetrack-controller",
        "--clusterrole=sidetrack-controller",
        user,
    ])?;
    system.run(&["create", "rolebinding", "lease", "--clusterrole=sidetrack-controller-lease", user])?;
    let token = system.run(&["create", "token", "controller"])?;
    let mut config: Value = serde_json::from_str(&fs::read_to_string(server.kubeconfig())?)?;
    config["users"][0]["user"] = json!({"token": token.trim()});
    let file = format!("{LAB_DIR}/controller.conf");
    fs::write(&file, config.to_string())?;
    Ok(file)
}

#[test]
fn a_controller_works_where_it_is_let_and_another_takes_its_place() -> Result<()> {
    if !open() {
        return Ok(());
    }
    let server = ApiServer::start()?;
    install(&server)?;
    let file = account(&server)?;
    let shop = Shop::new(server.namespace("rights")?)?;
    let mut first = controller(&server, &file, "first")?;
    shop.sandbox("pr", &json!({"keys": ["pr-1"], "forks": [crate::world::orders(&json!({"patch": {"spec": {"terminationGracePeriodSeconds": 1}}}))]}))?;
    let said = shop.condition("pr", "Forked", "False", "Forbidden")?;
    ensure!(said.contains("RoleBinding to ClusterRole sidetrack-forks") && said.contains("is forbidden"), "{said}");
    let user = "--serviceaccount=sidetrack-system:controller";
    shop.kube.run(&["create", "rolebinding", "sidetrack", "--clusterrole=sidetrack-forks", user])?;
    shop.condition("pr", "Forked", "True", "Forked")?;
    let deployment = shop.copy("pr")?;
    shop.pod("pr-orders-1", &deployment, "10.99.7.2")?;
    shop.condition("pr", "Ready", "True", "Ready")?;
    shop.service("all-of-shop", &json!({"team.example/name": "shop"}), "10.99.7.9")?;
    shop.wait("another label", || {
        Ok((shop.get("pod", "pr-orders-1")?["metadata"]["labels"]["team.example/name"] != "shop").then_some(()))
    })?;
    shop.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "orders"},
        "spec": {"podSelector": {"matchLabels": {"app": "orders"}}, "policyTypes": ["Ingress"], "ingress": [{}]}}))?;
    shop.wait("a copy", || Ok(shop.made("networkpolicies", "pr")?.pop()))?;
    let lease = || -> Result<Value> {
        server.admin().in_namespace("sidetrack-system").json(&["get", "lease", "sidetrack-controller"])
    };
    ensure!(lease()?["spec"]["holderIdentity"] == "first");
    let events = shop.kube.run(&["get", "events", "--output=custom-columns=R:.reason"])?;
    ensure!(events.contains("Forbidden") && events.contains("Forked") && events.contains("Ready"), "{events}");

    // A second one waits, and takes over when the first is dead: with nothing to write.
    let second = controller(&server, &file, "second")?;
    let waits = || second.output().lines().iter().any(|line| line.contains("another controller leads")).then_some(());
    wait_for("the second to wait", PATIENCE, waits)?;
    let settled = |shop: &Shop<'_>| -> Result<Vec<String>> {
        let mut all = vec![version(&shop.get("sandbox", "pr")?).to_string()];
        for object in shop.made("deployments,networkpolicies", "pr")? {
            all.push(version(&object).to_string());
        }
        Ok(all)
    };
    shop.wait("both Services", || {
        let services = shop.get("sandbox", "pr")?["status"]["forks"][0]["services"].clone();
        Ok((services == json!(["all-of-shop", "orders"])).then_some(()))
    })?;
    let before = settled(&shop)?;
    first.kill9()?;
    wait_for("the second to lead", Duration::from_mins(1), || {
        lease().is_ok_and(|lease| lease["spec"]["holderIdentity"] == "second").then_some(())
    })?;
    shop.sandbox("other", &json!({"keys": ["other"], "forks": [crate::world::orders(&json!({}))]}))?;
    shop.condition("other", "Forked", "True", "Forked")?;
    ensure!(settled(&shop)? == before, "{before:?} {:?}", settled(&shop)?);

    // One that is told to stop lets go at once.
    let mut second = second;
    second.signal(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(second.wait(PATIENCE)?.success(), "{}", second.output().tail());
    ensure!(lease()?["spec"]["holderIdentity"].is_null(), "{:#}", lease()?);
    // What somebody deletes meanwhile stays until there is one again.
    shop.kube.run(&["delete", "sandbox", "pr", "--wait=false"])?;
    ensure!(condition(&shop.get("sandbox", "pr")?, "Forked")["status"] == "True");
    let _third = controller(&server, &file, "third")?;
    shop.wait("the Sandbox to go", || {
        let left = shop.kube.run(&["get", "sandbox", "pr", "--ignore-not-found"])?;
        Ok((left.is_empty() && shop.made("deployments", "pr")?.is_empty()).then_some(()))
    })
}
