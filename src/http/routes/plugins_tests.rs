//! The routes of plugins over a real feed.
//!
//! Must not know: how a component is checked.

use std::time::SystemTime;

use axum::Router;
use axum::body::to_bytes;
use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::body_requests::BodyRequests;
use crate::feed::{self, Feed};
use crate::http;
use crate::plugin::engine::Engine;
use crate::plugin::limits;
use crate::plugins::plugin_history::StoreHistory;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::webhook;
use crate::webhook::webhooks::Webhooks;
use crate::wire::killmail;
use crate::wire::query::limits::Limits;

const HIGH_VALUE: &[u8] = include_bytes!("../../../plugins/prebuilt/high-value.wasm");
const WATCHLIST: &[u8] = include_bytes!("../../../plugins/prebuilt/watchlist.wasm");

struct Api {
    router: Router,
    /// Removed on drop.
    _dir: TempDir,
}

fn api(limits: limits::Config) -> Api {
    let dir = tempfile::tempdir().unwrap();
    let config = store::config::Config {
        dir: dir.path().to_owned(),
        min_free_bytes: 0,
        ..store::config::Config::default()
    };
    let store = Store::open(config, killmail::encode).unwrap();
    let engine = Engine::new(
        limits::Config { compile_here: true, ..limits },
        Arc::new(StoreHistory::new(&store)),
        killmail::json,
    )
    .unwrap();
    let body_requests = Arc::new(BodyRequests::new(store.clone(), 0));
    let plugins = Plugins::open(store.clone(), engine, Vec::new()).unwrap();
    let feed =
        Feed::start(store.clone(), plugins.clone(), Arc::default(), feed::config::Config::default()).unwrap();
    let (config, token) = (http::config::Config::default(), "secret".to_owned());
    let query_limits = Limits { plugin_config_bytes: 8 << 10 };
    let webhooks =
        Webhooks::open(feed.clone(), store.clone(), webhook::config::Config::default(), query_limits)
            .unwrap();
    let dependencies = http::state::HttpDependencies {
        feed,
        store,
        plugins,
        webhooks,
        telemetry: Telemetry::default(),
        body_requests,
        config,
        query_limits,
        token,
        started: SystemTime::now(),
        connections: Arc::default(),
        in_flight: Arc::default(),
        other_routes: Router::new(),
    };
    Api { router: http::router(dependencies), _dir: dir }
}

