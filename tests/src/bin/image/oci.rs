//! An image as an archive: OCI image layout 1.0 (opencontainers/image-spec, `image-layout.md`,
//! `config.md`, `manifest.md`), with the file `manifest.json` that `docker load` reads.
//!
//! Core.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::content::Image;
use crate::layer::{self, File, Files};

/// The labels of an image: `org.opencontainers.image.*`.
pub struct Labels<'l> {
    /// The name.
    pub title: &'l str,
    /// The version.
    pub version: &'l str,
    /// The commit; `None` if the source is not under version control.
    pub revision: Option<&'l str>,
}

/// An image with its layers.
pub struct Built<'b> {
    /// Its description.
    pub image: &'b Image<'b>,
    /// The name and the tar archive of each layer.
    pub layers: Vec<(&'b str, &'b [u8])>,
    /// The program that it runs. If it is `None`, the command must name the program.
    pub entrypoint: Option<String>,
}

/// Returns the whole archive: the same bytes for the same image.
pub fn archive(built: &Built<'_>) -> Vec<u8> {
    let image = built.image;
    let config = config(built).to_string();
    let mut blobs: BTreeMap<String, &[u8]> = BTreeMap::new();
    let mut layers = Vec::new();
    for (_, bytes) in &built.layers {
        layers.push(descriptor("application/vnd.oci.image.layer.v1.tar", bytes));
        blobs.insert(blob(bytes), bytes);
    }
    blobs.insert(blob(config.as_bytes()), config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": layers,
        "annotations": labels(built),
    })
    .to_string();
    blobs.insert(blob(manifest.as_bytes()), manifest.as_bytes());
    let mut entry = descriptor(MANIFEST, manifest.as_bytes());
    entry["platform"] = json!({"architecture": image.arch.to_string(), "os": "linux"});
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": image.reference()});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    let paths: Vec<String> = built.layers.iter().map(|(_, bytes)| blob(bytes)).collect();
    let docker = json!([{
        "Config": blob(config.as_bytes()),
        "RepoTags": [image.reference()],
        "Layers": paths,
    }])
    .to_string();

    let mut files: Files<'_> =
        blobs.into_iter().map(|(path, bytes)| (path, File::plain(bytes))).collect();
    files.insert("oci-layout".to_owned(), File::plain(b"{\"imageLayoutVersion\":\"1.0.0\"}"));
    files.insert("index.json".to_owned(), File::plain(index.as_bytes()));
    files.insert("manifest.json".to_owned(), File::plain(docker.as_bytes()));
    layer::tar(&files, image.created)
}

/// Returns the configuration: how the image is run, and the digests of its layers.
fn config(built: &Built<'_>) -> Value {
    let image = built.image;
    let created = image.created.to_string();
    let of_layer = |(holds, _): &(&str, &[u8])| {
        let by = format!("cargo image: {holds}");
        json!({"created": created, "created_by": by})
    };
    let mut config = json!({
        "architecture": image.arch.to_string(),
        "os": "linux",
        "created": created,
        "config": {
            "User": USER,
            "WorkingDir": "/",
            "Env": ["PATH=/"],
            "Labels": labels(built),
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": built.layers.iter().map(|(_, bytes)| digest(bytes)).collect::<Vec<_>>(),
        },
        "history": built.layers.iter().map(of_layer).collect::<Vec<_>>(),
    });
    if let Some(program) = &built.entrypoint {
        config["config"]["Entrypoint"] = json!([program]);
    }
    config
}

fn labels(built: &Built<'_>) -> Value {
    let Labels { title, version, revision } = built.image.labels;
    let mut labels = json!({
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.description": "Cluster DNS for Kubernetes",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        "org.opencontainers.image.created": built.image.created.to_string(),
    });
    if let Some(revision) = revision {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    labels
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// Returns the path of a blob with that content.
fn blob(bytes: &[u8]) -> String {
    format!("blobs/{}", digest(bytes).replace(':', "/"))
}

/// Returns `sha256:` and the SHA-256 of `bytes` in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    std::iter::once("sha256:".to_owned()).chain(hex).collect()
}

/// The user that images run as. It has no name, because the images contain no list of users.
const USER: &str = "65532:65532";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_other_tools() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
        assert_eq!(blob(b""), empty.replace("sha256:", "blobs/sha256/"));
    }
}
