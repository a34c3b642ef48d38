//! Errors of a connection or request that are answered before any route is reached, as complete responses.
//!
//! Must not know: when they occur.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::server::connection::Config;
use crate::server::request_head::{TooLong, URL_MAX_BYTES};

/// Why a connection or request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionError {
    /// Too many connections are open.
    Full { max: usize },
    /// The head of the request was not complete in time.
    HeadTimeout,
    /// The head of the request is too long.
    TooLong(TooLong),
    /// All requests in memory have reached their common limit.
    Memory {
        /// The limit, bytes.
        max_bytes: u64,
    },
    /// An HTTP/1.1 request without exactly one `Host` header.
    HostHeader,
}

impl ConnectionError {
    const fn status(self) -> (u16, &'static str) {
        match self {
            Self::Full { .. } | Self::Memory { .. } => (503, "Service Unavailable"),
            Self::HeadTimeout => (408, "Request Timeout"),
            Self::TooLong(TooLong::RequestLine) => (414, "URI Too Long"),
            Self::TooLong(TooLong::Headers | TooLong::HeaderCount) => {
                (431, "Request Header Fields Too Large")
            }
            Self::HostHeader => (400, "Bad Request"),
        }
    }

    fn message(self, config: &Config) -> (String, Option<u64>) {
        match self {
            Self::Full { max } => {
                let why = "the open file limit less reserved_files";
                (format!("Too many open connections (max {max}): {why}"), Some(max as u64))
            }
            Self::HeadTimeout => {
                let limit = config.head_ms;
                (
                    format!(
                        "the headers of a request must be complete within {limit} ms (connections.head_ms)"
                    ),
                    Some(limit),
                )
            }
            Self::TooLong(TooLong::RequestLine) => {
                let hint = "every GET with a filter has a POST form that takes the same parameters as JSON";
                (format!("a URL may have at most {URL_MAX_BYTES} bytes; {hint}"), Some(URL_MAX_BYTES as u64))
            }
            Self::TooLong(TooLong::Headers) => {
                let limit = config.headers_max_bytes;
                (
                    format!(
                        "all headers together may have at most {limit} bytes (connections.headers_max_bytes)"
                    ),
                    Some(limit as u64),
                )
            }
            Self::TooLong(TooLong::HeaderCount) => {
                let limit = config.headers_max_lines;
                (
                    format!("a request may have at most {limit} headers (connections.headers_max_lines)"),
                    Some(limit as u64),
                )
            }
            Self::Memory { max_bytes } => (
                format!(
                    "requests in progress use all {max_bytes} bytes of memory they may have (http.in_flight_max_bytes); try again"
                ),
                Some(max_bytes),
            ),
            Self::HostHeader => ("an HTTP/1.1 request must have exactly one Host header".to_owned(), None),
        }
    }

    fn body(self, config: &Config) -> Value {
        let (status, reason) = self.status();
        let (message, limit) = self.message(config);
        if matches!(self, Self::Full { .. }) {
            let details = json!({ "limit": limit, "setting": "reserved_files" });
            return json!({ "error": { "type": "connection_limit_reached", "message": message, "details": details } });
        }
        let mut body = json!({ "error": reason, "status": status.to_string(), "message": message });
        if let Some(limit) = limit {
            body["limit"] = limit.into();
        }
        body
    }

    /// The response to a request that hyper has read.
    #[must_use]
    pub fn response(self, config: &Config) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body(config).to_string()));
        *response.status_mut() = StatusCode::from_u16(self.status().0).unwrap_or(StatusCode::BAD_REQUEST);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// The complete response, to be written to the socket.
    #[must_use]
    pub fn to_http(self, config: &Config) -> String {
        let (status, reason) = self.status();
        let retry = if status == 503 { "retry-after: 5\r\n" } else { "" };
        let body = self.body(config).to_string();
        format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json; charset=utf-8\r\n{retry}connection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_complete_response_that_names_its_limit() {
        let all = [
            (ConnectionError::Full { max: 7 }, "503", r#""details":{"limit":7,"setting":"reserved_files"}"#),
            (ConnectionError::HeadTimeout, "408", "10000 ms (connections.head_ms)"),
            (ConnectionError::TooLong(TooLong::RequestLine), "414", "65534 bytes"),
            (
                ConnectionError::TooLong(TooLong::Headers),
                "431",
                "65536 bytes (connections.headers_max_bytes)",
            ),
            (
                ConnectionError::TooLong(TooLong::HeaderCount),
                "431",
                "100 headers (connections.headers_max_lines)",
            ),
            (
                ConnectionError::Memory { max_bytes: 9 },
                "503",
                "9 bytes of memory they may have (http.in_flight_max_bytes)",
            ),
            (ConnectionError::HostHeader, "400", "exactly one Host header"),
        ];
        for (error, status, words) in all {
            let text = error.to_http(&Config::default());
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains("connection: close"),
                "{text}"
            );
            assert!(
                head.contains(&format!("content-length: {}", body.len())) && body.contains(words),
                "{text}"
            );
            assert_eq!(head.contains("retry-after"), status == "503", "{text}");
            assert!(serde_json::from_str::<Value>(body).unwrap().is_object(), "{text}");
        }
    }
}
