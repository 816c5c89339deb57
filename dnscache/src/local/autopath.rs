//! Walks the search list of a pod in dnscache: of the questions that a resolver asks in turn for
//! one outside name, the first is answered with an alias to the name that exists.
//!
//! Core. Pods are not watched, because the namespace is in the question. The first name of a pod's
//! walk is `BASE.NS.svc.Z`, followed by `BASE.svc.Z`, `BASE.Z`, `BASE` below the search domains of
//! the node, and `BASE` itself. A question is answered with an alias only if every resolver would
//! end its own walk there:
//!
//! * All names before it do not exist. At a name that exists without records of the type, glibc
//!   continues its walk and musl stops. The client then gets the denial of its own question, and
//!   walks by itself.
//! * `BASE` has at least two labels, and its last one is not a Service of the namespace. Otherwise
//!   the question can be a whole name, such as that of a pod of a StatefulSet.
//! * The name is not a later one of another walk. If a walk finds no name, the names on it that
//!   look like first ones are cached as denied, because the client asks for them next.

use std::collections::VecDeque;

use shared::wire::{labels, rcode, rtype};

use super::made::Made;
use super::name::{self, Zones, joined};
use super::pending::{Came, Next, Pending};
use super::{Local, Outcome};
use crate::normalise::{Row, Rows};

/// The search lists of the pods of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autopath {
    /// The cluster domain in wire form and lower case.
    pub domain: Box<[u8]>,
    /// The search domains after those of the cluster, also in lower-case wire form.
    pub search: Vec<Box<[u8]>>,
    /// The zones in which a walk can begin.
    pub zones: Zones,
}

/// Returns the search domains of a resolv.conf: those of its last line `search` or `domain`.
pub fn search_domains(text: &str) -> Vec<Box<[u8]>> {
    let mut domains = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            let words = words.take_while(|word| !word.starts_with(['#', ';']));
            domains = words.filter_map(name::parse).take(SEARCH_MAX).collect();
        }
    }
    domains.retain(|domain| domain.len() > 1);
    domains
}

/// A walk along a search list.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The client's question.
    name: Box<[u8]>,
    qtype: u16,
    step: Step,
    /// The name of the step, in lower-case wire form, and the question that is asked about it.
    at: Box<[u8]>,
    inner: Box<Pending>,
    /// The names that must still be looked at.
    left: VecDeque<Box<[u8]>>,
    /// Names that are looked at if no alias will be sent.
    later: Vec<Box<[u8]>>,
    /// The parent of the question below the namespace.
    parent: Box<[u8]>,
    /// The denial of the client's own question.
    first: Option<Box<Made>>,
    /// Whether no alias will be sent, so that the client must walk by itself.
    is_over: bool,
    /// For how many seconds the result is valid.
    lifetime_secs: u32,
    /// The names that were asked for.
    asked: Vec<Box<[u8]>>,
    /// Denials of names that look like first names of a walk.
    denials: Vec<(Box<[u8]>, Rows)>,
    /// The pattern of first names.
    shape: Autopath,
    /// The index of the block whose rules answer for the names of the walk, and how many aliases
    /// led here.
    place: (usize, usize),
}

#[derive(Clone, Debug)]
enum Step {
    /// The client's own question.
    First,
    /// The parent of the question, which may be a Service.
    Parent,
    /// A name of the search list.
    Candidate,
    /// The other address type of a name that exists without addresses of the asked type.
    Sibling(Box<Made>),
}

