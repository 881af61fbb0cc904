//! Running other programs.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

/// What cargo and rustup tell a process below them, beside `CARGO*` and `RUSTC*`.
const INHERITED: &[&str] = &[
    "RUSTFLAGS",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTUP_TOOLCHAIN",
    "TARGET",
    "HOST",
    "PROFILE",
    "OPT_LEVEL",
    "DEBUG",
    "OUT_DIR",
    "NUM_JOBS",
];

/// What of `CARGO*` is the user's own setting, or the jobserver, and goes on.
const KEPT: &[&str] = &["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"];

/// Whether a nested cargo or rustc must not see this variable: it would build with another target's settings.
fn is_inherited(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let of_cargo =
        (name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept))) || name.starts_with("RUSTC");
    of_cargo || INHERITED.contains(&name.as_ref())
}

/// A command without anything that cargo and rustup hand down to build scripts and to `cargo run`.
#[must_use]
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if is_inherited(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo that runs this process, or the one on `PATH`.
#[must_use]
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What a command prints, trimmed; nothing when it cannot be started or fails.
#[must_use]
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where a program lies: `PATH`, then the directories of root's programs, which a user's `PATH` often lacks.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(sbin).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_outer_build_are_dropped_and_the_users_own_go_on() {
        for name in
            ["CARGO_PKG_NAME", "CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTFLAGS", "CARGO"]
        {
            assert!(is_inherited(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_MAKEFLAGS", "PATH", "RUSTUP_HOME", "EBPF_RUSTC"] {
            assert!(!is_inherited(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_program_that_is_nowhere_is_not_found() {
        assert_eq!(find_program("sidetrack-no-such-program"), None);
        assert!(find_program("sh").is_some());
    }
}
