//! Compiles the kernel programs and puts the object at `$OUT_DIR/sidetrack.bpf.o`.

use std::{env, path::PathBuf, process::ExitCode};

use xtask::ebpf::{SOURCES, Toolchain, VARIABLES};

fn main() -> ExitCode {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", xtask::root().join(source).display());
    }
    for variable in VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(error) => {
            println!("cargo::error={error:#}");
            return ExitCode::SUCCESS;
        }
    };
    // An update of the compiler may bring another LLVM.
    println!("cargo::rerun-if-changed={}", toolchain.rustc.path.display());
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it for build scripts"));
    match toolchain.build(&out.join("sidetrack.bpf.o")) {
        Ok(()) => ExitCode::SUCCESS,
        // Failure, so that cargo shows what the compiler wrote.
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
