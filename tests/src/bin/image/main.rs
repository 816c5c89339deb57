//! `cargo image`: builds the three programs as static binaries and writes OCI image archives that
//! hold nothing else, without a daemon.
//!
//! ```text
//! build ─▶ elf ──┐
//! sbom ──────────┼─▶ content ─▶ layer ─▶ oci ─▶ NAME-ARCH.tar
//! certificates ──┘
//! ```

mod build;
mod certificates;
mod content;
mod elf;
mod flags;
mod layer;
mod oci;
mod sbom;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use crate::build::Toolchain;
use crate::content::{IMAGES, Image, PROGRAMS, Programs};
use crate::elf::Arch;
use crate::flags::Flags;
use crate::oci::Labels;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", shared::flags::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Why the images cannot be made.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The programs could not be built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// A program cannot be the only file of an image.
    #[error("{} cannot be put into an image", path.display())]
    Program { path: PathBuf, source: elf::Error },
    /// The programs of one image are for several kinds of machines.
    #[error("{} and the other programs are for different architectures", .0.display())]
    Mixed(PathBuf),
    /// The package metadata from cargo does not have the expected form.
    #[error("cannot list what is in the programs")]
    Sbom(#[from] sbom::Error),
    /// A file could not be read or written.
    #[error("cannot {act} {}", path.display())]
    File { act: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { act, path: path.to_owned(), source }
    }
}

fn run(flags: &Flags) -> Result<(), Error> {
    let toolchain = Toolchain::find()?;
    let out = flags.out.clone().unwrap_or_else(|| toolchain.target.join("images"));
    std::fs::create_dir_all(&out).map_err(Error::file("create", &out))?;
    if let Some(folder) = &flags.binaries {
        return write(&toolchain, &PROGRAMS.map(|name| folder.join(name)), &out, flags);
    }
    let profile = flags.profile.as_deref();
    for arch in flags.arches() {
        match toolchain.obstacle(arch) {
            Some(obstacle) if flags.arch.is_empty() => println!("{arch}: skipped, {obstacle}"),
            Some(obstacle) => return Err(build::Error::Obstacle { arch, obstacle }.into()),
            None => write(&toolchain, &toolchain.build(arch, profile)?, &out, flags)?,
        }
    }
    Ok(())
}

/// Writes the four archives with the programs at `paths` into `out`.
fn write(
    toolchain: &Toolchain,
    paths: &[PathBuf; PROGRAMS.len()],
    out: &Path,
    flags: &Flags,
) -> Result<(), Error> {
    let (arch, programs) = read(paths)?;
    let metadata = toolchain.metadata(arch)?;
    let (lock, glibc) = (toolchain.lock()?, toolchain.glibc(arch));
    let bom = sbom::Source {
        metadata: &metadata,
        lock: &lock,
        rust: &toolchain.rust,
        glibc: glibc.as_deref(),
        created: flags.created,
    };
    let mut parts = Vec::new();
    for (name, binary) in PROGRAMS.into_iter().zip(programs) {
        parts.push(content::Part { name, binary, sbom: bom.of(name)? });
    }
    let programs = Programs::new(&parts, &toolchain.licence()?, flags.created);
    for name in IMAGES {
        let labels = Labels {
            title: name,
            version: env!("CARGO_PKG_VERSION"),
            revision: toolchain.revision.as_deref(),
        };
        let image = Image { name, tag: &flags.tag, arch, created: flags.created, labels };
        let archive = oci::archive(&programs.image(&image));
        let path = out.join(format!("{name}-{arch}.tar"));
        std::fs::write(&path, &archive).map_err(Error::file("write", &path))?;
        let (size, digest) = (archive.len() as f64 / 1e6, oci::digest(&archive));
        let tag = image.reference();
        println!("{tag:<16} {arch}  {size:>5.1} MB  {}  {digest}", path.display());
    }
    Ok(())
}

/// Reads the programs at `paths`. Returns their architecture and their content.
fn read(paths: &[PathBuf; PROGRAMS.len()]) -> Result<(Arch, Vec<Vec<u8>>), Error> {
    let mut programs = Vec::new();
    let mut arches = Vec::new();
    for path in paths {
        let binary = std::fs::read(path).map_err(Error::file("read", path))?;
        let failed = |source| Error::Program { path: path.clone(), source };
        arches.push(elf::check(&binary).map_err(failed)?);
        programs.push(binary);
    }
    if arches.iter().any(|arch| *arch != arches[0]) {
        return Err(Error::Mixed(paths[0].clone()));
    }
    Ok((arches[0], programs))
}
