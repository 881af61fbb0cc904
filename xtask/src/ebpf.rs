//! The build of the kernel programs. `ebpf/` is a workspace of its own: another target, compiler and lock file.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    process::{cargo, clean},
    root, target_dir,
    toolchain::{Rustc, TARGET, find_linker, find_rustc},
};

/// The binary of the eBPF crate that holds all programs.
const BIN: &str = "sidetrack";

/// What a new object depends on, below [`root`]. `splice/` inherits from the root manifest.
pub const SOURCES: &[&str] =
    &["Cargo.toml", "ebpf/Cargo.toml", "ebpf/Cargo.lock", "ebpf/src", "splice/Cargo.toml", "splice/src"];

/// Variables that choose compiler and linker.
pub const VARIABLES: &[&str] = &["EBPF_RUSTC", "BPF_LINKER", "SIDETRACK_TOOLS", "SIDETRACK_ABI"];

/// The compiler and the linker, both found.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: Rustc,
    /// bpf-linker, for its LLVM.
    pub linker: PathBuf,
}

impl Toolchain {
    /// Finds both; the error is one sentence that says what to run.
    pub fn find() -> Result<Self> {
        let rustc = find_rustc()?;
        let linker = find_linker(&rustc)?;
        Ok(Self { rustc, linker })
    }

    /// A cargo in `ebpf/`, with nothing of the build around it.
    #[must_use]
    pub fn cargo(&self, program: impl AsRef<std::ffi::OsStr>, subcommand: &str, target_dir: &Path) -> Command {
        let flags =
            ["-Cdebuginfo=2", "-Clink-arg=--btf", "--cfg", &format!("bpf_target_arch=\"{}\"", env::consts::ARCH)]
                .join("\u{1f}");
        let mut command = clean(program);
        command
            .current_dir(root().join("ebpf"))
            .args([subcommand, "--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(target_dir.join("ebpf"))
            .env("RUSTC", &self.rustc.path)
            // aya-ebpf uses feature(asm_experimental_arch).
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            .env("CARGO_ENCODED_RUSTFLAGS", flags);
        if self.rustc.build_std {
            command.args(["-Z", "build-std=core"]);
        }
        command
    }

    /// Compiles the kernel programs and copies the object to the file `dest`. Their target directory lies inside the
    /// one that `dest` lies in.
    pub fn build(&self, dest: &Path) -> Result<()> {
        let target_dir = target_dir(dest);
        let mut command = self.cargo(cargo(), "build", &target_dir);
        let status = command.args(["--bin", BIN]).status().context("cargo cannot be started: is it on PATH?")?;
        ensure!(
            status.success(),
            "the kernel programs in ebpf/ were not built with rustc {} ({}): the compiler's messages above say why",
            self.rustc.version,
            self.rustc.path.display()
        );
        let object = target_dir.join("ebpf").join(TARGET).join("release").join(BIN);
        copy(&object, dest)
    }
}

/// Copies the object, unless `dest` has the same content: its time then stays, and nothing behind it is built again.
fn copy(object: &Path, dest: &Path) -> Result<()> {
    let new = fs::read(object).with_context(|| format!("{} cannot be read after the build", object.display()))?;
    if fs::read(dest).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(dest, new).with_context(|| format!("{} cannot be written: is the disk full?", dest.display()))
}

/// Finds the toolchain and compiles the kernel programs into the file `dest`.
pub fn build_ebpf(dest: &Path) -> Result<()> {
    Toolchain::find()?.build(dest)
}
