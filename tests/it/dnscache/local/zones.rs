//! Zone files.

use super::eventually;
use super::hosts::write;
use crate::dnscache::{FAR, Running, server};
use crate::fixture::http;
use crate::fixture::upstream::Upstream;

const SOA: &str = "@ 300 IN SOA ns mail 7 60 60 60 30\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_file_is_answered_and_followed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("corp.zone");
    let text = "web 60 A 10.0.0.1\n*.wild 60 A 10.0.0.2\nout 60 CNAME www.example.\n";
    write(&file, &format!("{SOA}{text}"));
    let outside = Upstream::start(FAR).await;
    outside.answer("www.example. A", &["www.example. 300 A 10.1.0.1"]);
    let flags = [server(&outside), format!("--zone-file=corp.example={}", file.display())];
    let cache = Running::start(&flags).await;
    let rows: [(&str, &str, &[&str]); 6] = [
        ("web.corp.example. A", "NOERROR", &["web.corp.example. 60 A 10.0.0.1"]),
        ("web.corp.example. AAAA", "NODATA", &[]),
        ("any.wild.corp.example. A", "NOERROR", &["any.wild.corp.example. 60 A 10.0.0.2"]),
        ("none.corp.example. A", "NXDOMAIN", &[]),
        (
            "out.corp.example. A",
            "NOERROR",
            &["out.corp.example. 60 CNAME www.example.", "www.example. 300 A 10.1.0.1"],
        ),
        ("www.example. A", "NOERROR", &["www.example. 300 A 10.1.0.1"]),
    ];
    for _ in 0..2 {
        for (question, status, answers) in rows {
            let answer = eventually(&cache, question, status, answers).await;
            let is_denied = answers.is_empty();
            assert_eq!(answer.authorities.len(), usize::from(is_denied), "{answer:?}");
        }
    }
    assert_eq!((outside.seen("corp.example.").len(), outside.asked("www.example. A")), (0, 1));
    write(&file, &format!("{SOA}web 60 A 10.0.0.9\n"));
    let web = ["web.corp.example. 60 A 10.0.0.9"];
    eventually(&cache, "web.corp.example. A", "NOERROR", &web).await;
    eventually(&cache, "any.wild.corp.example. A", "NXDOMAIN", &[]).await;
    write(&file, &format!("{SOA}web 60 A nonsense\n"));
    http::eventually(cache.http, "/readyz?verbose", 200, "line 2: ").await;
    http::eventually(cache.http, "/metrics", 200, "dnscache_zone_files_refused 1").await;
    eventually(&cache, "web.corp.example. A", "NOERROR", &web).await;
    write(&file, &format!("{SOA}new 60 A 10.0.0.3\n"));
    let new = ["new.corp.example. 60 A 10.0.0.3"];
    eventually(&cache, "new.corp.example. A", "NOERROR", &new).await;
    http::eventually(cache.http, "/readyz?verbose", 200, "[+]zone-files ok").await;
    cache.stop().await;
}
