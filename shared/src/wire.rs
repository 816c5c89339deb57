//! The view of a DNS message on the wire: a query is screened and read in place, a reply is written
//! in place.
//!
//! Core. Implements RFC 1035's layout and EDNS(0), without sockets, clocks or records. Does not
//! allocate. A query that [`Query::screen`] accepts can be walked again without checks by the same
//! rules. Any other message becomes a [`Refusal`] before a decoder sees it.
//!
//! ```text
//! datagram ── screen ──▶ Query ── handler ──▶ Reply ── finish ──▶ datagram
//!                │       (name lower-cased, type, class, EDNS)
//!                └─────▶ Refusal ── refuse ──▶ FORMERR, NOTIMP, BADVERS or nothing
//! ```

mod reply;

pub use reply::{Owner, Reply, Section, cookie_of};

/// Bytes of a DNS header (RFC 1035 section 4.1.1).
pub const HEADER_LEN: usize = 12;
/// The longest name in wire form, its root label included (RFC 1035 section 2.3.4).
pub const NAME_MAX: usize = 255;
/// The largest message over TCP: its length is a 16-bit number (RFC 1035 section 4.2.2).
pub const MESSAGE_MAX: usize = 65_535;
/// The largest UDP reply that a client without EDNS accepts (RFC 1035 section 2.3.4).
pub const UDP_SIZE_PLAIN: usize = 512;
/// The default maximum of replies over UDP, which is also advertised: it crosses every path
/// unfragmented (RFC 9715).
pub const UDP_SIZE_MAX: usize = 1_232;
/// The EDNS option, without data, of a query that healthz sends to a program of its own pod. It is
/// from the range for local use (IANA DNS parameters). Other servers must ignore it (RFC 6891
/// section 6.1.2).
pub const PROBE_OPTION: u16 = 65_053;
/// The counts of an IXFR: one question, and in the authority section the SOA that the client has.
const IXFR_COUNTS: u64 = 1 << 48 | 1 << 16;
/// Bytes of a client's cookie (RFC 7873 section 4).
pub const CLIENT_COOKIE_LEN: usize = 8;
/// The cookies of a reply: the client's, and that of an interoperable server (RFC 9018 section 4).
pub type Cookie = [u8; 24];
/// The maximum of EDNS options in a query. More are an attack on decoders (CVE-2026-41292).
const OPTIONS_MAX: usize = 16;
/// The maximum of bytes of EDNS options in a query.
const OPTIONS_LEN_MAX: usize = 512;

/// The record types by number (IANA DNS parameters) that the rules here need.
pub mod rtype {
    /// IPv4 address (RFC 1035).
    pub const A: u16 = 1;
    /// Authoritative name server (RFC 1035).
    pub const NS: u16 = 2;
    /// Canonical name (RFC 1035).
    pub const CNAME: u16 = 5;
    /// Start of authority (RFC 1035).
    pub const SOA: u16 = 6;
    /// Pointer (RFC 1035).
    pub const PTR: u16 = 12;
    /// Mail exchange (RFC 1035).
    pub const MX: u16 = 15;
    /// Text (RFC 1035).
    pub const TXT: u16 = 16;
    /// IPv6 address (RFC 3596).
    pub const AAAA: u16 = 28;
    /// Service location (RFC 2782).
    pub const SRV: u16 = 33;
    /// Redirection of a subtree (RFC 6672).
    pub const DNAME: u16 = 39;
    /// EDNS(0) pseudo-record (RFC 6891).
    pub const OPT: u16 = 41;
    /// Incremental zone transfer (RFC 1995).
    pub const IXFR: u16 = 251;
    /// Full zone transfer (RFC 5936).
    pub const AXFR: u16 = 252;
    /// Any type (RFC 8482).
    pub const ANY: u16 = 255;
}

/// Classes by number.
pub mod class {
    /// The Internet.
    pub const IN: u16 = 1;
    /// CHAOS: questions about the server itself.
    pub const CH: u16 = 3;
    /// Any class.
    pub const ANY: u16 = 255;
}

