//! Images of containers, as OCI archives: a tar of an image layout, which containerd, podman and Docker load. The same content is
//! the same archive, byte for byte: sorted, owned by root, with one time for all, and a compressor that says nothing of when it ran.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where `cargo xtask image` writes archives unless it is told.
#[must_use]
pub fn dir() -> PathBuf {
    crate::root().join("target/image")
}

/// The name of the agent's archive for a processor, as Go calls it.
#[must_use]
pub fn file_name(architecture: &str) -> String {
    format!("sidetrack-{architecture}.tar")
}

/// This machine's processor, as Go calls it.
#[must_use]
pub fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Files of an image, by their paths without the leading slash. Directories above them are made.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    files: BTreeMap<String, (u32, Vec<u8>)>,
    directories: BTreeMap<String, u32>,
}

/// An image.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Its names, each with a tag: `localhost/sidetrack:0.1.0`.
    pub names: Vec<String>,
    /// The processor that it is for, as Go calls it.
    pub architecture: String,
    /// The program that it runs.
    pub entrypoint: Vec<String>,
    /// The program's arguments, where a pod gives none.
    pub arguments: Vec<String>,
    /// Who runs it, where a pod does not say: `uid:gid`.
    pub user: String,
    /// What is said of it.
    pub labels: BTreeMap<String, String>,
    /// When it was made, in seconds since 1970: of all its files, too.
    pub made: u64,
    /// What is in it.
    pub layers: Vec<Layer>,
    /// Its layers are not compressed: it stays on this machine.
    pub plain: bool,
}

impl Layer {
    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: Vec<u8>) -> Self {
        self.files.insert(path.trim_start_matches('/').to_owned(), (mode, content));
        self
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.directories.insert(path.trim_matches('/').to_owned(), mode);
        self
    }

    /// Its tar.
    fn tar(&self, made: u64) -> Result<Vec<u8>> {
        let mut directories = self.directories.clone();
        for path in self.files.keys().chain(self.directories.keys()) {
            for (end, _) in path.match_indices('/') {
                directories.entry(path[..end].to_owned()).or_insert(0o755);
            }
        }
        let mut tar = tar::Builder::new(Vec::new());
        for (path, mode) in directories {
            put(&mut tar, &format!("{path}/"), tar::EntryType::Directory, mode, made, &[])?;
        }
        for (path, (mode, content)) in &self.files {
            put(&mut tar, path, tar::EntryType::Regular, *mode, made, content)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn put(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    time: u64,
    content: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).with_context(|| format!("{path} cannot be put into a tar"))
}

/// `sha256:...`, by which an image layout names what it holds.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    let bytes = Sha256::digest(content);
    bytes.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// What an archive holds, by its digest.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    /// Takes it in; how others refer to it.
    fn add(&mut self, kind: &str, content: Vec<u8>) -> Value {
        let digest = digest(&content);
        let descriptor = json!({ "mediaType": kind, "digest": digest, "size": content.len() });
        self.0.insert(digest, content);
        descriptor
    }

    fn add_json(&mut self, kind: &str, content: &Value) -> Value {
        self.add(kind, content.to_string().into_bytes())
    }
}

impl Image {
    /// Writes the archive; the digest of the image.
    ///
    /// # Errors
    /// When it has no name, or cannot be written.
    pub fn write(&self, archive: &Path) -> Result<String> {
        let (tar, digest) = self.archive()?;
        let dir = archive.parent().context("an archive lies in a directory")?;
        fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        // Whoever reads it meanwhile has the old one, whole.
        let fresh = archive.with_extension("new");
        fs::write(&fresh, tar)
            .and_then(|()| fs::rename(&fresh, archive))
            .with_context(|| format!("{} cannot be written", archive.display()))?;
        Ok(digest)
    }

