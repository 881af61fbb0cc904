//! The maps. Who writes and who reads each is said with its records in `sidetrack_splice::abi`.

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use sidetrack_splice::{
    abi::{
        addr::Tuple,
        config::Config,
        control::Control,
        reason::COUNTERS as REASONS,
        record::{ConnState, Connection, Dial, Handshake, HeadKey, Leg, NameKey, NameText, RespState},
        route::{Route, RouteKey, Service, ServiceAddr},
    },
    filter,
    packet::{OptionWalk, Options, Packet},
    window::Window,
};

/// `BPF_F_NO_PREALLOC`: memory as entries come, so that an idle node pays for none.
const LAZY: usize = 1;

/// Agent and kernel of any version; one entry.
#[btf_map(name = "control")]
pub static CONTROL: Array<Control, 1> = Array::new();

/// Agent to kernel; one entry.
#[btf_map(name = "config")]
pub static CONFIG: Array<Config, 1> = Array::new();

/// Agent to kernel: a bit for each address and port that a service, or a leg, has. A bit that is not set: pass, nothing else
/// need be looked up.
#[btf_map(name = "filter")]
pub static FILTER: Array<u64, { filter::WORDS }> = Array::new();

/// Agent to kernel. A miss: the connection is not tracked.
#[btf_map(name = "services")]
pub static SERVICES: HashMap<ServiceAddr, Service, 65536, LAZY> = HashMap::new();

/// Agent to kernel. A miss: the key has no route here, the baseline serves the request.
#[btf_map(name = "routes")]
pub static ROUTES: HashMap<RouteKey, Route, 262_144, LAZY> = HashMap::new();

/// Egress makes and changes them, ingress their response sides. A miss: not tracked, pass.
#[btf_map(name = "connections")]
pub static CONNECTIONS: HashMap<Tuple, Connection, 65536, LAZY> = HashMap::new();

/// The agent creates, egress changes. A miss at ingress: not a leg, pass; at egress: the leg is gone.
#[btf_map(name = "legs")]
pub static LEGS: HashMap<Tuple, Leg, 262_144, LAZY> = HashMap::new();

/// Egress and ingress to the agent: handshakes of legs that it dials. A miss: not seen on this interface.
#[btf_map(name = "handshakes")]
pub static HANDSHAKES: HashMap<Tuple, Handshake, 16384, LAZY> = HashMap::new();

/// Agent to egress: answers to holds. A miss: not answered yet.
#[btf_map(name = "dials")]
pub static DIALS: HashMap<Tuple, Dial, 16384, LAZY> = HashMap::new();

/// Parts of heads: egress and ingress each write their own, the agent reads. A miss: nothing gathered.
#[btf_map(name = "heads")]
pub static HEADS: HashMap<HeadKey, Window, 256> = HashMap::new();

/// Agent to tools; no program reads it.
#[btf_map(name = "names")]
pub static NAMES: HashMap<NameKey, NameText, 65536, LAZY> = HashMap::new();

/// Kernel to tools: one number for each reason.
#[btf_map(name = "counters")]
pub static COUNTERS: PerCpuArray<u64, REASONS> = PerCpuArray::new();

/// Kernel to agent. The value type is `()`: libbpf refuses a ring buffer with a value size.
#[btf_map(name = "events")]
pub static EVENTS: RingBuf<(), { 16 << 20 }> = RingBuf::new();

/// [`HeadKey::direction`] of requests. A key lies in scratch memory: on a stack it would be in the way of others.
pub const OUTWARD: u32 = 0;
/// The same of responses.
pub const INWARD: u32 = 1;

