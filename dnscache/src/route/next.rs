//! Servers that are asked after others gave a certain answer: `--next`.
//!
//! Core. CoreDNS's plugins pass a question on in this way: `fallthrough` of kubernetes, and `next`
//! of forward. One step follows another at most: the answer of the second servers counts.

use std::str::FromStr;

use shared::config_dir::Server;
use shared::wire::rcode;

use super::flag::{FlagError, ServerFlag, Target};
use super::{DEFAULT, Group, ROOT, Route, Routes, Suffix, push_once};
use shared::name::parse;
use shared::peer::Interfaces;

/// Kinds of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u32);

/// One `--next`: `[/DOMAIN/.../]KIND[,KIND...]=SERVER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextFlag {
    /// The domains to which it applies, in lower-case wire form. If empty, it applies to all names
    /// that no domain routes.
    pub domains: Vec<Box<[u8]>>,
    /// The answers after which the server is asked.
    pub kinds: Kinds,
    /// The servers that are asked next.
    pub target: Target,
}

/// The servers that are asked next, and after which answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The answers.
    pub kinds: Kinds,
    /// An index into [`Routes::groups`].
    pub group: usize,
}

/// Why a text is not a `--next`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NextError {
    /// The text does not have the form of the flag.
    #[error(
        "expected [/DOMAIN/.../]KIND[,KIND...]=ADDR with NXDOMAIN, NODATA, SERVFAIL or another \
         response code, such as /cluster.local/NXDOMAIN=10.0.0.1"
    )]
    Form,
    /// The address of the server is not valid.
    #[error(transparent)]
    Server(FlagError),
}

impl Kinds {
    /// Returns whether an answer with `code` is one of them; `is_empty` if it has no records.
    pub fn hold(self, code: u16, is_empty: bool) -> bool {
        let bit = if code < 16 { 1 << code } else { 0 };
        self.0 & bit != 0 || is_empty && code == rcode::NOERROR && self.0 & NODATA != 0
    }

    fn parse(text: &str) -> Option<Self> {
        let mut kinds = Self::default();
        for word in text.split(',') {
            kinds.0 |= match word.to_ascii_uppercase().as_str() {
                "NODATA" => NODATA,
                word => match shared::mnemonics::rcode_number(word)? {
                    rcode::NOERROR => return None,
                    code => 1 << code,
                },
            };
        }
        Some(kinds)
    }
}

impl NextFlag {
    /// Parses the value of one `--next`.
    pub fn parse(text: &str, interfaces: Interfaces<'_>) -> Result<Self, NextError> {
        let (front, server) = text.split_once('=').ok_or(NextError::Form)?;
        let (domains, kinds) = match front.strip_prefix('/') {
            None => (Vec::new(), front),
            Some(rest) => {
                let (domains, kinds) = rest.rsplit_once('/').ok_or(NextError::Form)?;
                let name = |text: &str| shared::name::domain(text).and_then(|name| parse(&name));
                let domains: Option<Vec<_>> = domains.split('/').map(name).collect();
                (domains.ok_or(NextError::Form)?, kinds)
            }
        };
        let kinds = Kinds::parse(kinds).ok_or(NextError::Form)?;
        let target = match server {
            "" => return Err(NextError::Form),
            "#" => Target::Default,
            text if text.starts_with('/') => return Err(NextError::Form),
            text => ServerFlag::parse(text, interfaces).map_err(NextError::Server)?.target,
        };
        Ok(Self { domains, kinds, target })
    }
}

impl FromStr for NextFlag {
    type Err = NextError;

    /// Parses a flag whose address has no interface, or one given by its index.
    fn from_str(text: &str) -> Result<Self, NextError> {
        Self::parse(text, &|_| None)
    }
}

impl Routes {
    /// Adds servers that are asked after others. Servers for the same domain add up; the kinds are
    /// those of the last flag. A domain without servers of its own gets those of the domain above.
    #[must_use]
    pub fn with_next(mut self, flags: &[NextFlag]) -> Self {
        for NextFlag { domains, kinds, target } in flags {
            let all = [Box::from(ROOT)];
            let domains = if domains.is_empty() { &all[..] } else { &domains[..] };
            for domain in domains {
                if let Some(first) = self.own_group(domain) {
                    self.add_next(first, *kinds, target);
                }
            }
        }
        self.measure();
        self
    }

    fn add_next(&mut self, first: usize, kinds: Kinds, target: &Target) {
        let group = match (target, self.groups[first].next) {
            (Target::Default, _) => DEFAULT,
            (Target::Local, _) => return,
            (Target::Server(server), Some(Next { group, .. })) if group != DEFAULT => {
                push_once(&mut self.groups[group].servers, server.clone());
                group
            }
            (Target::Server(server), _) => {
                let suffix = self.groups[first].suffix.clone();
                self.add_group(&suffix, vec![server.clone()])
            }
        };
        if group != first {
            self.groups[first].next = Some(Next { kinds, group });
        }
    }

    /// Returns the group of `domain`, and creates it if a domain above routes it. `None` if no
    /// server is asked about the domain.
    fn own_group(&mut self, domain: &[u8]) -> Option<usize> {
        let Route::Group(group) = self.route(domain) else { return None };
        if *self.groups[group].suffix == *domain {
            return Some(group);
        }
        let Group { servers, owned, .. } = self.groups[group].clone();
        let new = self.add_group(domain, servers);
        self.groups[new].owned = owned;
        self.suffixes.insert(domain.into(), Suffix::Group(new));
        Some(new)
    }

