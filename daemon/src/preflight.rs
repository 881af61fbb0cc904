//! What must be there before an agent starts: capabilities, a BPF file system, what the kernel can do.

mod capability;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};
use nix::{
    sys::{
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::Uid,
};

pub use self::capability::Capability;

/// Something that is missing. Its text says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A capability is not in the effective set.
    #[error("capability {} is missing, needed to {}; add it to the container's securityContext.capabilities, or run as root", .0.name(), .0.reason())]
    Capability(Capability),
    /// The capabilities cannot be read.
    #[error("cannot read the process's capabilities from /proc/self/status: {0}; mount /proc")]
    Status(String),
    /// The pin directory is not on a BPF file system.
    #[error(
        "{path} is not on a BPF file system, so nothing could be pinned there; mount one (`mount -t bpf bpf {mount}`; in a container, a hostPath with mountPropagation: HostToContainer), or name another directory with --pin-dir"
    )]
    NoBpffs {
        /// The directory.
        path: PathBuf,
        /// Where to mount one.
        mount: PathBuf,
    },
    /// The pin directory cannot be looked at.
    #[error("cannot look at the pin directory {path}: {why}; name another with --pin-dir")]
    PinDir {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        why: String,
    },
    /// The kernel lacks something.
    #[error("this kernel does not have {feature}, which came with Linux {since}; use a newer one, 6.1 at least")]
    Feature {
        /// What.
        feature: &'static str,
        /// The first version of the mainline that has it.
        since: &'static str,
    },
    /// The kernel could not be asked.
    #[error(
        "cannot find out whether this kernel has {feature}: {why}; is the bpf system call allowed (seccomp, lockdown)?"
    )]
    Probe {
        /// What.
        feature: &'static str,
        /// The kernel's answer.
        why: String,
    },
}

/// Everything that is missing, at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [one] => one.fmt(f),
            several => {
                write!(f, "{} things are missing:", several.len())?;
                several.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

impl std::error::Error for Problems {}

/// Checks everything, and raises the limit of locked memory. `pin_dir` need not exist yet: its nearest parent counts.
pub fn check(pin_dir: &Path) -> Result<(), Problems> {
    let mut problems: Vec<Problem> = match Capability::missing() {
        Ok(missing) => missing.into_iter().map(Problem::Capability).collect(),
        Err(error) => vec![Problem::Status(error.to_string())],
    };
    // Without BPF, or without anything, a probe's answer would be "not permitted".
    let may_probe = problems.is_empty();
    problems.extend(bpffs(pin_dir).err());
    raise_memlock();
    if may_probe {
        problems.extend(features());
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

/// Whether the pin directory, or where it would be made, is on a BPF file system.
fn bpffs(pin_dir: &Path) -> Result<(), Problem> {
    let pin_dir = std::path::absolute(pin_dir).unwrap_or_else(|_| pin_dir.to_owned());
    let here = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match statfs(here) {
        Ok(it) if it.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) => {
            let usual = Path::new("/sys/fs/bpf");
            let mount = if pin_dir.starts_with(usual) { usual.to_owned() } else { pin_dir.clone() };
            Err(Problem::NoBpffs { path: pin_dir, mount })
        }
        Err(errno) => Err(Problem::PinDir { path: pin_dir, why: errno.to_string() }),
    }
}

/// Kernels before 5.11 account for maps by locked memory; later ones do not look at it. Refused without
/// `CAP_SYS_RESOURCE`, which nothing else needs: a load that fails says so.
fn raise_memlock() {
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).or_else(|_| {
        let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard)
    });
    if let Err(errno) = raised {
        tracing::debug!(%errno, uid = %Uid::effective(), "RLIMIT_MEMLOCK stays as it is");
    }
}

/// Asks the kernel for each feature by trying it: vendors backport, so a version says nothing.
fn features() -> Vec<Problem> {
    let helper = |helper| is_helper_supported(ProgramType::SchedClassifier, helper).map_err(|e| e.to_string());
    let map = |map| is_map_supported(map).map_err(|e| e.to_string());
    let program = is_program_supported(ProgramType::SchedClassifier).map_err(|e| e.to_string());
    let asked = [
        ("tc programs (BPF_PROG_TYPE_SCHED_CLS)", "4.1", program),
        ("the BPF ring buffer", "5.8", map(MapType::RingBuf)),
        ("the helper bpf_ktime_get_coarse_ns for tc programs", "5.11", helper(BpfHelper::BPF_FUNC_ktime_get_coarse_ns)),
        ("the helper bpf_redirect_neigh for tc programs", "5.10", helper(BpfHelper::BPF_FUNC_redirect_neigh)),
        ("the helper bpf_loop for tc programs", "5.17", helper(BpfHelper::BPF_FUNC_loop)),
    ];
    let problem = |(feature, since, answer)| match answer {
        Ok(true) => None,
        Ok(false) => Some(Problem::Feature { feature, since }),
        Err(why) => Some(Problem::Probe { feature, why }),
    };
    asked.into_iter().filter_map(problem).collect()
}

/// Explains a failure of inotify: its limits are those of a user, not of a process, and a node has many agents.
#[must_use]
pub fn explain_inotify(error: &io::Error) -> Option<String> {
    let (limit, raise) = match error.raw_os_error()? {
        libc::EMFILE => ("max_user_instances", 8192),
        libc::ENOSPC => ("max_user_watches", 524_288),
        _ => return None,
    };
    let path = format!("/proc/sys/fs/inotify/{limit}");
    let held = fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
    Some(format!(
        "the inotify limit of this user is reached (fs.inotify.{limit} = {held}, shared by all processes of the user): \
         raise it with `sysctl fs.inotify.{limit}={raise}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_is_needed() {
        assert!(Uid::effective().is_root(), "this test asks the kernel for BPF features: run it as root");
        assert_eq!(features(), []);
        assert_eq!(Capability::missing().expect("readable"), []);
    }

    #[test]
    fn a_pin_directory_elsewhere_is_refused_with_the_command_that_helps() {
        let dir = std::env::temp_dir().join("not-there/sidetrack");
        let problem = bpffs(&dir).expect_err("not a bpffs");
        let text = problem.to_string();
        assert!(text.contains(&format!("mount -t bpf bpf {}", dir.display())), "{text}");
        let text = bpffs(Path::new("/sys/fs/bpf/../sidetrack")).map_err(|p| p.to_string());
        assert!(text.is_err());
    }

    #[test]
    fn every_problem_is_said_at_once() {
        let one = Problem::Capability(Capability::Bpf);
        let two = Problem::Feature { feature: "the BPF ring buffer", since: "5.8" };
        let text = Problems(vec![one, two]).to_string();
        assert!(text.starts_with("2 things are missing:\n  - capability BPF is missing, needed to load"), "{text}");
    }

    #[test]
    fn inotify_limits_are_explained() {
        let text = explain_inotify(&io::Error::from_raw_os_error(libc::EMFILE)).expect("a limit");
        assert!(text.contains("fs.inotify.max_user_instances = ") && !text.contains("unknown"), "{text}");
        assert_eq!(explain_inotify(&io::Error::from_raw_os_error(libc::ENOENT)), None);
    }
}
