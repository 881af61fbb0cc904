//! A TCP segment's headers, and how they are rewritten.
//!
//! Headers are taken as words in memory order, as one `bpf_skb_load_bytes` gives them, and written back as one run of
//! words from the source address to the window field.

use crate::{abi::addr::Addr, checksum::Diff, seq::Numbers};

/// TCP flag bits (RFC 9293 3.1), as they stand in the 14th byte of the header.
pub mod flag {
    /// The sender has finished.
    pub const FIN: u8 = 1;
    /// Synchronise.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
    /// Congestion was experienced; in a SYN, the sender can do ECN (RFC 3168, section 6.1).
    pub const ECE: u8 = 64;
    /// The congestion window was reduced.
    pub const CWR: u8 = 128;
}

/// Length of an Ethernet header.
pub const ETH: u32 = 14;
/// IPv4 header without options, and TCP header without options, in words.
pub const WORDS_V4: usize = 10;
/// IPv6 header, and TCP header without options, in words.
pub const WORDS_V6: usize = 15;

/// The same, with the header between them that tells the length of a frame of BIG TCP.
pub const WORDS_JUMBO: usize = WORDS_V6 + 2;
/// Length of that header: next header, length, and the jumbo payload option (RFC 2675), before Linux 7.0.
pub const JUMBO: u32 = 8;

/// A TCP segment's headers. Words are in memory order, numbers in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source and destination port.
    pub ports: u32,
    /// Data offset, flags, window.
    pub control: u32,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Offset of the TCP header in the frame.
    pub tcp_at: u32,
    /// Offset of the payload in the frame.
    pub payload_at: u32,
    /// TCP flags.
    pub flags: u8,
    /// Not zero: IPv6.
    pub v6: u8,
    /// The window field.
    pub window: u16,
}

impl Packet {
    /// Reads an IPv4 and a TCP header into `self`. `frame_len` is the frame's, for BIG TCP (total length 0).
    ///
    /// False: not TCP, a fragment, or IP options. (An `Option` of this size is undefined memory when it is `None`, which
    /// LLVM reads ahead of the check, and the verifier refuses: "R1 !`read_ok`".)
    #[inline(always)]
    #[must_use]
    pub fn read_v4(&mut self, w: &[u32; WORDS_V4], frame_len: u32) -> bool {
        let first = u32::from_be(w[0]);
        // version and header length, no fragment (offset and MF are 0, DF may be set), protocol TCP
        if first >> 24 != 0x45 || u32::from_be(w[1]) & 0x3fff != 0 || (u32::from_be(w[2]) >> 16) & 0xff != 6 {
            return false;
        }
        let total = first & 0xffff;
        let total = if total == 0 { frame_len.wrapping_sub(ETH) } else { total };
        self.src = Addr::v4(w[3]);
        self.dst = Addr::v4(w[4]);
        self.v6 = 0;
        self.read_tcp([w[5], w[6], w[7], w[8]], ETH + 20, total.wrapping_sub(20))
    }

    /// Reads an IPv6 and a TCP header into `self`. False: not TCP, or extension headers.
    #[inline(always)]
    #[must_use]
    pub fn read_v6(&mut self, w: &[u32; WORDS_V6], frame_len: u32) -> bool {
        let second = u32::from_be(w[1]);
        if u32::from_be(w[0]) >> 28 != 6 || (second >> 8) & 0xff != 6 {
            return false;
        }
        let payload = second >> 16;
        let payload = if payload == 0 { frame_len.wrapping_sub(ETH + 40) } else { payload };
        self.src = Addr([w[2], w[3], w[4], w[5]]);
        self.dst = Addr([w[6], w[7], w[8], w[9]]);
        self.v6 = 1;
        self.read_tcp([w[10], w[11], w[12], w[13]], ETH + 40, payload)
    }

    /// Reads what BIG TCP makes of more than 64 KiB over IPv6: an IPv6 header of length 0, a hop-by-hop header with the length and
    /// nothing else, and a TCP header. False: anything else.
    #[inline(always)]
    #[must_use]
    pub fn read_jumbo(&mut self, w: &[u32; WORDS_JUMBO], frame_len: u32) -> bool {
        let second = u32::from_be(w[1]);
        if u32::from_be(w[0]) >> 28 != 6 || second >> 8 != 0 {
            return false;
        }
        // TCP follows, eight bytes in all, option 0xc2 of four bytes
        let payload = frame_len.wrapping_sub(ETH + 40);
        if u32::from_be(w[10]) != 0x0600_c204 || u32::from_be(w[11]) != payload || payload <= 0xffff {
            return false;
        }
        self.src = Addr([w[2], w[3], w[4], w[5]]);
        self.dst = Addr([w[6], w[7], w[8], w[9]]);
        self.v6 = 1;
        self.read_tcp([w[12], w[13], w[14], w[15]], ETH + 40 + JUMBO, payload - JUMBO)
    }