/// What egress works on while it handles one packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Out {
    /// The packet.
    pub packet: Packet,
    /// Its tuple, the connection, as the key of what was gathered of a request's head.
    pub key: HeadKey,
    /// The leg that the packet goes to.
    pub leg: Tuple,
    /// Copy of the connection's state: the decision is taken on it.
    pub state: ConnState,
    /// Copy of the response side, when it was needed.
    pub resp: RespState,
    /// Positions.
    pub start: u64,
    /// Position behind the payload, without the FIN.
    pub end: u64,
    /// Nanoseconds.
    pub now: u64,
    /// Generation of the connection that the copy was taken of.
    pub generation: u64,
    /// The same of the response side.
    pub answering: u64,
    /// The step that was decided: one of the `STEP_` constants of `decide`.
    pub step: u32,
    /// Slot for a switch or a dial.
    pub slot: u32,
    /// Why.
    pub reason: u32,
    /// The route that is asked for, zero for the baseline.
    pub route: u32,
    /// Its version.
    pub version: u32,
    /// Its `ROUTE_` flags.
    pub flags: u32,
    /// The service.
    pub service: u32,
    /// One of the `WANT_` constants of `decide`.
    pub want: u32,
    /// For a cut: payload bytes before the next head.
    pub cut: u32,
    /// Zero.
    pub pad: u32,
}

/// What ingress works on while it handles one packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct In {
    /// The packet.
    pub packet: Packet,
    /// Its tuple: the leg.
    pub leg: Tuple,
    /// The connection that the leg serves, as the key of what was gathered of a response's head.
    pub key: HeadKey,
    /// Copy of the response side: the decision is taken on it.
    pub state: RespState,
    /// Positions, in the client's view.
    pub start: u64,
    /// Position behind the payload, without the FIN.
    pub end: u64,
    /// Generation of the response side that the copy was taken of.
    pub generation: u64,
    /// What it acknowledges, in the client's view.
    pub ack: u32,
    /// Not zero: its sender can be made to send it again.
    pub again: u32,
    /// Not zero: the segment had to be read.
    pub read: u32,
    /// Zero.
    pub pad: u32,
}

impl AsMut<Packet> for Out {
    #[inline(always)]
    fn as_mut(&mut self) -> &mut Packet {
        &mut self.packet
    }
}

impl AsMut<Packet> for In {
    #[inline(always)]
    fn as_mut(&mut self) -> &mut Packet {
        &mut self.packet
    }
}

/// Scratch memory for one packet at egress. Nothing else of egress runs on this CPU meanwhile: softirqs are off.
#[btf_map(name = "scratch_out")]
pub static OUT: PerCpuArray<Out, 1> = PerCpuArray::new();

/// The same for ingress.
#[btf_map(name = "scratch_in")]
pub static IN: PerCpuArray<In, 1> = PerCpuArray::new();

/// An acknowledgement in the making, for an owner that another follows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Parting {
    /// What it answers: a packet with the frame's own layout, from that owner to the client.
    pub answers: Packet,
    /// Its sequence number.
    pub seq: u32,
    /// What it acknowledges.
    pub ack: u32,
    /// Not zero: it takes another way than the client's own.
    pub moved: u32,
    /// Not zero: its copy is on its way.
    pub sent: u32,
}

/// The same for what is done while one packet is at egress, by the program that comes by meanwhile for its copy.
#[btf_map(name = "scratch_part")]
pub static PARTING: PerCpuArray<Parting, 1> = PerCpuArray::new();

/// Egress's scratch memory of the packet in hand.
#[inline(always)]
pub fn out() -> Option<&'static mut Out> {
    // SAFETY: a per-CPU value that nothing else uses while egress handles one packet.
    OUT.get_ptr_mut(0).map(|p| unsafe { &mut *p })
}

/// Ingress's.
#[inline(always)]
pub fn incoming() -> Option<&'static mut In> {
    // SAFETY: a per-CPU value that nothing else uses while ingress handles one packet.
    IN.get_ptr_mut(0).map(|p| unsafe { &mut *p })
}

/// What the walk through a packet's TCP options works on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OptionBuffer {
    /// Their bytes.
    pub bytes: Options,
    /// Where it is.
    pub walk: OptionWalk,
}

/// TCP options of the packet in hand.
#[btf_map(name = "scratch_options")]
pub static OPTIONS: PerCpuArray<OptionBuffer, 1> = PerCpuArray::new();

/// A connection in the making.
#[btf_map(name = "scratch_fresh")]
pub static FRESH: PerCpuArray<Connection, 1> = PerCpuArray::new();

/// A leg in the making.
#[btf_map(name = "scratch_leg")]
pub static LEG: PerCpuArray<Leg, 1> = PerCpuArray::new();
