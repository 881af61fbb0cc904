//! What the forks' pods say, line by line.

use std::io::Write;

use futures::{AsyncBufReadExt as _, io::AsyncBufRead};
use kube::{ResourceExt as _, api::LogParams};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Failure, Server,
    pods::{self, ForkPod},
};

/// Lines that wait to be written; beyond, pods wait.
const WAITING: usize = 256;

/// A container whose lines are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its pod.
    pub pod: String,
    /// Its name.
    pub container: String,
}

/// The containers that are meant, of pods that a node runs: this one of each pod that has it, or all that are no init containers.
#[must_use]
pub fn sources(all: &[ForkPod], only: Option<&str>) -> Vec<Source> {
    let mut sources = Vec::new();
    for ForkPod { pod, .. } in all.iter().filter(|one| pods::is_placed(&one.pod)) {
        let Some(spec) = &pod.spec else { continue };
        let init = spec.init_containers.iter().flatten().filter(|_| only.is_some());
        let containers = spec.containers.iter().chain(init);
        let meant = containers.filter(|container| only.is_none_or(|only| container.name == only));
        sources.extend(meant.map(|container| Source { pod: pod.name_any(), container: container.name.clone() }));
    }
    sources
}

/// Writes the lines of all sources, each with its source before it: one source behind the other, or, where they are followed, as they
/// come. What cannot be read takes no other along.
pub async fn copy(
    server: &Server,
    sources: Vec<Source>,
    params: &LogParams,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (tell, mut hear) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    // One task for each, or one for all.
    let each = if params.follow { 1 } else { sources.len().max(1) };
    for some in sources.chunks(each) {
        let (server, some, params, tell) = (server.clone(), some.to_vec(), params.clone(), tell.clone());
        tasks.spawn(async move {
            let mut failures = Vec::new();
            for source in some {
                failures.extend(read(&server, &source, &params, &tell).await.err());
            }
            failures
        });
    }
    drop(tell);
    while let Some(line) = hear.recv().await {
        let line: Vec<u8> = line;
        out.write_all(&line)?;
        // Whoever follows reads each line when it comes.
        if hear.is_empty() {
            out.flush()?;
        }
    }
    let failures: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    if failures.is_empty() { Ok(()) } else { Err(Failure::Several(failures)) }
}

/// Reads a source to its end.
async fn read(server: &Server, source: &Source, params: &LogParams, to: &mpsc::Sender<Vec<u8>>) -> Result<(), Failure> {
    let asked = || server.asked("get", &format!("log of container {} of pod", source.container), Some(&source.pod));
    let params = LogParams { container: Some(source.container.clone()), ..params.clone() };
    let pods = server.pods_api();
    let lines = server.answer(asked(), pods.log_stream(&source.pod, &params)).await?;
    copy_lines(lines, &format!("[pod/{}/{}] ", source.pod, source.container), to)
        .await
        .map_err(|error| server.failed(kube::Error::ReadEvents(error), asked()))
}

/// Hands each line on with a text before it, the last one with its end. It stops when nobody wants any.
async fn copy_lines(lines: impl AsyncBufRead, before: &str, to: &mpsc::Sender<Vec<u8>>) -> std::io::Result<()> {
    let mut lines = std::pin::pin!(lines);
    loop {
        let mut line = before.as_bytes().to_vec();
        if lines.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        if to.send(line).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str) -> ForkPod {
        let container = |name: &str| json!({"name": name});
        let containers = [container("app"), container("proxy")];
        let spec = json!({"nodeName": "n1", "containers": containers, "initContainers": [container("migrate")]});
        let pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a pod");
        ForkPod { fork: "orders".into(), pod }
    }

    #[test]
    fn all_containers_are_meant_but_init_containers_unless_one_is_named() {
        let pods = [pod("a"), pod("b")];
        let of = |only| {
            sources(&pods, only).into_iter().map(|it| format!("{}/{}", it.pod, it.container)).collect::<Vec<_>>()
        };
        assert_eq!(of(None), ["a/app", "a/proxy", "b/app", "b/proxy"]);
        assert_eq!(of(Some("proxy")), ["a/proxy", "b/proxy"]);
        assert_eq!(of(Some("migrate")), ["a/migrate", "b/migrate"]);
        assert!(of(Some("other")).is_empty());
        let mut waiting = pod("c");
        waiting.pod.spec.as_mut().expect("a spec").node_name = None;
        assert!(sources(&[waiting], None).is_empty());
    }

    #[tokio::test]
    async fn each_line_has_its_source_before_it_and_an_end() {
        let (tell, mut hear) = mpsc::channel(8);
        copy_lines(&b"one\n\xfftwo\n\nlast"[..], "[a] ", &tell).await.expect("lines");
        drop(tell);
        let mut all = Vec::new();
        while let Some(line) = hear.recv().await {
            all.extend(line);
        }
        assert_eq!(all, b"[a] one\n[a] \xfftwo\n[a] \n[a] last\n");
    }
}
