//! What is needed of a frame besides the programs' own view.

use std::net::{IpAddr, SocketAddr};

use sidetrack_splice::{abi::addr::Tuple, packet::Packet};
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket};

use super::kernel::packet;

const ETHERNET: usize = 14;

/// Where a frame goes.
#[must_use]
pub fn destination(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(ETHERNET)? >> 4 {
        4 => Some(IpAddr::from(*frame.get(30..34)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*frame.get(38..54)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Completes a TCP checksum, as the kernel does for a frame whose sender has left it to the device.
///
/// # Panics
/// If it is no TCP segment.
pub fn complete(frame: &mut [u8]) {
    let packet = &mut frame[ETHERNET..];
    let (from, to, header): (IpAddress, IpAddress, usize) = if packet[0] >> 4 == 4 {
        let it = Ipv4Packet::new_checked(&*packet).expect("an IPv4 packet");
        (it.src_addr().into(), it.dst_addr().into(), it.header_len().into())
    } else {
        let it = Ipv6Packet::new_checked(&*packet).expect("an IPv6 packet");
        (it.src_addr().into(), it.dst_addr().into(), it.header_len())
    };
    TcpPacket::new_checked(&mut packet[header..]).expect("a TCP segment").fill_checksum(&from, &to);
}

/// Lets a SYN ask for no longer segments than that.
pub fn limit_mss(frame: &mut [u8], mss: u16) {
    let Ok(it) = sidetrack::cold::Frame::parse(frame) else { return };
    let (options, syn) = (it.tcp_at() + 20, it.flags() & 2 != 0);
    // The stack's SYNs begin with it.
    if syn && frame.get(options..options + 2) == Some(&[2, 4]) {
        let said = u16::from_be_bytes([frame[options + 2], frame[options + 3]]);
        frame[options + 2..options + 4].copy_from_slice(&said.min(mss).to_be_bytes());
        complete(frame);
    }
}

/// The connection of a frame as the pod sees it: `outward`, if the pod sends it.
#[must_use]
pub fn tuple(frame: &[u8], outward: bool) -> Option<Tuple> {
    let mut p = Packet::default();
    packet::parse(frame, &mut p).then(|| if outward { packet::outbound(&p) } else { packet::inbound(&p) })
}

/// Where a SYN comes from, and where it goes.
#[must_use]
pub fn opens(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let header = if *frame.get(ETHERNET)? >> 4 == 4 { 20 } else { 40 };
    if frame.get(ETHERNET + header + 13)? & 0x12 != 2 {
        return None;
    }
    let it = sidetrack::cold::Frame::parse(frame).ok()?;
    Some((it.source(), it.destination()))
}

/// A segment in words.
#[must_use]
pub fn words(frame: &[u8]) -> String {
    let Ok(it) = sidetrack::cold::Frame::parse(frame) else { return format!("{} bytes", frame.len()) };
    let flags = [(1, 'F'), (2, 'S'), (4, 'R'), (8, 'P'), (16, 'A')];
    let flags: String = flags.iter().filter(|(bit, _)| it.flags() & bit != 0).map(|(_, name)| *name).collect();
    let options = &frame[it.tcp_at() + 20..it.payload_at()];
    let (from, to, len) = (it.source(), it.destination(), it.payload().len());
    let window = u16::from_be_bytes([frame[it.tcp_at() + 14], frame[it.tcp_at() + 15]]);
    format!("{from} > {to} {flags} seq {} ack {} win {window} len {len} {options:?}", it.seq(), it.ack())
}
