//! The API as commands ask it: over HTTP at a running server, or straight at the house on a free data folder.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use serde_json::Value;

use crate::cli::target::Target;
use crate::config::Config;
use crate::ingest::client;
use crate::server::app::{Answer, App};
use crate::server::token;

/// Uploads and imports may take long on a busy server.
const TIMEOUT: Duration = Duration::from_secs(300);
/// A body that is not simply sent in one go.
const LARGE_BYTES: usize = 64 << 10;
const ANSWER_MAX_BYTES: usize = 1 << 30;

const JSON: &str = "application/json";

/// Someone who answers the API.
pub enum Api {
    Remote { client: reqwest::Client, base: String, token: Option<String> },
    Local { app: Box<App>, grace: Duration },
}

impl Api {
    /// Reaches the server, or opens the data folder, in which there must be a store.
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        if target.server.is_none() {
            target.folder.existing()?;
        }
        Self::open_or_make(target).await
    }

    /// The same, but a data folder without a store gets one.
    pub async fn open_or_make(target: &Target) -> anyhow::Result<Self> {
        if let Some(server) = &target.server {
            let base = server.clone();
            let client = client::new(&client::user_agent(Some("command line")), &base, TIMEOUT)?;
            return Ok(Self::Remote { client, base, token: target.token.clone() });
        }
        let mut config = Config::default();
        config.server.data_dir.clone_from(&target.folder.data_dir);
        config.store.dir.clone_from(&target.folder.data_dir);
        // The command answers itself: the folder's own token is made when a server is first started on it.
        config.server.api_token = Some(token::random()?);
        let grace = Duration::from_millis(config.server.grace_ms);
        Ok(Self::Local { app: Box::new(App::open(config, Arc::default(), 0).await?), grace })
    }

    /// Asks; an answer that is no success is an error with the server's own words.
    pub async fn ask(&self, method: &str, path: &str, kind: &str, body: Bytes) -> anyhow::Result<Value> {
        let Answer { status, body } = match self {
            Self::Remote { client, base, token } => {
                let method = reqwest::Method::from_bytes(method.as_bytes())?;
                let bytes = body.len();
                let mut request =
                    client.request(method, format!("{base}{path}")).header("content-type", kind).body(body);
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                let response = request.send().await.map_err(|error| unsent(error, base, bytes))?;
                let status = response.status().as_u16();
                Answer { status, body: client::body(response, ANSWER_MAX_BYTES).await? }
            }
            Self::Local { app, .. } => app.ask(method, path, kind, body).await?,
        };
        let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status} {}", told(&answer, &body));
        }
        Ok(answer)
    }

    /// Asks without a body.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, JSON, Bytes::new()).await
    }

    /// Asks with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask("POST", path, JSON, Bytes::from(body.to_string())).await
    }

    /// Lets go of the data folder.
    pub async fn close(self) {
        if let Self::Local { app, grace } = self {
            app.release(grace).await;
        }
    }
}

/// A request that got no answer; one with a large body may have been cut off amid it.
fn unsent(error: reqwest::Error, base: &str, bytes: usize) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    let was_cut = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
        )
    });
    if was_cut && bytes > LARGE_BYTES {
        return error.context(format!(
            "{base} closed the connection before it had all {bytes} bytes; it does not take so much at once"
        ));
    }
    let cause = error.root_cause().to_string();
    anyhow::anyhow!("{base} does not answer: {cause}")
}

/// The server's own words in a failure, whatever its envelope.
pub fn told(answer: &Value, body: &[u8]) -> String {
    let error = &answer["error"];
    let message = error["message"].as_str().or(error.as_str()).or(answer["message"].as_str());
    let details = [&answer["details"], &error["details"]].into_iter().find(|details| !details.is_null());
    match (message, details) {
        (Some(message), Some(Value::Object(details))) => {
            let details: Vec<String> =
                details.iter().map(|(name, value)| format!("{name}: {}", bare(value))).collect();
            format!("{message} ({})", details.join(", "))
        }
        (Some(message), Some(details)) => format!("{message} ({})", bare(details)),
        (Some(message), None) => message.to_owned(),
        (None, _) => String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned(),
    }
}

/// A value without quotes around it.
fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A text as it stands in a query string or path.
#[must_use]
pub fn escaped(text: &str) -> String {
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
    fn texts_are_escaped() {
        assert_eq!(escaped("{\"a\": 1}&é"), "%7B%22a%22:%201%7D%26%C3%A9");
        assert_eq!(escaped("30000142,30000144"), "30000142,30000144");
    }

    #[test]
    fn every_envelope_gives_its_words() {
        assert_eq!(
            told(&json!({"error": "no", "code": "X", "details": {"field": "a"}}), b""),
            "no (field: a)"
        );
        assert_eq!(told(&json!({"error": {"type": "x", "message": "bad"}}), b""), "bad");
        assert_eq!(told(&Value::Null, b"<html>"), "<html>");
    }
}