/// Response codes by number. The bits above 15 are in OPT (RFC 6891 section 6.1.3).
pub mod rcode {
    /// No error.
    pub const NOERROR: u16 = 0;
    /// The query could not be parsed.
    pub const FORMERR: u16 = 1;
    /// The server cannot answer now.
    pub const SERVFAIL: u16 = 2;
    /// The name does not exist.
    pub const NXDOMAIN: u16 = 3;
    /// This kind of query is not implemented.
    pub const NOTIMP: u16 = 4;
    /// The server does not answer this for this client.
    pub const REFUSED: u16 = 5;
    /// Not authoritative for the zone.
    pub const NOTAUTH: u16 = 9;
    /// EDNS version not supported (RFC 6891 section 6.1.3).
    pub const BADVERS: u16 = 16;
}

/// The Extended DNS Error codes (RFC 8914 section 4) that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    /// A reason without a code of its own.
    Other = 0,
    /// The answer is older than its TTL.
    StaleAnswer = 3,
    /// The upstream's validation failed.
    DnssecBogus = 6,
    /// A signature has expired.
    SignatureExpired = 7,
    /// A signature is not valid yet.
    SignatureNotYetValid = 8,
    /// A zone lacks the key that the zone above it has a DS record for.
    DnskeyMissing = 9,
    /// The failure is from the cache.
    CachedError = 13,
    /// The server has not loaded its data yet.
    NotReady = 14,
    /// The upstream's operator blocks the name.
    Blocked = 15,
    /// The upstream's operator must block the name.
    Censored = 16,
    /// The client wanted the name to be blocked.
    Filtered = 17,
    /// The client must not ask this.
    Prohibited = 18,
    /// The NXDOMAIN is older than its TTL.
    StaleNxdomainAnswer = 19,
    /// The server is not authoritative and does not recurse for this query.
    NotAuthoritative = 20,
    /// This operation or class is not supported.
    NotSupported = 21,
    /// No upstream could be reached.
    NoReachableAuthority = 22,
    /// The exchange with the upstream failed.
    NetworkError = 23,
}

/// The transport of a query, which limits the size of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// A stream with 16-bit lengths (RFC 7766).
    Tcp,
}

/// A buffer for the lower-case owner name that [`Query::screen`] writes. It is created once and
/// reused for each query.
#[derive(Clone, Debug)]
pub struct NameBuffer([u8; NAME_MAX + 1]);

impl NameBuffer {
    /// Returns an empty buffer.
    pub const fn new() -> Self {
        Self([0; NAME_MAX + 1])
    }

    /// Writes `name` in lower case. Length bytes do not change, because they are at most 63, below
    /// every letter.
    ///
    /// Works in whole blocks, which is cheaper than to stop at the end of the name. The bytes after
    /// the name are not used.
    fn lower(&mut self, name: &[u8]) -> &[u8] {
        self.0[..name.len()].copy_from_slice(name);
        let (blocks, _) = self.0.as_chunks_mut::<16>();
        for block in &mut blocks[..name.len().div_ceil(16)] {
            block.make_ascii_lowercase();
        }
        &self.0[..name.len()]
    }
}

impl Default for NameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// The OPT record of a query (RFC 6891 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The largest datagram that the sender accepts, in bytes, as sent.
    pub udp_size: u16,
    /// DO: DNSSEC records wanted (RFC 3225).
    pub dnssec_ok: bool,
    /// Whether the edns-tcp-keepalive option is present (RFC 7828).
    pub keepalive: bool,
    /// Whether the option [`PROBE_OPTION`] is present.
    pub probe: bool,
}

/// Why a message is not answered as a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No reply is sent: the message is too short for a header, or is a response itself (two
    /// servers must not talk forever).
    Silence,
    /// A reply with this response code. Only this type maps malformed input to codes.
    Rcode(u16),
}

/// A screened query: one question, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    message: &'a [u8],
    name: &'a [u8],
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
    /// The OPT record, if there is one.
    pub edns: Option<Edns>,
    /// The serial of the zone that the client of an IXFR has, if it sent one (RFC 1995 section 3).
    pub serial: Option<u32>,
    /// The transport of the query.
    pub transport: Transport,
    /// The COOKIE option; empty if there is none.
    cookie: &'a [u8],
    /// The largest reply over UDP, in bytes, which the reply also advertises.
    udp_size_max: u16,
}

