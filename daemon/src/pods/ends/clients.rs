//! The TCP connections that a pod has open, with what both sides' SYNs said: `sock_diag`, see `man 7 sock_diag`, and `struct tcp_info` in
//! include/uapi/linux/tcp.h.

use std::net::SocketAddr;

use nix::{
    libc,
    sys::socket::{AddressFamily, SockProtocol},
};
use sidetrack_splice::abi::{
    MARK,
    addr::Tuple,
    record::{OPT_ECN, OPT_SACK, OPT_TIMESTAMP, OPT_WSCALE, Said},
};

use super::{
    EndsError,
    sockets::{BY_FAMILY, REQUEST, STATES, socket},
};
use crate::{
    netlink::{Ask, Asker, u16_at, u32_at},
    pods::Netns,
};

/// A request's extensions: a bit for each attribute.
const EXTENSIONS: usize = 2;
/// `INET_DIAG_INFO`: a `struct tcp_info`.
const INFO: u16 = 2;
/// `INET_DIAG_ULP_INFO`: a protocol that sits on the socket.
const ULP: u16 = 19;
/// `TCP_ESTABLISHED`, `TCP_SYN_SENT`.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
/// `INET_DIAG_MARK`, which who has `CAP_NET_ADMIN` is told.
const SOCKET_MARK: u16 = 15;
/// `struct inet_diag_msg`: how much was written and is not acknowledged, or not sent; then attributes.
const UNSENT: usize = 60;
const ATTRIBUTES: usize = 72;

/// What the marks of all versions' agents have in common ([`MARK`]).
const ANY_ABI: u32 = !0xfff;
/// `idiag_state`.
const STATE: usize = 1;
/// `idiag_timer`, and its word for a socket that waits to probe (`SO_KEEPALIVE`).
const TIMER: usize = 2;
const KEEP_ALIVE: u8 = 2;

/// How long a socket must have been silent before silence says something. A client that has got `100 Continue` sends its body at once;
/// that it has not tells that the last response was none.
const QUIET_MS: u32 = 200;
/// The same where the order of what was last sent and got is not to be told.
const QUIET_TIE_MS: u32 = 1000;

/// What a client's socket shows of the exchange that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// None: it has never sent anything, or the last payload came from the server some time ago, and nothing is under way.
    None,
    /// None, but the last payload is too young to tell.
    Young,
    /// Something is under way.
    Some,
    /// Its SYN is: it has sent nothing, and what the two sides say is not known.
    Opening,
}

/// A connection as its client's socket shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// What its SYN said; nothing while that is under way.
    pub said: Said,
    /// What the server's SYN-ACK said; the segment size at least that which is used.
    pub heard: Said,
    pub exchange: Exchange,
    /// Another protocol sits on the socket (`mptcp`, `tls`): its bytes are not the application's.
    pub layered: bool,
}

impl Client {
    /// The connection's name in the maps.
    pub fn conn(&self) -> Tuple {
        Tuple::new(self.local, self.remote)
    }
}

/// All that are established in this namespace, or about to be, of both families, but for the legs that an agent dials at this moment.
pub(crate) fn open(netns: &Netns) -> Result<Vec<Client>, EndsError> {
    let mut asker = netns.run(|| Asker::open(SockProtocol::NetlinkSockDiag))?.map_err(EndsError::Diag)?;
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = [0; REQUEST];
        request[0] = family as u8;
        request[1] = libc::IPPROTO_TCP as u8;
        request[EXTENSIONS] = 1 << (INFO - 1);
        request[STATES].copy_from_slice(&(1_u32 << ESTABLISHED | 1 << SYN_SENT).to_ne_bytes());
        match asker.ask(Ask::List, BY_FAMILY, &request, BY_FAMILY, client) {
            // A torn list lacks an entry, or has it twice: both are harmless.
            Ok(answers) => all.extend(answers.found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Err(EndsError::NoDiag),
            Err(error) => return Err(EndsError::Diag(error)),
        }
    }
    Ok(all)
}

