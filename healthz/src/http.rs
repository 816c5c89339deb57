//! What healthz says over HTTP, and in which form.
//!
//! Edge: reads the status and the clock, picks text, JSON or HTML. The words are `report`'s.
//!
//! ```text
//! /                    status page for people
//! /healthz             the pod: 200 healthy, 503 not; text, or JSON when asked
//! /healthz/LABEL       one probe, likewise
//! /healthcheck/LABEL   one probe, in sidecar's JSON
//! /livez /readyz       healthz itself
//! /livez/LABEL         503 while the program behind the probe sends no reply at all
//! /metrics             Prometheus or OpenMetrics
//! ```

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State as Shared};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use shared::clock::boot_time;
use shared::config_dir;
use shared::http::{checks, metrics};
use shared::ready::Finding;
use tokio::sync::watch;

use crate::page::page;
use crate::report::{live_checks, ready_checks, report, sidecar_report, stuck_check, text};
use crate::status::{Record, State, Status, overall};

type Watched = Shared<watch::Receiver<Status>>;

/// Every route of healthz.
pub fn router(
    status: watch::Receiver<Status>,
    directory: watch::Receiver<config_dir::State>,
    registries: Arc<[Registry]>,
) -> Router {
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
        .route("/", get(people))
        .route("/healthz", get(all))
        .route("/healthz/{label}", get(one))
        .route("/healthcheck/{label}", get(sidecar))
        .route("/livez/{label}", get(alive))
        .with_state(status)
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
    let (status, now) = (status.borrow(), boot_time());
    match status.probe(&label) {
        Some(record) => {
            let check = stuck_check(record, now);
            let about = [(CACHE_CONTROL, "no-store")];
            match check.finding {
                Finding::Failed(reason) => {
                    let body = format!("[-]{label} is stuck: {reason}\n");
                    (StatusCode::SERVICE_UNAVAILABLE, about, body).into_response()
                }
                _ => (about, "ok").into_response(),
            }
        }
        None => unknown(&status, &label),
    }
}

async fn people(Shared(status): Watched) -> Response {
    // The page brings its own style and script and reads nothing but itself.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(page(status.borrow().probes(), boot_time()))).into_response()
}

async fn nowhere() -> Response {
    let paths = "not found: / /healthz /healthz/LABEL /healthcheck/LABEL /livez /livez/LABEL \
                 /readyz /metrics\n";
    (StatusCode::NOT_FOUND, paths).into_response()
}

/// The health of `records` in the form that was asked for.
fn health(records: &[Record], query: Option<&str>, headers: &HeaderMap) -> Response {
    let now = boot_time();
    let code = code(overall(records, now));
    let about = [(CACHE_CONTROL, "no-store"), (VARY, "accept")];
    if wants_json(query, headers) {
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

/// `?format=` decides; without it, whether the client names JSON.
fn wants_json(query: Option<&str>, headers: &HeaderMap) -> bool {
    let format =
        query.and_then(|query| query.split('&').find_map(|part| part.strip_prefix("format=")));
    match format {
        Some(format) => format == "json",
        None => headers
            .get_all(ACCEPT)
            .iter()
            .any(|value| value.to_str().is_ok_and(|value| value.contains("application/json"))),
    }
}

fn code(state: State) -> StatusCode {
    match state {
        State::Healthy => StatusCode::OK,
        State::Waiting | State::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    }
}
