//! The one binary, which loads no libraries: what tests run is what the image has.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use xtask::{
    image::architecture,
    process::{clean, output},
    root,
};

use super::{
    build::{build_with, find},
    shell::run,
};

/// Processors that it is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl Architecture {
    /// This machine's.
    pub fn of_this_machine() -> Self {
        if architecture() == "arm64" { Self::Arm64 } else { Self::Amd64 }
    }

    /// As Go and container images call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust calls it.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// The binary that the lab runs: `$SIDETRACK_BIN`, else this tree's.
pub fn daemon() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SIDETRACK_BIN").map(PathBuf::from) {
        ensure!(path.is_file(), "SIDETRACK_BIN={} is not a file: unset it, or build it first", path.display());
        return Ok(path.canonicalize()?);
    }
    build(Architecture::of_this_machine())
}

/// Builds it for a processor; where it lies.
pub fn build(architecture: Architecture) -> Result<PathBuf> {
    check_target(architecture.target())?;
    compile(architecture, &[], &[])
}

/// The ABI of the successor: no version has it.
const SUCCESSOR_ABI: &str = "255";

/// The binary as its successor with another ABI, for tests of an upgrade. Whatever does not depend on that is the same as for
/// [`daemon`], and taken from there.
pub fn successor() -> Result<PathBuf> {
    let (target, own) = (root().join("target"), root().join("target/successor"));
    if !own.exists() {
        for built in [PathBuf::from("release"), PathBuf::from(Architecture::of_this_machine().target())] {
            if target.join(&built).is_dir() {
                fs::create_dir_all(&own)?;
                run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(target.join(&built)).arg(&own))?;
            }
        }
    }
    let dir = own.to_str().context("the project's path is no UTF-8")?;
    // What must be compiled once more is compiled in less time.
    let quick =
        ["sidetrack", "sidetrack-controller"].map(|package| format!("profile.release.package.{package}.opt-level=0"));
    let more = ["--target-dir", dir, "--config", &quick[0], "--config", &quick[1]];
    compile(Architecture::of_this_machine(), &more, &[("SIDETRACK_ABI", SUCCESSOR_ABI)])
}

/// Beside other builds: what they have built for this machine itself is used again.
fn compile(architecture: Architecture, more: &[&str], environment: &[(&str, &str)]) -> Result<PathBuf> {
    let target = architecture.target();
    // Where it was compiled is nobody's concern, and must not make a difference.
    let remapped = [(root(), "/sidetrack"), (cargo_home(), "/cargo")];
    let remapped = remapped.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let flags = ["-Ctarget-feature=+crt-static", "-Cstrip=debuginfo", &remapped[0], &remapped[1]].join("\x1f");
    let mut variables = vec![("CARGO_ENCODED_RUSTFLAGS", flags.as_str()), ("PKG_CONFIG_ALL_STATIC", "1")];
    variables.extend_from_slice(environment);
    if architecture != Architecture::of_this_machine() {
        variables.push(("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"));
        variables.push(("PKG_CONFIG_ALLOW_CROSS", "1"));
        variables.push(("PKG_CONFIG_LIBDIR", "/usr/lib/aarch64-linux-gnu/pkgconfig"));
    }
    let args = [&["--release", "-p", "sidetrack", "--bin", "sidetrack", "--target", target], more].concat();
    let binary = find(&build_with("build", &args, &variables)?, "sidetrack")?;
    ensure!(
        is_static(&fs::read(&binary)?)?,
        "{} loads libraries, which an image does not have: are the static ones of libelf and zlib installed?",
        binary.display()
    );
    Ok(binary)
}

fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

fn check_target(target: &str) -> Result<()> {
    let libdir = output(clean("rustc").current_dir(root()).args(["--print", "target-libdir", "--target", target]));
    let there = libdir.is_some_and(|dir| {
        fs::read_dir(dir)
            .is_ok_and(|files| files.flatten().any(|it| it.file_name().to_string_lossy().starts_with("libstd-")))
    });
    ensure!(
        there,
        "no standard library for {target}: run `rustup target add {target}`, and on another machine than its own install \
         gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and, with `dpkg --add-architecture arm64`, libelf-dev:arm64 and zlib1g-dev:arm64"
    );
    Ok(())
}

/// Whether a program needs no interpreter: no dynamic linker, so no libraries (elf(5), `PT_INTERP`).
fn is_static(program: &[u8]) -> Result<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Result<usize> {
        let bytes = program.get(at..at + length).context("an ELF file that ends early")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    ensure!(program.starts_with(b"\x7fELF\x02\x01"), "no ELF file of 64 bits, little-endian");
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for index in 0..count {
        if number(table + index * size, 4)? == PT_INTERP as usize {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_loads_libraries_is_told_from_one_that_does_not() {
        let own = fs::read(env::current_exe().expect("it runs")).expect("it can be read");
        assert!(!is_static(&own).expect("an ELF file"));
        // A head alone: no program header, so no interpreter.
        let mut head = own[..64].to_vec();
        head[0x38..0x3a].fill(0);
        assert!(is_static(&head).expect("an ELF file"));
        assert!(is_static(b"#!/bin/sh").is_err());
    }
}
