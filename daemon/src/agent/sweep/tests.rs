//! The sweep on real maps, with the programs on a real pod's interface.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Mutex, RwLock},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sidetrack_splice::abi::{
    record::{Handshake, LEG_BASELINE, LEG_FORK, Leg, LegRef, PHASE_CLOSED, PHASE_HOLD, STATE_OWNER},
    route::{Service, ServiceAddr},
};

use super::*;
use crate::{
    agent::attached::Attached,
    bpf,
    cold::{ClientOptions, DialRequest, Dialled, dial, testing::vanish},
    config::Config,
    pods::{Netns, PodEvent, testing::Lab},
};

const MINUTE: u64 = 60_000_000_000;
/// The slot of the fork's leg.
const SLOT: usize = 2;

/// Pod `a`, with the programs, beside `b`, which serves.
struct Scene {
    shared: Arc<Shared>,
    a: Netns,
    b: Netns,
    pins: PathBuf,
    lab: Lab,
}

impl Scene {
    async fn open() -> Self {
        let lab = Lab::new();
        let (a, b) = lab.pair();
        let pins = lab.path("bpf");
        std::fs::create_dir(&pins).expect("a tmpfs of one's own");
        mount(Some("bpf"), &pins, Some("bpf"), MsFlags::empty(), None::<&str>).expect("root may mount");
        let config = Config { connections: 256, ..Config::default() };
        let (attacher, maps, _, _) =
            bpf::load(&pins, &config).expect("this kernel takes the programs").into_parts(false);
        let shared = Shared {
            began: state::now(),
            pin_dir: pins.clone(),
            maps,
            config,
            attached: Attached::new(attacher),
            taking_over: false.into(),
            tracked: tracked::Tracked::default(),
            routed: false.into(),
            targets: RwLock::default(),
        };
        let shared = Arc::new(shared);
        for event in [PodEvent::Appeared(lab.pod("a")), PodEvent::Listed] {
            shared.attached.apply(&shared, event).await;
        }
        Self { shared, a, b, pins, lab }
    }

    /// Listens on any port of this address of `b`.
    fn listen(&self, ip: IpAddr) -> (TcpListener, SocketAddr) {
        let listener = self.b.run(|| TcpListener::bind((ip, 0))).expect("entered").expect("bound");
        let at = listener.local_addr().expect("bound");
        (listener, at)
    }

    /// The same for a service with routes.
    fn serve(&self, ip: IpAddr) -> (TcpListener, SocketAddr) {
        let (listener, at) = self.listen(ip);
        let key = ServiceAddr { addr: at.ip().into(), port: at.port().to_be(), pad: 0 };
        self.shared.maps.filter.add(at).expect("room");
        self.shared.maps.services.put(&key, &Service { id: 1, routes: 1 }).expect("room");
        (listener, at)
    }

    fn connect(&self, to: SocketAddr) -> TcpStream {
        self.a.run(|| TcpStream::connect(to)).expect("entered").expect("somebody listens")
    }

    /// A connection of `a` to a service, with its name in the maps.
    fn client(&self, to: SocketAddr) -> (TcpStream, Tuple) {
        let stream = self.connect(to);
        let local = stream.local_addr().expect("connected");
        let plain = |side: SocketAddr| SocketAddr::new(side.ip().to_canonical(), side.port());
        let conn = Tuple::new(plain(local), plain(to));
        assert!(self.shared.maps.connections.find(&conn).is_some(), "the programs follow {conn}");
        (stream, conn)
    }

    /// A connection to `to` that is frozen, as one that is about to become a leg. Returns its name.
    async fn dial(&self, to: SocketAddr) -> (Dialled, Tuple) {
        let local = if to.is_ipv4() { IpAddr::from([10, 9, 0, 1]) } else { "fd09::1".parse().expect("an address") };
        let member = self.shared.attached.find(local).expect("attached");
        self.shared.maps.filter.add(to).expect("room");
        let request = DialRequest {
            local,
            target: to,
            ports: &member.ports,
            spare: &member.spare,
            prefix: b"GET / HT".to_vec(),
            deadline: tokio::time::Instant::now() + Duration::from_secs(5),
            client: ClientOptions::default(),
        };
        let dialled = dial(&member.pod, request).await.expect("somebody listens");
        let tuple = dialled.tuple();
        (dialled, tuple)
    }

