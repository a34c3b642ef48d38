//! Whether the server is well.
//!
//! Must not know: how to make it well.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

/// `GET /ping`.
pub async fn ping() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "pong")
}

/// `GET /health/live`: the process answers.
pub async fn live() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], r#"{"status":"ok"}"#)
}
