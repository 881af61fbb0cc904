//! What clients may dial: the ports of Services that somebody forks or has forked lately.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use sidetrack_splice::table::check_address;

use crate::stores::{EndpointSlice, Name, Service, ServicePort, Stores};

/// A port of a Service: what the table calls it, and its addresses.
pub(super) struct Port<'a> {
    /// `namespace/name`, with `:port` where the Service has several.
    pub(super) table_name: String,
    /// None stands for all ports of a Service that is not there and whose endpoints still are.
    pub(super) spec: Option<&'a ServicePort>,
    /// The Service's own addresses.
    pub(super) own: BTreeSet<SocketAddr>,
    /// Its endpoints'.
    pub(super) endpoints: BTreeSet<SocketAddr>,
}

impl Port<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.endpoints.is_empty()
    }
}

/// A Service with its ports.
pub(super) struct Tracked<'a> {
    /// None where it is not there.
    pub(super) service: Option<&'a Service>,
    /// Whether its endpoints are known.
    pub(super) listed: bool,
    /// The addresses of its endpoints.
    pub(super) baseline: BTreeSet<IpAddr>,
    /// Its ports.
    pub(super) ports: Vec<Port<'a>>,
}

type Slices<'a> = HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

/// These Services.
pub(super) fn tracked(stores: &Stores, services: BTreeSet<Name>) -> BTreeMap<Name, Tracked<'_>> {
    let mut slices = Slices::new();
    for (name, slice) in &stores.slices {
        slices.entry((&name.namespace, &slice.service)).or_default().push(slice);
    }
    let one = |name: Name| {
        let of_it = slices.get(&(name.namespace.as_str(), name.name.as_str())).map_or(&[][..], Vec::as_slice);
        let tracked = track(&name, stores.services.get(&name), of_it, stores.listed.contains(&name));
        (name, tracked)
    };
    services.into_iter().map(one).collect()
}

fn track<'a>(name: &Name, service: Option<&'a Service>, slices: &[&'a EndpointSlice], listed: bool) -> Tracked<'a> {
    let valid = |address: &SocketAddr| check_address(*address).is_ok();
    let endpoints = |of: &dyn Fn(&str) -> bool| -> BTreeSet<SocketAddr> {
        let of_slice = |slice: &&'a EndpointSlice| {
            let slice = *slice;
            let ports = slice.ports.iter().filter(|(name, _)| of(name)).map(|(_, port)| *port).collect::<Vec<_>>();
            ports.into_iter().flat_map(move |port| slice.addresses.iter().map(move |ip| SocketAddr::new(*ip, port)))
        };
        slices.iter().flat_map(of_slice).filter(valid).collect()
    };
    let ports = match service {
        Some(service) if service.external => Vec::new(),
        Some(service) => {
            let several = service.ports.len() > 1;
            let port = |port: &'a ServicePort| Port {
                table_name: if several { format!("{name}:{}", port.port) } else { name.to_string() },
                spec: Some(port),
                own: service.addresses.iter().map(|ip| SocketAddr::new(*ip, port.port)).filter(valid).collect(),
                endpoints: endpoints(&|name| name == port.name),
            };
            service.ports.iter().map(port).collect()
        }
        // Whoever has looked its endpoints up may dial them still.
        None => {
            let all = Port {
                table_name: name.to_string(),
                spec: None,
                own: BTreeSet::new(),
                endpoints: endpoints(&|_| true),
            };
            if all.is_empty() { Vec::new() } else { vec![all] }
        }
    };
    let baseline = slices.iter().flat_map(|slice| &slice.addresses).copied().collect();
    Tracked { service, listed, baseline, ports }
}
