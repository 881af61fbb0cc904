//! The capabilities that an agent needs, and why.

use std::{fs, io};

/// A capability that an agent needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// `CAP_NET_ADMIN`.
    NetAdmin,
    /// `CAP_NET_RAW`.
    NetRaw,
    /// `CAP_SYS_ADMIN`.
    SysAdmin,
    /// `CAP_PERFMON`.
    Perfmon,
    /// `CAP_BPF`.
    Bpf,
}

impl Capability {
    /// All that are needed.
    pub const ALL: [Self; 5] = [Self::Bpf, Self::NetAdmin, Self::Perfmon, Self::NetRaw, Self::SysAdmin];

    /// Its number in `linux/capability.h`.
    const fn number(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::NetRaw => 13,
            Self::SysAdmin => 21,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }

    /// Its name, as a Kubernetes `securityContext` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "NET_ADMIN",
            Self::NetRaw => "NET_RAW",
            Self::SysAdmin => "SYS_ADMIN",
            Self::Perfmon => "PERFMON",
            Self::Bpf => "BPF",
        }
    }

    /// What it is needed for.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NetAdmin => "attach tc programs to pods' interfaces, and to read connections' sequence numbers",
            Self::NetRaw => "send held frames on through packet sockets",
            Self::SysAdmin => "enter the network namespaces of pods (setns)",
            Self::Perfmon => "load programs that compute with pointers into packets",
            Self::Bpf => "load programs, and to make and pin maps",
        }
    }

    /// Those that this process does not have in its effective set.
    pub fn missing() -> io::Result<Vec<Self>> {
        let effective = effective(&fs::read_to_string("/proc/self/status")?)
            .ok_or_else(|| io::Error::other("it has no readable line CapEff"))?;
        Ok(Self::absent(effective))
    }

    /// Kernels before 5.8 had the powers of BPF and PERFMON in `SYS_ADMIN`; the helpers that are needed are younger.
    fn absent(effective: u64) -> Vec<Self> {
        Self::ALL.into_iter().filter(|it| effective & 1 << it.number() == 0).collect()
    }
}

/// The effective set in the text of a `status` file.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_effective_is_missing() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t000000c000203000\nCapBnd:\t0\n";
        let set = effective(status).expect("a line");
        assert_eq!(Capability::absent(set), []);
        assert_eq!(Capability::absent(set & !(1 << 13)), [Capability::NetRaw]);
        assert_eq!(Capability::absent(0), Capability::ALL);
        assert_eq!(effective("CapEff:\tzz\n"), None);
        assert_eq!(effective(""), None);
    }
}
