//! A machine: a real TCP stack with addresses, a clock of its own, and a wire that frames are put on and taken from.

use std::{cell::Cell, collections::VecDeque, net::IpAddr};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::Instant,
    wire::{HardwareAddress, IpCidr},
};

use super::{
    kernel::{ETHERTYPE_V4, ETHERTYPE_V6},
    wire,
};

/// Nanoseconds of virtual time.
pub type Nanos = u64;
/// A second of it.
pub const SECOND: Nanos = 1_000_000_000;
/// A millisecond.
pub const MILLI: Nanos = 1_000_000;
/// A microsecond.
pub const MICRO: Nanos = 1_000;

/// Length of the Ethernet header.
const ETHERNET: usize = 14;
/// Longest IP packet.
const MTU: usize = 1500;
/// Longest [`Spec::mss`]: the stack does not take its options off the segments that it makes, up to 40 bytes, and those would not
/// fit then.
pub const MSS_MAX: u16 = 1400;

thread_local! {
    /// The clock of the machine that works: a stack asks a plain function for it.
    static CLOCK: Cell<u32> = const { Cell::new(0) };
}

fn clock() -> u32 {
    CLOCK.get()
}

/// Frames in and out of one interface. The stack has no Ethernet, the programs have.
struct Wire {
    rx: VecDeque<Vec<u8>>,
    tx: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0[ETHERNET..])
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; ETHERNET + len];
        let result = f(&mut frame[ETHERNET..]);
        let v6 = frame.get(ETHERNET).is_some_and(|byte| byte >> 4 == 6);
        frame[12..ETHERNET].copy_from_slice(if v6 { &ETHERTYPE_V6 } else { &ETHERTYPE_V4 });
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.rx.pop_front()?;
        Some((Received(frame), Sent(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut it = DeviceCapabilities::default();
        it.medium = Medium::Ip;
        it.max_transmission_unit = MTU;
        it
    }
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Longest segment without its options that it asks for.
    pub mss: u16,
    /// Bytes of each socket's buffers. The receive buffer decides the window scale.
    pub buffers: usize,
    /// Whether its stack uses timestamps.
    pub stamps: bool,
    /// What its clock reads at the start, and how long one of its ticks is.
    pub clock: (u32, Nanos),
    /// Seed of sequence numbers.
    pub seed: u64,
}

/// A machine.
pub struct Host {
    /// Its sockets.
    pub sockets: SocketSet<'static>,
    iface: Interface,
    wire: Wire,
    spec: Spec,
    /// It is cut off: what comes is lost, and it does nothing.
    pub dead: bool,
}

fn at(now: Nanos) -> Instant {
    Instant::from_micros((now / MICRO).cast_signed())
}

impl Host {
    /// A machine that is switched on.
    ///
    /// # Panics
    /// If it has more addresses than a stack takes.
    #[must_use]
    pub fn new(spec: Spec, now: Nanos) -> Self {
        let mut wire = Wire { rx: VecDeque::new(), tx: VecDeque::new() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = spec.seed;
        let mut iface = Interface::new(config, &mut wire, at(now));
        iface.update_ip_addrs(|addresses| {
            for ip in &spec.addresses {
                // All others are on its link.
                let prefix = if ip.is_ipv4() { 8 } else { 16 };
                addresses.push(IpCidr::new((*ip).into(), prefix)).expect("a machine has few addresses");
            }
        });
        Self { sockets: SocketSet::new(Vec::new()), iface, wire, spec, dead: false }
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self, now: Nanos) -> u32 {
        self.spec.clock.0.wrapping_add((now / self.spec.clock.1) as u32)
    }

    /// A socket of its own.
    pub fn socket(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; self.spec.buffers]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        if self.spec.stamps {
            socket.set_tsval_generator(Some(clock));
        }
        self.sockets.add(socket)
    }

    /// The socket.
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Begins a connection.
    ///
    /// # Panics
    /// If the socket is in use.
    pub fn connect(&mut self, handle: SocketHandle, from: (IpAddr, u16), to: (IpAddr, u16)) {
        let socket: &mut tcp::Socket<'_> = self.sockets.get_mut(handle);
        socket.connect(self.iface.context(), to, from).expect("a new socket can connect");
    }

    /// Puts a frame in front of its stack.
    pub fn receive(&mut self, frame: Vec<u8>) {
        if !self.dead && !self.is_known_syn(&frame) {
            self.wire.rx.push_back(frame);
        }
    }

    /// Whether it is a SYN of a connection that is there. The stack gives each SYN to the first socket that listens; others ask by
    /// the four-tuple first.
    fn is_known_syn(&self, frame: &[u8]) -> bool {
        let Some((from, to)) = wire::opens(frame) else { return false };
        self.sockets.iter().any(|(_, socket)| {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            let (from, to) = (Some(from.into()), Some(to.into()));
            socket.remote_endpoint() == from && socket.local_endpoint() == to && socket.is_open()
        })
    }

    /// Lets the stack work. Whether anything has moved.
    pub fn poll(&mut self, now: Nanos) -> bool {
        if self.dead {
            return false;
        }
        CLOCK.set(self.clock(now));
        let rx = self.wire.rx.len();
        let tx = self.wire.tx.len();
        let result = self.iface.poll(at(now), &mut self.wire, &mut self.sockets);
        let state = result == smoltcp::iface::PollResult::SocketStateChanged;
        state || rx != 0 || tx != self.wire.tx.len()
    }

    /// The next frame that its stack has sent.
    pub fn sent(&mut self) -> Option<Vec<u8>> {
        let mut frame = self.wire.tx.pop_front()?;
        wire::limit_mss(&mut frame, self.spec.mss);
        Some(frame)
    }

    /// When the stack wants to work again.
    pub fn next(&mut self, now: Nanos) -> Option<Nanos> {
        if self.dead {
            return None;
        }
        let due = self.iface.poll_at(at(now), &self.sockets)?;
        Some((due.total_micros().cast_unsigned() * MICRO).max(now))
    }
}
