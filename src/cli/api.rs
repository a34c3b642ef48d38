//! The API as commands use it: a running server over HTTP, or an [`App`] opened on the data folder in this
//! process.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use serde_json::Value;

use crate::cli::target::Target;
use crate::config::Config;
use crate::ingest::client;
use crate::server::app::{ApiResponse, App};
use crate::server::token;

/// How long a request may take: uploads and imports are slow on a busy server.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Larger bodies are not sent in one write, so the server may close the connection before it has them.
const LARGE_BYTES: usize = 64 << 10;
const RESPONSE_MAX_BYTES: usize = 1 << 30;

const JSON: &str = "application/json";

/// Where requests go.
pub enum Api {
    Remote { client: reqwest::Client, base: String, token: Option<String> },
    Local { app: Box<App>, grace: Duration },
}

impl Api {
    /// Connects to the server, or opens the data folder, which must hold a store.
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        if target.server.is_none() {
            target.folder.require_store()?;
        }
        Self::open_or_create(target).await
    }

    /// As [`Self::open`], but creates the store if the data folder has none.
    pub async fn open_or_create(target: &Target) -> anyhow::Result<Self> {
        if let Some(server) = &target.server {
            let base = server.clone();
            let client = client::new(&client::user_agent(Some("command line")), &base, TIMEOUT)?;
            return Ok(Self::Remote { client, base, token: target.token.clone() });
        }
        let mut config = Config::default();
        config.server.data_dir.clone_from(&target.folder.data_dir);
        config.store.dir.clone_from(&target.folder.data_dir);
        // Used only by this process. The folder's own token is created when a server first starts on it.
        config.server.api_token = Some(token::random()?);
        let grace = Duration::from_millis(config.server.grace_ms);
        Ok(Self::Local { app: Box::new(App::open(config, Arc::default(), 0).await?), grace })
    }

    /// Sends a request. A response other than 2xx is an error with the server's message.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> anyhow::Result<Value> {
        let ApiResponse { status, body } = match self {
            Self::Remote { client, base, token } => {
                let method = reqwest::Method::from_bytes(method.as_bytes())?;
                let bytes = body.len();
                let mut request = client
                    .request(method, format!("{base}{path}"))
                    .header("content-type", content_type)
                    .body(body);
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                let response =
                    request.send().await.map_err(|error| describe_send_error(error, base, bytes))?;
                let status = response.status().as_u16();
                ApiResponse { status, body: client::body(response, RESPONSE_MAX_BYTES).await? }
            }
            Self::Local { app, .. } => app.request(method, path, content_type, body).await?,
        };
        let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status} {}", error_message(&json, &body));
        }
        Ok(json)
    }

    /// Sends a GET request.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.request("GET", path, JSON, Bytes::new()).await
    }

    /// Sends a POST request with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.request("POST", path, JSON, Bytes::from(body.to_string())).await
    }

    /// Closes the data folder, if one is open.
    pub async fn close(self) {
        if let Self::Local { app, grace } = self {
            app.release(grace).await;
        }
    }
}

/// The error of a request without a response. Servers cut off a large body they do not accept.
fn describe_send_error(error: reqwest::Error, base: &str, bytes: usize) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    let was_cut = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
        )
    });
    if was_cut && bytes > LARGE_BYTES {
        return error.context(format!(
            "{base} closed the connection before all {bytes} bytes were sent; it does not accept a body that large"
        ));
    }
    let cause = error.root_cause().to_string();
    anyhow::anyhow!("{base} does not respond: {cause}")
}

/// The message and details of an error response, in any of the API's error envelopes.
pub fn error_message(json: &Value, body: &[u8]) -> String {
    let error = &json["error"];
    let message = error["message"].as_str().or(error.as_str()).or(json["message"].as_str());
    let details = [&json["details"], &error["details"]].into_iter().find(|details| !details.is_null());
    match (message, details) {
        (Some(message), Some(Value::Object(details))) => {
            let details: Vec<String> =
                details.iter().map(|(name, value)| format!("{name}: {}", unquoted(value))).collect();
            format!("{message} ({})", details.join(", "))
        }
        (Some(message), Some(details)) => format!("{message} ({})", unquoted(details)),
        (Some(message), None) => message.to_owned(),
        (None, _) => String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned(),
    }
}

/// A value as text, a string without its quotes.
fn unquoted(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Percent-encodes a string for a path or query.
#[must_use]
pub fn escape(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~,:".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_are_percent_encoded() {
        assert_eq!(escape("{\"a\": 1}&é"), "%7B%22a%22:%201%7D%26%C3%A9");
        assert_eq!(escape("30000142,30000144"), "30000142,30000144");
    }

    #[test]
    fn every_envelope_gives_its_message() {
        assert_eq!(
            error_message(&json!({"error": "no", "code": "X", "details": {"field": "a"}}), b""),
            "no (field: a)"
        );
        assert_eq!(error_message(&json!({"error": {"type": "x", "message": "bad"}}), b""), "bad");
        assert_eq!(error_message(&Value::Null, b"<html>"), "<html>");
    }
}
