//! Services and routes, as the kernel sees them. The agent writes them, the kernel only reads.

use super::addr::Addr;

/// Key of map `services`: a service address that clients dial.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct ServiceAddr {
    /// ClusterIP, or an endpoint's own address.
    pub addr: Addr,
    /// Network byte order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}

/// Value of map `services`. A miss means: not tracked, never look at the connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Service {
    /// Identifies the service in `routes`, `names` and in each connection. Never zero, never used again for another.
    pub id: u32,
    /// How many routes it has.
    pub routes: u32,
}

/// Key of map `routes`: a sandbox key at a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct RouteKey {
    /// [`Service::id`].
    pub service: u32,
    /// The key's bytes, then zeros. A key has at most 63 bytes, so the last byte is always zero.
    pub key: [u8; 64],
}

/// A route that leads to forks.
pub const ROUTE_FORK: u32 = 1;
/// A route whose requests are refused.
pub const ROUTE_FAIL: u32 = 2;

/// Flag: where no leg can be had, the baseline serves the request.
pub const ROUTE_OR_BASELINE: u32 = 1;

/// Value of map `routes`. A miss means: nobody forked this service under this key, go to the baseline.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Route {
    /// Identifies the route in legs and `names`. Never zero, never used again for another (service, key).
    pub id: u32,
    /// Goes up when an endpoint leaves the route: legs made under an earlier version serve no further exchange.
    pub version: u32,
    /// [`ROUTE_FORK`] or [`ROUTE_FAIL`].
    pub kind: u32,
    /// `ROUTE_` flags.
    pub flags: u32,
}
