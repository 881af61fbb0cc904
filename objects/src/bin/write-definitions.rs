//! Writes the definitions of all objects into the source tree.

use std::{env, fs, io, path::PathBuf};

use sidetrack_objects::{DIRECTORY, definitions};

fn main() -> io::Result<()> {
    let wanted = || io::Error::other("name the root of the source tree, as `cargo xtask docs` does");
    let directory = PathBuf::from(env::args_os().nth(1).ok_or_else(wanted)?).join(DIRECTORY);
    fs::create_dir_all(&directory)?;
    for definition in definitions() {
        fs::write(directory.join(&definition.file), definition.yaml())?;
    }
    Ok(())
}
