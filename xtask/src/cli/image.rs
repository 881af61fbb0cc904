//! `cargo xtask image`: the image of the one binary, without Docker.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use xtask::{
    image::{Image, Layer, dir, file_name},
    process::output,
    root,
};

use super::{
    binary::{self, Architecture},
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

/// Builds the binary and writes the archive; where it lies.
pub fn run(args: &Args) -> Result<PathBuf> {
    setup::setup(Scope::Build)?;
    let program = fs::read(binary::build(args.arch)?)?;
    let Contents { version, bill } = sbom::of_agent(args.arch.target())?;
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
