//! Follows zKillboard's R2Z2 feed: numbered files with one killmail each, fetched one request at a time, and
//! the archives of days for missing numbers.
//!
//! [`FollowerState`] decides what to request and when. This sends the requests and delivers the place of the
//! follower together with the killmails it fetched.
//!
//! Must not know: who stores the killmails; what happens to them.

pub(crate) mod day_archive;
pub(crate) mod exchange;
pub(crate) mod feed_document;
pub(crate) mod follower_place;
pub(crate) mod follower_state;
pub(crate) mod look_ahead;
pub(crate) mod missing_numbers;
pub(crate) mod oldest_file_search;
pub(crate) mod report;
pub(crate) mod waits;

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
use crate::ingest::r2z2::feed_document::Parsed;
use crate::ingest::r2z2::follower_place::Place;
use crate::ingest::r2z2::follower_state::FollowerState;
use crate::ingest::r2z2::missing_numbers::MissingRange;
use crate::ingest::r2z2::waits::Waits;
use crate::store::incoming::{Checkpoint, ZkbRule};
use crate::store::refused::list::Refused;
use crate::telemetry::source_status::{SourceStatus, StillMissing};

/// The name the checkpoint is kept under.
pub const NAME: &str = "r2z2";

/// The longest sleep before the clock is read again: a tokio timer does not reach arbitrarily far.
const SLEEP_MAX_MS: u64 = 3_600_000;

#[derive(Debug, Clone)]
pub struct Config {
    /// For the log and for refused documents.
    pub name: String,
    /// Scheme and host of the feed; paths are appended.
    pub base_url: String,
    pub user_agent: String,
    pub waits: Waits,
    /// How long a killstream mirror may hold the request for the next number (`?wait=`), seconds; 0 sends no
    /// `wait`.
    pub wait_secs: u64,
    pub timeout_ms: u64,
    pub archive_timeout_ms: u64,
    /// A longer document counts as a failure, bytes.
    pub document_max_bytes: usize,
}

/// Whether the store has a killmail of this id: what is stored need not be recovered.
pub struct IsStored(pub Box<dyn Fn(u32) -> bool + Send + Sync>);

impl fmt::Debug for IsStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IsStored")
    }
}

#[derive(Debug)]
pub struct R2z2 {
    config: Config,
    client: Client,
    state: FollowerState,
    status: Arc<SourceStatus>,
    is_stored: IsStored,
    /// The killmails of the archive listed last that are not stored.
    wanted: Wanted,
    archive: Option<ArchiveReader>,
    /// The last document as received, for recordings.
    last_document: Option<Bytes>,
    /// The last response that was not the requested document; stored with the refused ones if its number is
    /// passed over.
    misfit: Option<Refused>,
    started: Instant,
    started_ms: u64,
}

impl R2z2 {
    /// Continues from the checkpoint, or starts at the head of the feed without one.
    ///
    /// # Errors
    /// The HTTP client cannot be created.
    pub fn new(
        config: Config,
        checkpoint: Option<&[u8]>,
        status: Arc<SourceStatus>,
        is_stored: IsStored,
    ) -> Result<Self, client::Error> {
        let client =
            client::new(&config.user_agent, &config.base_url, Duration::from_millis(config.timeout_ms))?;
        let place: Place = match checkpoint.map(serde_json::from_slice) {
            Some(Ok(place)) => place,
            None => Place::default(),
            Some(Err(error)) => {
                tracing::error!(
                    "the checkpoint of {} cannot be read, starting at the head of the feed: {error}",
                    config.name
                );
                Place::default()
            }
        };
        match place.next {
            Some(next) => tracing::info!("following {} from number {next}", config.base_url),
            None => tracing::info!("following {} from its head", config.base_url),
        }
        let state = FollowerState::new(config.waits.clone(), place);
        let r2z2 = Self {
            config,
            client,
            state,
            status,
            is_stored,
            wanted: Wanted::new(),
            archive: None,
            last_document: None,
            misfit: None,
            started: Instant::now(),
            started_ms: u64::try_from(clock::now_ms()).unwrap_or(0),
        };
        r2z2.report_still_missing();
        Ok(r2z2)
    }

    /// Sends requests until there is something to store: killmails, a refused document, or a new place.
    pub async fn next(&mut self) -> Arrival {
        loop {
            let arrival = match &mut self.archive {
                Some(_) => self.read_archive().await,
                None => self.send_next().await,
            };
            if let Some(arrival) = arrival {
                return arrival;
            }
        }
    }

