//! Tests of `error`.

use axum::body::to_bytes;

use super::*;

/// The status, envelope, and code or type of each variant. Does not compile if a variant is missing.
fn expected(error: &Error) -> (u16, &'static str, &'static str) {
    match error {
        Error::SystemId | Error::SystemWindow(_) | Error::SystemFormat { .. } => {
            (400, "kills", "INVALID_SYSTEM_ID")
        }
        Error::SystemIds => (400, "kills", "INVALID_SYSTEM_IDS"),
        Error::Window(_) | Error::Parameter { .. } => (400, "kills", "INVALID_PARAMETERS"),
        Error::KillmailId => (400, "kills", "INVALID_KILLMAIL_ID"),
        Error::KillmailNotFound | Error::NotFound { .. } | Error::ApiPathNotFound => {
            (404, "kills", "NOT_FOUND")
        }
        Error::Unauthorized => (401, "kills", "UNAUTHORIZED"),
        Error::Forbidden { .. } => (403, "kills", "FORBIDDEN"),
        Error::PluginTooLarge { .. } => (413, "kills", "PLUGIN_TOO_LARGE"),
        Error::InvalidPlugin { .. } => (422, "kills", "INVALID_PLUGIN"),
        Error::PluginPreparing { .. } => (503, "kills", "PLUGIN_PREPARING"),
        Error::PluginUnusable { .. } => (503, "kills", "PLUGIN_UNUSABLE"),
        Error::Busy { .. } | Error::DiskFull { .. } => (503, "kills", "LIMIT_REACHED"),
        Error::Closing => (503, "kills", "CLOSING"),
        Error::Failed { .. } => (500, "kills", "FETCH_ERROR"),
        Error::Subscription { .. } => (400, "subscription", "text"),
        Error::Stream { .. } => (400, "stream", "invalid_format"),
        Error::StreamFailed { .. } => (503, "stream", "evaluator_limit_reached"),
        Error::ConnectionLimit => (503, "limit", "connection_limit_reached"),
        Error::HealthCheck { .. } => (503, "stream", "health_check_failed"),
        Error::DebugDisabled => (403, "debug", "forbidden"),
        Error::BadRequest => (400, "framework", "Bad Request"),
        Error::PathNotFound => (404, "framework", "Not Found"),
        Error::MethodNotAllowed { .. } => (405, "framework", "Method Not Allowed"),
        Error::NotAcceptable => (406, "framework", "Not Acceptable"),
        Error::TooLarge { .. } => (413, "limited", "Request Entity Too Large"),
        Error::SlowBody { .. } => (408, "limited", "Request Timeout"),
        Error::Internal => (500, "framework", "Internal Server Error"),
    }
}

fn all() -> Vec<Error> {
    let text = || "text".to_owned();
    vec![
        Error::SystemId,
        Error::SystemIds,
        Error::SystemWindow(OutOfRange { field: "limit", limit: Some(1000) }),
        Error::SystemFormat { message: text() },
        Error::Window(OutOfRange { field: "hours", limit: None }),
        Error::KillmailId,
        Error::KillmailNotFound,
        Error::parameter("limit", "text"),
        Error::Parameter { field: text(), message: text(), limit: Some(7) },
        Error::Subscription { message: text() },
        Error::NotFound { what: "Plugin" },
        Error::ApiPathNotFound,
        Error::Unauthorized,
        Error::Forbidden { scope: "admin" },
        Error::PluginTooLarge { max_bytes: 5, setting: text() },
        Error::InvalidPlugin { reason: text(), message: text(), limit: None },
        Error::PluginPreparing { message: text() },
        Error::PluginUnusable { message: text() },
        Error::Busy { message: text(), limit: 3 },
        Error::DiskFull { message: text() },
        Error::Failed { message: text() },
        Error::Closing,
        Error::Stream { message: text() },
        Error::StreamFailed {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "evaluator_limit_reached",
            message: text(),
        },
        Error::ConnectionLimit,
        Error::HealthCheck { reason: text() },
        Error::DebugDisabled,
        Error::BadRequest,
        Error::PathNotFound,
        Error::MethodNotAllowed { allow: None },
        Error::NotAcceptable,
        Error::TooLarge { limit: 9, setting: "http.body_max_bytes" },
        Error::SlowBody { min_bytes: 9, window_ms: 5 },
        Error::Internal,
    ]
}

#[tokio::test]
async fn every_error_has_its_envelope() {
    for error in all() {
        let (status, envelope, word) = expected(&error);
        let response = error.clone().into_response();
        assert_eq!(response.status().as_u16(), status, "{error:?}");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json; charset=utf-8");
        let body: Value =
            serde_json::from_slice(&to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap();
        let keys: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        match envelope {
            "kills" => {
                assert_eq!(keys, ["code", "details", "error", "timestamp"], "{error:?}");
                assert_eq!(body["code"], word);
                assert_eq!(body["error"], error.to_string());
            }
            "stream" => {
                let keys: Vec<&str> = body["error"].as_object().unwrap().keys().map(String::as_str).collect();
                assert_eq!(keys, ["details", "domain", "message", "retryable", "type"], "{error:?}");
                assert_eq!(body["error"]["type"], word);
            }
            "limit" => {
                assert_eq!(body, json!({ "error": { "type": word, "message": error.to_string() } }))
            }
            "limited" => {
                assert_eq!(
                    (&body["error"], &body["status"], &body["limit"]),
                    (&json!(word), &json!(status.to_string()), &json!(9))
                );
                assert!(body["message"].as_str().unwrap().contains("9 bytes"), "{body}");
            }
            "subscription" => {
                assert_eq!(body, json!({ "error": { "message": word, "details": word } }));
            }
            "debug" => assert_eq!((&body["code"], &body["error"]), (&json!(word), &json!("Forbidden"))),
            _ => assert_eq!(body, json!({ "error": word, "status": status.to_string() })),
        }
    }
}

#[tokio::test]
async fn an_unusable_plugin_is_not_retryable() {
    for (kind, retryable) in [(PLUGIN_UNUSABLE, false), ("plugin_preparing", true), ("limit_reached", true)] {
        let error =
            Error::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, kind, message: "text".to_owned() };
        assert_eq!(error.body()["error"]["retryable"], retryable, "{kind}");
        assert_eq!(error.into_response().headers().contains_key(RETRY_AFTER), retryable, "{kind}");
    }
}

#[test]
fn every_variant_is_tested() {
    let tested: std::collections::HashSet<_> = all().iter().map(std::mem::discriminant).collect();
    assert_eq!(tested.len(), 33);
}
