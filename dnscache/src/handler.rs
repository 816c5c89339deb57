//! Handles a query: it is refused, answered from the cache or by a route, or deferred until an
//! upstream has answered.
//!
//! Core. Must never wait, because every serving thread calls it concurrently.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use shared::corefile::plugins::{Action, Header};
use shared::serve::{Asked, Handler, Verdict};
use shared::wire::{ErrorCode, Query, Reply, Transport, UDP_SIZE_PLAIN, class, rcode, rtype};

use crate::cache::{Cache, Lookup, Question};
use crate::chaos::{self, Figures, Name};
use crate::counters::{Count, Counters};
use crate::doors::{Allowed, Cookies, ReplyRate};
use crate::forward::Renewer;
use crate::local::Local;
use crate::local::keep::Marks;
use crate::route::{Route, Routes};
use crate::sample::{Samples, Seen, Source};

/// Answers the queries that can be answered at once.
#[derive(Debug)]
pub struct Answers {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The current routes.
    pub routes: Arc<ArcSwap<Routes>>,
    /// The current rules.
    pub local: Arc<ArcSwap<Local>>,
    /// Whether the rules apply to hits.
    pub marks: Arc<Marks>,
    /// The clients that are allowed to query.
    pub allowed: Allowed,
    /// The cookies of replies to clients that send one.
    pub cookies: Cookies,
    /// The outcome of each query.
    pub counters: Arc<Counters>,
    /// Each upstream as `ADDRESS SENT FAILED`, for `servers.bind`.
    pub servers: Arc<ArcSwap<Vec<String>>>,
    /// Receives questions whose entries are about to expire.
    pub renewer: Renewer,
    /// The samples of queries.
    pub samples: Arc<Samples>,
    /// The limit of large replies over UDP, if there is one.
    pub reply_rate: Option<ReplyRate>,
}

impl Handler for Answers {
    fn answer(&self, query: &Query<'_>, asked: &Asked, reply: &mut Reply<'_>) -> Verdict {
        let (verdict, source) = self.decide(query, asked, reply);
        if self.marks.header.load(Ordering::Acquire) && query.qclass == class::IN {
            set_flags(self.local.load().header(query.name()), reply);
        }
        if let Some(rate) = &self.reply_rate
            && verdict == Verdict::Send
        {
            self.limit(rate, query, asked, reply);
        }
        // The forwarder samples the queries that it answers.
        if verdict == Verdict::Send && self.samples.is_due(asked.lane) {
            let (client, arrived, rcode) = (asked.peer.ip(), asked.now, reply.rcode());
            let (has_answer, origin) = (reply.has_answer(), source.into());
            let seen = Seen { query, client, arrived, rcode, has_answer, origin };
            self.samples.take(asked.lane, &seen);
        }
        verdict
    }
}

impl Answers {
    /// Cuts a large reply over UDP if the network of the client had its share of them, unless a
    /// cookie proves that the client gets the replies.
    fn limit(&self, rate: &ReplyRate, query: &Query<'_>, asked: &Asked, reply: &mut Reply<'_>) {
        let (client, now) = (asked.peer.ip(), asked.now);
        let is_proven =
            || query.cookie().is_some_and(|cookie| self.cookies.is_valid(&cookie, client, now));
        let is_large = query.transport == Transport::Udp && reply.len() > UDP_SIZE_PLAIN;
        if is_large && !is_proven() && !rate.admits(client, now) {
            reply.clear_records(query);
            reply.set_truncated();
            self.counters.count(asked.lane, Count::Limited);
        }
    }

