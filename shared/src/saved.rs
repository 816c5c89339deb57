//! Files that a program writes for its next start: complete and unchanged, or not used at all.
//!
//! Edge. `frame` and `bytes` are core: the frame with its checksum, and numbers in its content.
//!
//! ```text
//! write: .NAME.infix.part ─ content, fsync, rename ─▶ NAME
//! ```

pub mod bytes;
pub mod frame;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::clock::boot_time;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It does not exist.
    #[error("there is none")]
    Missing,
    /// The system reports an error.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// It is too long.
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}", path.display())]
pub struct WriteError {
    act: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Returns the content of the file at `path`, if it has at most `len_max` bytes.
pub fn read(path: &Path, len_max: u64) -> Result<Vec<u8>, ReadError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ReadError::Missing,
        _ => ReadError::Read(error),
    })?;
    let mut bytes = Vec::new();
    let read = file.take(len_max + 1).read_to_end(&mut bytes).map_err(ReadError::Read)?;
    if read as u64 > len_max { Err(ReadError::TooLong(len_max)) } else { Ok(bytes) }
}

/// Has `fill` write a file next to `path`, and renames it after it is complete and on the disk.
/// Returns the result of `fill`.
pub fn write<R>(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<R>,
) -> Result<R, WriteError> {
    let infix = u64::from(std::process::id()) << 40 ^ boot_time().nanos();
    let part = beside(path, &format!("{infix:016x}"));
    let failed = |act| {
        let path = part.clone();
        move |source| WriteError { act, path, source }
    };
    let written = (|| {
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&part).map_err(failed("create"))?;
        let filled = fill(&mut file).map_err(failed("write"))?;
        file.sync_all().map_err(failed("sync"))?;
        fs::rename(&part, path).map_err(failed("rename"))?;
        Ok(filled)
    })();
    match written {
        Err(_) => drop(fs::remove_file(&part)), // the first failure is reported
        Ok(_) => {
            // The new name is durable once its directory is on the disk; until then the old file
            // is.
            let directory = File::open(directory(path));
            directory.and_then(|directory| directory.sync_all()).map_err(failed("sync"))?;
        }
    }
    written
}

/// Removes files of a process that was killed while it wrote `path`.
pub fn remove_leftovers(path: &Path) {
    let first = beside(path, "");
    let first = first.file_name().unwrap_or_default().to_string_lossy();
    let first = first.trim_end_matches(PART);
    for entry in fs::read_dir(directory(path)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let middle = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(PART));
        if middle.is_some_and(|middle| middle.len() == 16) {
            drop(fs::remove_file(entry.path())); // a file that cannot be removed does no harm
        }
    }
}

/// Returns the name `.NAME.infix.part` in the directory of `path`.
fn beside(path: &Path, infix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{infix}{PART}"))
}

fn directory(path: &Path) -> &Path {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// The end of the name of a file that is being written.
const PART: &str = ".part";
