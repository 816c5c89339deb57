//! Many clients with one question, and many questions about one zone.

use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::*;
use crate::fixture::dns;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_clients_with_one_question_are_all_answered_by_one_query() {
    let upstream = sound(FAR).await;
    upstream.delay(Duration::from_millis(200));
    let cache = Running::before(&[&upstream]).await;
    let answers = cache.ask_all(&vec!["cold.example. A".to_owned(); 10_000]).await;
    all_answered(&answers, "one of 10,000");
    assert_eq!(questions(&upstream, "cold.example."), 1);
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_wait_when_an_entry_expires_cost_one_query() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("a.example. A", &["a.example. 1 A 192.0.2.1"]);
    let cache = Running::before(&[&upstream]).await;
    assert_eq!(cache.ask("a.example. A").await.status, "NOERROR");
    upstream.delay(Duration::from_millis(150));
    upstream.answer("a.example. A", &["a.example. 60 A 192.0.2.2"]);
    let crowd = vec!["a.example. A".to_owned(); 2_000];
    until("the new answer", || async {
        let answers = cache.ask_all(&crowd).await;
        all_answered(&answers, "one of 2,000");
        answers.iter().all(|answer| address(answer) == "192.0.2.2")
    })
    .await;
    assert_eq!(questions(&upstream, "a.example."), 2);
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_names_of_one_zone_reach_its_servers_in_part() {
    let upstream = Upstream::start(FAR).await; // it denies every name
    upstream.delay(Duration::from_millis(50));
    let cache = Running::before(&[&upstream]).await;
    for question in names("n", "good.example.", 20) {
        let name = question.split(' ').next().unwrap();
        upstream.answer(&question, &[&format!("{name} 300 A 192.0.2.1")]);
    }
    let mut clients = Vec::new();
    for number in 1..=40 {
        let socket = UdpSocket::bind(format!("127.0.1.{number}:0")).await.unwrap();
        socket.connect(cache.dns).await.unwrap();
        clients.push(socket);
    }
    let start = Instant::now();
    for number in 0..6_000_usize {
        let query = dns::query(&format!("r{number}x.flooded.test.net. A"), None);
        clients[number % clients.len()].send(&query).await.unwrap_or_default();
        if number % 300 == 299 {
            // Another client must be answered meanwhile.
            let question = format!("n{}.good.example. A", number / 300);
            all_answered(&[cache.ask(&question).await], "the good client");
        }
    }
    let (took, asked) = (start.elapsed().as_secs_f64(), upstream.count("flooded.test.net."));
    let most = 1_000.0 * (1.0 + took);
    assert!((asked as f64) <= most, "{asked} queries within {took:.2} s");
    assert_ne!(asked, 0, "some pass");
    cache.stop().await;
}
