//! Every way that a packet's story can end, each with a counter of its own: map `counters`, per CPU, by number.

/// Declares the reasons: number, name, and what it means to a person.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a verdict was what it was. Its number is the index in map `counters`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)+ }

        impl Reason {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its stable name, as in `sidetrack status`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

reasons! {
    /// A connection to a service address was seen from its SYN on and is followed.
    Tracked = "tracked",
    /// A SYN on a tuple that was known: the older connection was forgotten, its legs are reset.
    TupleReused = "tuple_reused",
    /// A connection ended and never had another leg: forgotten at once.
    ClosedPlain = "closed_plain",
    /// A connection with legs ended: kept as a tombstone for its last segments.
    ClosedLegs = "closed_legs",
    /// The SYN of a leg that the agent dials.
    DialSyn = "dial_syn",
    /// A request without a key, or with one that has no route here: it stays with, or goes to, the baseline.
    HeadBaseline = "head_baseline",
    /// A request whose key has a route here.
    HeadKeyed = "head_keyed",
    /// A request whose key nobody has a route for at this service.
    KeyUnrouted = "key_unrouted",
    /// A carrier held a key that is empty, too long, or has a character outside `[A-Za-z0-9._-]`: no key.
    KeyInvalid = "key_invalid",
    /// A member or header that carries a key stood there more than once: the first one counts.
    KeyDuplicate = "key_duplicate",
    /// More than one carrier held a key with a route: the first in the configured order decided.
    KeyAmbiguous = "key_ambiguous",
    /// The owner changed to a leg that was there.
    SpliceHot = "splice_hot",
    /// The owner changed to a leg that the agent had just made.
    SpliceCold = "splice_cold",
    /// A head is held: the agent is asked for a leg.
    HoldDial = "hold_dial",
    /// A head is held: the old owner's response is not complete, or not everything is acknowledged.
    HoldWait = "hold_wait",
    /// A further frame behind a held head.
    HoldMore = "hold_more",
    /// A frame with bytes for two owners goes to the agent to be cut.
    HoldCut = "hold_cut",
    /// A retransmission of what is held already, or more than is held for one connection: dropped, it comes again.
    HoldDropped = "hold_dropped",
    /// The ring buffer had no room: dropped, the client's retransmission asks again.
    RingFull = "ring_full",
    /// A frame larger than 64 KiB cannot be held: dropped.
    FrameTooBig = "frame_too_big",
    /// A part of a head was passed to the owner and gathered.
    HeadPartial = "head_partial",
    /// No room to gather a head that comes in parts: the connection is reset.
    HeadsFull = "heads_full",
    /// A retransmission from before the last switch went to the previous owner.
    LateToPrevious = "late_to_previous",
    /// A frame with bytes from both sides of a switch that is done: dropped, the client sends what is missing.
    LateMixed = "late_mixed",
    /// A frame beyond what was seen, where a head may start: dropped, it comes again in order.
    Gap = "gap",
    /// Another CPU changed the connection meanwhile: dropped, it comes again.
    Busy = "busy",
    /// Not HTTP at the first byte: never looked at again.
    OpaqueNotHttp = "opaque_not_http",
    /// HTTP/2 with prior knowledge: never looked at again.
    OpaqueHttp2 = "opaque_http2",
    /// TLS: never looked at again.
    OpaqueTls = "opaque_tls",
    /// The connection became a tunnel (101, or CONNECT): it stays with its owner.
    OpaqueTunnel = "opaque_tunnel",
    /// A head longer than 16 KiB that has a routed key, is for a fork, or cannot be read to its end; or one over 256 KiB:
    /// reset.
    ResetHeadTooLong = "reset_head_too_long",
    /// A head that cannot be read on a connection that carried HTTP: reset.
    ResetHeadUnreadable = "reset_head_unreadable",
    /// The route says fail: reset.
    ResetRouteFail = "reset_route_fail",
    /// The agent could not connect to the fork (refused, timed out, no endpoint of this family): reset.
    ResetUnreachable = "reset_unreachable",
    /// The old owner's response did not end in time, so the owner could not change: reset.
    ResetNotSwitchable = "reset_not_switchable",
    /// The response has no length, or its framing was lost, and the next request is for another owner: reset.
    ResetSticky = "reset_sticky",
    /// The leg that owns the exchange is gone: reset.
    ResetLegGone = "reset_leg_gone",
    /// The leg that owns the exchange has not answered for two seconds, not even the client's retransmissions: reset.
    ResetLegDead = "reset_leg_dead",
    /// A final status came in place of `100 Continue`; nobody knows whether a body follows: reset.
    ResetExpect = "reset_expect",
    /// Too many requests in one frame: reset.
    ResetPipeline = "reset_pipeline",
    /// A keyed CONNECT: reset.
    ResetConnect = "reset_connect",
    /// More came on a connection that was given up: reset.
    ResetAgain = "reset_again",
    /// A SYN to a service with routes found map `connections` or `legs` full: refused.
    RefusedFull = "refused_full",
    /// A successor with another ABI is at work: a new connection is not taken on.
    Draining = "draining",
    /// A packet of a leg that is parked, after the exchange: kept from the client.
    ParkedKept = "parked_kept",
    /// The old owner sent payload, FIN or a reset while a head was held: kept from the client.
    HeldKept = "held_kept",
    /// A parked leg's segment came again and was acknowledged.
    ParkedAcked = "parked_acked",
    /// A parked leg was closed or reset by its backend: forgotten, the next request dials again.
    ParkedClosed = "parked_closed",
    /// A packet of a leg that was given up: dropped.
    DeadKept = "dead_kept",
    /// A complete response was read.
    ResponseComplete = "response_complete",
    /// A response without a length: it ends with the connection.
    ResponseRest = "response_rest",
    /// A response head that cannot be read, or out of order: the connection stays with its owner.
    ResponseLost = "response_lost",
    /// A leg's segment where a response's head or chunk may start came before those in front of it: dropped, it comes again.
    ResponseGap = "response_gap",
    /// A response without a request.
    ResponseUnasked = "response_unasked",
    /// The ring buffer had no room for the news of a closed connection: the agent's sweep finds it.
    GoneUnsaid = "gone_unsaid",
    /// `bpf_skb_load_bytes` failed.
    ErrLoad = "err_load",
    /// `bpf_skb_store_bytes` or a checksum helper failed: dropped.
    ErrStore = "err_store",
    /// A packet could not be cut or turned round: dropped.
    ErrTurn = "err_turn",
    /// A map update failed for another reason than room.
    ErrMap = "err_map",
    /// The head scanner did not come to an end.
    ErrScan = "err_scan",
    /// A redirect failed.
    ErrRedirect = "err_redirect",
    /// An IP packet with options, extension headers or fragments to a tracked tuple: passed as it is.
    OddHeader = "odd_header",
    /// Map `legs` had no room for the original leg of a connection that was to be diverted: reset.
    ResetLegsFull = "reset_legs_full",
    /// The agent's dial was redirected inside the pod (an `OUTPUT` rule, a mesh): nothing is spliced, reset.
    ResetRedirected = "reset_redirected",
    /// A head longer than 16 KiB without a routed key: read to its end, it stays with the baseline.
    HeadLong = "head_long",
    /// Payload behind the client's reset, of a frame that was held: dropped, nobody is to have it.
    LateClosed = "late_closed",
    /// A router on the way to a leg's backend takes no packets of this size (ICMP "too big"): the client was told, in its own numbers.
    TooBig = "too_big",
    /// No agent has been alive for two seconds, and the request needs one (to dial a leg, to cut a frame): reset.
    ResetAgentDead = "reset_agent_dead",
    /// The fork could not be reached, or no agent was there to dial it, and its route says `onUnreachable: Baseline`: the baseline
    /// served the request.
    BaselineInstead = "baseline_instead",
    /// A connection that is older than its record came to a place where a request must begin: it is read from there on.
    Adopted = "adopted",
    /// A payload passed on a connection that is older than its record, and nobody knows where its requests begin: not looked at until
    /// that is known.
    OpaqueOlder = "opaque_older",
}

/// How many entries map `counters` has: room for reasons to come.
pub const COUNTERS: usize = 128;

const _: () = assert!(Reason::ALL.len() <= COUNTERS);
