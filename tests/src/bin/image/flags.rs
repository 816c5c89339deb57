//! The flags of `cargo image`.

use std::path::PathBuf;

use clap::Parser;
use jiff::Timestamp;

use crate::elf::Arch;

/// Builds kubedns, dnscache and healthz as static binaries and writes OCI images that hold nothing
/// else: one for each program, and kube-dns with all three. `podman load` and `docker load` take
/// the files. No daemon is needed. The same source gives the same bytes.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo image", version)]
pub struct Flags {
    /// Directory for the archives NAME-ARCH.tar [default: images in cargo's target directory]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Profile of cargo; pod is faster to build than release, and larger [default: release, and
    /// small for healthz]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,

    /// Architecture (repeatable): amd64, arm64 [default: both; one that has no linker on this
    /// machine is skipped]
    #[arg(long, value_name = "ARCH", value_parser = arch)]
    pub arch: Vec<Arch>,

    /// Directory with static binaries of the three programs, which are taken instead of a build
    /// [default: none]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["arch", "profile"])]
    pub binaries: Option<PathBuf>,

    /// Tag of the images: 1 to 128 of A-Z, a-z, 0-9, "_", "." and "-", not "." or "-" first
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"), value_parser = tag)]
    pub tag: String,

    /// The time of all files and of the images, in seconds since 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", default_value = "0",
        value_parser = created)]
    pub created: Timestamp,
}

impl Flags {
    /// Returns the architectures to build for.
    pub fn arches(&self) -> Vec<Arch> {
        if self.arch.is_empty() { Arch::ALL.to_vec() } else { self.arch.clone() }
    }
}

fn arch(text: &str) -> Result<Arch, String> {
    let found = Arch::ALL.into_iter().find(|arch| arch.to_string() == text);
    found.ok_or_else(|| "expected amd64 or arm64".to_owned())
}

/// Parses a tag by the rules of the OCI distribution specification.
fn tag(text: &str) -> Result<String, String> {
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || "_.-".contains(char);
    let is_tag = (1..=128).contains(&text.len()) && text.chars().all(is_allowed);
    if !is_tag || text.starts_with(['.', '-']) {
        return Err("expected 1 to 128 of A-Z, a-z, 0-9, _, . and -".to_owned());
    }
    Ok(text.to_owned())
}

fn created(text: &str) -> Result<Timestamp, String> {
    let time = text.parse::<u32>().ok().and_then(|secs| Timestamp::from_second(secs.into()).ok());
    time.ok_or_else(|| format!("expected whole seconds, 0 to {}", u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_flags_say_what_is_allowed() {
        let rows: [(&[&str], &str); 6] = [
            (&["--tag=a b"], "expected 1 to 128 of"),
            (&["--tag=.a"], "expected 1 to 128 of"),
            (&["--arch=s390x"], "expected amd64 or arm64"),
            (&["--created=-1"], "expected whole seconds, 0 to 4294967295"),
            (&["--created=today"], "expected whole seconds"),
            (&["--binaries=a", "--arch=arm64"], "cannot be used with"),
        ];
        for (arguments, expected) in rows {
            let arguments = [&["image"], arguments].concat();
            let error = Flags::try_parse_from(arguments).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected} is missing in {error}");
        }
    }
}
