//! dnscache's core against a scripted upstream, with a simulated clock. A script asks, lets time
//! pass, and asks again. There are no sockets and no sleeps.
//!
//! ```text
//! upstream NAME TYPE: RCODE[+aa][+ad] [answer records] [; authority records]
//! upstream NAME TYPE: fails
//! ask NAME TYPE [+ad] [+do] [+cd]: hit | due | stale | stale due | miss [code] [TTLs]
//!                                  [aa] [ad]
//! pass SECONDS
//! ```
//!
//! An upstream gives the same answer whether DO and CD are set or not.

use std::collections::HashMap;
use std::time::Duration;

use dnscache::cache::{Blame, Bounds, Cache, Failed, Lookup, Policy, Question};
use dnscache::lifetime::Limits;
use dnscache::normalise::{Asked, reduce};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asking, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, NULL, SOA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use shared::clock::Moment;
use shared::wire::{NameBuffer, Query, Reply, Transport, rcode};

mod random;

/// The cache, the time, and the upstream's answers.
struct World {
    cache: Cache,
    limits: Limits,
    now: Moment,
    upstream: HashMap<String, Option<Vec<u8>>>,
}

impl World {
    fn new(stale_secs: u32, limits: Limits) -> Self {
        Self::with_policy(stale_secs, limits, Policy::default())
    }

    fn with_policy(stale_secs: u32, limits: Limits, policy: Policy) -> Self {
        let bounds = Bounds { entries: 1_000, bytes: 1 << 20, stale_secs };
        let now = Moment::default() + Duration::from_secs(1_000);
        let cache = Cache::with_policy(bounds, policy);
        Self { cache, limits, now, upstream: HashMap::new() }
    }

    /// Runs a script. Each line is compared with what it expects.
    #[track_caller]
    fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, rest) = line.split_once(' ').unwrap();
            match command {
                "pass" => self.now = self.now + Duration::from_secs(rest.parse().unwrap()),
                "upstream" => {
                    let (question, reply) = rest.split_once(": ").unwrap();
                    let reply = (reply != "fails").then(|| reply_of(question, reply));
                    self.upstream.insert(question.to_owned(), reply);
                }
                "ask" => {
                    let (question, expected) = rest.split_once(": ").unwrap();
                    assert_eq!(self.ask(question), expected, "{line}\nin\n{script}");
                }
                other => panic!("{other} is no command"),
            }
        }
    }

    /// Returns what a client gets, by the same steps as in dnscache.
    fn ask(&self, question: &str) -> String {
        let message = query_of(question);
        let question = question.split(" +").next().unwrap();
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
        let mut buffer = [0; 1_232];
        let mut reply = Reply::new(&query, &mut buffer);
        let source = match self.cache.get(&query, self.now, &mut reply) {
            Lookup::Hit => "hit",
            Lookup::Due => "due",
            Lookup::Stale => "stale",
            Lookup::StaleDue => "stale due",
            Lookup::Expired | Lookup::Miss => self.miss(question, &query, &mut reply),
        };
        let len = reply.finish();
        let message = Message::from_vec(&buffer[..len]).unwrap();
        let ttls = message.all_sections().map(|record| format!(" {}", record.ttl));
        let ttls: String = ttls.collect();
        let code = match u16::from(message.metadata.response_code) {
            rcode::SERVFAIL => " SERVFAIL",
            rcode::NXDOMAIN => " NXDOMAIN",
            _ => "",
        };
        let aa = if message.metadata.authoritative { " aa" } else { "" };
        let ad = if message.metadata.authentic_data { " ad" } else { "" };
        format!("{source}{code}{ttls}{aa}{ad}")
    }

    fn miss(&self, question: &str, query: &Query<'_>, reply: &mut Reply<'_>) -> &'static str {
        let asked = Question::of(query);
        let said = self.upstream.get(question).and_then(Option::as_ref);
        let Some(said) = said else {
            let failed = Failed { code: rcode::SERVFAIL, blame: Blame::NONE, names: &[] };
            self.cache.fail(&asked, &failed, self.now);
            return match self.cache.get_stale(query, self.now, reply) {
                Some(rcode::NOERROR | rcode::NXDOMAIN) => "stale",
                _ => "miss",
            };
        };
        let (name, qtype) = (asked.name, asked.qtype);
        let whom = Asked {
            name,
            qtype,
            dnssec_ok: asked.dnssec_ok,
            owned: false,
            is_theirs: &|_, _| true,
        };
        let answer = reduce(said, &whom, &self.limits).unwrap();
        answer.entry.emit(query, 0, u32::MAX, reply);
        self.cache.insert(&asked, &answer.entry, answer.lifetime_secs, self.now);
        "miss"
    }
}

