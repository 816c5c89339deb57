//! The rules of the cache, tested with a simulated clock.

use std::time::Duration;

use shared::saved::bytes::Cursor;
use shared::wire::{NameBuffer, Transport, UDP_SIZE_MAX};

use super::*;

const BOUNDS: Bounds = Bounds { entries: 1_000, bytes: 1 << 20, stale_secs: 0 };

const FAILED: Failed<'static> = Failed { code: 2, blame: Blame::NONE, names: &[] };

fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.split('.') {
        wire.push(label.len() as u8);
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}

fn message(text: &str, qtype: u16) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(name(text));
    message.extend(qtype.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// A reply with an address for each of `ttls`.
fn addresses(text: &str, ttls: &[u32]) -> Entry {
    let mut reply = message(text, 1);
    reply[7] = ttls.len() as u8;
    for (index, ttl) in ttls.iter().enumerate() {
        reply.extend([0xc0, 12, 0, 1, 0, 1]);
        reply.extend(ttl.to_be_bytes());
        reply.extend([0, 4, 10, 0, 0, index as u8]);
    }
    Entry::new(&reply, 0).unwrap()
}

fn question(name: &[u8]) -> Question<'_> {
    Question { name, qtype: 1, qclass: 1, dnssec_ok: false, checking_disabled: false }
}

struct World {
    cache: Cache,
    now: Moment,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        Self { cache: Cache::new(bounds), now: Moment::default() + Duration::from_secs(1_000) }
    }

    fn pass(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
    }

    fn learn(&self, text: &str, ttl: u32) {
        let entry = addresses(text, &[ttl]);
        self.cache.insert(&question(&name(text)), &entry, ttl, self.now);
    }

    fn deny(&self, text: &str, secs: u32) {
        let entry = Entry::failure(3);
        self.cache.insert(&question(&name(text)), &entry, secs, self.now);
    }

    /// Returns the result of a lookup, and the reply.
    fn ask(&self, text: &str) -> (Lookup, Vec<u8>) {
        let message = message(text, 1);
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
        let mut buffer = [0; UDP_SIZE_MAX];
        let mut reply = Reply::new(&query, &mut buffer);
        let found = self.cache.get(&query, self.now, &mut reply);
        let len = reply.finish();
        (found, buffer[..len].to_vec())
    }

    fn is_hit(&self, text: &str) -> bool {
        matches!(self.ask(text).0, Lookup::Hit | Lookup::Due)
    }
}

/// The TTL of the first record behind a question for `text`.
fn ttl(reply: &[u8], text: &str) -> u32 {
    let at = 12 + name(text).len() + 4 + 6;
    u32::from_be_bytes(reply[at..at + 4].try_into().unwrap())
}

/// AD is set only for clients that set AD or DO (RFC 6840 sections 5.7 and 5.8).
#[test]
fn flags_of_the_header_are_the_answers_and_ad_is_for_those_who_understand_it() {
    const AA: u8 = 0x04;
    const AD: u8 = 0x20;
    const OPT_DO: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0";
    for (authoritative, authentic) in [(false, false), (true, false), (false, true), (true, true)] {
        for (asks_ad, asks_do) in [(false, false), (true, false), (false, true)] {
            let mut message = message("web.example", 1);
            if asks_ad {
                message[3] |= AD;
            }
            if asks_do {
                message[11] = 1;
                message.extend_from_slice(OPT_DO);
            }
            let mut name = NameBuffer::new();
            let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
            let cache = Cache::new(BOUNDS);
            let entry = addresses("web.example", &[30]);
            let entry = entry.with_flags(authoritative, authentic, false);
            cache.insert(&Question::of(&query), &entry, 30, Moment::default());
            let mut buffer = [0; UDP_SIZE_MAX];
            let mut reply = Reply::new(&query, &mut buffer);
            assert_eq!(cache.get(&query, Moment::default(), &mut reply), Lookup::Hit);
            reply.finish();
            let told = (buffer[2] & AA != 0, buffer[3] & AD != 0);
            let expected = (authoritative, authentic && (asks_ad || asks_do));
            assert_eq!(told, expected, "asks AD {asks_ad}, DO {asks_do}");
        }
    }
}

#[test]
fn ttls_fall_as_time_passes_and_the_entry_goes_with_the_lowest() {
    let mut world = World::new(BOUNDS);
    world.learn("web.example", 30);
    for (passed, expected) in [(0, Some(30)), (1, Some(29)), (28, Some(1)), (1, None)] {
        world.pass(passed);
        let (found, reply) = world.ask("web.example");
        let seen = matches!(found, Lookup::Hit | Lookup::Due).then(|| ttl(&reply, "web.example"));
        assert_eq!(seen, expected);
    }
}