impl<'a> Query<'a> {
    /// Parses the header, the question and OPT of `message`. Writes the owner name to `name` in
    /// lower case.
    ///
    /// Fails with the code that RFC 8906 and RFC 9619 require. Opcodes other than QUERY are NOTIMP.
    /// FORMERR is: no question or several, a compressed or overlong name, records that a query
    /// cannot have (an IXFR has an SOA, RFC 1995), a malformed or second OPT, a COOKIE of a wrong
    /// length, too many options, and trailing bytes. An EDNS version above 0 is BADVERS. The Z bit,
    /// TC and AA are ignored.
    pub fn screen(
        message: &'a [u8],
        transport: Transport,
        name: &'a mut NameBuffer,
    ) -> Result<Self, Refusal> {
        const FORMERR: Refusal = Refusal::Rcode(rcode::FORMERR);
        if message.len() < HEADER_LEN || message[2] & 0x80 != 0 {
            return Err(Refusal::Silence);
        }
        if message[2] & 0x78 != 0 {
            return Err(Refusal::Rcode(rcode::NOTIMP));
        }
        // QDCOUNT 1, ANCOUNT 0, NSCOUNT 0, ARCOUNT 0 or 1, as one comparison of eight bytes.
        let counts = u64::from_be_bytes(message[4..12].try_into().expect("eight bytes"));
        let has_soa = counts & !1 == IXFR_COUNTS;
        if counts & !1 != 1 << 48 && !has_soa {
            return Err(FORMERR);
        }
        let name_end = name_end(message, HEADER_LEN).ok_or(FORMERR)?;
        let Some(&[t1, t0, c1, c0]) = message.get(name_end..name_end + 4) else {
            return Err(FORMERR);
        };
        let question_end = name_end + 4;
        let qtype = u16::from_be_bytes([t1, t0]);
        let (end, serial) = if has_soa {
            let read = (qtype == rtype::IXFR).then(|| read_soa(message, question_end)).flatten();
            let (end, serial) = read.ok_or(FORMERR)?;
            (end, Some(serial))
        } else {
            (question_end, None)
        };
        let mut cookie: &[u8] = &[];
        let edns = if counts & 1 == 1 {
            Some(read_opt(&message[end..], &mut cookie)?)
        } else if message.len() > end {
            return Err(FORMERR);
        } else {
            None
        };
        Ok(Self {
            message: &message[..question_end],
            name: name.lower(&message[HEADER_LEN..name_end]),
            qtype,
            qclass: u16::from_be_bytes([c1, c0]),
            edns,
            serial,
            transport,
            cookie,
            udp_size_max: UDP_SIZE_MAX as u16,
        })
    }

    /// Allows replies over UDP of up to `bytes` instead of [`UDP_SIZE_MAX`], but at least
    /// [`UDP_SIZE_PLAIN`].
    pub fn set_udp_size_max(&mut self, bytes: u16) {
        self.udp_size_max = bytes.max(UDP_SIZE_PLAIN as u16);
    }

    /// Returns the largest reply over UDP that this server sends, in bytes.
    pub fn udp_size_max(&self) -> u16 {
        self.udp_size_max
    }

    /// Returns the client's cookie, if it sent one (RFC 7873 section 5.2).
    pub fn client_cookie(&self) -> Option<[u8; CLIENT_COOKIE_LEN]> {
        self.cookie.first_chunk().copied()
    }

    /// Returns the cookies of the client and the server, if the client has both (RFC 7873 section
    /// 4). A server cookie of another length than ours is not ours.
    pub fn cookie(&self) -> Option<Cookie> {
        self.cookie.try_into().ok()
    }

