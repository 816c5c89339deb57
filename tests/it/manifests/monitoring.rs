//! Compares what `manifests/monitoring` queries from Prometheus with the metrics that running
//! programs expose.
//!
//! It uses a parser for PromQL, and reads `/metrics` as text.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::MatchOp;
use promql_parser::parser::{Expr, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;
use tests::api_server::ApiServer;
use tests::objects::{endpoint_slice, namespace, service};

use super::{render, root, tool};
use crate::fixture::dnscache::Running;
use crate::fixture::{dns, http, kubedns};

/// Each metric with all values of each label.
type Exposed = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Adds the series of a page in the text format of Prometheus to `exposed`.
fn read(page: &str, exposed: &mut Exposed) {
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let values = exposed.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once("=\"").expect("a label");
            let value = value.trim_end_matches('"').to_owned();
            values.entry(key.to_owned()).or_default().insert(value);
        }
    }
}

/// Returns the metrics of the three programs once each has worked: kubedns has followed an API
/// server, dnscache has answered, missed and failed, and healthz has probed both.
async fn exposed() -> Exposed {
    let api = ApiServer::start().await;
    api.apply(namespace("shop"));
    api.apply(service("shop", "web").port("http", 80));
    api.apply(endpoint_slice("shop", "web").host("10.1.0.1", "web-0").port("http", 80));
    let kubeconfig = api.kubeconfig(None);
    let config = tempfile::tempdir().unwrap();
    let directory = format!("--config-dir={}", config.path().display());
    let snapshot = format!("--snapshot={}", config.path().join("snapshot").display());
    let from = kubeconfig.path().to_str().unwrap();
    let kubedns = kubedns::start(&["--kubeconfig", from, &directory, &snapshot]).await;
    http::eventually(kubedns.http, "/readyz", 200, "ok").await;
    let dnscache = Running::start(&[
        format!("--server=/cluster.local/127.0.0.1#{}", kubedns.dns.port()),
        format!("--changes=http://{}/changes", kubedns.http),
        directory.clone(),
    ])
    .await;
    let of_cluster = dns::ask(dnscache.dns, "dns-version.cluster.local. TXT").await;
    assert_eq!(of_cluster.status, "NOERROR");
    assert_eq!(dns::ask(dnscache.dns, "www.example.com. A").await.status, "SERVFAIL");
    let probe = format!("dns,{},dns-version.cluster.local,1,TXT", dnscache.dns);
    let flags = ["healthz", "--http-listen=127.0.0.1:0", &directory, "--probe", &probe];
    let healthz = healthz::Program::bind(shared::flags::parse_from(flags).unwrap()).await.unwrap();
    let of_healthz = healthz.http_address();
    let running = tokio::spawn(healthz.run(std::future::pending()));
    http::eventually(of_healthz, "/healthz", 200, "ok").await;

    let mut exposed = Exposed::new();
    for address in [kubedns.http, dnscache.http, of_healthz] {
        let (status, page) = http::get(address, "/metrics").await;
        assert_eq!(status, 200);
        read(&page, &mut exposed);
    }
    running.abort();
    dnscache.stop().await;
    kubedns.end().await;
    exposed
}

/// Collects the metrics and labels of an expression that are not exposed.
struct Unknown<'e> {
    exposed: &'e Exposed,
    found: Vec<String>,
    selectors: usize,
}

impl ExprVisitor for Unknown<'_> {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        let selector = match expr {
            Expr::VectorSelector(selector) => selector,
            Expr::MatrixSelector(matrix) => &matrix.vs,
            _ => return Ok(true),
        };
        self.selectors += 1;
        let name = selector.name.clone().ok_or("a selector without a name")?;
        let Some(labels) = self.exposed.get(&name) else {
            self.found.push(name);
            return Ok(true);
        };
        for matcher in &selector.matchers.matchers {
            // Prometheus adds these labels when it scrapes.
            if ["pod", "container"].contains(&&*matcher.name) {
                continue;
            }
            let values = labels.get(&matcher.name);
            let is_there = values.is_some_and(|values| match &matcher.op {
                MatchOp::Equal => values.contains(&matcher.value),
                MatchOp::Re(regex) => values.iter().any(|value| regex.is_match(value)),
                _ => true,
            });
            if !is_there {
                self.found.push(format!("{name}{{{}=\"{}\"}}", matcher.name, matcher.value));
            }
        }
        Ok(true)
    }
}

/// Returns the text of each expression, with the name of its alert or panel.
fn expressions() -> Vec<(String, String)> {
    let rules: Value =
        serde_saphyr::from_str(include_str!("../../../manifests/monitoring/rules/rules.yaml"))
            .unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let mut expressions = Vec::new();
    for group in list(&rules["spec"]["groups"]) {
        for rule in list(&group["rules"]) {
            expressions.push((text(&rule["alert"]), text(&rule["expr"])));
        }
    }
    let board: Value = serde_json::from_str(include_str!(
        "../../../manifests/monitoring/dashboard/dashboard.json"
    ))
    .unwrap();
    for panel in list(&board["panels"]) {
        for target in list(&panel["targets"]) {
            // Grafana replaces this variable by a duration.
            let expr = text(&target["expr"]).replace("$__rate_interval", "5m");
            expressions.push((text(&panel["title"]), expr));
        }
    }
    assert!(expressions.len() > 30, "{expressions:#?}");
    expressions
}

#[tokio::test]
async fn alerts_and_panels_ask_for_metrics_that_the_programs_expose() {
    let exposed = exposed().await;
    for (of, text) in expressions() {
        let parsed = parse(&text).unwrap_or_else(|error| panic!("{of}: {error}: {text}"));
        let mut unknown = Unknown { exposed: &exposed, found: Vec::new(), selectors: 0 };
        walk_expr(&mut unknown, &parsed).unwrap_or_else(|error| panic!("{of}: {error}"));
        assert!(unknown.selectors > 0, "{of}: {text}");
        assert!(unknown.found.is_empty(), "{of}: {:?} of {text}", unknown.found);
    }
    // The check must find unknown metrics and labels.
    for text in ["no_such_metric", "dnscache_queries_total{result=\"x\"}", "healthz_up{no=\"x\"}"] {
        let mut unknown = Unknown { exposed: &exposed, found: Vec::new(), selectors: 0 };
        walk_expr(&mut unknown, &parse(text).unwrap()).unwrap();
        assert_eq!(unknown.found.len(), 1, "{text}");
    }
}

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
    let rules: Value =
        serde_saphyr::from_str(include_str!("../../../manifests/monitoring/rules/rules.yaml"))
            .unwrap();
    let books = include_str!("../../../manifests/monitoring/runbooks.md");
    let chapters: Vec<&str> = books.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut alerts = Vec::new();
    for rule in rules["spec"]["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        let book = format!("manifests/monitoring/runbooks.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook"], *book);
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()));
        alerts.push(name);
    }
    assert_eq!(chapters, alerts);
}

#[test]
fn monitoring_renders() {
    let Some(tool) = tool() else { return };
    let text = render(&tool, &root().join("manifests/monitoring")).text;
    for part in ["kind: PodMonitor", "kind: PrometheusRule", "grafana_dashboard", "dashboard.json"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let text = render(&tool, &root().join("manifests/monitoring/service-monitor")).text;
    assert!(text.contains("kind: ServiceMonitor"), "{text}");
}