#[test]
fn the_question_comes_back_in_the_clients_case() {
    let world = World::new(BOUNDS);
    world.learn("web.example", 30);
    let (found, reply) = world.ask("WeB.eXample");
    assert_eq!(found, Lookup::Hit);
    assert_eq!(reply[..2], [0, 7]);
    assert_eq!(reply[12..25], *name("WeB.eXample"));
    assert_eq!(reply[3] & 0x80, 0x80, "RA");
}

#[test]
fn what_changes_the_answer_is_part_of_the_key() {
    let world = World::new(BOUNDS);
    let wire = name("web.example");
    let asked = question(&wire);
    world.cache.insert(&asked, &addresses("web.example", &[30]), 30, world.now);
    let others = [
        Question { qtype: 28, ..asked },
        Question { qclass: 3, ..asked },
        Question { dnssec_ok: true, ..asked },
        Question { checking_disabled: true, ..asked },
        Question { name: &wire[4..], ..asked },
    ];
    assert!(world.cache.state(&asked, world.now).is_some());
    for other in others {
        assert_eq!(world.cache.state(&other, world.now), None, "{other:?}");
    }
}

#[test]
fn addresses_turn_from_query_to_query() {
    let world = World::new(BOUNDS);
    let wire = name("web.example");
    world.cache.insert(&question(&wire), &addresses("web.example", &[30; 3]), 30, world.now);
    let first = |_| {
        let (_, reply) = world.ask("web.example"); // always with the same ID
        reply[12 + 13 + 4 + 15]
    };
    let mut times = [0; 3];
    (0..300).map(first).for_each(|address| times[usize::from(address)] += 1);
    assert!(times.iter().all(|times| (95..=105).contains(times)), "{times:?}");
}

#[test]
fn an_answer_too_large_for_the_client_is_cut_at_a_record() {
    let world = World::new(BOUNDS);
    let wire = name("web.example");
    world.cache.insert(&question(&wire), &addresses("web.example", &[30; 60]), 30, world.now);
    let (found, reply) = world.ask("web.example");
    assert_eq!(found, Lookup::Hit);
    assert_eq!(reply[2] & 0x02, 0x02, "TC");
    assert_eq!(usize::from(reply[7]), (512 - 12 - 17) / 16);
    assert_eq!(reply.len(), 12 + 17 + usize::from(reply[7]) * 16);
}

#[test]
fn what_nobody_asked_for_is_whole_or_left_out() {
    let check = |answers: u8, additionals: u8, expected: [u8; 2], is_cut: bool| {
        let mut reply = message("a.example", 1);
        (reply[7], reply[11]) = (answers, additionals);
        for index in 0..answers + additionals {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, index]);
        }
        let world = World::new(BOUNDS);
        let owner = name("a.example");
        world.cache.insert(&question(&owner), &Entry::new(&reply, 0).unwrap(), 9, world.now);
        let (_, reply) = world.ask("a.example");
        assert_eq!([reply[7], reply[11]], expected);
        assert_eq!(reply[2] & 2 != 0, is_cut, "TC");
    };
    // 30 records fit into 512 bytes
    check(10, 20, [10, 20], false);
    check(10, 21, [10, 0], false);
    check(31, 1, [30, 0], true);
}

#[test]
fn the_bounds_hold_exactly() {
    for entries in [1, 2, 100, 1_000, 5_000] {
        let world = World::new(Bounds { entries, bytes: 64 << 20, stale_secs: 0 });
        (0..20_000).for_each(|n| world.learn(&format!("h{n}.example"), 300));
        assert!(world.cache.len() <= entries, "{} of {entries}", world.cache.len());
        assert!(world.cache.len() * 10 >= entries * 9);
    }
    let world = World::new(Bounds { entries: 1 << 20, bytes: 1 << 20, stale_secs: 0 });
    let empty = world.cache.bytes();
    (0..20_000).for_each(|n| world.learn(&format!("h{n}.example"), 300));
    assert!((900_000..=1 << 20).contains(&world.cache.bytes()), "{}", world.cache.bytes());
    world.cache.remove_below(&[0]);
    assert_eq!((world.cache.bytes(), world.cache.len()), (empty, 0));
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let off = World::new(Bounds { entries: 0, ..BOUNDS });
    off.learn("web.example", 30);
    assert!(!off.is_hit("web.example"));
    let world = World::new(BOUNDS);
    world.learn("zero.example", 0);
    assert!(!world.is_hit("zero.example") && world.cache.is_empty());
}

