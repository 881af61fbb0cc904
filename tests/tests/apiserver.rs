//! The real API server of Kubernetes, alone: what other tests rely on.

use anyhow::{Context as _, Result, ensure};
use sidetrack_tests::{
    ApiServer, Lab,
    gate::{self, Need},
    wait_for,
};
use std::{fs, path::PathBuf, process::Command, thread, time::Duration};
use xtask::kubernetes::VERSION;

/// Needed by every test.
const NEEDS: &[Need] = &[Need::Lab, Need::Kubernetes];
const COLOURS: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: colours}, data: {sky: blue}}";

#[test]
fn it_is_ready_and_of_the_version_that_is_asked_for() -> Result<()> {
    if !gate::open(NEEDS) {
        return Ok(());
    }
    let server = ApiServer::shared()?;
    let versions = server.admin().json(&["version"])?;
    for side in ["clientVersion", "serverVersion"] {
        ensure!(versions[side]["gitVersion"] == format!("v{VERSION}"), "{versions:#}");
    }
    ensure!(server.kubectl(&["get", "--raw", "/readyz"])? == "ok");
    let service = server.admin().json(&["get", "service", "kubernetes"])?;
    ensure!(service["spec"]["clusterIP"] == "10.96.0.1", "{service:#}");
    Ok(())
}

#[test]
fn services_get_addresses_of_both_families() -> Result<()> {
    if !gate::open(NEEDS) {
        return Ok(());
    }
    let admin = ApiServer::shared()?.namespace("families")?;
    admin.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: orders}, \
         spec: {ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]}}",
    )?;
    let service = admin.json(&["get", "service", "orders"])?;
    let addresses = &service["spec"]["clusterIPs"];
    let begins = |index: usize, with: &str| addresses[index].as_str().is_some_and(|it| it.starts_with(with));
    ensure!(begins(0, "10.96.") && begins(1, "fd00:96::"), "{service:#}");
    Ok(())
}

#[test]
fn what_was_applied_survives_a_kill() -> Result<()> {
    if !gate::open(NEEDS) {
        return Ok(());
    }
    let mut server = ApiServer::start()?;
    server.admin().apply(COLOURS)?;
    let before = server.admin().json(&["get", "configmap", "colours"])?;
    server.stop()?;
    let said = server.admin().refused(&["get", "configmap", "colours"])?;
    ensure!(said.contains("refused"), "{said}");
    server.start_again()?;
    let after = server.admin().json(&["get", "configmap", "colours"])?;
    ensure!(after == before, "{before:#}\n{after:#}");
    ensure!(after["data"]["sky"] == "blue", "{after:#}");
    Ok(())
}

#[test]
fn a_user_may_do_what_his_role_says_and_nothing_else() -> Result<()> {
    if !gate::open(NEEDS) {
        return Ok(());
    }
    let admin = ApiServer::shared()?.namespace("rights")?;
    admin.apply(COLOURS)?;
    let user = admin.as_user("somebody", &["developers"]);
    let read = ["get", "configmap", "colours"];
    let said = user.refused(&read)?;
    ensure!(said.contains("Forbidden") && said.contains("somebody"), "{said}");

    admin.run(&["create", "role", "reader", "--verb=get", "--resource=configmaps"])?;
    admin.run(&["create", "rolebinding", "reader", "--role=reader", "--group=developers"])?;
    // The authorizer hears of a role by a watch of its own.
    wait_for("the role to count", Duration::from_secs(10), || user.run(&read).ok())?;
    ensure!(user.refused(&["delete", "configmap", "colours"])?.contains("Forbidden"));
    ensure!(admin.in_namespace("default").as_user("somebody", &["developers"]).refused(&read)?.contains("Forbidden"));
    ensure!(admin.as_user("somebody", &["others"]).refused(&read)?.contains("Forbidden"));
    Ok(())
}

