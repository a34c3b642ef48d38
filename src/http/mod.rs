//! The HTTP door: one table of routes, history, streams, health.
//!
//! Must not know: which killmail goes to whom, how anything is stored.

pub mod accept;
pub mod auth;
pub mod envelope;
pub mod error;
pub mod health;
pub mod layers;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::http::auth::Token;
use crate::http::error::Error;

/// What this door may be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bodies end at so many bytes (8,000,000, as the older service); plugins have their own limit.
    pub body_max_bytes: u64,
    /// Origins whose pages may read our answers; `["*"]` is everyone, `[]` nobody.
    pub cors_origins: Vec<String>,
    /// Whether answers are compressed for those who ask (streams never are).
    pub compression: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { body_max_bytes: 8_000_000, cors_origins: vec!["*".to_owned()], compression: true }
    }
}

/// What the door needs to answer.
#[derive(Debug)]
pub struct State {
    /// Its configuration.
    pub config: Config,
    /// The token of those who may write.
    pub token: String,
    /// When the server started.
    pub started: SystemTime,
}

/// What every handler shares.
#[derive(Debug)]
pub struct Door {
    /// Its configuration.
    pub config: Config,
    /// The token of those who may write.
    pub token: Token,
    /// When the server started.
    pub started: SystemTime,
}

/// All routes of the door, ready to be served. Addresses of callers are known where the server gives `ConnectInfo<SocketAddr>`.
pub fn router(state: State) -> Router {
    let State { config, token, started } = state;
    let door = Arc::new(Door { config, token: Token::new(&token), started });
    layers::around(table().with_state(Arc::clone(&door)), &door.config)
}

/// The one table. Each group has its own rule of what a caller must accept.
fn table() -> Router<Arc<Door>> {
    let plain =
        Router::new().route("/ping", get(health::ping)).route("/health/live", get(health::live)).route_layer(from_fn(accept::json_or_text));
    plain.fallback(no_path).method_not_allowed_fallback(no_method)
}

async fn no_path(request: Request) -> Error {
    let path = request.uri().path();
    if path == "/api/v1" || path.starts_with("/api/v1/") { Error::ApiPath } else { Error::Path }
}

async fn no_method() -> Error {
    Error::Method { allow: None }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::header::{ACCEPT, ALLOW};
    use axum::response::Response;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    fn door() -> Router {
        router(State { config: Config::default(), token: "t".to_owned(), started: SystemTime::now() })
    }

    async fn ask(request: axum::http::request::Builder) -> Response {
        door().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn body(response: Response) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn unknown_paths_are_told_apart() {
        let plain = ask(Request::get("/nope")).await;
        assert_eq!(plain.status(), 404);
        assert_eq!(body(plain).await, json!({ "error": "Not Found", "status": "404" }));
        let api = body(ask(Request::delete("/api/v1/nope")).await).await;
        assert_eq!((&api["code"], &api["details"], &api["error"]), (&json!("NOT_FOUND"), &Value::Null, &json!("Not Found")));
    }

    #[tokio::test]
    async fn a_wrong_method_names_the_right_ones() {
        let response = ask(Request::post("/ping")).await;
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD");
        assert_eq!(body(response).await, json!({ "error": "Method Not Allowed", "status": "405" }));
    }

    #[tokio::test]
    async fn every_answer_is_stamped() {
        let id = "0123456789012345678901234567ab";
        let response = ask(Request::get("/ping").header("x-request-id", id)).await;
        assert_eq!(response.headers()["x-request-id"], id);
        assert_eq!(response.headers()["cache-control"], "max-age=0, private, must-revalidate");
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        for short in ["0123456789", ""] {
            let response = ask(Request::get("/nope").header("x-request-id", short)).await;
            assert_eq!(response.headers()["x-request-id"].len(), 32);
        }
    }

    #[tokio::test]
    async fn pages_of_others_may_read() {
        let response = ask(Request::options("/ping").header("origin", "http://x").header("access-control-request-method", "GET")).await;
        assert_eq!((response.status().as_u16(), &response.headers()["access-control-allow-origin"]), (200, &"*".parse().unwrap()));
    }

    #[tokio::test]
    async fn who_accepts_nothing_of_ours_gets_406() {
        let response = ask(Request::get("/ping").header(ACCEPT, "image/png")).await;
        assert_eq!(response.status(), 406);
        assert_eq!(body(response).await, json!({ "error": "Not Acceptable", "status": "406" }));
    }
}