#[test]
fn names_asked_again_outlive_a_flood_of_names_asked_once() {
    let world = World::new(Bounds { entries: 1_000, bytes: 1 << 20, stale_secs: 0 });
    let good: Vec<String> = (0..300).map(|n| format!("good{n}.example")).collect();
    good.iter().for_each(|name| world.learn(name, 300));
    assert!(good.iter().all(|name| world.is_hit(name)));
    for n in 0..20_000 {
        world.learn(&format!("once{n}.example"), 300);
        world.ask(&good[n % 300]);
    }
    let kept = good.iter().filter(|name| world.is_hit(name)).count();
    assert!(kept >= 290, "{kept} of 300");
    for n in 0..20_000 {
        world.deny(&format!("no{n}.example"), 300);
        world.ask(&good[n % 300]);
    }
    let kept = good.iter().filter(|name| world.is_hit(name)).count();
    assert!(kept >= 290, "{kept} of 300 after denials");
}

#[test]
fn what_has_expired_is_stale_for_a_while_and_a_failure_does_not_replace_it() {
    let mut world = World::new(Bounds { stale_secs: 60, ..BOUNDS });
    world.learn("web.example", 30);
    world.pass(30);
    assert_eq!(world.ask("web.example").0, Lookup::Expired);
    world.cache.fail(&question(&name("web.example")), &FAILED, world.now);
    let message = message("web.example", 1);
    let mut buffer = [0; 512];
    let mut stale = |now, cache: &Cache| {
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
        let mut reply = Reply::new(&query, &mut buffer);
        let code = cache.get_stale(&query, now, &mut reply);
        let len = reply.finish();
        code.map(|code| (code, ttl(&buffer[..len], "web.example")))
    };
    assert_eq!(stale(world.now, &world.cache), Some((0, 30)));
    world.pass(60);
    assert_eq!(world.ask("web.example").0, Lookup::Miss);
    assert_eq!(stale(world.now, &world.cache), None);
}

#[test]
fn a_name_is_dropped_with_all_its_types_and_aliases_and_nothing_else() {
    let world = World::new(BOUNDS);
    let follow = |text: &str, names: &[&str]| {
        let names = names.iter().chain(&[text]).map(|&text| name(text).into()).collect();
        let entry = addresses(text, &[30]).following(names);
        world.cache.insert(&question(&name(text)), &entry, 30, world.now);
    };
    follow("web.example", &[]);
    follow("www.web.example", &[]);
    follow("eb.example", &[]);
    follow("example", &[]);
    follow("alias.example", &["other.example", "web.example"]);
    follow("far.example", &["other.example"]);
    let wire = name("web.example");
    let denied = Question { qtype: 65_280, dnssec_ok: true, ..question(&wire) };
    let denial = Entry::failure(0).following(vec![wire.clone().into()]);
    world.cache.insert(&denied, &denial, 30, world.now);
    let many = (0..100).map(|n| name(&format!("h{n}.other.example")).into()).collect();
    let large = addresses("many.example", &[30]).following(many);
    world.cache.insert(&question(&name("many.example")), &large, 30, world.now);
    assert!(world.is_hit("many.example"));
    world.cache.invalidate(&[&wire]);
    assert!(!world.is_hit("web.example") && world.cache.state(&denied, world.now).is_none());
    assert!(!world.is_hit("www.web.example"), "below it");
    assert!(!world.is_hit("alias.example"), "leads to it");
    assert!(!world.is_hit("many.example"), "depends on more names than are listed");
    assert!(["eb.example", "far.example", "example"].iter().all(|text| world.is_hit(text)));
    follow("web.example", &[]);
    assert!(world.is_hit("web.example"), "what is learnt after the change stays");
    world.learn("www.web.example", 30);
    world.cache.invalidate(&[&wire]);
    assert!(world.is_hit("www.web.example"), "an answer of strangers follows nobody");
    world.cache.remove_below(&wire);
    assert!(!world.is_hit("www.web.example") && world.is_hit("eb.example"));
}

/// Names by popularity: rank `n` of `universe` is asked in proportion to `n ^ -alpha`.
struct Zipf {
    sums: Vec<f64>,
    random: u64,
}

impl Zipf {
    fn new(universe: usize, alpha: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=universe).map(|rank| (rank as f64).powf(-alpha));
        let sums = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self { sums: sums.collect(), random: 0x5eed }
    }

    fn random(&mut self) -> f64 {
        // xorshift64: the same trace each time.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn rank(&mut self) -> usize {
        let at = self.random() * self.sums[self.sums.len() - 1];
        self.sums.partition_point(|&sum| sum < at)
    }
}

