//! Builds the programs with the cargo, profile and target directory that this tool was built with.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

/// Why the programs cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path of this program cannot be read.
    #[error("cannot find out where this program lies")]
    OwnPath(#[source] io::Error),
    /// cargo cannot be started.
    #[error("cannot start {}", cargo.display())]
    Cargo {
        /// Its path.
        cargo: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// cargo failed. It wrote the reason to standard error.
    #[error("the build failed ({0})")]
    Failed(ExitStatus),
}

/// Builds the three programs and returns their directory. Cargo writes its progress to standard
/// error.
pub async fn programs() -> Result<PathBuf, Error> {
    programs_beside(&std::env::current_exe().map_err(Error::OwnPath)?).await
}

/// Builds them in the target directory of `program`, another binary of the workspace.
pub async fn programs_beside(program: &Path) -> Result<PathBuf, Error> {
    // The path ends in PROFILE/pod. The target directory may have any name.
    let directory = program.parent().expect("a program lies in a directory").to_owned();
    let target = directory.parent().expect("cargo builds into target/PROFILE");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let mut command = Command::new(&cargo);
    // `cargo run` describes this program in these variables. Build scripts would treat them as a
    // change.
    for (name, _) in std::env::vars_os().filter(|(name, _)| describes_a_package(name)) {
        command.env_remove(name);
    }
    let status = command
        .args(["build", "--manifest-path", MANIFEST, "--profile", profile])
        // The whole workspace decides the features of shared packages, so that each is built once.
        .args(["--workspace", "--bin", "kubedns", "--bin", "dnscache", "--bin", "healthz"])
        .arg("--target-dir")
        .arg(target)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|source| Error::Cargo { cargo, source })?;
    if status.success() { Ok(directory) } else { Err(Error::Failed(status)) }
}

fn describes_a_package(variable: &OsStr) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    prefixes.iter().any(|prefix| variable.to_string_lossy().starts_with(prefix))
}

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
