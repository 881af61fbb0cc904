use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::LazyLock,
};

use sidetrack_splice::abi::{addr::Tuple, record::OPT_TIMESTAMP};

use super::*;
use crate::{
    cold::{
        frame::{
            ACK, Frame, RST, reset_frame,
            testing::{Spec, make},
        },
        socket::{PacketSocket, replay},
        testing::Capture,
    },
    pods::testing::Lab,
};

fn ip(v6: bool, last: u8) -> IpAddr {
    if v6 { format!("fd09::{last}").parse().expect("v6") } else { [10, 9, 0, last].into() }
}

/// A server in pod b.
fn listen(b: &Pod, v6: bool) -> (TcpListener, SocketAddr) {
    let listener = b.netns.run(|| TcpListener::bind((ip(v6, 2), 0))).expect("entered").expect("bound");
    let target = listener.local_addr().expect("bound");
    (listener, target)
}

fn ask(ports: &PortBook, target: SocketAddr) -> DialRequest<'_> {
    /// Never filled.
    static NONE: LazyLock<Spare> = LazyLock::new(Spare::default);
    DialRequest {
        spare: &NONE,
        local: ip(target.is_ipv6(), 1),
        target,
        ports,
        prefix: Vec::new(),
        deadline: Instant::now() + Duration::from_secs(2),
        client: ClientOptions { mss: 1460, options: OPT_WSCALE | OPT_SACK, wscale: 7 },
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("allowed");
    stream
}

#[tokio::test]
async fn frames_behind_the_frozen_numbers_reach_the_backend() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let socket = PacketSocket::open_in(&a.netns, a.link.index).await.expect("entered").expect("root may");
    for v6 in [false, true] {
        let (listener, target) = listen(&b, v6);
        let ports = PortBook::default();
        let prefix = b"GET / HT".to_vec();
        let dialled = dial(&a, DialRequest { prefix, ..ask(&ports, target) }).await.expect("connected");
        let mut server = accept(&listener);
        assert_eq!(server.peer_addr().expect("connected"), dialled.local);
        assert_eq!(dialled.local.port(), 61000);
        let headers = if v6 { 60 } else { 40 };
        assert_eq!((dialled.mss, dialled.rcv_wscale), (1500 - headers, 7));
        assert_eq!(dialled.options & (OPT_WSCALE | OPT_SACK), OPT_WSCALE | OPT_SACK);
        dialled.confirm().expect("the server is silent");
        let rest: Vec<u8> = (0..60_000_u32).map(|n| (n / 9) as u8).collect();
        let frame = make(&Spec {
            l2: [b.link.mac, a.link.mac].concat().try_into().expect("two addresses"),
            from: dialled.local,
            to: target,
            seq: dialled.snd_nxt,
            ack: dialled.rcv_nxt,
            flags: ACK,
            payload: &rest,
        });
        let mut capture = Capture::of(&a);
        // The options that make() adds are no-operations: with timestamps agreed to, Linux takes segments without.
        replay(&socket, &frame, 1380).expect("sent");
        let mut got = vec![0; 8 + rest.len()];
        server.read_exact(&mut got).expect("all of it arrives");
        assert!(got.starts_with(b"GET / HT") && got[8..] == rest);
        server.write_all(b"answer").expect("written");
        let answer = capture.next(|f| f.payload() == b"answer");
        let answer = answer.frame().expect("a frame");
        assert_eq!((answer.seq(), answer.tuple()), (dialled.rcv_nxt, Tuple::new(target, dialled.local)));
        assert_eq!(answer.ack(), dialled.snd_nxt.wrapping_add(rest.len() as u32));
    }
}

