//! What is remembered of a connection: its request side, its response side, its legs.
//!
//! Positions are 64-bit: the client's own sequence numbers, extended from the highest one seen, so that a body of more
//! than 4 GiB cannot come round and be read as a head. See [`crate::seq`].

use core::hint::black_box;

use super::{
    LEGS,
    addr::{Addr, Tuple},
};

/// The next byte is the first of a head (or of blank lines before one).
pub const FRAMING_HEAD: u32 = 0;
/// Inside a chunked body: [`Framing::chunk`] and [`Framing::size`] say where.
pub const FRAMING_CHUNKED: u32 = 1;
/// A body that ends with the connection.
pub const FRAMING_REST: u32 = 2;
/// The framing was lost: nobody knows where the next head starts.
pub const FRAMING_LOST: u32 = 3;

/// Where one direction's byte stream stands in its HTTP framing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Framing {
    /// Everything before this position is understood. In [`FRAMING_HEAD`] it is where the next head starts (it may lie
    /// ahead of what was seen: the rest of a body with a length); in [`FRAMING_CHUNKED`] the next byte to read.
    pub pos: u64,
    /// Bytes of the current chunk's size, as far as read.
    pub size: u64,
    /// One of the `FRAMING_` constants.
    pub state: u32,
    /// State of the chunk automaton, see [`crate::http::chunk`].
    pub chunk: u32,
}

impl Framing {
    /// The next head starts at `pos`.
    ///
    /// What the compiler knows to be zero it writes by a call of its own `memset`, which for bpf goes byte by byte: it is not to
    /// know.
    #[inline(always)]
    #[must_use]
    pub fn head(pos: u64) -> Self {
        Self { pos, size: 0, state: black_box(FRAMING_HEAD), chunk: 0 }
    }

    /// A chunked body begins at `pos`.
    #[inline(always)]
    #[must_use]
    pub fn chunked(pos: u64) -> Self {
        Self { pos, size: 0, state: black_box(FRAMING_CHUNKED), chunk: 0 }
    }
}

/// A free slot.
pub const LEG_NONE: u8 = 0;
/// To the service address itself.
pub const LEG_BASELINE: u8 = 1;
/// To a fork.
pub const LEG_FORK: u8 = 2;
/// To the router inside the agent.
pub const LEG_ROUTER: u8 = 3;
/// On the server's side of a connection that no program watches at its client.
pub const LEG_SERVER: u8 = 4;

/// Names a leg of a connection: with the connection's local address it is the leg's [`Tuple`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct LegRef {
    /// The backend.
    pub remote: Addr,
    /// Network byte order.
    pub remote_port: u16,
    /// Network byte order.
    pub local_port: u16,
    /// [`super::route::Route::id`] that it was dialled for; zero for the baseline.
    pub route: u32,
    /// [`super::route::Route::version`] at that time.
    pub version: u32,
    /// One of the `LEG_` kinds; [`LEG_NONE`] is a free slot.
    pub kind: u8,
    /// Zero.
    pub pad: u8,
    /// The low bits of [`ConnState::asked`] when it last became the owner: the oldest gives way where all slots are taken.
    pub used: u16,
}

/// Requests are read, each head decides.
pub const PHASE_WATCH: u8 = 1;
/// A head is held until its leg exists and the owner may change.
pub const PHASE_HOLD: u8 = 2;
/// Never looked at again: not HTTP, or a tunnel. It stays with its owner.
pub const PHASE_OPAQUE: u8 = 3;
/// Closed; kept for the last segments' sake.
pub const PHASE_CLOSED: u8 = 4;
/// Given up: whatever the client still sends is answered by a reset.
pub const PHASE_RESET: u8 = 5;
/// One CPU is changing the owner; segments that another one sees meanwhile are dropped.
pub const PHASE_SWITCH: u8 = 6;

