//! The ESI client: the body of a killmail by id and hash. All requests go through one rate limiter.
//!
//! The rules are CCP's (`docs/sources.md`): no version in the path, a compatibility date in a header, limits
//! as stated in the headers of responses.
//!
//! Must not know: why a body is requested, what becomes of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use reqwest::{Client, StatusCode};
use tokio::time::Instant;

use crate::ingest::bodies::esi_limiter::{Bucket, BucketSize, Limiter, Limits};
use crate::ingest::client;
use crate::telemetry::fallback_status::Requests;

/// The length of a hash, hex digits.
const HASH_LENGTH: usize = 40;

#[derive(Debug, Clone)]
pub struct Config {
    /// Scheme and host; paths are appended.
    pub base_url: String,
    pub user_agent: String,
    /// The version of the API: a date.
    pub compatibility_date: String,
    pub timeout_ms: u64,
    /// A longer body counts as a failure, bytes.
    pub body_max_bytes: usize,
    /// The token bucket of the killmail route, until ESI states its own.
    pub bucket: Bucket,
}

/// Why a body could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 404 or 410: there is no killmail of this id and hash, and never will be.
    #[error("ESI has no such killmail (status {0})")]
    Never(u16),
    /// ESI says that id and hash do not belong together, as it also does for valid pairs while under load.
    #[error("ESI says that id and hash do not belong together (status 422)")]
    Unmatched,
    #[error("the hash is not 40 hex digits")]
    Hash,
    /// Any other status: the request may succeed later.
    #[error("ESI responded with status {0}")]
    Status(u16),
    /// No connection, a timeout, or a response that broke off.
    #[error(transparent)]
    Http(#[from] client::Error),
}

impl Error {
    /// Whether a retry is pointless.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Never(_) | Self::Hash)
    }
}

/// The ESI client.
#[derive(Debug)]
pub struct Esi {
    config: Config,
    client: Client,
    limiter: Mutex<Limiter>,
    started: Instant,
}

impl Esi {
    /// Sends no request yet.
    ///
    /// # Errors
    /// The HTTP client cannot be created.
    pub fn new(config: Config) -> Result<Self, client::Error> {
        let client =
            client::new(&config.user_agent, &config.base_url, Duration::from_millis(config.timeout_ms))?;
        let limiter = Mutex::new(Limiter::new(config.bucket));
        Ok(Self { config, client, limiter, started: Instant::now() })
    }

    /// Fetches the body of a killmail, after waiting for the rate limiter. Counts every request that is sent.
    ///
    /// # Errors
    /// There is no such killmail, or it cannot be fetched now.
    pub async fn killmail(&self, killmail_id: u32, hash: &str, counts: &Requests) -> Result<Bytes, Error> {
        // The hash becomes part of the URL.
        if hash.len() != HASH_LENGTH || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::Hash);
        }
        self.wait_for_limiter().await;
        counts.sent.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        let result = self.request(&format!("{}/killmails/{killmail_id}/{hash}", self.config.base_url)).await;
        counts
            .took_ms
            .fetch_add(u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        counts.failed.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
        result
    }

    async fn request(&self, url: &str) -> Result<Bytes, Error> {
        let sent =
            self.client.get(url).header("x-compatibility-date", &self.config.compatibility_date).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                self.limiter.lock().note_no_response(self.now_ms());
                return Err(Error::Http(error.into()));
            }
        };
        let limits = parse_limits(response.status(), response.headers());
        self.limiter.lock().note_response(&limits, self.now_ms());
        match limits.status {
            200 => Ok(client::body(response, self.config.body_max_bytes).await?),
            status @ (404 | 410) => Err(Error::Never(status)),
            422 => Err(Error::Unmatched),
            status => Err(Error::Status(status)),
        }
    }

    /// Waits until the limiter allows a request.
    async fn wait_for_limiter(&self) {
        loop {
            let reserved = self.limiter.lock().reserve(self.now_ms());
            let Err(until_ms) = reserved else { return };
            tokio::time::sleep_until(self.started + Duration::from_millis(until_ms)).await;
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a response says about limits.
fn parse_limits(status: StatusCode, headers: &HeaderMap) -> Limits {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
    let retry_after = client::retry_after(headers);
    Limits {
        status: status.as_u16(),
        bucket: text("x-ratelimit-limit").and_then(parse_bucket),
        remaining: number("x-ratelimit-remaining"),
        retry_after_ms: retry_after.and_then(|wait| u64::try_from(wait.as_millis()).ok()),
        errors_remain: number("x-esi-error-limit-remain"),
        errors_reset_ms: number("x-esi-error-limit-reset").map(|secs| secs.saturating_mul(1_000)),
    }
}

/// Parses `3600/15m`: tokens and window.
fn parse_bucket(text: &str) -> Option<BucketSize> {
    let (tokens, window) = text.split_once('/')?;
    let unit_ms = match window.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        _ => return None,
    };
    let count: u64 = window[..window.len() - 1].parse().ok()?;
    Some(BucketSize { tokens: tokens.parse().ok()?, window_ms: count.checked_mul(unit_ms)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_parsed_from_the_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-ratelimit-group", "killmail"),
            ("x-ratelimit-limit", "3600/15m"),
            ("x-ratelimit-remaining", "3598"),
            ("retry-after", "7"),
            ("x-esi-error-limit-remain", "98"),
            ("x-esi-error-limit-reset", "35"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let expected = Limits {
            status: 200,
            bucket: Some(BucketSize { tokens: 3600, window_ms: 900_000 }),
            remaining: Some(3598),
            retry_after_ms: Some(7_000),
            errors_remain: Some(98),
            errors_reset_ms: Some(35_000),
        };
        assert_eq!(parse_limits(StatusCode::OK, &headers), expected);
        assert_eq!(
            parse_limits(StatusCode::OK, &HeaderMap::new()),
            Limits { status: 200, ..Limits::default() }
        );
        for nonsense in ["", "3600", "3600/", "x/15m", "3600/15", "3600/m", "1/é"] {
            assert_eq!(parse_bucket(nonsense), None, "{nonsense}");
        }
    }

    #[tokio::test]
    async fn an_invalid_hash_never_becomes_part_of_a_url() {
        let bucket = Bucket { tokens: 100, window_ms: 1_000, spare_percent: 0 };
        let esi = Esi::new(Config {
            base_url: "http://127.0.0.1:9".to_owned(),
            user_agent: "tests".to_owned(),
            compatibility_date: "2026-08-18".to_owned(),
            timeout_ms: 1_000,
            body_max_bytes: 1_000,
            bucket,
        });
        let counts = Requests::default();
        for hash in ["", "../../meta/status", &"g".repeat(40)] {
            let error = esi.as_ref().unwrap().killmail(1, hash, &counts).await.unwrap_err();
            assert!(error.is_final(), "{hash}: {error}");
        }
        assert_eq!(counts.sent.into_inner(), 0, "nothing was sent");
    }
}
