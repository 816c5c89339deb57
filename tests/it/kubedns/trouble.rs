//! Failures of the API server: kubedns keeps answering from its records, reports their age, and
//! never shows a partial change.

use std::time::Duration;

use super::{DB, Steady, WEB, shop, watching};
use crate::fixture::dns::{self, eventually};
use crate::fixture::http;
use crate::fixture::kubedns::start;
use tests::api_server::Fault;
use tests::objects::{endpoint_slice, namespace, service};

const ANSWER: &str = "web.shop.svc.cluster.local. 30 IN A 10.0.0.7";
const DB_ANSWER: &str = "db.shop.svc.cluster.local. 30 IN A 10.0.0.9";
/// The Extended DNS Error of a server that has not loaded its data (RFC 8914).
const NOT_READY: u16 = 14;

#[tokio::test]
async fn every_trouble_at_the_start_is_named_and_outlived() {
    let rows = [
        (Fault::Refuse(403, None), "must grant verbs [list, watch] on resources [services]"),
        (Fault::Refuse(429, Some(1)), "refuses: 429"),
        (Fault::Refuse(500, None), "refuses: 500"),
        (Fault::ResetAfter(0), "the connection broke"),
        (Fault::ResetAfter(1), "the connection broke"),
        (Fault::Silence, "nothing was heard for 1s"),
    ];
    let worlds = rows
        .iter()
        .flat_map(|&(fault, said)| [true, false].map(|streams| start_with(fault, said, streams)));
    futures_util::future::join_all(worlds).await;
}

async fn start_with(fault: Fault, said: &str, streams: bool) {
    let api = shop().await;
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    if !streams {
        api.does_not_stream();
    }
    api.fails("services", fault);
    let kubedns = watching(&api, &["--watch-silence", "1"]).await;
    let body = http::eventually(kubedns.http, "/readyz", 503, said).await;
    assert!(body.contains("[-]services failed: "), "{body}");
    http::eventually(kubedns.http, "/readyz", 503, "[+]endpointslices ok").await;
    for question in [WEB, DB, "nope.shop.svc.cluster.local. A"] {
        let answer = dns::ask(kubedns.dns, question).await;
        assert_eq!(answer.status, "SERVFAIL", "{fault:?}: {answer:?}");
        assert_eq!(answer.error.unwrap().0, NOT_READY);
    }
    api.heals("services");
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    kubedns.end().await;
}

