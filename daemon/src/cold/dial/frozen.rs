//! A connection in repair mode.

use std::{io, net::SocketAddr};

use sidetrack_splice::abi::{addr::Tuple, record::OPT_TIMESTAMP};
use socket2::Socket;

use super::{ClientOptions, DialError, OPT_ECN, OPT_SACK, OPT_WSCALE, sockopt, unacknowledged};

/// A connection to a backend that the pod's kernel is silent on (`TCP_REPAIR`).
///
/// Store the leg, ask [`Self::confirm`], then [`Self::close`]. Until the leg is stored the socket must stay open: without
/// it the pod's kernel answers the backend's packets with resets.
#[derive(Debug)]
pub struct Dialled {
    /// The leg's own end: the client's address, and a port that is in use in the pod's book.
    pub local: SocketAddr,
    /// The backend.
    pub target: SocketAddr,
    /// The next sequence number towards the backend: a leg's `rcv_nxt`.
    pub snd_nxt: u32,
    /// The next sequence number from the backend: a leg's `snd_nxt`.
    pub rcv_nxt: u32,
    /// Scale of the windows that the backend sends.
    pub snd_wscale: u8,
    /// Scale of the windows that the backend expects to get.
    pub rcv_wscale: u8,
    /// `OPT_` flags that both sides agreed to.
    pub options: u8,
    /// A `TSval` that is after all that the backend has got, where timestamps were agreed to.
    pub stamp: u32,
    /// The backend's MSS. Where the client's own is below the route's, at most the client's.
    pub mss: u16,
    socket: Socket,
}

/// Why a client cannot be spliced to a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The client's segments would be too long for the backend.
    #[error("the backend takes segments of {leg} bytes, the client sends up to {client}; give both sides one MTU")]
    Mss {
        /// The backend's MSS.
        leg: u16,
        /// The least that will do.
        client: u16,
    },
    /// The backend may send SACK blocks, which the client has not agreed to.
    #[error(
        "the backend uses SACK, to which the client has not agreed with its baseline: the SYN did not offer it when it left the pod, \
        so something on its way has added it"
    )]
    Sack,
    /// The backend may send ECN marks, which the client has not agreed to.
    #[error(
        "the backend uses ECN, to which the client has not agreed with its baseline: the SYN did not ask for it when it left the pod, \
        so something on its way has"
    )]
    Ecn,
}

/// Values of `TCP_REPAIR`, and of `TCP_REPAIR_QUEUE`.
const REPAIR_ON: libc::c_int = 1;
const REPAIR_OFF_NO_WINDOW_PROBE: libc::c_int = -1;
const NO_QUEUE: libc::c_int = 0;
const RECV_QUEUE: libc::c_int = 1;
const SEND_QUEUE: libc::c_int = 2;

const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;

impl Dialled {
    /// Puts a connection into repair mode and reads its state.
    pub(super) fn freeze(socket: Socket, local: SocketAddr, target: SocketAddr) -> Result<Self, DialError> {
        sockopt::set(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, REPAIR_ON)
            .map_err(DialError::at("freezing a connection (TCP_REPAIR)"))?;
        let read = || -> io::Result<_> {
            let seqs = (queue_seq(&socket, SEND_QUEUE)?, queue_seq(&socket, RECV_QUEUE)?);
            sockopt::set(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, NO_QUEUE)?;
            // In repair mode this is what the peer's SYN said, not what fits the path with this socket's options.
            let mss = sockopt::get(&socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG)?;
            // Its lowest bit is no part of the time (`do_tcp_getsockopt` in net/ipv4/tcp.c).
            let stamp = sockopt::get(&socket, libc::IPPROTO_TCP, libc::TCP_TIMESTAMP)?.wrapping_add(2);
            Ok((seqs, mss, stamp, Info::read(&socket)?, unacknowledged(&socket)?))
        };
        let ((snd_nxt, rcv_nxt), mss, stamp, info, left) = match read() {
            Ok(read) => read,
            Err(error) => {
                reset(socket);
                return Err(DialError::at("reading a frozen connection")(error));
            }
        };
        let it = Self {
            local,
            target,
            snd_nxt,
            rcv_nxt,
            snd_wscale: info.snd_wscale,
            rcv_wscale: info.rcv_wscale,
            options: info.options,
            stamp,
            mss: u16::try_from(mss).unwrap_or(u16::MAX),
            socket,
        };
        let error = match it.untouched(&info) {
            Ok(()) if left == 0 => return Ok(it),
            Ok(()) => DialError::PrefixNotAcked(target),
            Err(error) => error,
        };
        it.abandon();
        Err(error)
    }

