//! The endpoints of a Service in an order that rotates: each address once, each label once.
//!
//! Core. Knows the first endpoint of a round; does not know what is written of an endpoint.

use super::ports::PortLists;
use super::{Among, Entry, Held, Place};

/// Numbers of published endpoints, counted through all slices of a Service, IPv4 first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick<'e> {
    /// All from the first number up to but not including the second.
    All(u32, u32),
    /// The numbers in this list.
    List(&'e [u32]),
}

/// An iterator that visits endpoints of one Service once around.
#[derive(Clone, Debug)]
pub struct Round<'e> {
    entry: &'e Entry,
    pick: Pick<'e>,
    /// The position in `pick` of the next one.
    at: u32,
    /// How many positions are left to visit.
    left: u32,
    /// The slice of the last one: the next one is nearly always in it.
    last: Option<Run<'e>>,
}

/// The numbers of the published endpoints of one slice.
#[derive(Clone, Copy, Debug)]
struct Run<'e> {
    held: &'e Held,
    first: u32,
    end: u32,
}

/// Endpoints of a headless Service whose slices have the same ports, one for each label.
#[derive(Clone, Copy, Debug)]
pub struct Group<'e> {
    entry: &'e Entry,
    ports: PortLists<'e>,
    pick: Pick<'e>,
}

impl Pick<'_> {
    /// Returns how many numbers it has.
    fn len(self) -> u32 {
        match self {
            Self::All(first, end) => end - first,
            Self::List(list) => list.len() as u32,
        }
    }
}

impl<'e> Round<'e> {
    /// Returns the endpoints at `count` positions of `pick`, starting at `start`.
    fn new(entry: &'e Entry, pick: Pick<'e>, start: u32, count: u32) -> Self {
        Self { entry, pick, at: start, left: count, last: None }
    }
}

impl<'e> Iterator for Round<'e> {
    type Item = Place<'e>;

    #[inline]
    fn next(&mut self) -> Option<Place<'e>> {
        self.left = self.left.checked_sub(1)?;
        let number = match self.pick {
            Pick::All(first, _) => first + self.at,
            Pick::List(list) => list[self.at as usize],
        };
        self.at += 1;
        if self.at == self.pick.len() {
            self.at = 0;
        }
        let run = match self.last {
            Some(run) if (run.first..run.end).contains(&number) => run,
            _ => self.entry.run(number),
        };
        self.last = Some(run);
        Some(Place { held: run.held, index: (number - run.first) as usize })
    }
}

impl<'e> Group<'e> {
    /// Returns how many labels it has.
    pub fn labels(&self) -> u32 {
        self.pick.len()
    }

    /// Returns the endpoints from position `start` up to but not including `end`.
    pub fn round(&self, start: u32, end: u32) -> Round<'e> {
        Round::new(self.entry, self.pick, start, end - start)
    }

    /// Returns the ports of each of its endpoints.
    pub(super) fn ports(&self) -> PortLists<'e> {
        self.ports
    }
}

impl Entry {
    /// Returns the slice that contains the published endpoint `number`.
    fn run(&self, number: u32) -> Run<'_> {
        let end_v4 = self.published_of(false);
        let (held, before) =
            if number < end_v4 { (self.v4.held(), 0) } else { (self.v6.held(), end_v4) };
        let at = match held.len() {
            1 => 0,
            _ => held.partition_point(|held| before + held.end <= number),
        };
        let held = &held[at];
        Run { held, first: before + held.end - held.published, end: before + held.end }
    }

    /// Returns the published endpoint `number`.
    pub(super) fn place(&self, number: u32) -> Place<'_> {
        let run = self.run(number);
        Place { held: run.held, index: (number - run.first) as usize }
    }

    /// Returns every published endpoint, as often as slices repeat it.
    pub fn places(&self) -> Round<'_> {
        let count = self.published();
        Round::new(self, Pick::All(0, count), 0, count)
    }

    /// Returns the published endpoints of one family in `among`, one for each address. `scale` gets
    /// their number and returns the position of the first one.
    #[inline]
    pub fn addresses<'e>(
        &'e self,
        v6: bool,
        among: Among<'e>,
        scale: impl FnOnce(u32) -> u32,
    ) -> Round<'e> {
        let end_v4 = self.published_of(false);
        let (first, end) = if v6 { (end_v4, self.published()) } else { (0, end_v4) };
        let pick = match (&self.lists, among) {
            (None, Among::All) => Pick::All(first, end),
            (None, Among::Zone(_)) => Pick::List(&[]),
            (Some(lists), among) => match lists.view(among).map(|view| view.addresses(v6)) {
                Some(None) => Pick::All(first, end),
                list => Pick::List(list.flatten().unwrap_or_default()),
            },
        };
        Round::new(self, pick, scale(pick.len()), pick.len())
    }

    /// Returns the published endpoints in `among`, one for each label, in groups by their ports.
    pub fn groups<'e>(&'e self, among: Among<'e>) -> impl Iterator<Item = Group<'e>> + Clone {
        let count = self.published();
        let plain = match (&self.lists, self.all_held().next(), among) {
            (None, Some(held), Among::All) => {
                let ports = PortLists::One(held.slice.ports());
                Some(Group { entry: self, ports, pick: Pick::All(0, count) })
            }
            _ => None,
        };
        let view = self.lists.as_deref().and_then(|lists| lists.view(among));
        let groups = view.map_or(&[][..], |view| view.groups());
        let listed = groups.iter().map(move |group| Group {
            entry: self,
            ports: PortLists::Several(self, group.ports()),
            pick: group.labels().map_or(Pick::All(0, count), Pick::List),
        });
        plain.into_iter().chain(listed)
    }
}
