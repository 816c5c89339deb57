//! What happens to a query: refused, answered from the cache or by a route, or put off until an
//! upstream has answered.
//!
//! Core. Never waits: called by every serving thread at once.

use std::sync::Arc;

use arc_swap::ArcSwap;
use shared::serve::{Asked, Handler, Verdict};
use shared::wire::{ErrorCode, Query, Reply, class, rcode, rtype};

use crate::cache::{Cache, Lookup, Question};
use crate::chaos::{self, Figures, Name};
use crate::counters::{Count, Counters};
use crate::forward::Renewer;
use crate::route::{Route, Routes};

/// Answers what can be answered at once.
#[derive(Debug)]
pub struct Answers {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The routes of the moment.
    pub routes: Arc<ArcSwap<Routes>>,
    /// What became of each query.
    pub counters: Arc<Counters>,
    /// Each upstream as `ADDRESS SENT FAILED`, for `servers.bind`.
    pub servers: Arc<ArcSwap<Vec<String>>>,
    /// Where entries go that are about to expire.
    pub renewer: Renewer,
}

impl Handler for Answers {
    fn answer(&self, query: &Query<'_>, asked: &Asked, reply: &mut Reply<'_>) -> Verdict {
        reply.set_recursion_available(true);
        if query.qclass != class::IN {
            return self.answer_other_class(query, asked, reply);
        }
        let found = self.cache.get(query, asked.now, reply);
        if !matches!(found, Lookup::Expired | Lookup::Miss) {
            if !query.recursion_desired() && !self.routes.load().is_owned(query.name()) {
                reply.clear_records(query);
                return self.refuse(NOT_RECURSIVE, asked, reply);
            }
            self.counters.count(asked.lane, Count::Hit);
            match found {
                Lookup::Stale => self.counters.count(asked.lane, Count::Stale),
                Lookup::Due => self.renewer.renew(&Question::of(query)),
                _ => {}
            }
            return Verdict::Send;
        }
        let transfer = matches!(query.qtype, rtype::AXFR | rtype::IXFR);
        if transfer || matches!(query.qtype, rtype::OPT | 128..rtype::IXFR | 253 | 254) {
            return self.refuse(NOT_A_QUESTION, asked, reply);
        }
        self.route(query, asked, reply)
    }
}

impl Answers {
    /// A query that the cache does not answer.
    fn route(&self, query: &Query<'_>, asked: &Asked, reply: &mut Reply<'_>) -> Verdict {
        let routes = self.routes.load();
        let route = routes.route(query.name());
        let owned = matches!(route, Route::Group(group) if routes.groups()[group].owned);
        if !query.recursion_desired() && !owned {
            return self.refuse(NOT_RECURSIVE, asked, reply);
        }
        self.counters.count(asked.lane, Count::Miss);
        match route {
            Route::Local(local) => {
                local.answer(query, reply);
                Verdict::Send
            }
            // An answer to ANY is an amplifier; one record says so (RFC 8482 section 4.2).
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
        self.counters.count(asked.lane, Count::Chaos);
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

    /// The figures of the moment.
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

const HINFO: u16 = 13;
/// An hour: whoever asks ANY again gets the same.
const ANY_TTL_SECS: u32 = 3_600;
const NOT_RECURSIVE: (ErrorCode, &str) =
    (ErrorCode::NotAuthoritative, "without RD only names of the cluster are answered");
const NOT_A_QUESTION: (ErrorCode, &str) =
    (ErrorCode::NotSupported, "neither transfers nor this class or type are served here");
