//! Numbers and texts in a sequence of bytes.
//!
//! Core. Knows lengths and byte order (big-endian); does not know what the bytes mean. Reading
//! cannot go beyond the end, and does not allocate for bytes that are missing.

/// Reads a sequence of bytes from its beginning.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns how many bytes have not been read.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Returns the next `count` bytes, if there are so many.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// Returns the next `N` bytes.
    pub fn take_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    /// Returns the next byte.
    pub fn take_u8(&mut self) -> Option<u8> {
        self.take_array().map(u8::from_be_bytes)
    }

    /// Returns a number of two bytes.
    pub fn take_u16(&mut self) -> Option<u16> {
        self.take_array().map(u16::from_be_bytes)
    }

    /// Returns a number of four bytes.
    pub fn take_u32(&mut self) -> Option<u32> {
        self.take_array().map(u32::from_be_bytes)
    }

    /// Returns a number of eight bytes.
    pub fn take_u64(&mut self) -> Option<u64> {
        self.take_array().map(u64::from_be_bytes)
    }

    /// Returns a byte that is 0 or 1.
    pub fn take_bool(&mut self) -> Option<bool> {
        match self.take_u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Returns a text of at most 255 bytes, which follows its length.
    pub fn take_text(&mut self) -> Option<&'a str> {
        let len = self.take_u8()?;
        std::str::from_utf8(self.take(len.into())?).ok()
    }
}

/// Appends the length of `text` in one byte, then the text, cut off after 255 bytes. Names of the
/// API have at most 253.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text.as_bytes()[..text.len().min(u8::MAX.into())];
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}
