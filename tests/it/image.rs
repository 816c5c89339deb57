//! `cargo image` as a process: reads the archives that it writes as a container engine does.
//!
//! The tests use OCI's image layout and the file of `docker load`. They do not build the programs,
//! and use small static files instead.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAMS: [&str; 3] = ["kubedns", "dnscache", "healthz"];
const IMAGES: [&str; 4] = ["kubedns", "dnscache", "healthz", "kube-dns"];

/// Returns an ELF program for that machine with one program header of that type.
fn program(name: &str, machine: u16, kind: u32) -> Vec<u8> {
    let mut file = vec![0; 64 + 56];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[54..56].copy_from_slice(&56_u16.to_le_bytes());
    file[56..58].copy_from_slice(&1_u16.to_le_bytes());
    file[64..68].copy_from_slice(&kind.to_le_bytes());
    file.extend(name.bytes());
    file
}

fn image(binaries: &Path, out: &Path, epoch: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_image"));
    command.arg("--binaries").arg(binaries).arg("--out").arg(out).env("SOURCE_DATE_EPOCH", epoch);
    command.output().unwrap()
}

/// Returns the files of an archive by path. Checks that each has the time 0 or `epoch`.
fn files(archive: &[u8], epoch: u64) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut last = String::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        assert!(last < path, "{last} before {path}: entries are sorted");
        let header = entry.header();
        assert_eq!(header.mtime().unwrap(), epoch, "{path}");
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0), "{path}");
        let is_program = PROGRAMS.contains(&&*path) || path.ends_with('/');
        assert_eq!(header.mode().unwrap(), if is_program { 0o755 } else { 0o644 }, "{path}");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        last.clone_from(&path);
        if !path.ends_with('/') {
            files.insert(path, bytes);
        }
    }
    files
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Returns the blob that a descriptor names. Checks its digest and size.
fn blob<'a>(archive: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let name = descriptor["digest"].as_str().unwrap();
    let blob = &archive[&format!("blobs/{}", name.replace(':', "/"))];
    assert_eq!(
        (digest(blob).as_str(), blob.len() as u64),
        (name, descriptor["size"].as_u64().unwrap())
    );
    blob
}

#[test]
fn archives_are_images_of_oci_and_of_docker_and_always_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for name in PROGRAMS {
        std::fs::write(folder.path().join(name), program(name, 62, 1)).unwrap();
    }
    let out = folder.path().join("out");
    let output = image(folder.path(), &out, "86400");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let table = String::from_utf8(output.stdout).unwrap();
    let again = folder.path().join("again");
    assert!(image(folder.path(), &again, "86400").status.success());
    for name in IMAGES {
        let bytes = std::fs::read(out.join(format!("{name}-amd64.tar"))).unwrap();
        assert!(bytes == std::fs::read(again.join(format!("{name}-amd64.tar"))).unwrap(), "{name}");
        assert!(table.contains(&digest(&bytes)), "{table}");
        let inside = if name == "kube-dns" { &PROGRAMS[..] } else { &[name] };
        check(name, inside, &files(&bytes, 86_400));
    }
    assert_eq!(table.lines().count(), IMAGES.len(), "{table}");
}

/// Checks that the archive of the image `name` holds `inside`, and that every file in it is
/// referenced.
fn check(name: &str, inside: &[&str], archive: &BTreeMap<String, Vec<u8>>) {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(json(&archive["oci-layout"])["imageLayoutVersion"], "1.0.0");
    let index = json(&archive["index.json"]);
    let [entry] = &index["manifests"].as_array().unwrap()[..] else { panic!("{index}") };
    assert_eq!(entry["platform"]["architecture"], "amd64");
    let reference = format!("{name}:{version}");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], *reference);
    let manifest = json(blob(archive, entry));
    let config = json(blob(archive, &manifest["config"]));
    let layers = manifest["layers"].as_array().unwrap();
    let mut content = BTreeMap::new();
    for (layer, id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
        // Layers are not compressed, so the digest of the archive is that of the layer.
        assert_eq!(layer["digest"], *id);
        content.extend(files(blob(archive, layer), 86_400));
    }
    assert_eq!(layers.len(), inside.len() + 1);
    assert_eq!(archive.len(), layers.len() + 5, "nothing else is in the archive");

    assert_eq!(config["config"]["User"], "65532:65532");
    let entrypoint = match inside {
        [program] => serde_json::json!([format!("/{program}")]),
        _ => Value::Null,
    };
    assert_eq!(config["config"]["Entrypoint"], entrypoint);
    assert_eq!(config["created"], "1970-01-02T00:00:00Z");
    let label = |key: &str| &config["config"]["Labels"][format!("org.opencontainers.image.{key}")];
    assert_eq!((label("title"), label("version")), (&name.into(), &version.into()));
    assert_eq!(label("licenses"), "Apache-2.0");
    assert_eq!(manifest["annotations"], config["config"]["Labels"]);

    let docker = json(&archive["manifest.json"]);
    assert_eq!(docker[0]["RepoTags"], serde_json::json!([reference]));
    let blobs = layers.iter().map(|layer| layer["digest"].as_str().unwrap().replace(':', "/"));
    let blobs: Vec<String> = blobs.map(|path| format!("blobs/{path}")).collect();
    assert_eq!(docker[0]["Layers"], serde_json::json!(blobs));
    assert_eq!(json(&archive[docker[0]["Config"].as_str().unwrap()]), config);

    let bundle = String::from_utf8_lossy(&content["etc/ssl/certs/ca-certificates.crt"]);
    assert!(bundle.matches("-----BEGIN CERTIFICATE-----").count() > 50);
    for program_name in inside {
        assert_eq!(content[*program_name], program(program_name, 62, 1));
        let sbom = json(&content[&format!("usr/share/doc/{program_name}/sbom.cdx.json")]);
        assert_eq!(sbom["metadata"]["component"]["name"], **program_name);
        let packages: Vec<&str> = sbom["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["name"].as_str().unwrap())
            .collect();
        for expected in ["shared", "tokio", "clap", "rust-std", "glibc"] {
            assert!(packages.contains(&expected), "{expected}: {packages:?}");
        }
        assert_eq!(packages.contains(&"kube-client"), *program_name == "kubedns");
        assert!(!packages.contains(&"tempfile"), "only tests use it");
        let hashed = sbom["components"].as_array().unwrap().iter();
        assert!(hashed.filter(|component| component["hashes"].is_array()).count() > 50);
    }
    assert_eq!(content.len(), 1 + 3 * inside.len());
}

#[test]
fn what_cannot_be_an_image_is_refused_in_one_line() {
    let check = |dnscache: Option<Vec<u8>>, part: &str| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["kubedns", "healthz"] {
            std::fs::write(folder.path().join(name), program(name, 62, 1)).unwrap();
        }
        if let Some(bytes) = dnscache {
            std::fs::write(folder.path().join("dnscache"), bytes).unwrap();
        }
        let output = image(folder.path(), &folder.path().join("out"), "0");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(part), "{part:?} is missing in {said}");
    };
    check(None, "cannot read");
    check(Some(program("dnscache", 62, 3)), "dnscache cannot be put into an image: it is linked");
    check(Some(program("dnscache", 183, 1)), "are for different architectures");
    check(Some(b"#!/bin/sh\n".to_vec()), "it is not a little-endian 64-bit ELF file");
}
