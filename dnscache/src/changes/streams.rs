//! The replicas of kubedns that should be followed, and those that are.
//!
//! Seam: the forwarder sets the addresses of hosts, the followers set the states of their streams,
//! and all of them read. A channel holds the state, so no reader waits for a connection.
//!
//! A replica must be asked only while it is followed, as long as any replica of its source is
//! followed. So if an answer is older than a change, it was sent by a replica that still reports
//! the change, and is dropped then. If no replica is followed, every replica is asked, and answers
//! are stored only for a few seconds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use shared::ready::Check;
use tokio::sync::watch;
use tokio::time::sleep;

use super::source::{Host, Source, canonical};

/// Every change stream of the program.
#[derive(Debug)]
pub struct Streams {
    sources: Box<[Source]>,
    /// The host names of the sources, in lower-case wire form.
    hosts: Box<[Box<[u8]>]>,
    state: watch::Sender<Replicas>,
    is_up: AtomicBool,
    /// Counts the changes of the state.
    edition: AtomicU64,
}

/// One replica of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The index of its source.
    pub source: usize,
    /// The address of its HTTP server.
    pub address: SocketAddr,
}

/// The counters of a follower.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Lines read.
    pub lines: AtomicU64,
    /// Connections that ended after they were up.
    pub losses: AtomicU64,
    /// The generation of kubedns's records whose changes the cache has; 0 if that is not known, or
    /// while changes are applied.
    pub generation: AtomicU64,
}

/// The state of a replica.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub key: Key,
    /// Whether its stream is read.
    pub is_up: bool,
    /// Whether its source has this address. A replica that has left is followed a little longer,
    /// because the cache can hold answers of it.
    pub is_expected: bool,
    pub figures: Arc<Figures>,
}

#[derive(Clone, Debug, Default)]
struct Replicas {
    replicas: Vec<Replica>,
    /// For each source, how often it lost its last followed replica.
    outages: Vec<u64>,
}

impl Replicas {
    fn of_source(&self, source: usize) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(move |it| it.key.source == source && it.is_expected)
    }

    fn find(&self, key: Key) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.key == key)
    }

    fn is_expected(&self, key: Key) -> bool {
        self.find(key).is_some_and(|replica| replica.is_expected)
    }

    fn expects_exactly(&self, source: usize, keys: &[Key]) -> bool {
        self.of_source(source).all(|replica| keys.contains(&replica.key))
            && keys.iter().all(|&key| self.is_expected(key))
    }

    /// Adds `key`, or expects it again.
    fn expect(&mut self, key: Key) {
        match self.replicas.iter_mut().find(|replica| replica.key == key) {
            Some(replica) => replica.is_expected = true,
            None => {
                let (is_up, is_expected, figures) = (false, true, Arc::default());
                self.replicas.push(Replica { key, is_up, is_expected, figures });
            }
        }
    }

    /// Returns whether a replica of `source` is followed.
    fn is_followed(&self, source: usize) -> bool {
        self.of_source(source).any(|replica| replica.is_up)
    }
}