/// A trace of `requests` names by Zipf's law, a share `once` of which is never asked again. In its
/// second half each request is followed by `flood` names that are asked only once.
struct Trace {
    requests: usize,
    once: f64,
    alpha: f64,
    flood: usize,
}

impl Trace {
    /// Returns the hit rates of the cache and of a plain LRU of `entries`, before and during the
    /// flood. The first tenth and the flood itself are not counted.
    fn run(&self, entries: usize) -> [(f64, f64); 2] {
        let world = World::new(Bounds { entries, bytes: 1 << 30, stale_secs: 0 });
        let mut plain = lru::LruCache::new(entries.try_into().unwrap());
        let mut zipf = Zipf::new(500_000, self.alpha);
        let mut unique = 1 << 40_u64;
        let mut next = || {
            unique += 1;
            unique
        };
        let mut ask = |id: u64| {
            // Hexadecimal digits: letters would be folded.
            let name = name(&format!("{id:x}"));
            let plain_hit = plain.get(&id).is_some();
            if !plain_hit {
                plain.put(id, ());
            }
            (world.touch(&name), plain_hit)
        };
        let mut rates = [(0.0, 0.0); 2];
        let parts = [self.requests / 10..self.requests / 2, self.requests / 2..self.requests];
        for request in 0..self.requests {
            let is_once = zipf.random() < self.once;
            let (ours, theirs) = ask(if is_once { next() } else { zipf.rank() as u64 });
            for (rate, part) in
                rates.iter_mut().zip(&parts).filter(|(_, part)| part.contains(&request))
            {
                rate.0 += f64::from(u8::from(ours)) / part.len() as f64;
                rate.1 += f64::from(u8::from(theirs)) / part.len() as f64;
            }
            for _ in 0..if parts[1].contains(&request) { self.flood } else { 0 } {
                ask(next());
            }
        }
        rates
    }
}

impl World {
    /// Asks for `name`, and stores an answer if the cache has no entry.
    fn touch(&self, name: &[u8]) -> bool {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(name);
        message.extend([0, 1, 0, 1]);
        let mut buffer = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut buffer).unwrap();
        let mut out = [0; 512];
        let mut reply = Reply::new(&query, &mut out);
        let hit = self.cache.get(&query, self.now, &mut reply) == Lookup::Hit;
        if !hit {
            let mut message = message.clone();
            message[7] = 1;
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 10, 0, 0, 1]);
            let entry = Entry::new(&message, 0).unwrap();
            self.cache.insert(&Question::of(&query), &entry, 300, self.now);
        }
        hit
    }
}

#[test]
fn more_is_found_than_in_a_plain_lru_and_a_flood_changes_little() {
    let trace = Trace { requests: 30_000, once: 0.25, alpha: 0.91, flood: 0 };
    let [_, (ours, plain)] = trace.run(1_000);
    assert!(ours >= plain + 0.05, "{ours} {plain}");
    let flooded = Trace { requests: 20_000, flood: 20, ..trace };
    let [(before, _), (during, plain)] = flooded.run(1_000);
    assert!(during >= before - 0.03 && during >= plain + 0.1, "{before} {during} {plain}");
}

#[test]
fn an_entry_often_asked_for_is_due_once_before_it_expires() {
    let mut world = World::new(BOUNDS);
    world.learn("web.example", 100);
    world.learn("rare.example", 100);
    world.pass(89);
    assert_eq!([(); 3].map(|()| world.ask("web.example").0), [Lookup::Hit; 3]);
    world.pass(1);
    let rows =
        [("web.example", Lookup::Due), ("web.example", Lookup::Hit), ("rare.example", Lookup::Hit)];
    for (text, expected) in rows {
        assert_eq!(world.ask(text).0, expected, "{text}");
    }
    world.learn("web.example", 100);
    world.pass(90);
    assert_eq!([(); 2].map(|()| world.ask("web.example").0), [Lookup::Due, Lookup::Hit]);
}

#[test]
fn failures_are_kept_longer_each_time_until_one_succeeds() {
    let mut world = World::new(BOUNDS);
    let wire = name("web.example");
    for kept in [1, 2, 4] {
        world.cache.fail(&question(&wire), &FAILED, world.now);
        world.pass(kept - 1);
        assert_eq!(world.ask("web.example").0, Lookup::Hit, "{kept}");
        assert_eq!(world.ask("web.example").1[3] & 0x0f, 2, "SERVFAIL");
        world.pass(1);
        assert_eq!(world.ask("web.example").0, Lookup::Miss, "{kept}");
    }
    world.learn("web.example", 30);
    assert!(world.is_hit("web.example"));
    world.pass(30);
    world.cache.fail(&question(&wire), &FAILED, world.now);
    world.pass(1);
    assert_eq!(world.ask("web.example").0, Lookup::Miss, "one second again");
}

