//! Services as kube-proxy makes them: destination NAT on the node, and the rule that drops what conntrack calls invalid.

use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A Service: one virtual address of each family, and the endpoints behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its IPv4 address and port.
    pub v4: SocketAddr,
    /// Its IPv6 address and port.
    pub v6: SocketAddr,
    /// The pods' addresses, of both families.
    pub endpoints: Vec<SocketAddr>,
}

impl Service {
    pub(super) fn new(name: &str, number: u8, port: u16, endpoints: &[SocketAddr]) -> Self {
        Self {
            name: name.to_owned(),
            v4: (Ipv4Addr::new(10, 96, 0, number), port).into(),
            v6: (like_v4("fd00:96::", number), port).into(),
            endpoints: endpoints.to_vec(),
        }
    }

    /// All addresses under which clients reach it: the virtual ones, then the endpoints' own.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut all = vec![self.v4, self.v6];
        all.extend(&self.endpoints);
        all
    }
}

/// An IPv6 address whose last group shows `number` in decimal digits, so that `10.99.0.11` and `fd00::11` look alike.
pub(super) fn like_v4(prefix: &str, number: u8) -> Ipv6Addr {
    format!("{prefix}{number}").parse().expect("a prefix and at most three digits are an address")
}

/// The whole ruleset of the node, which replaces the one before in one transaction.
pub(super) fn ruleset(services: &[Service]) -> String {
    let mut rules = String::from(
        "table inet kube\ndelete table inet kube\ntable inet kube {\n\
         chain forward { type filter hook forward priority filter; ct state invalid drop; }\n",
    );
    for (chain, hook) in [("prerouting", "prerouting"), ("output", "output")] {
        let _ = writeln!(rules, "chain {chain} {{ type nat hook {hook} priority -100;");
        for service in services {
            rules.push_str(&translation(service.v4, &service.endpoints));
            rules.push_str(&translation(service.v6, &service.endpoints));
        }
        rules.push_str("}\n");
    }
    rules.push_str("}\n");
    rules
}

/// One rule. Without endpoints there is none: the node has no route to the address, and says so.
fn translation(service: SocketAddr, endpoints: &[SocketAddr]) -> String {
    let family = if service.is_ipv4() { "ip" } else { "ip6" };
    let endpoints: Vec<_> = endpoints.iter().filter(|e| e.is_ipv4() == service.is_ipv4()).collect();
    let to = match endpoints[..] {
        [] => return String::new(),
        [one] => format!("to {one}"),
        _ => {
            let places: Vec<_> =
                endpoints.iter().enumerate().map(|(i, e)| format!("{i} : {} . {}", e.ip(), e.port())).collect();
            format!("addr . port to numgen random mod {} map {{ {} }}", places.len(), places.join(", "))
        }
    };
    format!("{family} daddr {} tcp dport {} dnat {family} {to}\n", service.ip(), service.port())
}
