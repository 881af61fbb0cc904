//! Every way that a packet's story can end, each with a counter of its own: map `counters`, per CPU, by number.
//!
//! What stands here is what `sidetrack status` and `sidetrack explain-counter` say, and what `cargo xtask docs` writes into
//! `docs/counters.md`.

/// What a reason does to requests: whether it is a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// All is as it should be.
    None,
    /// Something comes later: TCP sends it again.
    Delay,
    /// A connection or packet passes unread: a key in it steers nothing.
    Unsteered,
    /// A client is reset, or its SYN refused.
    Refused,
    /// It should never happen.
    Defect,
}

impl Effect {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Defect, Self::Refused, Self::Unsteered, Self::Delay, Self::None];

    /// Its stable name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Delay => "delay",
            Self::Unsteered => "unsteered",
            Self::Refused => "refused",
            Self::Defect => "defect",
        }
    }

    /// Whether it is a problem, to a person.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::None => "No problem: all is as it should be.",
            Self::Delay => "Something comes later, nothing is lost: a problem only where it is frequent.",
            Self::Unsteered => {
                "It goes where its client has sent it, unread: a problem where its requests should have been steered."
            }
            Self::Refused => "A client was reset, or its connection refused: no right side was left.",
            Self::Defect => "This should never happen: please report it, with `sidetrack status`.",
        }
    }
}

/// Declares the reasons: number, what it means to a person, name, effect, and what to do about it.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal: $effect:ident $($advice:literal)*,)+) => {
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
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// Whether it is a problem.
            #[must_use]
            pub const fn effect(self) -> Effect {
                match self { $(Self::$variant => Effect::$effect,)+ }
            }

            /// What to do about it; empty where there is nothing to say.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => concat!($($advice),*),)+ }
            }
        }
    };
}