#[tokio::test]
async fn closing_a_frozen_connection_says_nothing_to_the_backend() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let socket = PacketSocket::open_in(&a.netns, a.link.index).await.expect("entered").expect("root may");
    for v6 in [false, true] {
        let (listener, target) = listen(&b, v6);
        let ports = PortBook::default();
        let mut capture = Capture::of(&b);
        let dialled = dial(&a, ask(&ports, target)).await.expect("connected");
        let mut server = accept(&listener);
        let mut l2 = [0; 14];
        l2[..12].copy_from_slice(&[b.link.mac, a.link.mac].concat());
        let reset = reset_frame(&l2, &dialled.tuple(), dialled.snd_nxt, Some(dialled.rcv_nxt));
        let (local, snd_nxt) = (dialled.local, dialled.snd_nxt);
        dialled.close();
        socket.send(&reset).expect("sent");
        let handshake = |f: &Frame<'_>| f.source() == local && f.seq() == snd_nxt && f.flags() == ACK;
        capture.next(handshake);
        let next = capture.next(|f| f.source() == local);
        assert_eq!(next.frame().expect("a frame").flags(), RST | ACK, "the first word since the handshake is ours");
        let end = server.read(&mut [0; 8]).expect_err("reset by our frame");
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_dialled_connection_that_is_given_up_is_reset() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let (listener, target) = listen(&b, false);
    let ports = PortBook::default();
    dial(&a, ask(&ports, target)).await.expect("connected").abandon();
    let end = accept(&listener).read(&mut [0; 8]).expect_err("reset");
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_the_backend_says_too_early_is_noticed() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let (listener, target) = listen(&b, true);
    let ports = PortBook::default();
    let eventually = |dialled: &Dialled| loop {
        if let Err(error) = dialled.confirm() {
            break error;
        }
    };
    let dialled = dial(&a, ask(&ports, target)).await.expect("connected");
    accept(&listener).write_all(b"220 hello").expect("written");
    assert!(matches!(eventually(&dialled), DialError::PeerSpoke(_) | DialError::PeerClosed(_)));
    let dialled = dial(&a, ask(&ports, target)).await.expect("connected");
    drop(accept(&listener));
    assert!(matches!(eventually(&dialled), DialError::PeerClosed(_)));
}

#[tokio::test]
async fn ports_of_the_pods_own_sockets_are_stepped_over() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let _own = a.netns.run(|| TcpListener::bind("0.0.0.0:61000")).expect("entered").expect("bound");
    let (_listener, target) = listen(&b, false);
    let (_other, second) = listen(&b, false);
    let ports = PortBook::default();
    let mut legs = Vec::new();
    for (target, expected) in [(target, 61001), (target, 61002), (second, 61001)] {
        let dialled = dial(&a, ask(&ports, target)).await.expect("connected");
        assert_eq!(dialled.local.port(), expected);
        legs.push(dialled);
    }
}

#[tokio::test]
async fn where_the_pods_own_sockets_have_every_port_that_is_tried_the_error_says_so() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let own = || (61000..61000 + TRIES as u16).map(|port| TcpListener::bind(("0.0.0.0", port))).collect();
    let own: Vec<_> = a.netns.run(own).expect("entered");
    assert!(own.iter().all(Result::is_ok), "{own:?}");
    let (_listener, target) = listen(&b, false);
    let ports = PortBook::default();
    let error = dial(&a, ask(&ports, target)).await.expect_err("no port");
    let (said, start) =
        (error.to_string(), format!("no local port is left for a leg to {target}: 16 in a row belong to"));
    assert!(said.starts_with(&start) && said.contains("Address already in use"), "{said}");
    let next = dial(&a, ask(&ports, target)).await.expect("the next ones are free");
    assert_eq!(next.local.port(), 61000 + TRIES as u16);
}

#[tokio::test]
async fn a_pod_with_a_range_of_its_own_keeps_it() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    a.netns.run(|| std::fs::write(range, "16384 65534")).expect("entered").expect("root may");
    let (_listener, target) = listen(&b, false);
    let ports = PortBook::default();
    let first = dial(&a, ask(&ports, target)).await.expect("connected");
    assert_eq!(first.local.port(), 65535);
    let second = dial(&a, ask(&ports, target)).await.expect("connected");
    assert_eq!(second.local.port(), 16384);
}

#[tokio::test]
async fn a_spare_socket_dials_once_without_a_way_into_the_namespace() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let stamped = ClientOptions { mss: 1000, options: OPT_WSCALE | OPT_TIMESTAMP, wscale: 3 };
    for v6 in [false, true] {
        let (listener, target) = listen(&b, v6);
        let (ports, spare) = (PortBook::default(), Spare::default());
        let request = |client| DialRequest { spare: &spare, client, ..ask(&ports, target) };
        let first = dial(&a, request(stamped)).await.expect("connected");
        assert!(spare.take(target).is_none(), "nothing is made ahead of the first dial's end");
        spare.refill(&a, target);
        // A port that it cannot have: the dial takes another one, and a socket of its own.
        let next = first.local.port() + 1;
        let taken = a.netns.run(|| TcpListener::bind((ip(v6, 1), next))).expect("entered").expect("free");
        let other = dial(&a, request(stamped)).await.expect("connected");
        assert!(other.local.port() > next);
        drop(taken);
        assert!(spare.take(target).is_none(), "it was used");
        spare.refill(&a, target);
        spare.refill(&a, target);
        let before = ports.in_use();
        let made = dial(&a, request(stamped)).await.expect("connected");
        assert_eq!(ports.in_use(), before + 1);
        assert_eq!((made.rcv_wscale, made.mss), (3, 1000));
        assert!(made.options & OPT_TIMESTAMP != 0);
        assert!(spare.take(target).is_none(), "it was used");
        for dialled in [first, other, made] {
            dialled.abandon();
        }
        drop(listener);
    }
    // One that was made dials where the way in is closed.
    let (_listener, target) = listen(&b, false);
    let (ports, spare) = (PortBook::default(), Spare::default());
    let request = || DialRequest { spare: &spare, ..ask(&ports, target) };
    dial(&a, request()).await.expect("connected");
    spare.refill(&a, target);
    lab.del("a");
    dial(&a, request()).await.expect("connected");
    let gone = dial(&a, request()).await;
    assert!(matches!(gone, Err(DialError::Netns(_))), "{gone:?}");
}

