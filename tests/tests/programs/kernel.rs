//! The compiled kernel programs, loaded without any pin, and run on made frames (`BPF_PROG_TEST_RUN`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::SchedClassifier,
};
use libbpf_rs::libbpf_sys;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use sidetrack_splice::{
    abi::{
        addr::Tuple,
        config::Config,
        reason::Reason,
        record::Connection,
        route::{ROUTE_FORK, Route, RouteKey, Service, ServiceAddr},
    },
    carrier::default_carriers,
    filter,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A test run takes a page, less some room.
pub const SEGMENT: usize = 1400;
/// First sequence number of either side.
pub const ISN: u32 = 0xffff_fe00;
/// [`Service::id`] of the services.
const SERVICE: u32 = 1;
/// The verdict "pass" (`TCX_NEXT`).
pub const PASS: i32 = -1;

const SYN: u8 = 2;
/// Flag of every segment but the first.
pub const ACK: u8 = 16;

/// A hash map with records for keys and values.
pub struct Records<const K: usize, const V: usize>(HashMap<MapData, [u8; K], [u8; V]>);

impl<const K: usize, const V: usize> Records<K, V> {
    /// Takes the map of this name out of the object.
    pub fn take(object: &mut Ebpf, name: &str) -> Result<Self> {
        Ok(Self(HashMap::try_from(object.take_map(name).with_context(|| format!("the object has no map {name}"))?)?))
    }

    /// The value of a key, if it is there.
    pub fn find<T: FromBytes>(&self, key: &(impl IntoBytes + Immutable)) -> Result<Option<T>> {
        match self.0.get(&bytes(key)?, 0) {
            Ok(value) => Ok(Some(T::read_from_bytes(&value).map_err(|_| anyhow!("a record of another size"))?)),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Inserts or replaces.
    pub fn put(&mut self, key: &(impl IntoBytes + Immutable), value: &(impl IntoBytes + Immutable)) -> Result<()> {
        Ok(self.0.insert(bytes(key)?, bytes(value)?, 0)?)
    }
}

/// The programs, and how many connections went through them.
pub struct Kernel {
    pub object: Ebpf,
    pub connections: Records<{ size_of::<Tuple>() }, { size_of::<Connection>() }>,
    services: Records<{ size_of::<ServiceAddr>() }, { size_of::<Service>() }>,
    made: u16,
}

/// One connection through the programs.
#[derive(Clone)]
pub struct Flow {
    pub client: SocketAddr,
    pub service: SocketAddr,
    /// Bytes that each side has sent.
    pub sent: u32,
    pub answered: u32,
}

impl Flow {
    /// The connection's name.
    pub fn conn(&self) -> Tuple {
        Tuple::new(self.client, self.service)
    }

    /// The client's next segment.
    pub fn request(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let (seq, ack) = (ISN.wrapping_add(1 + self.sent), ISN.wrapping_add(1 + self.answered));
        frame(self.client, self.service, seq, ack, flags, payload)
    }

    /// The service's next segment.
    pub fn response(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let (seq, ack) = (ISN.wrapping_add(1 + self.answered), ISN.wrapping_add(1 + self.sent));
        frame(self.service, self.client, seq, ack, flags, payload)
    }
}

/// One test at a time writes the object, or reads it.
static BUILD: Mutex<()> = Mutex::new(());

impl Kernel {
    /// Loads the programs. The caller's thread stays on the first processor: what they leave in per-CPU memory is looked for there.
    pub fn load() -> Result<Self> {
        Self::load_by(&mut EbpfLoader::new())
    }

    /// The same, as a kernel before 6.16 runs them: it refuses `BPF_F_IPV6`, as every kernel does a flag that nobody knows.
    pub fn load_without_ipv6_checksums() -> Result<Self> {
        Self::load_by(EbpfLoader::new().override_global("IPV6_CHECKSUM", &(1_u64 << 40), true))
    }

    fn load_by(loader: &mut EbpfLoader<'_>) -> Result<Self> {
        let object = {
            let _one = BUILD.lock().unwrap_or_else(PoisonError::into_inner);
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs.bpf.o");
            xtask::ebpf::build_ebpf(&path)?;
            std::fs::read(path)?
        };
        let mut object = loader.load(&object)?;
        for name in ["st_egress", "st_ingress"] {
            let program: &mut SchedClassifier = object.program_mut(name).context("the object has it")?.try_into()?;
            program.load()?;
        }
        let mut map: Array<_, [u8; size_of::<Config>()]> =
            Array::try_from(object.map_mut("config").context("config")?)?;
        map.set(0, bytes(&default_carriers())?, 0)?;
        let connections = Records::take(&mut object, "connections")?;
        let services = Records::take(&mut object, "services")?;
        let mut kernel = Self { object, connections, services, made: 0 };
        for v6 in [false, true] {
            let service = kernel.flow(v6).service;
            kernel.watch(service)?;
        }
        kernel.routes(1)?;
        on_cpu(0)?;
        Ok(kernel)
    }

    /// Says how many routes the services have.
    pub fn routes(&mut self, routes: u32) -> Result<()> {
        for v6 in [false, true] {
            let service = self.flow(v6).service;
            let key = ServiceAddr { addr: service.ip().into(), port: service.port().to_be(), pad: 0 };
            self.services.put(&key, &Service { id: SERVICE, routes })?;
        }
        Ok(())
    }

    /// Lets the programs look at packets from and to this address.
    pub fn watch(&mut self, at: SocketAddr) -> Result<()> {
        let map = self.object.map_mut("filter").context("filter")?;
        let (word, mask) = filter::bit(&at.ip().into(), at.port().to_be());
        let mut map = Array::<_, u64>::try_from(map)?;
        let before = map.get(&word, 0)?;
        Ok(map.set(word, before | mask, 0)?)
    }

    /// Gives a key of the services a route to forks, with this number, in its first version.
    pub fn route(&mut self, key: &str, id: u32) -> Result<()> {
        let map = self.object.map_mut("routes").context("routes")?;
        let mut bytes_of_key = [0; 64];
        bytes_of_key[..key.len()].copy_from_slice(key.as_bytes());
        let key = RouteKey { service: SERVICE, key: bytes_of_key };
        let route = Route { id, version: 1, kind: ROUTE_FORK, flags: 0 };
        let mut map: HashMap<_, [u8; size_of::<RouteKey>()], [u8; size_of::<Route>()]> = HashMap::try_from(map)?;
        Ok(map.insert(bytes(&key)?, bytes(&route)?, 0)?)
    }

    /// The addresses of another connection.
    fn flow(&mut self, v6: bool) -> Flow {
        self.made += 1;
        let (client, service): (IpAddr, IpAddr) = if v6 {
            (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9).into(), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 10).into())
        } else {
            (Ipv4Addr::new(10, 99, 0, 9).into(), Ipv4Addr::new(10, 96, 0, 10).into())
        };
        Flow { client: (client, 1000 + self.made).into(), service: (service, 80).into(), sent: 0, answered: 0 }
    }

    /// Opens a connection: both SYNs.
    pub fn open(&mut self, v6: bool) -> Result<Flow> {
        let flow = self.flow(v6);
        run(&self.object, EGRESS, &frame(flow.client, flow.service, ISN, 0, SYN, &[]))?;
        run(&self.object, INGRESS, &frame(flow.service, flow.client, ISN, ISN.wrapping_add(1), SYN | ACK, &[]))?;
        Ok(flow)
    }

    /// The client sends `data`, in segments. Returns the last verdict.
    pub fn send(&self, flow: &mut Flow, data: &[u8]) -> Result<i32> {
        let mut verdict = PASS;
        for part in data.chunks(SEGMENT) {
            verdict = run(&self.object, EGRESS, &flow.request(ACK, part))?;
            flow.sent += part.len() as u32;
        }
        Ok(verdict)
    }

    /// The service sends `data`, in segments.
    pub fn answer(&self, flow: &mut Flow, data: &[u8]) -> Result<()> {
        for part in data.chunks(SEGMENT) {
            run(&self.object, INGRESS, &flow.response(ACK, part))?;
            flow.answered += part.len() as u32;
        }
        Ok(())
    }

    /// How often this was counted, on all processors.
    pub fn counter(&self, reason: Reason) -> Result<u64> {
        let map = self.object.map("counters").context("counters")?;
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
        Ok(map.get(&(reason as u32), 0)?.iter().sum())
    }

    pub fn connection(&self, flow: &Flow) -> Result<Connection> {
        self.connections.find(&flow.conn())?.context("the programs follow it")
    }
}

/// Names of the programs.
pub const EGRESS: &str = "st_egress";
pub const INGRESS: &str = "st_ingress";

fn program<'a>(object: &'a Ebpf, name: &str) -> Result<&'a SchedClassifier> {
    Ok(object.program(name).context("the object has it")?.try_into()?)
}