/// Bytes of this connection have gone to another leg than the original: offsets matter from then on.
pub const CONN_DIVERTED: u32 = 1;
/// The request in progress asked for another protocol: a 101 makes the connection a tunnel.
pub const CONN_UPGRADE: u32 = 2;
/// The request in progress waits for `100 Continue`, and none of its body was seen.
pub const CONN_EXPECT: u32 = 4;
/// HTTP was read on it: a head that cannot be read is a reset from then on.
pub const CONN_HTTP: u32 = 8;
/// The client has sent its FIN.
pub const CONN_FIN: u32 = 16;
/// A head is held for a leg that is being made: the owner's late payload and FIN stay away from the client.
pub const CONN_HELD: u32 = 32;
/// The agent has frames of the client's, or a segment of the client's own has not shown yet that it has none any more: what the client
/// acknowledges meanwhile is noted in [`ConnState::acked`].
pub const CONN_PENDING: u32 = 64;
/// It is older than its record, or nothing of it was seen to begin, and nobody knows yet where its next request begins: nothing is read, see [`crate::adopt`]. Zero stands
/// for positions that were not seen.
pub const CONN_ADOPT: u32 = 128;

/// What one step of egress may change, all of it at once: a decision is taken on a copy, and committed if
/// [`Connection::generation`] still stands.
///
/// What each request changes comes first, and fills a line of cache with the generation; what follows changes only where
/// something else happens than a request to the baseline. Ingress, on another processor, reads that for each response.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct ConnState {
    /// Framing of the requests.
    pub request: Framing,
    /// Highest position passed, plus one. It tells retransmissions; where two processors write it, it may lag behind.
    pub next: u64,
    /// Bit n modulo 64: request number n was a HEAD, its response has no body.
    pub head_bits: u64,
    /// Nanoseconds when the last head was passed on, or the phase last changed.
    pub active: u64,
    /// Complete request heads passed on.
    pub asked: u32,
    /// Bytes of the next head, from [`Framing::pos`] on, that were gathered in map `heads` and passed to the owner.
    pub partial: u32,
    /// One of the `PHASE_` constants.
    pub phase: u8,
    /// Slot of the leg that serves the exchange in progress.
    pub owner: u8,
    /// Slot of the owner before that: retransmissions from before [`Self::switched`] are its.
    pub previous: u8,
    /// Slot that the held head waits for; [`LEGS`] while it waits for the old owner.
    pub held_slot: u8,
    /// `CONN_` flags.
    pub flags: u32,
    /// Where the owner last changed.
    pub switched: u64,
    /// Position of the first byte that is held, in [`PHASE_HOLD`]; in [`PHASE_WATCH`] that is missing, see [`ConnState::gap`].
    pub held: u64,
    /// Nanoseconds (`CLOCK_MONOTONIC`) when the agent was last asked about it, or when it was first missed.
    pub asked_at: u64,
    /// Number of the hold; the agent's answer in map `dials` names it.
    pub hold: u32,
    /// Bytes handed to the agent in this hold.
    pub held_bytes: u32,
    /// What the held head wants, see [`crate::conn::Want::number`].
    pub held_for: u32,
    /// With [`CONN_PENDING`]: the last number of the owner's that the client has acknowledged, in its own view. A frame that was held
    /// says less once the owner has answered.
    pub acked: u32,
}

