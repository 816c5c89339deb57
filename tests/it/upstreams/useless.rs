//! Replies with the correct ID and question that cannot be used, and some that only look so.

use std::time::Duration;

use super::*;
use crate::fixture::dns;

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_cannot_be_used_fails_its_server_only() {
    each(Broken::ALL, |broken| async move {
        let (bad, good) = (Upstream::start(FAR).await, sound(FARTHER).await);
        bad.over_udp(Reply::Broken(broken));
        bad.over_tcp(Reply::Broken(broken));
        good.delay(Duration::from_millis(20));
        let cache = Running::before(&[&bad, &good]).await;
        for question in names("n", "example.", 10) {
            all_answered(&[cache.ask(&question).await], &format!("{broken:?}"));
        }
        assert_ne!(good.count("example."), 0);
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_cannot_be_used_is_a_failure_with_a_reason_if_there_is_no_other_server() {
    each(Broken::ALL, |broken| async move {
        let bad = Upstream::start(FAR).await;
        bad.over_udp(Reply::Broken(broken));
        bad.over_tcp(Reply::Broken(broken));
        let cache = Running::before(&[&bad]).await;
        let answer = cache.ask("a.example. A").await;
        assert_eq!(answer.status, "SERVFAIL", "{broken:?}: {answer:?}");
        assert_ne!(answer.error, None, "{broken:?}");
        bad.behave(Behaviour::Good);
        bad.otherwise("300 A 192.0.2.1");
        let after = cache.ask("b.example. A").await;
        all_answered(&[after], &format!("{broken:?}: the server is asked again"));
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_without_the_question_is_a_reply() {
    // A server that cannot parse OPT must be asked without OPT, over UDP and over TCP.
    for tcp in [false, true] {
        let upstream = sound(FAR).await;
        let refuses = Reply::ToEdns(Reply::Bare(1).into());
        if tcp {
            upstream.over_udp(Reply::Truncated);
            upstream.over_tcp(refuses);
        } else {
            upstream.over_udp(refuses);
        }
        let cache = Running::before(&[&upstream]).await;
        for question in names("n", "example.", 5) {
            all_answered(&[cache.ask(&question).await], &format!("over TCP: {tcp}"));
        }
        cache.stop().await;
    }
    // If it refuses or fails, the query ends at once, and the server does not count as down.
    for code in [2, 5] {
        let upstream = sound(FAR).await;
        upstream.over_udp(Reply::Bare(code));
        upstream.over_tcp(Reply::Bare(code));
        let cache = Running::before(&[&upstream]).await;
        for question in names("n", "example.", 5) {
            let answer = cache.ask(&question).await;
            assert!(["SERVFAIL", "REFUSED"].contains(&&*answer.status), "{code}: {answer:?}");
            assert_ne!(reason(&answer), 22, "it has answered: {answer:?}");
            assert_ne!(upstream.asked(&question), 0, "{code}: it is asked each time");
        }
        upstream.behave(Behaviour::Good);
        all_answered(&[cache.ask("a.example. A").await], "at once");
        cache.stop().await;
        // With a second server, the client gets an answer.
        let other = sound(FARTHER).await;
        upstream.over_udp(Reply::Bare(code));
        let cache = Running::before(&[&upstream, &other]).await;
        for question in names("m", "example.", 10) {
            all_answered(&[cache.ask(&question).await], "by the other");
        }
        cache.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_twelve_bits_of_a_response_code_count() {
    each([16, 23], |code| async move {
        let upstream = sound(FAR).await;
        upstream.over_udp(Reply::ToEdns(Reply::Code(code).into()));
        let cache = Running::before(&[&upstream]).await;
        for question in names("n", "example.", 3) {
            all_answered(&[dns::ask_plain(cache.dns, &question).await], "asked without EDNS");
        }
        cache.stop().await;
        upstream.over_udp(Reply::Code(code));
        upstream.over_tcp(Reply::Code(code));
        let cache = Running::before(&[&upstream]).await;
        assert_eq!(cache.ask("only.example. A").await.status, "SERVFAIL", "{code}");
        cache.stop().await;
        let other = sound(FARTHER).await;
        other.delay(Duration::from_millis(20));
        let cache = Running::before(&[&upstream, &other]).await;
        for question in names("m", "example.", 10) {
            all_answered(&[cache.ask(&question).await], "by the other");
        }
        cache.stop().await;
    })
    .await;
}

/// Codes 0 and 3 are answers. All others are failures of the server.
#[tokio::test(flavor = "multi_thread")]
async fn every_code_but_two_sends_the_question_to_the_next_server() {
    let codes = (1..=23).filter(|code| ![3].contains(code));
    each(codes, |code| async move {
        let (bad, good) = (Upstream::start(FAR).await, sound(FARTHER).await);
        bad.over_udp(Reply::Code(code));
        bad.over_tcp(Reply::Code(code));
        good.delay(Duration::from_millis(10));
        let cache = Running::before(&[&bad, &good]).await;
        for question in names("n", "example.", 3) {
            all_answered(&[cache.ask(&question).await], &format!("code {code}"));
        }
        cache.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodata_with_name_servers_and_without_a_soa_is_nodata() {
    let servers = ["example.net. 300 NS ns1.example.net."];
    let upstream = Upstream::start(FAR).await;
    upstream.say("a.example.net. AAAA", Records::new(&[]).authorities(&servers));
    upstream
        .say("b.example.net. AAAA", Records::new(&[]).authorities(&servers).without_recursion());
    let cache = Running::before(&[&upstream]).await;
    for asked in 1..=2 {
        assert_eq!(cache.ask("a.example.net. AAAA").await.status, "NODATA");
        assert_eq!(upstream.asked("a.example.net. AAAA"), asked, "it is not kept");
    }
    assert_eq!(cache.ask("b.example.net. AAAA").await.status, "SERVFAIL", "a referral");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dname_without_its_cname_is_completed() {
    let upstream = Upstream::start(FAR).await;
    let records = ["old.example. 300 DNAME new.example.", "www.new.example. 300 A 192.0.2.1"];
    upstream.answer("www.old.example. A", &records);
    let cache = Running::before(&[&upstream]).await;
    for _ in 0..2 {
        let answer = cache.ask("www.old.example. A").await;
        assert_eq!(address(&answer), "192.0.2.1", "{answer:?}");
        let alias = answer.answers.iter().find(|record| record.contains(" CNAME "));
        let alias = alias.unwrap_or_else(|| panic!("{answer:?}"));
        assert!(alias.starts_with("www.old.example. ") && alias.ends_with(" www.new.example."));
    }
    assert_eq!(upstream.asked("www.old.example. A"), 1);
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_of_aliases_have_an_end() {
    let upstream = Upstream::start(FAR).await;
    let chain = |links: usize| {
        let name = |at: usize| format!("l{at}.c{links}.example.");
        let link = |at: usize| format!("{} 300 CNAME {}", name(at), name(at + 1));
        let records: Vec<String> =
            (0..links).map(link).chain([format!("{} 300 A 192.0.2.1", name(links))]).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let question = format!("{} A", name(0));
        upstream.answer(&question, &records);
        question
    };
    let (short, long) = (chain(8), chain(40));
    upstream.answer("self.example. A", &["self.example. 300 CNAME self.example."]);
    let cache = Running::before(&[&upstream]).await;
    let answer = cache.ask(&short).await;
    assert_eq!((address(&answer), answer.answers.len()), ("192.0.2.1", 9));
    for (what, question) in [("40 links", &*long), ("a circle", "self.example. A")] {
        let answer = cache.ask(question).await;
        assert_eq!(answer.status, "SERVFAIL", "{what}: {answer:?}");
        assert_ne!(answer.error, None, "{what}");
    }
    cache.stop().await;
}

/// Records that a client must not get, and that must not appear at other names later.
#[tokio::test(flavor = "multi_thread")]
async fn records_beside_the_way_to_the_answer_are_left_out() {
    let evil = format!("victim.example. 3600 A {EVIL}");
    let evil = evil.as_str();
    let truth = "a.example. 300 A 192.0.2.1";
    let alias = ["a.example. 300 CNAME b.example.", "b.example. 300 A 192.0.2.1"];
    let (ns, glue) = ("example. 3600 NS ns.evil.example.", format!("ns.evil.example. 60 A {EVIL}"));
    let behind = "c.example. 300 CNAME victim.example.";
    let above = format!("example. 3600 A {EVIL}");
    let below = format!("x.a.example. 3600 A {EVIL}");
    let rows = [
        ("in the answer, behind", Records::new(&[truth, evil])),
        ("in the answer, before", Records::new(&[evil, truth])),
        ("in authority", Records::new(&[truth]).authorities(&[evil])),
        ("in additional", Records::new(&[truth]).additionals(&[evil])),
        ("name servers with glue", Records::new(&[truth]).authorities(&[ns]).additionals(&[&glue])),
        ("an alias of the victim", Records::new(&[truth, "victim.example. 60 CNAME a.example."])),
        ("a second chain", Records::new(&[alias[0], alias[1], behind, evil])),
        ("another type", Records::new(&[truth, "victim.example. 60 TXT evil"])),
        ("a zone above", Records::new(&[truth, &above])),
        ("a name below", Records::new(&[truth, &below])),
        ("DNAME", Records::new(&[truth, "example. 3600 DNAME evil.example."])),
    ];
    let victims = ["victim.example. A", "ns.evil.example. A", "example. A", "x.a.example. A"];
    each(rows, |(what, answer)| async move {
        let upstream = sound(FAR).await;
        upstream.say("a.example. A", answer);
        let cache = Running::before(&[&upstream]).await;
        let answer = cache.ask("a.example. A").await;
        assert_eq!(address(&answer), "192.0.2.1", "{what}");
        let all = format!("{answer:?}");
        assert!(!all.contains(EVIL) && !all.contains("victim"), "{what}: {all}");
        for victim in victims {
            all_answered(&[cache.ask(victim).await], what);
            assert_eq!(upstream.asked(victim), 1, "{what}: {victim} is asked");
        }
        cache.stop().await;
    })
    .await;
}

/// 64 KB of records whose owners are pointers to one long name.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_crafted_reply_keeps_no_other_question_waiting() {
    let (crafted, good) = (Upstream::start(FAR).await, sound(FARTHER).await);
    // TXT with one character at a name of 110 labels, 4,000 times.
    let question_len = "n0.crafted.example. A".len() as u16 - 1 + 4;
    let owner: Vec<u8> = [[1, b'a']; 110].concat().into_iter().chain([0]).collect();
    let data = [0, 16, 0, 1, 0, 0, 1, 0, 0, 2, 1, b'x'];
    let pointer = (0xc000 | (12 + question_len)).to_be_bytes();
    let mut records = [&owner[..], &data].concat();
    for _ in 1..4_000 {
        records.extend([&pointer[..], &data].concat());
    }
    crafted.over_udp(Reply::Truncated);
    crafted.over_tcp(Reply::Raw { answers: 4_000, records });
    let cache = Running::start(&[stub("crafted.example", &crafted), server(&good)]).await;
    let crafted_names = names("n", "crafted.example.", 10);
    let other_names = names("n", "example.", 100);
    let (crafted_answers, answers) =
        tokio::join!(cache.ask_all(&crafted_names), cache.ask_all(&other_names));
    all_answered(&answers, "the others");
    // The reply does not answer the question.
    for answer in crafted_answers {
        assert!(["SERVFAIL", "NODATA"].contains(&&*answer.status), "{answer:?}");
    }
    cache.stop().await;
}
