//! Rules of the operator: the answers for clients, the queries to upstreams, and the effect of a
//! change.

mod autopath;
mod hosts;
mod rewrite;
mod zones;

use std::time::Instant;

use super::Running;
use crate::fixture::dns::{self, Answer, PATIENCE};

/// Asks until the answer is `status` with these `records`, whose TTLs may be lower by up to a
/// minute. Returns the last answer.
async fn eventually(cache: &Running, question: &str, status: &str, records: &[&str]) -> Answer {
    let start = Instant::now();
    loop {
        let last = dns::ask(cache.dns, question).await;
        let (found, expected) = (sorted(last.answers.iter()), sorted(records.iter()));
        let is_same = found.len() == expected.len() && found.iter().zip(&expected).all(is_same);
        if last.status == status && is_same {
            return last;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{question} should be {status} {records:#?}, is {last:#?}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Returns whether the records are the same, and the TTL of the first is at most a minute lower.
fn is_same(
    ((name, rest, ttl), expected): (&(String, String, u32), &(String, String, u32)),
) -> bool {
    (name, rest) == (&expected.0, &expected.1) && (ttl..=&(ttl + 60)).contains(&&expected.2)
}

/// Returns name, type with data, and TTL of each record, sorted.
fn sorted(records: impl Iterator<Item = impl AsRef<str>>) -> Vec<(String, String, u32)> {
    let split = |text: &str| {
        let mut words = text.splitn(3, ' ').map(str::to_owned);
        let (name, ttl, rest) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let rest = rest.strip_prefix("IN ").unwrap_or(&rest).to_owned();
        (name, rest, ttl.parse().unwrap())
    };
    let mut records: Vec<_> = records.map(|record| split(record.as_ref())).collect();
    records.sort();
    records
}
