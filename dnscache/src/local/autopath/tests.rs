//! Walks of resolvers with and without the rule. Models of the C libraries glibc and musl look up
//! names in random worlds, and must find the same addresses in both cases.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::local::Block;
use crate::local::name::{parse, text};

const DOMAIN: &str = "z.";

fn autopath() -> Autopath {
    let search = vec![parse("corp").unwrap(), parse("b.corp").unwrap()];
    Autopath { domain: parse(DOMAIN).unwrap(), search, zones: Zones::all() }
}

fn rules() -> Local {
    Local::new(vec![Block {
        zones: vec![[0].into()],
        autopath: vec![autopath()],
        ..Block::default()
    }])
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, max: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % max
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Names with their A and AAAA records. `*` as the first label matches any label.
#[derive(Debug, Default)]
struct World {
    names: BTreeMap<String, [Option<u8>; 2]>,
    /// These and all names above them exist.
    exist: BTreeSet<String>,
    questions: usize,
}

/// The answer of a server: the response code and the address, if there is one.
type Answer = (u16, Option<u8>);

impl World {
    fn random(random: &mut Random) -> Self {
        let mut world = Self::default();
        for _ in 0..2 + random.below(8) {
            let mut name = String::new();
            for _ in 0..1 + random.below(3) {
                name += &format!("{}.", random.one(&["a", "b", "n", "m", "svc", "corp"]));
            }
            let zone =
                random.one(&["n.svc.z.", "m.svc.z.", "svc.z.", "z.", "corp.", "b.corp.", "", ""]);
            name += zone;
            if matches!(zone, "corp." | "b.corp.") && random.below(8) == 0 {
                name = format!("*.{zone}");
            }
            world.add(&name, random);
        }
        // Both namespaces have a Service.
        world.add("w.n.svc.z.", random);
        world.add("w.m.svc.z.", random);
        world
    }

    fn add(&mut self, name: &str, random: &mut Random) {
        let mut address =
            |bit: usize| (random.below(4) >= bit).then(|| 1 + random.below(200) as u8);
        self.names.insert(name.to_owned(), [address(1), address(2)]);
        let mut rest = name.strip_prefix("*.").unwrap_or(name);
        while !rest.is_empty() {
            self.exist.insert(rest.to_owned());
            rest = rest.split_once('.').map_or("", |(_, rest)| rest);
        }
    }

    /// Returns the answer of the servers without the rule.
    fn ask(&mut self, name: &str, qtype: u16) -> Answer {
        self.questions += 1;
        let index = usize::from(qtype == rtype::AAAA);
        if let Some(addresses) = self.names.get(name) {
            return (rcode::NOERROR, addresses[index]);
        }
        if self.exist.contains(name) {
            return (rcode::NOERROR, None);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(addresses) = self.names.get(&format!("*.{parent}")) {
                return (rcode::NOERROR, addresses[index]);
            }
            if self.exist.contains(parent) {
                break;
            }
            rest = parent;
        }
        (rcode::NXDOMAIN, None)
    }
}

/// A server that clients ask.
trait Server {
    fn ask(&mut self, name: &str, qtype: u16) -> Answer;
}

/// Without the rule.
struct Plain<'w>(&'w mut World);

impl Server for Plain<'_> {
    fn ask(&mut self, name: &str, qtype: u16) -> Answer {
        self.0.ask(name, qtype)
    }
}

/// With the rule, and a cache whose entries never expire.
struct Walking<'w> {
    world: &'w mut World,
    rules: &'w Local,
    cache: BTreeMap<(String, u16), Answer>,
}

impl Server for Walking<'_> {
    fn ask(&mut self, name: &str, qtype: u16) -> Answer {
        if let Some(answer) = self.cache.get(&(name.to_owned(), qtype)) {
            return *answer;
        }
        let wire = parse(name).unwrap();
        let mut outcome = self.rules.resolve(&wire, qtype);
        let made = loop {
            let pending = match outcome {
                Outcome::Pass => break None,
                Outcome::Answer(made) => break Some(made),
                Outcome::Ask(pending) => pending,
            };
            let (asked, asked_type) = pending.question();
            let (rcode, address) = self.world.ask(&text(asked), asked_type);
            let records =
                address.map(|it| Row::new(asked, asked_type, 30, &[it])).into_iter().collect();
            let rows = Rows { rcode, records, ..Rows::default() };
            let came = Came::Answer(Box::new(Made { lifetime_secs: Some(30), ..Made::new(rows) }));
            outcome = match pending.take(came, self.rules) {
                Next::Done(made) => Outcome::Answer(made),
                Next::Ask(pending) => Outcome::Ask(pending),
                Next::Failed => panic!("nothing fails in this world"),
            };
        };
        let answer = match made {
            None => self.world.ask(name, qtype),
            Some(made) => {
                for (name, qtype, rows) in &made.also {
                    self.cache.insert((text(name), *qtype), answer_of(rows, *qtype));
                }
                check_alias(&made.rows, &wire);
                answer_of(&made.rows, qtype)
            }
        };
        self.cache.insert((name.to_owned(), qtype), answer);
        answer
    }
}

