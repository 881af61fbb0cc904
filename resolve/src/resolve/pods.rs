//! A fork's endpoints at a port of a Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use sidetrack_splice::table::{ENDPOINTS_MAX, check_address};

use super::{Note, Why};
use crate::stores::{Fork, Name, Pod, PodState, Sandbox, Selection, Service, Stores, TargetPort};

/// The pods that were made for Sandboxes, by Sandbox and fork.
type Made<'a> = BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Pod>>;

/// All pods that forks may consist of.
pub(super) struct Pods<'a> {
    stores: &'a Stores,
    made: Option<Made<'a>>,
}

/// The pods of one fork.
pub(super) struct Members<'a> {
    pub(super) sandbox: &'a str,
    pub(super) fork: &'a str,
    /// None where they are not known yet.
    pods: Option<Vec<&'a Pod>>,
}

impl<'a> Pods<'a> {
    pub(super) fn of(stores: &'a Stores) -> Self {
        let made = stores.pods.get(&Selection::Labelled).map(|pods| {
            let mut made = Made::new();
            for (name, pod) in pods {
                if let Some((sandbox, fork)) = &pod.made_for {
                    made.entry((&name.namespace, sandbox, fork)).or_default().push(pod);
                }
            }
            made
        });
        Self { stores, made }
    }

    pub(super) fn members(&self, name: &'a Name, sandbox: &Sandbox, fork: &'a Fork) -> Members<'a> {
        let pods = match &fork.pods {
            Selection::Labelled => self.made.as_ref().map(|made| {
                let all = made.get(&(name.namespace.as_str(), name.name.as_str(), fork.name.as_str()));
                // One that is older was made for an earlier Sandbox of the same name.
                all.into_iter().flatten().copied().filter(|pod| pod.created >= sandbox.created).collect()
            }),
            selected @ Selection::Selected { .. } => self.stores.pods.get(selected).map(|pods| pods.values().collect()),
        };
        Members { sandbox: &name.name, fork: &fork.name, pods }
    }
}

/// A fork's endpoints at a port, and what is to be said of those that are none.
pub(super) struct Endpoints {
    pub(super) found: Result<Vec<SocketAddr>, Why>,
    pub(super) notes: Vec<Note>,
}

impl Members<'_> {
    /// Where requests for this port go, of a Service whose endpoints have these addresses.
    pub(super) fn endpoints(
        &self,
        target: &TargetPort,
        service: &Service,
        name: &str,
        baseline: &BTreeSet<IpAddr>,
    ) -> Endpoints {
        let (sandbox, fork) = (self.sandbox.to_owned(), self.fork.to_owned());
        let refused = |why| Endpoints { found: Err(why), notes: Vec::new() };
        let Some(pods) = &self.pods else { return refused(Why::PodsUnknown { sandbox, fork }) };
        let mut there = pods.iter().filter(|pod| matches!(pod.state, PodState::Ready | PodState::Unready)).peekable();
        if there.peek().is_none() {
            return refused(Why::NoPod { sandbox, fork });
        }
        let mut why = Why::NotReady { sandbox, fork: fork.clone() };
        let (mut found, mut of_baseline, mut left_out) = (Vec::new(), 0, 0);
        for pod in there.filter(|pod| pod.state == PodState::Ready) {
            if pod.addresses.iter().any(|ip| baseline.contains(ip) || service.addresses.contains(ip)) {
                of_baseline += 1;
                why = Why::IsBaseline { fork: fork.clone(), service: name.to_owned() };
                continue;
            }
            let port = match target {
                TargetPort::Number(port) => Some(*port),
                TargetPort::Name(name) => pod.ports.iter().find(|(own, _)| own == name).map(|(_, port)| *port),
            };
            let Some(port) = port else {
                if let TargetPort::Name(port) = target {
                    why = Why::NoNamedPort { fork: fork.clone(), port: port.clone() };
                }
                continue;
            };
            for address in pod.addresses.iter().map(|ip| SocketAddr::new(*ip, port)) {
                if check_address(address).is_err() || found.contains(&address) {
                    continue;
                }
                if found.len() < ENDPOINTS_MAX { found.push(address) } else { left_out += 1 }
            }
        }
        if found.is_empty() {
            return refused(why);
        }
        found.sort_unstable();
        let notes = [(of_baseline, Note::BaselinePods as fn(usize) -> Note), (left_out, Note::EndpointsLeftOut)];
        let notes = notes.into_iter().filter(|(count, _)| *count > 0).map(|(count, note)| note(count)).collect();
        Endpoints { found: Ok(found), notes }
    }
}
