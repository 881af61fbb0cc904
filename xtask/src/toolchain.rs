//! The compiler and the linker for the bpf target.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{clean, find_program, output},
    root, tools,
};

/// The target of the kernel programs.
pub const TARGET: &str = "bpfel-unknown-none";
/// The version of bpf-linker that `cargo xtask setup` installs.
pub const LINKER_VERSION: &str = "0.13.0";
/// Debian's rustc for its browsers: it comes with a prebuilt `core` for bpf.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can make code for bpf.
#[derive(Clone, Debug)]
pub struct Rustc {
    /// Where it lies.
    pub path: PathBuf,
    /// There is no prebuilt `core` for bpf, but its source: cargo compiles it.
    pub build_std: bool,
    /// Its LLVM's major version: bpf-linker must be built for the same.
    pub llvm: u32,
    /// Its own version.
    pub version: String,
    /// Its own directory.
    pub sysroot: PathBuf,
}

impl Rustc {
    /// Asks a compiler what it is. Nothing when it is older than this project needs or cannot make code for bpf.
    fn inspect(path: &Path) -> Option<Self> {
        let verbose = output(clean(path).arg("-vV"))?;
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let version = field("release:")?.to_owned();
        if numbers(&version) < numbers(env!("CARGO_PKG_RUST_VERSION")) {
            return None;
        }
        let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
        let dirs = output(clean(path).args(["--print", "sysroot", "--print", "target-libdir", "--target", TARGET]))?;
        let (sysroot, libdir) = dirs.split_once('\n')?;
        let prebuilt = fs::read_dir(libdir)
            .is_ok_and(|dir| dir.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")));
        let sysroot = PathBuf::from(sysroot);
        (prebuilt || has_source(&sysroot)).then(|| Self {
            path: path.to_owned(),
            build_std: !prebuilt,
            llvm,
            version,
            sysroot,
        })
    }

    /// The cargo-clippy that understands this compiler's libraries.
    #[must_use]
    pub fn clippy(&self) -> Option<PathBuf> {
        Some(self.path.with_file_name("cargo-clippy")).filter(|file| file.is_file())
    }
}

/// `1.95` and `1.96.0-nightly` as numbers that compare.
fn numbers(version: &str) -> Vec<u32> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

/// Whether the component `rust-src` is there.
fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

/// The compiler of one of rustup's toolchains, when it is installed: nothing is downloaded for the question.
fn of_rustup(toolchain: Option<&str>) -> Option<PathBuf> {
    let mut command = clean("rustup");
    command.current_dir(root()).env("RUSTUP_AUTO_INSTALL", "0").arg("which");
    if let Some(toolchain) = toolchain {
        command.args(["--toolchain", toolchain]);
    }
    let path = PathBuf::from(output(command.arg("rustc"))?);
    has_source(path.parent()?.parent()?).then_some(path)
}

/// Finds a compiler for bpf, in this order: `$EBPF_RUSTC`; rustup's toolchain of this tree, with `rust-src`; rustup's
/// nightly, with `rust-src`; Debian's, with its prebuilt `core`; any other on `PATH`.
pub fn find_rustc() -> Result<Rustc> {
    if let Some(path) = env::var_os("EBPF_RUSTC") {
        return Rustc::inspect(Path::new(&path)).with_context(|| {
            format!(
                "EBPF_RUSTC={} cannot compile for {TARGET}: unset it, or name a rustc of version {} or later that has `core` for {TARGET} or rust-src",
                path.display(),
                env!("CARGO_PKG_RUST_VERSION")
            )
        });
    }
    let candidates: [&dyn Fn() -> Option<PathBuf>; 4] =
        [&|| of_rustup(None), &|| of_rustup(Some("nightly")), &|| Some(DEBIAN_RUSTC.into()), &|| find_program("rustc")];
    candidates.iter().filter_map(|candidate| candidate()).find_map(|path| Rustc::inspect(&path)).with_context(|| {
        format!("no Rust compiler here can compile for {TARGET}: run `cargo xtask setup` (Debian) or `rustup component add rust-src`")
    })
}

/// Where `cargo xtask setup` puts the linker for an LLVM.
#[must_use]
pub fn linker_dir(llvm: u32) -> PathBuf {
    tools::dir().join(format!("bpf-linker-{LINKER_VERSION}-llvm{llvm}"))
}

/// Finds bpf-linker: `$BPF_LINKER`, else the one that `cargo xtask setup` made for this compiler's LLVM.
pub fn find_linker(rustc: &Rustc) -> Result<PathBuf> {
    if let Some(path) = env::var_os("BPF_LINKER").map(PathBuf::from) {
        if !runs(&path) {
            bail!("BPF_LINKER={} does not run: unset it, or name a bpf-linker for LLVM {}", path.display(), rustc.llvm);
        }
        return Ok(path);
    }
    let path = linker_dir(rustc.llvm).join("bin/bpf-linker");
    if !runs(&path) {
        bail!("no bpf-linker for LLVM {} here that runs: run `cargo xtask setup`", rustc.llvm);
    }
    Ok(path)
}

/// Whether the linker starts: the libLLVM that it was linked with leaves with the compiler that brought it.
fn runs(linker: &Path) -> bool {
    output(clean(linker).arg("--version")).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("1.100.0") > numbers("1.95"));
        assert!(numbers("1.97.0-nightly") > numbers("1.95"));
        assert!(numbers("1.85.1") < numbers("1.95"));
    }
}
