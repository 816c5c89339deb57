//! Which addresses are the cluster's. A reverse name of such an address exists only if it is known
//! here. Other servers answer for the names of all other addresses.
//!
//! Core. Knows sets of addresses, and which reverse names change with them; does not know which
//! objects or flags the sets are read from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared::prefix::{NOT_GLOBAL, Prefix};

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    source: Source,
    v4: Box<[Span]>,
    v6: Box<[Span]>,
}

/// The source of a set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// No source: every address that is not global counts (RFC 6890).
    Default,
    /// The flag `--cluster-cidr`.
    Flag,
    /// ServiceCIDRs and Nodes.
    Objects,
}

impl Source {
    /// Returns the word that logs and metrics use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Flag => "flag",
            Self::Objects => "objects",
        }
    }
}

/// Addresses from the first to the last, as numbers. Spans of one family are in order, and neither
/// overlap nor touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    first: u128,
    last: u128,
}

/// The reverse name of an address without some labels from the left: it and the names below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReverseZone {
    /// The first address whose name is here.
    pub first: IpAddr,
    /// How many labels of its reverse name to leave out.
    pub labels: usize,
}

impl Default for Ranges {
    /// Every address that is not global.
    fn default() -> Self {
        Self::of(Source::Default, NOT_GLOBAL)
    }
}

impl Ranges {
    /// Returns the addresses of `prefixes`, which were read from `source`.
    pub fn of(source: Source, prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            let spans = if prefix.first().is_ipv4() { &mut v4 } else { &mut v6 };
            spans.push(Span { first: number(prefix.first()), last: number(prefix.last()) });
        }
        Self { source, v4: merged(v4), v6: merged(v6) }
    }

    /// Returns the same addresses and those of `other`.
    pub fn with(&self, other: &Self) -> Self {
        let both = |mine: &[Span], others: &[Span]| merged([mine, others].concat());
        Self { source: self.source, v4: both(&self.v4, &other.v4), v6: both(&self.v6, &other.v6) }
    }

    /// Returns its source.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Returns whether it has no address.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Returns whether the addresses from `first` to `last`, of one family, are all in it. An IPv4
    /// address written as IPv6 counts as IPv6.
    pub fn hold(&self, first: IpAddr, last: IpAddr) -> bool {
        holds(self.spans(first.is_ipv6()), number(first), number(last))
    }

    /// Returns the shortest list of its prefixes, IPv4 first, sorted.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        let v4 = self.v4.iter().flat_map(|span| span.prefixes(V4_BITS));
        v4.chain(self.v6.iter().flat_map(|span| span.prefixes(V6_BITS)))
    }

    /// Returns the shortest list of the reverse names that are the cluster's in only one of `self`
    /// and `other`: those of addresses and of their ancestors, each with all names below it.
    ///
    /// If the list of a family would be too long, it is replaced by all reverse names of the
    /// family.
    pub fn changed(&self, other: &Self) -> Vec<ReverseZone> {
        let mut changed = Vec::new();
        for family in [Family { bits: V4_BITS, label: 8 }, Family { bits: V6_BITS, label: 4 }] {
            let is_v6 = family.bits == V6_BITS;
            let (mine, others) = (self.spans(is_v6), other.spans(is_v6));
            let start = changed.len();
            let all = Span { first: 0, last: u128::MAX >> (V6_BITS - family.bits) };
            if !family.walk([mine, others], all, family.bits, &mut changed) {
                changed.truncate(start);
                changed.push(family.zone(0, family.bits));
            }
        }
        changed
    }

    fn spans(&self, is_v6: bool) -> &[Span] {
        if is_v6 { &self.v6 } else { &self.v4 }
    }
}

/// Writes the first few prefixes, for people.
impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, prefix) in self.prefixes().take(SHOWN_MAX + 1).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            match index {
                SHOWN_MAX => write!(f, "{separator}..")?,
                _ => write!(f, "{separator}{prefix}")?,
            }
        }
        Ok(())
    }
}

/// How the addresses of a family are written as names.
#[derive(Clone, Copy)]
struct Family {
    /// Bits of an address.
    bits: u32,
    /// Bits that one label of its reverse name represents.
    label: u32,
}