/// One connection. Map `connections`, keyed by [`Tuple`]. Egress makes it of the client's SYN (the agent, of a client's socket, that of
/// one that is older) and writes all of it but the response side, which is ingress's. The agent removes it; egress does where nothing was ever diverted.
///
/// Each side has a generation of its own. It is even while its state is whole. Who changes the state makes it odd by
/// one compare-and-swap, writes, and makes it even again: of two who decided on one copy, one wins.
///
/// Requests pass on one processor and responses on another. Of what each exchange changes, each side has one line of cache that the
/// other does not read, see [`VALUE_AT`]: a line that both use costs each of them as much as reading a head. What responses must
/// know of requests stands in [`Self::told`], which egress only writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Connection {
    /// Nanoseconds when the SYN was seen; zero for a connection that is older than its record.
    pub opened: u64,
    /// [`super::route::Service::id`].
    pub service: u32,
    /// Sequence number of the client's SYN; any number but zero where that was not seen. It tells this connection from an earlier one on
    /// the same tuple.
    pub isn: u32,
    /// Interface index of the pod's eth0, in its namespace.
    pub ifindex: u32,
    /// What the client's SYN said.
    pub client: Said,
    /// What the baseline's SYN-ACK said; all zero before it was seen.
    pub server: Said,
    /// Zero.
    pub reserved: u32,
    /// Of [`Self::now`].
    pub generation: u64,
    /// Request side.
    pub now: ConnState,
    /// Its legs. Slot 0 is the baseline's; a ref whose leg is gone from map `legs`, or is another connection's
    /// of the same name, counts as free.
    pub legs: [LegRef; LEGS],
    /// What responses need to know of [`Self::now`], see [`crate::reply::tell`]: written behind it, and never ahead of it.
    pub told: u64,
    /// Nanoseconds when the owner first got a segment again without having given a sign of life since, see
    /// [`crate::conn::ConnState::leg_dead`].
    pub again: u64,
    /// Of [`Self::resp`].
    pub answering: u64,
    /// Response side, in the client's view of the sequence space. All zero before the baseline's SYN-ACK was seen.
    pub resp: RespState,
}

/// Where the kernel puts a value behind a key of [`Tuple`]'s size, in bytes from the start of a line of cache: eight bytes of the
/// allocator's (`LLIST_NODE_SZ` in kernel/bpf/memalloc.c), 48 of `struct htab_elem` and the key, rounded up to eight
/// (kernel/bpf/hashtab.c), in memory that is aligned to its own size, a power of two.
pub const VALUE_AT: usize = (8 + 48 + size_of::<Tuple>().next_multiple_of(8)) % LINE;
/// Bytes in a line of cache.
const LINE: usize = 64;

/// The line of cache, counted from that of the value's first byte, that holds the byte at `offset` of a value.
const fn line(offset: usize) -> usize {
    (VALUE_AT + offset) / LINE
}

const _: () = {
    use core::mem::offset_of;
    let now = offset_of!(Connection, now);
    let requests = line(offset_of!(Connection, generation));
    let responses = line(offset_of!(Connection, answering));
    assert!(line(now + offset_of!(ConnState, partial)) == requests, "a request changes one line");
    assert!(line(offset_of!(Connection, server)) < requests && requests < line(now + offset_of!(ConnState, phase)));
    assert!(
        line(offset_of!(Connection, resp) + offset_of!(RespState, acked)) == responses,
        "a response changes one line"
    );
    let told = line(offset_of!(Connection, told));
    assert!(line(now + size_of::<ConnState>() - 1) < told && told < responses, "what is told has a line of its own");
};

/// What a SYN or a SYN-ACK says about its sender.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Said {
    /// Maximum segment size; 536 where it had none (RFC 9293 3.7.1). Zero: it was not seen.
    pub mss: u16,
    /// `OPT_` flags.
    pub options: u8,
    /// Window scale.
    pub wscale: u8,
}

/// The SYN or SYN-ACK had a window scale.
pub const OPT_WSCALE: u8 = 1;
/// It had SACK permitted.
pub const OPT_SACK: u8 = 2;
/// It had timestamps.
pub const OPT_TIMESTAMP: u8 = 4;
/// It asked for, or agreed to, ECN.
pub const OPT_ECN: u8 = 8;
/// It had MPTCP, and left with it. Where both sides had it, their streams are not those of TCP alone (RFC 8684, section 3.3).
pub const OPT_MULTIPATH: u8 = 16;

