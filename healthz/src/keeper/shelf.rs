//! Which sockets are kept for which program, and for how long.
//!
//! Core.
//!
//! A program holds its place while its connection is open. Without a holder, the sockets of a place
//! are closed at a moment that only the end of a program sets which had left copies. So a program
//! that dies at each start does not keep them open.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::clock::Moment;
use shared::keep::{Bundle, Group};

/// The sockets of all programs. `S` is a descriptor, and anything in tests.
#[derive(Debug)]
pub struct Shelf<S> {
    keep_for: Duration,
    places: BTreeMap<String, Place<S>>,
}

/// The place of one program.
#[derive(Debug)]
struct Place<S> {
    bundles: Vec<Bundle<S>>,
    /// The connection of the program that runs.
    holder: Option<u64>,
    /// When the sockets are closed unless a program takes them; `None` if the holder left them.
    end: Option<Moment>,
}

/// Why a program gets no place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A running program has it.
    #[error("a running program of the same name keeps its sockets here")]
    Taken,
    /// There are too many programs.
    #[error("sockets of {PROGRAMS_MAX} programs are kept already")]
    Full,
}

impl<S> Shelf<S> {
    /// Returns an empty shelf. Sockets are kept for `keep_for` after the end of their program.
    pub fn new(keep_for: Duration) -> Self {
        Self { keep_for, places: BTreeMap::new() }
    }

    /// Returns the connection of the running program of this name.
    pub fn holder(&self, program: &str) -> Option<u64> {
        self.places.get(program)?.holder
    }

    /// Gives the place of `program` to `connection`. Returns the sockets that are `wanted` exactly
    /// as they are. The others are closed.
    pub fn take(
        &mut self,
        program: &str,
        wanted: &[Group],
        connection: u64,
    ) -> Result<&[Bundle<S>], Refusal> {
        if self.holder(program).is_some() {
            return Err(Refusal::Taken);
        }
        if !self.places.contains_key(program) && self.places.len() >= PROGRAMS_MAX {
            return Err(Refusal::Full);
        }
        let new = || Place { bundles: Vec::new(), holder: None, end: None };
        let place = self.places.entry(program.to_owned()).or_insert_with(new);
        place.holder = Some(connection);
        place.bundles.retain(|bundle| wanted.contains(&bundle.group));
        Ok(&place.bundles)
    }

    /// Replaces the sockets of the program that has this connection. Returns its name, or `None` if
    /// it has no place.
    pub fn keep(&mut self, connection: u64, bundles: Vec<Bundle<S>>) -> Option<&str> {
        let (program, place) = self.place(connection)?;
        (place.bundles, place.end) = (bundles, None);
        Some(program)
    }

    /// Ends the connection of a program, and keeps its sockets for a while. Returns its name if
    /// there are any.
    pub fn leave(&mut self, connection: u64, now: Moment) -> Option<String> {
        let end = now + self.keep_for;
        let (program, place) = self.place(connection)?;
        let program = program.to_owned();
        place.holder = None;
        place.end.get_or_insert(end);
        if place.bundles.is_empty() {
            self.places.remove(&program);
            return None;
        }
        Some(program)
    }

    /// Closes the sockets whose time has passed. Returns the names of their programs.
    pub fn expire(&mut self, now: Moment) -> Vec<String> {
        let mut ended = Vec::new();
        self.places.retain(|program, place| {
            let is_over = place.holder.is_none() && place.end.is_some_and(|end| end <= now);
            if is_over {
                ended.push(program.clone());
            }
            !is_over
        });
        ended
    }

    /// Returns when [`Shelf::expire`] must be called next.
    pub fn next_end(&self) -> Option<Moment> {
        let left = self.places.values().filter(|place| place.holder.is_none());
        left.filter_map(|place| place.end).min()
    }

    /// Returns the number of sockets of each program.
    pub fn counts(&self) -> impl Iterator<Item = (String, usize)> {
        let count = |place: &Place<S>| place.bundles.iter().map(|one| one.sockets.len()).sum();
        self.places.iter().map(move |(program, place)| (program.clone(), count(place)))
    }

    fn place(&mut self, connection: u64) -> Option<(&str, &mut Place<S>)> {
        let mut places = self.places.iter_mut();
        let (program, place) = places.find(|(_, place)| place.holder == Some(connection))?;
        Some((program, place))
    }
}

