//! What is said where a command cannot be carried out: no right, no Sidetrack, no server, no kubeconfig.

use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_tests::{ApiServer, wait_for};

use crate::world::{CommandLine, File, PATIENCE, World, open, sandbox};

#[rstest]
#[case::list("list", "list", "sandboxes", "view")]
#[case::list_all("list -A", "list", "sandboxes", "view")]
#[case::get("get pr", "get", "sandboxes", "view")]
#[case::create("create pr --fork deploy/orders", "create", "sandboxes", "edit")]
#[case::extend("extend pr --ttl 1h", "patch", "sandboxes", "edit")]
#[case::delete("delete pr", "delete", "sandboxes", "edit")]
#[case::wait("wait pr --for ready", "list", "sandboxes", "view")]
#[case::look("create pr --fork deploy/orders --image orders:2", "get", "deployments", "view")]
fn who_may_not_is_told_which_right_is_missing_and_who_has_it(
    #[case] line: &str,
    #[case] verb: &str,
    #[case] resource: &str,
    #[case] role: &str,
) -> Result<()> {
    let Some(world) = World::new("rights")? else { return Ok(()) };
    let right = format!("User \"stranger\" cannot {verb} resource \"{resource}\"");
    let said = world.somebody("stranger")?.say(line)?;
    said.failed(5, &["not allowed: ", &right, &format!("whoever has the role {role} in ")])?;
    ensure!(said.err.lines().count() == 1, "{said:?}");
    Ok(())
}

#[test]
fn a_policys_refusal_is_said_in_its_words() -> Result<()> {
    let Some(world) = World::new("policy")? else { return Ok(()) };
    let verbs = "--verb=create,get,patch";
    world.kube.run(&["create", "role", "writer", verbs, "--resource=sandboxes.sidetrack.dev"])?;
    world.kube.run(&["create", "rolebinding", "writer", "--role=writer", "--user=writer"])?;
    let user = world.somebody("writer")?;
    let said = wait_for("role and policy to count", PATIENCE, || {
        user.say("create pr --fork deploy/orders --dry-run=server").ok().filter(|said| said.err.contains("policy"))
    })?;
    said.failed(5, &["is refused by the policy sandboxes.sidetrack.dev: ", "ask for the right to create Deployments"])?;
    let said = user.feed(&["apply", "-f", "-"], &sandbox("pr").to_string())?;
    said.failed(5, &["is refused by the policy sandboxes.sidetrack.dev: "])
}

#[test]
fn a_cluster_without_sidetrack_and_a_server_that_is_away_are_told_apart() -> Result<()> {
    if !open() {
        return Ok(());
    }
    let mut server = ApiServer::start()?;
    let address = format!("https://{}", server.addresses()[0]);
    {
        let me = CommandLine::new(&server, "default", None)?;
        for line in ["list", "get pr", "create pr --fork deploy/orders", "delete pr", "wait pr --for ready", "key pr"] {
            let said = me.say(line)?;
            said.failed(5, &[&format!("the cluster at {address} has no Sandboxes: Sidetrack is not installed there")])?;
        }
        me.feed(&["apply", "-f", "-"], &sandbox("pr").to_string())?.failed(5, &["Sidetrack is not installed there"])?;
    }
    server.stop()?;
    let me = CommandLine::new(&server, "default", None)?;
    for line in ["list", "wait pr --for ready --timeout 30s"] {
        me.say(line)?.failed(1, &[&format!("the API server at {address} does not answer: Connection refused")])?;
    }
    Ok(())
}

#[test]
fn a_kubeconfig_that_cannot_be_used_says_why() -> Result<()> {
    let Some(world) = World::new("config")? else { return Ok(()) };
    world.me.say("list --context nope")?.failed(1, &["the kubeconfig that KUBECONFIG names cannot be used", "nope"])?;
    world.me.say("list --kubeconfig /nowhere")?.failed(1, &["the kubeconfig /nowhere cannot be used"])?;
    let mut command = world.me.command(&["list"]);
    command.env_remove("KUBECONFIG").env("HOME", "/nowhere");
    world
        .me
        .run(command, "")?
        .failed(1, &["nothing says which cluster is meant: name its kubeconfig by --kubeconfig"])?;
    // Who shows only an object asks nobody.
    let mut command = world.me.command(&["create", "pr", "--fork", "deploy/a", "--dry-run=client", "-o", "json"]);
    command.env_remove("KUBECONFIG").env("HOME", "/nowhere");
    let object = world.me.run(command, "")?.json()?;
    ensure!(object["metadata"] == serde_json::json!({"name": "pr"}), "{object:#}");
    let text = std::fs::read_to_string(world.me.kubeconfig.path())?.replace("token-of-admin", "forged");
    let forged = File::write("forged", &text)?;
    world.me.say(&format!("list --kubeconfig {}", forged.text()))?.failed(5, &["does not know who asks"])
}

#[test]
fn the_namespace_is_that_of_the_context_or_the_one_that_is_named() -> Result<()> {
    let Some(world) = World::new("context")? else { return Ok(()) };
    let Some(other) = World::new("named")? else { return Ok(()) };
    world.sandbox()?;
    ensure!(world.me.say("list -o name")?.well()? == "sandbox.sidetrack.dev/pr\n");
    ensure!(other.me.say("list -o name")?.well()?.is_empty());
    ensure!(other.me.say(&format!("list -o name -n {}", world.ns))?.well()? == "sandbox.sidetrack.dev/pr\n");
    let file = world.me.kubeconfig.text();
    ensure!(
        other.me.say(&format!("list -o name --kubeconfig {file} --context lab"))?.well()?
            == "sandbox.sidetrack.dev/pr\n"
    );
    Ok(())
}
