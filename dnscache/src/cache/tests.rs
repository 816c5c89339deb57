//! The cache's rules, with a clock of our own.

use std::time::Duration;

use shared::wire::{NameBuffer, Transport, UDP_SIZE_MAX};

use super::*;

const BOUNDS: Bounds = Bounds { entries: 1_000, bytes: 1 << 20, stale_secs: 0 };

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
        self.cache.insert(&question(&name(text)), entry, ttl, self.now);
    }

    fn deny(&self, text: &str, secs: u32) {
        let entry = Entry::failure(3);
        self.cache.insert(&question(&name(text)), entry, secs, self.now);
    }

    /// What a lookup says, and the reply.
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
        self.ask(text).0 == Lookup::Hit
    }
}

/// The TTL of the first record behind a question for `text`.
fn ttl(reply: &[u8], text: &str) -> u32 {
    let at = 12 + name(text).len() + 4 + 6;
    u32::from_be_bytes(reply[at..at + 4].try_into().unwrap())
}

#[test]
fn ttls_fall_as_time_passes_and_the_entry_goes_with_the_lowest() {
    let mut world = World::new(BOUNDS);
    world.learn("web.example", 30);
    for (passed, expected) in [(0, Some(30)), (1, Some(29)), (28, Some(1)), (1, None)] {
        world.pass(passed);
        let (found, reply) = world.ask("web.example");
        let seen = (found == Lookup::Hit).then(|| ttl(&reply, "web.example"));
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
    world.cache.insert(&asked, addresses("web.example", &[30]), 30, world.now);
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
    world.cache.insert(&question(&wire), addresses("web.example", &[30; 3]), 30, world.now);
    let first = |id: u8| {
        let mut message = message("web.example", 1);
        message[1] = id;
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
        let mut buffer = [0; 512];
        let mut reply = Reply::new(&query, &mut buffer);
        world.cache.get(&query, world.now, &mut reply);
        reply.finish();
        buffer[12 + 13 + 4 + 15]
    };
    assert_eq!([0, 1, 2, 3].map(first), [0, 1, 2, 0]);
}

#[test]
fn an_answer_too_large_for_the_client_is_cut_at_a_record() {
    let world = World::new(BOUNDS);
    let wire = name("web.example");
    world.cache.insert(&question(&wire), addresses("web.example", &[30; 60]), 30, world.now);
    let (found, reply) = world.ask("web.example");
    assert_eq!(found, Lookup::Hit);
    assert_eq!(reply[2] & 0x02, 0x02, "TC");
    assert_eq!(usize::from(reply[7]), (512 - 12 - 17) / 16);
    assert_eq!(reply.len(), 12 + 17 + usize::from(reply[7]) * 16);
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
    (0..20_000).for_each(|n| world.learn(&format!("h{n}.example"), 300));
    assert!((900_000..=1 << 20).contains(&world.cache.bytes()), "{}", world.cache.bytes());
    world.cache.remove_below(&[0]);
    assert_eq!((world.cache.bytes(), world.cache.len()), (0, 0));
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let off = World::new(Bounds { entries: 0, ..BOUNDS });
    off.learn("web.example", 30);
    assert!(!off.is_hit("web.example"));
    let world = World::new(BOUNDS);
    world.learn("zero.example", 0);
    assert!(!world.is_hit("zero.example") && world.cache.is_empty());
    let wire = name("large.example");
    world.cache.insert(&question(&wire), addresses("large.example", &[9; 101]), 9, world.now);
    assert!(world.cache.is_empty(), "101 records are passed on and not kept");
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
    assert_eq!(world.ask("web.example").0, Lookup::Stale);
    world.cache.insert(&question(&name("web.example")), Entry::failure(2), 5, world.now);
    let message = message("web.example", 1);
    let mut buffer = [0; 512];
    let mut stale = |now, cache: &Cache| {
        let mut name = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut name).unwrap();
        let mut reply = Reply::new(&query, &mut buffer);
        let code = cache.get_stale(&query, now, 5, &mut reply);
        let len = reply.finish();
        code.map(|code| (code, ttl(&buffer[..len], "web.example")))
    };
    assert_eq!(stale(world.now, &world.cache), Some((0, 5)));
    world.pass(60);
    assert_eq!(world.ask("web.example").0, Lookup::Miss);
    assert_eq!(stale(world.now, &world.cache), None);
}

#[test]
fn a_name_is_dropped_with_all_its_types_and_nothing_else() {
    let world = World::new(BOUNDS);
    for text in ["web.example", "www.web.example", "eb.example"] {
        world.learn(text, 30);
    }
    let wire = name("web.example");
    let denied = Question { qtype: 28, dnssec_ok: true, ..question(&wire) };
    world.cache.insert(&denied, Entry::failure(0), 30, world.now);
    world.cache.remove_name(&wire);
    assert!(!world.is_hit("web.example") && world.cache.state(&denied, world.now).is_none());
    assert!(world.is_hit("www.web.example") && world.is_hit("eb.example"));
    world.cache.remove_below(&wire);
    assert!(!world.is_hit("www.web.example") && world.is_hit("eb.example"));
}
