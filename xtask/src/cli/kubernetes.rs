//! Builds the programs of Kubernetes that tests run, where they are not there.

use std::{env, fs, process::Command};

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

/// Builds what is missing. One set-up at a time builds a program; another that needs no more of them goes on.
pub fn install() -> Result<()> {
    let lacking = missing();
    if lacking.is_empty() {
        return Ok(());
    }
    build(&lacking).with_context(|| {
        let names = missing().iter().map(|program| program.name).collect::<Vec<_>>().join(", ");
        format!(
            "of Kubernetes {VERSION} there is no {names}, and tests with a real API server or with nodes cannot run: repair what \
             follows and run `cargo xtask setup` again, or name a directory that has them in {ASSETS}"
        )
    })
}

fn missing() -> Vec<Program> {
    PROGRAMS.into_iter().filter(|program| program.find().is_none()).collect()
}

fn build(programs: &[Program]) -> Result<()> {
    if let Some(assets) = env::var_os(ASSETS) {
        say(format_args!("{ASSETS}={} has not all of version {VERSION}", assets.display()));
    }
    check_go()?;
    let dir = dir();
    for (index, program) in programs.iter().enumerate() {
        let _lock = install::lock(&dir)?;
        // Another set-up may have been at it.
        if program.find().is_some() {
            continue;
        }
        say(format_args!(
            "compiling {} {VERSION}, program {} of {}: all of them take eight minutes on two processors, once",
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
