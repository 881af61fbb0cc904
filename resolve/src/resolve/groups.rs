//! Addresses that belong to the same ports, with the claims of all of them: the services of the table.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use sidetrack_splice::table::{ADDRESSES_MAX, NAME_MAX, ROUTES_MAX, Route, RouteTable, Service, To};

use super::{
    Note, Outcome, Why,
    claims::{Claim, Claims, Rank},
};

/// Groups of addresses, each by the numbers of the ports that they belong to.
pub(super) struct Groups {
    by_ports: BTreeMap<Vec<usize>, Vec<SocketAddr>>,
    /// Of each port, how many addresses found no room.
    left_out: Vec<usize>,
}

impl Groups {
    pub(super) fn of(claims: &Claims<'_>) -> Self {
        let mut order: Vec<usize> = (0..claims.ports.len()).collect();
        order.sort_by_key(|port| (claims.ports[*port].rank(), *port));
        let mut owners: HashMap<SocketAddr, Vec<usize>> = HashMap::new();
        let mut left_out = vec![0; claims.ports.len()];
        // The addresses of the Services themselves first: nearly all clients dial these.
        for own in [true, false] {
            for &port in &order {
                let of = &claims.ports[port].port;
                for address in if own { &of.own } else { &of.endpoints } {
                    let full = owners.len() >= ADDRESSES_MAX;
                    match owners.get_mut(address) {
                        Some(ports) => ports.push(port),
                        None if full => left_out[port] += 1,
                        None => _ = owners.insert(*address, vec![port]),
                    }
                }
            }
        }
        let mut by_ports: BTreeMap<Vec<usize>, Vec<SocketAddr>> = BTreeMap::new();
        for (address, mut ports) in owners {
            ports.sort_unstable();
            ports.dedup();
            by_ports.entry(ports).or_default().push(address);
        }
        for addresses in by_ports.values_mut() {
            addresses.sort_unstable();
        }
        Self { by_ports, left_out }
    }

    /// The table. What claims are lost, and to whom, is noted with the Sandboxes.
    pub(super) fn table(self, claims: &mut Claims<'_>) -> RouteTable {
        let mut notes: Vec<((usize, usize), Note)> = Vec::new();
        let mut won: Vec<(Rank, usize, &Claim)> = Vec::new();
        for (group, ports) in self.by_ports.keys().enumerate() {
            let of_all = ports.iter().flat_map(|port| &claims.ports[*port].claims);
            let mut by_key: BTreeMap<&str, &Claim> = BTreeMap::new();
            let mut lost: Vec<(&Claim, &str)> = Vec::new();
            for claim in of_all {
                let stands = by_key.entry(&claim.key).or_insert(claim);
                let loser = if claim.rank < stands.rank { std::mem::replace(stands, claim) } else { claim };
                lost.push((loser, &claim.key));
            }
            for (loser, key) in lost {
                let winner = by_key[key];
                if let (Some(ruling), Some(other)) = (loser.ruling, winner.ruling)
                    && loser.rank != winner.rank
                {
                    notes.push((ruling, conflict(claims, key, other)));
                }
            }
            won.extend(by_key.into_values().map(|claim| (claim.rank, group, claim)));
        }
        won.sort_by(|(rank, group, claim), (other_rank, other_group, other)| {
            (rank, group, &claim.key).cmp(&(other_rank, other_group, &other.key))
        });
        let mut routes: Vec<Vec<Route>> = self.by_ports.iter().map(|_| Vec::new()).collect();
        let mut ours: Vec<(usize, String)> = Vec::new();
        let (mut count, mut full) = (0, Vec::new());
        let mut names: Vec<_> = self.by_ports.keys().map(|ports| table_name(claims, ports)).collect();
        for (_, group, claim) in won {
            if let Some((fate, _)) = claim.ruling {
                ours.push((fate, said(&names[group], claim)));
            }
            let Some(to) = &claim.to else { continue };
            if count == ROUTES_MAX {
                full.extend(claim.ruling.map(|ruling| (ruling, claim.key.clone())));
                continue;
            }
            count += 1;
            routes[group].push(Route { key: claim.key.clone(), to: to.clone() });
        }
        let mut unsteered = Vec::new();
        for (of, left_out) in claims.ports.iter().zip(self.left_out).filter(|(_, left_out)| *left_out > 0) {
            let rulings = of.claims.iter().filter_map(|claim| claim.ruling);
            notes.extend(rulings.clone().map(|ruling| (ruling, Note::AddressesLeftOut(left_out))));
            if left_out == of.port.own.len() + of.port.endpoints.len() {
                unsteered.extend(rulings);
            }
        }
        let services = self.by_ports.into_values().zip(routes).enumerate().map(|(group, (addresses, mut routes))| {
            routes.sort_by(|one, other| one.key.cmp(&other.key));
            Service { name: std::mem::take(&mut names[group]), addresses, routes }
        });
        let mut services: Vec<_> = services.collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));
        for (fate, text) in ours {
            let hash = &mut claims.fates[fate].1.hash;
            // A sum: the order says nothing.
            *hash = hash.wrapping_add(fnv(text.as_bytes()));
        }
        for (ruling, note) in notes {
            claims.note(ruling, note);
        }
        for (ruling, key) in full {
            claims.note(ruling, Note::RouteLeftOut(key));
            unsteered.push(ruling);
        }
        for (fate, ruling) in unsteered {
            claims.fates[fate].1.rulings[ruling].outcome = Outcome::Unsteered(Why::TableFull);
        }
        RouteTable::new(services).expect("names, addresses, keys and endpoints are checked where they come in")
    }
}

fn conflict(claims: &Claims<'_>, key: &str, (fate, ruling): (usize, usize)) -> Note {
    let (name, fate) = &claims.fates[fate];
    Note::Conflict { key: key.to_owned(), sandbox: (*name).clone(), fork: fate.rulings[ruling].fork.clone() }
}

/// What a group is called: its ports in their order, as far as a name may be long.
fn table_name(claims: &Claims<'_>, ports: &[usize]) -> String {
    let names: Vec<&str> = ports.iter().map(|port| claims.ports[*port].port.table_name.as_str()).collect();
    let whole = names.join("+");
    if whole.len() <= NAME_MAX {
        return whole;
    }
    format!("{}+{}.{:08x}", names[0], names.len() - 1, fnv(whole.as_bytes()) as u32)
}

/// A route as a text that is the same wherever it is made.
fn said(group: &str, claim: &Claim) -> String {
    let to = match &claim.to {
        None => "baseline".to_owned(),
        Some(To::Fail { .. }) => "fail".to_owned(),
        Some(To::Fork { endpoints, on_unreachable }) => format!("{endpoints:?} {on_unreachable:?}"),
    };
    format!("{group} {} {to}", claim.key)
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