fn parts_of(question: &str) -> (Name, RecordType) {
    let (name, rtype) = question.split_once(' ').unwrap();
    let rtype = match rtype.strip_prefix("TYPE") {
        Some(number) => RecordType::Unknown(number.parse().unwrap()),
        None => rtype.parse().unwrap(),
    };
    (name.parse().unwrap(), rtype)
}

fn query_of(question: &str) -> Vec<u8> {
    let mut words = question.split(" +");
    let (name, rtype) = parts_of(words.next().unwrap());
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Asking::query(name, rtype));
    for flag in words {
        match flag {
            "ad" => message.metadata.authentic_data = true,
            "cd" => message.metadata.checking_disabled = true,
            "do" => {
                message.set_edns(Edns::new().set_dnssec_ok(true).clone());
            }
            other => panic!("{other} is no flag of a query"),
        }
    }
    message.to_vec().unwrap()
}

/// Parses `RCODE records ; records`. A record is `name ttl type data`. Commas separate records.
fn reply_of(question: &str, text: &str) -> Vec<u8> {
    let (name, rtype) = parts_of(question);
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(Asking::query(name, rtype));
    let (code, records) = text.split_once(' ').unwrap_or((text, ""));
    let (code, flags) = code.split_once('+').unwrap_or((code, ""));
    message.metadata.authoritative = flags.contains("aa");
    message.metadata.authentic_data = flags.contains("ad");
    message.metadata.response_code = match code {
        "NOERROR" => ResponseCode::NoError,
        "NXDOMAIN" => ResponseCode::NXDomain,
        other => panic!("{other} is no code of ours"),
    };
    let (answers, authorities) = records.split_once(';').unwrap_or((records, ""));
    let records = |text: &str| -> Vec<Record> {
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(record_of).collect()
    };
    message.answers = records(answers);
    message.authorities = records(authorities);
    message.to_vec().unwrap()
}

