//! Error responses: every failure of a request is a variant of [`Error`], with its status, code and envelope.
//! The envelopes are those of the older service. Errors of lower floors are turned into variants by
//! `error_from`.
//!
//! Must not know: how a request came to fail.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::wire::{text, time};

/// A number beside an id is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange {
    pub field: &'static str,
    /// The largest value, where there is one; the smallest is 1.
    pub limit: Option<u64>,
}

/// The error type of a stream whose plugin cannot run any more.
pub const PLUGIN_UNUSABLE: &str = "plugin_unusable";

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Kills API: the solar system, or any parameter beside it, is not acceptable.
    #[error("Invalid system ID format")]
    SystemId,
    /// Kills API: no usable list of solar systems.
    #[error("Invalid system IDs")]
    SystemIds,
    /// Kills API: a number beside the id of a solar system. The message is that for the id, as in the older
    /// service; the details name the number.
    #[error("Invalid system ID format")]
    SystemWindow(OutOfRange),
    /// Kills API: the `format` beside the id of a solar system, likewise.
    #[error("Invalid system ID format")]
    SystemFormat {
        /// What is wrong with it.
        message: String,
    },
    /// Kills API: a number beside a list of systems or the id of a character.
    #[error("Invalid parameters")]
    Window(OutOfRange),
    /// Kills API: not a killmail id.
    #[error("Invalid killmail ID format")]
    KillmailId,
    /// Kills API: the store does not have it.
    #[error("Killmail not found")]
    KillmailNotFound,
    /// One named parameter cannot be understood or is over its limit.
    #[error("{message}")]
    Parameter {
        field: String,
        /// What is wrong with it.
        message: String,
        /// The limit it broke, where there is one.
        limit: Option<u64>,
    },
    /// A request to create or change a webhook is wrong.
    #[error("{message}")]
    Subscription {
        /// Exactly the text of WandererKills where it has the check.
        message: String,
    },
    /// A plugin, token or upload of that name does not exist.
    #[error("{what} not found")]
    NotFound {
        /// The kind of thing, capitalised.
        what: &'static str,
    },
    /// No such path under `/api/v1`.
    #[error("Not Found")]
    ApiPathNotFound,
    /// No token, or a wrong one.
    #[error("a valid token is required: Authorization: Bearer <token>")]
    Unauthorized,
    /// The token is valid but lacks a scope.
    #[error("the token lacks the scope {scope}")]
    Forbidden {
        /// The scope the request needs.
        scope: &'static str,
    },
    /// An uploaded component is over the limit.
    #[error("the component is larger than {max_bytes} bytes ({setting})")]
    PluginTooLarge {
        max_bytes: u64,
        /// The setting it comes from.
        setting: String,
    },
    /// An uploaded component was refused.
    #[error("the component was refused: {reason}")]
    InvalidPlugin {
        /// One of a closed set of words.
        reason: String,
        /// What exactly is wrong with it.
        message: String,
        /// The limit it broke, where there is one.
        limit: Option<u64>,
    },
    /// The plugin is being compiled; trying again soon helps.
    #[error("{message}")]
    PluginPreparing { message: String },
    /// The plugin could run once, but today's limits or compiler refuse it.
    #[error("{message}")]
    PluginUnusable {
        /// Which one, and why.
        message: String,
    },
    /// A limit of the server is reached; trying later helps.
    #[error("{message}")]
    Busy {
        /// Which limit, and its value.
        message: String,
        limit: u64,
    },
    /// The disk is full; once there is room, trying again helps.
    #[error("{message}")]
    DiskFull {
        /// Which folder it is.
        message: String,
    },
    /// The server failed: a disk error, or a task that panicked.
    #[error("{message}")]
    Failed { message: String },
    /// The server is stopping.
    #[error("the server is stopping")]
    Closing,
    /// A parameter of a stream is wrong.
    #[error("{message}")]
    Stream {
        /// Exactly the text of the older service.
        message: String,
    },
    /// The server cannot open a stream.
    #[error("{message}")]
    StreamFailed {
        /// 500, or 503 where trying later helps.
        status: StatusCode,
        /// The error type.
        kind: &'static str,
        message: String,
    },
    /// A limit on open streams is reached.
    #[error("Too many active SSE connections")]
    ConnectionLimit,
    /// The health check itself failed.
    #[error("Health check failed")]
    HealthCheck { reason: String },
    /// The request cannot be understood.
    #[error("Bad Request")]
    BadRequest,
    /// No such path.
    #[error("Not Found")]
    PathNotFound,
    /// The path is known, but not with this method.
    #[error("Method Not Allowed")]
    MethodNotAllowed {
        /// The methods it has, for the `Allow` header.
        allow: Option<HeaderValue>,
    },
    /// A route that the older service has in development only.
    #[error("Debug endpoints are disabled in production")]
    DebugDisabled,
    /// The client accepts no media type that the route sends.
    #[error("Not Acceptable")]
    NotAcceptable,
    /// The body is over the limit.
    #[error("Request Entity Too Large")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
        /// The setting it comes from.
        setting: &'static str,
    },
    /// The body arrives too slowly, or not at all.
    #[error("Request Timeout")]
    SlowBody {
        /// Bytes that must arrive in each window.
        min_bytes: u64,
        /// The length of the window, milliseconds.
        window_ms: u64,
    },
    /// The handler panicked.
    #[error("Internal Server Error")]
    Internal,
}

