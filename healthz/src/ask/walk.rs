//! How glibc and musl walk the search list, and where each of them stops.
//!
//! Core. What became of a step comes in, whether there is a next one goes out. The rules are those
//! of `res_search` in glibc (resolv/res_query.c) and of `name_from_dns_search` in musl
//! (src/network/lookup_name.c).

use shared::wire::rcode::{NXDOMAIN, SERVFAIL};

use crate::check::resolv::Resolv;

/// A resolver in the C library of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    /// Debian, Ubuntu, Fedora, distroless.
    Glibc,
    /// Alpine.
    Musl,
}

impl Libc {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Glibc, Self::Musl];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
        }
    }

    /// The names that it asks for `name`, in order.
    pub fn walk(self, resolv: &Resolv, name: &str) -> Vec<String> {
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        match self {
            // musl has no search list for a name with enough dots.
            Self::Musl if dots >= resolv.ndots && !name.ends_with('.') => vec![format!("{name}.")],
            _ => resolv.walk(name),
        }
    }

    /// Whether the walk ends at a step with this outcome.
    pub fn stops(self, step: Outcome) -> bool {
        match (self, step) {
            (_, Outcome::Found | Outcome::Lost) => true,
            (_, Outcome::Denied) => false,
            // glibc goes on after NODATA and SERVFAIL; musl ends with each of them.
            (Self::Glibc, Outcome::Empty | Outcome::Failed) => false,
            (Self::Musl, Outcome::Empty | Outcome::Failed) => true,
        }
    }
}

/// What became of a step: of A and AAAA together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is an address.
    Found,
    /// The name does not exist.
    Denied,
    /// The name exists and has no address.
    Empty,
    /// SERVFAIL.
    Failed,
    /// No answer, or another error.
    Lost,
}

impl Outcome {
    /// Of one answer: its response code and whether it has an address; `None` if there is none.
    pub fn of(answer: Option<(u16, bool)>) -> Self {
        match answer {
            Some((0, true)) => Self::Found,
            Some((0, false)) => Self::Empty,
            Some((SERVFAIL, _)) => Self::Failed,
            Some((NXDOMAIN, _)) => Self::Denied,
            Some(_) | None => Self::Lost,
        }
    }

    /// Of the answers for both families.
    pub fn of_both(v4: Self, v6: Self) -> Self {
        let order = [Self::Found, Self::Lost, Self::Failed, Self::Empty];
        order.into_iter().find(|it| *it == v4 || *it == v6).unwrap_or(Self::Denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_walks_and_stops_by_its_own_rules() {
        let resolv = Resolv::read("search a.b c\noptions ndots:2\n");
        let rows = [
            (Libc::Glibc, "x", "x.a.b. x.c. x."),
            (Libc::Musl, "x", "x.a.b. x.c. x."),
            (Libc::Glibc, "x.y.z", "x.y.z. x.y.z.a.b. x.y.z.c."),
            (Libc::Musl, "x.y.z", "x.y.z."),
            (Libc::Glibc, "x.", "x."),
            (Libc::Musl, "x.", "x."),
        ];
        for (libc, name, expected) in rows {
            assert_eq!(libc.walk(&resolv, name).join(" "), expected, "{libc:?} {name}");
        }
        use Outcome::{Denied, Empty, Failed, Found, Lost};
        for (outcome, glibc, musl) in [
            (Found, true, true),
            (Denied, false, false),
            (Empty, false, true),
            (Failed, false, true),
            (Lost, true, true),
        ] {
            assert_eq!(Libc::Glibc.stops(outcome), glibc, "{outcome:?}");
            assert_eq!(Libc::Musl.stops(outcome), musl, "{outcome:?}");
        }
    }

    #[test]
    fn an_address_of_either_family_is_enough() {
        use Outcome::{Denied, Empty, Failed, Found, Lost};
        let rows = [
            (Found, Empty, Found),
            (Failed, Found, Found),
            (Denied, Denied, Denied),
            (Empty, Denied, Empty),
            (Empty, Failed, Failed),
            (Empty, Lost, Lost),
        ];
        for (v4, v6, both) in rows {
            assert_eq!(Outcome::of_both(v4, v6), both, "{v4:?} {v6:?}");
        }
        let answers = [Some((0, true)), Some((0, false)), Some((2, false)), Some((3, false)), None];
        let outcomes = answers.map(Outcome::of);
        assert_eq!(outcomes, [Found, Empty, Failed, Denied, Lost]);
        assert_eq!(Outcome::of(Some((5, false))), Lost);
    }
}
