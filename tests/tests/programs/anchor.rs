//! The compiled kernel programs read heads and chunked bodies as the native code does: each head of the corpus goes
//! through egress or ingress by test runs, and what they leave in their maps is compared.

use crate::kernel::{Kernel, SEGMENT};
use anyhow::{Context as _, Result, ensure};
use aya::maps::PerCpuArray;
use sidetrack_splice::{
    abi::{
        config::{CARRIERS, Config},
        record::{FRAMING_HEAD, PHASE_RESET},
    },
    carrier::default_carriers,
    http::{self, Found, Head, REQUEST, STATUS_COMPLETE, STATUS_INCOMPLETE, STATUS_MORE, chunk, corpus, long},
    window::Window,
};
use sidetrack_tests::gate::{Need, open};
use zerocopy::FromBytes;

/// Size of the value of map `scratch_head`: a window, a head, the keys, and room.
const WORK: usize = 32 * 1024;

/// What the programs read last.
fn work(kernel: &Kernel) -> Result<(Head, Found)> {
    let map: PerCpuArray<_, [u8; WORK]> = PerCpuArray::try_from(kernel.object.map("scratch_head").context("a map")?)?;
    let values = map.get(&0, 0)?;
    let bytes = &values[0][size_of::<Window>()..];
    let (head, rest) = Head::read_from_prefix(bytes).map_err(|e| anyhow::anyhow!("{e}"))?;
    let (found, _) = Found::read_from_prefix(rest).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok((head, found))
}

/// What the native code reads.
fn native(text: &[u8], kind: u32, config: &Config) -> (Head, Found) {
    let (window, len) = Window::of(text);
    let (mut head, mut found) = (Head::default(), Found::default());
    head.start(0, len, kind);
    http::run(&mut head, &mut found, &window, config);
    (head, found)
}

/// What a head says. How it was read may differ: the filter of names also looks at what stands behind a short line.
fn said(head: &Head) -> [u64; 11] {
    let words = [
        head.status,
        head.kind,
        head.start,
        head.end,
        head.body,
        head.flags,
        head.code,
        head.found,
        head.invalid,
        head.duplicate,
    ]
    .map(u64::from);
    std::array::from_fn(|i| words.get(i).copied().unwrap_or(head.length))
}

/// The valid keys. The kernel notes the service beside each.
fn keys(head: &Head, found: &Found) -> Vec<Option<[u8; 64]>> {
    (0..CARRIERS).map(|i| (head.found >> i & 1 != 0).then(|| found.keys[i].key)).collect()
}

#[test]
fn the_kernel_reads_heads_as_the_native_code_does() -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let (mut kernel, config) = (Kernel::load()?, default_carriers());
    let ask = b"GET / HTTP/1.1\r\n\r\n";
    for (i, (kind, mut text)) in corpus::heads().into_iter().enumerate() {
        let whole = native(&text, kind, &config).0;
        if whole.status == STATUS_COMPLETE {
            // what stands behind it would be read as the next
            text.truncate(whole.end as usize);
        }
        // A head that is decided before all of it is there: the programs do not look at the segments behind.
        let given = text.chunks(SEGMENT).enumerate().map(|(n, part)| n * SEGMENT + part.len());
        let seen = given.into_iter().find(|n| native(&text[..*n], kind, &config).0.status != STATUS_INCOMPLETE);
        text.truncate(seen.unwrap_or(text.len()));
        let (head, found) = native(&text, kind, &config);
        let mut flow = kernel.open(i % 2 == 1)?;
        if kind == REQUEST {
            kernel.send(&mut flow, &text)?;
        } else {
            kernel.send(&mut flow, ask)?;
            kernel.answer(&mut flow, &text)?;
        }
        let (read, with) = work(&kernel)?;
        ensure!(said(&read) == said(&head), "{}\nin the kernel {read:?}\nnatively {head:?}", text.escape_ascii());
        ensure!(keys(&read, &with) == keys(&head, &found), "keys of {}", text.escape_ascii());
    }
    Ok(())
}

#[test]
fn the_kernel_reads_heads_beyond_the_window_as_the_native_code_does() -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let (mut kernel, config) = (Kernel::load()?, default_carriers());
    for (i, text) in corpus::long_heads().into_iter().enumerate() {
        let (head, found) = long::parts(&text, SEGMENT, &config);
        let mut flow = kernel.open(i % 2 == 1)?;
        kernel.send(&mut flow, &text)?;
        let text = text[..200].escape_ascii();
        if head.status == STATUS_MORE {
            ensure!(kernel.connection(&flow)?.now.phase == PHASE_RESET, "cannot be read on: {text}");
            continue;
        }
        let (read, with) = work(&kernel)?;
        ensure!(said(&read) == said(&head), "{text}\nin the kernel {read:?}\nnatively {head:?}");
        ensure!(keys(&read, &with) == keys(&head, &found), "keys of {text}");
    }
    Ok(())
}

#[test]
fn the_kernel_follows_chunked_bodies_as_the_native_code_does() -> Result<()> {
    if !open(&[Need::Lab]) {
        return Ok(());
    }
    let mut kernel = Kernel::load()?;
    let ask = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (i, body) in corpus::chunked().into_iter().enumerate() {
        let mut flow = kernel.open(i % 2 == 1)?;
        kernel.send(&mut flow, ask)?;
        let start = kernel.connection(&flow)?.now.request;
        let mut expected = chunk::start(start.pos);
        ensure!(start == expected, "behind the head: {start:?}");
        let ended = chunk::run(&mut expected, start.pos, &body);
        kernel.send(&mut flow, &body)?;
        let now = kernel.connection(&flow)?.now;
        if ended == chunk::Flow::Bad {
            ensure!(now.phase == PHASE_RESET, "no chunked body: {}", body.escape_ascii());
        } else {
            ensure!(now.request == expected, "{}: {:?}, natively {expected:?}", body.escape_ascii(), now.request);
            ensure!((now.request.state == FRAMING_HEAD) == (ended == chunk::Flow::Done));
        }
    }
    Ok(())
}