#[test]
fn an_expired_answer_is_served_at_once_after_a_failure_for_a_while() {
    let mut world = World::new(Bounds { stale_secs: 3_600, ..BOUNDS });
    world.learn("web.example", 30);
    world.pass(30);
    for kept in [1, 2, 4] {
        assert_eq!(world.ask("web.example").0, Lookup::Expired);
        world.cache.fail(&question(&name("web.example")), &FAILED, world.now);
        let (found, reply) = world.ask("web.example");
        assert_eq!((found, ttl(&reply, "web.example")), (Lookup::Stale, 30));
        world.pass(kept);
    }
    world.learn("web.example", 30);
    assert!(world.is_hit("web.example"));
}

#[test]
fn an_entry_can_be_taken_out_alone() {
    let world = World::new(BOUNDS);
    world.learn("web.example", 30);
    let wire = name("web.example");
    let other = Question { qtype: 28, ..question(&wire) };
    world.cache.insert(&other, &Entry::failure(0), 30, world.now);
    world.cache.remove(&question(&wire));
    assert!(!world.is_hit("web.example") && world.cache.state(&other, world.now).is_some());
}

#[test]
fn what_is_cut_off_is_turned_like_what_is_whole() {
    let world = World::new(BOUNDS);
    let entry = addresses("web.example", &[30; 60]);
    let message = message("web.example", 1);
    for id in [0, 1, 59, 60, 1_000] {
        let mut asked = message.clone();
        asked[..2].copy_from_slice(&u16::to_be_bytes(id));
        let emit = |transport, buffer: &mut [u8]| {
            let mut name = NameBuffer::new();
            let query = Query::screen(&asked, transport, &mut name).unwrap();
            let mut reply = Reply::new(&query, buffer);
            entry.emit(&query, 7, u32::MAX, &mut reply);
            reply.finish()
        };
        let (mut whole, mut part) = ([0; 4_096], [0; 512]);
        emit(Transport::Tcp, &mut whole);
        let len = emit(Transport::Udp, &mut part);
        assert_eq!(whole[29..len], part[29..len], "{id}");
        assert_eq!((whole[2] & 2, part[2] & 2), (0, 2), "TC");
        assert_eq!(ttl(&part, "web.example"), 23);
    }
    assert!(world.cache.is_empty());
}

/// RFC 8767 section 4: a newer answer replaces the stored one, even if it must not be stored.
#[test]
fn an_answer_that_must_not_be_stored_removes_the_earlier_one() {
    let world = World::new(Bounds { stale_secs: 60, ..BOUNDS });
    let large = addresses("web.example", &[30; 250]);
    for (world, entry, lifetime) in [
        (&world, addresses("web.example", &[0]), 0),
        (&world, Entry::failure(3), 0),
        (&world, large, 0),
    ] {
        world.learn("web.example", 30);
        world.cache.insert(&question(&name("web.example")), &entry, lifetime, world.now);
        assert_eq!(world.ask("web.example").0, Lookup::Miss);
    }
    let many = addresses("web.example", &[30; 250]);
    world.cache.insert(&question(&name("web.example")), &many, 30, world.now);
    assert!(world.is_hit("web.example"), "an answer may have any number of records");
}

#[test]
fn an_answer_larger_than_its_share_is_counted_and_removes_the_earlier_one() {
    let world = World::new(Bounds { bytes: 1 << 19, ..BOUNDS });
    world.learn("web.example", 30);
    let mut reply = message("web.example", 16);
    reply[7] = 220;
    for _ in 0..220 {
        reply.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 30, 1, 0, 255]);
        reply.extend([7; 255]);
    }
    let entry = Entry::new(&reply, 0).unwrap();
    world.cache.insert(&question(&name("web.example")), &entry, 30, world.now);
    assert_eq!((world.ask("web.example").0, world.cache.too_large()), (Lookup::Miss, 1));
}

/// An entry that follows `web.example`.
fn following(address: u8) -> Entry {
    addresses("web.example", &[u32::from(address)]).following(vec![name("web.example").into()])
}

