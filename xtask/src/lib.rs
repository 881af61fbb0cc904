//! Finds what the eBPF crate needs to be compiled, and compiles it.
//!
//! `cargo xtask` and the daemon's build script share this library. Without its features, as the build script takes it, its only
//! dependency is `anyhow`. It installs nothing: that is `cargo xtask setup`.

#[cfg(feature = "cli")]
pub mod counters;
pub mod ebpf;
#[cfg(feature = "image")]
pub mod image;
pub mod kubernetes;
pub mod libraries;
pub mod process;
pub mod toolchain;
pub mod tools;

use std::{
    env,
    path::{Path, PathBuf},
};

pub use ebpf::build_ebpf;

/// The root of the source tree.
///
/// Cargo says at run time where the package lies that runs, the daemon's build script or `xtask`: two checkouts may
/// share a target directory, and with it what was compiled in.
#[must_use]
pub fn root() -> PathBuf {
    let compiled_in = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or(compiled_in.clone(), PathBuf::from);
    let is_root = |dir: &&Path| dir.join("xtask/Cargo.toml").is_file() && dir.join("ebpf/Cargo.toml").is_file();
    let root = package.parent().filter(is_root).or(compiled_in.parent());
    root.unwrap_or(&compiled_in).to_path_buf()
}

/// The target directory that `path` lies in. Cargo marks it with a `CACHEDIR.TAG`, wherever it was told to put it.
#[must_use]
pub fn target_dir(path: &Path) -> PathBuf {
    let tagged = path.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    tagged.map_or_else(|| root().join("target"), Path::to_path_buf)
}
