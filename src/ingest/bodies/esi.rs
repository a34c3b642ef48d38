//! ESI: the bodies of killmails by id and hash, through the one limiter whoever asks.
//!
//! Rules are CCP's (esi-docs): no version in the path, a compatibility date in a header, limits as the
//! headers tell.
//!
//! Must not know: why a body is wanted, what becomes of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use tokio::time::Instant;

use crate::ingest::bodies::esi_limiter::{Bucket, Limiter, Said};
use crate::ingest::client;
use crate::telemetry::fallback_status::Requests;

/// Hex digits of a hash.
const HASH_LENGTH: usize = 40;

/// How ESI is asked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Scheme and host; paths are appended.
    pub base_url: String,
    /// What `User-Agent` says.
    pub user_agent: String,
    /// The version of the API, a date.
    pub compatibility_date: String,
    /// A request ends after this, milliseconds.
    pub timeout_ms: u64,
    /// A longer body is a failure, bytes.
    pub body_max_bytes: usize,
    /// The bucket of killmails until ESI tells its own.
    pub bucket: Bucket,
}

/// A body that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none under this id and hash, and never will be.
    #[error("ESI has no such killmail (status {0})")]
    Never(u16),
    /// It says that there is no such pair of id and hash, as it also does for right ones under load.
    #[error("ESI says that id and hash do not belong together (status 422)")]
    Unmatched,
    /// The hash is none.
    #[error("the hash is not 40 hex digits")]
    Hash,
    /// Not now.
    #[error("ESI answers {0}")]
    Status(u16),
    /// No connection, a timeout, a broken answer.
    #[error(transparent)]
    Http(#[from] client::Error),
}

impl Error {
    /// Whether asking again is of no use.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Never(_) | Self::Hash)
    }
}

/// ESI, as we may ask it.
#[derive(Debug)]
pub struct Esi {
    config: Config,
    client: Client,
    limiter: Mutex<Limiter>,
    started: Instant,
}

impl Esi {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn new(config: Config) -> Result<Self, client::Error> {
        let client =
            client::new(&config.user_agent, &config.base_url, Duration::from_millis(config.timeout_ms))?;
        let limiter = Mutex::new(Limiter::new(config.bucket));
        Ok(Self { config, client, limiter, started: Instant::now() })
    }

    /// The body of a killmail; waits for its turn. Every request that is sent is counted.
    ///
    /// # Errors
    /// There is none, or none to be had now.
    pub async fn killmail(&self, killmail_id: u32, hash: &str, counts: &Requests) -> Result<Bytes, Error> {
        // It becomes part of an address.
        if hash.len() != HASH_LENGTH || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::Hash);
        }
        self.turn().await;
        counts.sent.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let answer = self.ask(&format!("{}/killmails/{killmail_id}/{hash}", self.config.base_url)).await;
        counts
            .took_ms
            .fetch_add(u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        counts.failed.fetch_add(u64::from(answer.is_err()), Ordering::Relaxed);
        answer
    }

    async fn ask(&self, url: &str) -> Result<Bytes, Error> {
        let asked =
            self.client.get(url).header("x-compatibility-date", &self.config.compatibility_date).send().await;
        let response = match asked {
            Ok(response) => response,
            Err(error) => {
                self.limiter.lock().failed(self.now_ms());
                return Err(Error::Http(error.into()));
            }
        };
        let said = said(response.status(), response.headers());
        self.limiter.lock().answered(&said, self.now_ms());
        match said.status {
            200 => Ok(client::body(response, self.config.body_max_bytes).await?),
            status @ (404 | 410) => Err(Error::Never(status)),
            422 => Err(Error::Unmatched),
            status => Err(Error::Status(status)),
        }
    }

    /// Waits until the limiter lets a question pass.
    async fn turn(&self) {
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

/// What an answer says about limits.
fn said(status: StatusCode, headers: &HeaderMap) -> Said {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
    let secs = |name: &str| number(name).map(|secs| secs.saturating_mul(1_000));
    Said {
        status: status.as_u16(),
        limit: text("x-ratelimit-limit").and_then(limit),
        remaining: number("x-ratelimit-remaining"),
        retry_after_ms: secs(RETRY_AFTER.as_str()),
        errors_remain: number("x-esi-error-limit-remain"),
        errors_reset_ms: secs("x-esi-error-limit-reset"),
    }
}

/// `3600/15m`: tokens, and the window in milliseconds.
fn limit(text: &str) -> Option<(u64, u64)> {
    let (tokens, window) = text.split_once('/')?;
    let unit_ms = match window.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        _ => return None,
    };
    let count: u64 = window[..window.len() - 1].parse().ok()?;
    Some((tokens.parse().ok()?, count.checked_mul(unit_ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_the_headers() {
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
        let expected = Said {
            status: 200,
            limit: Some((3600, 900_000)),
            remaining: Some(3598),
            retry_after_ms: Some(7_000),
            errors_remain: Some(98),
            errors_reset_ms: Some(35_000),
        };
        assert_eq!(said(StatusCode::OK, &headers), expected);
        assert_eq!(said(StatusCode::OK, &HeaderMap::new()), Said { status: 200, ..Said::default() });
        for nonsense in ["", "3600", "3600/", "x/15m", "3600/15", "3600/m", "1/é"] {
            assert_eq!(limit(nonsense), None, "{nonsense}");
        }
    }

    #[tokio::test]
    async fn what_is_no_hash_never_becomes_an_address() {
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
