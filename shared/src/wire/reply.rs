//! Writes a reply in place: whole records only, truncated at a record's end, OPT last.
//!
//! Core. Implements the layout of a reply, independent of the reasons for its records.

use super::{Cookie, ErrorCode, HEADER_LEN, Query, name_end, rcode, rtype};

/// Bytes of an OPT record without options.
const OPT_LEN: usize = 11;
/// The longest EXTRA-TEXT that is sent with an Extended DNS Error, in bytes.
const ERROR_TEXT_MAX: usize = 96;
/// Bytes of the edns-tcp-keepalive option in a reply (RFC 7828 section 3.1).
const KEEPALIVE_LEN: usize = 6;
/// Bytes of the COOKIE option in a reply (RFC 9018 section 4).
const COOKIE_LEN: usize = 4 + size_of::<Cookie>();
/// The bytes before the cookies in that option.
const COOKIE_HEAD: [u8; 4] = [0, 10, 0, size_of::<Cookie>() as u8];

/// The section of a record. Sections must be filled in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The records that were asked for.
    Answer = 0,
    /// SOA of a negative answer, NS of a referral.
    Authority = 1,
    /// Addresses that the client will need next.
    Additional = 2,
}

/// The owner name of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// The name in the question, in the client's case, by a pointer to it.
    Question,
    /// The name at this offset of the reply, by a pointer to it.
    At(u16),
    /// This name in wire form, written out.
    Name(&'a [u8]),
}

/// A position in a reply, to which it can be rewound.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    len: usize,
    counts: [u16; 3],
}

/// A reply under construction in a buffer that outlives it.
///
/// If the query has OPT, space for OPT is reserved from the start, so [`Reply::finish`] cannot
/// fail.
#[derive(Debug)]
pub struct Reply<'b> {
    buffer: &'b mut [u8],
    len: usize,
    len_max: usize,
    counts: [u16; 3],
    edns: bool,
    /// The UDP size that OPT advertises.
    udp_size: u16,
    dnssec_ok: bool,
    extended_rcode: u8,
    keepalive: Option<u16>,
    /// Whether the buffer holds the cookies after `len_max`.
    cookie: bool,
    error: Option<ExtendedError>,
}

/// An Extended DNS Error. It has no destructor, so that replies need none.
#[derive(Debug)]
struct ExtendedError {
    code: ErrorCode,
    len: u8,
    text: [u8; ERROR_TEXT_MAX],
}

impl<'b> Reply<'b> {
    /// Returns a reply to `query` in `buffer`: header with QR and RD, the question as asked,
    /// NOERROR, no records yet.
    ///
    /// `buffer` must hold at least 512 bytes. The reply never exceeds it or
    /// [`Query::reply_len_max`].
    pub fn new(query: &Query<'_>, buffer: &'b mut [u8]) -> Self {
        let question = query.question();
        let len = HEADER_LEN + question.len();
        let [id1, id0] = query.id().to_be_bytes();
        let rd = u8::from(query.recursion_desired());
        let cd = u8::from(query.checking_disabled()) << 4;
        buffer[..HEADER_LEN].copy_from_slice(&[id1, id0, 0x80 | rd, cd, 0, 1, 0, 0, 0, 0, 0, 0]);
        buffer[HEADER_LEN..len].copy_from_slice(question);
        let edns = query.edns.is_some();
        let len_max = query.reply_len_max().min(buffer.len());
        Self {
            buffer,
            len,
            len_max: len_max - if edns { OPT_LEN } else { 0 },
            counts: [0; 3],
            edns,
            udp_size: query.udp_size_max(),
            dnssec_ok: query.dnssec_ok(),
            extended_rcode: 0,
            keepalive: None,
            cookie: false,
            error: None,
        }
    }

    /// Sets the response code. A code above 15 needs an OPT in the query.
    pub fn set_rcode(&mut self, code: u16) {
        self.buffer[3] = self.buffer[3] & 0xf0 | (code & 0x0f) as u8;
        self.extended_rcode = (code >> 4) as u8;
    }

    /// Returns the response code, including its upper bits.
    pub fn rcode(&self) -> u16 {
        u16::from(self.extended_rcode) << 4 | u16::from(self.buffer[3] & 0x0f)
    }

    /// Returns whether there are records in the answer section.
    pub fn has_answer(&self) -> bool {
        self.counts[0] > 0
    }

    /// Sets AA: this server is authoritative for the name in the question.
    pub fn set_authoritative(&mut self, yes: bool) {
        self.buffer[2] = self.buffer[2] & !0x04 | u8::from(yes) << 2;
    }