fn answer_of(rows: &Rows, qtype: u16) -> Answer {
    let address = rows.answers().find(|row| row.rtype == qtype);
    (rows.rcode, address.map(|row| row.data.tail()[0]))
}

/// An alias begins at the question, and its target has the records.
fn check_alias(rows: &Rows, name: &[u8]) {
    let mut owner = name;
    for row in rows.answers() {
        assert_eq!(&*row.owner, owner);
        if row.rtype == rtype::CNAME {
            owner = &row.data.names[0];
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Library {
    Glibc,
    Musl,
}

/// The result of one name for a library.
enum Found {
    Addresses(Vec<u8>),
    Nothing,
    Absent,
}

fn ask(server: &mut dyn Server, name: &str, types: &[u16]) -> Found {
    let answers: Vec<Answer> = types.iter().map(|&qtype| server.ask(name, qtype)).collect();
    let addresses: Vec<u8> = answers.iter().filter_map(|(_, address)| *address).collect();
    match () {
        () if !addresses.is_empty() => Found::Addresses(addresses),
        () if answers.iter().any(|(rcode, _)| *rcode == rcode::NXDOMAIN) => Found::Absent,
        () => Found::Nothing,
    }
}

/// Returns the addresses that `library` finds for `name` with the search list of a pod.
fn look_up(
    library: Library,
    server: &mut dyn Server,
    name: &str,
    search: &[String],
    types: &[u16],
) -> Vec<u8> {
    let has_many_dots = name.matches('.').count() >= 5;
    if has_many_dots {
        match ask(server, &format!("{name}."), types) {
            Found::Addresses(addresses) => return addresses,
            _ if library == Library::Musl => return Vec::new(),
            _ => {}
        }
    }
    for domain in search {
        match ask(server, &format!("{name}.{domain}"), types) {
            Found::Addresses(addresses) => return addresses,
            // glibc continues with the next domain, musl does not.
            Found::Nothing if library == Library::Musl => return Vec::new(),
            Found::Nothing | Found::Absent => {}
        }
    }
    match ask(server, &format!("{name}."), types) {
        Found::Addresses(addresses) if !has_many_dots => addresses,
        _ => Vec::new(),
    }
}

/// Returns a name that an application looks up. Whole names of the cluster with five dots are asked
/// first as they are, and look like first names of walks.
fn lookup_name(random: &mut Random) -> String {
    let labels = ["a", "b", "n", "m", "svc", "z", "corp", "w"];
    let max = if random.below(6) == 0 { 6 } else { 4 };
    let len = 1 + random.below(max);
    let name: Vec<&str> = (0..len).map(|_| random.one(&labels)).collect();
    name.join(".")
}

#[test]
fn resolvers_find_the_same_addresses_with_and_without() {
    let cases: usize = match std::env::var("AUTOPATH_CASES") {
        Ok(cases) => cases.parse().unwrap(),
        Err(_) => 10_000,
    };
    let rules = rules();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut found, mut done) = (0, 0);
    while done < cases {
        let mut world = World::random(&mut random);
        let mut cache = BTreeMap::new();
        let mut history = Vec::new();
        for _ in 0..8 {
            let name = lookup_name(&mut random);
            if autopath().base(&parse(&name).unwrap()).is_some() && name.matches('.').count() >= 5 {
                continue;
            }
            let library = [Library::Glibc, Library::Musl][random.below(2)];
            let types: &[u16] = [&[1, 28][..], &[1, 28], &[1], &[28]][random.below(4)];
            let namespace = random.one(&["n", "m"]);
            let search = [
                format!("{namespace}.svc.z."),
                "svc.z.".into(),
                "z.".into(),
                "corp.".into(),
                "b.corp.".into(),
            ];
            history.push((name.clone(), namespace, library, types));
            let expected = look_up(library, &mut Plain(&mut world), &name, &search, types);
            let mut walking = Walking { world: &mut world, rules: &rules, cache };
            let addresses = look_up(library, &mut walking, &name, &search, types);
            cache = walking.cache;
            assert_eq!(addresses, expected, "{history:#?} in {world:#?}");
            found += usize::from(!addresses.is_empty());
            done += 1;
        }
    }
    assert!(found > cases / 10, "{found} of {cases}");
}

#[test]
fn an_outside_name_costs_a_client_one_question_for_each_type() {
    for (name, plain, walking) in
        [("a.example", 12, 2), ("w.m", 4, 2), ("w", 2, 2), ("none.example", 12, 12)]
    {
        let mut world = World::default();
        for name in ["a.example.", "w.n.svc.z.", "w.m.svc.z."] {
            world.add(name, &mut Random(1));
            world.names.insert(name.to_owned(), [Some(1), Some(2)]);
        }
        let search = ["n.svc.z.", "svc.z.", "z.", "corp.", "b.corp."].map(str::to_owned);
        struct Counted<'s>(&'s mut dyn Server, usize);
        impl Server for Counted<'_> {
            fn ask(&mut self, name: &str, qtype: u16) -> Answer {
                self.1 += 1;
                self.0.ask(name, qtype)
            }
        }
        let rules = rules();
        let mut counts = Vec::new();
        for is_walking in [false, true] {
            let mut inner: Box<dyn Server> = match is_walking {
                false => Box::new(Plain(&mut world)),
                true => {
                    Box::new(Walking { world: &mut world, rules: &rules, cache: BTreeMap::new() })
                }
            };
            let mut counted = Counted(&mut *inner, 0);
            look_up(Library::Glibc, &mut counted, name, &search, &[1, 28]);
            counts.push(counted.1);
        }
        assert_eq!(counts, [plain, walking], "{name}");
    }
}

