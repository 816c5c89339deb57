//! The lists of heavy hitters: names, clients, names that do not exist, names asked of upstreams.
//!
//! Core. Takes samples in, shows lists.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use shared::clock::Moment;
use shared::wire::rcode;

use super::keys::Keys;
use super::record::{Sample, Source};
use super::windows::{Window, Windows};

/// What a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Names of all queries.
    Name,
    /// Clients.
    Client,
    /// Names of queries that were answered with NXDOMAIN.
    Nxdomain,
    /// Names of queries for which an upstream was asked.
    Upstream,
}

/// Why a text is not the name of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected name, client, nxdomain or upstream")]
pub struct ByError;

impl FromStr for By {
    type Err = ByError;

    fn from_str(text: &str) -> Result<Self, ByError> {
        let all = [Self::Name, Self::Client, Self::Nxdomain, Self::Upstream];
        all.into_iter().find(|by| by.name() == text).ok_or(ByError)
    }
}

impl By {
    /// Its name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Client => "client",
            Self::Nxdomain => "nxdomain",
            Self::Upstream => "upstream",
        }
    }
}

/// Every list.
#[derive(Debug)]
pub struct Top {
    keys: Keys,
    names: Windows,
    clients: Windows,
    nxdomain: Windows,
    upstream: Windows,
}

/// A list as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// How many seconds the window covers.
    pub seconds: f64,
    /// How many queries belong to the list.
    pub total: u64,
    /// The samples that represent them.
    pub samples: u64,
    /// The heavy hitters, the heaviest first.
    pub items: Vec<Item>,
}

/// A heavy hitter.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The name or the client.
    pub key: Key,
    /// An estimate of its queries.
    pub count: u64,
    /// The true number is within this of the estimate, in 19 of 20 cases.
    pub error: u64,
    /// The name that the client meant, if it is a walk of a search list.
    pub walked: Option<Walked>,
}

/// A name that a client made of another one and a domain of its search list; both in wire form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// The name that the client meant.
    pub name: Box<[u8]>,
    /// The domain.
    pub suffix: Box<[u8]>,
}

/// What an item is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A name in wire form and lower case.
    Name(Box<[u8]>),
    /// The address of a client.
    Client(IpAddr),
}

impl Top {
    /// Returns empty lists.
    pub fn new(now: Moment) -> Self {
        let list = |places| Windows::new(places, now);
        Self {
            keys: Keys::new(KEYS_BYTES_MAX),
            names: list(NAMES),
            clients: list(OTHERS),
            nxdomain: list(OTHERS),
            upstream: list(OTHERS),
        }
    }

    /// Adds a sample.
    pub fn add(&mut self, sample: &Sample) {
        let (keys, weight) = (&mut self.keys, sample.weight);
        self.names.add(sample.name(), weight, keys);
        self.clients.add(&octets(sample.client), weight, keys);
        if sample.rcode == rcode::NXDOMAIN {
            self.nxdomain.add(sample.name(), weight, keys);
        }
        if sample.source == Source::Miss || sample.upstream.is_some() {
            self.upstream.add(sample.name(), weight, keys);
        }
    }

    /// Notes that it is `now`; call it before samples are added, and before a list is shown.
    pub fn turn(&mut self, now: Moment) {
        let keys = &mut self.keys;
        for list in [&mut self.names, &mut self.clients, &mut self.nxdomain, &mut self.upstream] {
            list.turn(now, keys);
        }
    }

    /// Returns a list, at most `limit` items. `domains` are the cluster's, in wire form and lower
    /// case.
    pub fn show(
        &self,
        (by, window): (By, Window),
        limit: usize,
        domains: &[&[u8]],
        now: Moment,
    ) -> List {
        let windows = match by {
            By::Name => &self.names,
            By::Client => &self.clients,
            By::Nxdomain => &self.nxdomain,
            By::Upstream => &self.upstream,
        };
        let shown = windows.show(window, limit, now);
        // How many queries a sample represents, on average.
        let weight = shown.total as f64 / shown.samples.max(1) as f64;
        let items = shown.cells.iter().filter_map(|cell| {
            let bytes = self.keys.get(cell.key)?;
            let spread = (cell.count as f64 * (weight - 1.0).max(0.0)).sqrt();
            let key = match by {
                By::Client => Key::Client(client(bytes)?),
                _ => Key::Name(bytes.into()),
            };
            let walked = || domains.iter().find_map(|domain| self.walked(bytes, domain));
            let walked = if by == By::Nxdomain { walked() } else { None };
            let error = cell.error + (2.0 * spread).ceil() as u64;
            Some(Item { key, count: cell.count, error, walked })
        });
        List {
            seconds: shown.covered.as_secs_f64(),
            total: shown.total,
            samples: shown.samples,
            items: items.collect(),
        }
    }

