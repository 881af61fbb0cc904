//! The route file.

use crate::lab::Service;
use std::{fmt::Write, net::SocketAddr};

/// What the route file says. Making a file by hand is possible too: [`Agent::write`](super::Agent::write).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    services: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    addresses: Vec<SocketAddr>,
    routes: Vec<Route>,
}

/// A sandbox key at a service, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The key.
    pub key: String,
    /// The forks, or why there are none.
    pub to: Result<Vec<SocketAddr>, String>,
    /// The baseline serves its requests while no fork can be reached.
    pub or_baseline: bool,
}

impl Routes {
    /// No service at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service under all its addresses: the virtual ones and its endpoints' own.
    #[must_use]
    pub fn service(self, service: &Service) -> Self {
        self.addresses(&service.name, &service.addresses())
    }

    /// Adds a service under these addresses.
    #[must_use]
    pub fn addresses(mut self, name: &str, addresses: &[SocketAddr]) -> Self {
        self.services.push(Entry { name: name.to_owned(), addresses: addresses.to_vec(), routes: Vec::new() });
        self
    }

    /// The service added last is forked under `key`. Replaces an earlier route of that key.
    #[must_use]
    pub fn fork(self, key: &str, endpoints: &[SocketAddr]) -> Self {
        self.route(Route { key: key.to_owned(), to: Ok(endpoints.to_vec()), or_baseline: false })
    }

    /// As [`Routes::fork`], and the baseline serves its requests while none of these can be reached.
    #[must_use]
    pub fn fork_or_baseline(self, key: &str, endpoints: &[SocketAddr]) -> Self {
        self.route(Route { key: key.to_owned(), to: Ok(endpoints.to_vec()), or_baseline: true })
    }

    /// Requests with `key` to the service added last are refused.
    #[must_use]
    pub fn fail(self, key: &str, reason: &str) -> Self {
        self.route(Route { key: key.to_owned(), to: Err(reason.to_owned()), or_baseline: false })
    }

    /// Takes a key from the service added last.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        if let Some(last) = self.services.last_mut() {
            last.routes.retain(|route| route.key != key);
        }
        self
    }

    fn route(self, route: Route) -> Self {
        let mut table = self.without(&route.key);
        if let Some(last) = table.services.last_mut() {
            last.routes.push(route);
        }
        table
    }

    /// Every (service, key).
    pub fn keys(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.services.iter().flat_map(|entry| entry.routes.iter().map(|route| (entry.name.as_str(), route)))
    }

    /// The file's text.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut yaml = String::from("apiVersion: sidetrack.dev/v1alpha1\nkind: RouteTable\nservices:");
        if self.services.is_empty() {
            yaml.push_str(" []\n");
            return yaml;
        }
        yaml.push('\n');
        for entry in &self.services {
            // A String takes all that is written to it.
            let _ = writeln!(yaml, "- name: {}\n  addresses: {}", entry.name, list(&entry.addresses));
            if entry.routes.is_empty() {
                continue;
            }
            yaml.push_str("  routes:\n");
            for route in &entry.routes {
                let _ = writeln!(yaml, "  - key: {:?}", route.key);
                if route.or_baseline {
                    yaml.push_str("    onUnreachable: Baseline\n");
                }
                let _ = match &route.to {
                    Ok(endpoints) => writeln!(yaml, "    endpoints: {}", list(endpoints)),
                    Err(reason) => writeln!(yaml, "    fail: {reason:?}"),
                };
            }
        }
        yaml
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    let quoted: Vec<_> = addresses.iter().map(|address| format!("{:?}", address.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}
