//! `cargo load` as a process: its report about a server that fails for some names, and the
//! upstreams that it compares.
//!
//! The tests use only its command line, its output and its exit code.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tests::upstream::{Reply, Upstream};

use crate::fixture::dnscache::{FAR, Running, server};

async fn load(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args(arguments).stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stdout, stderr } = run.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_named_and_a_picture_is_drawn() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("good.example. A", &["good.example. 300 A 10.0.0.1"]);
    upstream.tries("bad.example. A", [Reply::Code(2)]);
    let cache = Running::start(&[server(&upstream)]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("questions");
    std::fs::write(&file, "good.example A\nbad.example A\n").unwrap();
    let (address, file) = (cache.dns.to_string(), file.display().to_string());
    let flags = ["--server", &address, "--file", &file, "--seconds", "2", "--rate", "500"];
    let (code, _, said) = load(&flags).await;
    assert_eq!((code, &*said), (Some(2), "error: --file is only read with --workload file\n"));

    let flags = [&flags[..], &["--workload", "file"]].concat();
    let (code, summary, said) = load(&flags).await;
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "\nfailed      SERVFAIL ",
        " %, such as bad.example A: the server got no answer from its upstream",
        "\nhit rate    ",
        "\nanswers/s   ",
        "  top 100 %\n",
        " us  █",
    ] {
        assert!(summary.contains(part), "{part:?} is missing in {summary}");
    }
    let (_, json, _) = load(&[&flags[..], &["--json"]].concat()).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["rcodes"]["SERVFAIL"].as_u64().unwrap() > 0, "{json}");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn misses_are_compared_at_an_upstream_in_the_pod_and_at_one_outside() {
    let flags = ["compare", "--work", "miss,miss-outside", "--servers", "dnscache", "--json"];
    let (code, json, said) =
        load(&[&flags[..], &["--rounds", "1", "--seconds", "1"]].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    let json: Value = serde_json::from_str(&json).unwrap();
    let of_dnscache = json["measured"].as_array().unwrap().iter();
    let of_dnscache: Vec<&Value> =
        of_dnscache.filter(|measured| measured["server"] == "dnscache").collect();
    let works: Vec<&str> = of_dnscache.iter().map(|of| of["work"].as_str().unwrap()).collect();
    assert_eq!(works, ["miss, upstream in the pod", "miss, upstream outside"], "{json}");
    for measured in of_dnscache {
        let rate = measured["rounds"][0]["answers_per_second"].as_f64();
        assert!(rate.is_some_and(|rate| rate > 0.0), "{measured}: {said}");
    }
}
