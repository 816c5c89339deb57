//! The dashboard drawn from the metrics of a pod at work: `dashboard.svg` in the
//! folder for temporary files of the build, to look at.
//!
//! Knows as much of PromQL as the dashboard uses, and of Grafana what a line chart has. A panel
//! without a line, or with a legend that does not tell its lines apart, is a failure.

mod picture;
mod query;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::api_server::ApiServer;
use tests::objects::{endpoint_slice, namespace, service};

use crate::fixture::dnscache::{FAR, Running, server};
use crate::fixture::upstream::Upstream;
use crate::fixture::{dns, http, kubedns};
use picture::{Line, Panel};
use query::Scrape;

/// Scrapes, and the time between two: as many points as a line has.
const SCRAPES: usize = 24;
const EVERY: Duration = Duration::from_millis(250);

/// The three programs under load, scraped as by Prometheus.
async fn scrapes() -> Vec<Scrape> {
    let api = ApiServer::start().await;
    api.apply(namespace("shop"));
    for index in 0..50 {
        let address = format!("10.0.0.{index}");
        api.apply(service("shop", &format!("web-{index}")).cluster_ip(&address).port("http", 80));
    }
    api.apply(service("shop", "db"));
    let kubeconfig = api.kubeconfig(None);
    let kubedns = kubedns::start(&["--kubeconfig", kubeconfig.path().to_str().unwrap()]).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    let upstream = Upstream::start(FAR).await;
    upstream.answer("www.example.com. A", &["www.example.com. 1 A 192.0.2.1"]);
    let dnscache = Running::start(&[
        format!("--server=/cluster.local/127.0.0.1#{}", kubedns.dns.port()),
        format!("--changes=http://{}/changes", kubedns.http),
        server(&upstream),
    ])
    .await;
    let probe = format!("dnscache,{},web-1.shop.svc.cluster.local,1", dnscache.dns);
    let flags = ["healthz", "--http-listen=127.0.0.1:0", "--probe", &probe];
    let healthz = healthz::Program::bind(shared::flags::parse_from(flags).unwrap()).await.unwrap();
    let of_healthz = healthz.http_address();
    let running = tokio::spawn(healthz.run(std::future::pending()));
    http::eventually(of_healthz, "/healthz", 200, "ok").await;

    let start = Instant::now();
    let mut scrapes = Vec::new();
    for round in 0..SCRAPES {
        let address = format!("10.0.1.{round}");
        api.apply(service("shop", "web-0").cluster_ip(&address).port("http", 80));
        // Endpoints whose controller notes when they changed: that is measured.
        let trigger = "endpoints.kubernetes.io/last-change-trigger-time";
        let now = jiff::Timestamp::now().to_string();
        let mut slice = endpoint_slice("shop", "db").ready(&address);
        slice.0["metadata"]["annotations"] = serde_json::json!({trigger: now});
        api.apply(slice);
        let mut questions = vec!["www.example.com. A".to_owned()];
        questions.extend((0..20).map(|index| {
            // Most are hits; every fifth name does not exist.
            let name = if index % 5 == 4 { "no".to_owned() } else { format!("web-{}", index % 7) };
            format!("{name}.shop.svc.cluster.local. A")
        }));
        for question in questions {
            dns::ask_udp(dnscache.dns, &question).await;
        }
        tokio::time::sleep(EVERY).await;
        let mut scrape = Scrape::at(start.elapsed());
        let programs =
            [("kubedns", kubedns.http), ("dnscache", dnscache.http), ("healthz", of_healthz)];
        for (container, address) in programs {
            let (status, page) = http::get(address, "/metrics").await;
            assert_eq!(status, 200);
            scrape.read(&page, &[("pod", "kube-dns-7d4f"), ("container", container)]);
        }
        scrapes.push(scrape);
    }
    running.abort();
    dnscache.stop().await;
    kubedns.end().await;
    scrapes
}

#[tokio::test(flavor = "multi_thread")]
async fn each_panel_of_the_dashboard_shows_what_a_pod_does() {
    let board = include_str!("../../../manifests/monitoring/dashboard/dashboard.json");
    let board: Value = serde_json::from_str(board).unwrap();
    let scrapes = scrapes().await;
    let (mut panels, mut faults) = (Vec::new(), Vec::new());
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap().to_owned();
        let mut lines: Vec<Line> = Vec::new();
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            let legend = target["legendFormat"].as_str().unwrap();
            let found = query::lines(&expr, legend, &scrapes);
            if found.is_empty() {
                faults.push(format!("{title}: no line for {expr}"));
            }
            lines.extend(found);
        }
        let names: BTreeSet<&str> = lines.iter().map(|line| &*line.name).collect();
        if names.len() < lines.len() || names.iter().any(|name| name.trim().is_empty()) {
            faults.push(format!("{title}: the legend does not tell lines apart: {names:?}"));
        }
        let place = &panel["gridPos"];
        let [x, y, width, height] =
            ["x", "y", "w", "h"].map(|key| place[key].as_u64().unwrap() as f64);
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap().to_owned();
        panels.push(Panel { title, unit, place: [x, y, width, height], lines });
    }
    let svg = picture::draw(&panels);
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join("dashboard.svg"), &svg).unwrap();
    let overlaps = picture::overlaps(&panels);
    faults.extend(overlaps.iter().map(|(one, other)| format!("{one} lies on {other}")));
    assert!(faults.is_empty(), "{faults:#?}");
}
