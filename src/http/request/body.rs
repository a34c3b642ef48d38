//! Reads request bodies: within the size limit of the client and the route, at a minimum rate, and within the
//! memory that all bodies share.
//!
//! Must not know: what is in a body.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::budget::{Budget, Share};
use crate::domain::files::is_disk_full;
use crate::http::answer::error::Error;
use crate::http::config::Config;
use crate::http::state::HttpState;

/// Routes whose body may hold a filter: lists of ids are long.
const FILTER_ROUTES: &[&str] = &[
    "/api/v1/killmails/search",
    "/api/v1/killmails/count",
    "/api/v1/kills/stream",
    "/api/v1/kills/stream/enhanced",
    "/sse",
];

#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// The largest size, bytes.
    pub max_bytes: u64,
    /// The setting it comes from.
    pub setting: &'static str,
    window: Duration,
    window_min_bytes: u64,
    budget: Arc<Budget>,
}

impl BodyLimits {
    /// The limits for a client with a token.
    #[must_use]
    pub const fn new(config: &Config, budget: Arc<Budget>) -> Self {
        Self {
            max_bytes: config.body_max_bytes,
            setting: "http.body_max_bytes",
            window: Duration::from_millis(config.body_window_ms),
            window_min_bytes: config.body_window_min_bytes,
            budget,
        }
    }

    /// The limits for a client without a token: never larger than with one.
    fn anonymous(self, config: &Config, with_filter: bool) -> Self {
        let (max_bytes, setting) = if with_filter {
            (config.filter_max_bytes, "http.filter_max_bytes")
        } else {
            (config.anonymous_max_bytes, "http.anonymous_max_bytes")
        };
        if max_bytes < self.max_bytes { Self { max_bytes, setting, ..self } } else { self }
    }

    /// With another size limit.
    #[must_use]
    pub fn with_max(self, max_bytes: u64, setting: &'static str) -> Self {
        Self { max_bytes, setting, ..self }
    }

    const fn too_large(&self) -> Error {
        Error::TooLarge { limit: self.max_bytes, setting: self.setting }
    }

    fn no_memory(&self) -> Error {
        let limit = self.budget.max();
        let message = format!(
            "requests in progress use all {limit} bytes of memory they may (http.in_flight_max_bytes); try again"
        );
        Error::Busy { message, limit }
    }
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self::new(&Config::default(), Arc::default())
    }
}

/// Middleware that attaches the limits to a request, before its body is read.
pub async fn set_body_limits(
    State(state): State<Arc<HttpState>>,
    mut request: Request,
    next: Next,
) -> Response {
    if !request.body().is_end_stream() {
        let limits = BodyLimits::new(&state.config, Arc::clone(&state.in_flight));
        let has_token = state.tokens.has_valid_token(request.headers());
        let matched =
            request.extensions().get::<MatchedPath>().map(|path| path.as_str().trim_end_matches('/'));
        let with_filter = matched.is_some_and(|path| FILTER_ROUTES.contains(&path));
        request.extensions_mut().insert(if has_token {
            limits
        } else {
            limits.anonymous(&state.config, with_filter)
        });
    }
    next.run(request).await
}

/// Reads a whole body. Its bytes count against the shared memory until the last copy of them is dropped.
///
/// # Errors
/// It is too large (immediately, if `Content-Length` says so), too slow or cut off, or there is no memory for
/// it now.
pub async fn read(body: Body, limits: &BodyLimits) -> Result<Bytes, Error> {
    let length = body.size_hint().exact();
    let mut incoming = IncomingBody::new(body, limits)?;
    let mut body = Received { bytes: Vec::new(), share: limits.budget.share() };
    while let Some(piece) = incoming.next().await? {
        body.append(&piece, length, limits)?;
    }
    Ok(body.finish())
}