reasons! {
    /// A connection to a service address was seen from its SYN on and is followed.
    Tracked = "tracked": None,
    /// A SYN on a tuple that was known: the older connection was forgotten, its legs are reset.
    TupleReused = "tuple_reused": None,
    /// A connection ended and never had another leg: forgotten at once.
    ClosedPlain = "closed_plain": None,
    /// A connection with legs ended: kept as a tombstone for its last segments.
    ClosedLegs = "closed_legs": None,
    /// The SYN of a leg that the agent dials.
    DialSyn = "dial_syn": None,
    /// A request without a key, or with one that has no route here: it stays with, or goes to, the baseline.
    HeadBaseline = "head_baseline": None,
    /// A request whose key has a route here goes to its fork.
    HeadKeyed = "head_keyed": None,
    /// A request whose key nobody has a route for at this service.
    KeyUnrouted = "key_unrouted": None
        "Where a fork was expected: `sidetrack routes` has no line for this key at this service. Keys are compared "
        "whole, with case.",
    /// A carrier held a key that is empty, too long, or has a character outside `[A-Za-z0-9._-]`: no key.
    KeyInvalid = "key_invalid": None
        "Where a fork was expected: look at what the client sends. A folded line counts as invalid, too.",
    /// A member or header that carries a key stood there more than once: the first one counts.
    KeyDuplicate = "key_duplicate": None "Whoever adds a key should replace one that is there.",
    /// More than one carrier held a key with a route: the first in the configured order decided.
    KeyAmbiguous = "key_ambiguous": None "Remove one of the two, or change the order of `carriers` in the settings.",
    /// The owner changed to a leg that was there.
    SpliceHot = "splice_hot": None,
    /// The owner changed to a leg that the agent had just made.
    SpliceCold = "splice_cold": None "Such a request waits for its dial: 0.1 to 0.5 ms within a node.",
    /// A head is held: the agent is asked for a leg.
    HoldDial = "hold_dial": None
        "Far more of them than of `splice_cold`: dials fail, or no agent runs. A request that needs a new leg waits "
        "for the next agent.",
    /// A head is held: the old owner's response is not complete, or not everything is acknowledged.
    HoldWait = "hold_wait": None "Responses that end late make the next request wait, if it is for another owner.",
    /// A further frame behind a held head, or behind frames that were held and are not all sent yet.
    HoldMore = "hold_more": None,
    /// A frame with bytes for two owners goes to the agent to be cut.
    HoldCut = "hold_cut": None,
    /// A retransmission of what is held already, or more than is held for one connection: dropped, it comes again.
    HoldDropped = "hold_dropped": Delay
        "Rare is harmless. Else clients send far ahead of answers: more than 1 MiB behind one held head.",
    /// The ring buffer had no room: dropped, the client's retransmission asks again.
    RingFull = "ring_full": Delay
        "The client sends it again after 200 ms or more. Rare is harmless; else raise `limits.ringBufferBytes`.",
    /// A frame larger than 64 KiB cannot be held: dropped.
    FrameTooBig = "frame_too_big": Delay
        "The client sends it again, in smaller frames. Where it goes on: lower `gso_max_size` of the pod's interface "
        "to 65536 (BIG TCP).",
    /// A part of a head was passed to the owner and gathered.
    HeadPartial = "head_partial": None,
    /// No room to gather a head that comes in parts, of a connection to a service with routes: reset.
    HeadsFull = "heads_full": Refused
        "A client that begins requests and does not end them? 256 heads may have arrived in part at once.",
    /// A retransmission from before the last switch went to the previous owner.
    LateToPrevious = "late_to_previous": None,
    /// A frame with bytes from both sides of a switch that is done: dropped, the client sends what is missing.
    LateMixed = "late_mixed": Delay "Loss or reordering on the way. Nothing, while it is rare.",
    /// A frame beyond what was seen, where a head may start: dropped, it comes again in order.
    Gap = "gap": Delay "Loss or reordering on the way, or a client that sends from several processors. Nothing, while it is rare. What is still \
         missing a minute later is not waited for: `opaque_gap`, `reset_gap`.",
    /// Another CPU changed the connection meanwhile: dropped, it comes again.
    Busy = "busy": Delay "Nothing, while it is rare.",
    /// Not HTTP at the first byte: never looked at again.
    OpaqueNotHttp = "opaque_not_http": Unsteered "Nothing, if the protocol is meant. Requests that have a key must be HTTP/1.",
    /// HTTP/2 with prior knowledge: never looked at again.
    OpaqueHttp2 = "opaque_http2": Unsteered "Let the client speak HTTP/1.1 to this service: requests inside HTTP/2 are not read.",
    /// TLS: never looked at again.
    OpaqueTls = "opaque_tls": Unsteered "End TLS before the pod's interface: what is encrypted inside the pod cannot be read.",
    /// The connection became a tunnel (101, or CONNECT): it stays with its owner.
    OpaqueTunnel = "opaque_tunnel": Unsteered
        "Nothing: the request that opened it was steered, and all that follows belongs to it.",
    /// A head longer than 16 KiB that has a routed key, is for a fork, or cannot be read to its end; or one over 256 KiB:
    /// reset.
    ResetHeadTooLong = "reset_head_too_long": Refused
        "Cookies, mostly: make heads smaller. One line of framing or carriers over 16 KiB counts, too, and so does a "
        "head during which the program was replaced or many more such heads came.",
    /// A head that cannot be read on a connection that carried HTTP: reset.
    ResetHeadUnreadable = "reset_head_unreadable": Refused
        "Bytes where a head was due that are none, or framing that two servers would read differently. Look at what "
        "the client sends: two lengths, a length beside chunks, white space before a colon.",
    /// The route says fail: reset.
    ResetRouteFail = "reset_route_fail": Refused "`sidetrack routes` has the reason that the route gives.",
    /// The agent could not connect to the fork (refused, timed out, no endpoint of this family): reset.
    ResetUnreachable = "reset_unreachable": Refused
        "The agent's log says which endpoint and why, at `warn`. Is the fork listening on all addresses? Does a "
        "NetworkPolicy allow it from the client? Has it an endpoint of the client's family that is not the client's "
        "own pod? If the log says that no local port is left: keep client connections open, or give the route more "
        "endpoints.",
    /// The old owner's response did not end in time, so the owner could not change: reset.
    ResetNotSwitchable = "reset_not_switchable": Refused
        "A long poll or a stream on a shared connection: raise `switchTimeout`, or keep such requests on connections "
        "of their own.",
    /// The response has no length, or its framing was lost, and the next request is for another owner: reset.
    ResetSticky = "reset_sticky": Refused
        "Servers that end responses by closing need one connection for each request. `response_rest` and "
        "`response_lost` tell which it was.",
    /// The leg that owns the exchange is gone: reset.
    ResetLegGone = "reset_leg_gone": Refused "The fork's pod went: the next connection dials anew.",
    /// The leg that owns the exchange has not answered for two seconds, not even the client's retransmissions: reset.
    ResetLegDead = "reset_leg_dead": Refused "The fork's node went, or packets are dropped on the way to it.",
    /// A final status came in place of `100 Continue`; nobody knows whether a body follows: reset.
    ResetExpect = "reset_expect": Refused
        "What follows may be a body or a head. Do without `Expect: 100-continue` on connections with mixed keys.",
    /// Too many requests in one frame: reset.
    ResetPipeline = "reset_pipeline": Refused
        "More requests in one frame than are looked at: have the client pipeline fewer of them.",
    /// A keyed CONNECT: reset.
    ResetConnect = "reset_connect": Refused
        "A CONNECT on a connection that a fork owns counts, too. Send it without a key, on a connection of its own.",
    /// More came on a connection that was given up: reset.
    ResetAgain = "reset_again": Refused "Nothing: another counter has the reset before it.",
    /// A SYN to a service with routes found map `connections` or `legs` full: refused.
    RefusedFull = "refused_full": Refused "Raise `limits.connections`: stop the agent, `sidetrack purge`, start it again.",
    /// A successor with another ABI is at work: a new connection is not taken on.
    Draining = "draining": Unsteered "Nothing: the successor follows connections that are opened from now on.",
    /// A packet of a leg that is parked, after the exchange: kept from the client.
    ParkedKept = "parked_kept": None,
    /// The old owner sent payload, FIN or a reset while a head was held: kept from the client.
    HeldKept = "held_kept": None,
    /// A parked leg's segment came again and was acknowledged.
    ParkedAcked = "parked_acked": None,
    /// A parked leg was closed or reset by its backend: forgotten, the next request dials again.
    ParkedClosed = "parked_closed": None,
    /// A packet of a leg that was given up: dropped.
    DeadKept = "dead_kept": None,
    /// A complete response was read.
    ResponseComplete = "response_complete": None,
    /// A response without a length: it ends with the connection.
    ResponseRest = "response_rest": None
        "A next request for another owner is reset, as `reset_sticky`. Have the server give lengths, or chunks.",
    /// A response head that cannot be read, or out of order: the connection stays with its owner.
    ResponseLost = "response_lost": None
        "A next request for another owner is reset, as `reset_sticky`. Loss on the way, or a server that does not "
        "speak HTTP.",
    /// A leg's segment where a response's head or chunk may start came before those in front of it: dropped, it comes again.
    ResponseGap = "response_gap": Delay "Loss or reordering on the way. Nothing, while it is rare.",
    /// A response without a request.
    ResponseUnasked = "response_unasked": None
        "A server that speaks first, or a time-out's 408. The owner of such a connection never changes again.",
    /// The ring buffer had no room for the news of a closed connection: the agent's sweep finds it.
    GoneUnsaid = "gone_unsaid": Delay "It takes a second longer until its legs are reset. Often: raise `limits.ringBufferBytes`.",
    /// `bpf_skb_load_bytes` failed.
    ErrLoad = "err_load": Defect,
    /// `bpf_skb_store_bytes` or a checksum helper failed: dropped.
    ErrStore = "err_store": Defect,
    /// A packet could not be cut or turned round: dropped.
    ErrTurn = "err_turn": Defect,
    /// A map update failed for another reason than room.
    ErrMap = "err_map": Defect,
    /// The head scanner did not come to an end.
    ErrScan = "err_scan": Defect,
    /// A redirect failed.
    ErrRedirect = "err_redirect": Defect,
    /// An IP packet with options or fragments to a tracked tuple, or with extension headers of IPv6 to anywhere (but the one of
    /// BIG TCP): passed as it is.
    OddHeader = "odd_header": None
        "Reports of multicast listeners count here, too. Where it grows with requests: their packets cannot be read, and steer nothing.",
    /// Map `legs` had no room for a leg, or for the original one of a connection that was to be diverted: reset.
    ResetLegsFull = "reset_legs_full": Refused "Raise `limits.connections`: stop the agent, `sidetrack purge`, start it again.",
    /// The agent's dial was redirected inside the pod (an `OUTPUT` rule, a mesh): nothing is spliced, reset.
    ResetRedirected = "reset_redirected": Refused "Exclude the fork's port from the redirect, or the pod from the mesh.",
    /// A head longer than 16 KiB without a routed key: read to its end, it stays with the baseline.
    HeadLong = "head_long": None,
    /// Payload behind the client's reset, of a frame that was held: dropped, nobody is to have it.
    LateClosed = "late_closed": None,
    /// A router on the way to a leg's backend takes no packets of this size (ICMP "too big"): the client was told, in its own numbers.
    TooBig = "too_big": Delay "The client sends smaller packets from then on. Give forks the MTU of the rest to avoid it.",
    /// The SYN of a leg that the agent dials found map `handshakes` full: dropped, it comes again.
    HandshakesFull = "handshakes_full": Delay
        "More than 16,384 dials at once, or failed within ten seconds. A dial whose second SYN, a second later, finds no room either is "
        "refused as `reset_unreachable`.",
    /// Map `legs` had no room for the record by which the agent resets the baseline of a connection that is given up.
    LegsFull = "legs_full": Delay
        "The client is reset all the same; its baseline learns of it by its own time-out. Raise `limits.connections`: stop the agent, "
        "`sidetrack purge`, start it again.",
    /// Counted by the agent: it keeps as many bytes of held frames as it may: dropped, the client's retransmission comes again.
    HeldFull = "held_full": Delay
        "Rare is harmless. Else raise `limits.heldBytes`, or look for forks that take long to accept while clients upload to them.",
    /// Counted by the agent: map `dials` had no room for the answer to a hold: the client's retransmission asks again.
    DialsFull = "dials_full": Delay "More than 16,384 requests wait for their legs at once. Have clients keep connections open.",
    /// No agent has been alive for two seconds, and the request needs one (to dial a leg, to cut a frame): reset. One that is the
    /// baseline's is reset when it has waited for 30 s.
    ResetAgentDead = "reset_agent_dead": Refused
        "`sidetrack status` says since when. A route that says `onUnreachable: Baseline` falls back, counted as `baseline_instead`.",
    /// The fork could not be reached, or no agent was there to dial it, and its route says `onUnreachable: Baseline`: the baseline
    /// served the request.
    BaselineInstead = "baseline_instead": Unsteered
        "The agent's log says at `debug` why there was no leg. `onUnreachable: Fail` refuses such requests.",
    /// A connection that is older than its record came to a place where a request must begin: it is read from there on.
    Adopted = "adopted": None,
    /// A payload passed on a connection that is older than its record, and nobody knows where its requests begin: not looked at until
    /// that is known.
    OpaqueOlder = "opaque_older": Unsteered
        "It was in the middle of an exchange when the agent or its service's entry came: it is steered from the end of that on \
         (`adopted`).",
    /// Counted by the agent: an exchange with an endpoint that has left its route was not over in time (`endpointGrace`): reset.
    ResetEndpointLeft = "reset_endpoint_left": Refused
        "A download or stream of an endpoint that was taken from its route. Raise `endpointGrace` where such exchanges take longer.",
    /// The first head of a connection is HTTP without a key, and its framing is one that servers read differently: where the next
    /// head begins nobody knows. The baseline gets it, and all that follows.
    OpaqueFraming = "opaque_framing": Unsteered
        "Look at what the client sends: two lengths, a length beside chunks, white space before a colon.",
    /// A SYN brought payload (TCP Fast Open) to a service that nobody has forked: the connection is not followed.
    OpaqueFastOpen = "opaque_fast_open": Unsteered
        "Nothing: while a service is forked the option is taken from SYNs, and such clients do without.",
    /// No room to read a head on that comes in parts, of a connection to a service that nobody has forked: it passes unread, and so does
    /// what follows, until it is known where a request begins.
    OpaqueHeadsFull = "opaque_heads_full": Unsteered
        "A client that begins requests and does not end them? Where the service is forked meanwhile, the connection is steered from its \
         next request on (`adopted`); the one that passed unread is the baseline's.",
    /// What a client sends lies behind bytes that were not seen for a minute, on a connection of which something was read, to a service that is forked: reset.
    ResetGap = "reset_gap": Refused
        "Some of the client's packets do not pass the pod's interface, or not as plain TCP: `odd_header` counts those with IP options \
         and fragments. Packets that leave by another interface are not seen.",
    /// The same where nothing was read before, or nobody has forked the service: all passes, until it is known where a request begins (`adopted`).
    OpaqueGap = "opaque_gap": Unsteered "As for `reset_gap`.",
    /// Client and server have agreed on MPTCP, on a connection to a service that nobody had forked: what they send is never looked at.
    OpaqueMultipath = "opaque_multipath": Unsteered
        "While a service is forked the option is taken from SYNs, and new connections do without. Until such a connection is opened anew its \
         requests are the baseline's.",
    /// A request needs a leg, and its client's address is on no interface of the pod that it comes through, or on those of several pods:
    /// reset.
    ResetForeign = "reset_foreign": Refused
        "The pod forwards for somebody else, as VPN gateways and routers do, or shares an address with another pod of its node. Let it \
         translate addresses to its own (masquerade), or have the client send its keyed requests from a pod.",
}

/// How many entries map `counters` has: room for reasons to come.
pub const COUNTERS: usize = 128;

const _: () = {
    assert!(Reason::ALL.len() <= COUNTERS);
    let mut at = 0;
    while at < Reason::ALL.len() {
        let reason = Reason::ALL[at];
        let silent = matches!(reason.effect(), Effect::None | Effect::Defect);
        assert!(silent || !reason.advice().is_empty(), "what harms a request comes with what to do about it");
        at += 1;
    }
};
