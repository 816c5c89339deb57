//! The caches that are compared. Each takes names by number and a size, and returns for each
//! question whether it was a hit.
//!
//! Core.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use dnscache::cache::{Bounds, Cache, Entry, Lookup, Question};
use shared::clock::Moment;
use shared::wire::{NameBuffer, Query, Reply, Transport, UDP_SIZE_MAX};

use crate::workload::question;

/// Runs dnscache's own cache as its handler does. On a miss, it stores the answer, which is one
/// address.
pub fn dnscache(trace: &[u32], size: usize) -> Vec<bool> {
    // The number of entries bounds it here, not the bytes.
    let cache = Cache::new(Bounds { entries: size, bytes: BYTES, stale_secs: 0 });
    let now = Moment::default() + Duration::from_secs(1_000);
    let mut buffer = [0; UDP_SIZE_MAX];
    let ask = |name: &u32| {
        let mut message = question(&format!("h{name}.example.test"), 1).into_vec();
        let mut lower = NameBuffer::new();
        let query = Query::screen(&message, Transport::Udp, &mut lower).expect("a valid question");
        let found = cache.get(&query, now, &mut Reply::new(&query, &mut buffer));
        let is_hit = matches!(found, Lookup::Hit | Lookup::Due);
        if !is_hit {
            let name = query.name().to_vec();
            message[7] = 1; // one answer
            message.extend(b"\xc0\x0c\0\x01\0\x01\0\x01\x51\x80\0\x04\x0a\0\0\x01");
            let entry = Entry::new(&message, 0).expect("a valid reply");
            let question = Question {
                name: &name,
                qtype: 1,
                qclass: 1,
                dnssec_ok: false,
                checking_disabled: false,
            };
            cache.insert(&question, &entry, 86_400, now);
        }
        is_hit
    };
    trace.iter().map(ask).collect()
}

/// Evicts the name that was asked least recently.
pub fn lru(trace: &[u32], size: usize) -> Vec<bool> {
    let (mut used, mut names) = (HashMap::new(), BTreeMap::new());
    let mut ask = |(now, &name): (usize, &u32)| {
        let before = used.insert(name, now);
        if let Some(before) = before {
            names.remove(&before);
        }
        names.insert(now, name);
        if names.len() > size
            && let Some((_, name)) = names.pop_first()
        {
            used.remove(&name);
        }
        before.is_some()
    };
    trace.iter().enumerate().map(&mut ask).collect()
}

/// Evicts the name that is asked again last, or does not store the new answer if that one is. No
/// cache can do better (L. A. Belady, IBM Systems Journal 5(2), 1966).
pub fn best(trace: &[u32], size: usize) -> Vec<bool> {
    let mut next = vec![usize::MAX; trace.len()];
    let mut seen = HashMap::new();
    for (at, name) in trace.iter().enumerate().rev() {
        if let Some(later) = seen.insert(name, at) {
            next[at] = later;
        }
    }
    // The stored names, each by the time at which it is asked again. That time identifies the name,
    // because the entry is not needed after it.
    let mut kept = BTreeSet::new();
    let mut ask = |now: usize| {
        let is_hit = kept.remove(&now);
        if next[now] < usize::MAX {
            kept.insert(next[now]);
        }
        if kept.len() > size {
            kept.pop_last();
        }
        is_hit
    };
    (0..trace.len()).map(&mut ask).collect()
}

const BYTES: usize = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_keeps_what_it_says() {
        let trace = [1, 2, 3, 1, 2, 3, 3];
        let hits = |policy: fn(&[u32], usize) -> Vec<bool>, size| {
            let hits = policy(&trace, size);
            hits.iter().map(|&hit| if hit { 'h' } else { '.' }).collect::<String>()
        };
        assert_eq!(hits(lru, 2), "......h");
        assert_eq!(hits(best, 2), "...hh.h");
        assert_eq!(hits(best, 1), "...h..h");
        for policy in [lru, best, dnscache] {
            assert_eq!(hits(policy, 100), "...hhhh");
        }
    }
}