fn record_of(text: &str) -> Record {
    let words: Vec<&str> = text.split_whitespace().collect();
    let name = |text: &str| text.parse::<Name>().unwrap();
    let data = match words[2] {
        "A" => RData::A(A(words[3].parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(words[3].parse().unwrap())),
        "CNAME" => RData::CNAME(CNAME(name(words[3]))),
        "NS" => RData::NS(NS(name(words[3]))),
        "TXT" => RData::TXT(TXT::new(vec![words[3].to_owned()])),
        // The text has only MINIMUM.
        "SOA" => {
            let minimum = words[3].parse().unwrap();
            RData::SOA(SOA::new(name("ns."), name("h."), 1, 2, 3, 4, minimum))
        }
        code => {
            let code = RecordType::Unknown(code.strip_prefix("TYPE").unwrap().parse().unwrap());
            RData::Unknown { code, rdata: NULL::with(words[3].as_bytes().to_vec()) }
        }
    };
    let mut record = Record::from_rdata(name(words[0]), words[1].parse().unwrap(), data);
    record.dns_class = DNSClass::IN;
    record
}

const LIMITS: Limits = Limits { ttl_min: 0, ttl_max: 86_400, negative_max: 300 };

#[track_caller]
fn check(script: &str) {
    World::new(0, LIMITS).run(script);
}

#[test]
fn a_positive_answer_lives_as_long_as_its_shortest_record() {
    check(
        "upstream a.example. A: NOERROR a.example. 30 A 10.0.0.1
         ask a.example. A: miss 30
         pass 29
         ask a.example. A: hit 1
         pass 1
         ask a.example. A: miss 30
         upstream b.example. A: NOERROR b.example. 300 CNAME c.example., c.example. 20 A 10.0.0.1
         ask b.example. A: miss 300 20
         pass 19
         ask b.example. A: hit 281 1
         pass 1
         ask b.example. A: miss 300 20",
    );
}

#[test]
fn a_ttl_of_zero_is_passed_on_and_neither_kept_nor_raised() {
    let script = "upstream a.example. A: NOERROR a.example. 0 A 10.0.0.1
         ask a.example. A: miss 0
         ask a.example. A: miss 0
         upstream b.example. A: NOERROR b.example. 2147483648 A 10.0.0.1
         ask b.example. A: miss 86400";
    check(script);
    World::new(0, Limits { ttl_min: 60, ..LIMITS }).run(script);
}

#[test]
fn ceilings_and_floors_are_those_of_the_flags() {
    World::new(0, Limits { ttl_min: 5, ttl_max: 60, negative_max: 10 }).run(
        "upstream a.example. A: NOERROR a.example. 600 A 10.0.0.1
         ask a.example. A: miss 60
         pass 59
         ask a.example. A: hit 1
         pass 1
         ask a.example. A: miss 60
         upstream b.example. A: NOERROR b.example. 1 A 10.0.0.1
         ask b.example. A: miss 5
         pass 4
         ask b.example. A: hit 1
         upstream c.example. A: NXDOMAIN ; example. 600 SOA 600
         ask c.example. A: miss NXDOMAIN 10
         pass 9
         ask c.example. A: hit NXDOMAIN 1
         pass 1
         ask c.example. A: miss NXDOMAIN 10",
    );
}

/// The cache counts the seconds since the machine booted, time asleep included.
#[test]
fn entries_age_while_the_machine_sleeps() {
    World::new(86_400, LIMITS).run(
        "upstream long.example. A: NOERROR long.example. 7200 A 10.0.0.1
         upstream short.example. A: NOERROR short.example. 600 A 10.0.0.2
         upstream no.example. A: NXDOMAIN ; example. 300 SOA 300
         upstream down.example. A: fails
         ask long.example. A: miss 7200
         ask short.example. A: miss 600
         ask no.example. A: miss NXDOMAIN 300
         ask down.example. A: miss SERVFAIL
         pass 3600
         ask long.example. A: hit 3600
         ask short.example. A: miss 600
         ask no.example. A: miss NXDOMAIN 300
         upstream down.example. A: NOERROR down.example. 60 A 10.0.0.3
         ask down.example. A: miss 60
         upstream short.example. A: fails
         pass 3600
         ask short.example. A: stale 30
         pass 315360000
         upstream long.example. A: fails
         ask long.example. A: miss SERVFAIL
         ask short.example. A: miss SERVFAIL",
    );
}

/// Without another reader of the wall clock, no jump of it can change a lifetime.
#[test]
fn the_wall_clock_is_read_for_display_and_once_at_the_start_alone() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dnscache/src");
    let mut folders = vec![source.clone()];
    let mut readers = Vec::new();
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            if file.is_dir() {
                folders.push(file);
            } else {
                let text = std::fs::read_to_string(&file).unwrap();
                if ["unix_ms()", "SystemTime", "Timestamp::now"].iter().any(|it| text.contains(it))
                {
                    readers.push(file.strip_prefix(&source).unwrap().to_owned());
                }
            }
        }
    }
    readers.sort();
    // `cache_file.rs` ages entries from one process to the next, but never makes them younger.
    // `lib.rs` dates the cookies, which count on from the time since boot.
    let known = ["cache_file.rs", "http/tail.rs", "lib.rs"];
    assert_eq!(readers, known.map(std::path::PathBuf::from));
}