    /// Decides what happens to a query. Also returns the source of its reply.
    #[inline]
    fn decide(&self, query: &Query<'_>, asked: &Asked, reply: &mut Reply<'_>) -> (Verdict, Source) {
        reply.set_recursion_available(true);
        if let Some(cookie) = query.client_cookie() {
            reply.set_cookie(self.cookies.reply(cookie, asked.peer.ip(), asked.now));
        }
        if !self.allowed.admits(asked.peer.ip()) {
            return (self.refuse(NOT_ALLOWED, asked, reply), Source::Local);
        }
        if query.qclass != class::IN {
            return (self.answer_other_class(query, asked, reply), Source::Local);
        }
        if self.marks.acl.load(Ordering::Acquire)
            && let Some(verdict) = self.turn_away(query, asked, reply)
        {
            return (verdict, Source::Local);
        }
        // A cache that answers without RD reveals which names other clients have asked for. The
        // cluster's own names are not secret.
        if !query.recursion_desired()
            && !self.routes.load().is_owned(query.name())
            && !self.local.load().owns(query.name())
        {
            return (self.refuse(NOT_RECURSIVE, asked, reply), Source::Local);
        }
        let found = self.cache.get(query, asked.now, reply);
        if !matches!(found, Lookup::Expired | Lookup::Miss) {
            let count = count(query, asked, Count::Hit);
            self.counters.count(asked.lane, count);
            match found {
                Lookup::Due | Lookup::StaleDue => self.renewer.renew(&Question::of(query)),
                _ => {}
            }
            let is_stale = matches!(found, Lookup::Stale | Lookup::StaleDue);
            if is_stale && count == Count::Hit {
                self.counters.count(asked.lane, Count::Stale);
            }
            return (Verdict::Send, if is_stale { Source::Stale } else { Source::Hit });
        }
        let transfer = matches!(query.qtype, rtype::AXFR | rtype::IXFR);
        if transfer || matches!(query.qtype, rtype::OPT | 128..rtype::IXFR | 253 | 254) {
            return (self.refuse(NOT_A_QUESTION, asked, reply), Source::Local);
        }
        (self.route(query, asked, reply), Source::Local)
    }

    /// Refuses, empties or drops a query if the rules about clients require it.
    #[cold]
    fn turn_away(
        &self,
        query: &Query<'_>,
        asked: &Asked,
        reply: &mut Reply<'_>,
    ) -> Option<Verdict> {
        match self.local.load().admits(query.name(), query.qtype, asked.peer.ip()) {
            Action::Allow => None,
            Action::Block => Some(self.refuse(BLOCKED, asked, reply)),
            Action::Filter => {
                self.counters.count(asked.lane, Count::Refused);
                reply.set_error(ErrorCode::Filtered, FILTERED);
                Some(Verdict::Send)
            }
            Action::Drop => {
                self.counters.count(asked.lane, Count::Refused);
                Some(Verdict::Drop)
            }
        }
    }

    /// Answers or defers a query that the cache does not answer.
    fn route(&self, query: &Query<'_>, asked: &Asked, reply: &mut Reply<'_>) -> Verdict {
        let routes = self.routes.load();
        let route = routes.route(query.name());
        let owned = matches!(route, Route::Group(group) if routes.groups()[group].owned);
        self.counters.count(asked.lane, count(query, asked, Count::Miss));
        match route {
            // The forwarder asks the rules first.
            Route::Local(_) if !self.local.load().is_empty() => Verdict::Later,
            Route::Local(local) => {
                local.answer(query, reply);
                Verdict::Send
            }
            // An answer to ANY is an amplifier. One record is enough (RFC 8482 section 4.2).
            Route::Group(_) if query.qtype == rtype::ANY && !owned => {
                let hinfo = [b"\x07RFC8482".as_slice(), b"\0"];
                let owner = shared::wire::Owner::Question;
                reply.push(shared::wire::Section::Answer, owner, HINFO, ANY_TTL_SECS, &hinfo);
                Verdict::Send
            }
            Route::Group(_) => Verdict::Later,
        }
    }

    fn answer_other_class(
        &self,
        query: &Query<'_>,
        asked: &Asked,
        reply: &mut Reply<'_>,
    ) -> Verdict {
        let name = (query.qclass == class::CH).then(|| chaos::name(query.name())).flatten();
        let Some(name) = name else { return self.refuse(NOT_A_QUESTION, asked, reply) };
        self.counters.count(asked.lane, count(query, asked, Count::Chaos));
        reply.set_authoritative(true);
        match name {
            Name::Figure(figure) => {
                chaos::answer(query, &[&figure(&self.figures()).to_string()], reply);
            }
            Name::Version => {
                let version = concat!("dnscache-", env!("CARGO_PKG_VERSION"));
                chaos::answer(query, &[version], reply);
            }
            Name::Servers => {
                let servers = self.servers.load();
                let texts: Vec<&str> = servers.iter().map(String::as_str).collect();
                chaos::answer(query, if texts.is_empty() { &[""] } else { &texts }, reply);
            }
        }
        Verdict::Send
    }

