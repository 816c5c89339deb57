//! The records are a function of the current objects: random histories against a slow, obvious
//! model.
//!
//! A history applies, deletes, misses and relists random objects in any order, through projection,
//! store and answer; after it every name of a small world must answer as the model says, and every
//! answer that changed must have been announced.

mod hostile;
mod objects;
mod oracle;
pub mod transfer;

use std::collections::{BTreeMap, BTreeSet};

use kubedns::answer::answer;
use kubedns::name::{Name, Text};
use kubedns::project::{Change, Kind, change};
use kubedns::records::{PodMode, Records, Zone};
use kubedns::store::{Changed, Writer, new};
use proptest::prelude::*;
use shared::wire::{NameBuffer, Query, Reply, Transport};

use super::fixture::cluster::input;
use objects::{Object, Place, Question, object, place};

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// An object comes or changes.
    Apply(Object),
    /// An object goes.
    Delete(Place),
    /// The same two, while the watch is down: nobody is told before the next relist.
    MissApply(Object),
    MissDelete(Place),
    /// A full list of a kind.
    Relist(Kind),
    /// A full list that breaks off: only the first so many objects arrive.
    BrokenRelist(Kind, usize),
    /// What is known so far is published.
    Publish,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop::sample::select(Kind::ALL.to_vec());
    prop_oneof![
        12 => object().prop_map(Step::Apply),
        4 => place().prop_map(Step::Delete),
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

/// The objects there are, and what the store was told of them.
struct World {
    objects: BTreeMap<Place, Object>,
    /// Kinds whose watch missed something.
    missed: BTreeSet<Kind>,
    writer: Writer,
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Apply(object) => {
                self.tell(&object);
                self.objects.insert(object.place(), object);
            }
            Step::Delete(place) => {
                self.writer.apply(Change::Deleted(place.id()));
                self.objects.remove(&place);
            }
            Step::MissApply(object) => {
                self.missed.insert(object.place().kind);
                self.objects.insert(object.place(), object);
            }
            Step::MissDelete(place) => {
                self.missed.insert(place.kind);
                self.objects.remove(&place);
            }
            Step::Relist(kind) => self.relist(kind),
            Step::BrokenRelist(kind, count) => {
                let _broken = self.writer.begin_relist(kind, None);
                let objects: Vec<Object> = self.of(kind).take(count).collect();
                objects.iter().for_each(|object| self.tell(object));
            }
            Step::Publish => {}
        }
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = Object> + use<'_> {
        self.objects.iter().filter(move |(place, _)| place.kind == kind).map(|(_, o)| o.clone())
    }

    fn tell(&mut self, object: &Object) {
        let (change, rejected) = change(&input(object.json()));
        assert_eq!(rejected.is_some(), object.is_odd(), "{rejected:?} of {object:?}");
        self.writer.apply(change);
    }

    /// In one list, or in one for each namespace.
    fn relist(&mut self, kind: Kind) {
        let objects: Vec<Object> = self.of(kind).collect();
        if kind == Kind::Namespace || objects.len().is_multiple_of(2) {
            let relist = self.writer.begin_relist(kind, None);
            objects.iter().for_each(|object| self.tell(object));
            self.writer.finish_relist(relist);
        } else {
            let relists =
                objects::NAMESPACES.map(|name| self.writer.begin_relist(kind, Some(name)));
            objects.iter().for_each(|object| self.tell(object));
            relists.into_iter().for_each(|relist| self.writer.finish_relist(relist));
        }
        self.missed.remove(&kind);
    }
}

/// The response code and answers of every question, in their order.
type Answers = Vec<(u16, BTreeSet<String>)>;

/// Every question of the small world, answered.
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

/// The response code and the answer section as text.
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

/// The name at `at` as text, and the offset behind it.
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

/// Fails on an answer that changed and was not announced.
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

/// Lives through `steps` and compares at the end.
fn live(zone: Zone, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut writer, reader) = new(zone.clone());
    Kind::ALL.into_iter().for_each(|kind| writer.synced(kind));
    writer.publish(0);
    let mut world = World { objects: BTreeMap::new(), missed: BTreeSet::new(), writer };
    let mut known = ask_everything(&reader.records());
    let mut publish = |world: &mut World| {
        if let Some(published) = world.writer.publish(0) {
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
    prop_assert_eq!(transfer::tally(&all), transfer::counted(&reader.records()), "{:#?}", objects);
    prop_assert_eq!(all, expected, "{:#?}", objects);
    Ok(())
}

/// Both halves together are 10,000 histories.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 5_000,
        failure_persistence: None, // a find becomes a row of the conformance table
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn answers_follow_from_the_objects_alone(
        zone in zone(&[PodMode::Disabled, PodMode::Insecure]),
        steps in prop::collection::vec(step(), 1..14),
    ) {
        live(zone, steps)?;
    }

    #[test]
    fn answers_follow_from_the_objects_alone_with_verified_pods(
        zone in zone(&[PodMode::Verified]),
        steps in prop::collection::vec(step(), 1..14),
    ) {
        live(zone, steps)?;
    }
}
