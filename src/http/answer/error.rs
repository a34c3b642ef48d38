//! Failures in this door's words: the only `IntoResponse` for what goes wrong. The envelopes of the older
//! service are kept apart.
//!
//! Must not know: how a request came to fail.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::wire::{text, time};

/// A number beside an id that is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange {
    /// The parameter.
    pub field: &'static str,
    /// The most it may be, where there is a limit; at least it is 1.
    pub limit: Option<u64>,
}

/// The word for a stream whose plugin can no longer run.
pub const PLUGIN_UNUSABLE: &str = "plugin_unusable";

/// What a caller is told.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Kills API: the solar system, or any parameter beside it, is not acceptable.
    #[error("Invalid system ID format")]
    SystemId,
    /// Kills API: no usable list of solar systems.
    #[error("Invalid system IDs")]
    SystemIds,
    /// Kills API: a number beside the id of a solar system, said in the words for the id, as the older
    /// service does.
    #[error("Invalid system ID format")]
    SystemWindow(OutOfRange),
    /// Kills API: a word beside the id of a solar system, likewise.
    #[error("Invalid system ID format")]
    SystemFormat {
        /// What there is.
        message: String,
    },
    /// Kills API: a number beside a list of systems or the id of a character.
    #[error("Invalid parameters")]
    Window(OutOfRange),
    /// Kills API: not a killmail id.
    #[error("Invalid killmail ID format")]
    KillmailId,
    /// Kills API: we do not have it.
    #[error("Killmail not found")]
    Killmail,
    /// One named parameter cannot be understood or is over its limit.
    #[error("{message}")]
    Parameter {
        /// The parameter.
        field: String,
        /// What is wrong with it.
        message: String,
        /// The limit it broke, where there is one.
        limit: Option<u64>,
    },
    /// A named thing of ours does not exist.
    #[error("{what} not found")]
    Missing {
        /// The kind of thing, capitalised.
        what: &'static str,
    },
    /// No such path under `/api/v1`.
    #[error("Not Found")]
    ApiPath,
    /// No token, or a wrong one.
    #[error("a valid token is needed: Authorization: Bearer <token>")]
    Unauthorized,
    /// The token is valid but may not do this.
    #[error("the token lacks the scope {scope}")]
    Forbidden {
        /// The scope it would need.
        scope: &'static str,
    },
    /// An uploaded component is over the limit.
    #[error("the component is larger than {max_bytes} bytes ({setting})")]
    PluginTooLarge {
        /// The limit.
        max_bytes: u64,
        /// The setting that says so.
        setting: String,
    },
    /// An uploaded component was refused.
    #[error("the component was refused: {reason}")]
    InvalidPlugin {
        /// The word, one of a closed set.
        reason: String,
        /// What exactly is wrong with it.
        message: String,
        /// The limit it broke, where there is one.
        limit: Option<u64>,
    },
    /// A plugin is being compiled; it can be used in a moment.
    #[error("{message}")]
    PluginPreparing {
        /// Which one.
        message: String,
    },
    /// A plugin that could run once is refused by today's limits or compiler.
    #[error("{message}")]
    PluginUnusable {
        /// Which one, and why.
        message: String,
    },
    /// A limit of ours is reached; trying later helps.
    #[error("{message}")]
    Busy {
        /// Which limit, and its value.
        message: String,
        /// The limit.
        limit: u64,
    },
    /// The disk is full; once there is room, trying again helps.
    #[error("{message}")]
    DiskFull {
        /// Which folder's.
        message: String,
    },
    /// We could not answer: disk, or work that was lost.
    #[error("{message}")]
    Failed {
        /// What failed.
        message: String,
    },
    /// The server is stopping.
    #[error("the server is stopping")]
    Closing,
    /// A stream's parameter.
    #[error("{message}")]
    Stream {
        /// Exactly as the older service says it.
        message: String,
    },
    /// A stream cannot be opened for a reason that is ours.
    #[error("{message}")]
    StreamFailed {
        /// 500, or 503 where trying later helps.
        status: StatusCode,
        /// The word for the reason.
        kind: &'static str,
        /// What failed.
        message: String,
    },
    /// No slot is free for another stream.
    #[error("Too many active SSE connections")]
    ConnectionLimit,
    /// The health of the server could not be found out.
    #[error("Health check failed")]
    HealthCheck {
        /// Why.
        reason: String,
    },
    /// The request cannot be understood.
    #[error("Bad Request")]
    BadRequest,
    /// No such path.
    #[error("Not Found")]
    Path,
    /// The path is known, the method is not one of its own.
    #[error("Method Not Allowed")]
    Method {
        /// The methods it has, as in `Allow`.
        allow: Option<HeaderValue>,
    },
    /// What the older service shows in development only.
    #[error("Debug endpoints are disabled in production")]
    Debug,
    /// Nothing we could send is among what the caller accepts.
    #[error("Not Acceptable")]
    NotAcceptable,
    /// The body is over the limit.
    #[error("Request Entity Too Large")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
        /// The setting that says so.
        setting: &'static str,
    },
    /// The body comes too slowly, or not at all.
    #[error("Request Timeout")]
    SlowBody {
        /// So many bytes must come.
        min_bytes: u64,
        /// In so many milliseconds.
        window_ms: u64,
    },
    /// A crash.
    #[error("Internal Server Error")]
    Internal,
}

