//! What makes a table valid.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::{Service, To};
use crate::abi::{KEY_MAX, record::NAME_TEXT};

/// Most service addresses in a table. The maps have room for more than two such tables: the old and the new one stand
/// side by side while one is changed for the other.
pub const ADDRESSES_MAX: usize = 8_192;
/// Most routes in a table, over all services. Two such tables and the pods of a node fit into map `names`.
pub const ROUTES_MAX: usize = 16_384;
/// Most endpoints of one fork. A fork has one or two; a number far above is a mistake.
pub const ENDPOINTS_MAX: usize = 64;
/// Longest name of a service, in bytes: what map `names` has room for, and a byte. Two names of Kubernetes with a port have 133.
pub const NAME_MAX: usize = NAME_TEXT - 1;
/// Longest reason of a failing route, in bytes: it travels in a header and fits into map `names`.
pub const REASON_MAX: usize = 128;

/// Something in a table that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct Invalid {
    /// Where.
    pub at: Place,
    /// What, and what was expected.
    pub problem: Problem,
}

/// A place in a table, by numbers that count from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The table as a whole.
    Services,
    /// A service's name.
    Name(usize),
    /// A service's addresses as a whole.
    Addresses(usize),
    /// One address of a service.
    Address(usize, usize),
    /// A service's routes as a whole.
    Routes(usize),
    /// The key of a service's route.
    Key(usize, usize),
    /// The endpoints of a service's route, as a whole.
    Endpoints(usize, usize),
    /// One endpoint of a service's route.
    Endpoint(usize, usize, usize),
    /// The reason of a service's failing route.
    Reason(usize, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Services => write!(f, "services"),
            Self::Name(s) => write!(f, "services[{s}].name"),
            Self::Addresses(s) => write!(f, "services[{s}].addresses"),
            Self::Address(s, a) => write!(f, "services[{s}].addresses[{a}]"),
            Self::Routes(s) => write!(f, "services[{s}].routes"),
            Self::Key(s, r) => write!(f, "services[{s}].routes[{r}].key"),
            Self::Endpoints(s, r) => write!(f, "services[{s}].routes[{r}].endpoints"),
            Self::Endpoint(s, r, e) => write!(f, "services[{s}].routes[{r}].endpoints[{e}]"),
            Self::Reason(s, r) => write!(f, "services[{s}].routes[{r}].fail"),
        }
    }
}

/// What is not valid, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A service's name is empty, too long, or has an odd character.
    #[error("{0:?} is no name of a service: expected 1 to {NAME_MAX} characters of A-Z a-z 0-9 . _ / : + -")]
    Name(String),
    /// Two services have one name.
    #[error("a service named {0:?} stands above already: give each service a name of its own")]
    NameTwice(String),
    /// A service has no address.
    #[error("empty: expected at least one \"ip:port\" that clients dial")]
    NoAddresses,
    /// Two services have one address, or one service has it twice.
    #[error("{0} belongs to service {1:?} already: an address can belong to one service only")]
    AddressTwice(SocketAddr, String),
    /// No packet with this address passes a pod's interface, or a connection to it means nothing.
    #[error("{0} cannot be reached from a pod ({1}): expected a unicast \"ip:port\" or \"[ipv6]:port\"")]
    Unreachable(SocketAddr, &'static str),
    /// An IPv4 address in IPv6 form.
    #[error("{0} is an IPv4 address in IPv6 form: write it as \"{1}\"")]
    Mapped(SocketAddr, SocketAddr),
    /// A key is empty, too long, or has an odd character.
    #[error("{0:?} is no sandbox key: expected 1 to {KEY_MAX} characters of A-Z a-z 0-9 . _ -")]
    Key(String),
    /// A service has two routes for one key.
    #[error("this service has a route for key {0:?} above already: a key can lead to one place only")]
    KeyTwice(String),
    /// A fork without endpoints.
    #[error(
        "empty: expected at least one \"ip:port\"; for a fork that is not there write `fail: \"why\"` in its place"
    )]
    NoEndpoints,
    /// More endpoints than [`ENDPOINTS_MAX`].
    #[error("{0} endpoints: expected at most {ENDPOINTS_MAX}")]
    ManyEndpoints(usize),
    /// One endpoint stands twice.
    #[error("{0} stands above already: name each endpoint once")]
    EndpointTwice(SocketAddr),
    /// An endpoint is one of the service's own addresses: keyed requests would come back to the baseline.
    #[error("{0} is an address of the service itself, which is the baseline: expected an endpoint of the fork")]
    EndpointIsBaseline(SocketAddr),
    /// A reason is empty, too long, or has control characters.
    #[error("expected a reason of 1 to {REASON_MAX} bytes on one line")]
    Reason,
    /// More addresses than [`ADDRESSES_MAX`].
    #[error("{0} addresses in all: expected at most {ADDRESSES_MAX}; leave out services that nobody has forked")]
    ManyAddresses(usize),
    /// More routes than [`ROUTES_MAX`].
    #[error("{0} routes in all: expected at most {ROUTES_MAX}; remove those of sandboxes that are gone")]
    ManyRoutes(usize),
}