/// Runs a program on a frame. Returns its verdict.
pub fn run(object: &Ebpf, name: &str, frame: &[u8]) -> Result<i32> {
    let run = program(object, name)?.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })?;
    Ok(run.return_value.cast_signed())
}

/// The same, with what it has made of the frame.
pub fn run_out(object: &Ebpf, name: &str, frame: &[u8]) -> Result<(i32, Vec<u8>)> {
    let mut out = vec![0; frame.len()];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    let run = program(object, name)?.test_run(options)?;
    Ok((run.return_value.cast_signed(), out))
}

/// The same of a frame with this mark.
pub fn run_marked(object: &Ebpf, name: &str, frame: &[u8], mark: u32) -> Result<(i32, Vec<u8>)> {
    let mut out = vec![0; frame.len()];
    // The beginning of a `struct __sk_buff`: length and type, which stay zero here, and the mark.
    let context = [0, 0, mark];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: u32::try_from(frame.len())?,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: u32::try_from(out.len())?,
        ctx_in: (&raw const context).cast(),
        ctx_size_in: u32::try_from(size_of_val(&context))?,
        ..Default::default()
    };
    let fd = program(object, name)?.fd()?.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the options name memory that outlives the call.
    let done = unsafe { libbpf_sys::bpf_prog_test_run_opts(fd, &raw mut options) };
    // A frame that has become longer does not fit.
    ensure!(done == 0, "{name} on a frame with mark {mark:#x}: {}", io::Error::from_raw_os_error(-done));
    Ok((options.retval.cast_signed(), out))
}

