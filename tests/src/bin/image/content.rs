//! The content of each image: a layer with certificates, and one layer for each program with its
//! bill of materials. Images share layers.
//!
//! Core.

use jiff::Timestamp;

use crate::certificates;
use crate::elf::Arch;
use crate::layer::{self, File, Files};
use crate::oci::{Built, Labels};

/// The programs, and the images that hold one each.
pub const PROGRAMS: [&str; 3] = ["kubedns", "dnscache", "healthz"];
/// The image with all programs.
const ALL: &str = "kube-dns";
/// All images.
pub const IMAGES: [&str; 4] = ["kubedns", "dnscache", "healthz", ALL];

/// A program and what describes it.
pub struct Part {
    /// Its name, which is its path in the image.
    pub name: &'static str,
    /// The static binary.
    pub binary: Vec<u8>,
    /// Its bill of materials, as CycloneDX.
    pub sbom: String,
}

/// An image to make.
pub struct Image<'i> {
    /// One of [`IMAGES`].
    pub name: &'static str,
    /// Its tag.
    pub tag: &'i str,
    /// The architecture that it runs on.
    pub arch: Arch,
    /// The creation time that is written into the image.
    pub created: Timestamp,
    /// Its labels.
    pub labels: Labels<'i>,
}

impl Image<'_> {
    /// Returns the name and tag.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }
}

/// The layers that images are made of.
pub struct Programs {
    certificates: Vec<u8>,
    /// In the order of [`PROGRAMS`].
    layers: Vec<Vec<u8>>,
}

impl Programs {
    /// Makes the layers of `parts`, which must be in the order of [`PROGRAMS`], with the time
    /// `created`.
    pub fn new(parts: &[Part], licence: &[u8], created: Timestamp) -> Self {
        let bundle = certificates::bundle();
        let trusted =
            Files::from([(certificates::PATH.to_owned(), File::plain(bundle.as_bytes()))]);
        let of_part = |part: &Part| {
            let name = part.name;
            let about = |file: &str| format!("usr/share/doc/{name}/{file}");
            let files = Files::from([
                (name.to_owned(), File { mode: 0o755, bytes: &part.binary }),
                (about("LICENSE"), File::plain(licence)),
                (about("sbom.cdx.json"), File::plain(part.sbom.as_bytes())),
            ]);
            layer::tar(&files, created)
        };
        Self {
            certificates: layer::tar(&trusted, created),
            layers: parts.iter().map(of_part).collect(),
        }
    }

    /// Returns `image` with its layers. The image of one program runs it. The image of all programs
    /// runs the given command, such as `kubedns`.
    pub fn image<'p>(&'p self, image: &'p Image<'p>) -> Built<'p> {
        let programs = PROGRAMS.iter().zip(&self.layers);
        let inside = programs.filter(|(name, _)| image.name == ALL || image.name == **name);
        let mut layers = vec![("certificates", &*self.certificates)];
        layers.extend(inside.map(|(name, layer)| (*name, &**layer)));
        let entrypoint = PROGRAMS.contains(&image.name).then(|| format!("/{}", image.name));
        Built { image, layers, entrypoint }
    }
}