#[test]
fn a_service_account_logs_in_by_its_token() -> Result<()> {
    if !gate::open(NEEDS) {
        return Ok(());
    }
    let admin = ApiServer::shared()?.namespace("accounts")?;
    admin.run(&["create", "serviceaccount", "agent"])?;
    let token = admin.run(&["create", "token", "agent"])?;
    // A token on the command line counts before the one of the administrator's kubeconfig.
    let who = admin.json(&["auth", "whoami", &format!("--token={}", token.trim())])?;
    let expected = format!("system:serviceaccount:{}:agent", admin.namespace());
    ensure!(who["status"]["userInfo"]["username"] == expected.as_str(), "{who:#}");
    Ok(())
}

#[test]
fn pods_of_its_lab_reach_it_by_its_addresses_and_its_service() -> Result<()> {
    if !gate::open(&[NEEDS, &[Need::Curl]].concat()) {
        return Ok(());
    }
    let lab = Lab::new("reach")?;
    let (control, client) = (lab.pod("control", 10)?, lab.pod("client", 11)?);
    let server = ApiServer::start_in(&control)?;
    let service = lab.service("kubernetes", 1, 443, &server.addresses())?;
    let authority = server.authority();
    for address in [server.addresses(), [service.v4, service.v6]].concat() {
        let url = format!("https://{address}/readyz");
        ensure!(client.curl(["--cacert", &authority.to_string_lossy(), &url])? == "ok", "{url}");
    }
    Ok(())
}

/// Whether a process is gone: one that nobody has waited for is as good as that.
fn is_gone(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| stat.contains(") Z ")) || !PathBuf::from(format!("/proc/{process}")).exists()
}

/// Which threads of the machine are in this namespace.
fn inhabitants(kind: &str, namespace: &PathBuf) -> Vec<PathBuf> {
    let threads = fs::read_dir("/proc").into_iter().flatten().flatten();
    let threads = threads.flat_map(|process| fs::read_dir(process.path().join("task")).into_iter().flatten().flatten());
    let inside = |thread: &PathBuf| fs::read_link(thread.join("ns").join(kind)).is_ok_and(|it| it == *namespace);
    threads.map(|thread| thread.path()).filter(inside).collect()
}

#[test]
fn a_test_that_panics_leaves_nothing() -> Result<()> {
    if !gate::open(NEEDS) {
        return Ok(());
    }
    let (sender, seen) = std::sync::mpsc::channel();
    let test = thread::spawn(move || -> Result<()> {
        let server = ApiServer::start()?;
        let own = |kind: &str| fs::read_link(format!("/proc/thread-self/ns/{kind}"));
        let net = server.pod().enter(|| own("net"))??;
        sender.send((server.processes(), net, own("mnt")?))?;
        panic!("as a test does that fails");
    });
    ensure!(test.join().is_err());
    let (processes, net, mnt) = seen.recv().context("it did not start")?;
    ensure!(processes.len() == 2 && processes.iter().all(|&process| is_gone(process)), "{processes:?}");
    for (kind, namespace) in [("net", net), ("mnt", mnt)] {
        // Threads that read what the processes said end by themselves, a moment after them.
        let empty = || inhabitants(kind, &namespace).is_empty().then_some(());
        wait_for(&format!("{} to be left", namespace.display()), Duration::from_secs(5), empty)?;
    }
    Ok(())
}

/// The shared one is never dropped.
#[test]
fn the_shared_one_ends_with_its_process() -> Result<()> {
    if !gate::open(NEEDS) {
        return Ok(());
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "it_is_ready_and_of_the_version_that_is_asked_for", "--nocapture"]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let (_, numbers) = said.split_once("processes ").context("it says which processes it has started")?;
    let numbers = numbers.lines().next().unwrap_or_default().split(" and ").map(str::parse);
    let processes = numbers.collect::<Result<Vec<u32>, _>>()?;
    ensure!(processes.len() == 2, "{said}");
    // The kernel kills them when their parent has ended, and does not wait for that.
    let gone = || processes.iter().all(|&process| is_gone(process)).then_some(());
    wait_for("API server and etcd to end", Duration::from_secs(10), gone)
}