impl Error {
    /// [`Error::Parameter`] without a limit.
    pub fn parameter(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Parameter { field: field.into(), message: message.into(), limit: None }
    }

    /// The same error in the envelope of streams, for errors in reading the body of a stream request.
    #[must_use]
    pub fn in_stream_envelope(self) -> Self {
        match self {
            Self::Parameter { message, .. } => Self::Stream { message },
            Self::Busy { message, .. } => {
                Self::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, kind: "limit_reached", message }
            }
            other => other,
        }
    }

    /// Logs an internal failure, once and here, and returns it as an error.
    pub fn failed(what: impl std::fmt::Display) -> Self {
        tracing::error!(error = %what, "a request failed: {what}");
        Self::Failed { message: what.to_string() }
    }

    /// The status of the response.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::SystemId
            | Self::SystemWindow(_)
            | Self::SystemFormat { .. }
            | Self::SystemIds
            | Self::Window(_)
            | Self::KillmailId => StatusCode::BAD_REQUEST,
            Self::Parameter { .. } | Self::Stream { .. } | Self::Subscription { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } | Self::DebugDisabled => StatusCode::FORBIDDEN,
            Self::KillmailNotFound | Self::NotFound { .. } | Self::ApiPathNotFound | Self::PathNotFound => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::PluginTooLarge { .. } | Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::InvalidPlugin { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Failed { .. } | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy { .. } | Self::Closing | Self::ConnectionLimit | Self::HealthCheck { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::PluginPreparing { .. } | Self::PluginUnusable { .. } | Self::DiskFull { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::StreamFailed { status, .. } => *status,
        }
    }

    /// The code in the kills envelope; `None` for errors that use another envelope.
    const fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::SystemId | Self::SystemWindow(_) | Self::SystemFormat { .. } => "INVALID_SYSTEM_ID",
            Self::SystemIds => "INVALID_SYSTEM_IDS",
            Self::Window(_) | Self::Parameter { .. } => "INVALID_PARAMETERS",
            Self::KillmailId => "INVALID_KILLMAIL_ID",
            Self::KillmailNotFound | Self::NotFound { .. } | Self::ApiPathNotFound => "NOT_FOUND",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden { .. } => "FORBIDDEN",
            Self::PluginTooLarge { .. } => "PLUGIN_TOO_LARGE",
            Self::InvalidPlugin { .. } => "INVALID_PLUGIN",
            Self::PluginPreparing { .. } => "PLUGIN_PREPARING",
            Self::PluginUnusable { .. } => "PLUGIN_UNUSABLE",
            Self::Busy { .. } | Self::DiskFull { .. } => "LIMIT_REACHED",
            Self::Closing => "CLOSING",
            Self::Failed { .. } => "FETCH_ERROR",
            _ => return None,
        })
    }

    fn details(&self) -> Value {
        match self {
            Self::SystemWindow(OutOfRange { field, limit: Some(limit) })
            | Self::Window(OutOfRange { field, limit: Some(limit) }) => {
                json!({ "field": field, "message": format!("{field} must be between 1 and {limit}"), "limit": limit })
            }
            Self::SystemWindow(OutOfRange { field, .. }) | Self::Window(OutOfRange { field, .. }) => {
                json!({ "field": field, "message": format!("{field} must be a positive integer") })
            }
            Self::Parameter { field, message, limit } => match limit {
                Some(limit) => json!({ "field": field, "message": message, "limit": limit }),
                None => json!({ "field": field, "message": message }),
            },
            Self::SystemFormat { message } => json!({ "field": "format", "message": message }),
            Self::Forbidden { scope } => json!({ "scope": scope }),
            Self::PluginTooLarge { max_bytes, setting } => json!({ "limit": max_bytes, "setting": setting }),
            Self::InvalidPlugin { reason, message, limit } => match limit {
                Some(limit) => json!({ "reason": reason, "message": message, "limit": limit }),
                None => json!({ "reason": reason, "message": message }),
            },
            Self::Busy { limit, .. } => json!({ "limit": limit }),
            Self::DiskFull { .. } => json!({ "reason": "disk_full" }),
            Self::Failed { message } => json!({ "reason": message }),
            _ => Value::Null,
        }
    }

    /// The error as JSON, for a response that reports it but succeeds itself.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "error": self.to_string(), "code": self.code(), "details": self.details() })
    }

    fn body(&self) -> Value {
        let text = self.to_string();
        if let Some(code) = self.code() {
            return json!({ "error": text, "code": code, "details": self.details(), "timestamp": time::iso_micros_now() });
        }
        match self {
            Self::Stream { .. } => structured("validation", "invalid_format", &text, &Value::Null, false),
            Self::Subscription { .. } => json!({ "error": { "message": text, "details": text } }),
            // Trying again does not help until another version is uploaded or a limit is changed.
            Self::StreamFailed { kind, .. } => {
                structured("sse", kind, &text, &Value::Null, *kind != PLUGIN_UNUSABLE)
            }
            Self::HealthCheck { reason } => {
                let details = json!({ "reason": reason, "timestamp": time::iso_micros_now() });
                structured("system", "health_check_failed", &text, &details, false)
            }
            Self::ConnectionLimit => {
                json!({ "error": { "type": "connection_limit_reached", "message": text } })
            }
            // The older service has an envelope of its own for this.
            Self::DebugDisabled => json!({ "error": "Forbidden", "code": "forbidden", "message": text }),
            Self::TooLarge { limit, setting } => {
                let message = format!("the body is larger than {limit} bytes ({setting})");
                json!({ "error": text, "status": "413", "message": message, "limit": limit })
            }
            Self::SlowBody { min_bytes, window_ms } => {
                let message = format!(
                    "at least {min_bytes} bytes of the body must arrive in each {window_ms} ms (http.body_window_min_bytes)"
                );
                json!({ "error": text, "status": "408", "message": message, "limit": min_bytes })
            }
            _ => json!({ "error": text, "status": self.status().as_u16().to_string() }),
        }
    }
}

/// The envelope of streams and of a failed health check.
fn structured(domain: &str, kind: &str, message: &str, details: &Value, retryable: bool) -> Value {
    json!({ "error": { "domain": domain, "type": kind, "message": message, "details": details, "retryable": retryable } })
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(text::json(&self.body())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        match self {
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Busy { .. }
            | Self::DiskFull { .. }
            | Self::PluginPreparing { .. }
            | Self::Closing
            | Self::ConnectionLimit
            | Self::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, .. }
                if !matches!(self, Self::StreamFailed { kind: PLUGIN_UNUSABLE, .. }) =>
            {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::MethodNotAllowed { allow: Some(allow) } => {
                headers.insert(ALLOW, allow);
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
