//! A watch against servers that answer as they are told to.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use hyper::{Request, Response, StatusCode};
use k8s_openapi::api::core::v1::Service;
use kube::{Client, client::Body};
use serde_json::json;

use super::*;

#[test]
fn pauses_grow_to_an_end_and_differ() {
    assert!((0..100).all(|n| pause(n) >= PAUSE / 2 && pause(n) <= PAUSE_MAX));
    assert!(pause(20) >= PAUSE_MAX / 2);
    assert!((0..20).any(|_| pause(5) != pause(5)));
}

/// A server that gives these answers, one after the other, and then ends every watch without a word.
fn server(answers: Vec<(u16, String)>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answers, noted) = (Arc::new(Mutex::new(answers.into_iter())), Arc::clone(&asked));
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        noted.lock().expect("nobody panics").push(query);
        let next = answers.lock().expect("nobody panics").next();
        async move {
            let Some((status, body)) = next else { return std::future::pending().await };
            let mut response = Response::new(Body::from(body.into_bytes()));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            Ok::<_, Infallible>(response)
        }
    });
    (Client::new(service, "default"), asked)
}

fn service(name: &str, version: u32) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name, "resourceVersion": version.to_string()}})
}

fn event(kind: &str, object: &serde_json::Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn mark(version: u32, end: bool) -> String {
    let annotations = if end { json!({LIST_END: "true"}) } else { json!({}) };
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    event("BOOKMARK", &json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata}))
}

fn status(code: u16) -> String {
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "as told", "reason": "", "code": code})
        .to_string()
}

fn list(names: &[&str], version: u32, next: &str) -> String {
    let items: Vec<_> = names.iter().map(|name| service(name, 1)).collect();
    json!({"apiVersion": "v1", "kind": "ServiceList", "metadata": {"resourceVersion": version.to_string(), "continue": next}, "items": items})
        .to_string()
}

/// What is told of Services until so many updates were: `=` before a list, `+` before one that is there, `-` before one that is gone.
async fn told(client: Client, updates: usize, foreign_labels: bool) -> Vec<String> {
    let (tell, mut hear) = mpsc::channel(16);
    let labels = Some("app=x".to_owned());
    let api = Api::<Service>::all(client);
    let watch = Watch { api, what: "services".into(), labels, foreign_labels, renew: Duration::from_mins(1) };
    let make = |service: &Service| Ok::<_, Infallible>(Some(read::service(service)));
    let task = tokio::spawn(watch.follow(make, Teller { tell, watch: 1, change: Change::Services }));
    let mut told = Vec::new();
    while told.len() < updates {
        let heard =
            tokio::time::timeout(Duration::from_secs(20), hear.recv()).await.expect("in time").expect("it goes on");
        told.extend(heard.change.map(|change| match change {
            Change::Services(Update::List(all)) => {
                format!("={}", all.keys().map(|name| name.name.clone()).collect::<Vec<_>>().join(","))
            }
            Change::Services(Update::Put(name, _)) => format!("+{}", name.name),
            Change::Services(Update::Remove(name)) => format!("-{}", name.name),
            other => panic!("{other:?}"),
        }));
    }
    task.abort();
    told
}

fn asked(asked: &Mutex<Vec<String>>) -> Vec<String> {
    asked.lock().expect("nobody panics").clone()
}

#[tokio::test]
async fn a_list_comes_as_the_beginning_of_a_watch_and_the_watch_goes_on_where_it_ended() {
    let first = [event("ADDED", &service("a", 3)), event("ADDED", &service("b", 4)), mark(7, true)].concat();
    let first = [first, event("MODIFIED", &service("a", 8)), mark(9, false)].concat();
    let second = event("DELETED", &service("b", 11));
    let (client, queries) = server(vec![(200, first), (200, second)]);
    assert_eq!(told(client, 3, false).await, ["=a,b", "+a", "-b"]);
    let queries = asked(&queries);
    assert!(queries[0].contains("sendInitialEvents=true") && queries[0].contains("labelSelector=app"), "{queries:?}");
    assert!(queries[1].contains("resourceVersion=9") && !queries[1].contains("sendInitialEvents"), "{queries:?}");
}

#[tokio::test]
async fn where_the_server_streams_no_list_it_is_asked_for_in_pages() {
    for refusal in [(422, status(422)), (200, event("ERROR", &serde_json::from_str(&status(500)).expect("JSON")))] {
        let (client, queries) = server(vec![
            refusal,
            (200, list(&["a"], 5, "more")),
            (200, list(&["b"], 5, "")),
            (200, event("ADDED", &service("c", 6))),
        ]);
        assert_eq!(told(client, 2, false).await, ["=a,b", "+c"]);
        let queries = asked(&queries);
        assert!(queries[2].contains("continue=more") && queries[3].contains("resourceVersion=5"), "{queries:?}");
    }
}

#[tokio::test]
async fn a_watch_that_is_too_old_lists_anew_and_nothing_is_said_before_the_list_is_complete() {
    let first = [event("ADDED", &service("a", 3)), mark(7, true)].concat();
    let gone = event("ERROR", &serde_json::from_str(&status(410)).expect("JSON"));
    // The first list anew breaks off.
    let broken = event("ADDED", &service("z", 20));
    let again = [event("ADDED", &service("b", 21)), mark(30, true)].concat();
    let (client, _) = server(vec![(200, first), (200, gone), (410, status(410)), (200, [again, broken].concat())]);
    assert_eq!(told(client, 3, false).await, ["=a", "=b", "+z"]);
}

#[tokio::test]
async fn a_failure_is_tried_again_and_forgets_nothing() {
    let first = [event("ADDED", &service("a", 3)), mark(7, true)].concat();
    let (client, queries) = server(vec![(200, first), (403, status(403)), (200, event("ADDED", &service("b", 8)))]);
    assert_eq!(told(client, 2, false).await, ["=a", "+b"]);
    assert!(asked(&queries)[2].contains("resourceVersion=7"));
}

#[tokio::test]
async fn a_selector_that_the_server_does_not_take_selects_nothing() {
    let (client, _) = server(vec![(400, status(400)), (400, status(400))]);
    assert_eq!(told(client, 1, true).await, ["="]);
}