    fn untouched(&self, info: &Info) -> Result<(), DialError> {
        match info.state {
            ESTABLISHED if info.received == 0 => Ok(()),
            ESTABLISHED => Err(DialError::PeerSpoke(self.target)),
            CLOSE_WAIT => Err(DialError::PeerClosed(self.target)),
            _ => Err(DialError::Reset(self.target)),
        }
    }

    /// The leg's four-tuple, as the records have it.
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        Tuple::new(self.local, self.target)
    }

    /// Whether a client can be spliced to it: the design's conditions on what was agreed at either side. `client` is
    /// what the client and its baseline agreed to, `baseline_mss` what the baseline's SYN-ACK said.
    pub fn fits(&self, client: ClientOptions, baseline_mss: u16) -> Result<(), Mismatch> {
        let sends = if client.mss == 0 { baseline_mss } else { baseline_mss.min(client.mss) };
        let extra = self.options & !client.options;
        if self.mss < sends {
            Err(Mismatch::Mss { leg: self.mss, client: sends })
        } else if extra & OPT_SACK != 0 {
            Err(Mismatch::Sack)
        } else if extra & OPT_ECN != 0 {
            Err(Mismatch::Ecn)
        } else {
            Ok(())
        }
    }

    /// Asks, once the leg is stored, whether the backend has sent anything to this socket since it was frozen: the
    /// socket has acknowledged it, and the client would never see it. On an error the leg must go again.
    pub fn confirm(&self) -> Result<(), DialError> {
        let info = Info::read(&self.socket).map_err(DialError::at("reading a frozen connection"))?;
        self.untouched(&info)
    }

    /// Takes the socket away in silence: the connection lives on at the backend, and in the leg.
    pub fn close(self) {
        drop(self.socket);
    }

    /// Gives the connection up: the backend gets a reset.
    pub fn abandon(self) {
        reset(self.socket);
    }
}

/// Leaves repair mode without a window probe, and closes. `SO_LINGER` makes that a reset.
fn reset(socket: Socket) {
    // Refused only if the connection is closed already: then there is nothing to be reset.
    let _ = sockopt::set(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, REPAIR_OFF_NO_WINDOW_PROBE);
    drop(socket);
}

fn queue_seq(socket: &Socket, queue: libc::c_int) -> io::Result<u32> {
    sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue)?;
    sockopt::get(socket, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ)
}

/// What is needed of `struct tcp_info`, whose offsets are the kernel's ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Info {
    state: u8,
    options: u8,
    snd_wscale: u8,
    rcv_wscale: u8,
    received: u64,
}

const AT_OPTIONS: usize = 5;
const AT_WSCALES: usize = 6;
const AT_BYTES_RECEIVED: usize = 128;
const TCPI_LEN: usize = AT_BYTES_RECEIVED + 8;

/// `TCPI_OPT_` bits with the records' names for them.
const TCPI_OPTIONS: [(u8, u8); 4] = [(1, OPT_TIMESTAMP), (2, OPT_SACK), (4, OPT_WSCALE), (8, OPT_ECN)];

impl Info {
    pub(super) fn read(socket: &Socket) -> io::Result<Self> {
        let raw: [u8; TCPI_LEN] = sockopt::read(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
        let received = raw.last_chunk().expect("the array ends with this field");
        let agreed = TCPI_OPTIONS.iter().filter(|(bit, _)| raw[AT_OPTIONS] & bit != 0);
        Ok(Self {
            state: raw[0],
            options: agreed.fold(0, |all, (_, option)| all | option),
            // Two bit fields of four bits: the first is the lower half on little-endian machines only.
            snd_wscale: if cfg!(target_endian = "little") { raw[AT_WSCALES] & 15 } else { raw[AT_WSCALES] >> 4 },
            rcv_wscale: if cfg!(target_endian = "little") { raw[AT_WSCALES] >> 4 } else { raw[AT_WSCALES] & 15 },
            received: u64::from_ne_bytes(*received),
        })
    }
}
