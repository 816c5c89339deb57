//! Checks that the records are a function of the current objects: compares random histories with a
//! slow, simple model.
//!
//! A history applies, deletes, misses and relists random objects in any order, as an API server
//! writes them, through decoding, projection, store and answer. Some objects are poisoned: a field
//! is absent or of another type. After it, every name of a small set must answer as in the model,
//! and every answer that changed must have been announced.
//!
//! `PROPTEST_RNG_SEED` repeats the histories of a run that failed.

mod hostile;
mod objects;
mod oracle;
mod poison;
pub mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use kubedns::answer::answer;
use kubedns::changes::Changes;
use kubedns::name::Name;
use kubedns::project::Kind;
use kubedns::publish::Publisher;
use kubedns::records::{PodMode, Records, Zone};
use kubedns::source::update::{Scope, Update};
use kubedns::source::watch::decode::{self, Event};
use kubedns::source::watch::protobuf;
use kubedns::store::{Changed, new};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use serde_json::{Value, json};
use shared::name::Text;
use shared::wire::{NameBuffer, Query, Reply, Transport};
use tests::protobuf::{enveloped, frame};

use objects::{Object, Place, Question, object, place};
use poison::{Poison, poison};

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// An object is added or changed.
    Apply(Object),
    /// An object is deleted.
    Delete(Place),
    /// An event has an object with an invalid field.
    Poison(&'static str, Object, Poison),
    /// The first two, while the watch is down: kubedns cannot see the change before the next
    /// relist.
    MissApply(Object),
    MissDelete(Place),
    /// A full list of a kind.
    Relist(Kind),
    /// A full list that is cut: only this many objects arrive.
    BrokenRelist(Kind, usize),
    /// All changes so far are published.
    Publish,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop::sample::select(Kind::ALL.to_vec());
    prop_oneof![
        12 => object().prop_map(Step::Apply),
        4 => place().prop_map(Step::Delete),
        5 => (prop::sample::select(&WORDS[..]), object(), poison())
            .prop_map(|(word, object, poison)| Step::Poison(word, object, poison)),
        2 => object().prop_map(Step::MissApply),
        2 => place().prop_map(Step::MissDelete),
        2 => kind().prop_map(Step::Relist),
        1 => (kind(), 0..4_usize).prop_map(|(kind, count)| Step::BrokenRelist(kind, count)),
        4 => Just(Step::Publish),
    ]
}

fn zone(modes: &'static [PodMode]) -> impl Strategy<Value = Zone> {
    let options = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (prop::sample::select(modes), options).prop_map(|(pods, (drain, ignore, clusterset, zonal))| {
        let mut zone = Zone::new("z").expect("a name");
        zone.pods = pods;
        zone.terminating_fallback = drain;
        zone.ignore_empty_service = ignore;
        zone.zonal = zonal;
        zone.clusterset = clusterset.then(|| Name::parse("m").expect("a name"));
        zone
    })
}