    /// [`OPT_ECN`](crate::abi::record::OPT_ECN) where a SYN asks for ECN, or a SYN-ACK agrees to it (RFC 3168, section 6.1.1).
    #[inline(always)]
    #[must_use]
    pub const fn ecn(&self) -> u8 {
        let asks = if self.flags & flag::ACK == 0 { flag::ECE | flag::CWR } else { flag::ECE };
        if self.flags & (flag::ECE | flag::CWR) == asks { crate::abi::record::OPT_ECN } else { 0 }
    }

    /// The control word of a SYN that does not ask for ECN.
    #[inline(always)]
    #[must_use]
    pub const fn without_ecn(&self) -> u32 {
        (u32::from_be(self.control) & !(((flag::ECE | flag::CWR) as u32) << 16)).to_be()
    }

    /// Whether that header stands between the others.
    #[inline(always)]
    #[must_use]
    pub const fn jumbo(&self) -> bool {
        self.v6 != 0 && self.tcp_at != ETH + 40
    }

    #[inline(always)]
    fn read_tcp(&mut self, w: [u32; 4], tcp_at: u32, ip_payload: u32) -> bool {
        let control = u32::from_be(w[3]);
        let header = (control >> 28) * 4;
        if header < 20 || ip_payload < header {
            return false;
        }
        self.ports = w[0];
        self.control = w[3];
        self.seq = u32::from_be(w[1]);
        self.ack = u32::from_be(w[2]);
        self.len = ip_payload - header;
        self.tcp_at = tcp_at;
        self.payload_at = tcp_at + header;
        self.flags = (control >> 16) as u8;
        self.window = control as u16;
        true
    }

    /// Bytes of TCP options.
    #[inline(always)]
    #[must_use]
    pub const fn options_len(&self) -> u32 {
        self.payload_at - self.tcp_at - 20
    }

    /// Source port, network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn src_port(&self) -> u16 {
        if cfg!(target_endian = "little") { self.ports as u16 } else { (self.ports >> 16) as u16 }
    }

    /// Destination port, network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn dst_port(&self) -> u16 {
        if cfg!(target_endian = "little") { (self.ports >> 16) as u16 } else { self.ports as u16 }
    }

    /// How many sequence numbers it takes.
    #[inline(always)]
    #[must_use]
    pub const fn span(&self) -> u32 {
        self.len + (self.flags & flag::FIN) as u32 + ((self.flags & flag::SYN) >> 1) as u32
    }
}

/// Two ports, network byte order, as one word in memory order.
#[inline(always)]
#[must_use]
pub const fn ports(src: u16, dst: u16) -> u32 {
    if cfg!(target_endian = "little") { src as u32 | (dst as u32) << 16 } else { (src as u32) << 16 | dst as u32 }
}

/// What a packet is rewritten to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source and destination port, as [`ports`] makes it.
    pub ports: u32,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The window field.
    pub window: u16,
    /// Zero.
    pub pad: u16,
}

impl Edit {
    /// The packet as it is, with other numbers and another window field.
    #[inline(always)]
    #[must_use]
    pub const fn numbers(p: &Packet, n: Numbers, window: u16) -> Self {
        Self { src: p.src, dst: p.dst, ports: p.ports, seq: n.seq, ack: n.ack, window, pad: 0 }
    }

    /// The control word with this edit's window.
    #[inline(always)]
    const fn control(&self, p: &Packet) -> u32 {
        ((u32::from_be(p.control) & 0xffff_0000) | self.window as u32).to_be()
    }

    /// The words to store from the source address on (IPv4: six, at frame offset 26), and the checksum differences of
    /// the addresses and of the rest.
    #[inline(always)]
    #[must_use]
    pub fn words_v4(&self, p: &Packet) -> ([u32; 6], Diff, Diff) {
        let words =
            [self.src.v4_word(), self.dst.v4_word(), self.ports, self.seq.to_be(), self.ack.to_be(), self.control(p)];
        let mut addresses = Diff::new();
        addresses.word(p.src.v4_word(), words[0]);
        addresses.word(p.dst.v4_word(), words[1]);
        (words, addresses, self.rest(p))
    }

    /// The same for IPv6: twelve words, at frame offset 22.
    #[inline(always)]
    #[must_use]
    pub fn words_v6(&self, p: &Packet) -> ([u32; 12], Diff, Diff) {
        let (s, d) = (self.src.0, self.dst.0);
        let words = [
            s[0],
            s[1],
            s[2],
            s[3],
            d[0],
            d[1],
            d[2],
            d[3],
            self.ports,
            self.seq.to_be(),
            self.ack.to_be(),
            self.control(p),
        ];
        let mut addresses = Diff::new();
        let mut i = 0;
        while i < 4 {
            addresses.word(p.src.0[i], s[i]);
            addresses.word(p.dst.0[i], d[i]);
            i += 1;
        }
        (words, addresses, self.rest(p))
    }