/// Writes a body to a file as it arrives; it takes no memory.
///
/// # Errors
/// It is too large (immediately, if `Content-Length` says so), too slow or cut off, or the disk failed.
pub async fn save(body: Body, limits: &BodyLimits, file: &Path) -> Result<(), Error> {
    let mut incoming = IncomingBody::new(body, limits)?;
    let write_failed = |error: io::Error| write_failed(file, &error);
    let mut out = File::create(file).await.map_err(write_failed)?;
    while let Some(piece) = incoming.next().await? {
        out.write_all(&piece).await.map_err(write_failed)?;
    }
    out.flush().await.map_err(write_failed)
}

fn write_failed(file: &Path, error: &io::Error) -> Error {
    if !is_disk_full(error) {
        return Error::failed(error);
    }
    let folder = file.parent().unwrap_or(file).display();
    let message = format!(
        "the disk of the folder {folder} is full, and the body could not be written there: {error}; free some space and try again"
    );
    tracing::error!("a request failed: {message}");
    Error::DiskFull { message }
}

/// A body that is being received.
struct IncomingBody<'a> {
    limits: &'a BodyLimits,
    pieces: BodyDataStream,
    rate: RateCheck,
    received: u64,
}

impl<'a> IncomingBody<'a> {
    fn new(body: Body, limits: &'a BodyLimits) -> Result<Self, Error> {
        if body.size_hint().lower() > limits.max_bytes {
            return Err(limits.too_large());
        }
        Ok(Self { limits, pieces: body.into_data_stream(), rate: RateCheck::new(limits), received: 0 })
    }

    /// The next piece, within the limits; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let began = Instant::now();
            let piece = timeout(self.rate.left(), self.pieces.next()).await;
            let waited = self.rate.waited(began.elapsed());
            match piece {
                Ok(None) => return Ok(None),
                Ok(Some(piece)) => {
                    let piece = piece.map_err(|_| Error::BadRequest)?;
                    let bytes = piece.len() as u64;
                    self.received += bytes;
                    if self.received > self.limits.max_bytes {
                        return Err(self.limits.too_large());
                    }
                    self.rate.received(bytes);
                    return Ok(Some(piece));
                }
                Err(_) => waited?,
            }
        }
    }
}

/// The part of a body received so far.
struct Received {
    bytes: Vec<u8>,
    share: Share,
}

