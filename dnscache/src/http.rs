//! Health, metrics, and what this cache holds and is asked, over HTTP.
//!
//! Edge. `router` gets its data as arguments, so tests can call it without a port.

mod inspect;
mod pods;
mod tail;
mod top;

use std::fmt;
use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::Router;
use axum::extract::{Query as Parameters, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use shared::clock::boot_time;
use shared::config_dir::Server;
use shared::http::Seat;
use shared::metrics::coredns;
use shared::mnemonics::type_number;
use shared::ready::Check;
use shared::serve::Counters;

use crate::cache::Question;
use crate::counters::{COUNTS, Count};
use crate::forward::Status;
use crate::handler::Answers;
pub use inspect::Inspect;

use crate::route::{After, Beyond, Route, Routes};
use shared::name::{bare, parse};

/// Returns the checks of `/livez`: whether the threads run.
pub fn live(
    serving: Arc<Counters>,
    forward: Arc<Status>,
) -> impl Fn() -> Vec<Check> + Clone + Send + Sync + 'static {
    move || {
        let now = boot_time();
        let check = |name, stalled| match stalled {
            true => Check::failed(name, "a thread does not come round"),
            false => Check::passed(name),
        };
        vec![check("dns", serving.is_stalled(now)), check("forward", forward.is_stalled(now))]
    }
}

/// Returns all pages. `live` and `ready` list the checks of `/livez` and `/readyz`.
pub fn router(
    inspect: Inspect,
    live: impl Fn() -> Vec<Check> + Clone + Send + Sync + 'static,
    ready: impl Fn() -> Vec<Check> + Clone + Send + Sync + 'static,
    registries: Arc<[Registry]>,
) -> Router {
    let pages = Router::new()
        .route("/explain", get(explain))
        .route("/top", get(top::page))
        .route("/tail", get(tail::page))
        .with_state(inspect);
    shared::http::standard(live, ready, registries).merge(pages)
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    name: String,
    #[serde(default = "address_type")]
    r#type: String,
}

fn address_type() -> String {
    "A".to_owned()
}