    async fn send_next(&mut self) -> Option<Arrival> {
        let (request, at_ms) = self.state.next_request();
        let wait_ms = at_ms.saturating_sub(self.started_ms).min(self.elapsed_ms() + SLEEP_MAX_MS);
        tokio::time::sleep_until(self.started + Duration::from_millis(wait_ms)).await;
        if self.now_ms() < at_ms {
            return None;
        }
        let parsed = self.send(request).await?;
        self.handle(request, parsed)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Unix milliseconds that never go back.
    fn now_ms(&self) -> u64 {
        self.started_ms.saturating_add(self.elapsed_ms())
    }

    fn handle(&mut self, request: Request, mut parsed: Parsed) -> Option<Arrival> {
        let before = self.state.place().clone();
        let raw = self.last_document.take().into_iter().collect();
        let (status, name, reply) = (&self.status, &self.config.name, parsed.reply);
        let notice = self.state.handle_reply(request, reply, self.now_ms());
        report::report_reply(status, name, request, reply, notice.as_ref(), clock::now_ms());
        let mut refused: Vec<Refused> = self.refused(request, &mut parsed).into_iter().collect();
        if before == *self.state.place() && parsed.killmail.is_none() {
            return (!refused.is_empty()).then(|| Arrival { refused, raw, ..Arrival::default() });
        }
        if let Request::Ahead(_) = request {
            // The number before, or the rewritten file, is passed over.
            refused.extend(self.misfit.take());
        }
        self.report_still_missing();
        let span = match notice {
            Some(Notice::Recovered(ranges)) => joined(ranges.iter().filter_map(MissingRange::recovered)),
            _ => None,
        };
        Some(Arrival {
            killmails: parsed.killmail.into_iter().collect(),
            refused,
            span,
            checkpoint: Some(self.checkpoint()),
            lower_rank: None,
            raw,
        })
    }

    /// What of a response is stored with the refused documents. A misfit is requested again and only stored
    /// when its number is passed over; that of a retried number was stored before.
    fn refused(&mut self, request: Request, parsed: &mut Parsed) -> Option<Refused> {
        let refused = parsed.refused.take();
        match (request, parsed.reply) {
            (Request::Document(_) | Request::Rewritten(_), Reply::Misfit { .. }) => self.misfit = refused,
            (
                Request::Document(_) | Request::Rewritten(_),
                Reply::Limited { .. } | Reply::Forbidden { .. } | Reply::Failed { .. },
            ) => {}
            (Request::Retry { .. }, Reply::Placeholder) | (_, Reply::Misfit { .. }) => {}
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
            bytes: serde_json::to_vec(self.state.place()).unwrap_or_default(),
        }
    }

    fn report_still_missing(&self) {
        let missing = |range: &MissingRange| StillMissing {
            first: range.first,
            last: range.last,
            numbers: range.numbers,
            since_ms: i64::try_from(range.since_ms).unwrap_or(i64::MAX),
        };
        let ranges = self.state.place().missing.ranges();
        *self.status.still_missing.lock() =
            ranges.iter().filter(|range| !range.rewritten).map(missing).collect();
    }

    /// Reads the next killmails from the open archive.
    async fn read_archive(&mut self) -> Option<Arrival> {
        let archive = self.archive.as_mut()?;
        let day = archive.day;
        let part = match archive.next().await {
            Ok(part) => part,
            Err(error) => {
                tracing::debug!("the archive of {} broke off: {error}", day_archive::day_name(day));
                self.archive = None;
                let failed = Parsed::reply_only(Reply::Failed { retry_after_ms: None });
                return self.handle(Request::ArchiveBodies(day), failed);
            }
        };
        if part.killmails.is_empty() && part.refused.is_empty() {
            let without_body = archive.missing();
            if without_body > 0 {
                tracing::info!(
                    "the archive of {} lists {without_body} killmails without their bodies",
                    day_archive::day_name(day)
                );
            }
            self.archive = None;
            return self.handle(Request::ArchiveBodies(day), Parsed::reply_only(Reply::BodiesRead));
        }
        for killmail in &part.killmails {
            self.state.note_recovered(day, killmail.killmail.time);
        }
        self.status.backfilled.fetch_add(part.killmails.len() as u64, Ordering::Relaxed);
        let checkpoint = Some(self.checkpoint());
        Some(Arrival { killmails: part.killmails, refused: part.refused, checkpoint, ..Arrival::default() })
    }

    /// Sends a request and parses the response; `None` if its body is read in parts.
    async fn send(&mut self, request: Request) -> Option<Parsed> {
        let wait = match (request, self.config.wait_secs) {
            (Request::Document(_), secs @ 1..) => format!("?wait={secs}"),
            _ => String::new(),
        };
        let url = format!("{}{}{wait}", self.config.base_url, path(request));
        self.status.requests.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        let response = self.response(request, &url).await;
        let parsed = match (request, response) {
            (_, Err(reply)) => Some(Parsed::reply_only(reply)),
            (Request::ArchiveBodies(day), Ok(response)) => {
                self.archive = Some(ArchiveReader::new(
                    day,
                    response,
                    std::mem::take(&mut self.wanted),
                    self.state.begun(),
                    self.config.document_max_bytes,
                ));
                None
            }
            (_, Ok(response)) => Some(match self.body(&url, response).await {
                Ok(body) => {
                    let parsed = self.parse(request, &body);
                    let is_document = parsed.killmail.is_some() || parsed.refused.is_some();
                    self.last_document = is_document.then_some(body);
                    parsed
                }
                Err(reply) => Parsed::reply_only(reply),
            }),
        };
        let took_ms = u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.status.request_ms.fetch_add(took_ms, Ordering::Relaxed);
        parsed
    }

    fn parse(&mut self, request: Request, body: &Bytes) -> Parsed {
        let misfit = Reply::Misfit { other_number: false };
        let document = |number, zkb| feed_document::document(body, number, zkb, &self.config.name);
        match request {
            Request::Pointer => {
                Parsed::reply_only(feed_document::pointer(body).map_or(misfit, Reply::Pointer))
            }
            Request::Document(number)
            | Request::Ahead(number)
            | Request::Retry { number, is_rewritten: false } => document(number, ZkbRule::IfNewer),
            Request::Rewritten(number) | Request::Retry { number, is_rewritten: true } => {
                document(number, ZkbRule::Always)
            }
            Request::Probe(number) => Parsed::reply_only(document(number, ZkbRule::IfNewer).reply),
            Request::ArchiveList(_) => {
                Parsed::reply_only(match day_archive::parse_list(body, &self.is_stored.0) {
                    List::Wanted(wanted) => {
                        self.wanted = wanted;
                        Reply::Listed { wanted: !self.wanted.is_empty() }
                    }
                    List::Empty => Reply::NotFound,
                    List::Unreadable => misfit,
                })
            }
            // Read in parts, never here.
            Request::ArchiveBodies(_) => Parsed::reply_only(Reply::Failed { retry_after_ms: None }),
        }
    }

    /// The response if its status is 200, or else what it means.
    async fn response(&self, request: Request, url: &str) -> Result<Response, Reply> {
        let sent = match request {
            Request::ArchiveList(_) | Request::ArchiveBodies(_) => {
                let timeout = Duration::from_millis(self.config.archive_timeout_ms);
                client::get_large(&self.client, url, timeout).await
            }
            _ => client::get(&self.client, url).await,
        };
        let response = sent.map_err(|error| self.failed(url, &error))?;
        let retry_after_ms =
            client::retry_after(response.headers()).and_then(|wait| u64::try_from(wait.as_millis()).ok());
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(Reply::NotFound),
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
            self.status.timeouts.fetch_add(1, Ordering::Relaxed);
        }
        tracing::debug!("{url}: {error}");
        Reply::Failed { retry_after_ms: None }
    }
}

fn path(request: Request) -> String {
    match request {
        Request::Pointer => "/ephemeral/sequence.json".to_owned(),
        Request::Document(number)
        | Request::Rewritten(number)
        | Request::Ahead(number)
        | Request::Probe(number)
        | Request::Retry { number, .. } => {
            format!("/ephemeral/{number}.json")
        }
        Request::ArchiveList(day) => format!("/history/{}.json", day_archive::day_name(day)),
        Request::ArchiveBodies(day) => format!("/history/raw/{}.json", day_archive::day_name(day)),
    }
}

/// One span over all of these.
fn joined(spans: impl Iterator<Item = Span>) -> Option<Span> {
    spans.reduce(|one, two| Span {
        from: one.from.min(two.from),
        to: one.to.max(two.to),
        killmails: one.killmails.saturating_add(two.killmails),
    })
}