impl Received {
    fn append(&mut self, piece: &[u8], expected: Option<u64>, limits: &BodyLimits) -> Result<(), Error> {
        let length = self.bytes.len() + piece.len();
        if length > self.bytes.capacity() {
            let max = usize::try_from(expected.unwrap_or(limits.max_bytes)).unwrap_or(usize::MAX);
            // Doubles, but never beyond what can arrive. What the client announces takes no memory until it
            // sends it.
            let room = (self.bytes.capacity() * 2).min(max).max(length);
            if !self.share.reach(room as u64) {
                return Err(limits.no_memory());
            }
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn finish(self) -> Bytes {
        if self.bytes.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Enforces the minimum rate: a number of bytes in each window of waiting. Time in which the server does not
/// wait for the client does not count.
#[derive(Debug)]
struct RateCheck {
    window: Duration,
    min_bytes: u64,
    waited: Duration,
    received: u64,
}

impl RateCheck {
    const fn new(limits: &BodyLimits) -> Self {
        Self {
            window: limits.window,
            min_bytes: limits.window_min_bytes,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// What is left of the window.
    const fn left(&self) -> Duration {
        self.window.saturating_sub(self.waited)
    }

    const fn received(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    fn waited(&mut self, time: Duration) -> Result<(), Error> {
        self.waited += time;
        if self.waited < self.window {
            return Ok(());
        }
        if self.received < self.min_bytes {
            let window_ms = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::SlowBody { min_bytes: self.min_bytes, window_ms });
        }
        (self.waited, self.received) = (Duration::ZERO, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn limits(config: &Config) -> BodyLimits {
        BodyLimits::new(config, Arc::new(Budget::new(config.in_flight_max_bytes)))
    }

    fn pieces(pieces: Vec<&'static str>) -> Body {
        Body::from_stream(
            stream::iter(pieces).map(|piece| Ok::<_, io::Error>(Bytes::from_static(piece.as_bytes()))),
        )
    }

    #[test]
    fn each_window_needs_its_bytes_and_only_waiting_counts() {
        let config = Config { body_window_ms: 100, body_window_min_bytes: 10, ..Config::default() };
        let mut rate = RateCheck::new(&limits(&config));
        let ms = Duration::from_millis;
        for _ in 0..3 {
            assert_eq!((rate.waited(ms(60)), rate.left()), (Ok(()), ms(40)));
            rate.received(10);
            assert_eq!(
                (rate.waited(ms(40)), rate.left()),
                (Ok(()), ms(100)),
                "a slow body above the rate is accepted"
            );
        }
        rate.received(1_000_000);
        assert_eq!(rate.waited(ms(100)), Ok(()));
        rate.received(9);
        let slow = rate.waited(ms(100)).unwrap_err();
        assert_eq!(
            slow,
            Error::SlowBody { min_bytes: 10, window_ms: 100 },
            "bytes of an earlier window do not count"
        );
    }

    #[tokio::test]
    async fn bodies_are_read_within_their_limit() {
        let config = Config { body_max_bytes: 6, ..Config::default() };
        let limits = limits(&config);
        assert_eq!(read(pieces(vec![]), &limits).await, Ok(Bytes::new()));
        assert_eq!(read(pieces(vec!["abc", "", "def"]), &limits).await, Ok(Bytes::from_static(b"abcdef")));
        let too_large = Err(Error::TooLarge { limit: 6, setting: "http.body_max_bytes" });
        assert_eq!(read(pieces(vec!["abc", "defg"]), &limits).await, too_large);
        assert_eq!(
            read(Body::from("abcdefg"), &limits).await,
            too_large,
            "one that announces its size is not read at all"
        );
    }

    #[tokio::test]
    async fn a_body_counts_until_its_last_copy_is_dropped() {
        let config = Config { in_flight_max_bytes: 10, ..Config::default() };
        let limits = limits(&config);
        let first = read(Body::from("abcdef"), &limits).await.unwrap();
        let part = first.slice(1..2);
        drop(first);
        assert_eq!(limits.budget.used(), 6);
        let full = read(Body::from("abcde"), &limits).await.unwrap_err();
        assert_eq!(full, limits.no_memory());
        drop(part);
        assert_eq!(limits.budget.used(), 0);
        assert!(read(Body::from("abcde"), &limits).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_disk_is_reported() {
        let full =
            save(Body::from("abc"), &limits(&Config::default()), Path::new("/dev/full")).await.unwrap_err();
        let Error::DiskFull { message } = full else { panic!("{full}") };
        assert!(message.starts_with("the disk of the folder /dev is full"), "{message}");
        let missing = save(Body::from("abc"), &limits(&Config::default()), Path::new("/nowhere/at/all"))
            .await
            .unwrap_err();
        assert!(matches!(missing, Error::Failed { .. }), "{missing}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_times_out() {
        let body = Body::from_stream(pieces(vec!["abc"]).into_data_stream().chain(stream::pending()));
        let began = Instant::now();
        let slow = read(body, &limits(&Config::default())).await.unwrap_err();
        assert_eq!(
            (slow, began.elapsed().as_secs()),
            (Error::SlowBody { min_bytes: 10_000, window_ms: 10_000 }, 10)
        );
    }

    #[test]
    fn without_a_token_the_limit_is_lower() {
        let config = Config::default();
        let limits_for = |with_filter| limits(&config).anonymous(&config, with_filter);
        assert_eq!(
            (limits_for(true).max_bytes, limits_for(true).setting),
            (5 << 20, "http.filter_max_bytes")
        );
        assert_eq!(
            (limits_for(false).max_bytes, limits_for(false).setting),
            (1 << 20, "http.anonymous_max_bytes")
        );
        let config = Config { body_max_bytes: 100, ..Config::default() };
        assert_eq!(limits(&config).anonymous(&config, true).setting, "http.body_max_bytes");
    }
}
