//! `/top?by=&window=&limit=`: the names and clients with the most queries, as text or JSON.
//!
//! Edge.

use std::fmt::{self, Write};

use axum::extract::{Query as Parameters, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use shared::http::{Seat, wants_json};
use shared::name;

use super::Inspect;
use crate::route::is_reverse;
use crate::sample::{By, Item, Key, List, Walked, Window};
use shared::name::bare;

/// What is asked.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    by: Option<String>,
    window: Option<String>,
    limit: Option<String>,
    /// `json` for JSON, else text. If it is missing, the `Accept` header decides.
    format: Option<String>,
}

/// A list as it is sent.
#[derive(Debug, Serialize)]
struct Page {
    by: &'static str,
    window: &'static str,
    seconds: f64,
    total: u64,
    samples: u64,
    items: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    key: String,
    count: u64,
    error: u64,
    rate: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Shows a list of heavy hitters.
pub(super) async fn page(
    State(inspect): State<Inspect>,
    seat: Option<Extension<Seat>>,
    Parameters(asked): Parameters<Asked>,
    headers: HeaderMap,
) -> Response {
    let refusal = inspect.refusal(seat.as_deref()).or_else(|| inspect.without_samples());
    if let Some(refusal) = refusal {
        return refusal;
    }
    let bad = |name: &str, error: &dyn fmt::Display| {
        (StatusCode::BAD_REQUEST, format!("{name}: {error}\n")).into_response()
    };
    let by = match asked.by.as_deref().map_or(Ok(By::Name), str::parse) {
        Ok(by) => by,
        Err(error) => return bad("by", &error),
    };
    let window = match asked.window.as_deref().map_or(Ok(Window::Minute), str::parse) {
        Ok(window) => window,
        Err(error) => return bad("window", &error),
    };
    let limit = asked.limit.as_deref().map_or(Ok(LIMIT), str::parse);
    let Some(limit) = limit.ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)) else {
        return bad("limit", &format_args!("expected 1 to {LIMIT_MAX}"));
    };
    let page = list(&inspect, (by, window), limit).await;
    let fresh = [(CACHE_CONTROL, "no-store")];
    if wants_json(asked.format.as_deref(), &headers) {
        (fresh, Json(page)).into_response()
    } else {
        (fresh, page.to_string()).into_response()
    }
}

async fn list(inspect: &Inspect, (by, window): (By, Window), limit: usize) -> Page {
    let routes = inspect.answers.routes.load_full();
    let owned = routes.groups().iter().filter(|group| group.owned);
    let domains = owned.map(|group| &*group.suffix).filter(|domain| !is_reverse(domain));
    let domains: Vec<&[u8]> = domains.collect();
    let list = inspect.answers.samples.top((by, window), limit, &domains);
    let clients = list.items.iter().filter_map(|item| match &item.key {
        Key::Client(client) => Some(*client),
        Key::Name(_) => None,
    });
    let pods = inspect.pods.names(&clients.collect::<Vec<_>>(), &routes).await;
    let List { seconds, total, samples, items } = list;
    let rows = items.into_iter().map(|item| {
        let rate = (item.count as f64 / seconds.max(1.0) * 10.0).round() / 10.0;
        let hint = item.walked.as_ref().map(hint);
        let suffix = item.walked.as_ref().map(|walked| name::text(&walked.suffix));
        let Item { key, count, error, .. } = item;
        let (key, pod) = match key {
            Key::Name(name) => (name::text(&name), None),
            Key::Client(client) => (client.to_string(), pods.get(&client).cloned()),
        };
        Row { key, count, error, rate, pod, suffix, hint }
    });
    let items = rows.collect();
    Page { by: by.name(), window: window.name(), seconds, total, samples, items }
}

/// What to do about queries for `name` along a search list.
fn hint(walked: &Walked) -> String {
    let (name, suffix) = (bare(&walked.name), bare(&walked.suffix));
    format!(
        "{name} is asked with the search domain {suffix}: turn on --autopath, or have clients \
         write {name}. with a final dot"
    )
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, seconds, total, samples, items, .. } = self;
        let share = match samples < total {
            true => format!(", estimated from {samples} samples"),
            false => String::new(),
        };
        writeln!(f, "{total} queries in {seconds:.0} s{share}")?;
        let by = by.to_uppercase();
        let width = items.iter().map(|row| row.key.len()).max().unwrap_or(0);
        writeln!(f, "{:>10} {:>10} {:>10}  {by}", "QUERIES", "+-", "PER SECOND")?;
        for row in items {
            let mut line = String::new();
            let Row { key, count, error, rate, .. } = row;
            write!(line, "{count:>10} {error:>10} {rate:>10.1}  {key:width$}")?;
            for note in [&row.pod, &row.hint].into_iter().flatten() {
                write!(line, "  {note}")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Items of a list.
const LIMIT: usize = 20;
/// The most items of a list: so many are counted with little error.
const LIMIT_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_table() {
        let row = |key: &str, count| Row {
            key: key.to_owned(),
            count,
            error: 7,
            rate: count as f64 / 60.0,
            pod: None,
            suffix: None,
            hint: None,
        };
        let pod = Some("web-0.web.shop.svc.cluster.local.".to_owned());
        let mut page = Page {
            by: "client",
            window: "1m",
            seconds: 59.6,
            total: 12_345,
            samples: 600,
            items: vec![Row { pod, ..row("10.0.0.7", 12_000) }, row("fd00::17", 345)],
        };
        let expected = "\
12345 queries in 60 s, estimated from 600 samples
   QUERIES         +- PER SECOND  CLIENT
     12000          7      200.0  10.0.0.7  web-0.web.shop.svc.cluster.local.
       345          7        5.8  fd00::17
";
        assert_eq!(page.to_string(), expected);
        page.samples = page.total;
        page.items.clear();
        assert_eq!(page.to_string().lines().next(), Some("12345 queries in 60 s"));
    }
}
