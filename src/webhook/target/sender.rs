//! Sends one request to the URL of a webhook, and tells what came of it.
//!
//! No redirects, since they could lead anywhere; no proxy of the environment, since it would resolve names itself
//! and may reach more than this machine; no cookies.
//!
//! Must not know: what is sent, and what follows from the answer.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::time::Instant;

use crate::domain::safe_text;
use crate::tls;
use crate::webhook::config::Config;
use crate::webhook::target::callback_url::CallbackUrl;
use crate::webhook::target::lookup::{self, Lookup};
use crate::webhook::target::resolver::Resolver;
use crate::webhook::target::target_error::TargetError;
use crate::webhook::target::target_policy::TargetPolicy;

/// Connections kept for a host that may need another request soon, and how long: a run of killmails arrives within
/// seconds. Each is a file of the process.
const IDLE_CONNECTIONS_PER_HOST: usize = 2;
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// Texts of the system and of TLS, which quotes certificates, are cut here.
const ERROR_BYTES: usize = 300;

/// Names and values of headers.
pub type HeaderPairs<'a> = &'a [(&'a str, &'a str)];

/// Sends requests to URLs that may be called.
#[derive(Debug, Clone)]
pub struct Sender {
    client: Client,
    targets: TargetPolicy,
    connect_timeout: Duration,
    timeout: Duration,
    answer_bytes_max: usize,
}

/// The client cannot be set up: the user agent is not a header value, or the system has no certificates.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the client for webhooks: {0}")]
pub struct SetupError(String);

/// A request that was made, or could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What came of it.
    pub answer: Answer,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The server answered.
    Status {
        /// The HTTP status.
        status: u16,
        /// The text of `Retry-After`.
        retry_after: Option<String>,
        /// The beginning of the body, as long as it arrived in time.
        body: Bytes,
    },
    /// It did not, or the URL may not be called.
    Failed {
        /// What failed, without the URL.
        error: String,
    },
}

impl Sender {
    /// A sender that finds names as the system does.
    ///
    /// # Errors
    /// The client cannot be set up.
    pub fn new(config: &Config) -> Result<Self, SetupError> {
        Self::with_lookup(config, lookup::system(config.lookups_max))
    }

    /// A sender that finds names in its own way.
    ///
    /// # Errors
    /// The client cannot be set up.
    pub fn with_lookup(config: &Config, lookup: Lookup) -> Result<Self, SetupError> {
        tls::install_provider();
        let targets = TargetPolicy::new(config);
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
        let timeout = Duration::from_millis(config.timeout_ms);
        let client = Client::builder()
            .dns_resolver(Resolver::new(lookup, targets.addresses().clone()))
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            // Not offered, so that the limit on answers is one on what arrives.
            .gzip(false)
            .user_agent(&config.user_agent)
            .connect_timeout(connect_timeout)
            .timeout(timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
            .pool_idle_timeout(IDLE_CONNECTION)
            .build()
            .map_err(|error| SetupError(innermost(&error)))?;
        Ok(Self { client, targets, connect_timeout, timeout, answer_bytes_max: config.answer_bytes_max })
    }

    /// The rules for URLs, to check one before it is kept.
    #[must_use]
    pub const fn targets(&self) -> &TargetPolicy {
        &self.targets
    }

    /// Posts JSON. The URL is checked again: the rules may have changed since it was kept.
    pub async fn post(&self, url: &CallbackUrl, headers: HeaderPairs<'_>, body: Bytes) -> Attempt {
        let start = Instant::now();
        let answer = self.exchange(url, headers, body).await.unwrap_or_else(|error| Answer::Failed { error });
        let duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Attempt { answer, duration_ms }
    }

    async fn exchange(
        &self,
        url: &CallbackUrl,
        headers: HeaderPairs<'_>,
        body: Bytes,
    ) -> Result<Answer, String> {
        // Addresses as hosts are never resolved, so only this stops them.
        self.targets.check(url).map_err(|error| error.to_string())?;
        let headers = header_map(headers)?;
        let request = self.client.post(url.url().clone()).headers(headers).body(body);
        let mut response = request.send().await.map_err(|error| self.describe(&error))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let body = beginning(&mut response, self.answer_bytes_max).await;
        Ok(Answer::Status { status, retry_after, body })
    }

    /// What went wrong, without the URL, which may contain a secret.
    fn describe(&self, error: &reqwest::Error) -> String {
        if let Some(forbidden) = causes(error).find_map(|cause| cause.downcast_ref::<TargetError>()) {
            return safe_text::sanitize(&forbidden.to_string(), ERROR_BYTES);
        }
        match (error.is_timeout(), error.is_connect()) {
            (true, true) => format!("no connection within {} ms", self.connect_timeout.as_millis()),
            (true, false) => format!("no answer within {} ms", self.timeout.as_millis()),
            (false, true) => format!("cannot connect: {}", innermost(error)),
            (false, false) => format!("the request failed: {}", innermost(error)),
        }
    }
}

fn header_map(headers: HeaderPairs<'_>) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::with_capacity(headers.len() + 1);
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        let pair = HeaderName::try_from(*name).ok().zip(HeaderValue::try_from(*value).ok());
        let (name, value) = pair.ok_or_else(|| format!("the header {name} has no valid value"))?;
        map.insert(name, value);
    }
    Ok(map)
}

/// The body up to a limit. If it breaks off, the status counts and what arrived of the body is kept.
async fn beginning(response: &mut Response, bytes_max: usize) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = bytes_max - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    body.freeze()
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// The text of the cause farthest down, which says most.
fn innermost(error: &reqwest::Error) -> String {
    let text = causes(error).last().map_or_else(|| "unknown cause".to_owned(), ToString::to_string);
    safe_text::sanitize(&text, ERROR_BYTES)
}
