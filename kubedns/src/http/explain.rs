//! `/explain?name=&type=`: which object each record is derived from, or why there is no record.
//!
//! Edge. Parses the question, and returns the explanation of the core as text or JSON; holds no
//! rule of DNS. Pages are made one at a time, on a separate thread, because the runtime's thread
//! watches, publishes and serves TCP.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use serde::Deserialize;
use shared::http::wants_json;
use shared::mnemonics::type_number;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::explain::explain;
use crate::name::Name;
use crate::store::Reader;

/// Returns the page about the records of `reader`.
pub(super) fn router(reader: Reader) -> Router {
    let pages = Pages { reader, turn: Arc::new(Semaphore::new(1)) };
    Router::new().route("/explain", routing::get(page)).with_state(pages)
}

/// The state that pages are made from, one at a time.
#[derive(Clone)]
struct Pages {
    reader: Reader,
    turn: Arc<Semaphore>,
}

/// The parameters of the query.
#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    name: String,
    /// The type; A if it is missing.
    r#type: Option<String>,
    /// `json` for JSON, else text. If it is missing, the `Accept` header decides.
    format: Option<String>,
}

async fn page(
    State(pages): State<Pages>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let name = match Name::parse_asked(&asked.name) {
        Ok(name) => name,
        Err(error) => {
            return bad(format!("name: {error}; write /explain?name=web.shop.svc...&type=A\n"));
        }
    };
    let qtype = asked.r#type.as_deref().unwrap_or("A");
    let Some(qtype) = type_number(qtype) else {
        return bad(format!("type: {qtype:?} is no type; A, SRV or TYPE65 are\n"));
    };
    let turn = pages.turn.acquire().await.expect("the semaphore never closes");
    let made = spawn_blocking(move || explain(&pages.reader.snapshot(), &name, qtype)).await;
    drop(turn);
    let Ok(explanation) = made else {
        // The panic was logged.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let fresh = [(CACHE_CONTROL, "no-store")];
    if wants_json(asked.format.as_deref(), &headers) {
        (fresh, Json(explanation)).into_response()
    } else {
        (fresh, explanation.to_string()).into_response()
    }
}

fn bad(text: String) -> Response {
    (StatusCode::BAD_REQUEST, text).into_response()
}