impl Autopath {
    /// Returns the labels left of the namespace, in wire form without the root, if `name` looks
    /// like the first name of a walk.
    fn base<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        let mut above: [&[u8]; 2] = [&[]; 2];
        let mut rest = name;
        while rest.len() > self.domain.len() {
            above = [rest, above[0]];
            rest = name::parent(rest)?;
        }
        if *rest != *self.domain {
            return None;
        }
        // `above` is `svc.Z` and `NS.svc.Z`.
        let [service, namespace] = above;
        let is_service = labels(service).next() == Some(b"svc") && !namespace.is_empty();
        let base = &name[..name.len().checked_sub(namespace.len())?];
        (is_service && LABELS.contains(&labels(base).count())).then_some(base)
    }

    /// Returns the names that a client asks for after the first one, `name`.
    fn names_behind(&self, name: &[u8]) -> Vec<Box<[u8]>> {
        let Some(base) = self.base(name) else { return Vec::new() };
        let service = name::parent(&name[base.len()..]).unwrap_or(&[0]);
        let root: &[u8] = &[0];
        // dnscache may itself run in a pod with the search list of a pod.
        let of_node = |domain: &&[u8]| !domain.ends_with(&self.domain);
        let suffixes = [service, &self.domain]
            .into_iter()
            .chain(self.search.iter().map(|domain| &**domain).filter(of_node))
            .chain([root]);
        let mut names = Vec::new();
        for candidate in suffixes.filter_map(|suffix| joined(base, suffix)) {
            if *candidate != *name && !names.contains(&candidate) {
                names.push(candidate);
            }
        }
        names
    }

    /// Returns the walk that begins with the question for `qtype` at `name`, in lower-case wire
    /// form; `None` if the name does not look like the first name of a walk.
    pub fn walk(&self, name: &[u8], qtype: u16, place: (usize, usize)) -> Option<Walk> {
        let base = self.base(name).filter(|_| self.zones.hold(name))?;
        let namespace = &name[base.len()..];
        let left = self.names_behind(name).into();
        let mut parent = name;
        while name::parent(parent)? != namespace {
            parent = name::parent(parent)?;
        }
        Some(Walk {
            name: name.into(),
            qtype,
            step: Step::First,
            at: name.into(),
            inner: Box::new(Pending::Plain { name: name.into(), qtype }),
            left,
            later: Vec::new(),
            parent: parent.into(),
            first: None,
            is_over: false,
            lifetime_secs: u32::MAX,
            asked: Vec::new(),
            denials: Vec::new(),
            shape: self.clone(),
            place,
        })
    }
}

impl Walk {
    /// Returns the next question.
    pub fn question(&self) -> (&[u8], u16) {
        self.inner.question()
    }

    /// Asks its first question, or answers it by `rules`.
    pub fn start(self, rules: &Local) -> Outcome {
        let (name, qtype) = (self.name.clone(), self.qtype);
        match self.look(rules, name, qtype) {
            Next::Done(made) => Outcome::Answer(made),
            Next::Ask(pending) => Outcome::Ask(pending),
            Next::Failed => Outcome::Answer(Box::new(Made::failed(FAILED))),
        }
    }

    /// Continues with the end of the current question.
    pub fn take(mut self: Box<Self>, came: Came, rules: &Local) -> Next {
        let inner = std::mem::replace(&mut self.inner, nothing());
        match inner.take(came, rules) {
            Next::Ask(inner) => {
                self.inner = inner;
                Next::Ask(Box::new(Pending::Walk(self)))
            }
            Next::Done(made) => self.learn(Some(made), rules),
            Next::Failed => self.learn(None, rules),
        }
    }

    /// Asks the question for `qtype` at `name`, or continues at once if `rules` answer it.
    fn look(mut self, rules: &Local, name: Box<[u8]>, qtype: u16) -> Next {
        self.at = name.clone();
        match rules.source(self.place, &name, qtype) {
            Outcome::Answer(made) => Box::new(self).learn(Some(made), rules),
            other => {
                self.inner = other.pending(name, qtype);
                Next::Ask(Box::new(Pending::Walk(Box::new(self))))
            }
        }
    }

