//! Splits the bytes of a connection into whole JSON texts, one at a time.
//!
//! Core. Knows the frame of a watch (a line per event) and of a list (an array called `items`), and
//! that of a watch in protobuf (a length before each event); does not know what an object is. Holds
//! at most one object and the bytes that have arrived after it.

/// Splits a watch into lines.
#[derive(Debug, Default)]
pub struct Lines {
    waiting: Waiting,
    scanned: usize,
}

impl Lines {
    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.push(bytes);
    }

    /// Returns the next whole line that is not empty, without its end, if it has arrived.
    ///
    /// Fails if a line is longer than [`TEXT_MAX`].
    pub fn take(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let rest = &self.waiting.unread()[self.scanned..];
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                self.scanned += rest.len();
                return if self.scanned > TEXT_MAX { Err(TooLong) } else { Ok(None) };
            };
            let len = self.scanned + end;
            self.scanned = 0;
            if len > 0 {
                let line = self.waiting.take(len + 1);
                return Ok(Some(&line[..len]));
            }
            self.waiting.take(1);
        }
    }
}

/// Splits a watch in protobuf into frames, each of which follows its length in 4 bytes.
#[derive(Debug, Default)]
pub struct Frames {
    waiting: Waiting,
}

impl Frames {
    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.push(bytes);
    }

    /// Returns the next whole frame without its length, if it has arrived.
    ///
    /// Fails if a frame is longer than [`TEXT_MAX`].
    pub fn take(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let Some((&prefix, rest)) = self.waiting.unread().split_first_chunk() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(prefix) as usize;
        if len > TEXT_MAX {
            return Err(TooLong);
        }
        if rest.len() < len {
            return Ok(None);
        }
        Ok(Some(&self.waiting.take(prefix.len() + len)[prefix.len()..]))
    }
}

/// Splits a list into its items. The rest of it becomes the envelope.
#[derive(Debug, Default)]
pub struct Items {
    waiting: Waiting,
    scanned: usize,
    place: Place,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The list without its items.
    envelope: Vec<u8>,
}

/// The position of the next byte in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Outside of the items.
    #[default]
    Envelope,
    /// In the array, before or after an item.
    Between,
    /// In an item.
    Item,
}

impl Items {
    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.push(bytes);
    }

    /// Returns the next whole item, if it has arrived.
    ///
    /// Fails if an item, or the rest of the list, is longer than [`TEXT_MAX`].
    pub fn take(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let ends_item = if self.place == Place::Item {
                self.scan_item()
            } else {
                let Some(&byte) = self.waiting.unread().get(self.scanned) else { break };
                self.scanned += 1;
                self.step(byte)
            };
            if ends_item {
                let len = std::mem::take(&mut self.scanned);
                return Ok(Some(self.waiting.take(len)));
            }
            if self.scanned.max(self.envelope.len()) > TEXT_MAX {
                return Err(TooLong);
            }
            if self.place == Place::Item {
                if self.scanned == self.waiting.unread().len() {
                    break;
                }
            } else {
                self.waiting.take(self.scanned);
                self.scanned = 0;
            }
        }
        Ok(None)
    }

    /// Returns the part of the list without its items that has arrived. Once complete, it is a JSON
    /// text.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Scans an item to its end, or to the end of the bytes that have arrived. Returns whether the
    /// item ends. Nearly every byte of a list is scanned here.
    fn scan_item(&mut self) -> bool {
        let rest = &self.waiting.unread()[self.scanned..];
        let (mut depth, mut in_string, mut escaped) = (self.depth, self.in_string, self.escaped);
        let ends = rest.iter().position(|&byte| {
            if in_string {
                in_string = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
                return false;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == ITEMS_DEPTH && !in_string
        });
        (self.depth, self.in_string, self.escaped) = (depth, in_string, escaped);
        self.scanned += ends.map_or(rest.len(), |end| end + 1);
        if ends.is_some() {
            self.place = Place::Between;
        }
        ends.is_some()
    }

    /// Scans one byte that is not yet in an item. Returns whether it ends one.
    fn step(&mut self, byte: u8) -> bool {
        let opens_items = byte == b'['
            && self.place == Place::Envelope
            && self.depth == 1
            && !self.in_string
            && ends_with_items_key(&self.envelope);
        if self.place == Place::Between
            && !matches!(byte, b']' | b',' | b' ' | b'\n' | b'\r' | b'\t')
        {
            self.place = Place::Item;
        }
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if byte == b'\\' {
                self.escaped = true;
            } else if byte == b'"' {
                self.in_string = false;
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if self.place == Place::Between && byte == b']' {
            self.place = Place::Envelope;
        }
        if self.place == Place::Envelope {
            self.envelope.push(byte);
        }
        if opens_items {
            self.place = Place::Between;
        }
        let ends_item = self.place == Place::Item && self.depth == ITEMS_DEPTH && !self.in_string;
        if ends_item {
            self.place = Place::Between;
        }
        ends_item
    }
}

/// A text is longer than any object that an API server can store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an object is longer than {TEXT_MAX} bytes")]
pub struct TooLong;

/// Bytes that have arrived and have not been read. Those that have been read are dropped by `push`.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    read: usize,
}

