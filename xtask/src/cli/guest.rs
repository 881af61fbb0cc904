//! A machine of its own for a kernel: an initramfs made of this machine's own programs, that kernel's modules, and the tests.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use xtask::process::{find_program, output};

use super::shell::{run, say};

/// What the tests run, beside themselves.
const PROGRAMS: [&str; 7] = ["bash", "busybox", "ip", "tc", "nft", "nginx", "curl"];
/// What they are made of: veths and bridges, hooks for programs, service addresses, congestion control.
const MODULES: [&str; 12] = [
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "act_mirred",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_numgen",
    "nft_ct",
    "nft_masq",
    "tcp_bbr",
];
/// The first process.
const INIT: &str = r#"#!/usr/bin/bash
/usr/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp SIDETRACK_BIN=/tests/sidetrack
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mkdir -p /run/netns
mount -t bpf bpf /sys/fs/bpf; mount -t cgroup2 cgroup /sys/fs/cgroup
for module in /modules/*; do insmod "$module" || echo "insmod $module failed"; done
ip link set lo up; ulimit -n 65536
mapfile -t arguments < /tests/arguments
uname -sr
for runner in /tests/[0-9]*; do echo; echo "$runner" | cut -d- -f2; "$runner" --test-threads=1 "${arguments[@]}" 2>&1; done
poweroff -f
"#;

/// What a guest is made of.
pub struct Guest<'a> {
    /// Where the kernel's package was unpacked.
    pub kernel: &'a Path,
    /// The daemon.
    pub daemon: &'a Path,
    /// The tests.
    pub runners: &'a [PathBuf],
    /// For each of them.
    pub arguments: &'a [String],
}

impl Guest<'_> {
    /// Makes the initramfs in `dir`. Where it is.
    pub fn image(&self, dir: &Path) -> Result<PathBuf> {
        let (tree, image) = (dir.join("tree"), dir.join("initrd"));
        say(format_args!("making {}", image.display()));
        let _ = fs::remove_dir_all(&tree);
        for name in [
            "bin",
            "sbin",
            "proc",
            "sys",
            "dev",
            "run",
            "tmp",
            "etc",
            "root",
            "tests",
            "modules",
            "var/log/nginx",
            "var/lib/nginx",
        ] {
            fs::create_dir_all(tree.join(name))?;
        }
        self.programs(&tree)?;
        self.modules(&tree)?;
        for (number, runner) in self.runners.iter().enumerate() {
            let name = runner.file_name().unwrap_or_default().to_string_lossy().into_owned();
            copy(runner, &tree.join(format!("tests/{number:02}-{name}")))?;
        }
        copy(self.daemon, &tree.join("tests/sidetrack"))?;
        fs::write(tree.join("tests/arguments"), self.arguments.join("\n"))?;
        fs::write(
            tree.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nwww-data:x:33:33::/:/bin/false\n",
        )?;
        fs::write(tree.join("etc/group"), "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n")?;
        fs::write(tree.join("init"), INIT)?;
        fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
        pack(&tree, &image)?;
        fs::remove_dir_all(&tree)?;
        Ok(image)
    }

    /// Copies programs and the libraries that they and the tests are linked to, to where they are here.
    fn programs(&self, tree: &Path) -> Result<()> {
        let mut files = BTreeSet::new();
        for name in PROGRAMS {
            files.insert(find_program(name).with_context(|| format!("{name} is not here"))?);
        }
        let linked = files.iter().cloned().chain(self.runners.iter().cloned()).chain([self.daemon.to_owned()]);
        let mut libraries = BTreeSet::new();
        for file in linked {
            // Nothing for one that is linked to nothing.
            let list = output(Command::new("ldd").arg(&file)).unwrap_or_default();
            libraries.extend(list.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
        }
        for file in files.iter().chain(&libraries) {
            copy(file, &tree.join(file.strip_prefix("/").unwrap_or(file)))?;
        }
        // The shell that INIT names, wherever it is here.
        copy(&find_program("bash").context("bash is not here")?, &tree.join("usr/bin/bash"))?;
        copy(&find_program("busybox").context("busybox is not here")?, &tree.join("usr/bin/busybox"))
    }

    /// Copies modules, each behind those that it needs.
    fn modules(&self, tree: &Path) -> Result<()> {
        let all = ["lib/modules", "usr/lib/modules"].map(|dir| self.kernel.join(dir));
        let all = all.iter().find(|dir| dir.is_dir()).context("the kernel's package has no modules")?;
        let version = fs::read_dir(all)?.next().context("no modules")??.file_name();
        let base = all.parent().and_then(Path::parent).unwrap_or(self.kernel);
        run(Command::new(find_program("depmod").context("depmod is not here")?).arg("-b").arg(base).arg(&version))?;
        let dir = all.join(&version);
        let depends = fs::read_to_string(dir.join("modules.dep"))?;
        let mut order: Vec<&str> = Vec::new();
        for module in MODULES {
            let named =
                |line: &&str| line.split(':').next().is_some_and(|file| file.contains(&format!("/{module}.ko")));
            // Nothing for one that is built in.
            let Some((file, needs)) = depends.lines().find(named).and_then(|line| line.split_once(':')) else {
                continue;
            };
            for file in needs.split_whitespace().rev().chain([file]) {
                if !order.contains(&file) {
                    order.push(file);
                }
            }
        }
        for (number, file) in order.iter().enumerate() {
            let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy().into_owned();
            let to = tree.join("modules").join(format!("{number:03}-{}", name.split(".ko").next().unwrap_or(&name)));
            let from = dir.join(file);
            match from.extension().and_then(|e| e.to_str()) {
                Some("xz") => unpack("xz", &from, &to)?,
                Some("zst") => unpack("zstd", &from, &to)?,
                _ => copy(&from, &to)?,
            }
        }
        Ok(())
    }
}

/// Starts the kernel with the image; what it prints is what the tests print. Emulated, and a processor that all kernels know.
pub fn qemu(vmlinuz: &Path, image: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-accel",
        "tcg",
        "-cpu",
        "Nehalem",
        "-smp",
        "2",
        "-m",
        "4096",
        "-nographic",
        "-no-reboot",
        "-kernel",
    ]);
    command.arg(vmlinuz).arg("-initrd").arg(image).args(["-append", "console=ttyS0 quiet panic=-1"]);
    command.stdin(Stdio::null());
    command
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file is in a directory")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn unpack(program: &str, from: &Path, to: &Path) -> Result<()> {
    let status = Command::new(program).arg("-dc").arg(from).stdout(fs::File::create(to)?).status();
    let status = status.with_context(|| format!("{program} cannot be started"))?;
    ensure!(status.success(), "{program} cannot unpack {}", from.display());
    Ok(())
}

/// Packs a tree as the kernel unpacks it.
fn pack(tree: &Path, image: &Path) -> Result<()> {
    let mut find = Command::new("find").arg(".").current_dir(tree).stdout(Stdio::piped()).spawn()?;
    let names = find.stdout.take().context("it is piped")?;
    let mut cpio = Command::new("cpio")
        .args(["-o", "-H", "newc", "--quiet"])
        .current_dir(tree)
        .stdin(names)
        .stdout(Stdio::piped())
        .spawn()
        .context("cpio cannot be started")?;
    let archive = cpio.stdout.take().context("it is piped")?;
    let zipped = Command::new("gzip").arg("-1").stdin(archive).stdout(fs::File::create(image)?).status()?;
    let all = [find.wait()?, cpio.wait()?, zipped];
    ensure!(all.iter().all(std::process::ExitStatus::success), "{} could not be packed: {all:?}", image.display());
    Ok(())
}