#[test]
fn an_answer_asked_for_before_a_change_is_void_and_replaces_nothing_newer() {
    let world = World::new(Bounds { stale_secs: 60, ..BOUNDS });
    let wire = name("web.example");
    let before = world.cache.version();
    world.cache.invalidate(&[&wire]);
    assert!(world.cache.has_changed(&wire, before));
    assert!(!world.cache.has_changed(&name("other.example"), before));
    let old = Kept { lifetime_secs: 30, seen: before, now: world.now };
    world.cache.insert_as_of(&question(&wire), &following(30), old);
    assert_eq!(world.ask("web.example").0, Lookup::Miss, "void at once");
    world.cache.insert(&question(&wire), &following(30), 30, world.now);
    world.cache.insert_as_of(&question(&wire), &following(9), old);
    assert_eq!(ttl(&world.ask("web.example").1, "web.example"), 30);
    world.cache.insert_as_of(&question(&wire), &following(0), Kept { lifetime_secs: 0, ..old });
    assert!(world.is_hit("web.example"), "an old answer removes nothing");
}

#[test]
fn a_flush_makes_what_follows_changes_expire_and_removes_nothing() {
    let world = World::new(Bounds { stale_secs: 60, ..BOUNDS });
    let wire = name("web.example");
    world.cache.insert(&question(&wire), &following(30), 30, world.now);
    world.learn("outside.example", 30);
    world.cache.flush();
    assert_eq!(world.ask("web.example").0, Lookup::Expired);
    assert!(world.is_hit("outside.example"));
    let state = world.cache.state(&question(&wire), world.now).unwrap();
    assert_eq!(state.remaining_secs, 0);
    world.cache.postpone(&question(&wire), world.now + Duration::from_millis(100));
    let (found, reply) = world.ask("web.example");
    assert_eq!((found, ttl(&reply, "web.example")), (Lookup::Stale, 5));
    world.cache.insert(&question(&wire), &following(30), 30, world.now);
    assert!(world.is_hit("web.example"));
}

#[test]
fn a_failure_ends_when_its_server_recovers_or_its_name_changes() {
    let server = Blame::new(7);
    let wire = name("web.example");
    let names: [Box<[u8]>; 1] = [wire.clone().into()];
    for stored in [false, true] {
        for cause in 0..3 {
            let mut world = World::new(Bounds { stale_secs: 60, ..BOUNDS });
            if stored {
                world.learn("web.example", 30);
                world.pass(30);
            }
            let failed = Failed { code: 2, blame: server, names: &names };
            world.cache.fail(&question(&wire), &failed, world.now);
            let kept = if stored { Lookup::Stale } else { Lookup::Hit };
            assert_eq!(world.ask("web.example").0, kept);
            let later = world.now + Duration::from_millis(1);
            match cause {
                0 => world.cache.recover(Blame::new(8), later),
                1 => world.cache.recover(server, later),
                _ => world.cache.invalidate(&names),
            }
            let expected = match (cause, stored) {
                (0, _) => kept,
                (1, true) => Lookup::Expired,
                (1, false) | (_, false) => Lookup::Miss,
                // The answer does not follow the name; only the failure did.
                (_, true) => Lookup::Stale,
            };
            assert_eq!(world.ask("web.example").0, expected, "{cause} {stored}");
        }
    }
}

/// RFC 9520 section 3.2: a question must not be asked again before its failure has ended.
#[test]
fn a_renewal_that_failed_is_not_repeated_at_once() {
    let mut world = World::new(BOUNDS);
    world.learn("web.example", 100);
    world.pass(90);
    assert_eq!([(); 2].map(|()| world.ask("web.example").0), [Lookup::Hit, Lookup::Due]);
    world.cache.fail(&question(&name("web.example")), &FAILED, world.now);
    assert_eq!([(); 9].map(|()| world.ask("web.example").0), [Lookup::Hit; 9]);
    world.pass(1);
    assert_eq!([(); 2].map(|()| world.ask("web.example").0), [Lookup::Due, Lookup::Hit]);
}

#[test]
fn names_with_short_ttls_are_renewed_before_they_expire_too() {
    for ttl in [1, 2, 5, 9, 10, 30] {
        let mut world = World::new(BOUNDS);
        world.learn("web.example", ttl);
        world.pass(u64::from(ttl) - 1);
        let found = [(); 3].map(|()| world.ask("web.example").0);
        assert_eq!(found, [Lookup::Hit, Lookup::Due, Lookup::Hit], "{ttl}");
    }
}

#[test]
fn ttls_of_an_entry_can_be_lowered() {
    let world = World::new(BOUNDS);
    for (ttl_secs, expected) in [(300, 5), (5, 5), (3, 3), (0, 0)] {
        let entry = addresses("web.example", &[ttl_secs]).with_ttl_max(5);
        world.cache.insert(&question(&name("web.example")), &entry, 5, world.now);
        assert_eq!(ttl(&world.ask("web.example").1, "web.example"), expected);
    }
}