impl Waiting {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        if self.bytes.len() + bytes.len() < KEPT_MAX {
            self.bytes.shrink_to(KEPT_MAX);
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    fn take(&mut self, len: usize) -> &[u8] {
        let start = self.read;
        self.read += len;
        &self.bytes[start..self.read]
    }
}

/// Returns whether `envelope` ends with the key `items` and its colon.
fn ends_with_items_key(envelope: &[u8]) -> bool {
    let before = envelope.trim_ascii_end().strip_suffix(b":");
    before.is_some_and(|before| before.trim_ascii_end().ends_with(b"\"items\""))
}

/// The depth of an item: in the list and its array.
const ITEMS_DEPTH: u32 = 2;
/// etcd accepts 1.5 MiB for an object; as JSON, with the frame of an event, it can be longer.
pub const TEXT_MAX: usize = 16 << 20;
/// The most bytes of a buffer that are kept after it held a large object.
const KEPT_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the resulting texts if the bytes are split after every `step` bytes.
    fn lines(input: &str, step: usize) -> Vec<String> {
        let mut lines = Lines::default();
        let mut read = Vec::new();
        for chunk in input.as_bytes().chunks(step) {
            lines.push(chunk);
            while let Some(line) = lines.take().unwrap() {
                read.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        read
    }

    fn items(input: &str, step: usize) -> (Vec<String>, String) {
        let mut items = Items::default();
        let mut read = Vec::new();
        for chunk in input.as_bytes().chunks(step) {
            items.push(chunk);
            while let Some(item) = items.take().unwrap() {
                read.push(String::from_utf8(item.to_vec()).unwrap());
            }
        }
        (read, String::from_utf8(items.envelope().to_vec()).unwrap())
    }

    #[test]
    fn a_watch_is_cut_into_lines() {
        for step in 1..12 {
            assert_eq!(lines("{\"a\":1}\n\n{}\n{\"cut", step), ["{\"a\":1}", "{}"]);
        }
    }

    #[test]
    fn a_watch_in_protobuf_is_cut_into_frames() {
        let bytes = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01d\0\0\0\x02e";
        for step in 1..=bytes.len() {
            let mut frames = Frames::default();
            let mut read = Vec::new();
            for chunk in bytes.chunks(step) {
                frames.push(chunk);
                while let Some(frame) = frames.take().unwrap() {
                    read.push(frame.to_vec());
                }
            }
            assert_eq!(read, [&b"abc"[..], b"", b"d"], "in steps of {step}");
        }
        let mut frames = Frames::default();
        frames.push(b"{\"type\"");
        assert_eq!(frames.take(), Err(TooLong), "JSON is not taken for a frame");
    }

    #[test]
    fn a_list_is_cut_into_items() {
        let check = |input: &str, expected: &[&str], envelope: &str| {
            for step in 1..=input.len() {
                assert_eq!(
                    items(input, step),
                    (expected.iter().map(|&item| item.to_owned()).collect(), envelope.to_owned()),
                    "{input} in steps of {step}"
                );
            }
        };
        check(
            r#"{"kind":"L","metadata":{"items":[1]},"items":[{"a":[{}]},{"b":"]}\"\\"}]}"#,
            &[r#"{"a":[{}]}"#, r#"{"b":"]}\"\\"}"#],
            r#"{"kind":"L","metadata":{"items":[1]},"items":[]}"#,
        );
        check(
            "{ \"items\" : [ {} , {\"x\":{}}\n] , \"metadata\": {} }\n",
            &["{}", r#"{"x":{}}"#],
            "{ \"items\" : [] , \"metadata\": {} }\n",
        );
        check(r#"{"items":null,"metadata":{}}"#, &[], r#"{"items":null,"metadata":{}}"#);
        check(r#"{"items":[]}"#, &[], r#"{"items":[]}"#);
        check(r#"{"note":"\"items\":","x":[{}]}"#, &[], r#"{"note":"\"items\":","x":[{}]}"#);
        check(r#"{"items":[{"a":1},{"b""#, &[r#"{"a":1}"#], r#"{"items":["#);
    }

    #[test]
    fn a_text_without_end_is_refused() {
        let mut lines = Lines::default();
        let mut items = Items::default();
        items.push(b"{\"items\":[{\"");
        let chunk = vec![b'x'; TEXT_MAX / 4];
        let mut refused = (false, false);
        for _ in 0..5 {
            lines.push(&chunk);
            items.push(&chunk);
            refused.0 |= lines.take() == Err(TooLong);
            refused.1 |= items.take() == Err(TooLong);
        }
        assert_eq!(refused, (true, true));
    }

    #[test]
    fn a_large_object_leaves_no_large_buffer() {
        let mut lines = Lines::default();
        lines.push(&[vec![b'x'; 1 << 20], vec![b'\n']].concat());
        assert!(lines.take().unwrap().is_some());
        lines.push(b"{}\n");
        assert!(lines.waiting.bytes.capacity() <= KEPT_MAX);
    }
}
