//! Programs of somebody else on a pod's interface: each counts the packets that it sees, and passes them on.

use crate::lab::{LAB_DIR, Pod};
use anyhow::{Context, Result, ensure};
use std::{
    ffi::CString,
    fs,
    io::Error,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

/// Commands, types and attach points of bpf(2), from `linux/bpf.h`.
const MAP_CREATE: i64 = 0;
const MAP_LOOKUP: i64 = 1;
const PROG_LOAD: i64 = 5;
const OBJ_PIN: i64 = 6;
const LINK_CREATE: i64 = 28;
const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// By a tcx link, behind those that are there (kernel 6.6).
    Tcx,
    /// As a direct-action filter of a clsact qdisc.
    Clsact,
}

/// Two programs on one interface, one at egress and one at ingress, until dropped.
#[derive(Debug)]
pub struct Counters {
    egress: Counter,
    ingress: Counter,
    clsact: Option<Clsact>,
}

/// Filters of a clsact qdisc.
#[derive(Debug)]
struct Clsact {
    pod: Pod,
    /// The qdisc was made for them: where there is no tcx, the agent's filters are in it as well.
    made: bool,
}

/// Their place: behind the agent's.
const PREF: u32 = 60_000;

#[derive(Debug)]
struct Counter {
    map: OwnedFd,
    /// The program and its link: closing them detaches it.
    keep: Vec<OwnedFd>,
}

impl Counters {
    /// Attaches both to the pod's eth0.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(pod: &Pod, hook: Hook) -> Result<Self> {
        let clsact = if hook == Hook::Clsact {
            let made = !pod.tc("qdisc show dev eth0")?.contains("clsact");
            if made {
                pod.tc("qdisc add dev eth0 clsact")?;
            }
            Some(Clsact { pod: pod.clone(), made })
        } else {
            None
        };
        let index = pod.enter(|| nix::net::if_::if_nametoindex("eth0"))?.context("the pod has no eth0")?;
        let make = |name: &str, point: u32| -> Result<Counter> {
            let map = array()?;
            let program = counting(&map)?;
            let keep = match hook {
                Hook::Tcx => {
                    let attributes = words(&[program.as_raw_fd().cast_unsigned(), index, point, 0]);
                    let link = pod.enter(|| bpf(LINK_CREATE, &attributes))?.context("cannot attach by tcx")?;
                    vec![program, link]
                }
                Hook::Clsact => {
                    let path = Path::new(LAB_DIR).join(format!("bpf/{}-{name}", pod.name()));
                    pin(&program, &path)?;
                    pod.tc(&format!("filter add dev eth0 {name} pref {PREF} bpf da object-pinned {}", path.display()))?;
                    fs::remove_file(&path)?;
                    Vec::new()
                }
            };
            Ok(Counter { map, keep })
        };
        let (egress, ingress) = (make("egress", TCX_EGRESS)?, make("ingress", TCX_INGRESS)?);
        Ok(Self { egress, ingress, clsact })
    }

    /// Detaches both. What they have counted can still be read.
    ///
    /// # Errors
    /// When `tc` fails.
    pub fn detach(&mut self) -> Result<()> {
        self.egress.keep.clear();
        self.ingress.keep.clear();
        let Some(Clsact { pod, made }) = self.clsact.take() else { return Ok(()) };
        if made {
            return pod.tc("qdisc del dev eth0 clsact").map(drop);
        }
        for name in ["egress", "ingress"] {
            pod.tc(&format!("filter del dev eth0 {name} pref {PREF}"))?;
        }
        Ok(())
    }

    /// Packets seen leaving the pod.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn egress(&self) -> Result<u64> {
        self.egress.read()
    }

    /// Packets seen entering the pod.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn ingress(&self) -> Result<u64> {
        self.ingress.read()
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // The pod may have been deleted meanwhile.
        drop(self.detach());
    }
}

impl Counter {
    fn read(&self) -> Result<u64> {
        let (key, mut value) = (0_u32, 0_u64);
        let mut attributes = Vec::new();
        attributes.extend(u64::from(self.map.as_raw_fd().cast_unsigned()).to_ne_bytes());
        attributes.extend((&raw const key as u64).to_ne_bytes());
        attributes.extend((&raw mut value as u64).to_ne_bytes());
        attributes.extend(0_u64.to_ne_bytes());
        call(MAP_LOOKUP, &attributes).context("cannot read the counter")?;
        Ok(value)
    }
}

fn array() -> Result<OwnedFd> {
    bpf(MAP_CREATE, &words(&[MAP_TYPE_ARRAY, 4, 8, 1])).context("cannot make a map")
}

/// A classifier that adds one to the only entry of `map` and returns `TC_ACT_UNSPEC`.
fn counting(map: &OwnedFd) -> Result<OwnedFd> {
    let instruction = |code: u8, registers: u8, offset: i16, imm: i32| {
        let mut bytes = vec![code, registers];
        bytes.extend(offset.to_ne_bytes());
        bytes.extend(imm.to_ne_bytes());
        bytes
    };
    let program = [
        instruction(0x62, 0x0a, -4, 0),              // *(u32 *)(r10 - 4) = 0
        instruction(0xbf, 0xa2, 0, 0),               // r2 = r10
        instruction(0x07, 0x02, 0, -4),              // r2 += -4
        instruction(0x18, 0x11, 0, map.as_raw_fd()), // r1 = map
        instruction(0x00, 0x00, 0, 0),               // (second half)
        instruction(0x85, 0x00, 0, 1),               // r0 = bpf_map_lookup_elem(r1, r2)
        instruction(0x15, 0x00, 2, 0),               // if r0 == 0 skip two
        instruction(0xb7, 0x01, 0, 1),               // r1 = 1
        instruction(0xdb, 0x10, 0, 0),               // lock *(u64 *)r0 += r1
        instruction(0xb7, 0x00, 0, -1),              // r0 = TC_ACT_UNSPEC
        instruction(0x95, 0x00, 0, 0),               // return r0
    ];
    let (length, program) = (program.len() as u32, program.concat());
    let mut attributes = words(&[PROG_TYPE_SCHED_CLS, length]);
    attributes.extend((program.as_ptr() as u64).to_ne_bytes());
    attributes.extend((c"GPL".as_ptr() as u64).to_ne_bytes());
    bpf(PROG_LOAD, &attributes).context("cannot load a program")
}

fn pin(program: &OwnedFd, path: &Path) -> Result<()> {
    let name = CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut attributes = (name.as_ptr() as u64).to_ne_bytes().to_vec();
    attributes.extend(words(&[program.as_raw_fd().cast_unsigned(), 0]));
    call(OBJ_PIN, &attributes).with_context(|| format!("cannot pin {}", path.display()))?;
    Ok(())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A command that returns a file descriptor.
fn bpf(command: i64, attributes: &[u8]) -> Result<OwnedFd> {
    let fd = i32::try_from(call(command, attributes)?)?;
    ensure!(fd >= 0, "no file descriptor");
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call(command: i64, attributes: &[u8]) -> Result<i64> {
    // The kernel demands zeros behind what a command uses, and reads no more than it is told of.
    let mut padded = [0_u8; 120];
    padded[..attributes.len()].copy_from_slice(attributes);
    // SAFETY: `padded` is a bpf_attr of the given size; every pointer in it points to memory that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, padded.as_ptr(), padded.len()) };
    if result < 0 {
        return Err(Error::last_os_error().into());
    }
    Ok(result)
}
