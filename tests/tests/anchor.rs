//! The compiled kernel programs read heads and chunked bodies as the native code does: each head of the corpus goes
//! through egress or ingress by test runs, and what they leave in their maps is compared.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, PerCpuArray},
    programs::SchedClassifier,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use sidetrack_splice::{
    abi::{
        addr::Tuple,
        config::{CARRIERS, Config},
        record::{Connection, FRAMING_HEAD, PHASE_RESET},
        route::{Service, ServiceAddr},
    },
    carrier::default_carriers,
    filter,
    http::{self, Found, Head, REQUEST, STATUS_COMPLETE, STATUS_INCOMPLETE, STATUS_MORE, chunk, corpus, long},
    window::Window,
};
use sidetrack_tests::gate::{Need, open};
use zerocopy::{FromBytes, IntoBytes};

/// Size of the value of map `scratch_head`: a window, a head, the keys, and room.
const WORK: usize = 32 * 1024;
/// A test run takes a page, less some room.
const SEGMENT: usize = 1400;
/// First sequence number of either side.
const ISN: u32 = 0xffff_fe00;

/// One test at a time writes the object, or reads it.
static BUILD: Mutex<()> = Mutex::new(());

const SYN: u8 = 2;
const ACK: u8 = 16;

/// The programs, loaded without any pin, and how many connections went through them.
struct Kernel {
    object: Ebpf,
    config: Config,
    connections: u16,
}

/// One connection through the programs.
struct Flow {
    client: SocketAddr,
    service: SocketAddr,
    /// Bytes that each side has sent.
    sent: u32,
    answered: u32,
}

impl Kernel {
    fn load() -> Result<Self> {
        let object = {
            let _one = BUILD.lock().unwrap_or_else(PoisonError::into_inner);
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("anchor.bpf.o");
            xtask::ebpf::build_ebpf(&path)?;
            std::fs::read(path)?
        };
        let mut object = EbpfLoader::new().load(&object)?;
        for name in ["st_egress", "st_ingress"] {
            let program: &mut SchedClassifier = object.program_mut(name).context("the object has it")?.try_into()?;
            program.load()?;
        }
        let config = default_carriers();
        let mut map: Array<_, [u8; size_of::<Config>()]> =
            Array::try_from(object.map_mut("config").context("config")?)?;
        map.set(0, bytes(&config)?, 0)?;
        let mut kernel = Self { object, config, connections: 0 };
        for v6 in [false, true] {
            let service = kernel.flow(v6).service;
            let key = ServiceAddr { addr: service.ip().into(), port: service.port().to_be(), pad: 0 };
            let value = Service { id: 1, routes: 1 };
            let map = kernel.object.map_mut("filter").context("filter")?;
            let (word, mask) = filter::bit(&key.addr, key.port);
            Array::<_, u64>::try_from(map)?.set(word, mask, 0)?;
            let map = kernel.object.map_mut("services").context("services")?;
            HashMap::<_, [u8; size_of::<ServiceAddr>()], [u8; size_of::<Service>()]>::try_from(map)?.insert(
                bytes(&key)?,
                bytes(&value)?,
                0,
            )?;
        }
        // what is left in per-CPU memory is looked for on this CPU
        let mut cpus = CpuSet::new();
        cpus.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
        Ok(kernel)
    }

