//! zKillboard's R2Z2 feed: numbered files, one killmail each, followed one request at a time; and the
//! archives of days, for what is missing.
//!
//! [`FollowerState`] says what to ask and when; this asks, and keeps the place of the follower beside the
//! killmails it brought.
//!
//! Must not know: who keeps the killmails; what happens to them.

pub mod day_archive;
pub mod exchange;
pub mod feed_document;
pub mod follower_place;
pub mod follower_state;
pub mod look_ahead;
pub mod missing_numbers;
pub mod oldest_file_search;
pub mod report;
pub mod waits;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Response, StatusCode};
use tokio::time::Instant;

use crate::clock;
use crate::domain::span::Span;
use crate::ingest::arrival::Arrival;
use crate::ingest::client;
use crate::ingest::r2z2::day_archive::{ArchiveReader, List, Wanted};
use crate::ingest::r2z2::exchange::{Notice, Reply, Request};
use crate::ingest::r2z2::feed_document::{Got, retry_after_ms};
use crate::ingest::r2z2::follower_place::Place;
use crate::ingest::r2z2::follower_state::FollowerState;
use crate::ingest::r2z2::missing_numbers::MissingNumber;
use crate::ingest::r2z2::waits::Waits;
use crate::store::incoming::{Checkpoint, ZkbRule};
use crate::store::refused::list::Refused;
use crate::telemetry::source_status::{Gap, SourceStatus};

/// The name the checkpoint is kept under.
pub const NAME: &str = "r2z2";

/// What the follower is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this is, for logs and refused documents.
    pub name: String,
    /// Scheme and host of the feed; paths are appended.
    pub base_url: String,
    /// What `User-Agent` says.
    pub user_agent: String,
    /// The waits.
    pub waits: Waits,
    /// The next number is asked to be waited for so long, seconds; 0: it is not.
    pub wait_secs: u64,
    /// A request ends after this, milliseconds.
    pub timeout_ms: u64,
    /// A request of an archive ends after this, milliseconds.
    pub archive_timeout_ms: u64,
    /// A document longer than this is a failure, bytes.
    pub document_max_bytes: usize,
}

/// Whether the store has a killmail of this id: what is stored need not be recovered.
pub struct IsStored(pub Box<dyn Fn(u32) -> bool + Send + Sync>);

impl fmt::Debug for IsStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IsStored")
    }
}

/// The follower.
#[derive(Debug)]
pub struct R2z2 {
    config: Config,
    client: Client,
    pace: FollowerState,
    source_status: Arc<SourceStatus>,
    is_stored: IsStored,
    /// What the archive listed last has that we lack.
    wanted: Wanted,
    reading: Option<ArchiveReader>,
    /// The document that came last, as it came.
    heard: Option<Bytes>,
    /// What came last in the place of the document asked for; kept if it is passed over.
    misfit: Option<Refused>,
    started: Instant,
    started_ms: u64,
}