impl Streams {
    /// Returns the state of `sources` before any stream is up.
    pub fn new(sources: Vec<Source>) -> Self {
        let mut state = Replicas { outages: vec![0; sources.len()], ..Replicas::default() };
        let mut hosts: Vec<Box<[u8]>> = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            hosts.extend(source.host_name());
            if let Host::Address(address) = source.host {
                state.expect(Key { source: index, address: SocketAddr::new(address, source.port) });
            }
        }
        let is_up = AtomicBool::new(sources.is_empty());
        let (sources, hosts) = (sources.into(), hosts.into());
        Self { sources, hosts, state: watch::Sender::new(state), is_up, edition: AtomicU64::new(0) }
    }

    /// Returns whether at least one replica of every source is followed. Returns `true` if there
    /// are no sources, because then only the TTLs decide how long names are stored.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Returns a number that grows with each change of the state.
    pub fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }

    /// Returns the address of each replica, and the generation of its records whose changes the
    /// cache has. Returns `None` unless all are followed.
    pub fn generations(&self) -> Option<Vec<(SocketAddr, u64)>> {
        let state = self.state.borrow();
        let has_replica = |source| state.of_source(source).next().is_some();
        if !(0..self.sources.len()).all(has_replica) {
            return None;
        }
        let mut all = Vec::new();
        for replica in state.replicas.iter().filter(|it| it.is_expected) {
            let generation = replica.figures.generation.load(Ordering::Acquire);
            if !replica.is_up || generation == 0 {
                return None;
            }
            all.push((replica.key.address, generation));
        }
        all.sort_unstable();
        Some(all)
    }

    /// Returns the host names of the sources, in lower-case wire form. The forwarder resolves them,
    /// and passes their addresses to [`Streams::expect`].
    pub fn hosts(&self) -> &[Box<[u8]>] {
        &self.hosts
    }

    /// Returns whether the replicas at `address` can be asked like others of their source, because
    /// all their streams are up.
    pub fn follows(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        let state = self.state.borrow();
        let is_there = |it: &&Replica| it.is_expected && canonical(it.key.address.ip()) == address;
        let mut there = state.replicas.iter().filter(is_there).peekable();
        there.peek().is_some() && there.all(|replica| replica.is_up)
    }

    /// Sets the `addresses` of `host`, in lower-case wire form. If `addresses` is empty, the old
    /// ones are kept, because replicas that cannot be reached are better than none.
    pub fn expect(&self, host: &[u8], addresses: &[IpAddr]) {
        if addresses.is_empty() {
            return;
        }
        for (index, source) in self.sources.iter().enumerate() {
            if source.host_name().as_deref() != Some(host) {
                continue;
            }
            let key = |address: &IpAddr| Key {
                source: index,
                address: SocketAddr::new(address.to_canonical(), source.port),
            };
            let keys: Vec<Key> = addresses.iter().map(key).collect();
            if self.state.borrow().expects_exactly(index, &keys) {
                continue;
            }
            self.change(|state| {
                for replica in state.replicas.iter_mut().filter(|it| it.key.source == index) {
                    replica.is_expected = keys.contains(&replica.key);
                }
                keys.iter().for_each(|&key| state.expect(key));
            });
            let replicas: Vec<String> = keys.iter().map(|key| key.address.to_string()).collect();
            tracing::info!(%source, replicas = replicas.join(" "), "replicas of kubedns");
        }
    }

    /// Returns the check of `/readyz`. A stream that is down is a warning, because names can still
    /// be answered.
    pub fn check(&self) -> Check {
        let state = self.state.borrow();
        let mut reasons = Vec::new();
        let (mut all, mut up) = (0, 0);
        for (index, source) in self.sources.iter().enumerate() {
            if state.of_source(index).next().is_none() {
                all += 1;
                reasons.push(format!("{source} has no address yet"));
            }
            for replica in state.of_source(index) {
                all += 1;
                up += usize::from(replica.is_up);
                if !replica.is_up {
                    reasons.push(format!("{} is not followed", replica.key.address));
                }
            }
        }
        let effect = match self.is_up() {
            true => "only the others are asked",
            false => "names are stored for 5 s at most",
        };
        match reasons.is_empty() {
            true => Check::passed("changes"),
            false => Check::warning(
                "changes",
                format!("{up} of {all} change streams are up; {effect}: {}", reasons.join(", ")),
            ),
        }
    }

    /// Returns how many replicas should be followed, and how many are. A source whose host has no
    /// address yet counts as one replica.
    pub(super) fn count(&self) -> (usize, usize) {
        let state = self.state.borrow();
        let of = |source| state.of_source(source).count().max(1);
        let all = (0..self.sources.len()).map(of).sum();
        (all, state.replicas.iter().filter(|it| it.is_expected && it.is_up).count())
    }

    /// Returns every replica, including those that have left and are still followed.
    pub(super) fn replicas(&self) -> Vec<Replica> {
        self.state.borrow().replicas.clone()
    }

    /// Returns a source by its index.
    pub(super) fn source(&self, index: usize) -> &Source {
        &self.sources[index]
    }

    /// Resolves when the state has changed since `edition`.
    pub async fn changed(&self, edition: u64) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`.
        drop(state.wait_for(|_| self.edition() != edition).await);
    }

    /// Resolves when the source of `key` has not had its address for a while.
    pub(super) async fn left(&self, key: Key) {
        let mut state = self.state.subscribe();
        loop {
            drop(state.wait_for(|state| !state.is_expected(key)).await);
            tokio::select! {
                () = sleep(LINGER) => return,
                back = state.wait_for(|state| state.is_expected(key)) => drop(back),
            }
        }
    }

    /// Returns whether the source of `key` has its address.
    pub(super) fn is_expected(&self, key: Key) -> bool {
        self.state.borrow().is_expected(key)
    }

    /// Returns whether the stream of `key` is up.
    pub(super) fn is_replica_up(&self, key: Key) -> bool {
        self.state.borrow().find(key).is_some_and(|replica| replica.is_up)
    }

    /// Returns a number if another replica of the source of `key` is followed now. As long as it
    /// stays the same, the replica `key` is not asked before it is followed.
    pub(super) fn covered(&self, key: Key) -> Option<u64> {
        let state = self.state.borrow();
        let mut others = state.of_source(key.source).filter(|replica| replica.key != key);
        others.any(|replica| replica.is_up).then(|| state.outages[key.source])
    }

    /// Sets whether the stream of `key` is up.
    pub(super) fn set_up(&self, key: Key, is_up: bool) {
        self.change(|state| {
            if let Some(replica) = state.replicas.iter_mut().find(|it| it.key == key) {
                replica.is_up = is_up;
            }
        });
    }

    /// Removes `key` unless its source has its address again.
    pub(super) fn forget(&self, key: Key) {
        self.change(|state| state.replicas.retain(|it| it.key != key || it.is_expected));
    }

    fn change(&self, act: impl FnOnce(&mut Replicas)) {
        self.state.send_modify(|state| {
            let followed = |state: &Replicas| -> Vec<bool> {
                (0..self.sources.len()).map(|source| state.is_followed(source)).collect()
            };
            let before = followed(state);
            act(state);
            let after = followed(state);
            for ((was_followed, is_followed), outages) in
                before.iter().zip(&after).zip(&mut state.outages)
            {
                *outages += u64::from(*was_followed && !is_followed);
            }
            self.is_up.store(!after.contains(&false), Ordering::Release);
            self.edition.fetch_add(1, Ordering::AcqRel);
        });
    }
}

/// How long a replica that has left is followed, because it may be added again or still answer. Its
/// last answers are removed from the cache after that.
const LINGER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use shared::name::parse;

    fn streams(sources: &[&str]) -> Streams {
        Streams::new(sources.iter().map(|source| source.parse().unwrap()).collect())
    }

    fn key(source: usize, address: &str) -> Key {
        Key { source, address: address.parse().unwrap() }
    }

    fn ips(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn a_source_is_up_while_one_of_its_replicas_is_followed() {
        let streams = streams(&["http://kubedns.a:1/changes", "http://10.0.0.9:1/changes"]);
        let host = parse("kubedns.a").unwrap();
        assert_eq!((streams.hosts(), streams.count()), (&[host.clone()][..], (2, 0)));
        assert!(format!("{:?}", streams.check()).contains("kubedns.a:1/changes has no address"));
        streams.expect(&host, &ips(&["10.0.0.1", "10.0.0.2"]));
        let replicas = [key(0, "10.0.0.1:1"), key(0, "10.0.0.2:1"), key(1, "10.0.0.9:1")];
        let mut editions = vec![streams.edition()];
        // A replica, whether it is followed from now on, and which are up then.
        let rows = [
            (0, true, false, [true, false, false]),
            (2, true, true, [true, false, true]),
            (1, true, true, [true, true, true]),
            (0, false, true, [false, true, true]),
            (1, false, false, [false, false, true]),
            (0, true, true, [true, false, true]),
            (2, false, false, [true, false, false]),
        ];
        for (replica, is_up, all, expected) in rows {
            streams.set_up(replicas[replica], is_up);
            let followed = replicas.map(|key| streams.follows(key.address.ip()));
            assert_eq!((streams.is_up(), followed), (all, expected), "{replica} {is_up}");
            let check = format!("{:?}", streams.check());
            let is_listed = |key: &Key| check.contains(&format!("{} is not", key.address));
            assert_eq!(replicas.each_ref().map(is_listed), expected.map(|up| !up), "{check}");
            assert_eq!(check.contains("5 s at most"), !all, "{check}");
            assert!(!editions.contains(&streams.edition()));
            editions.push(streams.edition());
        }
    }

    #[test]
    fn replicas_at_one_address_are_followed_together() {
        let streams = streams(&["http://127.0.0.1:1/changes", "http://[::1]:2/changes"]);
        streams.set_up(key(0, "127.0.0.1:1"), true);
        let both = ips(&["127.0.0.1", "::1"]);
        assert!(both.iter().all(|&address| !streams.follows(address)));
        streams.set_up(key(1, "[::1]:2"), true);
        assert!(both.iter().all(|&address| streams.follows(address)));
        assert!(!streams.follows("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn without_a_source_names_are_stored_as_their_ttl_says() {
        let streams = streams(&[]);
        assert!(streams.is_up() && streams.check() == Check::passed("changes"));
        assert_eq!(streams.count(), (0, 0));
    }

    #[test]
    fn a_replica_that_has_left_is_not_asked_and_not_forgotten_at_once() {
        let streams = streams(&["http://kubedns.a:1/changes"]);
        let host = parse("kubedns.a").unwrap();
        let [first, second] = [key(0, "10.0.0.1:1"), key(0, "10.0.0.2:1")];
        streams.expect(&host, &ips(&["10.0.0.1"]));
        assert_eq!(streams.covered(first), None);
        streams.set_up(first, true);
        streams.expect(&host, &ips(&["10.0.0.1", "10.0.0.2"]));
        let covered = streams.covered(second);
        assert!(covered.is_some(), "the first is asked alone until the second is followed");
        streams.expect(&host, &[]);
        assert_eq!(streams.count(), (2, 1), "no address is no reason to forget those of before");
        streams.expect(&host, &ips(&["10.0.0.2"]));
        assert!(!streams.is_up() && !streams.follows(first.address.ip()));
        assert!(streams.is_replica_up(first), "it is followed a little longer");
        streams.forget(second);
        streams.expect(&host, &ips(&["10.0.0.1", "10.0.0.2"]));
        assert!(streams.is_up() && streams.is_expected(second));
        let again = streams.covered(second);
        assert_ne!(again, covered, "it was asked meanwhile");
        streams.set_up(first, false);
        streams.set_up(first, true);
        assert_ne!(streams.covered(second), again, "it may have been asked meanwhile");
        streams.expect(&host, &ips(&["10.0.0.1"]));
        streams.forget(second);
        assert_eq!(streams.replicas().len(), 1);
    }
}
