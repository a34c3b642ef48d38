//! How bodies come in: within the limit of who sends them and where, at a least rate, and within the bytes
//! that all bodies share.
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

/// Where a filter may be in the body: its lists of ids are long.
const WITH_FILTER: &[&str] = &[
    "/api/v1/killmails/search",
    "/api/v1/killmails/count",
    "/api/v1/kills/stream",
    "/api/v1/kills/stream/enhanced",
    "/sse",
];

/// What a body may take.
#[derive(Debug, Clone)]
pub struct Intake {
    /// It ends at so many bytes.
    pub max_bytes: u64,
    /// The setting that says so.
    pub setting: &'static str,
    window: Duration,
    window_min_bytes: u64,
    budget: Arc<Budget>,
}

impl Intake {
    /// Of a caller with a token.
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

    /// Of a caller without.
    fn anonymous(self, config: &Config, with_filter: bool) -> Self {
        let (max_bytes, setting) = if with_filter {
            (config.filter_max_bytes, "http.filter_max_bytes")
        } else {
            (config.anonymous_max_bytes, "http.anonymous_max_bytes")
        };
        // More than with a token it is never.
        if max_bytes < self.max_bytes { Self { max_bytes, setting, ..self } } else { self }
    }

    /// With a limit of its own.
    #[must_use]
    pub fn with_max(self, max_bytes: u64, setting: &'static str) -> Self {
        Self { max_bytes, setting, ..self }
    }

    const fn too_large(&self) -> Error {
        Error::TooLarge { limit: self.max_bytes, setting: self.setting }
    }

    fn full(&self) -> Error {
        let limit = self.budget.max();
        let message = format!(
            "requests on their way fill {limit} bytes of memory (http.in_flight_max_bytes); try again"
        );
        Error::Busy { message, limit }
    }
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(&Config::default(), Arc::default())
    }
}

/// Says what the body of a request may take, before anyone reads it.
pub async fn admit(State(door): State<Arc<HttpState>>, mut request: Request, next: Next) -> Response {
    if !request.body().is_end_stream() {
        let intake = Intake::new(&door.config, Arc::clone(&door.in_flight));
        let known = door.keys.knows(request.headers());
        let matched =
            request.extensions().get::<MatchedPath>().map(|path| path.as_str().trim_end_matches('/'));
        let with_filter = matched.is_some_and(|path| WITH_FILTER.contains(&path));
        request.extensions_mut().insert(if known {
            intake
        } else {
            intake.anonymous(&door.config, with_filter)
        });
    }
    next.run(request).await
}

/// Reads a body to its end. Its bytes count as in flight until the last copy of them is gone.
///
/// # Errors
/// It is too large (at once, where it says so), too slow, broken off, or there is no room for it now.
pub async fn read(body: Body, intake: &Intake) -> Result<Bytes, Error> {
    let whole = body.size_hint().exact();
    let mut coming = Coming::new(body, intake)?;
    let mut held = Held { bytes: Vec::new(), share: intake.budget.share() };
    while let Some(piece) = coming.next().await? {
        held.take(&piece, whole, intake)?;
    }
    Ok(held.done())
}

/// Writes a body to a file as it comes; it takes no memory.
///
/// # Errors
/// It is too large (at once, where it says so), too slow, broken off, or cannot be written.
pub async fn save(body: Body, intake: &Intake, file: &Path) -> Result<(), Error> {
    let mut coming = Coming::new(body, intake)?;
    let unwritten = |error: io::Error| unwritten(file, &error);
    let mut out = File::create(file).await.map_err(unwritten)?;
    while let Some(piece) = coming.next().await? {
        out.write_all(&piece).await.map_err(unwritten)?;
    }
    out.flush().await.map_err(unwritten)
}

/// A body that could not be written to this file.
fn unwritten(file: &Path, error: &io::Error) -> Error {
    if !is_disk_full(error) {
        return Error::failed(error);
    }
    let folder = file.parent().unwrap_or(file).display();
    let message = format!(
        "the disk of the folder {folder} is full, the body could not be kept there: {error}; make room and try again"
    );
    tracing::error!("a request failed: {message}");
    Error::DiskFull { message }
}

/// A body on its way.
struct Coming<'a> {
    intake: &'a Intake,
    pieces: BodyDataStream,
    pace: Pace,
    came: u64,
}

impl<'a> Coming<'a> {
    fn new(body: Body, intake: &'a Intake) -> Result<Self, Error> {
        if body.size_hint().lower() > intake.max_bytes {
            return Err(intake.too_large());
        }
        Ok(Self { intake, pieces: body.into_data_stream(), pace: Pace::new(intake), came: 0 })
    }

    /// The next piece, within the limit; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let began = Instant::now();
            let piece = timeout(self.pace.left(), self.pieces.next()).await;
            let waited = self.pace.waited(began.elapsed());
            match piece {
                Ok(None) => return Ok(None),
                Ok(Some(piece)) => {
                    let piece = piece.map_err(|_| Error::BadRequest)?;
                    let bytes = piece.len() as u64;
                    self.came += bytes;
                    if self.came > self.intake.max_bytes {
                        return Err(self.intake.too_large());
                    }
                    self.pace.came(bytes);
                    return Ok(Some(piece));
                }
                Err(_) => waited?,
            }
        }
    }
}

/// What came of a body.
struct Held {
    bytes: Vec<u8>,
    share: Share,
}

