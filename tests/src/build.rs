//! Builds the programs with the cargo, profile and target directory this tool came from.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

/// Why there is nothing to start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system does not say where this program lies.
    #[error("cannot find out where this program lies")]
    OwnPath(#[source] io::Error),
    /// cargo cannot be started.
    #[error("cannot start {}", cargo.display())]
    Cargo {
        /// Which cargo.
        cargo: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// cargo has said why on standard error.
    #[error("the build failed ({0})")]
    Failed(ExitStatus),
}

/// Builds the three programs, cargo's progress on standard error; yields the directory they are in.
pub async fn programs() -> Result<PathBuf, Error> {
    programs_beside(&std::env::current_exe().map_err(Error::OwnPath)?).await
}

/// Does the same in the directory of `program`, another binary of the workspace.
pub async fn programs_beside(program: &Path) -> Result<PathBuf, Error> {
    // target/PROFILE/pod, whatever the target directory is called.
    let directory = program.parent().expect("a program lies in a directory").to_owned();
    let target = directory.parent().expect("cargo builds into target/PROFILE");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let mut command = Command::new(&cargo);
    // `cargo run` describes this program in them; build scripts would take that for a change.
    for (name, _) in std::env::vars_os().filter(|(name, _)| describes_a_package(name)) {
        command.env_remove(name);
    }
    let status = command
        .args(["build", "--manifest-path", MANIFEST, "--profile", profile])
        // The workspace chooses the features of what all share: nothing is built twice.
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