    fn archive(&self) -> Result<(Vec<u8>, String)> {
        ensure!(!self.names.is_empty(), "an image needs a name");
        let mut blobs = Blobs::default();
        let (mut layers, mut contents) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            let tar = layer.tar(self.made)?;
            contents.push(digest(&tar));
            if self.plain {
                layers.push(blobs.add(LAYER, tar));
                continue;
            }
            let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
            gzip.write_all(&tar)?;
            layers.push(blobs.add(&format!("{LAYER}+gzip"), gzip.finish()?));
        }
        let config = blobs.add_json(CONFIG, &self.config(&contents)?);
        let manifest = blobs.add_json(
            MANIFEST,
            &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": self.labels }),
        );
        let named = |name: &String| {
            let mut one = manifest.clone();
            let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
            one["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
            one["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
            one
        };
        let manifests = self.names.iter().map(named).collect::<Vec<_>>();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });

        let mut tar = tar::Builder::new(Vec::new());
        let mut file =
            |path: &str, content: &[u8]| put(&mut tar, path, tar::EntryType::Regular, 0o644, self.made, content);
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        file("index.json", index.to_string().as_bytes())?;
        for (digest, content) in &blobs.0 {
            file(&format!("blobs/{}", digest.replace(':', "/")), content)?;
        }
        let digest = manifest["digest"].as_str().context("a descriptor has a digest")?.to_owned();
        Ok((tar.into_inner()?, digest))
    }

    fn config(&self, contents: &[String]) -> Result<Value> {
        let made = made(self.made).context("the time is beyond what a calendar has")?;
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Ok(json!({
            "created": made,
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "User": self.user,
                "Entrypoint": self.entrypoint,
                "Cmd": self.arguments,
                "Env": [path],
                "Labels": self.labels,
            },
            "rootfs": { "type": "layers", "diff_ids": contents },
            "history": contents.iter().map(|_| json!({ "created": made, "created_by": "cargo xtask image" })).collect::<Vec<_>>(),
        }))
    }
}

/// A time as RFC 3339 writes it.
fn made(seconds: u64) -> Option<String> {
    let time = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let program = Layer::default().file("/bin/sidetrack", 0o755, b"program".to_vec()).directory("tmp", 0o1777);
        Image {
            names: vec!["localhost/one:1".into(), "localhost/two:2".into()],
            architecture: "amd64".into(),
            entrypoint: vec!["/bin/sidetrack".into()],
            labels: [("org.opencontainers.image.title".to_owned(), "one".to_owned())].into(),
            layers: vec![program, Layer::default().file("etc/a", 0o644, vec![1; 3000])],
            ..Image::default()
        }
    }

    /// The archive's files.
    fn read(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().expect("it is a tar");
        let file = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.expect("whole");
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).expect("whole");
            (entry.path().expect("a path").to_string_lossy().into_owned(), content)
        };
        entries.map(file).collect()
    }

    #[test]
    fn the_same_content_is_the_same_archive() {
        let (one, digest) = image().archive().expect("it is complete");
        let (two, _) = image().archive().expect("it is complete");
        assert_eq!(one, two);
        let later = Image { made: 1, ..image() };
        assert_ne!(later.archive().expect("it is complete").1, digest);
    }

    #[test]
    fn what_an_archive_refers_to_is_in_it_by_its_digest() {
        let (archive, of_image) = image().archive().expect("it is complete");
        let files = read(&archive);
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().expect("a digest");
            let content = files[&format!("blobs/{}", name.replace(':', "/"))].clone();
            assert_eq!(digest(&content), name);
            assert_eq!(descriptor["size"], content.len());
            content
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let index = json(&files["index.json"]);
        assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
        assert_eq!(index["manifests"][1]["annotations"]["io.containerd.image.name"], "localhost/two:2");
        assert_eq!(index["manifests"][0]["digest"], of_image.as_str());
        let manifest = json(&blob(&index["manifests"][0]));
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["created"], "1970-01-01T00:00:00Z");
        let mut paths = Vec::new();
        for (layer, content) in manifest["layers"]
            .as_array()
            .expect("layers")
            .iter()
            .zip(config["rootfs"]["diff_ids"].as_array().expect("digests"))
        {
            let mut tar = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&blob(layer)[..]), &mut tar).expect("gzip");
            assert_eq!(*content, digest(&tar));
            paths.extend(read(&tar).into_keys());
        }
        assert_eq!(paths, ["bin/", "bin/sidetrack", "tmp/", "etc/", "etc/a"]);
    }
}