    /// Returns the current figures.
    pub fn figures(&self) -> Figures {
        let changes = self.cache.changes();
        Figures {
            hits: self.counters.total(Count::Hit),
            misses: self.counters.total(Count::Miss),
            insertions: changes.insertions,
            evictions: changes.evictions,
            cache_size: self.cache.bounds().entries as u64,
        }
    }

    fn refuse(
        &self,
        (reason, text): (ErrorCode, &'static str),
        asked: &Asked,
        reply: &mut Reply<'_>,
    ) -> Verdict {
        self.counters.count(asked.lane, Count::Refused);
        reply.fail(rcode::REFUSED, reason, text);
        Verdict::Send
    }
}

/// Sets and clears flags of `reply`.
#[cold]
pub fn set_flags(header: Header, reply: &mut Reply<'_>) {
    header.authoritative.into_iter().for_each(|is_set| reply.set_authoritative(is_set));
    header.recursion_available.into_iter().for_each(|is_set| reply.set_recursion_available(is_set));
    header.recursion_desired.into_iter().for_each(|is_set| reply.set_recursion_desired(is_set));
}

/// Returns what a query counts as: `of_client`, unless it is a probe of healthz in this pod. The
/// mark alone is not enough, because every client can send it.
fn count(query: &Query<'_>, asked: &Asked, of_client: Count) -> Count {
    if is_probe(query, asked.peer.ip()) { Count::Probe } else { of_client }
}

/// Returns whether healthz of this pod asks `query`.
pub fn is_probe(query: &Query<'_>, client: IpAddr) -> bool {
    query.edns.is_some_and(|edns| edns.probe) && client.is_loopback()
}

const HINFO: u16 = 13;
/// An hour. A client that asks ANY again gets the same answer.
const ANY_TTL_SECS: u32 = 3_600;
const NOT_ALLOWED: (ErrorCode, &str) =
    (ErrorCode::Prohibited, "this client is outside the prefixes of --allow");
const BLOCKED: (ErrorCode, &str) =
    (ErrorCode::Blocked, "a rule of acl refuses this question of this client");
const FILTERED: &str = "a rule of acl takes the records away";
const NOT_RECURSIVE: (ErrorCode, &str) =
    (ErrorCode::NotAuthoritative, "without RD only names of the cluster are answered");
const NOT_A_QUESTION: (ErrorCode, &str) =
    (ErrorCode::NotSupported, "neither transfers nor this class or type are served here");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::clock::Moment;
    use shared::config_dir::Keys;
    use shared::prefix;
    use shared::wire::NameBuffer;

    use super::*;
    use crate::cache::{Bounds, Entry};
    use crate::sample::Rate;
    use shared::name::parse;

    fn answers() -> Answers {
        let flags = ["/cluster.local/127.0.0.1#10053", "192.0.2.1"];
        let flags: Vec<_> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
        let routes = Routes::new(&flags, &Keys::default(), &[]);
        let bounds = Bounds { entries: 1_000, bytes: 1 << 20, stale_secs: 60 };
        Answers {
            cache: Arc::new(Cache::new(bounds)),
            routes: Arc::new(ArcSwap::from_pointee(routes)),
            local: Arc::default(),
            marks: Arc::default(),
            allowed: Allowed::new(&[prefix::parse("192.0.2.0/24").unwrap()]),
            cookies: Cookies::new([7; 16], 1_000),
            counters: Arc::new(Counters::new(1)),
            servers: Arc::default(),
            renewer: Renewer::new().0,
            samples: Arc::new(Samples::new(Rate::Adaptive, 1, 7, Moment::default())),
            reply_rate: None,
        }
    }