    /// Returns the group that is asked about `name`, in lower-case wire form, after the servers of
    /// group `asked` sent an answer with `code`; `is_empty` if it has no records. `None` if that
    /// answer is final.
    pub fn next(&self, name: &[u8], asked: usize, (code, is_empty): (u16, bool)) -> Option<usize> {
        let Next { kinds, group } = self.groups.get(asked)?.next?;
        let is_first = self.route(name) == Route::Group(asked);
        (is_first && kinds.hold(code, is_empty)).then_some(group)
    }

    /// Returns the servers that are asked after those of group `asked`.
    pub fn next_servers(&self, asked: usize) -> &[Server] {
        let next = self.groups.get(asked).and_then(|group| group.next);
        next.map_or(&[], |next| &self.groups[next.group].servers)
    }
}

/// NOERROR without records, beside the bits of response codes.
const NODATA: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use shared::config_dir::Keys;

    use shared::name::bare;

    use super::super::ServerFlag;
    use super::*;

    /// Servers, steps, a name, the first answer, and the server that is asked next.
    type Row<'r> = (&'r [&'r str], &'r [&'r str], &'r str, (u16, bool), &'r str);

    fn routes(servers: &[&str], next: &[&str]) -> Routes {
        let servers: Vec<ServerFlag> = servers.iter().map(|flag| flag.parse().unwrap()).collect();
        let next: Vec<NextFlag> = next.iter().map(|flag| flag.parse().unwrap()).collect();
        Routes::new(&servers, &Keys::default(), &[]).with_next(&next)
    }

    /// Who is asked about `name` after this answer of the first servers: `-` if it counts.
    fn next(routes: &Routes, name: &str, code: u16, is_empty: bool) -> String {
        let name = parse(name).unwrap();
        let Route::Group(first) = routes.route(&name) else { return "local".to_owned() };
        let Some(group) = routes.next(&name, first, (code, is_empty)) else {
            return "-".to_owned();
        };
        assert_eq!(routes.next(&name, group, (code, is_empty)), None, "the second answer counts");
        let group = &routes.groups()[group];
        let servers = group.servers.iter().map(|server| match server {
            Server::Address(address) => address.ip().to_string(),
            other => format!("{other:?}"),
        });
        let servers: Vec<String> = servers.collect();
        format!("{} {}", bare(&group.suffix), servers.join(" "))
    }

    #[test]
    fn an_answer_of_a_kind_is_passed_on() {
        let cluster = ["/cluster.local/127.0.0.1#10053", "192.0.2.1"];
        let nodata = "/a.b/NODATA,SERVFAIL=192.0.2.2";
        let rows: [Row; 13] = [
            (&cluster, &["/cluster.local/NXDOMAIN=#"], "x.cluster.local", (3, true), " 192.0.2.1"),
            (&cluster, &["/cluster.local/NXDOMAIN=#"], "x.cluster.local", (0, true), "-"),
            (&cluster, &["/cluster.local/NXDOMAIN=#"], "x.cluster.local", (0, false), "-"),
            (&cluster, &["/cluster.local/NXDOMAIN=#"], "x.example", (3, true), "-"),
            (
                &cluster,
                &["/cluster.local/NXDOMAIN=192.0.2.7", "/cluster.local/NXDOMAIN=192.0.2.8"],
                "x.cluster.local",
                (3, true),
                "cluster.local 192.0.2.7 192.0.2.8",
            ),
            // A domain below has the servers of the one above it.
            (&cluster, &["/ext.cluster.local/NXDOMAIN=#"], "x.cluster.local", (3, true), "-"),
            (
                &cluster,
                &["/ext.cluster.local/NXDOMAIN=#"],
                "x.ext.cluster.local",
                (3, true),
                " 192.0.2.1",
            ),
            (&["/a.b/192.0.2.1"], &[nodata], "x.a.b", (0, true), "a.b 192.0.2.2"),
            (&["/a.b/192.0.2.1"], &[nodata], "x.a.b", (0, false), "-"),
            (&["/a.b/192.0.2.1"], &[nodata], "x.a.b", (2, true), "a.b 192.0.2.2"),
            (&["/a.b/192.0.2.1"], &[nodata], "x.a.b", (3, true), "-"),
            (&["192.0.2.1"], &["NXDOMAIN=192.0.2.2"], "x.y", (3, true), " 192.0.2.2"),
            (&["/a.b/"], &["/a.b/NXDOMAIN=192.0.2.2"], "x.a.b", (3, true), "local"),
        ];
        for (servers, flags, name, (code, is_empty), expected) in rows {
            let routes = routes(servers, flags);
            assert_eq!(next(&routes, name, code, is_empty), expected, "{flags:?} {name} {code}");
        }
    }

    #[test]
    fn what_is_no_step_is_refused() {
        for text in [
            "",
            "192.0.2.1",
            "NXDOMAIN",
            "NXDOMAIN=",
            "NOERROR=192.0.2.1",
            "SOMETIMES=192.0.2.1",
            "NXDOMAIN=/a.b/192.0.2.1",
            "/a..b/NXDOMAIN=192.0.2.1",
            "/a.b=192.0.2.1",
            "NXDOMAIN=nowhere",
        ] {
            assert!(text.parse::<NextFlag>().is_err(), "{text}");
        }
    }
}
