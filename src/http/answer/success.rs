//! Success responses and their JSON envelopes. The JSON of killmails is copied from the store, not encoded
//! again.
//!
//! Must not know: what was asked for.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;

use crate::wire::{text, time};

/// A JSON response.
#[derive(Debug)]
pub struct Json(pub StatusCode, pub Bytes);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.1));
        *response.status_mut() = self.0;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        response
    }
}

impl Json {
    /// A value without an envelope.
    #[must_use]
    pub fn bare(value: &Value) -> Self {
        Self(StatusCode::OK, Bytes::from(text::json(value)))
    }

    /// A value in the `data` envelope.
    #[must_use]
    pub fn data(value: &Value) -> Self {
        Self::data_with_status(StatusCode::OK, value)
    }

    /// A value in the `data` envelope, with another status than 200.
    #[must_use]
    pub fn data_with_status(status: StatusCode, value: &Value) -> Self {
        let mut text = JsonWriter::default();
        text.enveloped(|text| text.push(text::json(value)));
        Self(status, text.finish())
    }
}

/// A JSON text put together from parts.
#[derive(Debug, Default)]
pub struct JsonWriter(Vec<u8>);

impl JsonWriter {
    pub fn push(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        self.0.extend_from_slice(part.as_ref());
        self
    }

    /// Appends a JSON value.
    pub fn value(&mut self, value: impl Into<Value>) -> &mut Self {
        self.push(text::json(&value.into()))
    }

    /// Appends the `data` envelope around what `inside` appends.
    pub fn enveloped(&mut self, inside: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        inside(self.push(r#"{"data":"#));
        self.push(r#","timestamp":""#).push(time::iso_micros_now()).push(r#""}"#)
    }

    /// Takes the text.
    pub fn finish(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.0))
    }
}