    /// Makes a fork at `to` the owner of a connection. Returns its leg, and the fork's end of it.
    fn divert(&self, conn: &Tuple, ip: IpAddr) -> (Tuple, TcpStream) {
        let (listener, at) = self.listen(ip);
        let stream = self.connect(at);
        let leg = Tuple::new(stream.local_addr().expect("connected"), at);
        let (fork, _) = listener.accept().expect("connected");
        let next = vanish(&stream);
        let mut c = self.shared.maps.connections.find(conn).expect("followed");
        c.now.owner = SLOT as u8;
        c.legs[SLOT] = LegRef {
            remote: leg.remote,
            remote_port: leg.remote_port,
            local_port: leg.local_port,
            kind: LEG_FORK,
            ..LegRef::default()
        };
        let record = Leg {
            conn: *conn,
            slot: SLOT as u8,
            kind: LEG_FORK,
            state: STATE_OWNER,
            isn: c.isn,
            cs_off: next.wrapping_sub(c.resp.acked as u32),
            ..Leg::default()
        };
        self.shared.maps.legs.put(&leg, &record).expect("room");
        self.shared.maps.connections.put(conn, &c).expect("room");
        (leg, fork)
    }

    fn known(&self, conn: &Tuple) -> bool {
        self.shared.maps.connections.find(conn).is_some()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        _ = umount2(&self.pins, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_client_that_vanished_without_a_word_is_forgotten_after_an_hour_and_its_leg_reset() {
    let scene = Scene::open().await;
    for ip in [IpAddr::from([10, 9, 0, 2]), "fd09::2".parse().expect("an address")] {
        let (_service, to) = scene.serve(ip);
        let (client, conn) = scene.client(to);
        let (leg, mut fork) = scene.divert(&conn, ip);
        let (mut known, start) = (Known::default(), state::now());
        let mut at = |minute: u64| {
            once(&scene.shared, &mut known, start + minute * MINUTE);
            (scene.known(&conn), scene.shared.maps.legs.find(&leg).is_some())
        };
        assert_eq!(at(0), (true, true));
        assert_eq!(at(2), (true, true), "its socket is there");
        assert_eq!(at(61), (true, true), "it still is");
        vanish(&client);
        assert_eq!(at(66), (true, true), "asked five minutes ago");
        assert_eq!(at(72), (false, false));
        fork.set_read_timeout(Some(Duration::from_secs(5))).expect("more than zero");
        let heard = fork.read(&mut [0]).expect_err("nobody speaks");
        assert_eq!(heard.kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_client_that_is_there_is_kept_for_ever_whatever_its_socket_is() {
    let scene = Scene::open().await;
    let v4 = Ipv4Addr::new(10, 9, 0, 2);
    let (_v4, to_v4) = scene.serve(v4.into());
    let (_v6, to_v6) = scene.serve("fd09::2".parse().expect("an address"));
    let mapped = SocketAddr::new(v4.to_ipv6_mapped().into(), to_v4.port());
    let mut clients: Vec<_> = [to_v4, to_v6, mapped].into_iter().map(|to| scene.client(to)).collect();
    let (gone, of_the_same_pod) = scene.client(to_v4);
    // One that the pod's kernel knows nothing of at any time: a virtual machine's, say.
    let (elsewhere, machine) = scene.client(to_v4);
    vanish(&elsewhere);
    let (mut known, start) = (Known::default(), state::now());
    for minute in [0, 2] {
        once(&scene.shared, &mut known, start + minute * MINUTE);
    }
    vanish(&gone);
    for day in 0..100 {
        once(&scene.shared, &mut known, start + day * 24 * 60 * MINUTE);
        for (_, conn) in &clients {
            assert!(scene.known(conn), "{conn} on day {day}");
        }
        assert_eq!(scene.known(&of_the_same_pod), day == 0);
        assert!(scene.known(&machine), "no socket is no evidence where none has been");
    }
    // What it asks after all that time is read: the record knows of it.
    for (stream, conn) in &mut clients {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("connected");
        assert_eq!(scene.shared.maps.connections.find(conn).expect("kept").now.asked, 1);
    }
    assert!(!known.said, "the kernel has answered");
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nothing panics with it").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn where_the_kernel_does_not_answer_nothing_is_forgotten_and_that_is_said_once() {
    let scene = Scene::open().await;
    let (_service, to) = scene.serve([10, 9, 0, 2].into());
    let clients: Vec<_> = (0..3).map(|_| scene.client(to)).collect();
    let conns: Vec<_> = clients.iter().map(|(_, conn)| *conn).collect();
    let (mut known, start, log) = (Known::default(), state::now(), Log::default());
    for minute in [0, 2] {
        once(&scene.shared, &mut known, start + minute * MINUTE);
    }
    for (gone, _) in &clients {
        vanish(gone);
    }
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        once(&scene.shared, &mut known, start);
        let mut ends = Ends::of(&scene.a).expect("this kernel answers").without_tcp();
        for hour in 2..9 {
            judge(&scene.shared, &mut known, "a", &mut ends, &conns, start + hour * 60 * MINUTE);
        }
    });
    assert!(conns.iter().all(|conn| scene.known(conn)));
    let said = String::from_utf8(log.0.lock().expect("nothing panics with it").clone()).expect("text");
    assert_eq!(said.matches("modprobe tcp_diag").count(), 1, "{said}");
    once(&scene.shared, &mut known, start + 10 * 60 * MINUTE);
    assert!(!conns.iter().any(|conn| scene.known(conn)), "it answers again");
}

#[tokio::test]
async fn of_a_pod_whose_name_is_gone_nothing_is_forgotten_before_the_pod_is() {
    let scene = Scene::open().await;
    let (_service, to) = scene.serve([10, 9, 0, 2].into());
    let (gone, conn) = scene.client(to);
    let (mut known, start) = (Known::default(), state::now());
    for minute in [0, 2] {
        once(&scene.shared, &mut known, start + minute * MINUTE);
    }
    vanish(&gone);
    scene.lab.del("a");
    once(&scene.shared, &mut known, start + 100 * MINUTE);
    assert!(scene.known(&conn));
    assert!(!known.said, "a pod that ends is nothing to speak of");
    scene.shared.attached.apply(&scene.shared, PodEvent::Gone(scene.a.id())).await;
    once(&scene.shared, &mut known, start + 101 * MINUTE);
    assert!(!scene.known(&conn));
}

/// Its port has rested, and another connection's leg to the same fork has it.
#[tokio::test]
async fn what_another_connection_has_under_the_name_of_an_ended_leg_stays() {
    let scene = Scene::open().await;
    let ip = IpAddr::from([10, 9, 0, 2]);
    let (_service, to) = scene.serve(ip);
    let ((_old_client, old), (_client, conn)) = (scene.client(to), scene.client(to));
    let (leg, mut fork) = scene.divert(&conn, ip);
    let find = |conn: &Tuple| scene.shared.maps.connections.find(conn).expect("followed");
    let mut ended = find(&old);
    ended.legs[SLOT] = find(&conn).legs[SLOT];
    ended.now.phase = PHASE_CLOSED;
    scene.shared.maps.connections.put(&old, &ended).expect("room");
    gone(&scene.shared, &old);
    forget(&scene.shared, &old, &ended, Heard::Nothing);
    assert!(scene.shared.maps.legs.find(&leg).is_some());
    fork.set_nonblocking(true).expect("a socket");
    let silent = fork.read(&mut [0]).expect_err("nothing was sent");
    assert_eq!(silent.kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_connection_that_begins_while_the_one_before_on_its_ports_is_forgotten_stays() {
    let scene = Scene::open().await;
    let conn = Tuple::new(SocketAddr::from(([10, 9, 0, 1], 40_000)), SocketAddr::from(([10, 9, 0, 2], 80)));
    let mut old = Connection { isn: 1, ..Connection::default() };
    old.legs[0] = LegRef {
        remote: conn.remote,
        remote_port: conn.remote_port,
        local_port: conn.local_port,
        kind: LEG_BASELINE,
        ..LegRef::default()
    };
    let new = Connection { isn: 2, ..old };
    // The new one's original leg has the name of the old one's.
    scene.shared.maps.legs.put(&conn, &Leg { conn, isn: 2, state: STATE_OWNER, ..Leg::default() }).expect("room");
    let both = std::sync::Barrier::new(2);
    let connections = &scene.shared.maps.connections;
    let mut lost = 0;
    std::thread::scope(|scope| {
        let begin = scope.spawn(|| {
            for round in 0..20_000_u32 {
                both.wait();
                // At every moment of what the other does.
                (0..round % 97 * 8).for_each(|_| std::hint::spin_loop());
                connections.put(&conn, &new).expect("room");
                both.wait();
            }
        });
        for _ in 0..20_000 {
            connections.put(&conn, &old).expect("room");
            both.wait();
            forget(&scene.shared, &conn, &old, Heard::All);
            both.wait();
            lost += u32::from(connections.find(&conn).is_none_or(|c| c.isn != new.isn));
        }
        begin.join().expect("it ends with its rounds");
    });
    assert_eq!(lost, 0);
    assert!(scene.shared.maps.legs.find(&conn).is_some());
}

/// An agent that is killed between the freezing of a connection and the storing of its leg.
#[tokio::test]
async fn what_a_predecessor_has_dialled_and_not_stored_is_reset_and_a_dial_under_way_is_not() {
    let scene = Scene::open().await;
    let handshakes = &scene.shared.maps.handshakes;
    for ip in [IpAddr::from([10, 9, 0, 2]), "fd09::2".parse().expect("an address")] {
        let (listener, to) = scene.listen(ip);
        let (mut known, start) = (Known::default(), state::now());
        let (frozen, tuple) = scene.dial(to).await;
        let (mut fork, _) = listener.accept().expect("connected");
        fork.read_exact(&mut [0; 8]).expect("the beginning of a head");
        fork.set_read_timeout(Some(Duration::from_millis(200))).expect("more than zero");
        let mut hears = || fork.read(&mut [0]).expect_err("nobody speaks").kind();
        let seen = handshakes.find(&tuple).expect("it passed the pod's interface");
        assert_ne!(seen.answered, 0);
        once(&scene.shared, &mut known, start);
        assert_eq!(hears(), ErrorKind::WouldBlock, "its own");
        handshakes.put(&tuple, &Handshake { at: scene.shared.began - 1, ..seen }).expect("room");
        once(&scene.shared, &mut known, start);
        assert_eq!(hears(), ErrorKind::WouldBlock, "its socket is there");
        frozen.close();
        scene.shared.maps.legs.put(&tuple, &Leg { opened: start, ..Leg::default() }).expect("room");
        once(&scene.shared, &mut known, start);
        assert_eq!(hears(), ErrorKind::WouldBlock, "a leg");
        scene.shared.maps.legs.remove(&tuple).expect("it is there");
        once(&scene.shared, &mut known, start);
        assert_eq!(hears(), ErrorKind::ConnectionReset);
        once(&scene.shared, &mut known, start + MINUTE);
        assert_eq!(handshakes.find(&tuple), None);
    }
}

/// A virtual machine that sleeps for hours: its head is the fork's, and may not be the baseline's when it wakes.
#[tokio::test]
async fn the_backend_of_a_head_that_is_held_for_nobody_is_reset() {
    let scene = Scene::open().await;
    for ip in [IpAddr::from([10, 9, 0, 2]), "fd09::2".parse().expect("an address")] {
        let (listener, to) = scene.serve(ip);
        let (client, conn) = scene.client(to);
        let (mut baseline, _) = listener.accept().expect("connected");
        baseline.set_read_timeout(Some(Duration::from_millis(200))).expect("more than zero");
        let mut hears = || baseline.read(&mut [0]).expect_err("nobody speaks").kind();
        _ = vanish(&client);
        let (mut known, start) = (Known::default(), state::now());
        let mut c = scene.shared.maps.connections.find(&conn).expect("followed");
        (c.now.phase, c.now.held, c.now.asked_at) = (PHASE_HOLD, c.now.next, start);
        scene.shared.maps.connections.put(&conn, &c).expect("room");
        once(&scene.shared, &mut known, start + 59 * MINUTE);
        assert_eq!((scene.known(&conn), hears()), (true, ErrorKind::WouldBlock));
        once(&scene.shared, &mut known, start + 61 * MINUTE);
        assert_eq!((scene.known(&conn), hears()), (false, ErrorKind::ConnectionReset));
    }
}