#[test]
fn no_shard_holds_much_more_than_its_share() {
    let cache = Cache::new(Bounds { entries: 100_000, bytes: 1 << 30, stale_secs: 0 });
    let mut shares = vec![0_u32; cache.shards.len()];
    for index in 0..100_000 {
        let mut key = KeyBuffer::new();
        key.write(&question(&name(&format!("{index}.example.com"))), &cache.seed);
        shares[(key.hash >> 32) as usize & (cache.shards.len() - 1)] += 1;
    }
    let (mean, max) = (100_000 / shares.len() as u32, shares.into_iter().max().unwrap());
    assert!(2 * max <= 3 * mean, "{max} of {mean}");
}

const ROOMY: Bounds = Bounds { entries: 10_000, bytes: 16 << 20, stale_secs: 0 };

/// Returns a cache of the same bounds with the entries of `world`, `elapsed` seconds after they
/// were saved.
fn restored(world: &World, elapsed: u64, is_confirmed: bool) -> World {
    let mut other = World::new(world.cache.bounds());
    other.now = world.now + Duration::from_secs(elapsed);
    restore(world, &other, elapsed, is_confirmed);
    other
}

fn restore(world: &World, other: &World, elapsed: u64, is_confirmed: bool) {
    let again = Again {
        elapsed: Duration::from_secs(elapsed),
        confirmed: is_confirmed.then(|| other.cache.version()),
        now: other.now,
    };
    let bytes = world.cache.save(world.now).collect::<Vec<_>>().concat();
    let mut cursor = Cursor::new(&bytes);
    while cursor.left() > 0 {
        other.cache.restore(Saved::take(&mut cursor).unwrap(), again);
    }
}

#[test]
fn a_restored_cache_answers_like_the_one_that_was_saved() {
    let mut world = World::new(ROOMY);
    for number in 0..500_u32 {
        let text = format!("n{number}.example");
        let ttls = vec![100 + number; (number % 5) as usize + 1];
        let mut entry = addresses(&text, &ttls).with_flags(number % 3 == 0, number % 2 == 0, false);
        if number % 7 == 0 {
            entry = entry.in_fixed_order();
        }
        world.cache.insert(&question(&name(&text)), &entry, 100 + number, world.now);
        world.deny(&format!("m{number}.example"), 1_000); // a failure
        let none = addresses(&format!("d{number}.example"), &[]).with_flags(true, true, true);
        let denied = name(&format!("d{number}.example"));
        world.cache.insert(&question(&denied), &none, 300, world.now);
    }
    world.pass(60);
    let other = restored(&world, 200, false);
    world.pass(200);
    assert_eq!(other.cache.changes().evictions, 0);
    let (mut hits, mut misses) = (0, 0);
    for number in 0..500 {
        for (text, is_saved) in [("n", true), ("d", true), ("m", false)] {
            let text = format!("{text}{number}.example");
            let (before, after) = (world.ask(&text), other.ask(&text));
            match is_saved {
                true => assert_eq!(before, after, "{text}"),
                false => assert_eq!(after.0, Lookup::Miss, "{text}"),
            }
            match after.0 {
                Lookup::Miss => misses += 1,
                _ => hits += 1,
            }
        }
    }
    assert_eq!((hits, misses), (339 + 500, 161 + 500));
}

#[test]
fn names_of_the_cluster_are_restored_as_expired_until_no_change_is_confirmed() {
    let mut world = World::new(Bounds { stale_secs: 3_600, ..BOUNDS });
    let (web, api) = (name("web.local"), name("api.local"));
    let entry =
        |text, wire: &Vec<u8>| addresses(text, &[30]).following(vec![wire.as_slice().into()]);
    world.cache.insert(&question(&web), &entry("web.local", &web), 30, world.now);
    world.cache.insert(&question(&api), &entry("api.local", &api), 30, world.now);
    world.learn("outside.example", 30);
    world.cache.invalidate(&[&api]);
    world.pass(1);
    let other = restored(&world, 1, false);
    assert_eq!(other.ask("web.local").0, Lookup::Expired);
    assert_eq!(other.ask("api.local").0, Lookup::Miss, "it was void");
    assert!(other.is_hit("outside.example"));
    restore(&world, &other, 1, true);
    let (found, reply) = other.ask("web.local");
    assert_eq!((found, ttl(&reply, "web.local")), (Lookup::Hit, 28));
    other.cache.invalidate(&[name("other.local")]);
    assert_eq!(other.ask("web.local").0, Lookup::Miss, "it depends on unknown names");
    assert!(other.is_hit("outside.example"));
    // A change between the confirmation and the entry.
    let late = World { now: other.now, ..World::new(world.cache.bounds()) };
    let seen = late.cache.version();
    late.cache.invalidate(&[&web]);
    let bytes = world.cache.save(world.now).collect::<Vec<_>>().concat();
    let mut cursor = Cursor::new(&bytes);
    let again = Again { elapsed: Duration::ZERO, confirmed: Some(seen), now: late.now };
    while cursor.left() > 0 {
        late.cache.restore(Saved::take(&mut cursor).unwrap(), again);
    }
    assert_eq!(late.ask("web.local").0, Lookup::Miss);
    // A flush leaves expired answers.
    world.cache.flush();
    assert_eq!(restored(&world, 1, true).ask("web.local").0, Lookup::Expired);
}

