//! Reads files safely: whatever is at a path, a read neither blocks nor ends early.
//!
//! Edge. Does not parse the bytes.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Returns the bytes of the plain file at `path`, at most `len_max`.
///
/// Fails if the file is larger, cannot be read, or is not plain: a directory, a FIFO, a device or a
/// socket. To open a FIFO without a writer would otherwise block forever.
pub fn read(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let file =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(len_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > len_max {
        let text = format!("larger than {len_max} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode};
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_plain_files_are_read() {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("plain"), "text").unwrap();
        symlink("plain", path("link")).unwrap();
        symlink("circle", path("circle")).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, mode, 0).unwrap();
        for name in ["plain", "link"] {
            assert_eq!(read(&path(name), 4).unwrap(), b"text", "{name}");
        }
        let rows = [
            ("directory", "plain file"),
            ("fifo", "not a plain file"),
            ("circle", "symbolic links"),
            ("missing", "No such file"),
        ];
        for (name, expected) in rows {
            let error = read(&path(name), 4).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
        assert!(read(Path::new("/dev/zero"), 4).is_err());
        assert!(read(&path("plain"), 3).unwrap_err().to_string().contains("larger than 3 bytes"));
    }
}
