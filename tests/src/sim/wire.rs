//! What is needed of a frame besides the programs' own view.

use std::net::IpAddr;

use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket};

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