#[tokio::test]
async fn an_api_server_that_is_away_at_the_start_is_waited_for() {
    let mut api = shop().await;
    api.kill().await;
    let kubedns = watching(&api, &[]).await;
    http::eventually(kubedns.http, "/readyz", 503, "cannot ask the API server").await;
    assert_eq!(http::get(kubedns.http, "/livez").await, (200, "ok".to_owned()));
    assert_eq!(dns::ask(kubedns.dns, WEB).await.status, "SERVFAIL");
    assert_eq!(dns::ask_tcp(kubedns.dns, WEB).await.status, "SERVFAIL");
    api.listen().await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn an_api_server_that_dies_is_outlived() {
    let mut api = shop().await;
    let kubedns = watching(&api, &[]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    let steady = Steady::start(kubedns.dns);
    api.kill().await;
    let old = "[!]services warning: ";
    let body = http::eventually(kubedns.http, "/readyz?verbose", 200, old).await;
    assert!(body.contains(" s old: "), "{body}");
    http::eventually(kubedns.http, "/metrics", 200, "watch_ok{kind=\"services\"").await;
    eventually(kubedns.dns, DB, "NXDOMAIN", &[]).await;
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    api.listen().await;
    eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]services ok").await;
    steady.held().await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_where_it_was() {
    let api = shop().await;
    let kubedns = watching(&api, &[]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    let (steady, before) = (Steady::start(kubedns.dns), api.requests().len());
    api.cut("services");
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
    let again = &api.requests()[before..];
    assert_eq!(again.len(), 1, "{again:#?}");
    assert!(!again[0].contains("sendInitialEvents"), "{again:#?}");
    steady.held().await;
    kubedns.end().await;
}

#[tokio::test]
async fn what_was_forgotten_is_listed_again_as_a_difference() {
    for streams in [true, false] {
        let api = shop().await;
        api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
        if !streams {
            api.does_not_stream();
        }
        let kubedns = watching(&api, &[]).await;
        eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
        let steady = Steady::start(kubedns.dns);
        // While the watch is down, an object is removed, another is added, and the history is
        // removed.
        api.fails("services", Fault::Refuse(503, None));
        api.cut("services");
        api.delete(service("shop", "db"));
        api.apply(service("shop", "new").cluster_ip("10.0.0.10"));
        api.forget();
        api.heals("services");
        eventually(kubedns.dns, DB, "NXDOMAIN", &[]).await;
        let answer = "new.shop.svc.cluster.local. 30 IN A 10.0.0.10";
        eventually(kubedns.dns, "new.shop.svc.cluster.local. A", "NOERROR", &[answer]).await;
        steady.held().await;
        kubedns.end().await;
    }
}

#[tokio::test]
async fn a_later_list_that_breaks_off_takes_nothing_away() {
    for streams in [true, false] {
        let api = shop().await;
        api.apply(service("shop", "a").cluster_ip("10.0.0.1"));
        api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
        if !streams {
            api.does_not_stream();
        }
        let kubedns = watching(&api, &[]).await;
        eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
        let (steady, before) = (Steady::start(kubedns.dns), api.requests().len());
        api.fails("services", Fault::ResetAfter(1));
        api.delete(service("shop", "db"));
        api.forget();
        api.cut("services");
        let list = if streams { "sendInitialEvents" } else { "limit=500" };
        api.hears(before, &["/services", list]).await;
        let again = api.requests().len();
        api.hears(again, &["/services", "limit=500"]).await; // the first request has failed
        api.heals("services");
        eventually(kubedns.dns, DB, "NXDOMAIN", &[]).await;
        steady.held().await;
        kubedns.end().await;
    }
}

#[tokio::test]
async fn a_server_that_answers_410_to_everything_is_not_hammered() {
    let api = shop().await;
    let kubedns = watching(&api, &[]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    let steady = Steady::start(kubedns.dns);
    api.does_not_stream();
    api.fails("services", Fault::Gone);
    api.cut("services");
    let before = api.requests().len();
    api.hears(before + 8, &["/services"]).await;
    let asked = api.requests().len() - before;
    assert!(asked < 60, "{asked} requests");
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
    api.heals("services");
    steady.held().await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_silent_watch_is_replaced() {
    let api = shop().await;
    let kubedns = watching(&api, &["--watch-silence", "1"]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    let steady = Steady::start(kubedns.dns);
    let before = api.requests().len();
    api.fails("services", Fault::Silence);
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    api.hears(before, &["/services", "resourceVersion="]).await;
    assert_eq!(dns::ask(kubedns.dns, DB).await.status, "NXDOMAIN");
    http::eventually(kubedns.http, "/readyz?verbose", 200, "nothing was heard for 1s").await;
    api.heals("services");
    eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
    steady.held().await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_slow_list_of_endpoints_shows_no_half_set() {
    let api = shop().await;
    api.apply(service("shop", "peers"));
    for slice in ["peers-1", "peers-2"] {
        let address = format!("10.1.0.{}", &slice[6..]);
        api.apply(endpoint_slice("shop", "peers").named(slice).ready(&address));
    }
    api.fails("endpointslices", Fault::ResetAfter(1));
    let kubedns = watching(&api, &[]).await;
    let question = "peers.shop.svc.cluster.local. A";
    http::eventually(kubedns.http, "/readyz", 503, "endpointslices failed: the connection").await;
    for _ in 0..20 {
        assert_eq!(dns::ask(kubedns.dns, question).await.status, "SERVFAIL");
    }
    api.heals("endpointslices");
    let answers = ["10.1.0.1", "10.1.0.2"]
        .map(|address| format!("peers.shop.svc.cluster.local. 30 IN A {address}"));
    loop {
        let answer = dns::ask(kubedns.dns, question).await;
        match answer.status.as_str() {
            "SERVFAIL" => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => break assert_eq!(answer.answers, answers),
        }
    }
    kubedns.end().await;
}

#[tokio::test]
async fn a_namespace_that_goes_with_a_thousand_services_leaves_nothing() {
    const LAST: &str = "s999.big.svc.cluster.local. A";
    let api = shop().await;
    let kubedns = watching(&api, &[]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    let (steady, before) = (Steady::start(kubedns.dns), held_records(kubedns.http).await);
    let thousand =
        || (0..1_000_u16).map(|at| (format!("s{at}"), format!("10.2.{}.{}", at / 250, at % 250)));
    for namespace_first in [true, false] {
        api.apply(namespace("big"));
        for (name, address) in thousand() {
            match address.ends_with('9') {
                true => api.apply(service("big", &name)), // it is headless
                false => api.apply(service("big", &name).cluster_ip(&address)),
            };
            api.apply(endpoint_slice("big", &name).host(&address, "only"));
        }
        let address = "s999.big.svc.cluster.local. 30 IN A 10.2.3.249";
        eventually(kubedns.dns, LAST, "NOERROR", &[address]).await;
        if namespace_first {
            api.delete(namespace("big"));
        }
        for (name, _) in thousand() {
            api.delete(endpoint_slice("big", &name));
            api.delete(service("big", &name));
        }
        if !namespace_first {
            api.delete(namespace("big"));
        }
        // First its address, then NODATA while only its slice is removed, then NXDOMAIN. It must
        // never go back.
        let mut seen = Vec::new();
        while seen.last().is_none_or(|status| status != "NXDOMAIN") {
            let answer = dns::ask(kubedns.dns, LAST).await;
            if seen.last() != Some(&answer.status) {
                seen.push(answer.status);
            }
        }
        let allowed = ["NOERROR", "NODATA", "NXDOMAIN"].map(str::to_owned);
        assert!(seen.is_sorted_by_key(|status| allowed.iter().position(|other| other == status)));
        assert!(seen.iter().all(|status| allowed.contains(status)), "{seen:?}");
        for gone in ["big.svc.cluster.local. A", "249.3.2.10.in-addr.arpa. PTR", LAST] {
            eventually(kubedns.dns, gone, "NXDOMAIN", &[]).await;
        }
        let no_slice = "kubedns_objects{kind=\"endpointslices\"} 0\n";
        http::eventually(kubedns.http, "/metrics", 200, no_slice).await;
        assert_eq!(held_records(kubedns.http).await, before);
    }
    steady.held().await;
    kubedns.end().await;
}

/// Returns the metrics that count objects and records.
async fn held_records(server: std::net::SocketAddr) -> Vec<String> {
    let counted = ["kubedns_objects{", "kubedns_services{", "kubedns_records{"];
    let metrics = http::get(server, "/metrics").await.1;
    let lines = metrics.lines().filter(|line| counted.iter().any(|name| line.starts_with(name)));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_new_token_is_used() {
    let api = shop().await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "old\n").unwrap();
    api.demands_token("old");
    let kubeconfig = api.kubeconfig(Some(token.path()));
    let kubedns = start(&["--kubeconfig", kubeconfig.path().to_str().unwrap()]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    std::fs::write(token.path(), " new \n").unwrap();
    api.demands_token("new");
    api.cut("services");
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_streamed_list_that_comes_to_nothing_is_listed_in_pages() {
    let refusals = [404, 405, 409, 410, 500, 502, 503, 504].map(Fault::RefuseStreams);
    let faults = refusals.into_iter().chain([
        Fault::EndStreams,
        Fault::UnfinishedStreams,
        Fault::NonsenseFrames,
    ]);
    let worlds = faults.map(|fault| async move {
        let api = shop().await;
        api.fails("services", fault);
        let kubedns = watching(&api, &["--watch-silence", "2"]).await;
        eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
        http::eventually(kubedns.http, "/readyz", 200, "ok").await;
        api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
        eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
        kubedns.end().await;
    });
    futures_util::future::join_all(worlds).await;
}

#[tokio::test]
async fn an_object_with_odd_metadata_costs_nothing_else() {
    for streams in [true, false] {
        let api = shop().await;
        if !streams {
            api.does_not_stream();
        }
        let odd = |name: &str| {
            let mut object = service("shop", name).cluster_ip("10.0.0.66");
            object.0["metadata"]["managedFields"] =
                serde_json::json!([{"manager": "m", "operation": "Update", "time": null}]);
            object
        };
        api.apply(odd("before"));
        let kubedns = watching(&api, &[]).await;
        http::eventually(kubedns.http, "/readyz", 200, "ok").await;
        api.apply(odd("after"));
        api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
        eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
        for name in ["before.shop.svc.cluster.local.", "after.shop.svc.cluster.local."] {
            let answer = format!("{name} 30 IN A 10.0.0.66");
            eventually(kubedns.dns, &format!("{name} A"), "NOERROR", &[&answer]).await;
        }
        kubedns.end().await;
    }
}

/// A server that has just started may not have loaded its roles yet.
#[tokio::test]
async fn a_watch_that_was_allowed_once_outlives_a_403() {
    let api = shop().await;
    let kubedns = watching(&api, &[]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    for plural in ["services", "servicecidrs"] {
        api.fails(plural, Fault::Refuse(403, None));
        api.cut(plural);
    }
    http::eventually(kubedns.http, "/readyz?verbose", 200, "refuses what it allowed before").await;
    for plural in ["services", "servicecidrs"] {
        api.heals(plural);
    }
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
    kubedns.end().await;
}

/// etcd that was restored from a backup: watches from kubedns's version are accepted, but send no
/// event about the differences.
#[tokio::test]
async fn an_api_server_that_goes_back_is_listed_anew() {
    let api = shop().await;
    let backup = api.backup();
    let kubedns = watching(&api, &[]).await;
    for last in 1..40 {
        api.apply(service("shop", "gone").cluster_ip(&format!("10.0.1.{last}")));
    }
    let gone = "gone.shop.svc.cluster.local. A";
    let last = "gone.shop.svc.cluster.local. 30 IN A 10.0.1.39";
    eventually(kubedns.dns, gone, "NOERROR", &[last]).await;
    api.restore(backup);
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    eventually(kubedns.dns, DB, "NOERROR", &[DB_ANSWER]).await;
    eventually(kubedns.dns, gone, "NXDOMAIN", &[]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &[ANSWER]).await;
    kubedns.end().await;
}