    /// Takes the domain of a search list off `name`: `NS.svc.DOMAIN`, `svc.DOMAIN` or `DOMAIN`. The
    /// rest must have been asked for too, as it is at the end of the list. If it was not, the first
    /// domain is taken off if the rest has two labels at least.
    fn walked(&self, name: &[u8], domain: &[u8]) -> Option<Walked> {
        let names: Vec<&[u8]> = shared::wire::with_ancestors(name).collect();
        let at = names.iter().position(|above| *above == domain)?;
        let is_service = at >= 1 && names[at - 1].starts_with(b"\x03svc");
        // How many labels are left of the domain that is taken off: two at least.
        let mut ends = if is_service { at.saturating_sub(2)..at + 1 } else { at..at + 1 };
        let left = |end: usize| [&name[..name.len() - names[end].len()], &[0]].concat();
        let asked = ends.rfind(|&end| end >= 2 && self.keys.has(&left(end)));
        let end = asked.or((is_service && at >= 4).then(|| at - 2))?;
        Some(Walked { name: left(end).into(), suffix: names[end].into() })
    }

    /// Returns the bytes that the lists take.
    pub fn bytes(&self) -> usize {
        let lists = [&self.names, &self.clients, &self.nxdomain, &self.upstream];
        self.keys.bytes() + lists.iter().map(|list| list.bytes()).sum::<usize>()
    }
}

/// An address as a key: unlike a name, it begins with a byte above 63 and has 17 bytes.
fn octets(client: IpAddr) -> [u8; 17] {
    let mut octets = [0xff; 17];
    let address = match client {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    octets[1..].copy_from_slice(&address.octets());
    octets
}

/// The address of a key.
fn client(octets: &[u8]) -> Option<IpAddr> {
    let address: [u8; 16] = octets.get(1..)?.try_into().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(address)).to_canonical())
}