impl R2z2 {
    /// A follower that goes on where the checkpoint says, or begins where the feed is.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn new(
        config: Config,
        checkpoint: Option<&[u8]>,
        source_status: Arc<SourceStatus>,
        is_stored: IsStored,
    ) -> Result<Self, client::Error> {
        let client =
            client::new(&config.user_agent, &config.base_url, Duration::from_millis(config.timeout_ms))?;
        let place: Place = match checkpoint.map(serde_json::from_slice) {
            Some(Ok(place)) => place,
            None => Place::default(),
            Some(Err(error)) => {
                tracing::error!(
                    "the place in {} cannot be read, beginning at the head of the feed: {error}",
                    config.name
                );
                Place::default()
            }
        };
        match place.next {
            Some(next) => tracing::info!("following {} from number {next}", config.base_url),
            None => tracing::info!("following {} from where it is", config.base_url),
        }
        let pace = FollowerState::new(config.waits.clone(), place);
        let (started, started_ms) = (Instant::now(), u64::try_from(clock::now_ms()).unwrap_or(0));
        let r2z2 = Self {
            config,
            client,
            pace,
            source_status,
            is_stored,
            wanted: Wanted::new(),
            reading: None,
            heard: None,
            misfit: None,
            started,
            started_ms,
        };
        r2z2.tell_gaps();
        Ok(r2z2)
    }

    /// Asks until there is something to keep: killmails, a refusal, or a new place.
    pub async fn next(&mut self) -> Arrival {
        loop {
            let arrival = match &mut self.reading {
                Some(_) => self.read_on().await,
                None => self.ask().await,
            };
            if let Some(arrival) = arrival {
                return arrival;
            }
        }
    }

    async fn ask(&mut self) -> Option<Arrival> {
        let (ask, at_ms) = self.pace.ask();
        let wait_ms = at_ms.saturating_sub(self.started_ms);
        // A wait beyond what the clock can count is waited for piece by piece.
        tokio::time::sleep_until(
            self.started + Duration::from_millis(wait_ms.min(self.elapsed_ms() + 3_600_000)),
        )
        .await;
        if self.now_ms() < at_ms {
            return None;
        }
        let got = self.get(ask).await?;
        self.take(ask, got)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Unix milliseconds that never go back.
    fn now_ms(&self) -> u64 {
        self.started_ms.saturating_add(self.elapsed_ms())
    }

    fn take(&mut self, ask: Request, mut got: Got) -> Option<Arrival> {
        let before = self.pace.place().clone();
        let raw = self.heard.take().into_iter().collect();
        let note = self.pace.answered(ask, got.answer, self.now_ms());
        report::tell(&self.source_status, &self.config.name, ask, got.answer, note.as_ref(), clock::now_ms());
        let mut refused: Vec<Refused> = self.refused_of(ask, &mut got).into_iter().collect();
        if before == *self.pace.place() && got.killmail.is_none() {
            return (!refused.is_empty()).then(|| Arrival { refused, raw, ..Arrival::default() });
        }
        if let Request::Ahead(_) = ask {
            // The number before, or the rewritten file, is passed over.
            refused.extend(self.misfit.take());
        }
        self.tell_gaps();
        let span = match note {
            Some(Notice::Healed(holes)) => joined(holes.iter().filter_map(|hole| hole.filled())),
            _ => None,
        };
        Some(Arrival {
            killmails: got.killmail.into_iter().collect(),
            refused,
            span,
            checkpoint: Some(self.checkpoint()),
            lower_rank: None,
            raw,
        })
    }

    /// What of an answer goes to the refused documents. What is in the place of a document is asked for again
    /// and does so only when that is given up; a number that is tried again has been kept before.
    fn refused_of(&mut self, ask: Request, got: &mut Got) -> Option<Refused> {
        let refused = got.refused.take();
        match (ask, got.answer) {
            (Request::Document(_) | Request::Rewritten(_), Reply::Misfit { .. }) => self.misfit = refused,
            (
                Request::Document(_) | Request::Rewritten(_),
                Reply::Limited { .. } | Reply::Forbidden { .. } | Reply::Failed { .. },
            ) => {}
            (Request::Retry(..), Reply::Hole) | (_, Reply::Misfit { .. }) => {}
            (Request::Document(_) | Request::Rewritten(_), _) => {
                self.misfit = None;
                return refused;
            }
            _ => return refused,
        }
        None
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            source: NAME.to_owned(),
            bytes: serde_json::to_vec(self.pace.place()).unwrap_or_default(),
        }
    }

    /// What is to be healed, for whoever reports.
    fn tell_gaps(&self) {
        let gap = |hole: &MissingNumber| Gap {
            first: hole.first,
            last: hole.last,
            numbers: hole.numbers,
            since_ms: i64::try_from(hole.since_ms).unwrap_or(i64::MAX),
        };
        *self.source_status.open.lock() =
            self.pace.place().holes.list().iter().filter(|hole| !hole.rewritten).map(gap).collect();
    }

    /// The next killmails of the archive that is being read.
    async fn read_on(&mut self) -> Option<Arrival> {
        let reading = self.reading.as_mut()?;
        let day = reading.day;
        let part = match reading.next().await {
            Ok(part) => part,
            Err(error) => {
                tracing::debug!("the archive of {} broke off: {error}", day_archive::day_name(day));
                self.reading = None;
                return self.take(Request::Bodies(day), Got::only(Reply::Failed { retry_after_ms: None }));
            }
        };
        if part.killmails.is_empty() && part.refused.is_empty() {
            let left = reading.left();
            if left > 0 {
                tracing::info!(
                    "the archive of {} lists {left} killmails without their bodies",
                    day_archive::day_name(day)
                );
            }
            self.reading = None;
            return self.take(Request::Bodies(day), Got::only(Reply::Filled));
        }
        for killmail in &part.killmails {
            self.pace.filled(day, killmail.killmail.time);
        }
        self.source_status.backfilled.fetch_add(part.killmails.len() as u64, Ordering::Relaxed);
        let checkpoint = Some(self.checkpoint());
        Some(Arrival { killmails: part.killmails, refused: part.refused, checkpoint, ..Arrival::default() })
    }

    /// One request, understood; `None` where the answer comes in parts.
    async fn get(&mut self, ask: Request) -> Option<Got> {
        let wait = match (ask, self.config.wait_secs) {
            (Request::Document(_), secs @ 1..) => format!("?wait={secs}"),
            _ => String::new(),
        };
        let url = format!("{}{}{wait}", self.config.base_url, path(ask));
        self.source_status.requests.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let response = self.response(ask, &url).await;
        let got = match (ask, response) {
            (_, Err(answer)) => Some(Got::only(answer)),
            (Request::Bodies(day), Ok(response)) => {
                let wanted = std::mem::take(&mut self.wanted);
                self.reading = Some(ArchiveReader::new(
                    day,
                    response,
                    wanted,
                    self.pace.begun(),
                    self.config.document_max_bytes,
                ));
                None
            }
            (_, Ok(response)) => Some(match self.body(&url, response).await {
                Ok(body) => {
                    let got = self.understood(ask, &body);
                    // The copy costs nothing: the bytes are shared.
                    self.heard = (got.killmail.is_some() || got.refused.is_some()).then_some(body);
                    got
                }
                Err(answer) => Got::only(answer),
            }),
        };
        let took_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.source_status.request_ms.fetch_add(took_ms, Ordering::Relaxed);
        got
    }

    fn understood(&mut self, ask: Request, body: &Bytes) -> Got {
        let failed = Reply::Failed { retry_after_ms: None };
        let misfit = Reply::Misfit { other_number: false };
        match ask {
            Request::Pointer => Got::only(feed_document::pointer(body).map_or(misfit, Reply::Pointer)),
            Request::Document(number) | Request::Ahead(number) | Request::Retry(number, false) => {
                feed_document::document(body, number, ZkbRule::IfNewer, &self.config.name)
            }
            Request::Rewritten(number) | Request::Retry(number, true) => {
                feed_document::document(body, number, ZkbRule::Always, &self.config.name)
            }
            Request::Probe(number) => {
                Got::only(feed_document::document(body, number, ZkbRule::IfNewer, &self.config.name).answer)
            }
            Request::List(_) => Got::only(match day_archive::list(body, &self.is_stored.0) {
                List::Wanted(wanted) => {
                    self.wanted = wanted;
                    Reply::Listed { wanted: !self.wanted.is_empty() }
                }
                List::Empty => Reply::Missing,
                List::Unreadable => misfit,
            }),
            Request::Bodies(_) => Got::only(failed),
        }
    }

    /// A 200, or what anything else means.
    async fn response(&self, ask: Request, url: &str) -> Result<Response, Reply> {
        let asked = match ask {
            Request::List(_) | Request::Bodies(_) => {
                client::get_large(&self.client, url, Duration::from_millis(self.config.archive_timeout_ms))
                    .await
            }
            _ => client::get(&self.client, url).await,
        };
        let response = asked.map_err(|error| self.failed(url, &error))?;
        let retry_after_ms = retry_after_ms(&response);
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(Reply::Missing),
            StatusCode::TOO_MANY_REQUESTS => Err(Reply::Limited { retry_after_ms }),
            StatusCode::FORBIDDEN => Err(Reply::Forbidden { retry_after_ms }),
            _ => Err(Reply::Failed { retry_after_ms }),
        }
    }

    async fn body(&self, url: &str, response: Response) -> Result<Bytes, Reply> {
        client::body(response, self.config.document_max_bytes).await.map_err(|error| self.failed(url, &error))
    }

    fn failed(&self, url: &str, error: &client::Error) -> Reply {
        if error.is_timeout() {
            self.source_status.timeouts.fetch_add(1, Ordering::Relaxed);
        }
        tracing::debug!("{url}: {error}");
        Reply::Failed { retry_after_ms: None }
    }
}

fn path(ask: Request) -> String {
    match ask {
        Request::Pointer => "/ephemeral/sequence.json".to_owned(),
        Request::Document(number)
        | Request::Rewritten(number)
        | Request::Ahead(number)
        | Request::Probe(number)
        | Request::Retry(number, _) => {
            format!("/ephemeral/{number}.json")
        }
        Request::List(day) => format!("/history/{}.json", day_archive::day_name(day)),
        Request::Bodies(day) => format!("/history/raw/{}.json", day_archive::day_name(day)),
    }
}

/// All spans as one.
fn joined(spans: impl Iterator<Item = Span>) -> Option<Span> {
    spans.reduce(|one, two| Span {
        from: one.from.min(two.from),
        to: one.to.max(two.to),
        killmails: one.killmails.saturating_add(two.killmails),
    })
}
