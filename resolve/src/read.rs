//! The records of the API's objects.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::{Container, Pod as ApiPod, Service as ApiService},
        discovery::v1::EndpointSlice as ApiEndpointSlice,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use sidetrack_objects::{
    Sandbox as ApiSandbox, parse_duration,
    sandbox::{Fork as ApiFork, OnUnreachable as ApiOnUnreachable, Operator, PodSelector},
};
use sidetrack_splice::table::OnUnreachable;

use crate::stores::{EndpointSlice, Fork, Name, Pod, PodState, Sandbox, Selection, Service, ServicePort, TargetPort};

/// Says on a pod for which Sandbox of its namespace it was made.
pub const SANDBOX_LABEL: &str = "sidetrack.dev/sandbox";
/// Says on such a pod which fork of the Sandbox it belongs to.
pub const FORK_LABEL: &str = "sidetrack.dev/fork";
/// Says on a slice which Service's it is.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// An object's name.
#[must_use]
pub fn name(of: &ObjectMeta) -> Name {
    Name::new(of.namespace.clone().unwrap_or_default(), of.name.clone().unwrap_or_default())
}

/// A Sandbox.
#[must_use]
pub fn sandbox(object: &ApiSandbox) -> Sandbox {
    let (meta, spec) = (&object.metadata, &object.spec);
    let named = name(meta);
    let created = created(meta);
    let said = object.status.as_ref().and_then(|status| status.expires_at.as_ref()?.parse().ok());
    let by_ttl = || {
        let ttl = parse_duration(spec.ttl.as_ref()?).ok()?;
        created.checked_add(SignedDuration::try_from(ttl).ok()?).ok()
    };
    // What the controller has found out: which Services select the pods of a fork's workload.
    let found = object.status.iter().flat_map(|status| &status.forks);
    let found: BTreeMap<&str, &Vec<String>> = found.map(|fork| (fork.name.as_str(), &fork.services)).collect();
    let fork = |fork: &ApiFork| {
        let found = found.get(fork.name.as_str()).into_iter().copied().flatten();
        Fork {
            name: fork.name.clone(),
            services: fork.services.iter().flatten().chain(found).cloned().collect(),
            pods: fork.pod_selector.as_ref().map_or(Selection::Labelled, |pods| Selection::Selected {
                namespace: named.namespace.clone(),
                selector: selector(pods),
            }),
        }
    };
    Sandbox {
        uid: meta.uid.clone().unwrap_or_default(),
        created,
        generation: meta.generation.unwrap_or_default(),
        keys: spec.keys.as_ref().map_or_else(
            || BTreeSet::from([format!("{}.{}", named.name, named.namespace)]),
            |keys| keys.iter().cloned().collect(),
        ),
        expires_at: said.or_else(by_ttl),
        deleted_at: meta.deletion_timestamp.as_ref().map(|at| at.0),
        on_unreachable: match spec.on_unreachable {
            ApiOnUnreachable::Fail => OnUnreachable::Fail,
            ApiOnUnreachable::Baseline => OnUnreachable::Baseline,
        },
        forks: spec.forks.iter().map(fork).collect(),
    }
}

fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |at| at.0)
}

/// A selector as a request to the API has it.
fn selector(pods: &PodSelector) -> String {
    let labels = pods.match_labels.iter().flatten().map(|(label, value)| format!("{label}={value}"));
    let demands = pods.match_expressions.iter().flatten().map(|demand| {
        let (label, values) = (&demand.key, demand.values.iter().flatten().cloned().collect::<Vec<_>>().join(","));
        match demand.operator {
            Operator::In => format!("{label} in ({values})"),
            Operator::NotIn => format!("{label} notin ({values})"),
            Operator::Exists => label.clone(),
            Operator::DoesNotExist => format!("!{label}"),
        }
    });
    labels.chain(demands).collect::<Vec<_>>().join(",")
}

fn is_tcp(protocol: Option<&String>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

/// A Service.
#[must_use]
pub fn service(object: &ApiService) -> Service {
    let Some(spec) = &object.spec else { return Service::default() };
    let own = spec.cluster_ips.clone().unwrap_or_else(|| spec.cluster_ip.iter().cloned().collect());
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let dialled = number(port.port)?;
        let target = match &port.target_port {
            Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
            Some(IntOrString::Int(target)) => TargetPort::Number(number(*target).unwrap_or(dialled)),
            None => TargetPort::Number(dialled),
        };
        is_tcp(port.protocol.as_ref()).then(|| ServicePort {
            name: port.name.clone().unwrap_or_default(),
            port: dialled,
            target,
        })
    };
    Service {
        // "None" of a headless one is no address.
        addresses: own.iter().filter_map(|ip| ip.parse().ok()).collect(),
        external: spec.type_.as_deref() == Some("ExternalName"),
        ports: spec.ports.iter().flatten().filter_map(port).collect(),
    }
}

/// A slice; none where it belongs to no Service.
#[must_use]
pub fn endpoint_slice(object: &ApiEndpointSlice) -> Option<EndpointSlice> {
    let service = object.metadata.labels.as_ref()?.get(SERVICE_LABEL)?.clone();
    let ports = object.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_ref()));
    let ports = ports.filter_map(|port| Some((port.name.clone().unwrap_or_default(), number(port.port?)?)));
    let addresses = object.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    Some(EndpointSlice {
        service,
        ports: ports.collect(),
        addresses: addresses.filter_map(|address| address.parse().ok()).collect(),
    })
}

/// A pod.
#[must_use]
pub fn pod(object: &ApiPod) -> Pod {
    let (meta, status) = (&object.metadata, object.status.as_ref());
    let label = |name: &str| meta.labels.as_ref()?.get(name).cloned();
    let phase = status.and_then(|status| status.phase.as_deref());
    let ready = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = ready.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True");
    let state = match phase {
        Some("Succeeded" | "Failed") => PodState::Completed,
        _ if meta.deletion_timestamp.is_some() => PodState::Terminating,
        _ if ready => PodState::Ready,
        _ => PodState::Unready,
    };
    let all = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| &ip.ip);
    let one = status.and_then(|status| status.pod_ip.as_ref());
    let addresses: BTreeSet<_> = all.chain(one).filter_map(|ip| ip.parse().ok()).collect();
    // Init containers that go on beside the others have ports, too.
    let beside = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = object
        .spec
        .iter()
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(beside)));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let ports = ports.filter(|port| is_tcp(port.protocol.as_ref()));
    Pod {
        made_for: label(SANDBOX_LABEL).zip(label(FORK_LABEL)),
        created: created(meta),
        addresses: addresses.into_iter().collect(),
        state,
        ports: ports.filter_map(|port| Some((port.name.clone()?, number(port.container_port)?))).collect(),
    }
}
