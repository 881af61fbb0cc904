//! Builds the programs of Kubernetes that tests run, where they are not there.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::{
    kubernetes::{ASSETS, MODULE, PROGRAMS, Program, VERSION, dir, go_mod, go_suffices, go_wanted, linker_flags},
    process::{find_program, output},
    root,
};

use super::{
    install,
    shell::{run, say},
};

/// Builds what is missing.
pub fn install() -> Result<()> {
    if missing().is_empty() {
        return Ok(());
    }
    let dir = dir();
    let _lock = install::lock(&dir)?;
    // Another set-up may have been at it.
    let missing = missing();
    build(&dir, &missing).with_context(|| {
        let names = missing.iter().map(|program| program.name).collect::<Vec<_>>().join(" and ");
        format!(
            "{names} {VERSION} cannot be built, and tests with a real API server cannot run: repair what follows and run \
             `cargo xtask setup` again, or name a directory that has them in {ASSETS}"
        )
    })
}

fn missing() -> Vec<Program> {
    PROGRAMS.into_iter().filter(|program| program.find().is_none()).collect()
}

fn build(dir: &Path, programs: &[Program]) -> Result<()> {
    if programs.is_empty() {
        return Ok(());
    }
    if let Some(assets) = env::var_os(ASSETS) {
        say(format_args!("{ASSETS}={} has not all of version {VERSION}", assets.display()));
    }
    check_go()?;
    for (index, program) in programs.iter().enumerate() {
        say(format_args!(
            "compiling {} {VERSION}, program {} of {}: all of them take five minutes on two processors, once",
            program.name,
            index + 1,
            programs.len()
        ));
        let fresh = dir.join(format!(".{}.new", program.name));
        // Go writes over nothing that it has not linked to its end.
        let _ = fs::remove_file(&fresh);
        run(go()
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &linker_flags()])
            .arg("-o")
            .arg(&fresh)
            .arg(program.package()))?;
        fs::rename(&fresh, dir.join(program.name))?;
    }
    Ok(())
}

/// Go in the module's directory, for this machine, without a C compiler.
fn go() -> Command {
    let mut command = Command::new("go");
    // A newer Go is the user's to install: none is downloaded by the way.
    command.current_dir(root().join(MODULE)).env("GOTOOLCHAIN", "local");
    command.env("CGO_ENABLED", "0").env("GOWORK", "off").env_remove("GOOS").env_remove("GOARCH");
    command
}

fn check_go() -> Result<()> {
    ensure!(find_program("go").is_some(), "go is not on PATH: install Go");
    let go_mod = go_mod();
    let wanted = go_wanted(&go_mod).with_context(|| format!("{MODULE}/go.mod names no version of Go"))?;
    // Asked elsewhere: a Go that is too old may refuse to answer in the module's directory.
    let Some(found) = output(go().current_dir("/").args(["env", "GOVERSION"])) else {
        bail!("`go env GOVERSION` fails: repair Go");
    };
    ensure!(
        go_suffices(&found, wanted),
        "{found} is too old, {MODULE}/go.mod needs Go {wanted}: put a newer one first on PATH"
    );
    Ok(())
}
