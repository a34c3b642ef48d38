//! The description and status of the channel transport: where to connect, its limits, how many connections are open.
//!
//! Must not know: who is connected.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use serde_json::{Value, json};

use crate::phoenix::ChannelState;
use crate::phoenix::join::LOBBY;
use crate::wire::text;
use crate::wire::time::iso_micros_now;

/// `GET /websocket` without an upgrade.
#[must_use]
pub fn about(state: &ChannelState, parts: &Parts) -> Response {
    let config = &state.config;
    let host = text(&parts.headers, HOST.as_str()).or_else(|| parts.uri.host()).unwrap_or("localhost");
    let secure = text(&parts.headers, "x-forwarded-proto")
        .is_some_and(|proto| proto.split(',').next().is_some_and(is_secure));
    let (scheme, plain, port) = if secure { ("wss", "https", ":443") } else { ("ws", "http", ":80") };
    let host = host.strip_suffix(port).unwrap_or(host);
    json_response(&json!({
        "websocket_url": format!("{scheme}://{host}/socket"),
        "protocol": "Phoenix Channels",
        "version": "2.0.0",
        "channels": { "killmails": LOBBY },
        "authentication": { "required": false, "type": "none", "description": "Everyone may connect." },
        "limits": {
            "max_systems_per_subscription": config.systems_max,
            "max_characters_per_subscription": config.characters_max,
            "max_topics_per_connection": config.topics_max,
            "max_connections": config.max_connections,
            "max_frame_bytes": config.frame_max_bytes,
            "timeout_seconds": config.idle_ms.div_ceil(1000),
            "rate_limit": "none",
        },
        "documentation": { "url": format!("{plain}://{host}/"), "examples": "examples/clients" },
    }))
}

fn is_secure(proto: &str) -> bool {
    matches!(proto.trim(), "https" | "wss")
}

/// `GET /websocket/status`.
pub async fn status(State(state): State<Arc<ChannelState>>) -> Response {
    let open = state.open();
    // Above nine tenths of the limit an operator should act.
    let word = match open {
        _ if state.feed.is_closing() => "error",
        open if open >= state.config.max_connections - state.config.max_connections / 10 => "degraded",
        _ => "operational",
    };
    json_response(&json!({
        "status": word,
        "active_connections": open,
        "active_subscriptions": state.counters.subscribed(),
        "uptime_seconds": state.started.elapsed().map_or(0, |time| time.as_secs()),
        "timestamp": iso_micros_now(),
    }))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(text::json(value)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}