/// Whether a text is a sandbox key.
pub fn check_key(key: &str) -> Result<(), Problem> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if key.is_empty() || key.len() > KEY_MAX || !key.bytes().all(fits) {
        return Err(Problem::Key(key.to_owned()));
    }
    Ok(())
}

/// Whether a pod can open a connection to an address through its interface.
pub fn check_address(address: SocketAddr) -> Result<(), Problem> {
    let unreachable = |why| Err(Problem::Unreachable(address, why));
    if let SocketAddr::V6(v6) = address {
        if let Some(v4) = v6.ip().to_ipv4_mapped() {
            return Err(Problem::Mapped(address, (v4, address.port()).into()));
        }
        if v6.ip().is_unicast_link_local() || v6.scope_id() != 0 {
            return unreachable("a link-local address is not routed");
        }
    }
    match address.ip() {
        _ if address.port() == 0 => unreachable("port 0"),
        ip if ip.is_unspecified() => unreachable("the unspecified address"),
        ip if ip.is_multicast() => unreachable("a multicast address"),
        ip if ip.is_loopback() => unreachable("a loopback address stays in the pod"),
        IpAddr::V4(v4) if v4.is_broadcast() => unreachable("the broadcast address"),
        _ => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b':' | b'+' | b'-');
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(fits) {
        return Err(Problem::Name(name.to_owned()));
    }
    Ok(())
}

/// All that is not valid, in the order of the places.
pub(super) fn check(services: &[Service]) -> Vec<Invalid> {
    let mut found = Vec::new();
    let mut names = HashSet::new();
    let mut owners: HashMap<SocketAddr, &str> = HashMap::new();
    for (s, service) in services.iter().enumerate() {
        let mut say =
            |at, result: Result<(), Problem>| found.extend(result.err().map(|problem| Invalid { at, problem }));
        say(Place::Name(s), check_name(&service.name));
        if !names.insert(service.name.as_str()) {
            say(Place::Name(s), Err(Problem::NameTwice(service.name.clone())));
        }
        if service.addresses.is_empty() {
            say(Place::Addresses(s), Err(Problem::NoAddresses));
        }
        for (a, address) in service.addresses.iter().enumerate() {
            say(Place::Address(s, a), check_address(*address));
            match owners.get(address) {
                Some(owner) => say(Place::Address(s, a), Err(Problem::AddressTwice(*address, (*owner).to_owned()))),
                None => _ = owners.insert(*address, &service.name),
            }
        }
        check_routes(s, service, &mut say);
    }
    let addresses = services.iter().map(|service| service.addresses.len()).sum();
    if addresses > ADDRESSES_MAX {
        found.push(Invalid { at: Place::Services, problem: Problem::ManyAddresses(addresses) });
    }
    let routes = services.iter().map(|service| service.routes.len()).sum();
    if routes > ROUTES_MAX {
        found.push(Invalid { at: Place::Services, problem: Problem::ManyRoutes(routes) });
    }
    found
}

fn check_routes(s: usize, service: &Service, say: &mut impl FnMut(Place, Result<(), Problem>)) {
    let mut keys = HashSet::new();
    for (r, route) in service.routes.iter().enumerate() {
        say(Place::Key(s, r), check_key(&route.key));
        if !keys.insert(route.key.as_str()) {
            say(Place::Key(s, r), Err(Problem::KeyTwice(route.key.clone())));
        }
        match &route.to {
            To::Fork { endpoints, .. } => check_endpoints(s, r, service, endpoints, say),
            To::Fail { reason } => {
                let fits = (1..=REASON_MAX).contains(&reason.len()) && !reason.chars().any(char::is_control);
                if !fits {
                    say(Place::Reason(s, r), Err(Problem::Reason));
                }
            }
        }
    }
}

fn check_endpoints(
    s: usize,
    r: usize,
    service: &Service,
    endpoints: &[SocketAddr],
    say: &mut impl FnMut(Place, Result<(), Problem>),
) {
    match endpoints.len() {
        0 => say(Place::Endpoints(s, r), Err(Problem::NoEndpoints)),
        n if n > ENDPOINTS_MAX => say(Place::Endpoints(s, r), Err(Problem::ManyEndpoints(n))),
        _ => {}
    }
    let mut seen = HashSet::new();
    for (e, endpoint) in endpoints.iter().enumerate() {
        let at = Place::Endpoint(s, r, e);
        say(at, check_address(*endpoint));
        if !seen.insert(endpoint) {
            say(at, Err(Problem::EndpointTwice(*endpoint)));
        }
        if service.addresses.contains(endpoint) {
            say(at, Err(Problem::EndpointIsBaseline(*endpoint)));
        }
    }
}