    /// The addresses of another connection.
    fn flow(&mut self, v6: bool) -> Flow {
        self.connections += 1;
        let (client, service): (IpAddr, IpAddr) = if v6 {
            (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9).into(), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 10).into())
        } else {
            (Ipv4Addr::new(10, 99, 0, 9).into(), Ipv4Addr::new(10, 96, 0, 10).into())
        };
        Flow { client: (client, 1000 + self.connections).into(), service: (service, 80).into(), sent: 0, answered: 0 }
    }

    /// Runs a program on a frame.
    fn run(&self, name: &str, frame: &[u8]) -> Result<i32> {
        let program: &SchedClassifier = self.object.program(name).context("the object has it")?.try_into()?;
        let run = program.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })?;
        Ok(run.return_value.cast_signed())
    }

    /// Opens a connection: both SYNs.
    fn open(&mut self, v6: bool) -> Result<Flow> {
        let flow = self.flow(v6);
        self.run("st_egress", &frame(flow.client, flow.service, ISN, 0, SYN, &[]))?;
        self.run("st_ingress", &frame(flow.service, flow.client, ISN, ISN.wrapping_add(1), SYN | ACK, &[]))?;
        Ok(flow)
    }

    /// The client sends `data`, in segments.
    fn send(&self, flow: &mut Flow, data: &[u8]) -> Result<()> {
        for part in data.chunks(SEGMENT) {
            let (seq, ack) = (ISN.wrapping_add(1 + flow.sent), ISN.wrapping_add(1 + flow.answered));
            self.run("st_egress", &frame(flow.client, flow.service, seq, ack, ACK, part))?;
            flow.sent += part.len() as u32;
        }
        Ok(())
    }

    /// The service sends `data`, in segments.
    fn answer(&self, flow: &mut Flow, data: &[u8]) -> Result<()> {
        for part in data.chunks(SEGMENT) {
            let (seq, ack) = (ISN.wrapping_add(1 + flow.answered), ISN.wrapping_add(1 + flow.sent));
            self.run("st_ingress", &frame(flow.service, flow.client, seq, ack, ACK, part))?;
            flow.answered += part.len() as u32;
        }
        Ok(())
    }

    /// What the programs read last.
    fn work(&self) -> Result<(Head, Found)> {
        let map: PerCpuArray<_, [u8; WORK]> = PerCpuArray::try_from(self.object.map("scratch_head").context("a map")?)?;
        let values = map.get(&0, 0)?;
        let bytes = &values[0][size_of::<Window>()..];
        let (head, rest) = Head::read_from_prefix(bytes).map_err(|e| anyhow::anyhow!("{e}"))?;
        let (found, _) = Found::read_from_prefix(rest).map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok((head, found))
    }

    fn connection(&self, flow: &Flow) -> Result<Connection> {
        let map: HashMap<_, [u8; size_of::<Tuple>()], [u8; size_of::<Connection>()]> =
            HashMap::try_from(self.object.map("connections").context("connections")?)?;
        let value = map.get(&bytes(&Tuple::new(flow.client, flow.service))?, 0)?;
        Connection::read_from_bytes(&value).map_err(|e| anyhow::anyhow!("{e}"))
    }
}

fn bytes<const N: usize>(record: &(impl IntoBytes + zerocopy::Immutable)) -> Result<[u8; N]> {
    Ok(record.as_bytes().try_into()?)
}

/// An Ethernet frame with one TCP segment. Nobody verifies its checksums.
fn frame(from: SocketAddr, to: SocketAddr, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let len = 20 + payload.len() as u16;
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + len).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([6, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => unreachable!("both addresses of a flow are of one family"),
    }
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
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
    let mut kernel = Kernel::load()?;
    let ask = b"GET / HTTP/1.1\r\n\r\n";
    for (i, (kind, mut text)) in corpus::heads().into_iter().enumerate() {
        let whole = native(&text, kind, &kernel.config).0;
        if whole.status == STATUS_COMPLETE {
            // what stands behind it would be read as the next
            text.truncate(whole.end as usize);
        }
        // A head that is decided before all of it is there: the programs do not look at the segments behind.
        let given = text.chunks(SEGMENT).enumerate().map(|(n, part)| n * SEGMENT + part.len());
        let seen = given.into_iter().find(|n| native(&text[..*n], kind, &kernel.config).0.status != STATUS_INCOMPLETE);
        text.truncate(seen.unwrap_or(text.len()));
        let (head, found) = native(&text, kind, &kernel.config);
        let mut flow = kernel.open(i % 2 == 1)?;
        if kind == REQUEST {
            kernel.send(&mut flow, &text)?;
        } else {
            kernel.send(&mut flow, ask)?;
            kernel.answer(&mut flow, &text)?;
        }
        let (read, with) = kernel.work()?;
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
    let mut kernel = Kernel::load()?;
    for (i, text) in corpus::long_heads().into_iter().enumerate() {
        let (head, found) = long::parts(&text, SEGMENT, &kernel.config);
        let mut flow = kernel.open(i % 2 == 1)?;
        kernel.send(&mut flow, &text)?;
        let text = text[..200].escape_ascii();
        if head.status == STATUS_MORE {
            ensure!(kernel.connection(&flow)?.now.phase == PHASE_RESET, "cannot be read on: {text}");
            continue;
        }
        let (read, with) = kernel.work()?;
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
