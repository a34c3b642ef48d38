//! The HTTP API: one table of routes, with history, streams, uploads, health and metrics behind it.
//!
//! Must not know: which killmails a subscription gets, or how anything is stored.

pub(crate) mod answer;
pub(crate) mod config;
pub(crate) mod numbers;
pub(crate) mod request;
pub(crate) mod routes;
pub(crate) mod state;
pub(crate) mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};

use crate::http::answer::error::Error;
use crate::http::answer::{layers, negotiation};
use crate::http::numbers::rates;
use crate::http::request::{body, path};
use crate::http::routes::{
    add, backup, export, health, killmails, kills, metrics, mirror, plugins, status, subscriptions, tokens,
    webhooks, welcome,
};
use crate::http::state::{HttpDependencies, HttpState};
use crate::tasks;

/// All routes, ready to be served. Client addresses are known where the server adds
/// `ConnectInfo<SocketAddr>` to requests.
pub fn router(dependencies: HttpDependencies) -> Router {
    let other_routes = dependencies.other_routes.clone();
    let tokens = tokens::load(&dependencies.store);
    let state = Arc::new(HttpState::new(dependencies, tokens));
    let sampling = rates::sample_until_closed(Arc::downgrade(&state.rates), state.feed.closing());
    drop(tasks::spawn("rates", sampling));
    let routes = table()
        .layer(from_fn_with_state(Arc::clone(&state), body::set_body_limits))
        .with_state(Arc::clone(&state));
    let routes = routes.merge(other_routes.method_not_allowed_fallback(method_not_allowed));
    path::normalize_paths(layers::wrap(routes, &state.config))
}