impl Api {
    async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: impl Into<Body>,
    ) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(format!("/api/v1/plugins{path}"));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn write(&self, method: &str, path: &str, body: impl Into<Body>) -> (u16, Value) {
        self.send(method, path, Some("secret"), body).await
    }

    async fn read(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, None, "").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_uploaded_listed_shown_and_deleted() {
    let api = api(limits::Config::default());
    let (status, first) = api.write("PUT", "/mine", HIGH_VALUE).await;
    assert_eq!(
        (status, &first["data"]["state"], &first["data"]["name"]),
        (201, &json!("active"), &json!("mine"))
    );
    assert_eq!(first["data"]["size_bytes"], HIGH_VALUE.len());
    assert!(first["data"]["digest"].as_str().unwrap().starts_with("sha256:"));
    assert!(first["timestamp"].is_string());
    assert_eq!(api.write("PUT", "/mine", HIGH_VALUE).await.0, 200);
    let (status, second) = api.write("PUT", "/mine?instance=fresh", WATCHLIST).await;
    assert_eq!(
        (status, &second["data"]["state"], &second["data"]["instance"]),
        (201, &json!("uploaded"), &json!("fresh"))
    );

    let (status, list) = api.read("").await;
    assert_eq!(
        (status, &list["data"]["count"], &list["data"]["plugins"][0]["name"]),
        (200, &json!(1), &json!("mine"))
    );
    let (status, one) = api.read("/mine").await;
    assert_eq!(
        (status, &one["data"]["digest"], &one["data"]["faults"]),
        (200, &first["data"]["digest"], &json!({}))
    );
    assert_eq!(
        (&one["data"]["calls"], &one["data"]["keeps"], &one["data"]["drops"]),
        (&json!(0), &json!(0), &json!(0))
    );
    assert_eq!(one["data"]["versions"].as_array().unwrap().len(), 2);

    // The response says that it waits to be promoted, and how.
    assert_eq!(first["data"].get("message"), None);
    let message = second["data"]["message"].as_str().unwrap();
    let digest = second["data"]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    assert!(message.contains("/api/v1/plugins/mine/promote") && message.contains(&digest[..12]), "{message}");

    let promotion = json!({ "digest": digest[..8] }).to_string();
    let (status, promoted) = api.write("POST", "/mine/promote", promotion).await;
    assert_eq!((status, &promoted["data"]["digest"]), (200, &second["data"]["digest"]));
    let (status, back) = api.write("POST", "/mine/rollback", "").await;
    assert_eq!((status, &back["data"]["digest"]), (200, &first["data"]["digest"]));

    let (status, gone) = api.write("DELETE", "/mine", "").await;
    assert_eq!((status, &gone["data"]), (200, &json!({ "name": "mine" })));
    for (method, path) in [("GET", "/mine"), ("DELETE", "/mine"), ("POST", "/mine/rollback")] {
        let (status, body) = api.write(method, path, "").await;
        assert_eq!((status, &body["code"]), (404, &json!("NOT_FOUND")), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_need_a_token() {
    let api = api(limits::Config::default());
    let requests = [("PUT", "/a"), ("DELETE", "/a"), ("POST", "/a/promote"), ("POST", "/a/rollback")];
    for (method, path) in requests {
        for token in [None, Some("wrong")] {
            let (status, body) = api.send(method, path, token, "").await;
            assert_eq!((status, &body["code"]), (401, &json!("UNAUTHORIZED")), "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_has_a_status_a_code_and_a_reason() {
    let api = api(limits::Config {
        upload_bytes: 200_000,
        scripting_upload_bytes: 200_000,
        ..limits::Config::default()
    });
    let (status, body) = api.write("PUT", "/mine", "hello").await;
    assert_eq!(
        (status, &body["code"], &body["details"]["reason"]),
        (422, &json!("INVALID_PLUGIN"), &json!("not_wasm"))
    );
    assert!(body["details"]["message"].as_str().unwrap().contains("text"));
    let (status, body) = api.write("PUT", "/mine", &b"\0asm\x01\0\0\0"[..]).await;
    assert_eq!((status, &body["details"]["reason"]), (422, &json!("missing_export")));
    let (status, body) = api.write("PUT", "/mine", vec![0; 200_001]).await;
    assert_eq!(
        (status, &body["code"], &body["details"]["limit"]),
        (413, &json!("PLUGIN_TOO_LARGE"), &json!(200_000))
    );
    for path in ["/Mine", "/mine?promote=yes", "/mine?instance=cold", "/mine?colour=red"] {
        let (status, body) = api.write("PUT", path, HIGH_VALUE).await;
        assert_eq!((status, &body["code"]), (400, &json!("INVALID_PARAMETERS")), "{path}");
    }
    api.write("PUT", "/mine", HIGH_VALUE).await;
    for body in ["{}", "{\"digest\":\"sha256:00\"}", "{\"digest\":\"sha256:0000000000\"}"] {
        let (status, body) = api.write("POST", "/mine/promote", body).await;
        assert_eq!((status, &body["details"]["field"]), (400, &json!("digest")));
    }
    assert_eq!(api.write("POST", "/mine/rollback", "").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_be_larger_than_other_bodies() {
    let dir_limit = limits::Config { upload_bytes: 20 << 20, ..limits::Config::default() };
    let api = api(dir_limit);
    // Larger than `body_max_bytes`; refused for its content, not for its size.
    let (status, body) = api.write("PUT", "/mine", vec![b'x'; 9_000_000]).await;
    assert_eq!((status, &body["details"]["reason"]), (422, &json!("not_wasm")));
}