    /// Sets RD, which is the client's otherwise.
    pub fn set_recursion_desired(&mut self, yes: bool) {
        self.buffer[2] = self.buffer[2] & !0x01 | u8::from(yes);
    }

    /// Sets RA: this server recurses, or forwards to one that does.
    pub fn set_recursion_available(&mut self, yes: bool) {
        self.buffer[3] = self.buffer[3] & !0x80 | u8::from(yes) << 7;
    }

    /// Sets AD: the data was validated by the upstream.
    pub fn set_authentic_data(&mut self, yes: bool) {
        self.buffer[3] = self.buffer[3] & !0x20 | u8::from(yes) << 5;
    }

    /// Sets TC: records are missing, so the client should ask again over TCP.
    pub fn set_truncated(&mut self) {
        self.buffer[2] |= 0x02;
    }

    /// Returns whether TC is set.
    pub fn is_truncated(&self) -> bool {
        self.buffer[2] & 0x02 != 0
    }

    /// Sets an Extended DNS Error, which is sent if the query has EDNS (RFC 8914). Only the last
    /// one is sent; its text is cut at 96 bytes.
    pub fn set_error(&mut self, code: ErrorCode, text: &str) {
        let len = text.len().min(ERROR_TEXT_MAX);
        let mut error = ExtendedError { code, len: len as u8, text: [0; ERROR_TEXT_MAX] };
        error.text[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.error = Some(error);
    }

    /// Sets how long this connection can be idle, in units of 100 ms (RFC 7828). Only for TCP.
    pub fn set_keepalive(&mut self, tenths: u16) {
        self.keepalive = Some(tenths);
    }

    /// Sets the cookies of the client and of this server. A query with a cookie must have EDNS.
    /// Reserves space, so it must be called before the first record.
    pub fn set_cookie(&mut self, cookie: Cookie) {
        if !self.cookie {
            if !self.edns || self.len + COOKIE_LEN > self.len_max {
                return;
            }
            self.cookie = true;
            self.len_max -= COOKIE_LEN;
        }
        self.buffer[self.len_max..][..cookie.len()].copy_from_slice(&cookie);
    }

    /// Sets SERVFAIL or another failure, with its reason.
    pub fn fail(&mut self, code: u16, reason: ErrorCode, text: &str) {
        self.set_rcode(code);
        self.set_error(reason, text);
    }

    /// Appends a record of class IN whose rdata is the concatenation of `rdata`. `ttl` is in
    /// seconds. Sections must be filled in order.
    ///
    /// Returns the offset of the rdata, so that [`Owner::At`] can point at names in it. If the
    /// whole record does not fit, returns `None` and leaves the reply unchanged.
    pub fn push(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        rtype: u16,
        ttl: u32,
        rdata: &[&[u8]],
    ) -> Option<usize> {
        debug_assert!(self.counts[section as usize + 1..].iter().all(|&n| n == 0), "section order");
        let owner_len = if let Owner::Name(name) = owner { name.len() } else { 2 };
        let rdata_len: usize = rdata.iter().map(|part| part.len()).sum();
        let rdata_at = self.len + owner_len + 10;
        if rdata_at + rdata_len > self.len_max {
            return None;
        }
        let out = &mut self.buffer[self.len..rdata_at + rdata_len];
        let (name, out) = out.split_at_mut(owner_len);
        match owner {
            Owner::Question => name.copy_from_slice(&[0xc0, HEADER_LEN as u8]),
            Owner::At(offset) => name.copy_from_slice(&(0xc000 | offset).to_be_bytes()),
            Owner::Name(owner) => name.copy_from_slice(owner),
        }
        let (fixed, mut out) = out.split_at_mut(10);
        fixed[..2].copy_from_slice(&rtype.to_be_bytes());
        fixed[2..4].copy_from_slice(&super::class::IN.to_be_bytes());
        fixed[4..8].copy_from_slice(&ttl.to_be_bytes());
        fixed[8..].copy_from_slice(&(rdata_len as u16).to_be_bytes());
        for part in rdata {
            let (place, rest) = out.split_at_mut(part.len());
            place.copy_from_slice(part);
            out = rest;
        }
        self.len = rdata_at + rdata_len;
        self.counts[section as usize] += 1;
        Some(rdata_at)
    }

    /// Appends records that are already in wire form in `body`, with valid pointers for this reply.
    /// `counts` has their number per section.
    ///
    /// Returns the copied bytes, so that TTLs can be changed; `None` if the records do not fit.
    pub fn push_wire(&mut self, counts: [u16; 3], body: &[u8]) -> Option<&mut [u8]> {
        let start = self.len;
        let end = start + body.len();
        if end > self.len_max {
            return None;
        }
        self.buffer[start..end].copy_from_slice(body);
        self.len = end;
        for (count, more) in self.counts.iter_mut().zip(counts) {
            *count += more;
        }
        Some(&mut self.buffer[start..end])
    }

    /// Returns the number of records in each section so far.
    pub fn counts(&self) -> [u16; 3] {
        self.counts
    }

    /// Returns the bytes written so far, without OPT.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether all sections are empty.
    pub fn is_empty(&self) -> bool {
        self.counts == [0; 3]
    }

    /// Returns the bytes that are still free for records.
    pub fn room(&self) -> usize {
        self.len_max - self.len
    }

    /// Returns the bytes written so far, header first.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Returns the current position.
    pub fn mark(&self) -> Mark {
        Mark { len: self.len, counts: self.counts }
    }

    /// Removes every record after `mark`. Flags are kept.
    pub fn rewind(&mut self, mark: Mark) {
        (self.len, self.counts) = (mark.len, mark.counts);
    }

    /// Removes all records. Flags are kept.
    pub fn clear_records(&mut self, query: &Query<'_>) {
        self.len = HEADER_LEN + query.question().len();
        self.counts = [0; 3];
    }

    /// Writes the counts and OPT, and returns the length of the whole reply in bytes. Must be
    /// called last. Takes a reference, because a move would copy the text of an absent error.
    pub fn finish(&mut self) -> usize {
        for (place, count) in self.buffer[6..HEADER_LEN].chunks_exact_mut(2).zip(self.counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        if self.edns {
            self.write_opt();
        } else {
            debug_assert_eq!(self.extended_rcode, 0, "rcode {} needs EDNS", rcode::BADVERS);
        }
        self.len
    }

    /// Writes OPT with the options that fit: the server's size, the client's DO, the cookies, whose
    /// space is reserved, keepalive, the Extended DNS Error.
    fn write_opt(&mut self) {
        let start = self.len;
        let mut limit = self.len_max + OPT_LEN;
        // Read before OPT overwrites them.
        let cookie = self.buffer[self.len_max..].first_chunk::<{ size_of::<Cookie>() }>().copied();
        let cookie = cookie.filter(|_| self.cookie);
        let [size1, size0] = self.udp_size.to_be_bytes();
        let flags = u8::from(self.dnssec_ok) << 7;
        let opt = [0, 0, rtype::OPT as u8, size1, size0, self.extended_rcode, 0, flags, 0, 0, 0];
        self.buffer[start..start + OPT_LEN].copy_from_slice(&opt);
        let mut end = start + OPT_LEN;
        if let Some(cookie) = &cookie {
            limit += COOKIE_LEN;
            self.buffer[end..end + 4].copy_from_slice(&COOKIE_HEAD);
            self.buffer[end + 4..end + COOKIE_LEN].copy_from_slice(cookie);
            end += COOKIE_LEN;
        }
        if let Some(tenths) = self.keepalive
            && end + KEEPALIVE_LEN <= limit
        {
            let [t1, t0] = tenths.to_be_bytes();
            self.buffer[end..end + KEEPALIVE_LEN].copy_from_slice(&[0, 11, 0, 2, t1, t0]);
            end += KEEPALIVE_LEN;
        }
        if let Some(ExtendedError { code, len, text }) = &self.error {
            let text = &text[..usize::from(*len)];
            if end + 6 + text.len() <= limit {
                let [c1, c0] = (*code as u16).to_be_bytes();
                let [l1, l0] = (text.len() as u16 + 2).to_be_bytes();
                self.buffer[end..end + 6].copy_from_slice(&[0, 15, l1, l0, c1, c0]);
                self.buffer[end + 6..end + 6 + text.len()].copy_from_slice(text);
                end += 6 + text.len();
            }
        }
        let options_len = (end - start - OPT_LEN) as u16;
        self.buffer[start + 9..start + OPT_LEN].copy_from_slice(&options_len.to_be_bytes());
        self.len = end;
        let additional = u16::from_be_bytes([self.buffer[10], self.buffer[11]]) + 1;
        self.buffer[10..HEADER_LEN].copy_from_slice(&additional.to_be_bytes());
    }
}

/// Returns the cookies of `reply`, which must have no records; `None` if it has no cookies.
pub fn cookie_of(reply: &[u8]) -> Option<Cookie> {
    let options = reply.get(name_end(reply, HEADER_LEN)? + 4 + OPT_LEN..)?;
    options.strip_prefix(&COOKIE_HEAD)?.first_chunk().copied()
}
