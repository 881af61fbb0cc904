use serde_json::{Value, from_value, json};
use sidetrack_splice::table::OnUnreachable;

use super::world::{later, name, now};
use crate::{read, *};

fn meta(of: &str) -> Value {
    json!({"namespace": "shop", "name": of, "uid": "u1", "generation": 3, "creationTimestamp": now().to_string()})
}

fn sandbox(spec: &Value, status: &Value) -> Sandbox {
    let object = json!({"apiVersion": "sidetrack.dev/v1alpha1", "kind": "Sandbox", "metadata": meta("pr"), "spec": spec, "status": status});
    read::sandbox(&from_value(object).expect("a Sandbox"))
}

#[test]
fn a_sandbox_without_keys_has_one_of_its_own_and_the_services_that_the_controller_has_found() {
    let spec = json!({"forks": [
        {"name": "orders", "workload": {"kind": "Deployment", "name": "orders"}, "services": ["orders"]},
        {"name": "mocks", "podSelector": {"matchLabels": {"app": "mock", "tier": "b"},
            "matchExpressions": [{"key": "x", "operator": "In", "values": ["1", "2"]}, {"key": "y", "operator": "DoesNotExist"}]},
            "services": ["payments"]}]});
    let read = sandbox(&spec, &json!({"forks": [{"name": "orders", "services": ["orders-grpc"]}]}));
    assert_eq!(read.keys, ["pr.shop".to_owned()].into());
    assert_eq!(read.forks[0].services, ["orders".to_owned(), "orders-grpc".to_owned()].into());
    assert_eq!((read.forks[0].pods.clone(), read.generation, read.created), (Selection::Labelled, 3, now()));
    let selector = "app=mock,tier=b,x in (1,2),!y".to_owned();
    assert_eq!(read.forks[1].pods, Selection::Selected { namespace: "shop".into(), selector });
    assert_eq!((read.expires_at, read.on_unreachable), (None, OnUnreachable::Fail));
}

#[test]
fn a_sandbox_expires_when_its_status_says_or_else_after_its_time() {
    let spec = |ttl: &str| json!({"keys": ["a", "b"], "ttl": ttl, "onUnreachable": "Baseline", "forks": []});
    let read = sandbox(&spec("1m30s"), &json!({}));
    assert_eq!((read.expires_at, read.on_unreachable), (Some(later(90)), OnUnreachable::Baseline));
    let read = sandbox(&spec("1m30s"), &json!({"expiresAt": later(7).to_string()}));
    assert_eq!(read.expires_at, Some(later(7)));
}

#[test]
fn a_service_is_its_addresses_and_tcp_ports() {
    let service =
        |spec: Value| read::service(&from_value(json!({"metadata": meta("orders"), "spec": spec})).expect("a Service"));
    let read = service(json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::10"], "ports": [
        {"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"port": 81}]}));
    assert_eq!(read.addresses.len(), 2);
    let port = |name: &str, port, target| ServicePort { name: name.into(), port, target };
    assert_eq!(read.ports, [port("web", 80, TargetPort::Name("http".into())), port("", 81, TargetPort::Number(81))]);
    assert_eq!(service(json!({"clusterIP": "None", "clusterIPs": ["None"]})).addresses, [] as [std::net::IpAddr; 0]);
    assert!(service(json!({"type": "ExternalName", "externalName": "example.org"})).external);
}

#[test]
fn a_slice_is_all_its_addresses_ready_or_not() {
    let slice = |labels: Value| {
        let object = json!({"metadata": {"namespace": "shop", "name": "orders-1", "labels": labels}, "addressType": "IPv4",
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.1.0.2"], "conditions": {"ready": false}}]});
        read::endpoint_slice(&from_value(object).expect("a slice"))
    };
    let read = slice(json!({"kubernetes.io/service-name": "orders"})).expect("one of a Service");
    assert_eq!((read.service.as_str(), read.ports.as_slice()), ("orders", &[("web".to_owned(), 8080)][..]));
    assert_eq!(read.addresses.len(), 2);
    assert_eq!(slice(json!({})), None);
}

#[test]
fn a_pod_is_ready_only_while_it_says_so_and_does_not_end() {
    let pod = |meta_more: Value, status: Value| {
        let mut metadata = meta("pr-1");
        metadata["labels"] = json!({"sidetrack.dev/sandbox": "pr", "sidetrack.dev/fork": "orders"});
        metadata.as_object_mut().expect("an object").extend(meta_more.as_object().cloned().expect("an object"));
        let spec = json!({"initContainers": [{"name": "once", "ports": [{"name": "no", "containerPort": 1}]},
                {"name": "beside", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 15}]}],
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]});
        read::pod(&from_value(json!({"metadata": metadata, "spec": spec, "status": status})).expect("a pod"))
    };
    let ready = json!({"phase": "Running", "podIP": "10.1.0.9", "podIPs": [{"ip": "10.1.0.9"}, {"ip": "fd00:1::9"}],
        "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]});
    let read = pod(json!({}), ready.clone());
    assert_eq!((read.state, read.addresses.len()), (PodState::Ready, 2));
    assert_eq!(read.made_for, Some(("pr".into(), "orders".into())));
    assert_eq!(read.ports, [("http".to_owned(), 8080), ("side".to_owned(), 15)]);
    assert_eq!(pod(json!({"deletionTimestamp": now().to_string()}), ready.clone()).state, PodState::Terminating);
    assert_eq!(pod(json!({}), json!({"phase": "Running"})).state, PodState::Unready);
    let mut ended = ready;
    ended["phase"] = json!("Succeeded");
    assert_eq!(pod(json!({}), ended).state, PodState::Completed);
    assert_eq!(read::name(&from_value(meta("pr-1")).expect("metadata")), name("pr-1"));
}