#[test]
fn a_denial_lives_as_long_as_its_soa_says_and_not_at_all_without() {
    check(
        "upstream a.example. A: NXDOMAIN ; example. 60 SOA 20
         ask a.example. A: miss NXDOMAIN 20
         pass 19
         ask a.example. A: hit NXDOMAIN 1
         pass 1
         ask a.example. A: miss NXDOMAIN 20
         upstream b.example. A: NOERROR ; example. 20 SOA 60
         ask b.example. A: miss 20
         ask b.example. A: hit 20
         upstream b.example. AAAA: NOERROR b.example. 60 AAAA ::1
         ask b.example. AAAA: miss 60
         upstream c.example. A: NXDOMAIN
         ask c.example. A: miss NXDOMAIN
         ask c.example. A: miss NXDOMAIN
         upstream d.example. A: NOERROR
         ask d.example. A: miss
         ask d.example. A: miss
         upstream e.example. A: NXDOMAIN e.example. 9 CNAME f.example. ; example. 60 SOA 60
         ask e.example. A: miss NXDOMAIN 9 60
         pass 8
         ask e.example. A: hit NXDOMAIN 1 52
         pass 1
         ask e.example. A: miss NXDOMAIN 9 60",
    );
}

#[test]
fn failures_are_kept_for_a_second_and_twice_as_long_each_time() {
    check(
        "upstream a.example. A: fails
         ask a.example. A: miss SERVFAIL
         ask a.example. A: hit SERVFAIL
         pass 1
         ask a.example. A: miss SERVFAIL
         pass 1
         ask a.example. A: hit SERVFAIL
         pass 1
         upstream a.example. A: NOERROR a.example. 30 A 10.0.0.1
         ask a.example. A: miss 30
         ask a.example. A: hit 30
         pass 30
         upstream a.example. A: fails
         ask a.example. A: miss SERVFAIL
         pass 1
         ask a.example. A: miss SERVFAIL",
    );
}

#[test]
fn what_has_expired_is_better_than_a_failure_and_makes_way_for_news() {
    World::new(3_600, LIMITS).run(
        "upstream a.example. A: NOERROR a.example. 60 A 10.0.0.1
         upstream b.example. A: NXDOMAIN ; example. 60 SOA 60
         ask a.example. A: miss 60
         ask b.example. A: miss NXDOMAIN 60
         pass 60
         upstream a.example. A: fails
         upstream b.example. A: fails
         ask a.example. A: stale 30
         ask a.example. A: stale 30
         ask b.example. A: stale NXDOMAIN 30
         pass 1
         upstream a.example. A: NOERROR a.example. 60 A 10.0.0.1
         ask a.example. A: miss 60
         ask a.example. A: hit 60
         pass 3600
         upstream a.example. A: fails
         ask a.example. A: stale 30
         pass 60
         ask a.example. A: miss SERVFAIL
         ask b.example. A: miss SERVFAIL",
    );
}

#[test]
fn an_entry_in_demand_is_due_in_the_last_tenth_of_its_time() {
    check(
        "upstream a.example. A: NOERROR a.example. 100 A 10.0.0.1
         ask a.example. A: miss 100
         ask a.example. A: hit 100
         pass 90
         ask a.example. A: due 10
         ask a.example. A: hit 10
         pass 10
         ask a.example. A: miss 100",
    );
}

#[test]
fn do_and_cd_are_due_on_their_own() {
    check(
        "upstream a.example. A: NOERROR a.example. 100 A 10.0.0.1
         ask a.example. A +do: miss 100
         ask a.example. A +cd: miss 100
         ask a.example. A +do: hit 100
         ask a.example. A +cd: hit 100
         pass 90
         ask a.example. A +do: due 10
         ask a.example. A +do: hit 10
         ask a.example. A +cd: due 10
         ask a.example. A +cd: hit 10
         ask a.example. A: miss 100
         ask a.example. A +do +cd: miss 100",
    );
}

#[test]
fn an_alias_may_be_what_is_asked_for() {
    check(
        "upstream a.example. CNAME: NOERROR a.example. 60 CNAME b.example.
         ask a.example. CNAME: miss 60
         pass 10
         ask a.example. CNAME: hit 50",
    );
}

