//! What healthz says over HTTP, and in which form.
//!
//! Edge: reads the status and the clock, picks text, JSON or HTML. The words are `report`'s.
//!
//! ```text
//! /                    status page for people, with /page.css and /page.js
//! /explain             what both programs know about a name
//! /healthz             the pod: 200 healthy, 503 not; text, or JSON when asked
//! /healthz/LABEL       one probe, likewise
//! /healthcheck/LABEL   one probe, in sidecar's JSON
//! /livez /readyz       healthz itself
//! /livez/LABEL         503 while the program behind the probe sends no reply at all
//! /metrics             Prometheus or OpenMetrics
//! ```

use std::sync::Arc;

use axum::extract::{Extension, Path, RawQuery, State as Shared};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use shared::clock::boot_time;
use shared::config_dir;
use shared::http::{Seat, checks, metrics, wants_json};
use shared::prefix::Prefix;
use tokio::sync::watch;

use crate::explain::explain;
use crate::page;
use crate::report::{live_checks, ready_checks, report, sidecar_report, text};
use crate::scrape::Programs;
use crate::status::{Record, State, Status, overall};
use crate::view::View;

type Watched = Shared<watch::Receiver<Status>>;

/// What the pages show, and to whom.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The probes.
    pub status: watch::Receiver<Status>,
    /// The figures of both programs.
    pub view: watch::Receiver<View>,
    /// Who may know what others ask for, beside this machine.
    pub inspectors: Arc<[Prefix]>,
    /// Where both programs answer.
    pub programs: Programs,
}

impl Shown {
    fn may_see(&self, seat: Option<&Seat>) -> bool {
        seat.is_some_and(|seat| {
            let client = seat.client();
            client.is_loopback() || self.inspectors.iter().any(|it| it.contains(client))
        })
    }
}

/// Every route of healthz.
pub fn router(
    shown: Shown,
    directory: watch::Receiver<config_dir::State>,
    registries: Arc<[Registry]>,
) -> Router {
    let status = shown.status.clone();
    let live = {
        let status = status.clone();
        move || live_checks(status.borrow().probes(), boot_time())
    };
    let ready = {
        let status = status.clone();
        move || {
            let mut checks = ready_checks(status.borrow().probes());
            checks.push(directory.borrow().check());
            checks
        }
    };
    Router::new()
        .route("/healthz", get(all))
        .route("/healthz/{label}", get(one))
        .route("/healthcheck/{label}", get(sidecar))
        .route("/livez/{label}", get(alive))
        .with_state(status)
        .merge(pages(shown))
        .route("/livez", checks("livez", live))
        .route("/readyz", checks("readyz", ready.clone()))
        .route("/readiness", checks("readiness", ready))
        .route("/metrics", metrics(registries))
        .fallback(nowhere)
}

async fn all(Shared(status): Watched, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    health(status.borrow().probes(), query.as_deref(), &headers)
}

async fn one(
    Shared(status): Watched,
    Path(label): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let status = status.borrow();
    match status.probe(&label) {
        Some(record) => health(std::slice::from_ref(record), query.as_deref(), &headers),
        None => unknown(&status, &label),
    }
}

async fn sidecar(Shared(status): Watched, Path(label): Path<String>) -> Response {
    let (status, now) = (status.borrow(), boot_time());
    match status.probe(&label) {
        Some(record) => {
            let code = code(record.health(now).state);
            (code, [(CACHE_CONTROL, "no-store")], Json(sidecar_report(record, now))).into_response()
        }
        None => unknown(&status, &label),
    }
}

/// Whether the kubelet may leave the program running. Its failures are no matter here as long as it
/// replies: a restart heals neither an API server that is away nor an upstream.
async fn alive(Shared(status): Watched, Path(label): Path<String>) -> Response {
    let status = status.borrow();
    let about = [(CACHE_CONTROL, "no-store")];
    match status.probe(&label) {
        Some(record) if record.is_stuck(boot_time()) => {
            let body = format!("[-]{label} is stuck: no reply at all to the last probes\n");
            (StatusCode::SERVICE_UNAVAILABLE, about, body).into_response()
        }
        Some(_) => (about, "ok").into_response(),
        None => unknown(&status, &label),
    }
}

fn pages(shown: Shown) -> Router {
    Router::new()
        .route("/", get(people))
        .route("/explain", get(explained))
        .with_state(shown)
        .route("/page.css", get(|| file("text/css; charset=utf-8", page::STYLE)))
        .route("/page.js", get(|| file("text/javascript; charset=utf-8", page::SCRIPT)))
}

async fn people(Shared(shown): Shared<Shown>, seat: Option<Extension<Seat>>) -> Response {
    // The page reads its own style, its own script and itself, and nothing else.
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                  img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let may_see = shown.may_see(seat.as_deref());
    let (status, view) = (shown.status.borrow(), shown.view.borrow());
    (headers, Html(page::page(status.probes(), &view, may_see, boot_time()))).into_response()
}

/// A file that is part of the program, and so changes with its version only.
async fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "max-age=3600"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

async fn explained(
    Shared(shown): Shared<Shown>,
    seat: Option<Extension<Seat>>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(query) = query else {
        let text = "name: missing; write /explain?name=web.shop.svc.cluster.local&type=A\n";
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let may_see = shown.may_see(seat.as_deref());
    let headers = [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, explain(shown.programs, &query, may_see).await).into_response()
}

async fn nowhere() -> Response {
    let paths = "not found: / /explain /healthz /healthz/LABEL /healthcheck/LABEL /livez \
                 /livez/LABEL /readyz /metrics\n";
    (StatusCode::NOT_FOUND, paths).into_response()
}

/// The health of `records` in the form that was asked for.
fn health(records: &[Record], query: Option<&str>, headers: &HeaderMap) -> Response {
    let now = boot_time();
    let code = code(overall(records, now));
    let about = [(CACHE_CONTROL, "no-store"), (VARY, "accept")];
    if wants_json(format(query), headers) {
        (code, about, Json(report(records, now))).into_response()
    } else {
        (code, about, text(records, now)).into_response()
    }
}

fn unknown(status: &Status, label: &str) -> Response {
    let known = status.probes().iter().map(|record| record.probe.label.as_str());
    let known = known.collect::<Vec<_>>().join(", ");
    let label = label.escape_debug();
    let about = [(X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (StatusCode::NOT_FOUND, about, format!("no probe '{label}': there are {known}\n"))
        .into_response()
}

/// Returns the value of `format` in `query`.
fn format(query: Option<&str>) -> Option<&str> {
    query.and_then(|query| query.split('&').find_map(|part| part.strip_prefix("format=")))
}

fn code(state: State) -> StatusCode {
    match state {
        State::Healthy => StatusCode::OK,
        State::Waiting | State::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    }
}
