//! The listening addresses of a program, in a file for the program that started it.
//!
//! With port 0 the system chooses a port, and a port is only known to be free once it is bound. So
//! the program binds first and then writes its addresses. The log has the same addresses.
//!
//! Edge: writes and reads one file, `{"dns":["127.0.0.1:10053"],"http":"127.0.0.1:8081"}`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The bound addresses of a program, with the real port if the flag had port 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The addresses for DNS, in the order of the flags.
    pub dns: Vec<SocketAddr>,
    /// The address for HTTP.
    pub http: SocketAddr,
}

/// Why the file was not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the addresses to {}", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

impl Addresses {
    /// Writes the addresses to `file`, if it is `Some`. The file is written beside `file` and
    /// renamed, so a reader sees the whole file or none.
    ///
    /// Fails if the directory does not exist or cannot be written.
    pub fn write(&self, file: Option<&Path>) -> Result<(), WriteError> {
        let Some(path) = file else { return Ok(()) };
        let error = |source| WriteError { path: path.to_owned(), source };
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let text = serde_json::to_string(self).expect("addresses are text");
        std::fs::write(&new, text + "\n").map_err(error)?;
        std::fs::rename(&new, path).map_err(error)
    }

    /// Parses a file that [`Addresses::write`] wrote. Returns `None` until the file exists.
    pub fn read(file: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("addresses.json");
        assert_eq!(Addresses::read(&file), None);
        let dns = vec!["127.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        let addresses = Addresses { dns, http: "127.0.0.1:9153".parse().unwrap() };
        addresses.write(None).unwrap();
        addresses.write(Some(&file)).unwrap();
        addresses.write(Some(&file)).unwrap(); // over the file of an earlier run
        assert_eq!(Addresses::read(&file), Some(addresses.clone()));
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, "{\"dns\":[\"127.0.0.1:53\",\"[::1]:53\"],\"http\":\"127.0.0.1:9153\"}\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let error = addresses.write(Some(&directory.path().join("none/x"))).unwrap_err();
        assert!(error.to_string().contains("none/x"), "{error}");
    }
}
