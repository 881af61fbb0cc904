//! `cargo xtask kernels`: the tests of the real kernel, on other kernels than this machine's, in QEMU without KVM.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::{process::output, root, tools};

use super::{
    apt, binary, build,
    guest::{self, Guest},
    packages::{self, Scope},
    runner, setup,
    shell::{run, say},
    tally::Tally,
    test::print_result,
};

/// The suites that need nothing but the kernel, and whose times an emulated processor meets.
const SUITES: [&str; 9] =
    ["scenes", "interleave", "heads", "odd", "neighbours", "pods", "port_reuse", "routes_live", "forged"];
/// After so long a guest hangs.
const LIMIT: Duration = Duration::from_hours(1);

/// Which kernels, and what to run there.
#[derive(clap::Args)]
pub struct Args {
    /// Debian's package of a kernel; may be given several times
    #[arg(long, value_name = "PACKAGE", default_value = "linux-image-cloud-amd64", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Run these suites only; may be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values_t = SUITES.map(str::to_owned))]
    only: Vec<String>,
    /// Passed on to every runner: names of tests, `--nocapture` and so on
    #[arg(last = true)]
    runner: Vec<String>,
}

/// Boots each kernel once, with all suites inside; the exit code says whether all held.
pub fn kernels(args: &Args) -> Result<ExitCode> {
    ensure!(env::consts::ARCH == "x86_64", "other kernels are run on x86-64 only");
    setup::setup(Scope::All)?;
    apt::install(&packages::missing_of(packages::GUEST))?;
    let start = Instant::now();
    let daemon = binary::daemon()?;
    let chosen = args.only.iter().flat_map(|suite| ["--test", suite]);
    let tests =
        build::build("test", &["-p", "sidetrack-tests", "--no-run"].into_iter().chain(chosen).collect::<Vec<_>>())?;
    let built = start.elapsed();
    let mut rows = Vec::new();
    for kernel in &args.kernel {
        let files = fetch(kernel)?;
        let version = files.version()?;
        let runners = tests.iter().filter(|test| test.test).map(|test| test.path.clone()).collect::<Vec<_>>();
        let guest = Guest { kernel: &files.dir, daemon: &daemon, runners: &runners, arguments: &args.runner };
        let image = guest.image(&root().join("target/kernels").join(&version))?;
        println!("\nLinux {version} ({kernel})");
        let tally = runner::run(&version, &mut guest::qemu(&files.vmlinuz()?, &image), LIMIT, &mut io::stdout())?;
        rows.push((version, ended(kernel, tally)));
    }
    Ok(print_result(&rows.iter().map(|(version, tally)| (version.as_str(), tally.clone())).collect::<Vec<_>>(), built))
}

/// A guest that ran nothing has shown nothing.
fn ended(kernel: &str, mut tally: Tally) -> Tally {
    if tally.passed + tally.failed == 0 {
        tally.failed = 1;
        tally.failures.push(format!("{kernel}: no test ran: what the guest printed above says why"));
    }
    tally
}

/// A kernel's files, as its package has them.
struct Kernel {
    dir: PathBuf,
}

impl Kernel {
    fn vmlinuz(&self) -> Result<PathBuf> {
        first(&self.dir.join("boot"), "vmlinuz-")
    }

    fn version(&self) -> Result<String> {
        let file = self.vmlinuz()?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        Ok(name.trim_start_matches("vmlinuz-").to_owned())
    }
}

/// The first file of a directory whose name begins so.
fn first(dir: &Path, begin: &str) -> Result<PathBuf> {
    let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        found.filter(|f| f.file_name().to_string_lossy().starts_with(begin)).map(|f| f.path()).collect();
    found.sort();
    found.into_iter().next().with_context(|| format!("there is no {begin}* in {}", dir.display()))
}

/// Downloads a kernel's package, or the one that it stands for, and unpacks it; once.
fn fetch(package: &str) -> Result<Kernel> {
    let mut name = package.to_owned();
    for _ in 0..3 {
        let dir = tools::dir().join("kernels").join(&name);
        if first(&dir.join("boot"), "vmlinuz-").is_ok() {
            return Ok(Kernel { dir });
        }
        let fresh = tools::dir().join("kernels").join(format!("{name}.new"));
        let _ = std::fs::remove_dir_all(&fresh);
        std::fs::create_dir_all(&fresh)?;
        run(Command::new("apt-get").args(["-q", "download", &name]).current_dir(&fresh))?;
        run(Command::new("dpkg-deb").arg("-x").arg(first(&fresh, &name)?).arg(&fresh))?;
        if first(&fresh.join("boot"), "vmlinuz-").is_ok() {
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::rename(&fresh, &dir)?;
            return Ok(Kernel { dir });
        }
        std::fs::remove_dir_all(&fresh)?;
        // A package without files that depends on the newest one.
        let depends = output(Command::new("apt-cache").args(["depends", &name])).unwrap_or_default();
        let next = depends.split_whitespace().find(|word| word.starts_with("linux-image-") && **word != name);
        let Some(next) = next else { bail!("{name} is not a kernel's package: see `apt-cache search linux-image-`") };
        say(format_args!("{name} stands for {next}"));
        name = next.to_owned();
    }
    bail!("{package} leads to no kernel")
}
