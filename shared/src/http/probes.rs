//! The routes that all programs have: liveness and readiness in the format of kube-apiserver, and
//! metrics in the format that the scraper accepts.
//!
//! Edge. A closure supplies the checks, so these routes have no state.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use prometheus_client::registry::Registry;
use tokio::task::spawn_blocking;

use crate::metrics::Format;
use crate::ready::{Check, Finding};

/// Returns the pages of [`health`] and [`ready`], and `/metrics` from `registries`.
pub fn standard<L, R>(live: L, ready: R, registries: Arc<[Registry]>) -> Router
where
    L: Fn() -> Vec<Check> + Clone + Send + Sync + 'static,
    R: Fn() -> Vec<Check> + Clone + Send + Sync + 'static,
{
    health(live).merge(self::ready(ready)).route("/metrics", metrics(registries))
}

/// Returns `/livez`, `/healthz` and CoreDNS's `/health` from `live`.
pub fn health<L>(live: L) -> Router
where
    L: Fn() -> Vec<Check> + Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/livez", checks("livez", live.clone()))
        .route("/healthz", checks("healthz", live.clone()))
        .route("/health", checks("health", live))
}

/// Returns `/readyz`, `/readiness` and CoreDNS's `/ready` from `ready`.
pub fn ready<R>(ready: R) -> Router
where
    R: Fn() -> Vec<Check> + Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/readyz", checks("readyz", ready.clone()))
        .route("/readiness", checks("readiness", ready.clone()))
        .route("/ready", checks("ready", ready))
}

/// Returns a page with status 200 if all checks pass, otherwise 503. The body is `ok`, or one line
/// per check if a check fails or the request has `?verbose`. `name` is the page's name in its last
/// line.
pub fn checks<F>(name: &'static str, list: F) -> MethodRouter
where
    F: Fn() -> Vec<Check> + Clone + Send + Sync + 'static,
{
    get(move |RawQuery(query)| async move {
        let verbose = query.is_some_and(|query| {
            query.split('&').any(|part| part.split('=').next() == Some("verbose"))
        });
        let (status, text) = report(name, &list(), verbose);
        (status, [(CACHE_CONTROL, "no-store")], text)
    })
}

/// Returns a page with the metrics of `registries`: OpenMetrics for a scraper that accepts it,
/// otherwise Prometheus text.
pub fn metrics(registries: Arc<[Registry]>) -> MethodRouter {
    get(move |headers: HeaderMap| async move {
        // Counting can take a while, and reads of /proc can block. Neither must delay other
        // requests.
        let written = spawn_blocking(move || exposition(&registries, &headers)).await;
        written.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    })
}

fn exposition(registries: &[Registry], headers: &HeaderMap) -> Response {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = if accepted.any(|value| value.contains("application/openmetrics-text")) {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    };
    match crate::metrics::text(registries, format) {
        Ok(text) => ([(CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn report(name: &str, checks: &[Check], verbose: bool) -> (StatusCode, String) {
    let failed = checks.iter().any(Check::has_failed);
    let status = if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    if !failed && !verbose {
        return (status, "ok".to_owned());
    }
    let mut text = String::new();
    for Check { name, finding } in checks {
        match finding {
            Finding::Passed => writeln!(text, "[+]{name} ok"),
            Finding::Warning(reason) => writeln!(text, "[!]{name} warning: {reason}"),
            Finding::Failed(reason) => writeln!(text, "[-]{name} failed: {reason}"),
        }
        .expect("a String takes all text");
    }
    text += &format!("{name} check {}\n", if failed { "failed" } else { "passed" });
    (status, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_terse_when_all_is_well_and_says_why_when_not() {
        let well = [Check::passed("services"), Check::warning("config-dir", "unknown key `x`")];
        let ill = [Check::passed("services"), Check::failed("slices", "not yet")];
        let rows: [(&[Check], bool, u16, &str); 5] = [
            (&[], false, 200, "ok"),
            (&well, false, 200, "ok"),
            (
                &well,
                true,
                200,
                "[+]services ok\n[!]config-dir warning: unknown key `x`\nreadyz check passed\n",
            ),
            (&ill, false, 503, "[+]services ok\n[-]slices failed: not yet\nreadyz check failed\n"),
            (&ill, true, 503, "[+]services ok\n[-]slices failed: not yet\nreadyz check failed\n"),
        ];
        for (checks, verbose, status, text) in rows {
            let (got, said) = report("readyz", checks, verbose);
            assert_eq!((got.as_u16(), said.as_str()), (status, text));
        }
    }
}
