//! Answers questions about the server itself, class CHAOS, as dnsmasq does, because tools query
//! these names.
//!
//! Core. Maps the names and formats the numbers, which are passed in.

use shared::wire::{Query, Reply, class, rtype};

/// The numbers for the names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Answers from the cache: `hits.bind`.
    pub hits: u64,
    /// Questions that were sent to upstreams: `misses.bind`.
    pub misses: u64,
    /// Entries stored: `insertions.bind`.
    pub insertions: u64,
    /// Entries evicted before they expired: `evictions.bind`.
    pub evictions: u64,
    /// The bound of the cache in entries: `cachesize.bind`.
    pub cache_size: u64,
}

/// The figure for a name in lower-case wire form.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// A number.
    Figure(fn(&Figures) -> u64),
    /// `servers.bind`: a text for each upstream.
    Servers,
    /// `version.bind`.
    Version,
}

/// Returns the figure for `name`; `None` if the name is unknown.
pub fn name(name: &[u8]) -> Option<Name> {
    let first = name.strip_suffix(b"\x04bind\0")?;
    Some(match first {
        b"\x04hits" => Name::Figure(|figures| figures.hits),
        b"\x06misses" => Name::Figure(|figures| figures.misses),
        b"\x0ainsertions" => Name::Figure(|figures| figures.insertions),
        b"\x09evictions" => Name::Figure(|figures| figures.evictions),
        b"\x09cachesize" => Name::Figure(|figures| figures.cache_size),
        b"\x07servers" => Name::Servers,
        b"\x07version" => Name::Version,
        _ => return None,
    })
}

/// Answers `query` with `texts`, each a string of one TXT record of TTL 0. Queries for types other
/// than TXT get no record.
pub fn answer(query: &Query<'_>, texts: &[&str], reply: &mut Reply<'_>) {
    if !matches!(query.qtype, rtype::TXT | rtype::ANY) {
        return;
    }
    let mut rdata = Vec::new();
    for text in texts {
        let bytes = &text.as_bytes()[..text.len().min(255)];
        rdata.push(bytes.len() as u8);
        rdata.extend_from_slice(bytes);
    }
    let [t1, t0] = rtype::TXT.to_be_bytes();
    let [c1, c0] = class::CH.to_be_bytes();
    let mut record = vec![0xc0, 12, t1, t0, c1, c0, 0, 0, 0, 0];
    record.extend((rdata.len() as u16).to_be_bytes());
    record.extend(rdata);
    if reply.push_wire([1, 0, 0], &record).is_none() {
        reply.set_truncated();
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use shared::wire::{NameBuffer, Transport};

    use super::*;

    #[test]
    fn the_names_are_dnsmasqs() {
        let figures = Figures { hits: 1, misses: 2, insertions: 3, evictions: 4, cache_size: 5 };
        let rows: [(&[u8], Option<u64>); 8] = [
            (b"\x04hits\x04bind\0", Some(1)),
            (b"\x06misses\x04bind\0", Some(2)),
            (b"\x0ainsertions\x04bind\0", Some(3)),
            (b"\x09evictions\x04bind\0", Some(4)),
            (b"\x09cachesize\x04bind\0", Some(5)),
            (b"\x05other\x04bind\0", None),
            (b"\x04bind\0", None),
            (b"\0", None),
        ];
        for (wire, expected) in rows {
            let told = match name(wire) {
                Some(Name::Figure(figure)) => Some(figure(&figures)),
                _ => None,
            };
            assert_eq!(told, expected, "{wire:?}");
        }
        assert!(matches!(name(b"\x07servers\x04bind\0"), Some(Name::Servers)));
        assert!(matches!(name(b"\x07version\x04bind\0"), Some(Name::Version)));
    }

    #[test]
    fn texts_are_strings_of_one_record_of_class_chaos() {
        let long = "x".repeat(300);
        for (qtype, texts, expected) in [
            (rtype::TXT, vec!["7"], Some("7")),
            (rtype::ANY, vec!["7"], Some("7")),
            (rtype::TXT, vec!["10.0.0.1#53 1 0", "::1#53 2 1"], Some("10.0.0.1#53 1 0::1#53 2 1")),
            (rtype::TXT, vec![&long], Some(&long[..255])),
            (rtype::A, vec!["7"], None),
        ] {
            let [t1, t0] = qtype.to_be_bytes();
            let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            query.extend_from_slice(b"\x04hits\x04bind\0");
            query.extend([t1, t0, 0, 3]);
            let mut buffer = NameBuffer::new();
            let query = Query::screen(&query, Transport::Udp, &mut buffer).unwrap();
            let mut out = [0; 512];
            let mut reply = Reply::new(&query, &mut out);
            answer(&query, &texts, &mut reply);
            let len = reply.finish();
            let message = Message::from_vec(&out[..len]).unwrap();
            let told = message.answers.first().map(|record| record.data.to_string());
            assert_eq!(told.as_deref(), expected, "{texts:?}");
            assert!(message.answers.iter().all(|record| u16::from(record.dns_class) == class::CH));
        }
    }
}
