//! The ports of a Service or an EndpointSlice, packed.
//!
//! Core. Knows their labels in SRV names; does not know which endpoints have them.

use smallvec::SmallVec;

use super::{Entry, PortName, looks};

/// A transport protocol that a port can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Returns the protocol with this label in SRV names (RFC 2782), without the length byte.
    pub fn from_label(label: &[u8]) -> Option<Self> {
        let is_label = |protocol: &Self| protocol.label()[1..] == *label;
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(is_label)
    }

    /// Returns its label in SRV names, in wire form.
    pub fn label(self) -> &'static [u8] {
        match self {
            Self::Tcp => b"\x04_tcp",
            Self::Udp => b"\x04_udp",
            Self::Sctp => b"\x05_sctp",
        }
    }

    const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Tcp,
            1 => Self::Udp,
            _ => Self::Sctp,
        }
    }
}

/// One port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port<'a> {
    /// Its label in SRV names, such as `_http`, lower case and without length byte. Empty if it has
    /// no name, or if its name does not fit.
    pub label: &'a [u8],
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// Ports, packed into one block of bytes. For each port: its label in SRV names in wire form, the
/// protocol, the number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ports(SmallVec<[u8; SHORT_LEN]>);

impl Ports {
    /// Packs ports, each given as a label in wire form (empty if it has no name), a protocol and a
    /// number. A repeated port is packed once.
    pub fn pack(ports: &[(Vec<u8>, Protocol, u16)]) -> Self {
        let mut packed = SmallVec::new();
        for (index, port) in ports.iter().enumerate() {
            if ports[..index].contains(port) {
                continue;
            }
            let (label, protocol, number) = port;
            if label.is_empty() {
                packed.push(0);
            }
            packed.extend_from_slice(label);
            packed.push(*protocol as u8);
            packed.extend_from_slice(&number.to_be_bytes());
        }
        packed.shrink_to_fit();
        Self(packed)
    }

    /// Removes the labels that take more than `room` bytes together with the protocol's, because
    /// the names of such ports would be longer than 255 bytes.
    pub(super) fn fit(&mut self, room: usize) {
        let fits = |port: Port<'_>| {
            port.label.is_empty() || 1 + port.label.len() + port.protocol.label().len() <= room
        };
        if self.iter().all(fits) {
            return;
        }
        let wire = |port: Port<'_>| {
            let label = if fits(port) { port.label } else { &[] };
            let length = (!label.is_empty()).then_some(label.len() as u8);
            let label = length.into_iter().chain(label.iter().copied()).collect();
            (label, port.protocol, port.number)
        };
        *self = Self::pack(&self.iter().map(wire).collect::<Vec<_>>());
    }

    /// Returns each port.
    pub fn iter(&self) -> impl Iterator<Item = Port<'_>> + Clone {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            looks::count();
            let (label, tail) = tail.split_at(usize::from(length));
            let (&[protocol, n1, n0], tail) =
                tail.split_first_chunk().expect("ports are packed whole");
            rest = tail;
            let number = u16::from_be_bytes([n1, n0]);
            Some(Port { label, protocol: Protocol::from_byte(protocol), number })
        })
    }
}

/// The ports of a Service, or those of the slices of some of its endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PortLists<'e> {
    /// One list.
    One(&'e Ports),
    /// The lists of the published slices of the Service with these numbers.
    Several(&'e Entry, &'e [u32]),
}

impl<'e> PortLists<'e> {
    /// Visits each list until `visit` returns `false`. Returns whether it never did.
    #[inline]
    pub fn all(self, mut visit: impl FnMut(&'e Ports) -> bool) -> bool {
        match self {
            Self::One(ports) => visit(ports),
            Self::Several(entry, slices) => {
                slices.iter().all(|&at| visit(entry.held_at(at).slice.ports()))
            }
        }
    }
}

/// The distinct numbers of ports.
#[derive(Debug)]
pub(super) struct Numbers<'p> {
    lists: PortLists<'p>,
    wanted: PortName<'p>,
    /// The first of them.
    first: [u16; FIRST_MAX],
    /// How many of them there are, at most one more than `first` can hold.
    count: usize,
}

impl<'p> Numbers<'p> {
    /// Returns the numbers of the ports in `lists` that are wanted.
    #[inline]
    pub fn of(lists: PortLists<'p>, wanted: PortName<'p>) -> Self {
        let (mut first, mut count) = ([0; FIRST_MAX], 0);
        all_matching(lists, wanted, |number| {
            if !first[..count].contains(&number) {
                match first.get_mut(count) {
                    Some(place) => *place = number,
                    None => {
                        count = FIRST_MAX + 1;
                        return false;
                    }
                }
                count += 1;
            }
            true
        });
        Self { lists, wanted, first, count }
    }

