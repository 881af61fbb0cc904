//! The bill of materials of the binary, in `CycloneDX`'s JSON: the crates that cargo compiles into it, with their digests as the lock
//! files have them, those of the kernel programs too; and the C libraries that are linked into it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::{process::output, root, toolchain::TARGET as OF_KERNEL};

use super::shell::cargo;

/// Debian's packages whose static libraries are linked in.
const LIBRARIES: [&str; 3] = ["libc6-dev", "libelf-dev", "zlib1g-dev"];

/// What a binary consists of.
pub struct Contents {
    /// The binary's own version.
    pub version: String,
    /// The document.
    pub bill: String,
}

/// Of the agent, for this target.
pub fn of_agent(target: &str) -> Result<Contents> {
    let user = Workspace::read("Cargo.toml", target)?;
    let own = user.package("sidetrack")?;
    let version = own["version"].as_str().unwrap_or_default().to_owned();
    let mut components = user.components(own)?;
    let kernel = Workspace::read("ebpf/Cargo.toml", OF_KERNEL)?;
    components.append(&mut kernel.components(kernel.package("sidetrack-ebpf")?)?);
    for library in LIBRARIES {
        let mut ask = Command::new("dpkg-query");
        // Elsewhere than on Debian nobody is asked: the libraries are whatever the machine has.
        if let Some(version) = output(ask.args(["--show", "--showformat=${Version}", library])) {
            let url = format!("pkg:deb/debian/{library}@{}", version.replace(':', "%3A").replace('+', "%2B"));
            components
                .insert(url.clone(), json!({"type": "library", "name": library, "version": version, "purl": url}));
        }
    }
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "application", "name": "sidetrack", "version": version,
            "licenses": [{ "expression": own["license"] }] } },
        "components": components.into_values().collect::<Vec<_>>(),
    });
    Ok(Contents { version, bill: format!("{bill:#}\n") })
}

/// What cargo says of a workspace, and the digests in its lock file.
struct Workspace {
    packages: BTreeMap<String, Value>,
    nodes: BTreeMap<String, Value>,
    digests: BTreeMap<(String, String), String>,
}

impl Workspace {
    fn read(manifest: &str, target: &str) -> Result<Self> {
        let manifest = root().join(manifest);
        let mut command = cargo("metadata");
        command.args(["--format-version=1", "--locked", "--filter-platform", target, "--manifest-path"]).arg(&manifest);
        let said = command.output().context("cargo cannot be started: is it on PATH?")?;
        let why = || format!("cargo metadata of {}: {}", manifest.display(), String::from_utf8_lossy(&said.stderr));
        ensure!(said.status.success(), "{}", why());
        let graph: Value = serde_json::from_slice(&said.stdout).with_context(why)?;
        let by_id = |list: &Value| {
            let items = list.as_array().cloned().unwrap_or_default();
            items.into_iter().filter_map(|item| Some((item["id"].as_str()?.to_owned(), item))).collect()
        };
        let lock = fs::read_to_string(manifest.with_file_name("Cargo.lock"))?;
        Ok(Self {
            packages: by_id(&graph["packages"]),
            nodes: by_id(&graph["resolve"]["nodes"]),
            digests: digests(&lock),
        })
    }

    fn package(&self, name: &str) -> Result<&Value> {
        self.packages
            .values()
            .find(|package| package["name"] == name)
            .with_context(|| format!("no package is called {name}"))
    }

    /// What this package is compiled with, at whatever distance. What runs while it is compiled is not part of it.
    fn components(&self, of: &Value) -> Result<BTreeMap<String, Value>> {
        let mut found = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![of["id"].as_str().context("a package has an id")?];
        while let Some(id) = open.pop() {
            let package = self.packages.get(id).with_context(|| format!("cargo names {id} and says nothing of it"))?;
            if !seen.insert(id) || runs_in_the_compiler(package) {
                continue;
            }
            let (url, component) = self.component(package);
            found.insert(url, component);
            let needs = self.nodes.get(id).and_then(|node| node["deps"].as_array());
            for need in needs.into_iter().flatten() {
                let linked =
                    need["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|it| it["kind"].is_null()));
                open.extend(need["pkg"].as_str().filter(|_| linked));
            }
        }
        Ok(found)
    }

    fn component(&self, package: &Value) -> (String, Value) {
        let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
        let (name, version) = (text("name"), text("version"));
        let url = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
        let mut component = json!({ "type": "library", "name": name, "version": version, "purl": url });
        if let Some(license) = package["license"].as_str() {
            // An older way to write it.
            component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
        }
        if let Some(digest) = self.digests.get(&(name, version)) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
        }
        (url, component)
    }
}

fn runs_in_the_compiler(package: &Value) -> bool {
    let targets = package["targets"].as_array().into_iter().flatten();
    targets.flat_map(|target| target["kind"].as_array().into_iter().flatten()).any(|kind| kind == "proc-macro")
}

/// The digests of a lock file, by name and version. Cargo writes one field a line.
fn digests(lock: &str) -> BTreeMap<(String, String), String> {
    let package = |block: &str| {
        let field = |name: &str| {
            let value = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
            Some(value.trim_matches('"').to_owned())
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    };
    lock.split("[[package]]").filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_names_what_is_compiled_in_and_nothing_that_compiles_it() {
        let contents = of_agent("x86_64-unknown-linux-gnu").expect("cargo knows its own workspace");
        let bill: Value = serde_json::from_str(&contents.bill).expect("JSON");
        assert_eq!(bill["bomFormat"], "CycloneDX");
        let components = bill["components"].as_array().expect("a list");
        let there = |name: &str| components.iter().find(|it| it["name"] == name);
        for name in ["aya", "kube", "libbpf-sys", "sidetrack-splice", "aya-ebpf"] {
            assert!(there(name).is_some(), "{name}");
        }
        for name in ["serde_derive", "proptest", "cc"] {
            assert!(there(name).is_none(), "{name}");
        }
        let digest = there("aya").and_then(|it| it["hashes"][0]["content"].as_str()).expect("it comes from a registry");
        assert_eq!(digest.len(), 64);
    }

    #[test]
    fn digests_are_found_by_name_and_version() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\nchecksum = \"ab\"\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";
        assert_eq!(digests(lock), [(("a".to_owned(), "1.0.0".to_owned()), "ab".to_owned())].into());
    }
}
