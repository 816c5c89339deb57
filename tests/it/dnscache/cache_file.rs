//! The file of the cache: what the next dnscache answers from it, and which files it does not use.

use std::path::{Path, PathBuf};

use shared::saved::frame::{Frame, Sink};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::fixture::log;

const WEB: &str = "web.example. A";
const SHOP: &str = "web.shop.svc.cluster.local. A";
const FRAME: Frame = Frame { magic: "dnscache cache", version: 1 };

/// A directory, and the path of a file in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    (directory, path)
}

fn flag(path: &Path) -> String {
    format!("--cache-file={}", path.display())
}

async fn has_entries(cache: &Running, count: f64) {
    let has = || async { cache.metric("dnscache_cache_entries").await == Some(count) };
    until("the entries are there", has).await;
}

/// Returns the lines of the log about `path` that contain `part`.
fn logged(path: &Path, part: &str) -> usize {
    let lines = log::lines(&path.display().to_string());
    lines.iter().filter(|line| line.contains(part)).count()
}

/// An upstream that answers WEB, and the flags of a dnscache that asks it and uses a file.
async fn outside(path: &Path) -> (Upstream, Vec<String>) {
    let upstream = Upstream::start(FAR).await;
    upstream.answer(WEB, &["web.example. 300 A 192.0.2.1"]);
    let flags = vec![server(&upstream), flag(path)];
    (upstream, flags)
}

/// Writes the file of a dnscache that was asked for WEB.
async fn write(upstream: &Upstream, flags: &[String]) {
    let cache = Running::start(flags).await;
    assert_eq!(cache.ask(WEB).await.status, "NOERROR");
    cache.stop().await;
    upstream.forget();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_start_answers_from_the_file() {
    let (directory, path) = place();
    let (upstream, flags) = outside(&path).await;
    let cache = Running::start(&flags).await;
    let (first, denial) = (cache.ask(WEB).await, cache.ask("absent.example. A").await);
    cache.stop().await;
    upstream.forget();
    for _ in 0..2 {
        let cache = Running::start(&flags).await;
        has_entries(&cache, 2.0).await;
        let (again, absent) = (cache.ask(WEB).await, cache.ask("absent.example. A").await);
        let address =
            |answer: &dns::Answer| answer.answers[0].rsplit(' ').next().unwrap().to_owned();
        assert_eq!(address(&again), address(&first));
        assert_eq!((&absent.status, absent.authorities.len()), (&denial.status, 1));
        assert_eq!((upstream.asked(WEB), upstream.asked("absent.example. A")), (0, 0));
        cache.stop().await;
    }
    let files = std::fs::read_dir(directory.path()).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["cache"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_is_named_once_and_changes_nothing() {
    log::keep();
    let (_directory, path) = place();
    let (upstream, flags) = outside(&path).await;
    write(&upstream, &flags).await;
    let good = std::fs::read(&path).unwrap();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    let content = FRAME.open(&good).unwrap();
    let framed = |frame: &Frame, content: &[u8]| {
        let mut file = Vec::new();
        let mut sink = Sink::new(frame, &mut file);
        sink.piece.extend_from_slice(content);
        sink.finish().unwrap();
        file
    };
    // Both clocks stand behind the checksum of the flags.
    let written =
        |unix_ms: u64| [&content[..4], &unix_ms.to_be_bytes(), &[0; 8], &content[20..]].concat();
    let rows: [(Vec<u8>, &[&str], &str); 8] = [
        (good[..good.len() / 2].to_vec(), &[], "truncated or damaged"),
        (damaged, &[], "truncated or damaged"),
        (b"precious".to_vec(), &[], "it is not a dnscache cache"),
        (framed(&Frame { version: 9, ..FRAME }, content), &[], "it has format 9"),
        (framed(&FRAME, &[content, &[7]].concat()), &[], "makes no sense"),
        (framed(&FRAME, &written(1_700_000_000_000)), &[], "it is older than 24 h"),
        (framed(&FRAME, &written(u64::MAX)), &[], "after the current time"),
        (good.clone(), &["--max-ttl=100"], "other servers or limits of TTLs"),
    ];
    for (number, (file, more, reason)) in rows.into_iter().enumerate() {
        let path = path.with_file_name(format!("cache-{number}"));
        std::fs::write(&path, file).unwrap();
        let more = more.iter().map(|&flag| flag.to_owned());
        let flags: Vec<String> = [server(&upstream), flag(&path)].into_iter().chain(more).collect();
        let cache = Running::start(&flags).await;
        until(reason, || async { logged(&path, reason) == 1 }).await;
        assert_eq!(logged(&path, "not used"), 1);
        assert_eq!(cache.ask(WEB).await.status, "NOERROR");
        cache.stop().await;
        assert_eq!(logged(&path, "cache file written"), 1, "it is replaced at the end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_is_named_and_the_program_ends_as_ever() {
    log::keep();
    let (directory, _) = place();
    let path = directory.path().join("missing/cache");
    let (_upstream, flags) = outside(&path).await;
    let cache = Running::start(&flags).await;
    until("no file", || async { logged(&path, "no cache file yet") == 1 }).await;
    assert_eq!(cache.ask(WEB).await.status, "NOERROR");
    cache.stop().await;
    assert_eq!(logged(&path, "is not written"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_cluster_are_used_if_kubedns_reports_the_same_generation() {
    let (_directory, path) = place();
    let kubedns = Upstream::start(NEAR).await;
    kubedns.answer(SHOP, &["web.shop.svc.cluster.local. 3600 A 10.0.0.1"]);
    let stream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("--changes=http://{}/changes", stream.local_addr().unwrap());
    let flags = [stub("cluster.local", &kubedns), url, flag(&path)];
    let follow = async |cache: &Running, generation: u64| {
        let (mut connection, _) = accept(&stream).await;
        send(&mut connection, &format!("{{\"generation\":{generation}}}\n")).await;
        let is_up = || async { cache.metric("dnscache_change_streams_up").await == Some(1.0) };
        until("the changes are followed", is_up).await;
        connection
    };
    let cache = Running::start(&flags).await;
    let connection = follow(&cache, 7).await;
    assert_eq!(cache.ask(SHOP).await.status, "NOERROR");
    cache.stop().await;
    drop(connection);
    let saved = std::fs::read(&path).unwrap();
    for (generation, is_used) in [(7, true), (8, false)] {
        std::fs::write(&path, &saved).unwrap();
        kubedns.forget();
        let cache = Running::start(&flags).await;
        has_entries(&cache, 1.0).await;
        let connection = follow(&cache, generation).await;
        // An expired answer is asked for again.
        let is_settled = || async {
            cache.ask(SHOP).await;
            let hits = cache.figure("hits").await;
            if is_used { hits > 0 } else { kubedns.asked(SHOP) == 1 }
        };
        until("the entry is used, or replaced", is_settled).await;
        let answer = cache.ask(SHOP).await;
        assert_eq!(answer.status, "NOERROR", "{generation}");
        drop(connection);
        cache.stop().await;
    }
    // kubedns is gone: clients get the expired answer.
    std::fs::write(&path, &saved).unwrap();
    kubedns.close_udp();
    let cache = Running::start(&flags).await;
    has_entries(&cache, 1.0).await;
    let answer = cache.ask(SHOP).await;
    assert_eq!((answer.status.as_str(), answer.error.map(|(code, _)| code)), ("NOERROR", Some(3)));
    cache.stop().await;
}