    /// Returns the message ID.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.message[0], self.message[1]])
    }

    /// Returns RD: the client wants recursion.
    pub fn recursion_desired(&self) -> bool {
        self.message[2] & 0x01 != 0
    }

    /// Returns AD: the client understands AD in the reply (RFC 6840 section 5.7).
    pub fn authentic_data(&self) -> bool {
        self.message[3] & 0x20 != 0
    }

    /// Returns CD: the client validates by itself (RFC 4035 section 3.2.2).
    pub fn checking_disabled(&self) -> bool {
        self.message[3] & 0x10 != 0
    }

    /// Returns DO: the client wants DNSSEC records.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Returns the owner name in lower-case wire form, root label included: 1 to 255 bytes.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Returns the question in the client's case: name, type, class.
    pub fn question(&self) -> &'a [u8] {
        &self.message[HEADER_LEN..]
    }

    /// Returns the owner name in wire form, in the client's case.
    pub fn name_as_asked(&self) -> &'a [u8] {
        &self.message[HEADER_LEN..self.message.len() - 4]
    }

    /// Returns the largest reply to this query, in bytes. Over UDP it is the client's size, but at
    /// least 512 and at most [`Query::udp_size_max`]; over TCP it is [`MESSAGE_MAX`].
    pub fn reply_len_max(&self) -> usize {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => MESSAGE_MAX,
            (Transport::Udp, None) => UDP_SIZE_PLAIN,
            (Transport::Udp, Some(edns)) => {
                usize::from(edns.udp_size).clamp(UDP_SIZE_PLAIN, self.udp_size_max.into())
            }
        }
    }
}

/// Returns the offset after the uncompressed name at `start`; `None` if the name is compressed,
/// overlong or cut off.
pub fn name_end(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1 + length;
        if length == 0 {
            return (at - start <= NAME_MAX).then_some(at);
        }
        if length > 63 || at - start > NAME_MAX {
            return None;
        }
    }
}

/// Returns the labels of a name in wire form, from the left, without the root.
pub fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (&length, tail) = rest.split_first()?;
        let (label, tail) = tail.split_at_checked(usize::from(length))?;
        rest = tail;
        (length > 0).then_some(label)
    })
}

/// Returns `name`, in wire form, and the names above it; the root is the last one.
pub fn with_ancestors(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(name), |name| {
        let (&length, rest) = name.split_first()?;
        if length == 0 { None } else { rest.get(usize::from(length)..) }
    })
}

/// Parses the SOA record at `start`. Returns the offset after it and its serial.
fn read_soa(message: &[u8], start: usize) -> Option<(usize, u32)> {
    let mut at = start;
    loop {
        match *message.get(at)? {
            0 => break at += 1,
            0xc0.. => break at += 2,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    let (&[t1, t0, _, _, _, _, _, _, l1, l0], rest) = message.get(at..)?.split_first_chunk()?;
    let rdata = rest.get(..usize::from(u16::from_be_bytes([l1, l0])))?;
    let numbers = rdata.last_chunk::<20>()?;
    let serial = u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]]);
    (u16::from_be_bytes([t1, t0]) == rtype::SOA).then_some((at + 10 + rdata.len(), serial))
}

/// Parses the OPT record that must fill `record` exactly. Sets `cookie` if it has that option.
fn read_opt<'a>(record: &'a [u8], cookie: &mut &'a [u8]) -> Result<Edns, Refusal> {
    const FORMERR: Refusal = Refusal::Rcode(rcode::FORMERR);
    let Some((&[root, t1, t0, s1, s0, _extended_rcode, version, flags, _, l1, l0], mut options)) =
        record.split_first_chunk::<11>()
    else {
        return Err(FORMERR);
    };
    let options_len = usize::from(u16::from_be_bytes([l1, l0]));
    let is_opt = root == 0 && u16::from_be_bytes([t1, t0]) == rtype::OPT;
    if !is_opt || options.len() != options_len {
        return Err(FORMERR);
    }
    if version != 0 {
        return Err(Refusal::Rcode(rcode::BADVERS));
    }
    if options_len > OPTIONS_LEN_MAX {
        return Err(FORMERR);
    }
    const COOKIE: u16 = 10;
    const TCP_KEEPALIVE: u16 = 11;
    let (mut keepalive, mut probe) = (false, false);
    let mut count = 0;
    while !options.is_empty() {
        let Some((&[c1, c0, l1, l0], rest)) = options.split_first_chunk::<4>() else {
            return Err(FORMERR);
        };
        count += 1;
        let length = usize::from(u16::from_be_bytes([l1, l0]));
        if length > rest.len() || count > OPTIONS_MAX {
            return Err(FORMERR);
        }
        let code = u16::from_be_bytes([c1, c0]);
        keepalive |= code == TCP_KEEPALIVE;
        probe |= code == PROBE_OPTION;
        // If there are several cookies, the first one counts (RFC 7873 section 5.2).
        if code == COOKIE && cookie.is_empty() {
            *cookie = &rest[..length];
            if !matches!(length, CLIENT_COOKIE_LEN | 16..=40) {
                return Err(FORMERR);
            }
        }
        options = &rest[length..];
    }
    let udp_size = u16::from_be_bytes([s1, s0]);
    Ok(Edns { udp_size, dnssec_ok: flags & 0x80 != 0, keepalive, probe })
}

