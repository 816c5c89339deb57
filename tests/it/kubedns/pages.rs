//! The pages of kubedns other than health: the stream of changed names, and metrics.

use serde_json::Value;

use super::{DB, WEB, shop, watching};
use crate::fixture::dns::{ask_tcp, eventually};
use crate::fixture::http::{self, Lines};
use tests::objects::{endpoint_slice, service};

async fn next(lines: &mut Lines) -> Value {
    serde_json::from_str(&lines.next().await.expect("a line")).expect("JSON")
}

#[tokio::test]
async fn changed_names_are_told_and_told_again() {
    let api = shop().await;
    let kubedns = watching(&api, &[]).await;
    eventually(kubedns.dns, WEB, "NOERROR", &["web.shop.svc.cluster.local. 30 IN A 10.0.0.7"])
        .await;
    let mut lines = http::lines(kubedns.http, "/changes").await;
    let first = next(&mut lines).await;
    assert_eq!(first["flush"], true, "who has read nothing knows nothing");
    let start = first["generation"].as_u64().unwrap();
    api.apply(service("shop", "db").cluster_ip("10.0.0.9"));
    let told = next(&mut lines).await;
    assert_eq!(told["generation"], start + 1);
    let names = told["names"].as_array().unwrap();
    assert!(names.contains(&"db.shop.svc.cluster.local.".into()), "{told}");
    assert!(names.contains(&"9.0.0.10.in-addr.arpa.".into()), "{told}");
    assert!(!names.contains(&"web.shop.svc.cluster.local.".into()), "{told}");
    // The answer must change before the name is sent.
    let answer = "db.shop.svc.cluster.local. 30 IN A 10.0.0.9";
    assert_eq!(crate::fixture::dns::ask(kubedns.dns, DB).await.answers, [answer]);
    drop(lines);

    let mut again = http::lines(kubedns.http, &format!("/changes?since={start}")).await;
    assert_eq!(next(&mut again).await, serde_json::json!({"generation": start}));
    assert_eq!(next(&mut again).await, told);
    let mut stranger = http::lines(kubedns.http, "/changes?since=17").await;
    let line = next(&mut stranger).await;
    assert_eq!((&line["flush"], &line["generation"]), (&true.into(), &told["generation"]));
    assert_eq!(http::get(kubedns.http, "/changes?since=x").await.0, 400);
    kubedns.end().await;
    assert_eq!(again.next().await, None, "the stream ends with the program");
}

#[tokio::test]
async fn metrics_tell_what_is_known_and_how_fresh_it_is() {
    let api = shop().await;
    let kubedns = watching(&api, &[]).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    eventually(kubedns.dns, DB, "NXDOMAIN", &[]).await;
    ask_tcp(kubedns.dns, DB).await;
    let metrics = http::get(kubedns.http, "/metrics").await.1;
    for line in [
        "kubedns_objects{kind=\"services\"} 1\n",
        "kubedns_objects{kind=\"namespaces\"} 1\n",
        "kubedns_ready 1\n",
        "kubedns_services{kind=\"cluster_ip\"} 1\n",
        "kubedns_services{kind=\"headless\"} 0\n",
        "kubedns_records{type=\"A\"} 1\n",
        "kubedns_records{type=\"PTR\"} 1\n",
        "kubedns_records{type=\"SRV\"} 2\n",
        "kubedns_rejected_objects{kind=\"endpointslices\"} 0\n",
        "kubedns_programming_duration_seconds_count{service_kind=\"external_name\"} 0\n",
        "kubedns_watch_ok{kind=\"services\",namespace=\"\"} 1\n",
        "kubedns_watch_events_total{kind=\"services\",namespace=\"\",event=\"list\"} 1\n",
        "kubedns_watch_age_seconds{kind=\"endpointslices\",namespace=\"\"} ",
        "kubedns_dns_replies_total{type=\"A\",rcode=\"NXDOMAIN\"} ",
        "kubedns_dns_reply_duration_seconds_count{transport=\"tcp\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line:?} is missing in {metrics}");
    }
    for path in ["/livez?verbose", "/healthz", "/readiness"] {
        assert_eq!(http::get(kubedns.http, path).await.0, 200, "{path}");
    }
    // pages of kube-dns that must not be public
    for path in ["/cache", "/debug/pprof/"] {
        assert_eq!(http::get(kubedns.http, path).await.0, 404, "{path}");
    }
    kubedns.end().await;
}