impl Family {
    /// Adds to `changed` the highest names in `block` that are wholly in only one of `sets`. The
    /// addresses of `block` share all but their low `bits` bits. Returns `false` if there are too
    /// many.
    fn walk(
        self,
        sets: [&[Span]; 2],
        block: Span,
        bits: u32,
        changed: &mut Vec<ReverseZone>,
    ) -> bool {
        let [mine, others] = sets.map(|spans| overlapping(spans, block));
        let clip = |span: &Span| Span {
            first: span.first.max(block.first),
            last: span.last.min(block.last),
        };
        if mine.iter().map(clip).eq(others.iter().map(clip)) {
            return true;
        }
        let [one, other] = [mine, others].map(|spans| holds(spans, block.first, block.last));
        if one != other {
            changed.push(self.zone(block.first, bits));
            return changed.len() <= CHANGED_MAX;
        }
        // Neither has all of it, so it cannot be a single address.
        let below = bits - self.label;
        (0..1_u128 << self.label).all(|index| {
            let first = block.first | index << below;
            let last = first | ((1 << below) - 1);
            self.walk([mine, others], Span { first, last }, below, changed)
        })
    }

    fn zone(self, first: u128, bits: u32) -> ReverseZone {
        ReverseZone { first: address(first, self.bits), labels: (bits / self.label) as usize }
    }
}

impl Span {
    /// Returns the shortest list of prefixes with exactly its addresses, which have `bits` bits.
    fn prefixes(self, bits: u32) -> impl Iterator<Item = Prefix> {
        let mut next = Some(self.first);
        std::iter::from_fn(move || {
            let first = next?;
            // As many low bits as are 0 in the first address and do not exceed the last address.
            let mut low = first.trailing_zeros().min(bits);
            while ones(low) > self.last - first {
                low -= 1;
            }
            let last = first + ones(low);
            next = (last < self.last).then(|| last + 1);
            Some(Prefix::of(address(first, bits), (bits - low) as u8))
        })
    }
}

/// Returns a number with `bits` low ones.
fn ones(bits: u32) -> u128 {
    u128::MAX.checked_shr(V6_BITS - bits).unwrap_or(0)
}

/// Returns the same addresses sorted, in spans that neither overlap nor touch.
fn merged(mut spans: Vec<Span>) -> Box<[Span]> {
    spans.sort_unstable();
    spans.dedup_by(|next, span| {
        let touches = next.first <= span.last.saturating_add(1);
        if touches {
            span.last = span.last.max(next.last);
        }
        touches
    });
    spans.into()
}

/// Returns those of `spans` that have addresses of `block`.
fn overlapping(spans: &[Span], block: Span) -> &[Span] {
    let start = spans.partition_point(|span| span.last < block.first);
    let end = spans.partition_point(|span| span.first <= block.last);
    &spans[start..end]
}