/// Attribute `kind` of an answer.
fn attribute(answer: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = answer.get(ATTRIBUTES..)?;
    while rest.len() >= 4 {
        let len = usize::from(u16_at(rest, 0)?);
        if u16_at(rest, 2)? & 0x3fff == kind {
            return rest.get(4..len);
        }
        rest = rest.get(len.max(4).next_multiple_of(4)..).unwrap_or(&[]);
    }
    None
}

fn client(answer: &[u8]) -> Option<Client> {
    let (local, remote) = socket(answer)?;
    let mark = attribute(answer, SOCKET_MARK).and_then(|mark| u32_at(mark, 0)).unwrap_or_default();
    if mark & ANY_ABI == MARK & ANY_ABI {
        return None;
    }
    let info = attribute(answer, INFO)?;
    let unsent = u32_at(answer, UNSENT)?;
    let layered = attribute(answer, ULP).is_some_and(|nested| !nested.is_empty());
    if *answer.get(STATE)? == SYN_SENT {
        let unknown = Said::default();
        // The SYN's own number; what is more lies in the SYN (TCP Fast Open), or waits for its answer.
        let exchange = if unsent <= 1 { Exchange::Opening } else { Exchange::Some };
        return Some(Client { local, remote, said: unknown, heard: unknown, exchange, layered });
    }
    let (said, heard) = said(info)?;
    let probes = *answer.get(TIMER)? == KEEP_ALIVE;
    Some(Client { local, remote, said, heard, exchange: exchange(info, unsent, probes)?, layered })
}

/// What both SYNs said.
fn said(info: &[u8]) -> Option<(Said, Said)> {
    // TCPI_OPT_TIMESTAMPS, _SACK, _WSCALE, _ECN.
    let bits = [(1, OPT_TIMESTAMP), (2, OPT_SACK), (4, OPT_WSCALE), (8, OPT_ECN)];
    let agreed = *info.get(5)?;
    let options = bits.iter().filter(|(bit, _)| agreed & bit != 0).fold(0, |all, (_, option)| all | option);
    let scales = *info.get(6)?;
    let (sends, advertised) = (u32_at(info, 16)?, u32_at(info, 84)?);
    // Both have made room for timestamps (12 bytes), what was said has not.
    let stamps = if options & OPT_TIMESTAMP != 0 { 12 } else { 0 };
    let mss = |size: u32| u16::try_from((size + stamps).max(536)).unwrap_or(u16::MAX);
    let wscale = |scale: u8| if options & OPT_WSCALE != 0 { scale } else { 0 };
    Some((
        Said { mss: mss(advertised), options, wscale: wscale(scales >> 4) },
        Said { mss: mss(sends), options, wscale: wscale(scales & 0xf) },
    ))
}

