//! The routes of names: aliases between routes, reverse names, loops, names for special use.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::*;
use crate::fixture::dns::PATIENCE;

/// Writes a key of a new configuration directory. Returns the directory and its flag.
fn configure(key: &str, text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(key), text).unwrap();
    let flag = format!("--config-dir={}", directory.path().display());
    (directory, flag)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_into_a_stub_domain_follows_its_route() {
    let (outside, corp) = (Upstream::start(FAR).await, Upstream::start(FARTHER).await);
    let (public, private) = ("x.db.example.net.", "x.private.db.example.net.");
    let alias = format!("{public} 300 CNAME {private}");
    corp.answer(&format!("{private} A"), &[&format!("{private} 300 A 10.0.0.5")]);
    let stubs = format!(r#"{{"private.db.example.net": ["{}"]}}"#, corp.address);
    let (_directory, configuration) = configure("stubDomains", &stubs);
    let whole = Records::new(&[&alias, &format!("{private} 300 A 203.0.113.5")]);
    let gone = Records::new(&[&alias]).code(hickory_proto::op::ResponseCode::NXDomain);
    for answer in [whole, gone, Records::new(&[&alias])] {
        outside.say(&format!("{public} A"), answer);
        let cache = Running::start(&[server(&outside), configuration.clone()]).await;
        for _ in 0..2 {
            let answer = cache.ask(&format!("{public} A")).await;
            assert_eq!((&*answer.status, address(&answer)), ("NOERROR", "10.0.0.5"), "{answer:?}");
            assert_eq!(answer.answers.len(), 2, "{answer:?}");
        }
        cache.stop().await;
    }
    assert_eq!(outside.asked(&format!("{private} A")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_outside_has_nothing_about_names_of_the_cluster() {
    let (outside, kubedns) = (Upstream::start(FAR).await, Upstream::start(NEAR).await);
    let web = "web.shop.svc.cluster.local.";
    kubedns.answer(&format!("{web} A"), &[&format!("{web} 30 A 10.96.0.7")]);
    let alias = format!("evil.example. 300 CNAME {web}");
    outside.answer("evil.example. A", &[&alias, &format!("{web} 300 A {EVIL}")]);
    let cache = Running::start(&[server(&outside), stub("cluster.local", &kubedns)]).await;
    for _ in 0..2 {
        let answer = cache.ask("evil.example. A").await;
        let all = format!("{answer:?}");
        assert!(!all.contains(EVIL) && !all.contains("10.96.0.7"), "{all}");
    }
    assert_eq!(address(&cache.ask(&format!("{web} A")).await), "10.96.0.7");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_of_a_name_for_special_use_is_answered_here() {
    let (outside, kubedns) = (sound(FAR).await, Upstream::start(NEAR).await);
    for (service, target) in [("onion", "x.onion."), ("local", "a.localhost.")] {
        let name = format!("{service}.shop.svc.cluster.local.");
        kubedns.answer(&format!("{name} A"), &[&format!("{name} 30 CNAME {target}")]);
    }
    let cache = Running::start(&[server(&outside), stub("cluster.local", &kubedns)]).await;
    for _ in 0..2 {
        let onion = cache.ask("onion.shop.svc.cluster.local. A").await;
        assert_eq!((&*onion.status, onion.answers.len()), ("NXDOMAIN", 1), "{onion:?}");
        let local = cache.ask("local.shop.svc.cluster.local. A").await;
        assert_eq!((&*local.status, address(&local)), ("NOERROR", "127.0.0.1"), "{local:?}");
    }
    assert_eq!(outside.count(""), outside.count("dnscache-loop."), "nothing leaves the pod");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stub_domain_for_a_reverse_zone_takes_no_address_of_the_cluster() {
    let (corp, kubedns) = (Upstream::start(FARTHER).await, Upstream::start(NEAR).await);
    let (ours, theirs) = ("7.0.96.10.in-addr.arpa. PTR", "8.8.8.10.in-addr.arpa. PTR");
    kubedns.answer(ours, &["7.0.96.10.in-addr.arpa. 30 PTR web.shop.svc.cluster.local."]);
    kubedns.tries(theirs, [Reply::Code(5)]);
    corp.answer(ours, &["7.0.96.10.in-addr.arpa. 30 PTR evil.corp.example."]);
    corp.answer(theirs, &["8.8.8.10.in-addr.arpa. 30 PTR host.corp.example."]);
    let stubs = format!(r#"{{"10.in-addr.arpa": ["{}"]}}"#, corp.address);
    let (_directory, configuration) = configure("stubDomains", &stubs);
    let flags = [stub("cluster.local", &kubedns), stub("in-addr.arpa", &kubedns), configuration];
    let cache = Running::start(&flags).await;
    let target = |answer: crate::fixture::dns::Answer| {
        answer.answers.first().and_then(|record| record.rsplit(' ').next().map(str::to_owned))
    };
    until("the stub domain", || async {
        target(cache.ask(theirs).await).as_deref() == Some("host.corp.example.")
    })
    .await;
    assert_eq!(target(cache.ask(ours).await).as_deref(), Some("web.shop.svc.cluster.local."));
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_reverse_names_do_not_depend_on_kubedns() {
    let (outside, kubedns) = (Upstream::start(FAR).await, Upstream::start(NEAR).await);
    let google = "8.8.8.8.in-addr.arpa. PTR";
    outside.answer(google, &["8.8.8.8.in-addr.arpa. 300 PTR dns.google."]);
    kubedns.close_udp();
    kubedns.manner(Manner { way: Way::Closes, ..Manner::default() });
    let flags = [server(&outside), stub("cluster.local", &kubedns), stub("in-addr.arpa", &kubedns)];
    let cache = Running::start(&flags).await;
    let answer = cache.ask(google).await;
    assert_eq!(answer.status, "NOERROR", "{answer:?}");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_upstreams_have_seen_disable_no_upstream() {
    let upstream = sound(FAR).await;
    let cache = Running::before(&[&upstream]).await;
    all_answered(&[cache.ask("a.example. A").await], "before");
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut number = 0;
    for _ in 0..3 {
        for seen in upstream.seen("") {
            client.send_to(&seen.message, cache.dns).await.unwrap();
        }
        number += 1;
        let answers = cache.ask_all(&names("n", &format!("r{number}.example."), 10)).await;
        all_answered(&answers, "after a client has sent every query that was seen");
        assert!(cache.is_up(&upstream).await);
    }
    cache.stop().await;
}

/// Starts a server that forwards its clients' queries to `target`, and sends the replies back.
async fn relay(target: Arc<Mutex<SocketAddr>>, count: Arc<AtomicUsize>) -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind((FAR, 0)).await.unwrap());
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4_096];
        loop {
            let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
            count.fetch_add(1, Ordering::Relaxed);
            let (query, to) = (buffer[..length].to_vec(), *target.lock().unwrap());
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                let onward = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                onward.connect(to).await.unwrap();
                let mut reply = vec![0; 4_096];
                if onward.send(&query).await.is_ok()
                    && let Ok(Ok(length)) = timeout(PATIENCE, onward.recv(&mut reply)).await
                {
                    socket.send_to(&reply[..length], peer).await.unwrap_or_default();
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_is_noticed_and_its_end_as_well() {
    let upstream = sound(FARTHER).await;
    let target = Arc::new(Mutex::new(upstream.address));
    let count = Arc::new(AtomicUsize::new(0));
    let relay = relay(Arc::clone(&target), Arc::clone(&count)).await;
    let flag = format!("--server={}#{}", relay.ip(), relay.port());
    let cache = Running::start(&[flag]).await;
    *target.lock().unwrap() = cache.dns;
    let mut number = 0;
    let up = format!("dnscache_upstream_up{{server=\"{relay}\"}}");
    until("the loop", || {
        number += 1;
        let (cache, up) = (&cache, &up);
        async move {
            let answer = cache.ask(&format!("n{number}.example. A")).await;
            assert_eq!(answer.status, "SERVFAIL", "{answer:?}");
            cache.metric(up).await == Some(0.0)
        }
    })
    .await;
    let before = count.load(Ordering::Relaxed);
    for question in names("m", "example.", 10) {
        assert_eq!(cache.ask(&question).await.status, "SERVFAIL");
    }
    let packets = count.load(Ordering::Relaxed) - before;
    assert!(packets <= 40, "{packets} for 10 questions");
    *target.lock().unwrap() = upstream.address;
    until("an answer", || {
        number += 1;
        let cache = &cache;
        async move { cache.ask(&format!("n{number}.example. A")).await.status == "NOERROR" }
    })
    .await;
    cache.stop().await;
}

/// Servers of another group are asked after kubedns has refused, while a try of the first group is
/// still running.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_goes_on_to_other_servers_ends_no_process() {
    let odd = [Forgery::Garbage, Forgery::Id, Forgery::NoQuestion, Forgery::TwoQuestions];
    for forgery in odd {
        let [one, two, outside] = [
            Upstream::start(FAR).await,
            Upstream::start(FARTHER).await,
            Upstream::start(FAR).await,
        ];
        one.over_udp(Reply::Code(5));
        two.over_udp(Reply::Each(vec![Reply::Forged(vec![forgery]), Reply::Code(5)]));
        two.over_tcp(Reply::After(Duration::from_millis(20), Reply::Code(5).into()));
        outside.delay(Duration::from_millis(40));
        let flags = [stub("in-addr.arpa", &one), stub("in-addr.arpa", &two), server(&outside)];
        let cache = Running::start(&flags).await;
        let reverse: Vec<String> =
            (1..=40).map(|last| format!("{last}.8.8.8.in-addr.arpa. PTR")).collect();
        cache.ask_all(&reverse).await;
        for question in &reverse {
            assert_ne!(cache.ask(question).await.status, "TIMEOUT", "{forgery:?}");
        }
        cache.stop().await; // panics if it has ended
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_for_special_use_and_of_the_cluster_do_not_leave_the_pod() {
    let (outside, kubedns) = (sound(FAR).await, Upstream::start(NEAR).await);
    let flags = [
        server(&outside),
        stub("cluster.local", &kubedns),
        stub("in-addr.arpa", &kubedns),
        stub("ip6.arpa", &kubedns),
    ];
    let cache = Running::start(&flags).await;
    let special = [
        "printer.local.",
        "local.",
        "x.alt.",
        "x.onion.",
        "x.invalid.",
        "x.localhost.",
        "resolver.arpa.",
        "_dns.resolver.arpa.",
        "service.arpa.",
        "default.service.arpa.",
        "6tisch.arpa.",
        "eap-noob.arpa.",
        "home.arpa.",
        "x.home.arpa.",
        "x.internal.cluster.local.",
        "web.shop.svc.cluster.local.",
        "www.example.com.shop.svc.cluster.local.",
        "www.example.com.svc.cluster.local.",
        "www.example.com.cluster.local.",
        "7.0.96.10.in-addr.arpa.",
        "1.0.168.192.in-addr.arpa.",
        "1.0.254.169.in-addr.arpa.",
        "b.e.f.ip6.arpa.",
        "1.0.0.0.d.f.ip6.arpa.",
    ];
    for name in special {
        for rtype in ["A", "AAAA", "PTR", "SOA", "SRV"] {
            let answer = cache.ask(&format!("{name} {rtype}")).await;
            assert_ne!(answer.status, "TIMEOUT", "{name} {rtype}");
            assert_eq!(outside.count(name), 0, "{name} {rtype} left the pod");
        }
    }
    cache.stop().await;
}
