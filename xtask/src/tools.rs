//! Where tools are kept that are compiled on this machine: outside of what `cargo clean` deletes.

use std::{env, path::PathBuf};

/// `$SIDETRACK_TOOLS`, else `$XDG_CACHE_HOME/sidetrack`, else `~/.cache/sidetrack`, else inside the target directory.
#[must_use]
pub fn dir() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SIDETRACK_TOOLS")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("sidetrack")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/sidetrack")))
        .unwrap_or_else(|| crate::root().join("target/tools"))
}