/// `probes`: the socket sends keep-alive probes, whose acknowledgements count as the last one.
fn exchange(info: &[u8], unsent: u32, probes: bool) -> Option<Exchange> {
    let (unacked, sent_ago, got_ago, acked_ago) =
        (u32_at(info, 24)?, u32_at(info, 44)?, u32_at(info, 52)?, u32_at(info, 56)?);
    let (got, sent) = (u32_at(info, 152)?, u32_at(info, 156)?);
    let tie = got_ago == sent_ago;
    Some(if unsent != 0 || unacked != 0 {
        Exchange::Some
    } else if sent == 0 && got == 0 {
        Exchange::None
    } else if sent == 0 || got == 0 || got_ago > sent_ago || tie && !probes && acked_ago < got_ago {
        // Within one tick of the clock: what was acknowledged later was sent later.
        Exchange::Some
    } else if got_ago < if tie && probes { QUIET_TIE_MS } else { QUIET_MS } {
        Exchange::Young
    } else {
        Exchange::None
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;
    use crate::pods::testing::Lab;

    #[test]
    fn a_socket_shows_whether_it_is_within_an_exchange() {
        let lab = Lab::new();
        let (a, b) = lab.pair();
        for ip in ["10.9.0.2", "fd09::2"] {
            let listener = b.run(|| TcpListener::bind((ip, 0))).expect("entered").expect("bound");
            let there = listener.local_addr().expect("bound");
            let mut stream = a.run(|| TcpStream::connect(there)).expect("entered").expect("somebody listens");
            let (mut server, _) = listener.accept().expect("connected");
            let here = stream.local_addr().expect("connected");
            let shown = || {
                let all = open(&a).expect("this kernel answers");
                all.into_iter().find(|c| (c.local, c.remote) == (here, there)).expect("its socket")
            };
            let is = |want: Exchange| {
                let until = Instant::now() + Duration::from_secs(5);
                while shown().exchange != want && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(5));
                }
                shown().exchange == want
            };
            let fresh = shown();
            assert_eq!(fresh.exchange, Exchange::None, "nothing was sent: {fresh:?}");
            assert!(!fresh.layered);
            // A pair of virtual interfaces has an MTU of 1500.
            let ip_header = if here.is_ipv4() { 20 } else { 40 };
            for said in [fresh.said, fresh.heard] {
                assert_eq!(said.mss, 1480 - ip_header, "{fresh:?}");
                assert_ne!(said.options & (OPT_TIMESTAMP | OPT_SACK | OPT_WSCALE), 0);
            }
            stream.write_all(b"GET").expect("connected");
            assert!(is(Exchange::Some), "the last payload is the client's");
            // Time stamps are milliseconds: an answer within one would be as old as its request.
            std::thread::sleep(Duration::from_millis(10));
            server.write_all(b"HTTP").expect("connected");
            stream.read_exact(&mut [0; 4]).expect("connected");
            assert!(is(Exchange::None), "the server's, and quiet: {:?}", shown());
            socket2::SockRef::from(&stream).set_mark(sidetrack_splice::abi::MARK_DIAL).expect("as root");
            let all = open(&a).expect("this kernel answers");
            assert!(all.iter().all(|c| c.local != here), "a leg that is dialled is nobody's: {all:?}");
            drop((stream, server));
        }
    }

    /// Two kernels that speak MPTCP do so where a program asks for it.
    #[test]
    fn a_socket_that_another_protocol_sits_on_shows_it() {
        use socket2::{Domain, Protocol, Socket, Type};
        let lab = Lab::new();
        let (a, b) = lab.pair();
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(libc::IPPROTO_MPTCP)));
        if socket().is_err() {
            eprintln!("SKIPPED: this kernel has no MPTCP");
            return;
        }
        let listener = b.run(|| -> std::io::Result<Socket> {
            let listener = socket()?;
            listener.bind(&std::net::SocketAddr::from(([10, 9, 0, 2], 0)).into())?;
            listener.listen(1)?;
            Ok(listener)
        });
        let listener = listener.expect("entered").expect("bound");
        let there = listener.local_addr().expect("bound");
        let stream = a.run(|| socket().and_then(|socket| socket.connect(&there).map(|()| socket)));
        let stream = stream.expect("entered").expect("somebody listens");
        let here = stream.local_addr().expect("connected").as_socket().expect("an address of IPv4");
        let all = open(&a).expect("this kernel answers");
        let shown = all.into_iter().find(|client| client.local == here).expect("its socket");
        assert!(shown.layered, "{shown:?}");
    }

    #[test]
    fn what_is_too_short_is_no_client() {
        assert_eq!(client(&[0; ATTRIBUTES]), None);
        assert_eq!(exchange(&[0; 100], 0, false), None);
        assert_eq!(exchange(&[0; 160], 1, false), Some(Exchange::Some), "not acknowledged");
    }

    #[test]
    fn an_acknowledged_probe_is_no_request() {
        let shown = |ago: u32, acked_ago: u32, probes| {
            let mut info = [0; 160];
            for (at, number) in [(44, ago), (52, ago), (56, acked_ago), (152, 1), (156, 1)] {
                info[at..at + 4].copy_from_slice(&u32::to_ne_bytes(number));
            }
            exchange(&info, 0, probes)
        };
        assert_eq!(shown(5000, 5000, false), Some(Exchange::None));
        assert_eq!(shown(5000, 10, false), Some(Exchange::Some), "what was sent was acknowledged behind what was got");
        assert_eq!(shown(5000, 10, true), Some(Exchange::None), "or a probe was");
        assert_eq!(shown(300, 10, true), Some(Exchange::Young), "in case it was not");
    }
}