/// Returns whether one of `spans` has all addresses from `first` to `last`.
fn holds(spans: &[Span], first: u128, last: u128) -> bool {
    let at = spans.partition_point(|span| span.last < last);
    spans.get(at).is_some_and(|span| span.first <= first)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Returns the address with that number in the family whose addresses have `bits` bits.
fn address(number: u128, bits: u32) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if bits == V4_BITS => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

const V4_BITS: u32 = 32;
const V6_BITS: u32 = 128;
/// If more names than this changed, all names of the family are announced. A cache then removes
/// more than it must, but the list stays short.
const CHANGED_MAX: usize = 512;
/// The most prefixes that are shown.
const SHOWN_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::reverse;
    use shared::name::Text;

    fn ranges(texts: &[&str]) -> Ranges {
        let prefixes = texts.iter().map(|text| shared::prefix::parse(text).unwrap());
        Ranges::of(Source::Objects, prefixes)
    }

    fn name(zone: &ReverseZone) -> String {
        let name = reverse(zone.first);
        let text = Text(name.wire()).to_string();
        text.splitn(zone.labels + 1, '.').last().unwrap().to_owned()
    }

    /// Returns whether `ranges` hold every address below the reverse name `text`.
    fn own(ranges: &Ranges, text: &str) -> bool {
        let name = crate::name::Name::parse(text).unwrap();
        let (first, last) = shared::reverse::parse(name.wire()).unwrap().range();
        ranges.hold(first, last)
    }

    #[test]
    fn names_above_and_below_odd_prefixes() {
        let check = |texts: &[&str], inside: &[&str], outside: &[&str]| {
            let ranges = ranges(texts);
            for name in inside {
                assert!(own(&ranges, name), "{name} in {texts:?}");
            }
            for name in outside {
                assert!(!own(&ranges, name), "{name} not in {texts:?}");
            }
        };
        check(
            &["10.96.0.0/12"],
            &["96.10.in-addr.arpa", "111.10.in-addr.arpa", "255.255.111.10.in-addr.arpa"],
            &["10.in-addr.arpa", "95.10.in-addr.arpa", "112.10.in-addr.arpa", "in-addr.arpa"],
        );
        check(
            &["10.43.16.0/20"],
            &["16.43.10.in-addr.arpa", "31.43.10.in-addr.arpa", "1.31.43.10.in-addr.arpa"],
            &["43.10.in-addr.arpa", "15.43.10.in-addr.arpa", "32.43.10.in-addr.arpa"],
        );
        check(
            &["10.0.0.128/25", "10.0.0.9"],
            &["128.0.0.10.in-addr.arpa", "255.0.0.10.in-addr.arpa", "9.0.0.10.in-addr.arpa"],
            &["0.0.10.in-addr.arpa", "127.0.0.10.in-addr.arpa", "8.0.0.10.in-addr.arpa"],
        );
        // Halves that together are all addresses below a name.
        check(&["10.0.0.0/9", "10.128.0.0/9"], &["10.in-addr.arpa"], &["11.in-addr.arpa"]);
        check(&["0.0.0.0/0"], &["in-addr.arpa", "8.8.8.8.in-addr.arpa"], &["ip6.arpa"]);
        check(
            &["fd00:10:96::/108"],
            &[
                "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa",
                "f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa",
            ],
            &["6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa", "d.f.ip6.arpa"],
        );
        check(
            &["fc00::/7", "2600:1::/61"],
            &["d.f.ip6.arpa", "c.f.ip6.arpa", "7.0.0.0.0.0.0.0.1.0.0.0.0.0.6.2.ip6.arpa"],
            &["f.ip6.arpa", "e.f.ip6.arpa", "8.0.0.0.0.0.0.0.1.0.0.0.0.0.6.2.ip6.arpa"],
        );
        check(&["::/0"], &["ip6.arpa", "d.f.ip6.arpa"], &["in-addr.arpa"]);
        // IPv4 written as IPv6 has its own name, which no Service holds.
        let mapped = "7.0.0.0.0.6.a.0.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa";
        check(&["10.96.0.0/12"], &[], &[mapped]);
    }

    #[test]
    fn the_highest_names_that_change_are_listed() {
        let check = |before: &[&str], after: &[&str], expected: &[&str]| {
            let (before, after) = (ranges(before), ranges(after));
            for changed in [before.changed(&after), after.changed(&before)] {
                assert_eq!(changed.iter().map(name).collect::<Vec<_>>(), expected);
            }
        };
        check(&["10.96.0.0/12"], &["10.96.0.0/12"], &[]);
        check(&["10.96.0.0/12"], &["10.96.0.0/13", "10.104.0.0/13"], &[]);
        check(&[], &["10.50.0.0/16"], &["50.10.in-addr.arpa."]);
        check(
            &["10.96.0.0/12"],
            &["10.96.0.0/12", "10.112.0.0/15"],
            &["112.10.in-addr.arpa.", "113.10.in-addr.arpa."],
        );
        check(&["10.0.0.0/9"], &["10.0.0.0/8"], &["10.in-addr.arpa."]);
        check(
            &["10.0.0.0/31"],
            &["10.0.0.0/30"],
            &["2.0.0.10.in-addr.arpa.", "3.0.0.10.in-addr.arpa."],
        );
        check(&["10.0.0.0/8"], &["11.0.0.0/8"], &["10.in-addr.arpa.", "11.in-addr.arpa."]);
        check(&["0.0.0.0/0"], &["0.0.0.0/1"], &["in-addr.arpa."]);
        check(&["::/0"], &["fd00::/8"], &["ip6.arpa."]);
        check(&["fd00::/63"], &["fd00::/64"], &["1.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa."]);
        let every_other: Vec<String> =
            (0..2_000).map(|n| format!("10.{}.{}.0/28", n / 200, n % 200)).collect();
        let many: Vec<&str> = every_other.iter().map(String::as_str).collect();
        check(&many, &["fd00::/16"], &["in-addr.arpa.", "0.0.d.f.ip6.arpa."]);
    }

    #[test]
    fn sets_are_shown_as_prefixes() {
        let check = |texts: &[&str], expected: &str| {
            assert_eq!(ranges(texts).to_string(), expected);
        };
        check(&["10.96.0.0/13", "10.104.0.0/13", "10.99.0.0/16"], "10.96.0.0/12");
        check(&["10.0.0.255", "10.0.1.0/24", "10.0.0.254"], "10.0.0.254/31, 10.0.1.0/24");
        check(&["fd00::/8", "10.0.0.7"], "10.0.0.7/32, fd00::/8");
        check(&["0.0.0.0/0", "::/0"], "0.0.0.0/0, ::/0");
        check(&[], "");
        assert_eq!(Ranges::default().to_string().matches(", ").count(), SHOWN_MAX);
        assert!(Ranges::default().to_string().ends_with(", .."));
    }
}
