//! What pods are made of: the agent's image, and one with the application of the tests.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};
use xtask::image::{Image, Layer, architecture, dir, file_name};

/// What a pod's own container runs, which holds its namespaces.
pub const PAUSE: &str = "localhost/pause:1";
/// The application: `src/bin/cast.rs`.
pub const CAST: &str = "localhost/cast:1";

/// The archive of the agent's image: `SIDETRACK_IMAGE`, or where `cargo xtask image` writes it.
#[must_use]
pub fn of_agent() -> PathBuf {
    let written = || dir().join(file_name(architecture()));
    std::path::absolute(env::var_os("SIDETRACK_IMAGE").map_or_else(written, PathBuf::from)).unwrap_or_default()
}

/// Writes the archive of an image with this program, `cast`, and the libraries that it loads. It is what pods are made of, too.
///
/// # Errors
/// When the program cannot be read, or asks for a library that is not there.
pub(super) fn write_cast(program: &Path, archive: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut layer = Layer::default()
        .file("cast", 0o755, stripped(program, &archive.with_extension("program"))?)
        .directory("tmp", 0o1777);
    for library in libraries(program)? {
        layer = layer.file(&library, 0o755, read(Path::new(&library))?);
    }
    let image = Image {
        names: vec![PAUSE.to_owned(), CAST.to_owned()],
        architecture: architecture().to_owned(),
        entrypoint: vec!["/cast".to_owned()],
        arguments: vec!["pause".to_owned()],
        labels: BTreeMap::new(),
        layers: vec![layer],
        plain: true,
        ..Image::default()
    };
    image.write(archive).map(drop)
}

/// A program without what debuggers know of it, which is nearly all of a build for tests. It lies in this file meanwhile.
fn stripped(program: &Path, meanwhile: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new("strip");
    command.arg("--strip-debug").arg("-o").args([meanwhile, program]);
    let said = command.output().context("strip cannot be started: it comes with gcc")?;
    ensure!(said.status.success(), "strip {}: {}", program.display(), String::from_utf8_lossy(&said.stderr));
    let stripped = fs::read(meanwhile).with_context(|| format!("cannot read {}", meanwhile.display()))?;
    fs::remove_file(meanwhile)?;
    Ok(stripped)
}

/// What a program loads, and what loads it, as ldd(1) says: `name => /path (0x...)`, or the path alone.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let said = Command::new("ldd").arg(program).output().context("ldd cannot be started")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.status.success() && !text.contains("not found"), "ldd {}: {text}", program.display());
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    Ok(text.lines().filter_map(path).collect())
}