/// Programs with a place: kubedns and dnscache, and room for others of the pod.
const PROGRAMS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use shared::wire::Transport;

    use super::*;

    const KEEP_FOR: Duration = Duration::from_secs(30);

    fn second(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn group(transport: Transport, port: u16, sockets: usize) -> Group {
        Group { transport, address: ([127, 0, 0, 1], port).into(), sockets }
    }

    /// Two UDP sockets and a TCP listener on port 53.
    fn groups() -> Vec<Group> {
        vec![group(Transport::Udp, 53, 2), group(Transport::Tcp, 53, 1)]
    }

    fn copies() -> Vec<Bundle<u8>> {
        shared::keep::bundles(groups(), vec![1, 2, 3])
    }

    /// A shelf with the copies of a dnscache that ended at second 0.
    fn left() -> Shelf<u8> {
        let mut shelf = Shelf::new(KEEP_FOR);
        assert_eq!(shelf.take("dnscache", &groups(), 1).unwrap().len(), 0);
        assert_eq!(shelf.keep(1, copies()), Some("dnscache"));
        assert_eq!(shelf.next_end(), None);
        assert_eq!(shelf.leave(1, second(0)).as_deref(), Some("dnscache"));
        assert_eq!(shelf.next_end(), Some(second(30)));
        shelf
    }

    #[test]
    fn the_next_start_gets_what_it_wants_and_the_rest_is_closed() {
        let rows = [
            (groups(), vec![1, 2, 3]),
            (vec![], vec![]),
            (vec![group(Transport::Udp, 53, 1), group(Transport::Tcp, 53, 1)], vec![3]),
            (vec![group(Transport::Udp, 53, 2)], vec![1, 2]),
            (vec![group(Transport::Udp, 54, 2), group(Transport::Tcp, 54, 1)], vec![]),
        ];
        for (wanted, expected) in rows {
            let mut shelf = left();
            let given = shelf.take("dnscache", &wanted, 2).unwrap().iter();
            let given: Vec<u8> = given.flat_map(|bundle| bundle.sockets.clone()).collect();
            assert_eq!(given, expected, "{wanted:?}");
            let kept: Vec<_> = shelf.counts().collect();
            assert_eq!(kept, [("dnscache".to_owned(), expected.len())]);
        }
    }

    #[test]
    fn a_running_program_is_not_robbed_and_others_have_places_of_their_own() {
        let mut shelf = left();
        shelf.take("dnscache", &groups(), 2).unwrap();
        assert_eq!(shelf.take("dnscache", &groups(), 3).unwrap_err(), Refusal::Taken);
        assert_eq!(shelf.keep(3, copies()), None);
        assert_eq!(shelf.leave(3, second(1)), None);
        assert_eq!(shelf.holder("dnscache"), Some(2));
        for other in 1..PROGRAMS_MAX {
            shelf.take(&format!("other{other}"), &[], 10 + other as u64).unwrap();
        }
        assert_eq!(shelf.take("one-more", &[], 99).unwrap_err(), Refusal::Full);
        assert_eq!(shelf.leave(11, second(1)), None, "it has no sockets");
        assert!(shelf.take("one-more", &[], 99).is_ok());
    }

    #[test]
    fn sockets_are_closed_if_no_program_comes_back() {
        let mut shelf = left();
        assert_eq!(shelf.expire(second(29)), Vec::<String>::new());
        // A start that fails does not prolong the time.
        shelf.take("dnscache", &groups(), 2).unwrap();
        assert_eq!((shelf.next_end(), shelf.expire(second(31))), (None, Vec::new()));
        assert_eq!(shelf.leave(2, second(31)).as_deref(), Some("dnscache"));
        assert_eq!(shelf.next_end(), Some(second(30)));
        assert_eq!(shelf.expire(second(31)), ["dnscache"]);
        assert_eq!(shelf.counts().count(), 0);
        // A start that leaves copies does.
        let mut shelf = left();
        shelf.take("dnscache", &groups(), 2).unwrap();
        shelf.keep(2, copies()).unwrap();
        shelf.leave(2, second(20)).unwrap();
        assert_eq!(shelf.next_end(), Some(second(50)));
    }
}
