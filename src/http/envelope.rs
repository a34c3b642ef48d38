//! The shapes around what this door says.
//!
//! Must not know: what is inside.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Now, ISO 8601 UTC with microseconds.
#[must_use]
pub fn now() -> String {
    Timestamp::try_from(SystemTime::now()).map(|t| t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()).unwrap_or_default()
}

/// The kills envelope of a failure.
#[must_use]
pub fn kills_error(message: &str, code: &str, details: Value) -> Value {
    json!({ "error": message, "code": code, "details": details, "timestamp": now() })
}

/// The envelope of a stream's failure.
#[must_use]
pub fn stream_error(domain: &str, kind: &str, message: &str, details: Value, retryable: bool) -> Value {
    json!({ "error": { "domain": domain, "type": kind, "message": message, "details": details, "retryable": retryable } })
}

/// The framework's envelope of a failure.
#[must_use]
pub fn framework_error(reason: &str, status: u16) -> Value {
    json!({ "error": reason, "status": status.to_string() })
}
