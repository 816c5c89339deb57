//! Limits how many questions about the names of one zone are sent to upstreams: random names below
//! one domain must not take the room of all others.
//!
//! Core. The zones of a name are guessed: its parent, and the domain that probably has one owner.
//! Each has tokens that grow with time. A question takes one token of both, and an answer that
//! shows that the name exists returns them. So a zone whose names exist is hardly limited, but a
//! flood of random names is. The parent has fewer tokens than the domain, so a flood below one
//! parent leaves some to the other names of the domain.

use std::hash::{BuildHasher, RandomState};

use shared::clock::Moment;
use shared::wire::{labels, with_ancestors};

/// The tokens of all zones, first of parents, then of domains. Zones with the same limit share a
/// place if their hashes collide.
#[derive(Debug)]
pub(super) struct Zones {
    places: Box<[Tokens]>,
    hasher: RandomState,
}

/// How many tokens a zone has.
#[derive(Clone, Copy, Debug)]
struct Limit {
    per_second: u32,
    /// The maximum of tokens.
    burst: f32,
}

/// The places from which the tokens of a question were taken.
pub(super) type Places = [u16; 2];

#[derive(Clone, Copy, Debug)]
struct Tokens {
    left: f32,
    at: Moment,
}

impl Zones {
    pub fn new() -> Self {
        let full = Tokens { left: ZONE.burst, at: Moment::default() };
        Self { places: vec![full; 2 * PLACES].into(), hasher: RandomState::new() }
    }

    /// Takes a token of each zone of `name`, in lower-case wire form. Returns their places, for
    /// [`Zones::give_back`]; `None` if one of the zones has run out.
    pub fn take(&mut self, name: &[u8], now: Moment) -> Option<Places> {
        let places = [(parent(name), PARENT, 0), (zone(name), ZONE, PLACES)];
        let places = places.map(|(zone, limit, first)| {
            let place = first + self.hasher.hash_one(zone) as usize % PLACES;
            let tokens = &mut self.places[place];
            let grown = now.since(tokens.at).as_secs_f32() * limit.per_second as f32;
            tokens.left = (tokens.left + grown).min(limit.burst);
            tokens.at = now;
            place as u16
        });
        if places.iter().any(|&place| self.places[usize::from(place)].left < 1.0) {
            return None;
        }
        for place in places {
            self.places[usize::from(place)].left -= 1.0;
        }
        Some(places)
    }

    /// Gives the tokens back, because the name exists.
    pub fn give_back(&mut self, places: Places) {
        for place in places {
            self.places[usize::from(place)].left += 1.0;
        }
    }
}

/// Returns the name above `name`; `name` itself if it has one label.
fn parent(name: &[u8]) -> &[u8] {
    with_ancestors(name).nth(1).filter(|parent| parent.len() > 1).unwrap_or(name)
}

/// Returns the part of `name` that probably belongs to one owner: its last two labels, three if the
/// last but one is short (`co.uk`), four below `arpa`.
fn zone(name: &[u8]) -> &[u8] {
    let count = labels(name).count();
    let label = |from_end: usize| labels(name).nth(count.wrapping_sub(from_end)).unwrap_or(b"");
    let kept = match (label(1), label(2)) {
        (b"arpa", _) => 4,
        (_, short) if short.len() <= 3 => 3,
        _ => 2,
    };
    let skipped = labels(name).take(count.saturating_sub(kept));
    &name[skipped.map(|label| 1 + label.len()).sum()..]
}

/// Places among which the zones of each limit are spread.
const PLACES: usize = 4_096;
/// The limit of the parent of a name. A page or a crawler can ask for many names at once.
const PARENT: Limit = Limit { per_second: 500, burst: 700.0 };
/// The limit of the domain that probably has one owner.
const ZONE: Limit = Limit { per_second: 800, burst: 1_000.0 };

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use shared::name::parse;

    #[test]
    fn names_below_many_parents_share_the_tokens_of_their_domain() {
        let mut zones = Zones::new();
        let mut now = Moment::from_nanos(1_000_000_000);
        let mut passed = 0;
        for number in 0..50_000 {
            now = now + Duration::from_micros(200);
            let name = parse(&format!("x.r{number}.victim.example")).unwrap();
            passed += usize::from(zones.take(&name, now).is_some());
        }
        let expected = 10 * ZONE.per_second as usize + ZONE.burst as usize;
        assert!(passed.abs_diff(expected) <= 50, "{passed}");
    }

    #[test]
    fn a_zone_is_what_one_owner_has() {
        let rows = [
            ("a.b.example.com", "example.com"),
            ("example.com", "example.com"),
            ("com", "com"),
            ("a.shop.co.uk", "shop.co.uk"),
            ("4.3.2.10.in-addr.arpa", "2.10.in-addr.arpa"),
        ];
        for (name, expected) in rows {
            let name = parse(name).unwrap();
            assert_eq!(zone(&name), &*parse(expected).unwrap(), "{expected}");
        }
        assert_eq!(zone(&[0]), &[0]);
    }

    #[test]
    fn a_flood_is_limited_and_names_that_exist_are_not() {
        let name = parse("x.victim.example").unwrap();
        let mut zones = Zones::new();
        let mut now = Moment::from_nanos(1_000_000_000);
        let mut passed = 0;
        for _ in 0..50_000 {
            now = now + Duration::from_micros(200);
            passed += usize::from(zones.take(&name, now).is_some());
        }
        let expected = 10 * PARENT.per_second as usize + PARENT.burst as usize;
        assert!(passed.abs_diff(expected) <= 20, "{passed}");
        let sibling = parse("x.a.victim.example").unwrap();
        assert!(zones.take(&sibling, now).is_some(), "other names of the domain have tokens");
        let other = parse("x.other.example").unwrap();
        assert!(zones.take(&other, now).is_some());
        for _ in 0..50_000 {
            let place = zones.take(&other, now).expect("each token was given back");
            zones.give_back(place);
        }
    }
}
