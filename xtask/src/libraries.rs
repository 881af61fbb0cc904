//! Libraries of other languages, for the tests' clients: a lock file in the tree says which, set-up brings them.

use std::{fs, path::PathBuf};

use crate::{root, tools};

/// What one lock file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Libraries {
    /// The language.
    pub language: &'static str,
    /// The lock file, below the root of the tree.
    pub lock: &'static str,
}

/// undici, for Node.
pub const NODE: Libraries = Libraries { language: "node", lock: "tests/pools/node/package-lock.json" };
/// requests and aiohttp, for Python.
pub const PYTHON: Libraries = Libraries { language: "python", lock: "tests/pools/python/requirements.txt" };

impl Libraries {
    /// Where they are kept: a directory of their own for each content of the lock file.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        let lock = fs::read(root().join(self.lock)).unwrap_or_default();
        // FNV-1a: it tells versions of one file apart.
        let digest = lock.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        tools::dir().join(format!("libraries/{}-{digest:016x}", self.language))
    }

    /// The file that says that all is there.
    #[must_use]
    pub fn mark(&self) -> PathBuf {
        self.dir().join(".complete")
    }

    /// Whether all is there.
    #[must_use]
    pub fn are_there(&self) -> bool {
        self.mark().is_file()
    }
}