#[test]
fn what_is_fresh_stays_and_what_is_over_does_not_come_back() {
    let mut world = World::new(Bounds { stale_secs: 100, ..BOUNDS });
    world.learn("short.example", 10);
    world.learn("long.example", 1_000);
    let other = World { now: world.now, ..World::new(world.cache.bounds()) };
    other.learn("long.example", 7);
    restore(&world, &other, 5, false);
    assert_eq!(ttl(&other.ask("long.example").1, "long.example"), 7);
    assert_eq!(ttl(&other.ask("short.example").1, "short.example"), 5);
    for (elapsed, expected) in
        [(9, Lookup::Hit), (10, Lookup::Expired), (109, Lookup::Expired), (110, Lookup::Miss)]
    {
        assert_eq!(restored(&world, elapsed, false).ask("short.example").0, expected, "{elapsed}");
    }
    world.pass(200);
    assert_eq!(restored(&world, 0, false).cache.len(), 1, "an entry without use is not saved");
    let off = World::new(Bounds { entries: 0, ..BOUNDS });
    restore(&world, &off, 0, false);
    assert!(off.cache.is_empty());
}

#[test]
fn entries_from_before_the_start_of_the_machine_are_as_old_as_they_are() {
    let mut world = World::new(Bounds { stale_secs: 10_000, ..BOUNDS });
    world.learn("web.example", 500);
    world.learn("old.example", 100);
    world.pass(100);
    let mut other = World::new(world.cache.bounds());
    other.now = Moment::default() + Duration::from_secs(20);
    restore(&world, &other, 150, false);
    assert_eq!(ttl(&other.ask("web.example").1, "web.example"), 250);
    assert_eq!(other.ask("old.example").0, Lookup::Miss);
    other.pass(249);
    assert_eq!(ttl(&other.ask("web.example").1, "web.example"), 1);
    other.pass(1);
    assert_eq!(other.ask("web.example").0, Lookup::Expired);
}

#[test]
fn a_smaller_cache_keeps_its_bounds() {
    let world = World::new(ROOMY);
    for number in 0..1_000 {
        world.learn(&format!("n{number}.example"), 300);
    }
    for bounds in [Bounds { entries: 100, ..BOUNDS }, Bounds { bytes: 400 << 10, ..BOUNDS }] {
        let other = World { now: world.now, ..World::new(bounds) };
        restore(&world, &other, 0, false);
        assert!(other.cache.len() <= bounds.entries && other.cache.bytes() <= bounds.bytes);
        assert!(other.cache.len() > 90, "{}", other.cache.len());
    }
}

#[test]
fn bytes_that_are_no_entry_are_refused_and_others_can_be_sent() {
    let world = World::new(BOUNDS);
    world.cache.insert(
        &question(&name("web.example")),
        &addresses("web.example", &[30, 30, 30]),
        30,
        world.now,
    );
    let bytes = world.cache.save(world.now).collect::<Vec<_>>().concat();
    let again = Again { elapsed: Duration::ZERO, confirmed: None, now: world.now };
    for len in 0..bytes.len() {
        assert!(Saved::take(&mut Cursor::new(&bytes[..len])).is_none(), "{len}");
    }
    let mut taken = 0;
    for at in 0..bytes.len() {
        for bits in [0x01, 0x40, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= bits;
            let Some(saved) = Saved::take(&mut Cursor::new(&changed)) else { continue };
            let other = World { now: world.now, ..World::new(BOUNDS) };
            other.cache.restore(saved, again);
            other.ask("web.example");
            taken += 1;
        }
    }
    assert!(taken > 100, "{taken}");
}