#[test]
fn news_of_what_has_expired_comes_before_it() {
    World::new(3_600, LIMITS).run(
        "upstream a.example. A: NOERROR a.example. 60 A 10.0.0.1
         upstream b.example. A: NXDOMAIN ; example. 60 SOA 60
         ask a.example. A: miss 60
         ask b.example. A: miss NXDOMAIN 60
         pass 60
         upstream a.example. A: NXDOMAIN ; example. 20 SOA 20
         upstream b.example. A: NOERROR b.example. 30 A 10.0.0.1
         ask a.example. A: miss NXDOMAIN 20
         ask b.example. A: miss 30
         ask a.example. A: hit NXDOMAIN 20
         ask b.example. A: hit 30
         pass 20
         upstream a.example. A: fails
         ask a.example. A: stale NXDOMAIN 20",
    );
}

#[test]
fn every_type_is_kept_and_apart() {
    check(
        "upstream a.example. A: NOERROR a.example. 60 A 10.0.0.1
         upstream a.example. AAAA: NOERROR ; example. 30 SOA 30
         upstream a.example. TXT: NOERROR a.example. 50 TXT text
         upstream a.example. TYPE65280: NOERROR a.example. 40 TYPE65280 opaque
         ask a.example. A: miss 60
         ask a.example. AAAA: miss 30
         ask a.example. TXT: miss 50
         ask a.example. TYPE65280: miss 40
         pass 10
         ask A.eXample. A: hit 50
         ask a.example. AAAA: hit 20
         ask a.example. TXT: hit 40
         ask a.example. TYPE65280: hit 30",
    );
}

/// RFC 2181 section 5.2: the lowest TTL applies to the whole RRset. Each RRset ages on its own.
#[test]
fn an_rrset_has_the_lowest_of_its_ttls() {
    check(
        "upstream a.example. A: NOERROR a.example. 90 A 10.0.0.1, a.example. 20 A 10.0.0.2
         ask a.example. A: miss 20 20
         pass 19
         ask a.example. A: hit 1 1
         pass 1
         ask a.example. A: miss 20 20
         upstream b.example. A: NOERROR b.example. 90 CNAME c.example., \
          c.example. 30 A 10.0.0.1, c.example. 0 A 10.0.0.2
         ask b.example. A: miss 90 0 0
         ask b.example. A: miss 90 0 0
         upstream d.example. A: NOERROR d.example. 90 CNAME e.example., \
          e.example. 30 A 10.0.0.1, e.example. 60 A 10.0.0.2
         ask d.example. A: miss 90 30 30
         pass 29
         ask d.example. A: hit 61 1 1",
    );
}

/// RFC 9520 section 3.2: a failure is cached for at least a second and at most five minutes, longer
/// each time.
#[test]
fn failures_are_never_kept_for_longer_than_five_seconds() {
    let kept = [1, 2, 4, 5, 5, 5];
    let mut script = "upstream a.example. A: fails\n".to_owned();
    for secs in kept {
        script += &format!(
            "ask a.example. A: miss SERVFAIL
             pass {}
             ask a.example. A: hit SERVFAIL
             pass 1\n",
            secs - 1
        );
    }
    check(&script);
    // The failure is forgotten after twice its time without another one.
    script += "pass 5
               ask a.example. A: miss SERVFAIL
               pass 1
               ask a.example. A: miss SERVFAIL";
    check(&script);
}

/// RFC 8767 section 5: an expired answer is refreshed ever less often while that fails, and is sent
/// meanwhile.
#[test]
fn an_expired_answer_is_renewed_ever_less_often_while_that_fails() {
    World::new(100, LIMITS).run(
        "upstream a.example. A: NOERROR+ad a.example. 60 A 10.0.0.1, a.example. 10 A 10.0.0.2
         upstream b.example. A: NOERROR ; example. 10 SOA 10
         ask a.example. A +ad: miss 10 10 ad
         ask b.example. A: miss 10
         upstream a.example. A: fails
         upstream b.example. A: fails
         pass 10
         ask a.example. A +ad: stale 10 10 ad
         ask b.example. A: stale 10
         pass 1
         ask a.example. A: stale 10 10
         pass 1
         upstream a.example. A: NOERROR a.example. 60 A 10.0.0.1
         ask a.example. A: stale 10 10
         pass 1
         ask a.example. A: miss 60
         pass 60
         upstream a.example. A: fails
         ask a.example. A: stale 30
         pass 99
         ask a.example. A: stale 30
         pass 1
         ask a.example. A: miss SERVFAIL",
    );
}

