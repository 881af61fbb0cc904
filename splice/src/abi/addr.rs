//! Addresses and the names of connections.

/// An IPv6 address, or an IPv4 address in its mapped form (`::ffff:a.b.c.d`), as four words in network byte order.
///
/// Words, because a copy of bytes with no alignment is sixteen loads in BPF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// The mapped form of an IPv4 address, given as the word that stands in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), word])
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0xffff_u32.to_be()
    }

    /// The word of an IPv4 address, as it stands in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }
}

#[cfg(any(test, feature = "std"))]
impl From<std::net::IpAddr> for Addr {
    fn from(ip: std::net::IpAddr) -> Self {
        match ip {
            std::net::IpAddr::V4(a) => Self::v4(u32::from_ne_bytes(a.octets())),
            std::net::IpAddr::V6(a) => {
                let o = a.octets();
                let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
                Self([word(0), word(4), word(8), word(12)])
            }
        }
    }
}

#[cfg(any(test, feature = "std"))]
impl From<Addr> for std::net::IpAddr {
    fn from(a: Addr) -> Self {
        let mut o = [0; 16];
        for (i, w) in a.0.iter().enumerate() {
            o[i * 4..i * 4 + 4].copy_from_slice(&w.to_ne_bytes());
        }
        std::net::Ipv6Addr::from(o).to_canonical()
    }
}

/// The four-tuple of a connection as the pod sees it, the pod's own side first. Ports are in network byte order, as
/// they stand in the packet.
///
/// The two ends of one connection on one node are therefore two keys.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Tuple {
    /// The pod's address.
    pub local: Addr,
    /// The other side's address: of the service for a connection, of the backend for a leg.
    pub remote: Addr,
    /// The pod's port, network byte order.
    pub local_port: u16,
    /// The other side's port, network byte order.
    pub remote_port: u16,
}

#[cfg(any(test, feature = "std"))]
impl Tuple {
    /// The pod's side as a socket address.
    #[must_use]
    pub fn local_addr(&self) -> std::net::SocketAddr {
        (std::net::IpAddr::from(self.local), u16::from_be(self.local_port)).into()
    }

    /// The other side as a socket address.
    #[must_use]
    pub fn remote_addr(&self) -> std::net::SocketAddr {
        (std::net::IpAddr::from(self.remote), u16::from_be(self.remote_port)).into()
    }

    /// The tuple of a connection from `local` to `remote`.
    #[must_use]
    pub fn new(local: std::net::SocketAddr, remote: std::net::SocketAddr) -> Self {
        Self {
            local: local.ip().into(),
            remote: remote.ip().into(),
            local_port: local.port().to_be(),
            remote_port: remote.port().to_be(),
        }
    }
}

#[cfg(any(test, feature = "std"))]
impl std::fmt::Display for Tuple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.local_addr(), self.remote_addr())
    }
}