    #[inline(always)]
    fn rest(&self, p: &Packet) -> Diff {
        let mut rest = Diff::new();
        rest.word(p.ports, self.ports);
        rest.word(p.seq.to_be(), self.seq.to_be());
        rest.word(p.ack.to_be(), self.ack.to_be());
        rest.word(p.control, self.control(p));
        rest
    }
}

/// Most bytes of TCP options (RFC 9293 3.1).
pub const OPTIONS_MAX: usize = 40;

/// TCP options in a buffer that any masked index lies in.
pub type Options = [u8; 64];

const MASK: usize = 63;

/// What is read from the options of a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size, 536 when it is not there (RFC 9293 3.7.1).
    pub mss: u16,
    /// Window scale, at most 14 (RFC 7323 2.3).
    pub wscale: u8,
    /// `OPT_` flags.
    pub options: u8,
}

/// What is done to options on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionEdit {
    /// Replace timestamps by NOPs: two peers' clocks cannot be merged (RFC 7323 5, PAWS).
    pub strip_timestamp: bool,
    /// Replace MPTCP and TCP Fast Open by NOPs.
    pub strip_multipath: bool,
    /// Replace a SYN's offer of SACK by NOPs (RFC 2018, section 2).
    pub strip_sack: bool,
    /// Add this to every edge of SACK blocks.
    pub sack: u32,
}

/// A walk through the options of one segment, in steps that the host drives: at most [`OPTION_STEPS`].
#[derive(Clone, Copy, Debug, Default)]
pub struct OptionWalk {
    /// Offset of the next byte to look at.
    pub at: u32,
    /// How many bytes there are.
    pub len: u32,
    /// Offset of the timestamp option, and one more; zero if there is none.
    pub stamp: u32,
    /// Bytes still to be replaced by NOPs.
    pub nops: u32,
    /// SACK edges still to be moved.
    pub edges: u32,
    /// What is done.
    pub edit: OptionEdit,
    /// What was read.
    pub syn: SynOptions,
}

/// No walk takes more steps: each one moves on by a byte at least.
pub const OPTION_STEPS: u32 = OPTIONS_MAX as u32 + 1;

impl OptionWalk {
    /// One step. Returns whether there is more to do.
    #[inline(always)]
    pub fn step(&mut self, o: &mut Options) -> bool {
        use crate::abi::record::{OPT_MULTIPATH, OPT_SACK, OPT_TIMESTAMP, OPT_WSCALE};
        if self.at >= self.len {
            return false;
        }
        let at = self.at as usize;
        if self.nops != 0 {
            o[at & MASK] = 1;
            self.nops -= 1;
            self.at += 1;
            return true;
        }
        let four = |o: &Options, e: usize| [o[e & MASK], o[(e + 1) & MASK], o[(e + 2) & MASK], o[(e + 3) & MASK]];
        if self.edges != 0 {
            let new = u32::from_be_bytes(four(o, at)).wrapping_add(self.edit.sack).to_be_bytes();
            o[at & MASK] = new[0];
            o[(at + 1) & MASK] = new[1];
            o[(at + 2) & MASK] = new[2];
            o[(at + 3) & MASK] = new[3];
            self.edges -= 1;
            self.at += 4;
            return true;
        }
        let [kind, size, third, fourth] = four(o, at);
        if kind == 1 {
            self.at += 1;
            return true;
        }
        let size = u32::from(size);
        if kind == 0 || size < 2 || self.at + size > self.len {
            return false;
        }
        let mut strip = false;
        match kind {
            2 => self.syn.mss = u16::from_be_bytes([third, fourth]),
            3 => {
                self.syn.wscale = if third > 14 { 14 } else { third };
                self.syn.options |= OPT_WSCALE;
            }
            4 => {
                strip = self.edit.strip_sack;
                if !strip {
                    self.syn.options |= OPT_SACK;
                }
            }
            5 if self.edit.sack != 0 => {
                self.edges = (size - 2) / 4;
                self.at += 2;
                return true;
            }
            8 => {
                self.syn.options |= OPT_TIMESTAMP;
                if size == 10 {
                    self.stamp = self.at + 1;
                }
                strip = self.edit.strip_timestamp;
            }
            // MPTCP (RFC 8684)
            30 => {
                strip = self.edit.strip_multipath;
                if !strip {
                    self.syn.options |= OPT_MULTIPATH;
                }
            }
            // TCP Fast Open (RFC 7413) and its experimental form (RFC 6994)
            34 | 254 => strip = self.edit.strip_multipath,
            _ => {}
        }
        if strip {
            self.nops = size;
        } else {
            self.at += size;
        }
        true
    }
}

#[cfg(test)]
mod tests;