/// The current objects, and what kubedns has received of them.
struct World {
    objects: BTreeMap<Place, Object>,
    /// Objects that kubedns cannot parse, as they are written.
    poisoned: BTreeMap<Place, Value>,
    /// Kinds whose watch has missed a change, or has objects that only a list can remove.
    missed: BTreeSet<Kind>,
    /// Those of them that have objects with other names.
    astray: BTreeSet<Kind>,
    publisher: Publisher,
    /// Whether events are in protobuf instead of JSON.
    in_protobuf: bool,
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Apply(object) => {
                self.tell("MODIFIED", &object);
                self.put(object);
            }
            Step::Delete(place) => {
                let last = self.objects.get(&place).map(Object::json);
                let last = last.or_else(|| self.poisoned.get(&place).cloned());
                self.hear("DELETED", place.kind, &last.unwrap_or_else(|| place.json()));
                self.remove(&place);
            }
            Step::Poison(word, object, poison) => self.poison(word, object, &poison),
            Step::MissApply(object) => {
                self.missed.insert(object.place().kind);
                self.put(object);
            }
            Step::MissDelete(place) => {
                self.missed.insert(place.kind);
                self.remove(&place);
            }
            Step::Relist(kind) => self.relist(kind),
            Step::BrokenRelist(kind, count) => {
                self.publisher.take(Update::Listing(Scope::all(kind)));
                let objects: Vec<Object> = self.of(kind).take(count).collect();
                objects.iter().for_each(|object| self.tell("ADDED", object));
            }
            Step::Publish => {}
        }
    }

    fn put(&mut self, object: Object) {
        self.poisoned.remove(&object.place());
        self.objects.insert(object.place(), object);
    }

    fn remove(&mut self, place: &Place) {
        self.poisoned.remove(place);
        self.objects.remove(place);
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = Object> + use<'_> {
        self.objects.iter().filter(move |(place, _)| place.kind == kind).map(|(_, o)| o.clone())
    }

    /// Passes an event of type `word` about `object` to kubedns.
    fn tell(&mut self, word: &str, object: &Object) {
        let event = self.hear(word, object.place().kind, &object.json());
        let update = Update::of(&event);
        let Some(Update::Change { rejected, .. }) = update else {
            panic!("{event:?} of {object:?}")
        };
        assert_eq!(rejected.is_some(), object.is_odd(), "{rejected:?} of {object:?}");
    }

    /// Decodes an event about any JSON. It must always be an event about an object.
    fn hear(&mut self, word: &str, kind: Kind, object: &Value) -> Event {
        let event = if self.in_protobuf && kind != Kind::ServiceImport {
            let frame = frame(word, &enveloped(object));
            protobuf::event(kind, &frame).unwrap_or_else(|error| panic!("{error}: {object}"))
        } else {
            let line = json!({"type": word, "object": object}).to_string();
            let event = decode::event(kind, line.as_bytes());
            event.unwrap_or_else(|error| panic!("{error}: {object}"))
        };
        let update = Update::of(&event).unwrap_or_else(|| panic!("{event:?} of {object}"));
        self.publisher.take(update);
        event
    }

    /// Passes an event with an invalid field of `object`. If the object cannot be parsed, it counts
    /// as deleted. Otherwise the rest of it stays until the next list, as does an object with
    /// another name.
    fn poison(&mut self, word: &'static str, object: Object, poison: &Poison) {
        let place = object.place();
        let json = poison.put_into(object.json());
        let event = self.hear(word, place.kind, &json);
        let (id, is_read) = match &event {
            Event::Applied(input) | Event::Deleted(input) => (input.id(), true),
            Event::Unreadable { object, .. } => (object.clone(), false),
            event => panic!("{event:?} of {json}"),
        };
        match (word, is_read) {
            _ if id != place.id() => {
                self.missed.insert(place.kind);
                self.astray.insert(place.kind);
            }
            ("DELETED", _) => self.remove(&place),
            (_, false) => {
                self.remove(&place);
                self.poisoned.insert(place, json);
            }
            (_, true) => {
                self.missed.insert(place.kind);
                self.put(object);
            }
        }
    }

    /// Relists `kind`, in one list or in one for each namespace.
    fn relist(&mut self, kind: Kind) {
        let objects: Vec<Object> = self.of(kind).collect();
        let is_whole =
            self.astray.remove(&kind) || kind == Kind::Namespace || objects.len().is_multiple_of(2);
        let namespace = |name: &str| Scope { kind, namespace: Some(name.into()) };
        let scopes = match is_whole {
            true => vec![Scope::all(kind)],
            false => objects::NAMESPACES.map(namespace).to_vec(),
        };
        for scope in &scopes {
            self.publisher.take(Update::Listing(scope.clone()));
        }
        objects.iter().for_each(|object| self.tell("ADDED", object));
        for (place, json) in self.poisoned.clone() {
            if place.kind == kind {
                let event = self.hear("ADDED", kind, &json);
                assert!(matches!(event, Event::Unreadable { .. }), "{event:?} of {json}");
            }
        }
        scopes.into_iter().for_each(|scope| self.publisher.take(Update::Listed(scope)));
        self.missed.remove(&kind);
    }
}

/// The response code and answers of every question, in their order.
type Answers = Vec<(u16, BTreeSet<String>)>;

/// Returns the answers to every question of the model.
fn ask_everything(records: &Records) -> Answers {
    let mut buffer = vec![0; 65_535];
    let mut ask = |(turn, question): (usize, &Question)| {
        let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(question.wire.wire());
        message.extend(question.qtype.to_be_bytes());
        message.extend([0, 1]);
        let mut name_buffer = NameBuffer::new();
        let query = Query::screen(&message, Transport::Tcp, &mut name_buffer).expect("a query");
        let mut reply = Reply::new(&query, &mut buffer);
        answer(&query, records, turn as u32, &mut reply);
        let length = reply.finish();
        read(&buffer[..length])
    };
    objects::questions().iter().enumerate().map(&mut ask).collect()
}

/// Returns the response code and the answer section as text.
fn read(reply: &[u8]) -> (u16, BTreeSet<String>) {
    let rcode = u16::from(reply[3] & 0x0f);
    let count = u16::from_be_bytes([reply[6], reply[7]]);
    let mut at = name(reply, 12).1 + 4;
    let mut records = BTreeSet::new();
    for _ in 0..count {
        let (owner, fixed) = name(reply, at);
        let rtype = u16::from_be_bytes([reply[fixed], reply[fixed + 1]]);
        let length = usize::from(u16::from_be_bytes([reply[fixed + 8], reply[fixed + 9]]));
        let rdata = &reply[fixed + 10..fixed + 10 + length];
        let text = match rtype {
            1 => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(rdata).unwrap()).to_string(),
            28 => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(rdata).unwrap()).to_string(),
            33 => {
                let port = u16::from_be_bytes([rdata[4], rdata[5]]);
                format!("{port} {}", name(reply, fixed + 16).0)
            }
            5 | 12 => name(reply, fixed + 10).0,
            _ => format!("{rdata:?}"),
        };
        assert!(records.insert(format!("{owner} {rtype} {text}")), "one record twice: {text}");
        at = fixed + 10 + length;
    }
    (rcode, records)
}