/// The response to an upgrade was 101: both directions are opaque.
pub const RESP_TUNNEL: u32 = 1;
/// The owner has sent its FIN, and the client got it.
pub const RESP_FIN: u32 = 4;

/// The owner has sent a reset, and the client got it.
pub const RESP_RESET: u32 = 8;

/// With [`CONN_ADOPT`]: the server's last response that was seen to begin was an interim one (1xx).
pub const RESP_INTERIM: u32 = 16;

/// What ingress knows of the responses. A step changes all up to [`Self::continued`] at once, under
/// [`Connection::answering`]; each number behind it is written by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct RespState {
    /// Framing of the responses.
    pub response: Framing,
    /// Heads of final responses passed.
    pub answered: u32,
    /// `RESP_` flags.
    pub flags: u32,
    /// Bytes of a head gathered in map `heads`, which the client has got already.
    pub partial: u32,
    /// [`ConnState::asked`] of the exchange that last got `100 Continue`.
    pub continued: u32,
    /// Highest position passed to the client, plus one. It only grows.
    pub next: u64,
    /// Highest position of the client's stream that the owner has acknowledged. It only grows.
    pub acked: u64,
    /// Nanoseconds when the owner was last heard of, once the connection was diverted.
    pub heard: u64,
}

/// Its peer's packets go to the client.
pub const STATE_OWNER: u8 = 1;
/// It waits for its next exchange.
pub const STATE_PARKED: u8 = 3;
/// It holds an unfinished head, or was given up: to be reset, never to be used again.
pub const STATE_DEAD: u8 = 4;

/// One leg. Map `legs`, keyed by the leg's own [`Tuple`] (for leg 0: the connection's). The agent creates it; egress
/// creates leg 0, when the connection is first diverted, and changes any of them. A miss at ingress means: not ours, pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Leg {
    /// The connection that it serves.
    pub conn: Tuple,
    /// Its slot in [`Connection::legs`].
    pub slot: u8,
    /// One of the `LEG_` kinds.
    pub kind: u8,
    /// One of the `STATE_` constants.
    pub state: u8,
    /// Not zero: addresses and ports differ from the connection's and are rewritten.
    pub moved: u8,
    /// Client to server: leg's sequence number = client's + this.
    pub cs_off: u32,
    /// Server to client: client's view = leg's sequence number + this.
    pub ss_off: u32,
    /// While parked: the next sequence number that the backend expects.
    pub rcv_nxt: u32,
    /// While parked: the next sequence number that the backend will send.
    pub snd_nxt: u32,
    /// Bits by which the client's window is shifted left on its way to the backend (negative: right).
    pub window_out: i8,
    /// The same for the backend's window on its way to the client.
    pub window_in: i8,
    /// Not zero: its backend has closed or reset it while it was parked. Written by ingress only.
    pub closed: u8,
    /// `OPT_` flags agreed with the backend.
    pub options: u8,
    /// [`Connection::isn`] of the connection that it serves.
    pub isn: u32,
    /// [`super::route::Route::version`] that it was made under.
    pub version: u32,
    /// [`super::route::Route::id`], zero for the baseline.
    pub route: u32,
    /// Nanoseconds when it was made.
    pub opened: u64,
    /// Nanoseconds when it was last parked or became the owner.
    pub active: u64,
    /// Timestamps, where [`Self::options`] has them: client to server, leg's `TSval` = client's + this.
    pub ts_out: u32,
    /// Server to client: client's view of the `TSval` = leg's + this.
    pub ts_in: u32,
    /// While parked: a `TSval` of the backend's that its next ones are not before.
    pub ts_nxt: u32,
    /// Where the client's frames may be older than what it has acknowledged ([`CONN_PENDING`]): the latest `TSecr` that it is known to
    /// have sent while this leg was the owner, or when it became it. Zero: not known.
    pub ts_echo: u32,
}

