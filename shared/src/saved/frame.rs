//! The frame around the content of a file: what it is, its format, and a checksum.
//!
//! Core. Independent of files and of the content. The content is written in pieces, so that there
//! is never a second copy of it in memory.
//!
//! ```text
//! magic version:u16 │ content │ CRC-32 of everything before
//! ```

use std::io::{self, Write};

/// The first bytes of a kind of file.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// What the file is, such as "snapshot of kubedns". The file begins with it.
    pub magic: &'static str,
    /// The format of the content. Grows with every change, new fields included.
    pub version: u16,
}

/// Why a file is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is something else.
    #[error("it is not a {magic}")]
    Other {
        /// What was expected.
        magic: &'static str,
    },
    /// It has another format.
    #[error("it has format {found}, and this program reads format {expected}")]
    Version {
        /// Its format.
        found: u16,
        /// The format that was expected.
        expected: u16,
    },
    /// A part is missing, or a byte has changed.
    #[error("it is truncated or damaged: the checksum does not match")]
    Damaged,
}

impl Frame {
    /// Returns the content of `file`.
    ///
    /// Fails if it has another frame, or if its checksum does not match.
    pub fn open<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], Refused> {
        let magic = self.magic.as_bytes();
        let Some(rest) = file.strip_prefix(magic) else {
            let is_start = magic.starts_with(file);
            return Err(if is_start {
                Refused::Damaged
            } else {
                Refused::Other { magic: self.magic }
            });
        };
        let (version, _) = rest.split_first_chunk::<2>().ok_or(Refused::Damaged)?;
        let found = u16::from_be_bytes(*version);
        if found != self.version {
            return Err(Refused::Version { found, expected: self.version });
        }
        let (body, checksum) = file.split_last_chunk::<4>().ok_or(Refused::Damaged)?;
        if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
            return Err(Refused::Damaged);
        }
        body.get(magic.len() + 2..).ok_or(Refused::Damaged)
    }
}

/// Collects pieces of the content, and computes the length and the checksum of the file.
pub struct Sink<W> {
    /// The piece that is collected.
    pub piece: Vec<u8>,
    out: W,
    checksum: crc32fast::Hasher,
    len: u64,
}

impl<W: Write> Sink<W> {
    /// Begins a file in `frame`.
    pub fn new(frame: &Frame, out: W) -> Self {
        let mut piece = frame.magic.as_bytes().to_vec();
        piece.extend(frame.version.to_be_bytes());
        Self { piece, out, checksum: crc32fast::Hasher::new(), len: 0 }
    }

    /// Writes the piece if it is long enough. Must be called after every few kilobytes.
    pub fn pass(&mut self) -> io::Result<()> {
        if self.piece.len() >= PIECE_LEN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.checksum.update(&self.piece);
        self.out.write_all(&self.piece)?;
        self.len += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// Ends the file. Returns its length in bytes.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        let checksum = self.checksum.clone().finalize();
        self.piece.extend(checksum.to_be_bytes());
        self.flush()?;
        self.out.flush()?;
        Ok(self.len)
    }
}

/// A piece is written at this length, in bytes.
pub const PIECE_LEN: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame { magic: "list of names", version: 7 };

    fn file(frame: &Frame, content: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut sink = Sink::new(frame, &mut file);
        for part in content.chunks(1_000) {
            sink.piece.extend_from_slice(part);
            sink.pass().unwrap();
        }
        let len = sink.finish().unwrap();
        assert_eq!(len, file.len() as u64);
        file
    }

    #[test]
    fn a_file_is_read_as_written_or_refused() {
        for len in [0, 1, 100_000] {
            let content = vec![b'x'; len];
            assert_eq!(FRAME.open(&file(&FRAME, &content)), Ok(&content[..]));
        }
        let whole = file(&FRAME, b"content");
        for len in 0..whole.len() {
            assert_eq!(FRAME.open(&whole[..len]), Err(Refused::Damaged), "{len} bytes");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(FRAME.open(&changed).is_err(), "byte {at}");
        }
        let error = |file: &[u8]| FRAME.open(file).unwrap_err().to_string();
        assert_eq!(error(b"#!/bin/sh\n"), "it is not a list of names");
        let newer = file(&Frame { version: 8, ..FRAME }, b"content");
        assert_eq!(error(&newer), "it has format 8, and this program reads format 7");
    }
}
