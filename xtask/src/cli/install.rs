//! Tools that are compiled on this machine, by `cargo install`, each in a directory of its own that names its version.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xtask::{
    process::clean,
    toolchain::{LINKER_VERSION, Rustc, linker_dir},
    tools,
};

use super::shell::{run, say};

/// The version of cargo-deny that `cargo xtask deny` installs.
const DENY_VERSION: &str = "0.20.2";

/// Installs bpf-linker for the LLVM of this compiler.
///
/// It must not read bitcode of a newer LLVM than its own, and it links one dynamically: the compiler's, or the
/// distribution's. A symlink by the name that its build looks for is enough, no development package of LLVM is needed.
pub fn bpf_linker(rustc: &Rustc) -> Result<()> {
    let dir = linker_dir(rustc.llvm);
    let _lock = lock(&dir)?;
    if xtask::toolchain::find_linker(rustc).is_ok() {
        return Ok(());
    }
    say("compiling bpf-linker, a minute or two, once");
    let llvm = fs::canonicalize(libllvm(rustc)?)?;
    let lib = llvm.parent().context("a library lies in a directory")?;
    let prefix = dir.join("llvm");
    fs::create_dir_all(prefix.join("lib"))?;
    let link = prefix.join("lib/libLLVM.so");
    // One of an earlier compiler may be there.
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&llvm, &link)?;
    let mut command = cargo_install("bpf-linker", LINKER_VERSION, &dir);
    command
        .args(["--no-default-features", "--features", &format!("llvm-{}", rustc.llvm)])
        .env("LLVM_PREFIX", prefix)
        .env("CARGO_ENCODED_RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{}", lib.display()));
    run(&mut command)?;
    // Nothing of it is used again.
    let _ = fs::remove_dir_all(dir.join("build"));
    Ok(())
}

/// The shared library of this compiler's LLVM.
fn libllvm(rustc: &Rustc) -> Result<PathBuf> {
    let mut dirs = vec![
        rustc.sysroot.join("lib"),
        format!("/usr/lib/llvm-{}/lib", rustc.llvm).into(),
        format!("/usr/lib/{}-linux-gnu", env::consts::ARCH).into(),
        "/usr/lib64".into(),
        "/usr/lib".into(),
    ];
    dirs.retain(|dir| dir.is_dir());
    let name = format!("libLLVM.so.{}.", rustc.llvm);
    dirs.iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flat_map(|dir| dir.flatten().map(|entry| entry.path()))
        .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name)))
        .with_context(|| {
            format!("no {name}* in {dirs:?}: install the shared library of LLVM {}, Debian's libllvm{0}", rustc.llvm)
        })
}

/// Finds or installs cargo-deny.
pub fn cargo_deny() -> Result<PathBuf> {
    let dir = tools::dir().join(format!("cargo-deny-{DENY_VERSION}"));
    let program = dir.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    let _lock = lock(&dir)?;
    if !program.is_file() {
        say("compiling cargo-deny, a few minutes, once");
        // It works for a second at a time: the debug build is ready in a third of the time.
        run(cargo_install("cargo-deny", DENY_VERSION, &dir).arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
        let _ = fs::remove_dir_all(dir.join("build"));
    }
    Ok(program)
}

fn cargo_install(name: &str, version: &str, dir: &Path) -> std::process::Command {
    let mut command = clean("cargo");
    // The root's rust-toolchain.toml names the compiler.
    command.current_dir(xtask::root());
    command.args(["install", name, "--version", version, "--locked", "--root"]).arg(dir);
    command.env("CARGO_TARGET_DIR", dir.join("build")).env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    command
}

/// One installer at a time for a tool; the others wait and find it.
pub fn lock(dir: &Path) -> Result<fs::File> {
    fs::create_dir_all(dir)
        .with_context(|| format!("{} cannot be made: name another directory in SIDETRACK_TOOLS", dir.display()))?;
    let file = fs::File::create(dir.join(".lock"))?;
    file.lock().with_context(|| format!("{} cannot be locked", dir.display()))?;
    Ok(file)
}