impl Leg {
    /// Whether it serves this connection, whose SYN had this number. A [`LegRef`] outlives its leg, and the leg's tuple may be
    /// another's by then: a port that has rested is used again.
    #[inline(always)]
    #[must_use]
    pub const fn serves(&self, conn: &Tuple, isn: u32) -> bool {
        let (is, to) = (&self.conn.remote.0, &conn.remote.0);
        let differs = (is[0] ^ to[0]) | (is[1] ^ to[1]) | (is[2] ^ to[2]) | (is[3] ^ to[3]) | (self.isn ^ isn);
        let ports = (self.conn.local_port ^ conn.local_port) | (self.conn.remote_port ^ conn.remote_port);
        differs == 0 && ports == 0
    }
}

/// The leg stands in `legs`, the held head may go on.
pub const DIAL_READY: u32 = 1;
/// There will be no leg: reset the client.
pub const DIAL_FAILED: u32 = 2;
/// There will be no leg, and the route (whose id stands in [`Dial::reason`]) says that the baseline serves such a request: by the leg that
/// it has, or, if that has ended, by [`Dial::leg`].
pub const DIAL_BASELINE: u32 = 3;
/// No answer to a hold, but what the agent has seen of a connection with [`CONN_ADOPT`], when its record stood: its client's socket is
/// idle behind a whole exchange. Egress removes it with the first payload.
pub const DIAL_IDLE: u32 = 4;

/// The agent's answer to a hold. Map `dials`, keyed by the connection's [`Tuple`]; written and removed by the agent, but for
/// [`DIAL_IDLE`], which egress removes. A miss means: not answered yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Dial {
    /// [`ConnState::hold`] that it answers.
    pub hold: u32,
    /// One of the `DIAL_` constants.
    pub status: u32,
    /// The slot that the leg takes, as the event said.
    pub slot: u32,
    /// [`super::reason::Reason`] of a failure; with [`DIAL_BASELINE`] a route.
    pub reason: u32,
    /// The leg, if there is one.
    pub leg: LegRef,
}

/// The handshake of a leg that the agent dials, as it went over the pod's own interface. Map `handshakes`, keyed by the leg's
/// [`Tuple`]; egress makes it of the SYN, ingress adds the SYN-ACK, the agent removes it. A miss means: the SYN took
/// another way (a redirect inside the pod).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Handshake {
    /// Nanoseconds when the SYN was seen.
    pub at: u64,
    /// Sequence number of the SYN.
    pub isn: u32,
    /// Sequence number of the SYN-ACK.
    pub peer_isn: u32,
    /// `TSval` of the SYN-ACK, zero if it had none.
    pub stamp: u32,
    /// Not zero: the SYN-ACK was seen.
    pub answered: u32,
}

/// How many bytes of a head can be gathered: the longest head that is read.
pub const HEAD_MAX: usize = 16 * 1024;

/// Key of map `heads`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct HeadKey {
    /// The connection.
    pub conn: Tuple,
    /// Zero for a request's head (egress's own), one for a response's (ingress's own).
    pub direction: u32,
}

/// What a name in map `names` belongs to: a service, by [`super::route::Service::id`].
pub const NAME_SERVICE: u32 = 1;
/// A route's sandbox key, by [`super::route::Route::id`].
pub const NAME_ROUTE: u32 = 2;
/// A pod, by its address.
pub const NAME_POD: u32 = 3;

/// Key of map `names`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct NameKey {
    /// One of the `NAME_` constants.
    pub kind: u32,
    /// The id, zero for a pod.
    pub id: u32,
    /// The pod's address, else zero.
    pub addr: Addr,
}

/// Longest text in map `names`, in bytes.
pub const NAME_TEXT: usize = 192;

/// Value of map `names`, for tools that run while no agent does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "std",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct NameText {
    /// UTF-8, zero behind its end.
    pub text: [u8; NAME_TEXT],
}
