//! Segments as they are on a pod's interface: read behind the programs at egress and before them at ingress, and forged.

use crate::lab::Pod;
use anyhow::{Context, Result, bail};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who sends it.
    pub from: SocketAddr,
    /// Who gets it.
    pub to: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; `None`: the flag ACK is not set.
    pub ack: Option<u32>,
    /// The flag RST.
    pub rst: bool,
    /// The flag SYN or FIN.
    pub control: bool,
    /// TCP options, as they stand in the header.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Segment {
    /// The sequence number behind its payload.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.seq.wrapping_add(self.payload.len() as u32)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { return None };
        let (from, to): (IpAddr, IpAddr) = match sliced.net.as_ref()? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        Some(Self {
            from: (from, tcp.source_port()).into(),
            to: (to, tcp.destination_port()).into(),
            seq: tcp.sequence_number(),
            ack: tcp.ack().then(|| tcp.acknowledgment_number()),
            rst: tcp.rst(),
            control: tcp.syn() || tcp.fin(),
            options: tcp.options().to_vec(),
            payload: tcp.payload().to_vec(),
        })
    }

    /// Sends it from this pod, whoever it says it is from.
    ///
    /// # Errors
    /// When it is none of IPv4, or has SYN or FIN, or when the kernel refuses it.
    pub fn send(&self, from: &Pod) -> Result<()> {
        let (SocketAddr::V4(source), SocketAddr::V4(to)) = (self.from, self.to) else {
            bail!("IPv6 cannot be forged here")
        };
        anyhow::ensure!(!self.control, "SYN and FIN cannot be forged here");
        let mut tcp = PacketBuilder::ipv4(source.ip().octets(), to.ip().octets(), 64)
            .tcp(source.port(), to.port(), self.seq, 500)
            .options_raw(&self.options)?;
        if let Some(ack) = self.ack {
            tcp = tcp.ack(ack);
        }
        if self.rst {
            tcp = tcp.rst();
        }
        let mut bytes = Vec::with_capacity(tcp.size(self.payload.len()));
        tcp.write(&mut bytes, &self.payload)?;
        from.enter(|| -> Result<()> {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.send_to(&bytes, &SocketAddr::from((*to.ip(), 0)).into())?;
            Ok(())
        })?
    }
}

/// What a pod's interfaces send and receive, from when it is opened on.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
}

impl Wire {
    /// Begins to listen in the pod.
    ///
    /// # Errors
    /// When the kernel refuses a packet socket.
    pub fn open(pod: &Pod) -> Result<Self> {
        let every = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = pod.enter(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(every)))?;
        let socket = socket.with_context(|| format!("no packet socket in {}", pod.name()))?;
        socket.set_recv_buffer_size(8 << 20)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self { socket })
    }

    /// The TCP segments that have come since it was last asked, until there was none for a tenth of a second.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn seen(&self) -> Result<Vec<Segment>> {
        let mut bytes = vec![0; 1 << 17];
        let mut seen = Vec::new();
        loop {
            match (&self.socket).read(&mut bytes) {
                Ok(length) => seen.extend(Segment::parse(&bytes[..length])),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(seen),
                Err(error) => return Err(error).context("a packet socket"),
            }
        }
    }

    /// The length of the longest packet, without its Ethernet header, of those that have come since it was last asked.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn longest(&self) -> Result<usize> {
        let mut bytes = vec![0; 1 << 20];
        let mut longest = 0;
        loop {
            match (&self.socket).read(&mut bytes) {
                Ok(length) => longest = longest.max(length),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(longest);
                }
                Err(error) => return Err(error).context("a packet socket"),
            }
        }
    }

    /// The last segment with payload, of those that have come since it was last asked, that is from this address.
    ///
    /// # Errors
    /// When there is none.
    pub fn last_from(&self, from: IpAddr) -> Result<Segment> {
        let last = self.seen()?.into_iter().rfind(|s| s.from.ip() == from && !s.payload.is_empty());
        last.with_context(|| format!("nothing has come from {from}"))
    }
}
