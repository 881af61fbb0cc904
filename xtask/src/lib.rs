//! Finds what the eBPF crate needs to be compiled, and compiles it.
//!
//! `cargo xtask` and the daemon's build script share this library, so its only dependency is `anyhow`. It installs
//! nothing: that is `cargo xtask setup`.

pub mod ebpf;
pub mod process;
pub mod toolchain;
pub mod tools;

use std::path::{Path, PathBuf};

pub use ebpf::build_ebpf;

/// The root of the source tree.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The target directory that `path` lies in. Cargo marks it with a `CACHEDIR.TAG`, wherever it was told to put it.
#[must_use]
pub fn target_dir(path: &Path) -> PathBuf {
    let tagged = path.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    tagged.map_or_else(|| root().join("target"), Path::to_path_buf)
}