    /// A query of `class`, with RD if `flags` has it.
    fn message(name: &str, (qtype, qclass): (u16, u16), flags: u8) -> Vec<u8> {
        let mut message = vec![0, 7, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes()); // in its own case
        }
        message.push(0);
        message.extend([qtype.to_be_bytes(), qclass.to_be_bytes()].concat());
        message
    }

    fn ask(answers: &Answers, message: &[u8]) -> (Verdict, u16) {
        ask_from(answers, message, "192.0.2.9:1000")
    }

    fn ask_from(answers: &Answers, message: &[u8], peer: &str) -> (Verdict, u16) {
        let mut buffer = NameBuffer::new();
        let query = Query::screen(message, Transport::Udp, &mut buffer).unwrap();
        let mut out = [0; 512];
        let mut reply = Reply::new(&query, &mut out);
        let now = Moment::default() + Duration::from_secs(1_000);
        let asked = Asked { now, peer: peer.parse().unwrap(), lane: 0 };
        let verdict = answers.answer(&query, &asked, &mut reply);
        (verdict, reply.rcode())
    }

    #[test]
    fn each_query_is_counted_once_by_what_became_of_it() {
        const IN: u16 = class::IN;
        const CH: u16 = class::CH;
        const RD: u8 = 1;
        let (web, out) = ("web.shop.svc.cluster.local", "a.example");
        let answered = (Verdict::Send, rcode::NOERROR);
        let refused = (Verdict::Send, rcode::REFUSED);
        let later = (Verdict::Later, rcode::NOERROR);
        let rows = [
            (out, (rtype::A, IN), RD, later, Count::Miss),
            (out, (65_280, IN), RD, later, Count::Miss),
            (out, (rtype::A, IN), 0, refused, Count::Refused),
            (web, (rtype::A, IN), RD, later, Count::Miss),
            (web, (rtype::A, IN), 0, later, Count::Miss),
            ("kept.example", (rtype::A, IN), RD, answered, Count::Hit),
            ("kept.example", (rtype::A, IN), 0, refused, Count::Refused),
            (web, (rtype::AXFR, IN), RD, refused, Count::Refused),
            (web, (rtype::IXFR, IN), RD, refused, Count::Refused),
            (out, (rtype::OPT, IN), RD, refused, Count::Refused),
            (out, (249, IN), RD, refused, Count::Refused),
            (out, (rtype::ANY, IN), RD, answered, Count::Miss),
            (web, (rtype::ANY, IN), RD, later, Count::Miss),
            (out, (rtype::A, 2), RD, refused, Count::Refused),
            (out, (rtype::A, class::ANY), RD, refused, Count::Refused),
            ("a.onion", (rtype::A, IN), RD, (Verdict::Send, rcode::NXDOMAIN), Count::Miss),
            ("hits.bind", (rtype::TXT, CH), RD, answered, Count::Chaos),
            ("Hits.BIND", (rtype::TXT, CH), RD, answered, Count::Chaos),
            ("version.bind", (rtype::TXT, CH), 0, answered, Count::Chaos),
            ("servers.bind", (rtype::TXT, CH), RD, answered, Count::Chaos),
            ("id.server", (rtype::TXT, CH), RD, refused, Count::Refused),
        ];
        for (name, question, flags, expected, count) in rows {
            let answers = answers();
            let kept = message("kept.example", (rtype::A, IN), RD);
            let entry = Entry::new(&kept, rcode::NOERROR).unwrap();
            let wire = parse("kept.example").unwrap();
            let asked = crate::cache::Question {
                name: &wire,
                qtype: rtype::A,
                qclass: IN,
                dnssec_ok: false,
                checking_disabled: false,
            };
            let now = Moment::default() + Duration::from_secs(1_000);
            answers.cache.insert(&asked, &entry, 30, now);
            let told = ask(&answers, &message(name, question, flags));
            assert_eq!(told, expected, "{name} {question:?}");
            for other in [Count::Hit, Count::Miss, Count::Refused, Count::Chaos] {
                let times = u64::from(other == count);
                assert_eq!(answers.counters.total(other), times, "{name} {question:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_sample_shows_where_its_answer_came_from() {
        let rows = [
            ("kept.example", 1, Some((Source::Hit, rcode::NOERROR))),
            ("kept.example", 0, Some((Source::Local, rcode::REFUSED))),
            ("a.onion", 1, Some((Source::Local, rcode::NXDOMAIN))),
            // The forwarder answers it.
            ("a.example", 1, None),
        ];
        for (name, flags, expected) in rows {
            let answers = answers();
            let kept = message("kept.example", (rtype::A, class::IN), 1);
            let mut buffer = NameBuffer::new();
            let question = Query::screen(&kept, Transport::Udp, &mut buffer).unwrap();
            let entry = Entry::new(&kept, rcode::NOERROR).unwrap();
            let now = Moment::default() + Duration::from_secs(1_000);
            answers.cache.insert(&Question::of(&question), &entry, 30, now);
            ask(&answers, &message(name, (rtype::A, class::IN), flags));
            let samples = answers.samples.drain();
            let got = samples.first().map(|sample| (sample.source, sample.rcode));
            assert_eq!(got, expected, "{name}");
            for sample in samples {
                assert_eq!(sample.name(), &*parse(name).unwrap());
                assert_eq!((sample.client, sample.qtype), ([192, 0, 2, 9].into(), rtype::A));
                assert_eq!((sample.weight, sample.upstream), (1, None));
            }
        }
    }

    #[test]
    fn clients_outside_the_allowed_prefixes_are_refused_whatever_they_ask() {
        let rows = [
            ("192.0.2.9:1000", true),
            ("[::ffff:192.0.2.9]:1000", true),
            ("127.0.0.1:1000", true),
            ("[::1]:1000", true),
            ("127.0.0.2:1000", false),
            ("192.0.3.9:1000", false),
            ("[::ffff:192.0.3.9]:1000", false),
            ("[fd00::1]:1000", false),
            ("10.0.0.7:1000", false),
        ];
        let questions = [
            ("web.shop.svc.cluster.local", (rtype::A, class::IN)),
            ("a.example", (rtype::A, class::IN)),
            ("kept.example", (rtype::A, class::IN)),
            ("hits.bind", (rtype::TXT, class::CH)),
            ("a.onion", (rtype::A, class::IN)),
        ];
        for (peer, is_allowed) in rows {
            for (name, question) in questions {
                let answers = answers();
                let asked = message(name, question, 1);
                if name.starts_with("kept") {
                    let mut buffer = NameBuffer::new();
                    let kept = Query::screen(&asked, Transport::Udp, &mut buffer).unwrap();
                    let entry = Entry::new(&asked, rcode::NOERROR).unwrap();
                    let now = Moment::default() + Duration::from_secs(1_000);
                    answers.cache.insert(&Question::of(&kept), &entry, 30, now);
                }
                let (verdict, rcode) = ask_from(&answers, &asked, peer);
                let is_refused = (verdict, rcode) == (Verdict::Send, rcode::REFUSED);
                assert_eq!(is_refused, !is_allowed, "{peer} {name}");
                let refused = answers.counters.total(Count::Refused);
                assert_eq!(refused, u64::from(!is_allowed), "{peer} {name}");
                let hits = answers.counters.total(Count::Hit);
                assert_eq!(hits, u64::from(is_allowed && name.starts_with("kept")), "{peer}");
            }
        }
    }

    #[test]
    fn probes_of_healthz_are_no_queries_of_clients() {
        const PROBE: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\xfe\x1d\0\0";
        const PLAIN: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
        let (near, far) = ("127.0.0.1:1000", "192.0.2.9:1000");
        let miss = ("web.shop.svc.cluster.local", (rtype::A, class::IN), Count::Miss);
        let chaos = ("version.bind", (rtype::TXT, class::CH), Count::Chaos);
        let local = ("a.onion", (rtype::A, class::IN), Count::Miss);
        let hit = ("kept.example", (rtype::A, class::IN), Count::Hit);
        for (name, question, of_client) in [miss, chaos, local, hit] {
            let rows = [
                (near, Some(PROBE), Count::Probe),
                ("[::1]:1000", Some(PROBE), Count::Probe),
                (far, Some(PROBE), of_client),
                (near, Some(PLAIN), of_client),
                (near, None, of_client),
            ];
            for (peer, edns, expected) in rows {
                let answers = answers();
                let kept = message("kept.example", (rtype::A, class::IN), 1);
                let entry = Entry::new(&kept, rcode::NOERROR).unwrap();
                let mut buffer = NameBuffer::new();
                let kept = Query::screen(&kept, Transport::Udp, &mut buffer).unwrap();
                let now = Moment::default() + Duration::from_secs(1_000);
                answers.cache.insert(&Question::of(&kept), &entry, 30, now);
                let mut asked = message(name, question, 1);
                if let Some(edns) = edns {
                    asked[11] = 1;
                    asked.extend_from_slice(edns);
                }
                ask_from(&answers, &asked, peer);
                for other in [Count::Hit, Count::Miss, Count::Chaos, Count::Stale, Count::Probe] {
                    let times = u64::from(other == expected);
                    assert_eq!(answers.counters.total(other), times, "{name} {peer} {other:?}");
                }
                let is_sampled = expected != Count::Probe && (name, question) != (miss.0, miss.1);
                let samples = answers.samples.drain().len();
                assert_eq!(samples, usize::from(is_sampled), "{name} {peer}");
            }
        }
    }
}
