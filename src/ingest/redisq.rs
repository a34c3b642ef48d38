//! A RedisQ-compatible queue: the server remembers what this queue id has not received and returns one
//! package per request.
//!
//! zKillboard's own RedisQ ended in May 2026; self-hosted ones and EVE-KILL's use the same protocol
//! (`docs/sources.md`). A package may only name its killmail. A returned package is gone from the queue, so a
//! crash before it is on disk loses it here; the first source delivers it as well.
//!
//! Must not know: who stores the killmails; who fetches bodies.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::ingest::arrival::Arrival;
use crate::ingest::backoff::Trouble;
use crate::ingest::client;
use crate::ingest::source_link::SourceLink;
use crate::wire::read::json::without_bom;
use crate::wire::read::package::to_valid_json;

#[derive(Debug, Clone)]
pub struct Config {
    /// The URL of the queue; `/listen.php` is added if it has no path.
    pub url: String,
    pub user_agent: String,
    /// The name by which the queue remembers us.
    pub queue_id: String,
    /// How long the queue may hold a request until there is a package, seconds (1 to 10).
    pub wait_secs: u64,
    /// The minimum time between the starts of two requests.
    pub pace: Duration,
    /// How long after the wait a request times out.
    pub timeout: Duration,
    /// A longer response counts as a failure, bytes.
    pub document_max_bytes: usize,
}

/// Follows a queue.
#[derive(Debug)]
pub struct Redisq {
    config: Config,
    url: Url,
    client: Client,
    link: SourceLink,
    next_at: Instant,
}

/// A failed request.
struct Failed(Trouble, String);

#[derive(Deserialize)]
struct Response<'a> {
    /// `null` if there is nothing new, but always present.
    #[serde(borrow)]
    package: &'a RawValue,
}

/// Whether a response contains a package; `None` if it is not the response of a queue.
fn has_package(body: &[u8]) -> Option<bool> {
    let body = to_valid_json(without_bom(body))?;
    let response: Response<'_> =
        body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(&body).ok())??;
    match response.package.get() {
        "null" => Some(false),
        package => package.starts_with('{').then_some(true),
    }
}

/// Why a queue cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is not a URL")]
    Url(String),
    #[error(transparent)]
    Client(#[from] client::Error),
}

impl Redisq {
    /// Sends no request yet.
    ///
    /// # Errors
    /// The URL is malformed, or the HTTP client cannot be created.
    pub fn new(config: Config, link: SourceLink) -> Result<Self, Error> {
        let mut url = Url::parse(&config.url).map_err(|_| Error::Url(config.url.clone()))?;
        if url.path() == "/" {
            url.set_path("/listen.php");
        }
        let wait = config.wait_secs.clamp(1, 10);
        url.query_pairs_mut().append_pair("queueID", &config.queue_id).append_pair("ttw", &wait.to_string());
        let client =
            client::new(&config.user_agent, &config.url, config.timeout + Duration::from_secs(wait))?;
        tracing::info!("following the queue {} as {}", config.url, config.queue_id);
        Ok(Self { config, url, client, link, next_at: Instant::now() })
    }

    /// Sends requests until there is a package.
    pub async fn next(&mut self) -> Arrival {
        loop {
            tokio::time::sleep_until(self.next_at).await;
            let sent = Instant::now();
            self.link.count_request();
            let received = self.request().await;
            self.next_at = sent + self.config.pace;
            match received {
                Ok(None) => self.link.note_success(),
                Ok(Some(document)) => {
                    self.link.note_success();
                    return self.link.parse(document);
                }
                Err(Failed(trouble, why)) => {
                    self.next_at = Instant::now() + self.link.note_failure(trouble, &why)
                }
            }
        }
    }

    /// The whole response, if it contains a package.
    async fn request(&self) -> Result<Option<Bytes>, Failed> {
        let failed =
            |error: &client::Error| Failed(Trouble::Failed, format!("the queue does not respond: {error}"));
        let response = client::get(&self.client, self.url.as_str()).await.map_err(|error| failed(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failed(
                    Trouble::Limited(client::retry_after(response.headers())),
                    "the queue responded: too many requests (429)".to_owned(),
                ));
            }
            status @ (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => {
                return Err(Failed(
                    Trouble::Forbidden,
                    format!("the queue refuses us ({})", status.as_u16()),
                ));
            }
            status => {
                return Err(Failed(
                    Trouble::Failed,
                    format!("the queue responded with status {}", status.as_u16()),
                ));
            }
        }
        let body =
            client::body(response, self.config.document_max_bytes).await.map_err(|error| failed(&error))?;
        match has_package(&body) {
            Some(true) => Ok(Some(body)),
            Some(false) => Ok(None),
            None => Err(Failed(
                Trouble::Failed,
                "the queue responded 200 with something other than a package".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_null_package_means_that_nothing_is_new() {
        for (text, expected) in [
            (r#"{"package":null}"#, Some(false)),
            (r#" {"package": null, "more": 1}"#, Some(false)),
            (r#"{"package":{"killID":1}}"#, Some(true)),
            ("{}", None),
            (r#"{"error":"busy"}"#, None),
            (r#"{"package":"x"}"#, None),
            (r#"{"package":[]}"#, None),
            ("[null]", None),
            ("<html>", None),
            (r#"{"package":{"killID""#, None),
            ("", None),
        ] {
            assert_eq!(has_package(text.as_bytes()), expected, "{text}");
        }
    }
}
