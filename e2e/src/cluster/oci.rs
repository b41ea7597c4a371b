//! Images without Docker: an OCI layout with one layer, in a tar that `ctr`, `docker load` and `kind load` take.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Who a program in an image runs as when its pod does not say.
pub const USER: &str = "1337:1337";

/// How an image's program is started.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// `uid:gid`; root when empty.
    pub user: String,
    /// `NAME=value`.
    pub environment: Vec<String>,
}

/// The files of an image. Owned by root and without a time, so that the same files make the same image.
#[allow(missing_debug_implementations)]
pub struct Layer {
    archive: tar::Builder<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self { archive: tar::Builder::new(Vec::new()) }
    }
}

impl Layer {
    fn append(
        &mut self,
        kind: EntryType,
        path: &str,
        mode: u32,
        content: &[u8],
    ) -> anyhow::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        self.archive
            .append_data(&mut header, path.trim_start_matches('/'), content)
            .with_context(|| format!("{path} in the image"))
    }

    /// A file with this content.
    ///
    /// # Errors
    /// When the path does not fit into an archive.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        self.append(EntryType::Regular, path, mode, content)
    }

    /// A copy of a file of this machine.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn copy(&mut self, path: &str, mode: u32, source: &Path) -> anyhow::Result<()> {
        let content = fs::read(source).with_context(|| source.display().to_string())?;
        self.file(path, mode, &content)
    }

    /// A folder.
    ///
    /// # Errors
    /// When the path does not fit into an archive.
    pub fn folder(&mut self, path: &str, mode: u32) -> anyhow::Result<()> {
        self.append(EntryType::Directory, path, mode, &[])
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// When a path does not fit into an archive.
    pub fn link(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        header.set_mtime(0);
        self.archive
            .append_link(&mut header, path.trim_start_matches('/'), target)
            .with_context(|| format!("{path} in the image"))
    }
}

/// A blob of the layout, named by its hash.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: hash(&bytes), bytes }
    }

    fn of(value: &Value) -> anyhow::Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len() })
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The processor as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes an image's archive and returns its path and the size of the image as it is moved between machines.
///
/// # Errors
/// When the file cannot be written.
pub fn write(
    folder: &Path,
    reference: &str,
    settings: &Settings,
    layer: Layer,
) -> anyhow::Result<(PathBuf, usize)> {
    let plain = layer.archive.into_inner().context("an archive in memory")?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::new(6));
    packed.write_all(&plain)?;
    let layer = Blob::new(packed.finish()?);
    let config = Blob::of(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": settings.entrypoint,
            "User": settings.user,
            "Env": settings.environment,
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hash(&plain))] },
        "history": [{ "created_by": "weft-cluster images" }],
    }))?;
    let manifest = Blob::of(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(CONFIG),
        "layers": [layer.descriptor(LAYER)],
    }))?;
    let mut entry = manifest.descriptor(MANIFEST);
    entry["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    entry["annotations"] = json!({
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rsplit(':').next().unwrap_or("latest"),
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    let mut layout = Layer::default();
    layout.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    layout.file("index.json", 0o644, &serde_json::to_vec(&index)?)?;
    for blob in [&layer, &config, &manifest] {
        layout.file(&format!("blobs/sha256/{}", blob.digest), 0o644, &blob.bytes)?;
    }
    let path = folder.join(format!("{}.tar", file_name(reference)));
    let partial = path.with_added_extension("partial");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&partial, layout.archive.into_inner()?))
        .and_then(|()| fs::rename(&partial, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok((path, layer.bytes.len() + config.bytes.len() + manifest.bytes.len()))
}

/// `docker.io/weft/proxy:dev` is in `proxy.tar`.
fn file_name(reference: &str) -> &str {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.split(':').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::BTreeMap, io::Read};

    use flate2::read::GzDecoder;

    use super::*;

    fn entries(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (path, content)
        });
        entries.collect()
    }

    fn sample() -> Layer {
        let mut layer = Layer::default();
        layer.folder("/tmp", 0o1777).unwrap();
        layer.file("/usr/local/bin/it", 0o755, b"program").unwrap();
        layer.link("/bin/it", "/usr/local/bin/it").unwrap();
        layer
    }

    #[test]
    fn what_the_index_names_is_in_the_archive_under_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            Settings { entrypoint: vec!["/usr/local/bin/it".into()], ..Settings::default() };
        let (path, _) = write(folder.path(), "docker.io/weft/it:dev", &settings, sample()).unwrap();
        assert!(path.ends_with("it.tar"));
        let files = entries(&fs::read(path).unwrap());
        let blob = |digest: &Value| {
            let digest = digest.as_str().unwrap().trim_start_matches("sha256:").to_owned();
            let bytes = files[&format!("blobs/sha256/{digest}")].clone();
            assert_eq!(hash(&bytes), digest);
            bytes
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "docker.io/weft/it:dev");
        let manifest: Value = serde_json::from_slice(&blob(&entry["digest"])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/local/bin/it");
        let packed = blob(&manifest["layers"][0]["digest"]);
        let mut plain = Vec::new();
        GzDecoder::new(packed.as_slice()).read_to_end(&mut plain).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hash(&plain)));
        assert_eq!(entries(&plain)["usr/local/bin/it"], b"program");
    }

    #[test]
    fn the_same_files_make_the_same_image() {
        let folder = tempfile::tempdir().unwrap();
        let make = || {
            let (path, _) =
                write(folder.path(), "docker.io/weft/it:dev", &Settings::default(), sample())
                    .unwrap();
            fs::read(path).unwrap()
        };
        assert_eq!(make(), make());
    }
}