/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`, since Linux 6.16: the frame comes with the sum of all its bytes, as some cards give it, and the
/// run fails with `EBADMSG` if the sum is wrong behind it (`bpf_prog_test_run_skb` in `net/bpf/test_run.c`).
const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// Runs a program on a frame whose sum a card has taken. Returns its verdict; an error where the sum is wrong afterwards.
pub fn run_summed(object: &Ebpf, name: &str, frame: &[u8]) -> Result<i32> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: u32::try_from(frame.len())?,
        flags: CHECKSUM_COMPLETE,
        ..Default::default()
    };
    let fd = program(object, name)?.fd()?.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the options name a frame that outlives the call.
    let done = unsafe { libbpf_sys::bpf_prog_test_run_opts(fd, &raw mut options) };
    ensure!(done == 0, "{name} on a frame with its sum: {}", io::Error::from_raw_os_error(-done));
    Ok(options.retval.cast_signed())
}

/// Binds the calling thread to a processor.
pub fn on_cpu(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// A record's bytes.
pub fn bytes<const N: usize>(record: &(impl IntoBytes + Immutable)) -> Result<[u8; N]> {
    let bytes = record.as_bytes();
    ensure!(bytes.len() == N, "a record of {} bytes where the map has {N}", bytes.len());
    Ok(bytes.try_into()?)
}

/// An Ethernet frame with one TCP segment. Nobody verifies its checksums.
pub fn frame(from: SocketAddr, to: SocketAddr, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
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
