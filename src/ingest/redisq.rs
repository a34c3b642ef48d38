//! A RedisQ-compatible queue: the server remembers what this queue id has not had, and hands out one package
//! a request.
//!
//! zKillboard's own ended in May 2026; self-hosted ones and EVE-KILL's speak the same. Packages may only name
//! their killmail. What is handed out is gone from the queue, so a crash between that and our disk loses it
//! here: the first source brings it again.
//!
//! Must not know: who keeps the killmails; who fetches bodies.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::RETRY_AFTER;
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

/// What the follower of a queue is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address of the queue; one without a path gets `/listen.php`.
    pub url: String,
    /// What `User-Agent` says.
    pub user_agent: String,
    /// Under which name the queue remembers us.
    pub queue_id: String,
    /// How long a request waits for a package, seconds (1 to 10).
    pub wait_secs: u64,
    /// The least time between two requests.
    pub pace: Duration,
    /// A request ends so long after the wait.
    pub timeout: Duration,
    /// A longer answer is a failure, bytes.
    pub document_max_bytes: usize,
}

/// A follower of a queue.
#[derive(Debug)]
pub struct Redisq {
    config: Config,
    url: Url,
    client: Client,
    link: SourceLink,
    next_at: Instant,
}

/// A request that gave no answer to take.
struct Failed(Trouble, String);

#[derive(Deserialize)]
struct Answer<'a> {
    /// It is null where there is nothing, but it is there.
    #[serde(borrow)]
    package: &'a RawValue,
}

/// Whether there is a package in an answer; `None` for what is no answer of a queue.
fn has_package(body: &[u8]) -> Option<bool> {
    let body = to_valid_json(without_bom(body))?;
    let answer: Answer<'_> =
        body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(&body).ok())??;
    match answer.package.get() {
        "null" => Some(false),
        package => package.starts_with('{').then_some(true),
    }
}

/// A queue that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("`{0}` is no address")]
    Address(String),
    /// No HTTP client can be made.
    #[error(transparent)]
    Client(#[from] client::Error),
}

impl Redisq {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// The address is none, or no HTTP client can be made.
    pub fn new(config: Config, link: SourceLink) -> Result<Self, Error> {
        let mut url = Url::parse(&config.url).map_err(|_| Error::Address(config.url.clone()))?;
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

    /// Asks until there is a package.
    pub async fn next(&mut self) -> Arrival {
        loop {
            tokio::time::sleep_until(self.next_at).await;
            let asked = Instant::now();
            self.link.asks();
            let answer = self.ask().await;
            self.next_at = asked + self.config.pace;
            match answer {
                Ok(None) => self.link.is_well(),
                Ok(Some(document)) => {
                    self.link.is_well();
                    return self.link.takes(document);
                }
                Err(Failed(trouble, why)) => {
                    self.next_at = Instant::now() + self.link.troubles(trouble, &why)
                }
            }
        }
    }

    /// The whole answer, if there is a package in it.
    async fn ask(&self) -> Result<Option<Bytes>, Failed> {
        let failed =
            |error: &client::Error| Failed(Trouble::Failed, format!("the queue does not answer: {error}"));
        let response = client::get(&self.client, self.url.as_str()).await.map_err(|error| failed(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => {
                let secs = response
                    .headers()
                    .get(RETRY_AFTER)
                    .and_then(|secs| secs.to_str().ok()?.trim().parse().ok());
                return Err(Failed(
                    Trouble::Limited(secs.map(Duration::from_secs)),
                    "the queue says too many requests (429)".to_owned(),
                ));
            }
            status @ (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => {
                return Err(Failed(
                    Trouble::Forbidden,
                    format!("the queue refuses us ({})", status.as_u16()),
                ));
            }
            status => return Err(Failed(Trouble::Failed, format!("the queue answers {}", status.as_u16()))),
        }
        let body =
            client::body(response, self.config.document_max_bytes).await.map_err(|error| failed(&error))?;
        match has_package(&body) {
            Some(true) => Ok(Some(body)),
            Some(false) => Ok(None),
            None => {
                Err(Failed(Trouble::Failed, "the queue answers 200 with what is not a package".to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_package_that_is_null_means_that_nothing_is_new() {
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
