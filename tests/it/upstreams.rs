//! dnscache with failing upstreams: a whole dnscache between clients and scripted servers, on
//! loopback.
//!
//! The tests use only what clients and upstreams can see. They check the outcome, the order and the
//! number of queries. `cargo load upstreams` measures times.
//!
//! ```text
//! stored   what is kept, for how long        forged   datagrams that are not the reply
//! servers  which server is asked             useless  replies that are of no use
//! slow     late, lost and missing replies    streams  TCP
//! routes   whose names go where              crowds   many clients, many names
//! outage   everything down, and back
//! ```

mod crowds;
mod forged;
mod outage;
mod routes;
mod servers;
mod slow;
mod stored;
mod streams;
mod useless;

use std::future::Future;

use crate::fixture::changes::{accept, send};
use crate::fixture::dns::Answer;
use crate::fixture::dnscache::{FAR, FARTHER, NEAR, Running, server, stub, until};
use crate::fixture::upstream::{
    Answer as Records, Behaviour, Broken, EVIL, Forgery, Loss, Manner, Reply, Upstream, Way,
};

/// Returns the data of the only A record in `answer`. It is empty if there is no A record.
fn address(answer: &Answer) -> &str {
    let record = answer.answers.iter().find(|record| record.contains(" A "));
    record.and_then(|record| record.rsplit(' ').next()).unwrap_or_default()
}

/// Returns the code of the Extended DNS Error, or 0 if the answer does not have one.
fn reason(answer: &Answer) -> u16 {
    answer.error.as_ref().map_or(0, |(code, _)| *code)
}

/// Returns the remaining TTL of the first record in `answer`.
fn ttl(answer: &Answer) -> u32 {
    answer.answers[0].split(' ').nth(1).unwrap().parse().unwrap()
}

/// Returns `name0.ZONE A`, `name1.ZONE A` and so on.
fn names(name: &str, zone: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}{number}.{zone} A")).collect()
}

/// Starts an upstream at `address` that has an A record for every name.
async fn sound(address: &str) -> Upstream {
    let upstream = Upstream::start(address).await;
    upstream.otherwise("300 A 192.0.2.1");
    upstream
}

/// Checks that each of `answers` has an address, which must not be the forged one.
#[track_caller]
fn all_answered(answers: &[Answer], what: &str) {
    for answer in answers {
        assert_eq!(answer.status, "NOERROR", "{what}: {answer:?}");
        assert_ne!(address(answer), EVIL, "{what}");
    }
}

/// Returns how many questions there were over UDP. A repeated datagram with the same port, ID and
/// question is the same question.
fn questions(upstream: &Upstream, suffix: &str) -> usize {
    let seen = upstream.seen(suffix);
    let udp = seen.iter().filter(|seen| !seen.tcp);
    let mut questions: Vec<_> = udp.map(|seen| (seen.peer, &seen.message)).collect();
    questions.sort();
    questions.dedup();
    questions.len()
}

/// A dnscache with a kubedns whose changes the test sends.
struct Cluster {
    kubedns: Upstream,
    cache: Running,
    stream: tokio::net::TcpStream,
    listener: tokio::net::TcpListener,
    generation: u64,
}

impl Cluster {
    /// Starts both, with these additional flags, and waits until the stream runs.
    async fn start(flags: &[String]) -> Self {
        let kubedns = Upstream::start(NEAR).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let changes = format!("--changes=http://{}/changes", listener.local_addr().unwrap());
        let own = [stub("cluster.local", &kubedns), changes];
        let cache = Running::start(&[flags, &own].concat()).await;
        let (mut stream, _) = accept(&listener).await;
        send(&mut stream, "{\"generation\":1}\n").await;
        let mut cluster = Self { kubedns, cache, stream, listener, generation: 1 };
        // The first may be applied before dnscache reads the line that opens the stream. The second
        // cannot.
        cluster.change(&[]).await;
        cluster.change(&[]).await;
        cluster
    }

    /// Replaces the records of `name` by one address.
    fn set(&self, name: &str, address: &str) {
        self.kubedns.answer(&format!("{name} A"), &[&format!("{name} 300 A {address}")]);
    }

    /// Sends that `names` have changed, and waits until dnscache has applied it.
    async fn change(&mut self, names: &[&str]) {
        self.generation += 1;
        let generation = self.generation;
        let marker = format!("marker{generation}.shop.svc.cluster.local.");
        let question = format!("{marker} A");
        self.set(&marker, "10.9.0.1");
        assert_eq!(address(&self.cache.ask(&question).await), "10.9.0.1");
        self.set(&marker, "10.9.0.2");
        let names: Vec<String> =
            names.iter().chain([&&*marker]).map(|name| format!("\"{name}\"")).collect();
        let names = names.join(",");
        let line = format!("{{\"generation\":{generation},\"names\":[{names}]}}\n");
        send(&mut self.stream, &line).await;
        until("the change", || async { address(&self.cache.ask(&question).await) == "10.9.0.2" })
            .await;
    }
}

/// Runs `check` for each row at the same time.
async fn each<R, F>(rows: impl IntoIterator<Item = R>, check: impl Fn(R) -> F)
where
    F: Future<Output = ()>,
{
    futures_util::future::join_all(rows.into_iter().map(check)).await;
}