/// Writes the reply for `refusal` of `message` to `out`. Returns its length; `None` if the message
/// must not be answered.
///
/// `out` must hold at least [`UDP_SIZE_PLAIN`] bytes. The question is echoed if it can be parsed.
/// BADVERS carries OPT with version 0, which advertises `udp_size` bytes.
pub fn refuse(message: &[u8], refusal: Refusal, udp_size: u16, out: &mut [u8]) -> Option<usize> {
    let Refusal::Rcode(code) = refusal else { return None };
    let counts_one_question = message[4..6] == [0, 1];
    let question_end = if counts_one_question {
        name_end(message, HEADER_LEN).map(|end| end + 4).filter(|&end| end <= message.len())
    } else {
        None
    };
    let mut len = question_end.unwrap_or(HEADER_LEN);
    out[..len].copy_from_slice(&message[..len]);
    out[2] = 0x80 | (message[2] & 0x79); // QR, the opcode and RD of the query
    out[3] = (code & 0x0f) as u8;
    out[4..HEADER_LEN].fill(0);
    out[5] = u8::from(question_end.is_some());
    if code > 0x0f {
        let [size1, size0] = udp_size.to_be_bytes();
        let opt = [0, 0, rtype::OPT as u8, size1, size0, (code >> 4) as u8, 0, 0, 0, 0, 0];
        out[len..len + opt.len()].copy_from_slice(&opt);
        out[11] = 1;
        len += opt.len();
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IXFR: &[u8] = b"\x01z\0\0\xfb\0\x01";
    /// Serial 7; owner and both names are the apex, by pointers.
    const SOA: &[u8] = b"\xc0\x0c\0\x06\0\x01\0\0\0\x1e\0\x18\xc0\x0c\xc0\x0c\0\0\0\x07\
        \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const WEB: &[u8] = b"\x03WeB\x04shop\0\x00\x01\x00\x01";

    fn message(flags: [u8; 2], counts: [u8; 4], rest: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, flags[0], flags[1]];
        counts.iter().for_each(|&count| message.extend([0, count]));
        rest.iter().for_each(|part| message.extend_from_slice(part));
        message
    }

    #[test]
    fn a_query_is_read_in_place() {
        let opt = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x04\0\x0b\0\0";
        let message = message([0x01, 0x30], [1, 0, 0, 1], &[WEB, opt]);
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
        assert_eq!((query.id(), query.qtype, query.qclass), (0x1234, rtype::A, class::IN));
        assert_eq!(query.name(), b"\x03web\x04shop\0");
        assert_eq!(query.name_as_asked(), b"\x03WeB\x04shop\0");
        assert_eq!(query.question(), WEB);
        assert!(query.recursion_desired() && query.checking_disabled() && query.dnssec_ok());
        assert!(query.authentic_data() && query.edns.unwrap().keepalive);
        assert!(!query.edns.unwrap().probe);
        let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\xfe\x1d\0\0";
        let marked = self::message([0x01, 0], [1, 0, 0, 1], &[WEB, opt]);
        let mut buffer = NameBuffer::new();
        let edns = Query::screen(&marked, Transport::Udp, &mut buffer).unwrap().edns.unwrap();
        assert!(edns.probe && !edns.keepalive);
        assert_eq!(query.reply_len_max(), 1_232);
        assert_eq!(labels(query.name()).collect::<Vec<_>>(), [&b"web"[..], b"shop"]);
        assert_eq!(query.serial, None);
        let message = self::message([0, 0], [1, 0, 1, 0], &[IXFR, SOA]);
        let query = Query::screen(&message, Transport::Tcp, &mut name).unwrap();
        assert_eq!((query.serial, query.question()), (Some(7), IXFR));
    }

    #[test]
    fn malformed_input_becomes_one_code() {
        let long = [&[63; 64][..]; 4].concat();
        let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
        let formerr = Err(Refusal::Rcode(rcode::FORMERR));
        let rows: &[(&str, Vec<u8>, Result<(), Refusal>)] = &[
            ("plain", message([1, 0], [1, 0, 0, 0], &[WEB]), Ok(())),
            ("root", message([1, 0], [1, 0, 0, 0], &[b"\0\0\x02\0\x01"]), Ok(())),
            ("empty", vec![], Err(Refusal::Silence)),
            ("eleven bytes", vec![0; 11], Err(Refusal::Silence)),
            ("a response", message([0x80, 0], [1, 0, 0, 0], &[WEB]), Err(Refusal::Silence)),
            ("STATUS", message([0x10, 0], [1, 0, 0, 0], &[WEB]), Err(Refusal::Rcode(4))),
            ("UPDATE", message([0x28, 0], [1, 0, 0, 0], &[WEB]), Err(Refusal::Rcode(4))),
            ("no question", message([1, 0], [0, 0, 0, 0], &[]), formerr),
            ("two questions", message([1, 0], [2, 0, 0, 0], &[WEB, WEB]), formerr),
            ("an answer", message([1, 0], [1, 1, 0, 0], &[WEB]), formerr),
            (
                "65,535 additionals",
                {
                    let mut bomb = message([1, 0], [1, 0, 0, 0], &[WEB]);
                    bomb[10..12].fill(0xff);
                    bomb
                },
                formerr,
            ),
            ("cut name", message([1, 0], [1, 0, 0, 0], &[b"\x03we"]), formerr),
            ("cut type", message([1, 0], [1, 0, 0, 0], &[b"\0\0"]), formerr),
            ("compressed", message([1, 0], [1, 0, 0, 0], &[b"\xc0\x0c\0\x01\0\x01"]), formerr),
            ("256 bytes", message([1, 0], [1, 0, 0, 0], &[&long, b"\0\0\x01\0\x01"]), formerr),
            ("trailing", message([1, 0], [1, 0, 0, 0], &[WEB, b"x"]), formerr),
            ("IXFR", message([1, 0], [1, 0, 1, 0], &[IXFR, SOA]), Ok(())),
            ("IXFR with opt", message([1, 0], [1, 0, 1, 1], &[IXFR, SOA, opt]), Ok(())),
            ("SOA that is announced only", message([1, 0], [1, 0, 1, 0], &[IXFR]), formerr),
            ("SOA beside another type", message([1, 0], [1, 0, 1, 0], &[WEB, SOA]), formerr),
            ("SOA beyond the count", message([1, 0], [1, 0, 0, 0], &[IXFR, SOA]), formerr),
            ("cut SOA", message([1, 0], [1, 0, 1, 0], &[IXFR, &SOA[..33]]), formerr),
            ("trailing SOA", message([1, 0], [1, 0, 1, 0], &[IXFR, SOA, b"x"]), formerr),
            ("two SOAs", message([1, 0], [1, 0, 2, 0], &[IXFR, SOA, SOA]), formerr),
            (
                "not SOA",
                message([1, 0], [1, 0, 1, 0], &[IXFR, &[&[0, 0, 1], &SOA[4..]].concat()]),
                formerr,
            ),
            ("opt", message([1, 0], [1, 0, 0, 1], &[WEB, opt]), Ok(())),
            ("cut opt", message([1, 0], [1, 0, 0, 1], &[WEB, &opt[..10]]), formerr),
            ("opt not at root", message([1, 0], [1, 0, 0, 1], &[WEB, b"\x01a", opt]), formerr),
            (
                "not opt",
                message([1, 0], [1, 0, 0, 1], &[WEB, b"\0\0\x01\0\x01\0\0\0\0\0\0"]),
                formerr,
            ),
            (
                "version 1",
                { message([1, 0], [1, 0, 0, 1], &[WEB, b"\0\0\x29\x04\xd0\0\x01\0\0\0\0"]) },
                Err(Refusal::Rcode(rcode::BADVERS)),
            ),
            (
                "option past the end",
                {
                    message(
                        [1, 0],
                        [1, 0, 0, 1],
                        &[WEB, b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\0\x0a\0\x09"],
                    )
                },
                formerr,
            ),
        ];
        for (case, message, expected) in rows {
            let mut name = NameBuffer::new();
            let screened = Query::screen(message, Transport::Udp, &mut name).map(|_| ());
            assert_eq!(screened, *expected, "{case}");
            let mut out = [0; 512];
            if let Err(refusal) = screened {
                let len = refuse(message, refusal, UDP_SIZE_MAX as u16, &mut out);
                assert_eq!(len.is_none(), refusal == Refusal::Silence, "{case}");
                assert!(len.is_none_or(|_| out[..2] == message[..2] && out[2] & 0x80 != 0));
            }
        }
    }

    #[test]
    fn cookies_have_the_lengths_of_the_protocol() {
        let formerr = Err(Refusal::Rcode(rcode::FORMERR));
        for length in 0..=48_u8 {
            for (before, after) in [(&b""[..], &b""[..]), (b"\0\x0b\0\0", b"\0\x0a\0\x03abc")] {
                let data: Vec<u8> = (1..=length).collect();
                let cookie = [&[0, 10, 0, length][..], &data].concat();
                let options = [before, &cookie, after].concat();
                let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0";
                let opt = [opt, &[options.len() as u8][..], &options].concat();
                let message = message([1, 0], [1, 0, 0, 1], &[WEB, &opt]);
                let mut name = NameBuffer::new();
                let query = Query::screen(&message, Transport::Udp, &mut name);
                let expected = match length {
                    8 | 16..=40 => Ok(Some([1, 2, 3, 4, 5, 6, 7, 8])),
                    _ => formerr,
                };
                assert_eq!(query.map(|query| query.client_cookie()), expected, "{length}");
            }
        }
        let message = message([1, 0], [1, 0, 0, 0], &[WEB]);
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
        assert_eq!(query.client_cookie(), None);
    }

    #[test]
    fn a_full_reply_has_room_for_its_cookie() {
        let opt = b"\0\0\x29\x02\x00\0\0\0\0\0\x0c\0\x0a\0\x08abcdefgh";
        let message = message([0x01, 0], [1, 0, 0, 1], &[WEB, opt]);
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
        for sets in 1..3 {
            let mut buffer = [0; UDP_SIZE_MAX];
            let mut reply = Reply::new(&query, &mut buffer);
            for _ in 0..sets {
                reply.set_cookie([7; 24]);
            }
            let mut copy = [0; UDP_SIZE_MAX];
            let mut empty = Reply::new(&query, &mut copy);
            empty.set_cookie([9; 24]);
            let len = empty.finish();
            assert_eq!(cookie_of(&copy[..len]), Some([9; 24]));
            let len = Reply::new(&query, &mut copy).finish();
            assert_eq!(cookie_of(&copy[..len]), None);
            let mut pushed = 0;
            let rdata: &[&[u8]] = &[&[10, 0, 0, 1]];
            while reply.push(Section::Answer, Owner::Question, rtype::A, 30, rdata).is_some() {
                pushed += 1;
            }
            reply.set_error(ErrorCode::Other, "no room for this text");
            let len = reply.finish();
            assert_eq!((pushed, len), (27, 12 + 14 + 27 * 16 + 11 + 28));
            assert_eq!(buffer[len - 30..len - 24], [0, 28, 0, 10, 0, 24]);
            assert_eq!(buffer[len - 24..len], [7; 24]);
        }
    }

    #[test]
    fn a_reply_holds_whole_records_and_opt() {
        let opt = b"\0\0\x29\x02\x00\0\0\x80\0\0\0";
        let message = message([0x01, 0], [1, 0, 0, 1], &[WEB, opt]);
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
        let mut buffer = [0; UDP_SIZE_MAX];
        let mut reply = Reply::new(&query, &mut buffer);
        let mut pushed = 0;
        while reply
            .push(Section::Answer, Owner::Question, rtype::A, 30, &[&[10, 0], &[0, pushed]])
            .is_some()
        {
            pushed += 1;
        }
        reply.set_truncated();
        reply.set_error(ErrorCode::Other, "no room for this text");
        let len = reply.finish();
        assert_eq!(pushed, 29); // (512 - 12 - 14 - 11) / 16
        assert_eq!(len, 12 + 14 + 29 * 16 + 11);
        assert_eq!(buffer[6..12], [0, 29, 0, 0, 0, 1]);
        assert_eq!(buffer[2] & 0x02, 0x02);
        assert_eq!(buffer[len - 11..len - 3], [0, 0, 41, 0x04, 0xd0, 0, 0, 0x80]);
    }
}