impl Error {
    /// A parameter without a limit to name.
    pub fn parameter(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Parameter { field: field.into(), message: message.into(), limit: None }
    }

    /// The same in the envelope of streams.
    #[must_use]
    pub fn of_stream(self) -> Self {
        match self {
            Self::Parameter { message, .. } => Self::Stream { message },
            Self::Busy { message, .. } => {
                Self::StreamFailed { status: StatusCode::SERVICE_UNAVAILABLE, kind: "limit_reached", message }
            }
            other => other,
        }
    }

    /// Something of ours failed; said once in the log, here.
    pub fn failed(what: impl std::fmt::Display) -> Self {
        tracing::error!(error = %what, "a request failed: {what}");
        Self::Failed { message: what.to_string() }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::SystemId
            | Self::SystemWindow(_)
            | Self::SystemFormat { .. }
            | Self::SystemIds
            | Self::Window(_)
            | Self::KillmailId => StatusCode::BAD_REQUEST,
            Self::Parameter { .. } | Self::Stream { .. } => StatusCode::BAD_REQUEST,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } | Self::Debug => StatusCode::FORBIDDEN,
            Self::Killmail | Self::Missing { .. } | Self::ApiPath | Self::Path => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
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

    /// The code of the kills envelope; `None` for failures that use another envelope.
    const fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::SystemId | Self::SystemWindow(_) | Self::SystemFormat { .. } => "INVALID_SYSTEM_ID",
            Self::SystemIds => "INVALID_SYSTEM_IDS",
            Self::Window(_) | Self::Parameter { .. } => "INVALID_PARAMETERS",
            Self::KillmailId => "INVALID_KILLMAIL_ID",
            Self::Killmail | Self::Missing { .. } | Self::ApiPath => "NOT_FOUND",
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

    /// What is wrong, to stand inside an answer that is not itself a failure.
    #[must_use]
    pub fn inside(&self) -> Value {
        json!({ "error": self.to_string(), "code": self.code(), "details": self.details() })
    }

    fn body(&self) -> Value {
        let text = self.to_string();
        if let Some(code) = self.code() {
            return json!({ "error": text, "code": code, "details": self.details(), "timestamp": time::iso_micros_now() });
        }
        match self {
            Self::Stream { .. } => structured("validation", "invalid_format", &text, &Value::Null, false),
            // A plugin that cannot run stays so until somebody uploads another version or moves a limit.
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
            // Not the words of any envelope but upstream's own for this.
            Self::Debug => json!({ "error": "Forbidden", "code": "forbidden", "message": text }),
            Self::TooLarge { limit, setting } => {
                let message = format!("this body may have {limit} bytes ({setting})");
                json!({ "error": text, "status": "413", "message": message, "limit": limit })
            }
            Self::SlowBody { min_bytes, window_ms } => {
                let message = format!(
                    "a body must bring {min_bytes} bytes in {window_ms} ms (http.body_window_min_bytes)"
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
            Self::Method { allow: Some(allow) } => {
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