/// The table of routes. Each group has its own rule for `Accept`.
fn table() -> Router<Arc<HttpState>> {
    let api = Router::new()
        .route("/api/health", get(health::health))
        .route("/api/v1/killmails", get(killmails::list).post(add::add))
        .route("/api/v1/killmails/search", post(killmails::search))
        .route("/api/v1/killmails/count", get(killmails::count).post(killmails::count_search))
        .route("/api/v1/killmail/{id}", get(killmails::by_id))
        .route("/api/v1/kills/system/{id}", get(kills::newest_in_system))
        .route("/api/v1/kills/systems", post(kills::newest_in_systems))
        .route("/api/v1/kills/cached/{id}", get(kills::cached))
        .route("/api/v1/kills/count/{id}", get(kills::count))
        .route("/api/v1/systems/{id}/killmails", get(kills::system_killmails))
        .route("/api/v1/systems/bulk/killmails", post(kills::bulk))
        .route("/api/v1/characters/{id}/killmails", get(kills::character_killmails))
        .route("/api/systems/{id}/kills", get(kills::system_kills))
        .route("/api/v1/subscriptions", get(subscriptions::list).post(webhooks::create))
        .route("/api/v1/subscriptions/stats", get(subscriptions::stats).delete(webhooks::remove_stats))
        .route(
            "/api/v1/subscriptions/{id}",
            get(webhooks::show).patch(webhooks::change).delete(webhooks::remove),
        )
        .route("/api/v1/subscriptions/{id}/pause", post(webhooks::pause))
        .route("/api/v1/subscriptions/{id}/resume", post(webhooks::resume))
        .route("/api/v1/subscriptions/{id}/test", post(webhooks::test))
        .route("/api/v1/subscriptions/{id}/redeliver", post(webhooks::redeliver))
        .route("/api/v1/subscriptions/{id}/rotate-secret", post(webhooks::rotate_secret))
        .route("/api/v1/subscriptions/{id}/attempts", get(webhooks::attempts))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/api/v1/tokens/{name}", delete(tokens::revoke))
        .route("/api/v1/plugins", get(plugins::list))
        .route("/api/v1/plugins/{name}", get(plugins::detail).put(plugins::upload).delete(plugins::delete))
        .route("/api/v1/plugins/{name}/versions", get(plugins::versions))
        .route("/api/v1/plugins/uploads/{upload_id}", get(plugins::upload_state))
        .route("/api/v1/plugins/{name}/promote", post(plugins::promote))
        .route("/api/v1/plugins/{name}/rollback", post(plugins::rollback))
        .route_layer(from_fn(negotiation::require_json));
    let plain = Router::new()
        .route("/ping", get(health::ping))
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/status", get(status::status))
        .route("/metrics", get(metrics::metrics))
        .route("/metrics/prometheus", get(metrics::prometheus))
        .route_layer(from_fn(negotiation::require_json_or_text));
    let pages = Router::new().route("/", get(welcome::page)).route_layer(from_fn(negotiation::require_html));
    let streams = Router::new()
        .route("/sse", get(stream::basic).post(stream::basic))
        .route("/api/v1/kills/stream", get(stream::basic).post(stream::basic))
        .route("/api/v1/kills/stream/enhanced", get(stream::enhanced).post(stream::enhanced))
        .route("/api/v1/kills/stream/cleanup", get(debug_disabled))
        .route("/api/v1/kills/stream/stats", get(debug_disabled))
        .route("/api/v1/kills/stream/test", get(debug_disabled))
        .route("/api/v1/export", get(export::export))
        .route("/api/v1/backup", post(backup::backup));
    let mirror = Router::new()
        .route("/ephemeral/sequence.json", get(mirror::sequence))
        .route("/ephemeral/{file}", get(mirror::numbered_file))
        .route("/history/totals.json", get(mirror::totals))
        .route("/history/{file}", get(mirror::hashes))
        .route("/history/raw/{file}", get(mirror::bodies));
    api.merge(plain)
        .merge(pages)
        .merge(streams)
        .merge(mirror)
        .fallback(path_not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

async fn path_not_found(request: Request) -> Error {
    let path = request.uri().path();
    if path == "/api/v1" || path.starts_with("/api/v1/") {
        Error::ApiPathNotFound
    } else {
        Error::PathNotFound
    }
}

async fn debug_disabled() -> Error {
    Error::DebugDisabled
}

async fn method_not_allowed() -> Error {
    Error::MethodNotAllowed { allow: None }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::header::{ACCEPT, ALLOW};
    use axum::response::Response;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    /// The layers around a few routes that need no state.
    fn app() -> Router {
        let routes = Router::new()
            .route("/ping", get(health::ping))
            .route("/crash", get(|| async { panic!("on purpose") as &'static str }))
            .route_layer(from_fn(negotiation::require_json_or_text));
        layers::wrap(
            routes.fallback(path_not_found).method_not_allowed_fallback(method_not_allowed),
            &config::Config::default(),
        )
    }

    async fn send(request: axum::http::request::Builder) -> Response {
        app().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn json_of(response: Response) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn unknown_paths_have_the_envelope_of_their_api() {
        let plain = send(Request::get("/nope")).await;
        assert_eq!(plain.status(), 404);
        assert_eq!(json_of(plain).await, json!({ "error": "Not Found", "status": "404" }));
        let api = json_of(send(Request::delete("/api/v1/nope")).await).await;
        assert_eq!(
            (&api["code"], &api["details"], &api["error"]),
            (&json!("NOT_FOUND"), &Value::Null, &json!("Not Found"))
        );
    }

    #[tokio::test]
    async fn a_wrong_method_names_the_right_ones() {
        let response = send(Request::post("/ping")).await;
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD");
        assert_eq!(json_of(response).await, json!({ "error": "Method Not Allowed", "status": "405" }));
    }

    #[tokio::test]
    async fn every_response_has_a_request_id_and_a_cache_rule() {
        let id = "0123456789012345678901234567ab";
        let response = send(Request::get("/ping").header("x-request-id", id)).await;
        assert_eq!(response.headers()["x-request-id"], id);
        assert_eq!(response.headers()["cache-control"], "max-age=0, private, must-revalidate");
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        for short in ["0123456789", ""] {
            let response = send(Request::get("/nope").header("x-request-id", short)).await;
            assert_eq!(response.headers()["x-request-id"].len(), 32);
        }
    }

    #[tokio::test]
    async fn pages_of_other_origins_may_read() {
        let response = send(
            Request::options("/ping")
                .header("origin", "http://x")
                .header("access-control-request-method", "GET"),
        )
        .await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["access-control-allow-origin"]),
            (200, &"*".parse().unwrap())
        );
    }

    #[tokio::test]
    async fn a_client_that_accepts_nothing_we_send_gets_406() {
        let response = send(Request::get("/ping").header(ACCEPT, "image/png")).await;
        assert_eq!(response.status(), 406);
        assert_eq!(json_of(response).await, json!({ "error": "Not Acceptable", "status": "406" }));
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_a_request_id() {
        let response = send(Request::get("/crash")).await;
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(json_of(response).await, json!({ "error": "Internal Server Error", "status": "500" }));
    }
}