/// Returns the name at `at` as text, and the offset after it.
fn name(message: &[u8], mut at: usize) -> (String, usize) {
    let mut wire = Vec::new();
    let mut end = None;
    loop {
        let length = usize::from(message[at]);
        if length >= 0xc0 {
            end = end.or(Some(at + 2));
            at = (length & 0x3f) << 8 | usize::from(message[at + 1]);
            continue;
        }
        wire.extend_from_slice(&message[at..=at + length]);
        at += 1 + length;
        if length == 0 {
            return (Text(&wire).to_string(), end.unwrap_or(at));
        }
    }
}

/// Panics if an answer changed but was not announced.
fn check_announced(before: &Answers, after: &Answers, changed: &Changed) {
    let Changed::Names(names) = changed else { return };
    let names: Vec<String> = names.iter().map(|name| Text(name).to_string()).collect();
    for ((question, before), after) in objects::questions().iter().zip(before).zip(after) {
        let name = &question.name;
        let covers = |changed: &String| name == changed || name.ends_with(&format!(".{changed}"));
        assert!(
            before == after || names.iter().any(covers),
            "{question:?} changed from {before:?} to {after:?}, announced were {names:?}"
        );
    }
}

/// Runs `steps` and compares the answers at the end.
fn live(zone: Zone, in_protobuf: bool, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (writer, reader) = new(zone.clone());
    let changes = tokio::sync::watch::Sender::new(Changes::new(0));
    let publisher = Publisher::new(writer, changes, Vec::new(), &[]);
    let mut world = World {
        objects: BTreeMap::new(),
        poisoned: BTreeMap::new(),
        missed: BTreeSet::new(),
        astray: BTreeSet::new(),
        publisher,
        in_protobuf,
    };
    Kind::ALL.into_iter().for_each(|kind| world.relist(kind));
    world.publisher.publish();
    let mut known = ask_everything(&reader.records());
    let mut publish = |world: &mut World| {
        if let Some(published) = world.publisher.publish() {
            let after = ask_everything(&reader.records());
            check_announced(&known, &after, &published.changed);
            known = after;
        }
    };
    for step in steps {
        match step {
            Step::Publish => publish(&mut world),
            step => world.take(step),
        }
    }
    for kind in world.missed.clone() {
        world.relist(kind);
    }
    publish(&mut world);
    let objects: Vec<Object> = world.objects.values().cloned().collect();
    let expected = oracle::answers(&objects, &zone);
    for ((question, known), expected) in objects::questions().iter().zip(known).zip(expected) {
        prop_assert_eq!(known, expected, "{:?} of {:#?}", question, objects);
    }
    let domains = if zone.clusterset.is_some() { &["z", "m"][..] } else { &["z"] };
    let (all, expected) =
        (transfer::everything(&reader.records(), domains), oracle::everything(&objects, &zone));
    prop_assert_eq!(all, expected, "{:#?}", objects);
    Ok(())
}

/// Runs as many random histories as `config` sets, in a zone with one of `modes`.
fn live_through_histories(modes: &'static [PodMode]) {
    let mut config = config();
    let RngSeed::Fixed(seed) = config.rng_seed else { unreachable!("config draws it") };
    config.source_file = Some(file!());
    let histories = (zone(modes), any::<bool>(), prop::collection::vec(step(), 1..14));
    let outcome = TestRunner::new(config)
        .run(&histories, |(zone, in_protobuf, steps)| live(zone, in_protobuf, steps));
    if let Err(error) = outcome {
        panic!("{error}\nrepeat these histories with PROPTEST_RNG_SEED={seed}");
    }
}

/// Returns the configuration. Both halves together are 10,000 histories.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    ProptestConfig {
        cases: 5_000,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None, // a failure becomes a row of the conformance table
        ..config
    }
}

/// The types of events.
const WORDS: [&str; 3] = ["ADDED", "MODIFIED", "DELETED"];

#[test]
fn answers_follow_from_the_objects_alone() {
    live_through_histories(&[PodMode::Disabled, PodMode::Insecure]);
}

#[test]
fn answers_follow_from_the_objects_alone_with_verified_pods() {
    live_through_histories(&[PodMode::Verified]);
}