/// The options `keepttl`, `serve_stale` and `serve_stale_policy` of CoreDNS.
#[test]
fn entries_are_served_as_the_policy_requires() {
    let check = |policy, script: &str| World::with_policy(100, LIMITS, policy).run(script);
    check(
        Policy { keeps_ttl: true, ..Policy::default() },
        "upstream a.example. A: NOERROR a.example. 60 A 10.0.0.1
         ask a.example. A: miss 60
         pass 40
         ask a.example. A: hit 60
         pass 20
         upstream a.example. A: fails
         ask a.example. A: stale 30",
    );
    check(
        Policy { stale_first: true, stale_ttl: 0, ..Policy::default() },
        "upstream a.example. A: NOERROR a.example. 60 A 10.0.0.1
         upstream b.example. A: fails
         ask a.example. A: miss 60
         ask b.example. A: miss SERVFAIL
         pass 60
         ask a.example. A: stale due 0
         ask a.example. A: stale 0
         ask b.example. A: miss SERVFAIL
         pass 1
         ask a.example. A: stale due 0
         pass 99
         ask a.example. A: miss 60",
    );
    // The client that causes the renewal gets the expired answer as well, from the desk.
    check(
        Policy { prefers_positive: true, ..Policy::default() },
        "upstream a.example. A: NOERROR a.example. 60 A 10.0.0.1
         upstream b.example. A: NXDOMAIN ; example. 10 SOA 10
         ask a.example. A: miss 60
         ask b.example. A: miss NXDOMAIN 10
         ask b.example. A: hit NXDOMAIN 10
         pass 60
         upstream a.example. A: NXDOMAIN ; example. 10 SOA 10
         ask a.example. A: miss NXDOMAIN 10
         ask a.example. A: stale 30
         pass 10
         upstream a.example. A: NOERROR a.example. 7 A 10.0.0.1
         ask a.example. A: miss 7
         ask a.example. A: hit 7",
    );
}

/// RFC 6840 section 5.8: AD is set only for clients that ask for it. AA is the upstream's, and is
/// not passed on. RFC 4035 section 4.7: queries with CD or DO have their own entries.
#[test]
fn ad_is_for_those_who_ask_and_do_and_cd_are_kept_apart() {
    check(
        "upstream a.example. A: NOERROR+aa+ad a.example. 60 A 10.0.0.1
         ask a.example. A: miss 60
         ask a.example. A +ad: hit 60 ad
         ask a.example. A: hit 60
         ask a.example. A +do: miss 60 ad
         ask a.example. A +do: hit 60 ad
         ask a.example. A +cd: miss 60
         ask a.example. A +cd: hit 60
         ask a.example. A +do +cd: miss 60 ad
         pass 10
         ask a.example. A +ad +cd: hit 50 ad
         upstream b.example. A: NXDOMAIN+ad ; example. 60 SOA 60
         ask b.example. A +ad: miss NXDOMAIN 60 ad
         ask b.example. A: hit NXDOMAIN 60
         upstream c.example. A: NOERROR c.example. 60 A 10.0.0.1
         ask c.example. A +do: miss 60
         ask c.example. A +do: hit 60",
    );
}

/// RFC 2308 section 5: a denial applies to one type, except NXDOMAIN. An answer replaces it.
#[test]
fn a_denial_and_an_answer_of_one_name_live_apart() {
    check(
        "upstream a.example. A: NOERROR a.example. 60 A 10.0.0.1
         upstream a.example. AAAA: NOERROR ; example. 10 SOA 10
         ask a.example. A: miss 60
         ask a.example. AAAA: miss 10
         pass 10
         upstream a.example. AAAA: NOERROR a.example. 60 AAAA ::1
         ask a.example. AAAA: miss 60
         ask a.example. A: hit 50
         pass 50
         upstream a.example. A: NXDOMAIN ; example. 5 SOA 60
         ask a.example. A: miss NXDOMAIN 5
         ask a.example. AAAA: hit 10
         pass 5
         upstream a.example. A: NOERROR a.example. 7 A 10.0.0.1
         ask a.example. A: miss 7
         ask a.example. A: hit 7",
    );
}
