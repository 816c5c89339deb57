//! Which files of a directory contain objects, and which of them have changed.
//!
//! Edge. A directory can contain any entry: if one is not a plain file, it is reported and skipped.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::ObjectsError;
use super::document::Format;

/// The files at a path; equal values mean equal contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Plain files, in the order of their names.
    pub files: Vec<Stamp>,
    /// Entries that have the name of such a file but cannot be read, and why.
    pub odd: Vec<(PathBuf, String)>,
}

/// The current state of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub path: PathBuf,
    len: u64,
    pub modified: SystemTime,
}

impl Found {
    /// Finds the files at `path`, a plain file or a directory.
    ///
    /// Fails if `path` itself is neither or cannot be read, and if its files are larger than
    /// `len_max` bytes together.
    pub fn at(path: &Path, len_max: u64) -> Result<Self, ObjectsError> {
        let failed = |source| ObjectsError::Read { path: path.to_owned(), source };
        let metadata = path.metadata().map_err(failed)?;
        let mut paths = Vec::new();
        if metadata.is_dir() {
            for entry in path.read_dir().map_err(failed)? {
                let file = entry.map_err(failed)?.path();
                let name = file.file_name().unwrap_or_default();
                if format(&file).is_some() && !name.as_encoded_bytes().starts_with(b".") {
                    paths.push(file);
                }
            }
            paths.sort();
        } else if metadata.is_file() {
            paths.push(path.to_owned());
        } else {
            let text = "neither a plain file nor a directory";
            return Err(failed(Error::new(ErrorKind::InvalidInput, text)));
        }
        let (mut found, mut len) = (Self::default(), 0);
        for path in paths {
            match stamp(&path) {
                Ok(stamp) => {
                    len += stamp.len;
                    if len > len_max {
                        return Err(ObjectsError::TooLarge { path });
                    }
                    found.files.push(stamp);
                }
                // It was removed after it was listed, such as a file that an editor replaces.
                Err(error)
                    if error.kind() == ErrorKind::NotFound && path.symlink_metadata().is_err() => {}
                Err(error) => found.odd.push((path, error.to_string())),
            }
        }
        Ok(found)
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a plain file"));
    }
    let modified = metadata.modified()?;
    Ok(Stamp { path: path.to_owned(), len: metadata.len(), modified })
}

/// Returns the format of the file, by its name.
pub(super) fn format(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}
