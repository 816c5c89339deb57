//! One layer of an image: files as an uncompressed tar archive, always the same for the same files.
//!
//! Core.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tar::{EntryType, Header};

/// Files by path, without a leading slash.
pub type Files<'f> = BTreeMap<String, File<'f>>;

/// The content of a layer at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'f> {
    /// The permissions.
    pub mode: u32,
    /// The content.
    pub bytes: &'f [u8],
}

impl<'f> File<'f> {
    /// Returns a file that every user can read.
    pub fn plain(bytes: &'f [u8]) -> Self {
        Self { mode: 0o644, bytes }
    }
}

/// Returns a tar archive with `files` and the directories above them, sorted by path, all of user 0
/// and of the time `created`.
pub fn tar(files: &Files<'_>, created: Timestamp) -> Vec<u8> {
    let mut folders = BTreeSet::new();
    for path in files.keys() {
        folders.extend(path.match_indices('/').map(|(at, _)| format!("{}/", &path[..at])));
    }
    let mut entries: BTreeMap<&str, (EntryType, File<'_>)> = BTreeMap::new();
    for folder in &folders {
        entries.insert(folder, (EntryType::Directory, File { mode: 0o755, bytes: &[] }));
    }
    entries.extend(files.iter().map(|(path, file)| (&**path, (EntryType::Regular, *file))));
    let mut archive = tar::Builder::new(Vec::new());
    for (path, (kind, file)) in entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(file.mode);
        header.set_size(file.bytes.len() as u64);
        header.set_mtime(created.as_second().unsigned_abs());
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, path, file.bytes).expect("a Vec takes all bytes");
    }
    archive.into_inner().expect("a Vec takes all bytes")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_layer_is_sorted_and_holds_the_directories_above_each_file() {
        let mut files = Files::new();
        files.insert("program".to_owned(), File { mode: 0o755, bytes: b"run" });
        files.insert("etc/ssl/b".to_owned(), File { mode: 0o644, bytes: b"b" });
        files.insert("etc/a".to_owned(), File { mode: 0o644, bytes: b"" });
        let time = Timestamp::from_second(1_000).unwrap();
        let bytes = tar(&files, time);
        assert_eq!(bytes, tar(&files.clone(), time));
        let mut found = Vec::new();
        for entry in tar::Archive::new(&*bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.mtime().unwrap(), 1_000);
            let path = entry.path().unwrap().display().to_string();
            found.push((path, header.mode().unwrap(), content));
        }
        let row = |path: &str, mode, content: &str| (path.to_owned(), mode, content.to_owned());
        let expected = [
            row("etc/", 0o755, ""),
            row("etc/a", 0o644, ""),
            row("etc/ssl/", 0o755, ""),
            row("etc/ssl/b", 0o644, "b"),
            row("program", 0o755, "run"),
        ];
        assert_eq!(found, expected);
    }
}
