//! `sidetrack apply`.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::world::{File, World, sandbox};

#[test]
fn a_file_with_several_documents_is_applied_and_applied_again() -> Result<()> {
    let Some(world) = World::new("several")? else { return Ok(()) };
    let text = format!("{}\n---\n{}\n---\n", sandbox("a"), sandbox("b"));
    let file = File::write("two.yaml", &text)?;
    let both = "sandbox.sidetrack.dev/a applied\nsandbox.sidetrack.dev/b applied\n";
    ensure!(world.me.say(&format!("apply -f {}", file.text()))?.well()? == both);
    let before = world.stored("a")?;
    ensure!(world.me.feed(&["apply", "-f", "-"], &text)?.well()? == both);
    // Nothing has changed.
    ensure!(world.stored("a")? == before);
    let list = world.me.feed(&["apply", "-f", "-", "-o", "json"], &text)?.json()?;
    ensure!(list["kind"] == "List" && list["items"][1]["metadata"]["name"] == "b", "{list:#}");
    // As a list shows them, they can be applied.
    let shown = world.me.say("list -o yaml")?.well()?;
    ensure!(world.me.feed(&["apply", "-f", "-"], &shown)?.well()? == both);
    Ok(())
}

#[test]
fn a_dry_run_stores_nothing() -> Result<()> {
    let Some(world) = World::new("dry-apply")? else { return Ok(()) };
    let said = world.me.feed(&["apply", "-f", "-", "--dry-run=server"], &sandbox("a").to_string())?.well()?;
    ensure!(said == "sandbox.sidetrack.dev/a applied (server dry run)\n", "{said}");
    ensure!(world.me.say("list -o name")?.well()?.is_empty());
    Ok(())
}

#[test]
fn what_the_definition_does_not_have_is_an_error_and_takes_no_other_along() -> Result<()> {
    let Some(world) = World::new("strict")? else { return Ok(()) };
    // Of several the API server names one, or more.
    let mut wrong = sandbox("wrong");
    wrong["spec"]["keyz"] = json!(["x"]);
    world.me.feed(&["apply", "-f", "-"], &wrong.to_string())?.failed(5, &["is not valid:\n", "spec.keyz: "])?;
    let mut wrong = sandbox("wrong");
    wrong["spec"]["forks"][0]["image"] = json!({"app": "x"});
    let said = world.me.feed(&["apply", "-f", "-"], &format!("{wrong}\n---\n{}", sandbox("right")))?;
    said.failed(5, &["sandbox wrong in namespace", "is not valid:\n", "image"])?;
    ensure!(said.out == "sandbox.sidetrack.dev/right applied\n", "{said:?}");
    let mut wrong = sandbox("wrong");
    wrong["spec"]["ttl"] = json!("2d");
    world.me.feed(&["apply", "-f", "-"], &wrong.to_string())?.failed(5, &["\n  spec.ttl: "])?;
    // What is no object is seen before anything is sent.
    let said = world.me.feed(&["apply", "-f", "-"], &format!("{}\n---\nkind: [", sandbox("first")))?;
    said.failed(1, &["standard input:"])?;
    let said = world.me.feed(&["apply", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")?;
    said.failed(1, &["document 1: kind \"ConfigMap\", expected Sandbox or SidetrackConfig"])?;
    world.me.say("apply -f /nowhere.yaml")?.failed(1, &["/nowhere.yaml: cannot be read"])?;
    ensure!(world.me.say("list -o name")?.well()? == "sandbox.sidetrack.dev/right\n");
    Ok(())
}

#[test]
fn what_earlier_commands_have_written_is_no_conflict_and_what_others_have_is() -> Result<()> {
    let Some(world) = World::new("conflict")? else { return Ok(()) };
    world.me.say("create pr --fork deploy/orders --ttl 1h")?.well()?;
    world.me.say("extend pr --ttl 3h")?.well()?;
    let mut wished = sandbox("pr");
    world.me.feed(&["apply", "-f", "-"], &wished.to_string())?.well()?;
    ensure!(world.stored("pr")?["spec"]["ttl"] == "2h");
    world.kube.run(&[
        "patch",
        "sandbox",
        "pr",
        "--type=merge",
        "--field-manager=argocd",
        "--patch",
        "{\"spec\":{\"ttl\":\"5h\"}}",
    ])?;
    wished["spec"]["ttl"] = json!("4h");
    let said = world.me.feed(&["apply", "-f", "-"], &wished.to_string())?;
    said.failed(5, &["fields that others have written:\n", ".spec.ttl", "argocd", "--force-conflicts"])?;
    ensure!(world.stored("pr")?["spec"]["ttl"] == "5h");
    world.me.feed(&["apply", "-f", "-", "--force-conflicts"], &wished.to_string())?.well()?;
    ensure!(world.stored("pr")?["spec"]["ttl"] == "4h");
    Ok(())
}

#[test]
fn an_object_says_its_namespace_and_the_command_may_not_say_another() -> Result<()> {
    let Some(world) = World::new("namespaces")? else { return Ok(()) };
    let Some(other) = World::new("elsewhere")? else { return Ok(()) };
    let mut object = sandbox("pr");
    object["metadata"]["namespace"] = json!(other.ns);
    world.me.feed(&["apply", "-f", "-", "-n", &world.ns], &object.to_string())?.failed(2, &["leave out -n"])?;
    world.me.feed(&["apply", "-f", "-"], &object.to_string())?.well()?;
    ensure!(other.stored("pr")?["spec"]["ttl"] == "2h");
    ensure!(world.me.say("list -o name")?.well()?.is_empty());
    Ok(())
}