    /// Continues with the answer about the name `at`; `None` if its question failed.
    fn learn(mut self: Box<Self>, made: Option<Box<Made>>, rules: &Local) -> Next {
        self.asked.push(self.at.clone());
        if let Some(made) = &made {
            self.asked.extend_from_slice(&made.names);
            let lifetime = made.lifetime_secs.or(made.rows.ttl()).unwrap_or(u32::MAX);
            self.lifetime_secs = self.lifetime_secs.min(lifetime);
        } else {
            self.lifetime_secs = 0;
        }
        let exists = made.as_ref().is_none_or(|made| made.rows.rcode != rcode::NXDOMAIN);
        match (std::mem::replace(&mut self.step, Step::Candidate), made) {
            (Step::First, None) => return Next::Failed,
            (Step::First, Some(made)) if exists && !made.rows.is_negative() => {
                return Next::Done(made);
            }
            (Step::First, Some(made)) if exists => {
                self.first = Some(made);
                self.is_over = true; // glibc walks on
            }
            (Step::First, Some(made)) => {
                self.first = Some(made);
                self.step = Step::Parent;
                let parent = self.parent.clone();
                return self.look(rules, parent, rtype::A);
            }
            (Step::Parent, _) => self.is_over |= exists,
            (Step::Candidate, Some(made)) if !exists => {
                if self.shape.base(&self.at).is_some() {
                    self.denials.push((self.at.clone(), made.rows));
                    // It will be denied without a walk, and its client then asks the next names.
                    let behind = self.shape.names_behind(&self.at);
                    self.later.extend(behind.into_iter().filter(|it| !self.asked.contains(it)));
                }
            }
            (Step::Candidate, Some(made)) if self.is_found(&made) => {
                return Next::Done(Box::new(self.alias(*made)));
            }
            (Step::Candidate, Some(made)) => {
                let sibling = match self.qtype {
                    rtype::A => Some(rtype::AAAA),
                    rtype::AAAA => Some(rtype::A),
                    _ => None,
                };
                let is_plain = made.rows.rcode == rcode::NOERROR && !self.is_over;
                if let Some(sibling) = sibling.filter(|_| is_plain) {
                    self.step = Step::Sibling(made);
                    let at = self.at.clone();
                    return self.look(rules, at, sibling);
                }
                self.is_over = true;
            }
            (Step::Sibling(empty), Some(made)) if self.has_address(&made.rows) => {
                self.first = Some(Box::new(self.alias(*empty)));
                self.is_over = true; // glibc walks on if it asks for this type alone
            }
            (Step::Candidate, None) | (Step::Sibling(_), _) => self.is_over = true,
        }
        self.go_on(rules)
    }

    /// Looks at the next name of the list. If there is no other, returns the client's denial.
    fn go_on(mut self: Box<Self>, rules: &Local) -> Next {
        while !self.left.is_empty() || !self.later.is_empty() {
            let Some(name) = self.left.pop_front() else {
                self.is_over = true;
                self.left.extend(std::mem::take(&mut self.later));
                continue;
            };
            // The client walks by itself. Its next questions must not begin another walk.
            let begins = self.shape.base(&name).is_some() && !self.asked.contains(&name);
            if !self.is_over || begins {
                let qtype = self.qtype;
                return self.look(rules, name, qtype);
            }
        }
        let Some(mut made) = self.first.take() else { return Next::Failed };
        made.lifetime_secs = Some(self.lifetime_secs);
        made.names = self.asked;
        // A client that asks for both address types must not find one of them without the other.
        let types = match self.qtype {
            rtype::A | rtype::AAAA => vec![rtype::A, rtype::AAAA],
            qtype => vec![qtype],
        };
        let denials = self.denials.into_iter();
        let each = |(name, rows): (Box<[u8]>, Rows)| {
            types.iter().map(move |&qtype| (name.clone(), qtype, rows.clone())).collect::<Vec<_>>()
        };
        made.also = denials.flat_map(each).collect();
        Next::Done(made)
    }

    fn is_found(&self, made: &Made) -> bool {
        let is_of_type = |row: &Row| row.rtype == self.qtype;
        !self.is_over && made.rows.rcode == rcode::NOERROR && made.rows.answers().any(is_of_type)
    }

    fn has_address(&self, rows: &Rows) -> bool {
        let is_address = |row: &Row| matches!(row.rtype, rtype::A | rtype::AAAA);
        !self.is_over && rows.rcode == rcode::NOERROR && rows.answers().any(is_address)
    }

    /// Returns the answer: an alias from the question to the name `at`, and the records there.
    fn alias(&self, made: Made) -> Made {
        let mut rows = made.rows;
        rows.strip_dnssec();
        let ttl = rows.ttl().unwrap_or(0);
        rows.records.insert(0, Row::pointing(&self.name, rtype::CNAME, ttl, &self.at));
        rows.records.retain(|row| row.section < 2);
        rows.authoritative = false;
        Made {
            lifetime_secs: Some(self.lifetime_secs),
            names: self.asked.clone(),
            ..Made::new(rows)
        }
    }
}

/// Returns a placeholder between two questions.
fn nothing() -> Box<Pending> {
    Box::new(Pending::Plain { name: Box::default(), qtype: 0 })
}

/// How many labels a name that pods look up can have. Reverse names of IPv6 addresses have more.
const LABELS: std::ops::RangeInclusive<usize> = 2..=24;
/// How many search domains are used: as many as Kubernetes allows.
const SEARCH_MAX: usize = 32;
const FAILED: &str = "the first name of the search list cannot be answered";

#[cfg(test)]
mod tests;
