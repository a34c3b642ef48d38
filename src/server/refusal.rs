//! What a connection is told that is refused before any route is asked: whole answers, as they go over the
//! socket.
//!
//! Must not know: when a connection is refused.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::server::connection::Config;
use crate::server::head::{TooLong, URL_MAX_BYTES};

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many are open.
    Full {
        /// How many may be.
        max: usize,
    },
    /// The head was not whole in time.
    Slow,
    /// The head is too long.
    TooLong(TooLong),
    /// The bytes of all requests together are at their limit.
    Memory {
        /// The limit.
        max_bytes: u64,
    },
    /// HTTP/1.1 names one host.
    Host,
}

impl Refusal {
    const fn status(self) -> (u16, &'static str) {
        match self {
            Self::Full { .. } | Self::Memory { .. } => (503, "Service Unavailable"),
            Self::Slow => (408, "Request Timeout"),
            Self::TooLong(TooLong::Line) => (414, "URI Too Long"),
            Self::TooLong(TooLong::Headers | TooLong::Lines) => (431, "Request Header Fields Too Large"),
            Self::Host => (400, "Bad Request"),
        }
    }

    fn message(self, config: &Config) -> (String, Option<u64>) {
        match self {
            Self::Full { max } => {
                let why = "the open file limit less reserved_files";
                (format!("Too many open connections (max {max}): {why}"), Some(max as u64))
            }
            Self::Slow => {
                let limit = config.head_ms;
                (
                    format!("the header of a request must be whole within {limit} ms (connections.head_ms)"),
                    Some(limit),
                )
            }
            Self::TooLong(TooLong::Line) => {
                let hint = "every GET with a filter has a POST form that takes the same names as JSON";
                (format!("a URL may have {URL_MAX_BYTES} bytes; {hint}"), Some(URL_MAX_BYTES as u64))
            }
            Self::TooLong(TooLong::Headers) => {
                let limit = config.headers_max_bytes;
                (
                    format!("header lines may have {limit} bytes together (connections.headers_max_bytes)"),
                    Some(limit as u64),
                )
            }
            Self::TooLong(TooLong::Lines) => {
                let limit = config.headers_max_lines;
                (
                    format!("a request may have {limit} header lines (connections.headers_max_lines)"),
                    Some(limit as u64),
                )
            }
            Self::Memory { max_bytes } => (
                format!(
                    "requests on their way fill {max_bytes} bytes of memory (http.in_flight_max_bytes); try again"
                ),
                Some(max_bytes),
            ),
            Self::Host => ("an HTTP/1.1 request has exactly one Host header".to_owned(), None),
        }
    }

    fn body(self, config: &Config) -> Value {
        let (status, words) = self.status();
        let (message, limit) = self.message(config);
        if matches!(self, Self::Full { .. }) {
            let details = json!({ "limit": limit, "setting": "reserved_files" });
            return json!({ "error": { "type": "connection_limit_reached", "message": message, "details": details } });
        }
        let mut body = json!({ "error": words, "status": status.to_string(), "message": message });
        if let Some(limit) = limit {
            body["limit"] = limit.into();
        }
        body
    }

    /// The answer to a request that was read.
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

    /// The whole answer as it goes over the socket.
    #[must_use]
    pub fn text(self, config: &Config) -> String {
        let (status, words) = self.status();
        let retry = if status == 503 { "retry-after: 5\r\n" } else { "" };
        let body = self.body(config).to_string();
        format!(
            "HTTP/1.1 {status} {words}\r\ncontent-type: application/json; charset=utf-8\r\n{retry}connection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_whole_answer_that_names_its_limit() {
        let all = [
            (Refusal::Full { max: 7 }, "503", r#""details":{"limit":7,"setting":"reserved_files"}"#),
            (Refusal::Slow, "408", "10000 ms (connections.head_ms)"),
            (Refusal::TooLong(TooLong::Line), "414", "65534 bytes"),
            (
                Refusal::TooLong(TooLong::Headers),
                "431",
                "65536 bytes together (connections.headers_max_bytes)",
            ),
            (Refusal::TooLong(TooLong::Lines), "431", "100 header lines (connections.headers_max_lines)"),
            (Refusal::Memory { max_bytes: 9 }, "503", "9 bytes of memory (http.in_flight_max_bytes)"),
            (Refusal::Host, "400", "exactly one Host header"),
        ];
        for (refusal, status, words) in all {
            let text = refusal.text(&Config::default());
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