#[tokio::test]
async fn the_clients_window_scale_and_mss_are_asked_for() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let (_listener, target) = listen(&b, false);
    let ports = PortBook::default();
    let mut capture = Capture::of(&a);
    for wscale in [0, 3, 6] {
        let client = ClientOptions { mss: 1000, options: OPT_WSCALE, wscale };
        let dialled = dial(&a, DialRequest { client, ..ask(&ports, target) }).await.expect("connected");
        assert_eq!((dialled.rcv_wscale, dialled.mss), (wscale, 1000));
        assert!(matches!(dialled.fits(client, 1460), Err(Mismatch::Sack)));
        let syn = capture.next(|f| f.source() == dialled.local && f.flags() & 2 != 0);
        // The first option of a Linux SYN.
        let options = syn.frame().expect("a frame").tcp_at() + 20;
        assert_eq!(syn.bytes[options..options + 4], [2, 4, 3, 232]);
    }
    let client = ClientOptions { mss: 1460, options: OPT_WSCALE | OPT_SACK | OPT_TIMESTAMP, wscale: 7 };
    let dialled = dial(&a, DialRequest { client, ..ask(&ports, target) }).await.expect("connected");
    assert_eq!(dialled.fits(client, 1460), Ok(()));
    assert_eq!(dialled.fits(client, 9000), Ok(()), "the client never sends more than its own MSS");
    let jumbo = ClientOptions { mss: 8960, ..client };
    assert_eq!(dialled.fits(jumbo, 8960), Err(Mismatch::Mss { leg: 1460, client: 8960 }));
}

#[tokio::test]
async fn each_failure_has_its_name_and_gives_the_port_back() {
    let lab = Lab::new();
    lab.pair();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    lab.ip("a", "neigh add 10.9.0.99 lladdr 02:00:00:00:00:99 dev eth0");
    lab.ip("a", "route add unreachable 10.77.0.0/16");
    let ports = PortBook::default();
    let soon = || Instant::now() + Duration::from_millis(200);
    let to = |address: [u8; 4], port: u16| SocketAddr::from((address, port));
    let refused = dial(&a, ask(&ports, to([10, 9, 0, 2], 1))).await;
    assert!(matches!(refused, Err(DialError::Refused(_))), "{refused:?}");
    let silent = dial(&a, DialRequest { deadline: soon(), ..ask(&ports, to([10, 9, 0, 99], 80)) }).await;
    assert!(matches!(silent, Err(DialError::TimedOut(_))), "{silent:?}");
    let nowhere = dial(&a, ask(&ports, to([10, 77, 0, 1], 80))).await;
    assert!(matches!(nowhere, Err(DialError::Unreachable(..))), "{nowhere:?}");
    let foreign = dial(&a, DialRequest { local: ip(false, 77), ..ask(&ports, to([10, 9, 0, 2], 80)) }).await;
    assert!(matches!(foreign, Err(DialError::NotLocal(_))), "{foreign:?}");
    let family = dial(&a, DialRequest { local: ip(true, 1), ..ask(&ports, to([10, 9, 0, 2], 80)) }).await;
    assert!(matches!(family, Err(DialError::Family(..))), "{family:?}");
    // A server that never reads: its window closes.
    let (listener, target) = listen(&b, false);
    let prefix = vec![b'x'; 4 << 20];
    let stuck = dial(&a, DialRequest { prefix, deadline: soon(), ..ask(&ports, target) }).await;
    assert!(matches!(stuck, Err(DialError::PrefixNotAcked(_))), "{stuck:?}");
    let mut server = accept(&listener);
    let end = io::copy(&mut server, &mut io::sink()).expect_err("reset");
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    lab.del("a");
    let gone = dial(&a, ask(&ports, target)).await;
    assert!(matches!(gone, Err(DialError::Netns(_))), "{gone:?}");
    assert_eq!(ports.in_use(), 0, "all ports rest");
}
