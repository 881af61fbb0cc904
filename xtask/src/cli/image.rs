//! `cargo xtask image`: the image of the one binary, without Docker.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use xtask::{
    image::{Image, Layer, architecture, dir, file_name},
    process::{clean, output},
    root,
};

use super::{
    build::build_with,
    packages::Scope,
    sbom::{self, Contents},
    setup,
    shell::say,
};

/// Where the bill of materials lies in the image.
const BILL: &str = "usr/share/doc/sidetrack/sbom.cdx.json";
/// The largest archive that is accepted, in bytes.
const LIMIT: u64 = 40_000_000;
/// A user who is nobody: the controller runs as it, the agent's manifest names root.
const NOBODY: &str = "65532:65532";
/// Set by builds that are to be repeated: the time that everything in them bears (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What is to be made.
#[derive(clap::Args)]
pub struct Args {
    /// The processor that it is for
    #[arg(long, value_enum, default_value_t = Architecture::of_this_machine())]
    arch: Architecture,
    /// The image's name, without its tag, which is the version
    #[arg(long, value_name = "NAME", default_value = "localhost/sidetrack")]
    name: String,
    /// Where the archive is written, with the bill of materials beside it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Default for Args {
    /// What the manifests of `deploy/kustomize` name, for this machine.
    fn default() -> Self {
        Self { arch: Architecture::of_this_machine(), name: "localhost/sidetrack".to_owned(), out: None }
    }
}

/// Processors that there are images for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    fn of_this_machine() -> Self {
        if architecture() == "arm64" { Self::Arm64 } else { Self::Amd64 }
    }

    /// As Go and container images call it.
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust calls it.
    fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// Builds the binary and writes the archive; where it lies.
pub fn run(args: &Args) -> Result<PathBuf> {
    setup::setup(Scope::Build)?;
    let target = args.arch.target();
    check_target(target)?;
    let binary = build(target)?;
    let program = fs::read(&binary)?;
    ensure!(
        is_static(&program)?,
        "{} loads libraries, which an image does not have: are the static ones of libelf and zlib installed?",
        binary.display()
    );
    let Contents { version, bill } = sbom::of_agent(target)?;
    let image = Image {
        names: vec![format!("{}:{version}", args.name)],
        architecture: args.arch.name().to_owned(),
        entrypoint: vec!["/sidetrack".to_owned()],
        user: NOBODY.to_owned(),
        labels: labels(&version),
        made: made()?,
        layers: vec![
            Layer::default().file(BILL, 0o644, bill.clone().into_bytes()),
            Layer::default().file("sidetrack", 0o755, program),
        ],
        ..Image::default()
    };
    let out = args.out.clone().unwrap_or_else(dir);
    let archive = out.join(file_name(args.arch.name()));
    let digest = image.write(&archive)?;
    fs::write(archive.with_extension("cdx.json"), bill)?;
    let size = archive.metadata()?.len();
    ensure!(
        size < LIMIT,
        "{} has {size} bytes, more than {LIMIT}: what has made the binary larger?",
        archive.display()
    );
    say(format_args!("{}: {} bytes, {digest}", image.names[0], size));
    Ok(archive)
}

/// The binary that loads nothing. Beside the other builds: what they have built for this machine itself is used again.
fn build(target: &str) -> Result<PathBuf> {
    // Where it was compiled is nobody's concern, and must not make a difference.
    let remapped = [(root(), "/sidetrack"), (cargo_home(), "/cargo")];
    let remapped = remapped.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let flags = ["-Ctarget-feature=+crt-static", "-Cstrip=debuginfo", &remapped[0], &remapped[1]].join("\x1f");
    let mut variables = vec![("CARGO_ENCODED_RUSTFLAGS", flags.as_str()), ("PKG_CONFIG_ALL_STATIC", "1")];
    if target.starts_with("aarch64") && architecture() != "arm64" {
        variables.push(("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"));
        variables.push(("PKG_CONFIG_ALLOW_CROSS", "1"));
        variables.push(("PKG_CONFIG_LIBDIR", "/usr/lib/aarch64-linux-gnu/pkgconfig"));
    }
    let args = ["--release", "-p", "sidetrack", "--bin", "sidetrack", "--target", target];
    let built = build_with("build", &args, &variables)?;
    let found = built.into_iter().find(|executable| executable.target == "sidetrack" && !executable.test);
    found.map(|executable| executable.path).context("cargo did not say where it put `sidetrack`")
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

fn labels(version: &str) -> std::collections::BTreeMap<String, String> {
    let mut git = Command::new("git");
    let revision = output(git.current_dir(root()).args(["rev-parse", "HEAD"]));
    let fixed = [
        ("title", "sidetrack"),
        ("description", "Steers requests that carry a sandbox key to forked pods, inside the kernel of the node"),
        ("licenses", "Apache-2.0 OR MIT"),
        ("source", env!("CARGO_PKG_REPOSITORY")),
        ("version", version),
    ];
    let all = fixed.map(|(name, value)| (name, value.to_owned())).into_iter();
    let all = all.chain(revision.map(|revision| ("revision", revision)));
    all.map(|(name, value)| (format!("org.opencontainers.image.{name}"), value)).collect()
}

fn made() -> Result<u64> {
    let Some(seconds) = env::var_os(EPOCH) else { return Ok(0) };
    let seconds = seconds.to_string_lossy();
    seconds.parse().with_context(|| format!("{EPOCH}={seconds}: expected seconds since 1970, or nothing"))
}

/// The image that tests put on their nodes: `SIDETRACK_IMAGE`, else one of this tree.
pub fn for_tests() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SIDETRACK_IMAGE").map(PathBuf::from) {
        ensure!(path.is_file(), "SIDETRACK_IMAGE={} is not a file: unset it, or make it first", path.display());
        return Ok(path.canonicalize()?);
    }
    run(&Args::default())
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
