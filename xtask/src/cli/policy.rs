//! Keeps Debian's packages from starting their services while they are installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};

const POLICY: &str = "/usr/sbin/policy-rc.d";
const MARK: &str = "# written by `cargo xtask setup`";

/// While it lives, no package starts a service.
#[must_use]
pub struct NoServices {
    ours: Option<PathBuf>,
}

/// Writes the policy that `invoke-rc.d` and `deb-systemd-invoke` ask. One that is there already stays and rules.
///
/// It forbids only as long as this process lives: killed in the middle, setup leaves a file that allows everything.
pub fn no_services() -> Result<NoServices> {
    no_services_at(Path::new(POLICY))
}

fn no_services_at(path: &Path) -> Result<NoServices> {
    let of_the_machine = fs::read_to_string(path).is_ok_and(|text| !text.contains(MARK));
    if of_the_machine {
        return Ok(NoServices { ours: None });
    }
    let script = format!("#!/bin/sh\n{MARK}\n[ -d /proc/{} ] && exit 101\nexit 0\n", process::id());
    fs::write(path, script)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("{} cannot be written: are you root?", path.display()))?;
    Ok(NoServices { ours: Some(path.to_owned()) })
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.ours {
            // What stays behind allows everything and is replaced by the next setup.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sidetrack-policy-{}-{name}", process::id()))
    }

    #[test]
    fn a_policy_forbids_while_it_is_held_and_goes_with_its_holder() {
        let path = scratch("ours");
        let held = no_services_at(&path).expect("the directory is writable");
        assert_eq!(process::Command::new(&path).status().expect("it is executable").code(), Some(101));
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_policy_of_the_machine_stays_as_it_is() {
        let path = scratch("theirs");
        fs::write(&path, "#!/bin/sh\nexit 101\n").expect("the directory is writable");
        drop(no_services_at(&path).expect("nothing is written"));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "#!/bin/sh\nexit 101\n");
        fs::remove_file(&path).expect("it is there");
    }
}