/// Returns the route of a name and, for clients that are allowed to see it, its entry in the cache.
async fn explain(
    State(inspect): State<Inspect>,
    seat: Option<Extension<Seat>>,
    Parameters(asked): Parameters<Asked>,
) -> Response {
    let bad = |text: &str| (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response();
    if asked.name.is_empty() {
        return bad("name: missing; write /explain?name=example.com&type=A");
    }
    let Some(name) = parse(&asked.name) else {
        return bad("name: a label has 1 to 63 bytes, a name at most 253");
    };
    let Some(qtype) = type_number(&asked.r#type).or_else(|| asked.r#type.parse().ok()) else {
        return bad("type: expected a record type, such as AAAA, TYPE65 or 65");
    };
    let answers = &inspect.answers;
    let routes = answers.routes.load();
    let question = |dnssec_ok| Question {
        name: &name,
        qtype,
        qclass: shared::wire::class::IN,
        dnssec_ok,
        checking_disabled: false,
    };
    let state = |dnssec_ok| {
        answers.cache.state(&question(dnssec_ok), boot_time()).map(|state| {
            serde_json::json!({
                "dnssec": dnssec_ok,
                "rcode": state.rcode,
                "records": state.records,
                "age_seconds": state.age_secs,
                "remaining_seconds": state.remaining_secs,
                "stale": state.remaining_secs <= 0,
            })
        })
    };
    let route = route_of(&routes, &name);
    let mut page = serde_json::json!({ "name": asked.name, "type": qtype, "route": route });
    // The cluster's own names are no secret.
    if routes.is_owned(&name) || inspect.admits(seat.as_deref()) {
        page["cache"] = [false, true].into_iter().filter_map(state).collect();
    } else {
        page["cache_hidden"] = inspect::HIDDEN.into();
    }
    Json(page).into_response()
}

/// Returns who is asked about `name`, and who is asked after them.
fn route_of(routes: &Routes, name: &[u8]) -> serde_json::Value {
    let shown = |server: &Server| match server {
        Server::Address(address) => address.to_string(),
        Server::Endpoint(endpoint) => endpoint.to_string(),
        Server::Name { host, port } => format!("{host}:{port}"),
    };
    let servers = |group: usize| -> Vec<String> {
        routes.groups()[group].servers.iter().map(shown).collect()
    };
    let show = |route| match route {
        Route::Group(group) => serde_json::json!({
            "suffix": bare(&routes.groups()[group].suffix),
            "servers": servers(group),
            "pod": routes.groups()[group].owned,
        }),
        Route::Local(local) => serde_json::json!({ "local": bare(local.zone) }),
    };
    let mut route = show(routes.route(name));
    if let Some(Beyond { route: beyond, after }) = routes.beyond(name) {
        let key = match after {
            After::Refused => "if_refused",
            After::Failure => "if_refused_or_failed",
        };
        route[key] = show(beyond);
    }
    if let Route::Group(group) = routes.route(name)
        && let servers = routes.next_servers(group)
        && !servers.is_empty()
    {
        route["next"] = servers.iter().map(shown).collect();
    }
    route
}

/// The cache's part of `/metrics`.
pub struct Metrics(pub Arc<Answers>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let answers = &self.0;
        shared::metrics::counters(
            &mut encoder,
            ("queries", "Queries by what became of them"),
            COUNTS.map(|(name, count)| ([("result", name)], answers.counters.total(count))),
        )?;
        let help = "Queries of healthz in the same pod, which are not in queries_total";
        let probes = encoder.encode_descriptor("probes", help, None, MetricType::Counter)?;
        ConstCounter::new(answers.counters.total(Count::Probe)).encode(probes)?;
        let changes = answers.cache.changes();
        shared::metrics::counters(
            &mut encoder,
            ("cache_changes", "Entries stored, and entries that gave way before their time"),
            [("insertion", changes.insertions), ("eviction", changes.evictions)]
                .map(|(name, count)| ([("change", name)], count)),
        )?;
        let gauges = [
            ("cache_entries", "Entries in the cache", answers.cache.len()),
            ("cache_bytes", "Bytes in the cache", answers.cache.bytes()),
            ("samples_bytes", "Bytes of the lists of /top", answers.samples.bytes()),
            ("tail_readers", "Readers of /tail", answers.samples.readers()),
        ];
        let samples = answers.samples.counts();
        shared::metrics::counters(
            &mut encoder,
            ("samples", "Sampled queries: kept for /top and /tail, or lost for lack of room"),
            [("kept", samples.taken), ("dropped", samples.dropped)]
                .map(|(name, count)| ([("result", name)], count)),
        )?;
        let help = "Readers of /tail that were cut because they were too slow";
        let lost = encoder.encode_descriptor("tail_cut", help, None, MetricType::Counter)?;
        ConstCounter::new(samples.readers_lost).encode(lost)?;
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// Returns the metrics of the listener and the cache under CoreDNS's names.
pub fn coredns(answers: &Arc<Answers>, serving: &Arc<Counters>) -> Registry {
    let mut registry = coredns::registry(env!("CARGO_PKG_VERSION"), Arc::clone(serving), "cache");
    let server = serving.places().first().map(|place| coredns::server(place.address));
    let server = server.unwrap_or_default();
    registry.register_collector(Box::new(Coredns { answers: Arc::clone(answers), server }));
    registry
}

/// The metrics of CoreDNS's plugin `cache`. It has one cache for answers and one for denials;
/// dnscache has one for both.
struct Coredns {
    answers: Arc<Answers>,
    server: String,
}

impl fmt::Debug for Coredns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Coredns").field(&self.server).finish()
    }
}

impl Collector for Coredns {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let [server, zones, view] = [("server", &*self.server), ("zones", "."), ("view", "")];
        let labels = [server, ("type", "all"), zones, view];
        let (counters, cache) = (&self.answers.counters, &self.answers.cache);
        let [hits, misses] = [Count::Hit, Count::Miss].map(|count| counters.total(count));
        let evictions = cache.changes().evictions;
        let mut write = |name, help, labels: &[(&str, &str)], count| {
            shared::metrics::counters(&mut encoder, (name, help), [(labels, count)])
        };
        write("cache_hits", "Queries answered from the cache", &labels, hits)?;
        write("cache_evictions", "Entries that gave way before their time", &labels, evictions)?;
        let labels_of_misses = [server, zones, view];
        write("cache_misses", "Queries not in the cache", &labels_of_misses, misses)?;
        write("cache_requests", "Queries to the cache", &labels_of_misses, hits + misses)?;
        let (name, help) = ("cache_entries", "Entries in the cache");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(cache.len() as i64).encode(family.encode_family(&labels)?)
    }
}
