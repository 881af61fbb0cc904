use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
};

use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::{cold::testing::vanish, pods::testing::Lab};

const FAMILIES: [&str; 2] = ["10.9.0.2", "fd09::2"];

/// Listens on any port of this address of `b`.
fn listen(b: &Netns, ip: &str) -> (TcpListener, SocketAddr) {
    let ip: IpAddr = ip.parse().expect("an address");
    let listener = b.run(|| TcpListener::bind((ip, 0))).expect("entered").expect("bound");
    let at = listener.local_addr().expect("bound");
    (listener, at)
}

fn connect(a: &Netns, to: SocketAddr) -> (TcpStream, SocketAddr) {
    let stream = a.run(|| TcpStream::connect(to)).expect("entered").expect("somebody listens");
    let from = stream.local_addr().expect("connected");
    (stream, from)
}

fn has(netns: &Netns, local: SocketAddr, remote: SocketAddr) -> bool {
    Ends::of(netns).expect("this kernel answers").has(local, remote).expect("this kernel answers")
}

fn other_port(mut side: SocketAddr) -> SocketAddr {
    side.set_port(side.port() ^ 1);
    side
}

#[test]
fn a_socket_is_found_by_its_exact_tuple_in_its_own_namespace_until_it_is_gone() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    for ip in FAMILIES {
        let (_listener, there) = listen(&b, ip);
        let (stream, here) = connect(&a, there);
        assert!(has(&a, here, there));
        assert!(has(&b, there, here), "its other end");
        assert!(!has(&b, here, there), "another namespace");
        assert!(!has(&a, other_port(here), there));
        assert!(!has(&a, here, other_port(there)));
        vanish(&stream);
        assert!(!has(&a, here, there));
        assert!(has(&b, there, here), "it has heard nothing");
    }
}

#[test]
fn whoever_listens_on_the_port_is_not_the_connection() {
    let lab = Lab::new();
    let (a, _) = lab.pair();
    for (ip, remote) in [("10.9.0.1", "10.9.0.2:9"), ("fd09::1", "[fd09::2]:9"), ("::", "10.9.0.2:9")] {
        let (_listener, at) = listen(&a, ip);
        let remote: SocketAddr = remote.parse().expect("an address");
        let ip: IpAddr = if remote.is_ipv4() { [10, 9, 0, 1].into() } else { at.ip() };
        assert!(!has(&a, (ip, at.port()).into(), remote));
    }
}

#[test]
fn an_ipv6_socket_with_an_ipv4_connection_is_found_as_ipv4() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    let (_listener, there) = listen(&b, "10.9.0.2");
    let IpAddr::V4(ip) = there.ip() else { panic!("IPv4 was asked for") };
    let mapped: Ipv6Addr = ip.to_ipv6_mapped();
    let (stream, here) = connect(&a, (mapped, there.port()).into());
    assert!(here.is_ipv6());
    let here = SocketAddr::new(here.ip().to_canonical(), here.port());
    assert!(has(&a, here, there));
    vanish(&stream);
    assert!(!has(&a, here, there));
}

#[test]
fn a_socket_that_is_bound_to_an_interface_is_found() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    for ip in FAMILIES {
        let (_listener, there) = listen(&b, ip);
        let connected = a.run(|| {
            let socket = Socket::new(Domain::for_address(there), Type::STREAM, None)?;
            setsockopt(&socket.as_fd(), BindToDevice, &"eth0".into())?;
            socket.connect(&there.into()).map(|()| TcpStream::from(socket))
        });
        let stream = connected.expect("entered").expect("somebody listens");
        let here = stream.local_addr().expect("connected");
        assert!(has(&a, here, there));
        vanish(&stream);
        assert!(!has(&a, here, there));
    }
}

#[test]
fn a_connection_that_the_namespace_translates_is_there_and_one_that_it_only_tracks_is_not() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    for (ip, dead) in [("10.9.0.2", "10.9.0.77"), ("fd09::2", "fd09::77")] {
        let (_listener, there) = listen(&b, ip);
        let dialled = SocketAddr::new(dead.parse().expect("an address"), there.port());
        let rules = lab.path("rules");
        let family = if there.is_ipv4() { "ip" } else { "ip6" };
        let chain = format!("type nat hook output priority -100\n{family} daddr {dead} dnat to {ip}");
        let text = format!("table {family} lab {{\nchain out {{\n{chain}\n}}\n}}\n");
        std::fs::write(&rules, text).expect("a tmpfs of one's own");
        lab.command("a", "nft", &format!("-f {}", rules.display()));
        let (stream, here) = connect(&a, dialled);
        // At the interface it is a connection to the translated address.
        assert!(has(&a, here, there));
        assert!(
            Sockets::has(&mut a.run(Sockets::open).expect("entered").expect("opened"), here, dialled).expect("asked")
        );
        drop(stream);
        let (tracked, here) = connect(&a, there);
        assert!(has(&a, here, there));
        vanish(&tracked);
        assert!(!has(&a, here, there));
    }
}

#[test]
fn a_tracked_connection_is_forgotten_unless_a_socket_has_it() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    let rules = lab.path("rules");
    let text = "table inet lab {\nchain out {\ntype filter hook output priority 0\nct state invalid drop\n}\n}\n";
    std::fs::write(&rules, text).expect("a tmpfs of one's own");
    for ip in FAMILIES {
        let (_listener, there) = listen(&b, ip);
        lab.command("a", "nft", &format!("-f {}", rules.display()));
        let (stream, here) = connect(&a, there);
        let (_other, beside) = connect(&a, there);
        let mut ends = Ends::of(&a).expect("this kernel answers");
        let knows = |local| {
            let tracked = a.run(Translations::open).expect("entered").expect("opened").tracked(local, there);
            tracked.expect("this kernel answers")
        };
        assert!(!ends.untrack(here, there).expect("this kernel answers"), "its socket is there");
        assert!(knows(here));
        vanish(&stream);
        assert!(ends.untrack(here, there).expect("this kernel answers"));
        assert!(!knows(here) && knows(beside), "it, and no other");
        assert!(!ends.untrack(here, there).expect("this kernel answers"), "known no more");
        lab.command("a", "nft", "delete table inet lab");
    }
}

#[test]
fn what_the_kernel_does_not_answer_is_an_error_and_never_no() {
    let lab = Lab::new();
    let a = Netns::open(&lab.add("a")).expect("a fresh namespace");
    for nobody in ["10.9.0.1:1", "[fd09::1]:1"] {
        let nobody: SocketAddr = nobody.parse().expect("an address");
        assert!(!has(&a, nobody, nobody));
        let mut sockets = a.run(Sockets::open).expect("entered").expect("opened").without_tcp();
        let answer = sockets.has(nobody, nobody);
        assert!(matches!(answer, Err(EndsError::NoDiag)), "{answer:?}");
    }
    lab.del("a");
    assert!(matches!(Ends::of(&a), Err(EndsError::Netns(NetnsError::Gone { .. }))));
    let text = EndsError::NoDiag.to_string();
    assert!(text.contains("modprobe tcp_diag"), "{text}");
}
