//! How many questions about the names of one zone go to upstreams: random names below one domain
//! must not take the room of all others.
//!
//! Core. A zone is guessed from the name. Each has a number of tokens that grows with time; a
//! question takes one, and an answer that shows that the name exists gives it back. So a zone whose
//! names exist is hardly limited, and a flood of random names is.

use std::hash::{BuildHasher, RandomState};

use shared::clock::Moment;
use shared::wire::labels;

/// The tokens of all zones; several zones share a place if their hashes meet.
#[derive(Debug)]
pub(super) struct Zones {
    places: Box<[Tokens]>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Tokens {
    left: f32,
    at: Moment,
}

impl Zones {
    pub fn new() -> Self {
        let full = Tokens { left: BURST, at: Moment::default() };
        Self { places: vec![full; PLACES].into(), hasher: RandomState::new() }
    }

    /// Takes a token of the zone of `name`, in lower-case wire form. Returns the place to give it
    /// back to; `None` if there is no token left.
    pub fn take(&mut self, name: &[u8], now: Moment) -> Option<u16> {
        let place = self.hasher.hash_one(zone(name)) as usize % PLACES;
        let tokens = &mut self.places[place];
        let grown = now.since(tokens.at).as_secs_f32() * PER_SECOND;
        tokens.left = (tokens.left + grown).min(BURST);
        tokens.at = now;
        if tokens.left < 1.0 {
            return None;
        }
        tokens.left -= 1.0;
        Some(place as u16)
    }

    /// Gives a token back: the name exists.
    pub fn give_back(&mut self, place: u16) {
        let tokens = &mut self.places[usize::from(place)];
        tokens.left = (tokens.left + 1.0).min(BURST);
    }
}

/// Returns the part of `name` that is likely to belong to one owner: its last two labels, three if
/// the last but one is short (`co.uk`), four below `arpa`.
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

/// Places among which zones are spread.
const PLACES: usize = 4_096;
/// Tokens that a zone gets in a second ...
const PER_SECOND: f32 = 800.0;
/// ... and has at most.
const BURST: f32 = 200.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::route::wire;

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
            let name = wire(name).unwrap();
            assert_eq!(zone(&name), &*wire(expected).unwrap(), "{expected}");
        }
        assert_eq!(zone(&[0]), &[0]);
    }

    #[test]
    fn a_flood_is_limited_and_names_that_exist_are_not() {
        let name = wire("x.victim.example").unwrap();
        let mut zones = Zones::new();
        let mut now = Moment::from_nanos(1_000_000_000);
        let mut passed = 0;
        for _ in 0..50_000 {
            now = now + Duration::from_micros(200);
            passed += usize::from(zones.take(&name, now).is_some());
        }
        let expected = 10 * PER_SECOND as usize + BURST as usize;
        assert!(passed.abs_diff(expected) <= 20, "{passed}");
        let other = wire("x.other.example").unwrap();
        assert!(zones.take(&other, now).is_some());
        for _ in 0..50_000 {
            let place = zones.take(&other, now).expect("each token was given back");
            zones.give_back(place);
        }
    }
}