/// Names since the start; half as many in each other window. A little less than the largest load of
/// a table with a power of two of buckets.
const NAMES: usize = 1_792;
/// The same for the other lists.
const OTHERS: usize = 896;
/// The names of all keys. With the summaries, which take 0.8 MB when they are full, less than 2 MB.
const KEYS_BYTES_MAX: usize = 900_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use shared::name::{bare, parse};

    const START: Moment = Moment::from_nanos(1_000_000_000_000);

    fn sample(name: &str, client: [u8; 4], source: Source, rcode: u16) -> Sample {
        let mut sample = Sample::new(&parse(name).unwrap(), client.into(), source);
        sample.rcode = rcode;
        sample
    }

    /// A list as text.
    fn show(top: &Top, by: By) -> Vec<String> {
        let domain = parse("cluster.local").unwrap();
        let list = top.show((by, Window::Start), 10, &[&domain], START + Duration::from_secs(1));
        let items = list.items.iter().map(|item| {
            let key = match &item.key {
                Key::Name(name) => bare(name),
                Key::Client(client) => client.to_string(),
            };
            let walked = item.walked.as_ref();
            let walked = walked.map(|it| format!(" {} + {}", bare(&it.name), bare(&it.suffix)));
            format!("{} {key}{}", item.count, walked.unwrap_or_default())
        });
        items.collect()
    }

    #[test]
    fn each_list_counts_its_queries() {
        let mut top = Top::new(START);
        let [one, two] = [[10, 0, 0, 1], [10, 0, 0, 2]];
        let rows = [
            ("a.example", one, Source::Hit, 0, 3),
            ("b.example", one, Source::Miss, 3, 2),
            ("c.example", two, Source::Local, 5, 1),
        ];
        for (name, client, source, rcode, times) in rows {
            for _ in 0..times {
                top.add(&sample(name, client, source, rcode));
            }
        }
        assert_eq!(show(&top, By::Name), ["3 a.example", "2 b.example", "1 c.example"]);
        assert_eq!(show(&top, By::Client), ["5 10.0.0.1", "1 10.0.0.2"]);
        assert_eq!(show(&top, By::Nxdomain), ["2 b.example"]);
        assert_eq!(show(&top, By::Upstream), ["2 b.example"]);
    }

    #[test]
    fn names_of_a_search_list_are_shown_with_their_suffix() {
        let name = "api.example.com";
        let rows = [
            ("api.example.com.shop.svc.cluster.local", "shop.svc.cluster.local"),
            ("api.example.com.svc.cluster.local", "svc.cluster.local"),
            ("api.example.com.cluster.local", "cluster.local"),
        ];
        for (walked, suffix) in rows {
            let mut top = Top::new(START);
            top.add(&sample(walked, [10, 0, 0, 1], Source::Hit, 3));
            top.add(&sample(name, [10, 0, 0, 1], Source::Hit, 0));
            assert_eq!(show(&top, By::Nxdomain), [format!("1 {walked} {name} + {suffix}")]);
        }
        // Without the name itself, only the first domain of the list is certain enough.
        let rows = [
            ("x.y.shop.svc.cluster.local", " x.y + shop.svc.cluster.local"),
            ("web.shop.svc.cluster.local", ""),
            ("shop.svc.cluster.local", ""),
            ("svc.cluster.local", ""),
            ("a.b.cluster.local", ""),
            ("nope.example", ""),
        ];
        for (name, walked) in rows {
            let mut top = Top::new(START);
            top.add(&sample(name, [10, 0, 0, 1], Source::Hit, 3));
            assert_eq!(show(&top, By::Nxdomain), [format!("1 {name}{walked}")]);
        }
    }

    #[test]
    fn the_error_grows_with_what_a_sample_stands_for() {
        let now = START + Duration::from_secs(1);
        let mut top = Top::new(START);
        let mut heavy = sample("a.example", [10, 0, 0, 1], Source::Hit, 0);
        (0..100).for_each(|_| top.add(&heavy));
        let list = top.show((By::Name, Window::Minute), 1, &[], now);
        assert_eq!((list.items[0].count, list.items[0].error, list.total), (100, 0, 100));
        heavy.weight = 101;
        let mut top = Top::new(START);
        (0..100).for_each(|_| top.add(&heavy));
        let list = top.show((By::Name, Window::Minute), 1, &[], now);
        // 10,100 queries from 100 samples: 2 of 10 standard deviations.
        assert_eq!((list.items[0].count, list.items[0].error), (10_100, 2_010));
    }

    #[test]
    fn estimates_of_a_sampled_trace_are_within_their_errors() {
        use super::super::pace::{Pace, Rate};
        use super::super::trace::Zipf;

        let mut top = Top::new(START);
        let mut pace = Pace::new(Rate::Adaptive, 5);
        let (mut left, mut now) = (pace.first_skip(), START);
        let mut exact = vec![0_u64; 10_000];
        // 50,000 queries per second.
        for rank in Zipf::new(10_000, 1.0, 11).take(500_000) {
            exact[rank as usize] += 1;
            now = now + Duration::from_micros(20);
            if left > 0 {
                left -= 1;
                continue;
            }
            let next = pace.take(now);
            left = next.skip;
            let mut sample = sample(&format!("n{rank}.example"), [1; 4], Source::Hit, 0);
            sample.weight = next.weight;
            top.add(&sample);
        }
        let list = top.show((By::Name, Window::Start), 100, &[], now);
        assert!(list.samples < 15_000, "{}", list.samples);
        assert!(list.total.abs_diff(500_000) < 1_000, "{}", list.total);
        let right = list.items.iter().filter(|item| {
            let Key::Name(name) = &item.key else { return false };
            let text = bare(name);
            let rank: usize = text[1..].split('.').next().unwrap().parse().unwrap();
            item.count.abs_diff(exact[rank]) <= item.error
        });
        // 19 of 20 are expected; the list shows those that are too high rather than too low.
        assert!(right.count() >= 85);
        assert_eq!(list.items[0].key, Key::Name(parse("n0.example").unwrap()));
        let off = list.items[0].count.abs_diff(exact[0]) as f64 / exact[0] as f64;
        assert!(off < 0.1, "{off}");
    }

    #[test]
    fn a_flood_of_names_leaves_the_lists_below_two_megabytes() {
        let mut top = Top::new(START);
        let label = "a".repeat(63);
        let mut most = 0;
        for at in 0..20_000_u32 {
            let now = START + Duration::from_millis(u64::from(at) * 50);
            let name = format!("{at:08}.{label}.{label}.{label}.{}", "b".repeat(45));
            let client = at.to_be_bytes();
            top.turn(now);
            top.add(&sample(&name, client, Source::Miss, 3));
            most = most.max(top.bytes());
        }
        assert!(most <= 2_000_000, "{most}");
        let list = top.show((By::Name, Window::Start), 10, &[], START + Duration::from_secs(1_000));
        assert_eq!((list.total, list.items.len()), (20_000, 10));
    }
}