    /// Returns whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns how many numbers there are.
    pub fn len(&self) -> usize {
        let mut count = self.count;
        if count > FIRST_MAX {
            count = 0;
            self.each(|_| {
                count += 1;
                true
            });
        }
        count
    }

    /// Visits each until `visit` returns `false`. Returns whether it never did.
    #[inline]
    pub fn each(&self, mut visit: impl FnMut(u16) -> bool) -> bool {
        if self.count <= FIRST_MAX {
            return self.first[..self.count].iter().all(|&number| visit(number));
        }
        let mut index = 0;
        all_matching(self.lists, self.wanted, |number| {
            let is_repeated = self.is_among_first(index, number);
            index += 1;
            is_repeated || visit(number)
        })
    }

    /// Returns whether `number` is one of the first `count` that match.
    fn is_among_first(&self, count: usize, number: u16) -> bool {
        let mut left = count;
        let mut is_found = false;
        all_matching(self.lists, self.wanted, |other| {
            is_found = left > 0 && other == number;
            left = left.saturating_sub(1);
            left > 0 && !is_found
        });
        is_found
    }
}

/// Visits the number of each wanted port, as often as it is in the lists, until `visit` returns
/// `false`. Returns whether it never did.
#[inline]
fn all_matching(
    lists: PortLists<'_>,
    wanted: PortName<'_>,
    mut visit: impl FnMut(u16) -> bool,
) -> bool {
    lists.all(|ports| ports.iter().all(|port| !wanted.matches(port) || visit(port.number)))
}

/// The most bytes of ports that are stored inline in a Service or a slice, which saves a cache miss
/// for each SRV query: two ports with names of eight characters.
const SHORT_LEN: usize = 24;
/// The most port numbers that are kept for one answer. Nearly every Service has fewer.
const FIRST_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_visited_once() {
        let check = |numbers: &[u16]| {
            let labels = [b"\x02_a", b"\x02_b"];
            let port =
                |(&number, label): (&u16, &&[u8; 3])| (label.to_vec(), Protocol::Tcp, number);
            let ports = numbers.iter().zip(labels.iter().cycle()).map(port);
            let ports = Ports::pack(&ports.collect::<Vec<_>>());
            for (wanted, some) in [
                (PortName::Any, true),
                (PortName::Wild(None, Some(Protocol::Tcp)), true),
                (PortName::Named(b"_c", Protocol::Tcp), false),
            ] {
                let mut expected: Vec<u16> = Vec::new();
                for number in numbers.iter().filter(|_| some) {
                    if !expected.contains(number) {
                        expected.push(*number);
                    }
                }
                let mut visited = Vec::new();
                let found = Numbers::of(PortLists::One(&ports), wanted);
                assert!(found.each(|number| {
                    visited.push(number);
                    true
                }));
                assert_eq!(visited, expected);
                assert_eq!((found.is_empty(), found.len()), (visited.is_empty(), visited.len()));
            }
        };
        check(&[]);
        check(&[80]);
        check(&[80, 80]);
        check(&[80, 81, 80, 82]);
        check(&(1..=8).chain(1..=8).collect::<Vec<_>>());
        check(&(1..=9).chain(1..=9).collect::<Vec<_>>());
        check(&(1..=40).chain(7..=60).collect::<Vec<_>>());
    }

    #[test]
    fn ports_are_packed_once() {
        let ports = Ports::pack(&[
            (b"\x05_http".to_vec(), Protocol::Tcp, 80),
            (vec![], Protocol::Udp, 53),
            (b"\x05_http".to_vec(), Protocol::Tcp, 80),
        ]);
        let read: Vec<Port<'_>> = ports.iter().collect();
        assert_eq!(read[0], Port { label: b"_http", protocol: Protocol::Tcp, number: 80 });
        assert_eq!(read[1], Port { label: b"", protocol: Protocol::Udp, number: 53 });
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn labels_that_make_names_too_long_are_left_out() {
        let both = [
            (b"\x05_http".to_vec(), Protocol::Sctp, 80),
            (b"\x05_http".to_vec(), Protocol::Tcp, 80),
        ];
        let check = |room: usize, expected: [&[u8]; 2]| {
            let mut ports = Ports::pack(&both);
            ports.fit(room);
            assert!(ports.iter().map(|port| port.label).eq(expected), "{room}");
            assert!(ports.iter().all(|port| port.number == 80));
        };
        check(12, [b"_http", b"_http"]);
        check(11, [b"", b"_http"]);
        check(10, [b"", b""]);
        check(0, [b"", b""]);
    }
}
