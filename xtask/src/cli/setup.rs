//! `cargo xtask setup`: what a machine with stable Rust lacks.

use std::{fmt, path::PathBuf};

use anyhow::{Context as _, Result};
use xtask::toolchain::{Rustc, find_linker, find_rustc};

use super::{
    apt, install, kubernetes, libraries,
    packages::{self, Scope},
    shell::say,
};

/// What the kernel programs are built with.
pub struct Ready {
    /// The compiler.
    pub rustc: Rustc,
    linker: PathBuf,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rustc, linker } = self;
        let core = if rustc.build_std { "core from rust-src" } else { "prebuilt core" };
        write!(
            f,
            "rustc {} with LLVM {} ({}, {core}), {}",
            rustc.version,
            rustc.llvm,
            rustc.path.display(),
            linker.display()
        )
    }
}

/// Finds everything, installs what is missing. When nothing is, it takes a tenth of a second and says nothing.
pub fn setup(scope: Scope) -> Result<Ready> {
    apt::install(&packages::missing(scope))?;
    let rustc = match find_rustc() {
        Ok(rustc) => rustc,
        // What EBPF_RUSTC names is the user's to repair.
        Err(error) if std::env::var_os("EBPF_RUSTC").is_some() => return Err(error),
        Err(_) => {
            // rustup is never called to download: what it fetches, and from where, is the user's decision.
            apt::install(&packages::RUSTC.iter().collect::<Vec<_>>()).map_err(|error| {
                error.context(
                    "no Rust compiler for bpf: run `rustup component add rust-src`, or let apt install one (Debian has it in \
                    its security archive: is there a line for `bookworm-security` in /etc/apt/sources.list?)",
                )
            })?;
            find_rustc()?
        }
    };
    let linker = match find_linker(&rustc) {
        Ok(linker) => linker,
        Err(error) if std::env::var_os("BPF_LINKER").is_some() => return Err(error),
        Err(_) => {
            install::bpf_linker(&rustc)?;
            find_linker(&rustc)?
        }
    };
    // Few tests need them: those say what is missing.
    if scope == Scope::All
        && let Err(error) = libraries::install()
    {
        say(format_args!("{error:#}"));
    }
    Ok(Ready { rustc, linker })
}

/// Finds or builds the programs of Kubernetes. Few suites need them, and demo and bench do not: they are no part of [`setup`].
/// Where they cannot be had, it says why, and those suites say what is missing.
pub fn kubernetes() {
    if let Err(error) = kubernetes::install() {
        say(format_args!("{error:#}"));
    }
}

/// Finds or installs the lints of the compiler that compiles the kernel programs: another's cannot read its libraries.
pub fn clippy(rustc: &Rustc) -> Result<PathBuf> {
    if rustc.clippy().is_none() && rustc.path.starts_with("/usr/bin") {
        apt::install(&[&packages::CLIPPY])?;
    }
    let path = rustc.path.display();
    rustc
        .clippy()
        .with_context(|| format!("no clippy beside {path}: run `rustup component add clippy` for its toolchain"))
}