impl Held {
    fn take(&mut self, piece: &[u8], whole: Option<u64>, intake: &Intake) -> Result<(), Error> {
        let length = self.bytes.len() + piece.len();
        if length > self.bytes.capacity() {
            let most = usize::try_from(whole.unwrap_or(intake.max_bytes)).unwrap_or(usize::MAX);
            // Twice as much as before, but no more than can come: not what the client says, but what it
            // sends, takes memory.
            let room = (self.bytes.capacity() * 2).min(most).max(length);
            if !self.share.reach(room as u64) {
                return Err(intake.full());
            }
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn done(self) -> Bytes {
        if self.bytes.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whether enough comes: in each window of waiting at least so many bytes. Time in which nobody waits does
/// not count.
#[derive(Debug)]
struct Pace {
    window: Duration,
    min_bytes: u64,
    waited: Duration,
    came: u64,
}

impl Pace {
    const fn new(intake: &Intake) -> Self {
        Self { window: intake.window, min_bytes: intake.window_min_bytes, waited: Duration::ZERO, came: 0 }
    }

    /// What is left of the window.
    const fn left(&self) -> Duration {
        self.window.saturating_sub(self.waited)
    }

    const fn came(&mut self, bytes: u64) {
        self.came = self.came.saturating_add(bytes);
    }

    fn waited(&mut self, time: Duration) -> Result<(), Error> {
        self.waited += time;
        if self.waited < self.window {
            return Ok(());
        }
        if self.came < self.min_bytes {
            let window_ms = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::SlowBody { min_bytes: self.min_bytes, window_ms });
        }
        (self.waited, self.came) = (Duration::ZERO, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn intake(config: &Config) -> Intake {
        Intake::new(config, Arc::new(Budget::new(config.in_flight_max_bytes)))
    }

    fn pieces(pieces: Vec<&'static str>) -> Body {
        Body::from_stream(
            stream::iter(pieces).map(|piece| Ok::<_, io::Error>(Bytes::from_static(piece.as_bytes()))),
        )
    }

    #[test]
    fn each_window_needs_its_bytes_and_only_waiting_counts() {
        let config = Config { body_window_ms: 100, body_window_min_bytes: 10, ..Config::default() };
        let mut pace = Pace::new(&intake(&config));
        let ms = Duration::from_millis;
        for _ in 0..3 {
            assert_eq!((pace.waited(ms(60)), pace.left()), (Ok(()), ms(40)));
            pace.came(10);
            assert_eq!(
                (pace.waited(ms(40)), pace.left()),
                (Ok(()), ms(100)),
                "a slow body that goes on is taken"
            );
        }
        pace.came(1_000_000);
        assert_eq!(pace.waited(ms(100)), Ok(()));
        pace.came(9);
        let slow = pace.waited(ms(100)).unwrap_err();
        assert_eq!(
            slow,
            Error::SlowBody { min_bytes: 10, window_ms: 100 },
            "what came before the window is no credit"
        );
    }

    #[tokio::test]
    async fn bodies_are_read_within_their_limit() {
        let config = Config { body_max_bytes: 6, ..Config::default() };
        let intake = intake(&config);
        assert_eq!(read(pieces(vec![]), &intake).await, Ok(Bytes::new()));
        assert_eq!(read(pieces(vec!["abc", "", "def"]), &intake).await, Ok(Bytes::from_static(b"abcdef")));
        let too_large = Err(Error::TooLarge { limit: 6, setting: "http.body_max_bytes" });
        assert_eq!(read(pieces(vec!["abc", "defg"]), &intake).await, too_large);
        assert_eq!(
            read(Body::from("abcdefg"), &intake).await,
            too_large,
            "one that says its size is not read at all"
        );
    }

    #[tokio::test]
    async fn a_body_counts_until_its_last_copy_is_gone() {
        let config = Config { in_flight_max_bytes: 10, ..Config::default() };
        let intake = intake(&config);
        let first = read(Body::from("abcdef"), &intake).await.unwrap();
        let part = first.slice(1..2);
        drop(first);
        assert_eq!(intake.budget.used(), 6);
        let full = read(Body::from("abcde"), &intake).await.unwrap_err();
        assert_eq!(full, intake.full());
        drop(part);
        assert_eq!(intake.budget.used(), 0);
        assert!(read(Body::from("abcde"), &intake).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_finds_no_room_on_the_disk_is_told_so() {
        let full =
            save(Body::from("abc"), &intake(&Config::default()), Path::new("/dev/full")).await.unwrap_err();
        let Error::DiskFull { message } = full else { panic!("{full}") };
        assert!(message.starts_with("the disk of the folder /dev is full"), "{message}");
        let missing = save(Body::from("abc"), &intake(&Config::default()), Path::new("/nowhere/at/all"))
            .await
            .unwrap_err();
        assert!(matches!(missing, Error::Failed { .. }), "{missing}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_given_up() {
        let body = Body::from_stream(pieces(vec!["abc"]).into_data_stream().chain(stream::pending()));
        let began = Instant::now();
        let slow = read(body, &intake(&Config::default())).await.unwrap_err();
        assert_eq!(
            (slow, began.elapsed().as_secs()),
            (Error::SlowBody { min_bytes: 10_000, window_ms: 10_000 }, 10)
        );
    }

    #[test]
    fn who_has_no_token_may_send_less() {
        let config = Config::default();
        let of = |with_filter| intake(&config).anonymous(&config, with_filter);
        assert_eq!((of(true).max_bytes, of(true).setting), (5 << 20, "http.filter_max_bytes"));
        assert_eq!((of(false).max_bytes, of(false).setting), (1 << 20, "http.anonymous_max_bytes"));
        let config = Config { body_max_bytes: 100, ..Config::default() };
        assert_eq!(intake(&config).anonymous(&config, true).setting, "http.body_max_bytes");
    }
}