#[test]
fn only_first_names_of_pods_begin_a_walk() {
    let rows = [
        ("a.example.n.svc.z", Some("a.example.")),
        ("a.b.c.n.svc.z", Some("a.b.c.")),
        ("a.n.svc.z", None),
        ("n.svc.z", None),
        ("a.b.svc.z", None),
        ("a.b.n.pod.z", None),
        ("a.b.n.svc", None),
        ("a.b.n.svc.zz", None),
        ("z", None),
        (".", None),
    ];
    for (name, expected) in rows {
        let name = parse(name).unwrap();
        let base = autopath().base(&name).map(|base| text(&[base, &[0]].concat()));
        assert_eq!(base.as_deref(), expected, "{}", text(&name));
    }
    let walk = autopath().walk(&parse("a.example.n.svc.z").unwrap(), 1, (0, 0)).unwrap();
    let left: Vec<String> = walk.left.iter().map(|name| text(name)).collect();
    let expected =
        ["a.example.svc.z.", "a.example.z.", "a.example.corp.", "a.example.b.corp.", "a.example."];
    assert_eq!(left, expected);
    assert_eq!(text(&walk.parent), "example.n.svc.z.");
}

#[test]
fn a_failure_on_the_way_leaves_the_walk_to_the_client() {
    let rules = rules();
    let Outcome::Ask(mut pending) = rules.resolve(&parse("a.example.n.svc.z").unwrap(), 1) else {
        panic!("it is asked");
    };
    let denied = || {
        let rows = Rows { rcode: rcode::NXDOMAIN, ..Rows::default() };
        Came::Answer(Box::new(Made { lifetime_secs: Some(30), ..Made::new(rows) }))
    };
    let mut asked = Vec::new();
    let made = loop {
        asked.push(text(pending.question().0));
        let came = if asked.len() == 4 { Came::Failure(2) } else { denied() };
        pending = match pending.take(came, &rules) {
            Next::Done(made) => break made,
            Next::Ask(pending) => pending,
            Next::Failed => panic!("the client gets its denial"),
        };
    };
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert_eq!((made.rows.rcode, made.lifetime_secs), (rcode::NXDOMAIN, Some(0)));
}

/// A client can look up the whole name of a pod of a StatefulSet that is not ready.
#[test]
fn names_below_a_service_do_not_begin_a_walk() {
    let mut world = World::default();
    for name in ["db.n.svc.z.", "db-0.db.corp.", "x.example.corp."] {
        world.add(name, &mut Random(1));
        world.names.insert(name.to_owned(), [Some(1), Some(2)]);
    }
    let rules = rules();
    let mut server = Walking { world: &mut world, rules: &rules, cache: BTreeMap::new() };
    assert_eq!(server.ask("db-0.db.n.svc.z.", 1), (rcode::NXDOMAIN, None));
    assert_eq!(server.ask("x.example.n.svc.z.", 1), (rcode::NOERROR, Some(1)));
}

#[test]
fn search_domains_are_those_of_the_last_line() {
    let rows: [(&str, &[&str]); 6] = [
        ("", &[]),
        (
            "nameserver 192.0.2.1\nsearch corp.example b.example.\n",
            &["corp.example.", "b.example."],
        ),
        ("search a.example\ndomain b.example\n", &["b.example."]),
        ("domain a.example\nsearch b.example c.example # home\n", &["b.example.", "c.example."]),
        ("search .\n", &[]),
        ("searching a.example\n search A.example\n", &["a.example."]),
    ];
    for (file, expected) in rows {
        let domains: Vec<String> = search_domains(file).iter().map(|it| text(it)).collect();
        assert_eq!(domains, expected, "{file:?}");
    }
}
