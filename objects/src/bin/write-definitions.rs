//! Writes the definitions of all objects into a directory.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let wanted = || io::Error::other("name the directory of the definitions, as `cargo xtask docs` does");
    let directory = PathBuf::from(env::args_os().nth(1).ok_or_else(wanted)?);
    fs::create_dir_all(&directory)?;
    for definition in sidetrack_objects::definitions() {
        fs::write(directory.join(&definition.file), definition.yaml())?;
    }
    Ok(())
}
