//! What a kernel says of one of its TCP sockets.

use std::{io, mem::MaybeUninit, net::TcpStream, os::fd::AsRawFd};

/// Figures of a connection, as one end's kernel has them (`TCP_INFO` in tcp(7)): those that a peer which does not acknowledge changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFigures {
    /// Segments that were sent again, from the beginning on.
    pub retransmitted: u32,
    /// Congestion window, in segments.
    pub window: u32,
    /// The window below which it grows fast; very large where nothing was ever lost.
    pub threshold: u32,
    /// Segments that are not acknowledged.
    pub unacknowledged: u32,
    /// How often the retransmission timer has fired since something was acknowledged.
    pub timeouts: u8,
    /// Smoothed round trip, in microseconds.
    pub round_trip: u32,
}

impl TcpFigures {
    /// Asks for them.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into memory that outlives the call.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: integers, all of them zero where the kernel has written nothing.
        let info = unsafe { info.assume_init() };
        Ok(Self {
            retransmitted: info.tcpi_total_retrans,
            window: info.tcpi_snd_cwnd,
            threshold: info.tcpi_snd_ssthresh,
            unacknowledged: info.tcpi_unacked,
            timeouts: info.tcpi_retransmits,
            round_trip: info.tcpi_rtt,
        })
    }
}
