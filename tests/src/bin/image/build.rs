//! Builds static binaries with cargo, and asks cargo, rustc and git about the source.
//!
//! Edge: starts programs. It must not depend on images.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::content::PROGRAMS;
use crate::elf::Arch;

/// Why the binaries cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program cannot be started.
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    /// A program failed. It wrote the reason to standard error.
    #[error("{} failed ({status})", program.display())]
    Failed { program: PathBuf, status: ExitStatus },
    /// The output of a program is not valid JSON.
    #[error("cannot read what `cargo metadata` wrote")]
    Metadata(#[source] serde_json::Error),
    /// `cargo metadata` or `rustc -vV` lacks a line.
    #[error("{0} is missing in the output of the toolchain")]
    Missing(&'static str),
    /// This machine cannot build for a requested architecture.
    #[error("cannot build for {arch}: {obstacle}")]
    Obstacle { arch: Arch, obstacle: String },
    /// A file of the source cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// The toolchain and the workspace that it builds.
pub struct Toolchain {
    cargo: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// The version of rustc.
    pub rust: String,
    /// The directory with the libraries of rustc.
    sysroot: PathBuf,
    /// The commit of the source, with `-dirty` if files differ from it; `None` without git.
    pub revision: Option<String>,
}

impl Toolchain {
    /// Finds the toolchain that started this program, or else the one on the PATH.
    pub fn find() -> Result<Self, Error> {
        let cargo = PathBuf::from(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let rustc = PathBuf::from(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let version = output(Command::new(&rustc).arg("-vV"))?;
        let rust = version.lines().find_map(|line| line.strip_prefix("release: "));
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let metadata = metadata(&cargo, &["--no-deps"])?;
        let target = metadata["target_directory"].as_str().ok_or(Error::Missing("the target"))?;
        let describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
        let mut git = Command::new("git");
        git.arg("-C").arg(root()).args(describe).stderr(Stdio::null());
        Ok(Self {
            cargo,
            target: target.into(),
            rust: rust.ok_or(Error::Missing("the release of rustc"))?.to_owned(),
            sysroot: sysroot.trim().into(),
            revision: output(&mut git).ok().map(|commit| commit.trim().to_owned()),
        })
    }

    /// Returns why this machine cannot build for `arch`, or `None` if it can.
    pub fn obstacle(&self, arch: Arch) -> Option<String> {
        let target = arch.target();
        if !self.sysroot.join("lib/rustlib").join(target).join("lib").is_dir() {
            return Some(format!("the toolchain has no {target}: `rustup target add {target}`"));
        }
        let linker = linker(arch)?;
        let path = env::var_os("PATH").unwrap_or_default();
        let mut places = env::split_paths(&path);
        let is_there = places.any(|place| place.join(&linker).is_file());
        (!is_there).then(|| format!("there is no linker {linker} on the PATH"))
    }

    /// Builds the programs for `arch` with `profile`, or each with its own, and returns their files
    /// in the order of [`PROGRAMS`]. Cargo writes its progress to standard error.
    pub fn build(
        &self,
        arch: Arch,
        profile: Option<&str>,
    ) -> Result<[PathBuf; PROGRAMS.len()], Error> {
        let profile_of =
            |name| profile.unwrap_or(if name == "healthz" { "small" } else { "release" });
        let profiles = BTreeSet::from(PROGRAMS.map(profile_of));
        for profile in profiles {
            let programs = PROGRAMS.into_iter().filter(|name| profile_of(name) == profile);
            self.build_with(arch, profile, programs)?;
        }
        Ok(PROGRAMS.map(|name| {
            let profile = profile_of(name);
            let folder = if profile == "dev" { "debug" } else { profile };
            self.target.join(arch.target()).join(folder).join(name)
        }))
    }

    fn build_with<'p>(
        &self,
        arch: Arch,
        profile: &str,
        programs: impl Iterator<Item = &'p str>,
    ) -> Result<(), Error> {
        let target = arch.target();
        let mut command = cargo_command(&self.cargo);
        command.args(["build", "--locked", "--profile", profile, "--target", target]);
        command.args(programs.flat_map(|name| ["--package", name]));
        command.arg("--target-dir").arg(&self.target);
        command.env("CARGO_ENCODED_RUSTFLAGS", flags());
        if let Some(linker) = linker(arch) {
            let variable = target.replace('-', "_");
            command.env(format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()), &linker);
            command.env(format!("CC_{variable}"), &linker);
        }
        let status = command.status();
        let status =
            status.map_err(|source| Error::Start { program: self.cargo.clone(), source })?;
        if !status.success() {
            return Err(Error::Failed { program: self.cargo.clone(), status });
        }
        Ok(())
    }

    /// Returns the metadata of the packages, as cargo resolves them for `arch`.
    pub fn metadata(&self, arch: Arch) -> Result<Value, Error> {
        metadata(&self.cargo, &["--filter-platform", arch.target()])
    }

    /// Returns the text of Cargo.lock.
    pub fn lock(&self) -> Result<String, Error> {
        let path = root().join("Cargo.lock");
        std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })
    }

    /// Returns the licence of the source.
    pub fn licence(&self) -> Result<Vec<u8>, Error> {
        let path = root().join("LICENSE");
        std::fs::read(&path).map_err(|source| Error::Read { path, source })
    }

    /// Returns the version of this machine's C library, or `None` if binaries for `arch` get
    /// another one.
    pub fn glibc(&self, arch: Arch) -> Option<String> {
        if linker(arch).is_some() {
            return None;
        }
        let version = output(Command::new("getconf").arg("GNU_LIBC_VERSION")).ok()?;
        Some(version.trim().strip_prefix("glibc ")?.to_owned())
    }
}

/// Returns the linker for `arch`, which can compile C too, or `None` for the linker of this
/// machine.
fn linker(arch: Arch) -> Option<String> {
    let machine = match arch {
        Arch::Amd64 => "x86_64",
        Arch::Arm64 => "aarch64",
    };
    (machine != env::consts::ARCH).then(|| format!("{machine}-linux-gnu-gcc"))
}

/// Returns the flags for static linking with relocations that take little room, and for paths in
/// messages that do not depend on where the source and cargo's home are.
fn flags() -> OsString {
    let mut flags = OsString::from("-C\x1ftarget-feature=+crt-static");
    flags.push("\x1f-C\x1flink-arg=-Wl,-z,pack-relative-relocs");
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    for (from, to) in cargo_home.into_iter().map(|home| (home, "/cargo")).chain([(root(), "/src")])
    {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(from);
        flags.push(format!("={to}"));
    }
    flags
}

fn metadata(cargo: &Path, flags: &[&str]) -> Result<Value, Error> {
    let mut command = cargo_command(cargo);
    command.args(["metadata", "--locked", "--format-version", "1"]).args(flags);
    serde_json::from_str(&output(&mut command)?).map_err(Error::Metadata)
}

/// Returns the command `cargo` in the workspace, without the variables in which `cargo run`
/// describes this program: build scripts would treat them as a change.
fn cargo_command(cargo: &Path) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(root()).stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Returns what `command` writes to standard output. Fails if the command fails.
fn output(command: &mut Command) -> Result<String, Error> {
    let program = || PathBuf::from(command.get_program());
    let program = program();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| Error::Start { program: program.clone(), source })?;
    if !output.status.success() {
        return Err(Error::Failed { program, status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the folder of the workspace.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the package lies in the workspace").to_owned()
}
