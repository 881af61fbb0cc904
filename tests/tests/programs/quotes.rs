//! ICMP "too big" about a leg is told to the client in its own numbers.

use std::net::SocketAddr;

use crate::kernel::{ACK, INGRESS, Kernel, PASS, Records, frame, run_out};
use anyhow::{Result, ensure};
use rstest::rstest;
use sidetrack_splice::abi::{addr::Tuple, record::Leg};
use sidetrack_tests::gate::{Need, open};

/// A leg, the connection that it serves, and another connection of the pod's to the fork.
const V4: [&str; 5] = ["10.99.0.9:40000", "10.99.0.12:8080", "10.99.0.9:1000", "10.96.0.10:80", "10.99.0.9:40001"];
const V6: [&str; 5] = ["[fd00::9]:40000", "[fd00::12]:8080", "[fd00::9]:1000", "[fd00::aaaa:a]:80", "[fd00::9]:40001"];

#[rstest]
fn a_quoted_segment_of_a_leg_becomes_the_clients(#[values(V4, V6)] sides: [&str; 5]) -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    let mut legs: Records<{ size_of::<Tuple>() }, { size_of::<Leg>() }> = Records::take(&mut kernel.object, "legs")?;
    let [leg, fork, client, service, other] = sides.map(str::parse::<SocketAddr>);
    let (leg, fork, client, service, other) = (leg?, fork?, client?, service?, other?);
    let record = Leg { conn: Tuple::new(client, service), cs_off: 1000, moved: 1, ..Leg::default() };
    legs.put(&Tuple::new(leg, fork), &record)?;
    let about = |from, to, seq| too_big(&frame(from, to, seq, 0, ACK, &[0; 100]));
    let nobodys = about(other, fork, 5000);
    for (message, becomes) in [(about(leg, fork, 5000), about(client, service, 4000)), (nobodys.clone(), nobodys)] {
        let (verdict, out) = run_out(&kernel.object, INGRESS, &message)?;
        ensure!(verdict == PASS, "{verdict}");
        ensure!(out == becomes, "{out:x?}\nnot {becomes:x?}");
    }
    Ok(())
}

/// "Too big" of a router, with right checksums, that quotes as much of a segment as it must (RFC 792), and options.
fn too_big(segment: &[u8]) -> Vec<u8> {
    let mut quoted = segment[14..].to_vec();
    let v6 = quoted[0] >> 4 == 6;
    quoted.truncate(if v6 { 60 } else { 40 });
    let mut icmp = if v6 { vec![2, 0, 0, 0, 0, 0, 5, 20] } else { vec![3, 4, 0, 0, 0, 0, 5, 20] };
    let mut pseudo = Vec::new();
    let mut message = segment[..14].to_vec();
    let len = (icmp.len() + quoted.len()) as u8;
    if v6 {
        let ends = [&[0xfd; 16][..], &quoted[8..24]].concat();
        message.extend([0x60, 0, 0, 0, 0, len, 58, 64]);
        message.extend(&ends);
        pseudo = [&ends[..], &[0, 0, 0, len, 0, 0, 0, 58]].concat();
    } else {
        let sum = checksum(&quoted[..20]);
        quoted[10..12].copy_from_slice(&sum);
        message.extend([0x45, 0xc0, 0, 20 + len, 0, 0, 0, 0, 64, 1, 0, 0, 10, 99, 0, 1]);
        message.extend(&quoted[12..16]);
    }
    icmp.extend(quoted);
    let sum = checksum(&[&pseudo[..], &icmp].concat());
    icmp[2..4].copy_from_slice(&sum);
    message.extend(icmp);
    message
}

/// RFC 1071, of bytes whose checksum is zero yet.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1]));
    let mut sum = words.sum::<u64>();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