#[tokio::test]
async fn how_long_a_change_took_is_measured_by_the_kind_of_its_service() {
    let api = shop().await;
    let kubedns = watching(&api, &[]).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    let metrics = http::get(kubedns.http, "/metrics").await.1;
    assert!(
        !metrics.contains("kubedns_watch_lag_seconds{"),
        "what is listed may be old: {metrics}"
    );
    let mut db = service("shop", "db").cluster_ip("10.0.0.9");
    db.0["metadata"]["managedFields"] = serde_json::json!([{"time": "2020-01-01T00:00:00Z"}]);
    api.apply(db);
    api.apply(service("shop", "list"));
    let trigger = "endpoints.kubernetes.io/last-change-trigger-time";
    let mut slice = endpoint_slice("shop", "list").ready("10.1.0.1");
    slice.0["metadata"]["annotations"] = serde_json::json!({trigger: "2099-01-01T00:00:00.5Z"});
    api.apply(slice);
    let line = |kind: &str, part: &str| {
        let name = "kubedns_programming_duration_seconds";
        format!("{name}_{part},service_kind=\"{kind}\"}} 1\n").replace("{,", "{")
    };
    let count = |kind: &str| line(kind, "count{");
    http::eventually(kubedns.http, "/metrics", 200, &count("cluster_ip")).await;
    // If the clock is behind the API server's, a change takes zero time.
    let at_once = line("headless_with_selector", "bucket{le=\"0.001\"");
    let metrics = http::eventually(kubedns.http, "/metrics", 200, &at_once).await;
    assert!(metrics.contains(&line("cluster_ip", "bucket{le=\"+Inf\"")), "{metrics}");
    assert!(!metrics.contains(&line("cluster_ip", "bucket{le=\"524.288\"")), "{metrics}");
    let lag = "kubedns_watch_lag_seconds{kind=\"services\",namespace=\"\"} ";
    let lag = metrics.lines().find_map(|line| line.strip_prefix(lag)).unwrap();
    assert!(lag.parse::<f64>().unwrap() > 1e8, "{lag} s");
    kubedns.end().await;
}

#[tokio::test]
async fn dashboards_for_coredns_find_its_names_where_they_are_asked_for() {
    let api = shop().await;
    let own = watching(&api, &[]).await;
    http::eventually(own.http, "/readyz", 200, "ok").await;
    let metrics = http::get(own.http, "/metrics").await.1;
    assert!(!metrics.contains("coredns"), "{metrics}");
    own.end().await;

    let kubedns = watching(&api, &["--metrics-compat", "coredns"]).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    for question in [DB, DB, WEB] {
        ask_tcp(kubedns.dns, question).await;
    }
    let labels = format!("server=\"dns://{}\",zone=\".\",view=\"\"", kubedns.dns);
    let metrics = http::get(kubedns.http, "/metrics").await.1;
    for line in [
        "coredns_build_info{version=\"",
        &format!(
            "coredns_dns_requests_total{{{labels},proto=\"tcp\",family=\"1\",type=\"A\"}} 3\n"
        ),
        &format!(
            "coredns_dns_responses_total{{{labels},rcode=\"NXDOMAIN\",plugin=\"kubernetes\"}} 2\n"
        ),
        &format!(
            "coredns_dns_responses_total{{{labels},rcode=\"NOERROR\",plugin=\"kubernetes\"}} 1\n"
        ),
        "# TYPE coredns_dns_request_duration_seconds histogram\n",
        &format!("coredns_dns_request_duration_seconds_count{{{labels}}} 3\n"),
        "coredns_kubernetes_dns_programming_duration_seconds_count{\
         service_kind=\"headless_with_selector\"} 0\n",
        "coredns_panics_total 0\n",
        "kubedns_ready 1\n",
    ] {
        assert!(metrics.contains(line), "{line:?} is missing in {metrics}");
    }
    let none = "coredns_kubernetes_dns_programming_duration_seconds_count{service_kind=\"external";
    assert!(!metrics.contains(none), "{metrics}");
    kubedns.end().await;
}

#[tokio::test]
async fn dashboards_for_kube_dns_find_the_names_of_its_skydns() {
    let api = shop().await;
    let kubedns = watching(&api, &["--metrics-compat", "kube-dns"]).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    for question in [DB, DB, WEB, "7.0.0.10.in-addr.arpa. PTR"] {
        ask_tcp(kubedns.dns, question).await;
    }
    let metrics = http::get(kubedns.http, "/metrics").await.1;
    for line in [
        "skydns_skydns_dns_request_count_total{system=\"auth\"} 3\n",
        "skydns_skydns_dns_request_count_total{system=\"reverse\"} 1\n",
        "skydns_skydns_dns_request_duration_seconds_count{system=\"auth\"} 4\n",
        "skydns_skydns_dns_error_count_total{system=\"auth\",cause=\"nxdomain\"} 2\n",
        "skydns_skydns_dns_error_count_total{system=\"auth\",cause=\"servfail\"} 0\n",
        "skydns_skydns_dns_error_count_total{system=\"auth\",cause=\"refused\"} 0\n",
        "skydns_skydns_dns_error_count_total{system=\"auth\",cause=\"truncated\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    kubedns.end().await;
}

/// The number of readers is bounded, and shown.
#[tokio::test]
async fn readers_of_changes_have_as_many_places_as_a_flag_gives() {
    let api = shop().await;
    let kubedns = watching(&api, &["--changes-readers", "3"]).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut lines = http::lines(kubedns.http, "/changes").await;
        next(&mut lines).await;
        readers.push(lines);
    }
    assert_eq!(http::get(kubedns.http, "/changes").await.0, 503);
    http::eventually(kubedns.http, "/metrics", 200, "kubedns_change_readers 3\n").await;
    readers.pop();
    http::eventually(kubedns.http, "/metrics", 200, "kubedns_change_readers 2\n").await;
    let mut lines = http::lines(kubedns.http, "/changes").await;
    assert_eq!(next(&mut lines).await["flush"], true);
    kubedns.end().await;
}
