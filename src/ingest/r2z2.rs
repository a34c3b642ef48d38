//! zKillboard's R2Z2 feed: numbered files, one killmail each, followed one request at a time.
//!
//! [`Pace`] says what to ask and when; this asks, and keeps the place of the follower beside the killmails it brought.
//!
//! Must not know: who keeps the killmails; what happens to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::domain::entry::Origin;
use crate::feed::pulse::{Doing, Pulse};
use crate::ingest::client;
use crate::ingest::clock;
use crate::ingest::pace::{Answer, Ask, Note, Pace, Waits};
use crate::ingest::package::{self, Rule};
use crate::ingest::source::Arrival;
use crate::store::refused::Refused;
use crate::store::{AgeRule, Checkpoint, Incoming, ZkbRule};

/// The name the checkpoint is kept under.
pub const NAME: &str = "r2z2";
/// Failures in a row after which the feed counts as unreachable.
const BREAKER_FAILURES: u64 = 10;
/// The longest wait a `Retry-After` may ask for, milliseconds.
const RETRY_AFTER_MAX_MS: u64 = 3_600_000;
const PLACEHOLDER: &str = "placeholder";
const MISMATCH: &str = "sequence_mismatch";

/// What the follower is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Scheme and host of the feed; paths are appended.
    pub base_url: String,
    /// What `User-Agent` says.
    pub user_agent: String,
    /// The waits.
    pub waits: Waits,
    /// A request ends after this, milliseconds.
    pub timeout_ms: u64,
    /// A document longer than this is a failure, bytes.
    pub document_max_bytes: usize,
}

/// Where the follower stands, as the checkpoint keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Place {
    next: Option<u64>,
    rewritten: Vec<u64>,
}

/// The follower.
#[derive(Debug)]
pub struct R2z2 {
    config: Config,
    client: Client,
    pace: Pace,
    pulse: Arc<Pulse>,
    started: Instant,
}

/// What one request gave.
struct Got {
    answer: Answer,
    killmail: Option<Incoming>,
    refused: Option<Refused>,
}

impl Got {
    const fn only(answer: Answer) -> Self {
        Self { answer, killmail: None, refused: None }
    }
}

impl R2z2 {
    /// A follower that goes on where the checkpoint says, or begins where the feed is.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn new(config: Config, checkpoint: Option<&[u8]>, pulse: Arc<Pulse>) -> Result<Self, client::Error> {
        let client = client::new(&config.user_agent, &config.base_url, Duration::from_millis(config.timeout_ms))?;
        let place: Place = match checkpoint.map(serde_json::from_slice) {
            Some(Ok(place)) => place,
            None => Place::default(),
            Some(Err(error)) => {
                tracing::error!("the place in R2Z2 cannot be read, beginning at the head of the feed: {error}");
                Place::default()
            }
        };
        match place.next {
            Some(next) => tracing::info!("following {} from number {next}", config.base_url),
            None => tracing::info!("following {} from where it is", config.base_url),
        }
        let pace = Pace::new(config.waits.clone(), place.next, place.rewritten);
        Ok(Self { config, client, pace, pulse, started: Instant::now() })
    }

    /// Asks until there is something to keep: a killmail, a refusal, or a new place.
    pub async fn next(&mut self) -> Arrival {
        loop {
            let (ask, at_ms) = self.pace.ask();
            tokio::time::sleep_until(self.started + Duration::from_millis(at_ms)).await;
            let before = self.pace.place();
            let got = self.get(ask).await;
            let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let note = self.pace.answered(ask, got.answer, now_ms);
            self.report(ask, got.answer, note);
            let (next, rewritten) = self.pace.place();
            let moved = before != (next, rewritten.clone());
            // A number in the wrong file is asked for again; the last try is what is kept.
            let refused = got.refused.filter(|r| r.reason != MISMATCH || moved);
            if moved || got.killmail.is_some() || refused.is_some() {
                let bytes = serde_json::to_vec(&Place { next, rewritten }).unwrap_or_default();
                let checkpoint = Some(Checkpoint { source: NAME.to_owned(), bytes });
                return Arrival { killmails: got.killmail.into_iter().collect(), refused: refused.into_iter().collect(), checkpoint };
            }
        }
    }

    async fn get(&self, ask: Ask) -> Got {
        let path = match ask {
            Ask::Pointer => "sequence".to_owned(),
            Ask::Document(number) | Ask::Rewritten(number) => number.to_string(),
        };
        let url = format!("{}/ephemeral/{path}.json", self.config.base_url);
        self.pulse.requests.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let response = self.body(&url).await;
        let took_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.pulse.request_ms.fetch_add(took_ms, Ordering::Relaxed);
        let body = match response {
            Ok(body) => body,
            Err(answer) => return Got::only(answer),
        };
        match ask {
            Ask::Pointer => Got::only(pointer(&body).map_or(Answer::Failed, Answer::Pointer)),
            Ask::Document(number) => document(&body, number, ZkbRule::IfNewer),
            Ask::Rewritten(number) => document(&body, number, ZkbRule::Always),
        }
    }

    /// The body of a 200, or what anything else means.
    async fn body(&self, url: &str) -> Result<Bytes, Answer> {
        let failed = |error: &client::Error| {
            if error.is_timeout() {
                self.pulse.timeouts.fetch_add(1, Ordering::Relaxed);
            }
            tracing::debug!("{url}: {error}");
            Answer::Failed
        };
        let response = client::get(&self.client, url).await.map_err(|e| failed(&e))?;
        match response.status() {
            StatusCode::OK => client::body(response, self.config.document_max_bytes).await.map_err(|e| failed(&e)),
            StatusCode::NOT_FOUND => Err(Answer::Missing),
            StatusCode::TOO_MANY_REQUESTS => Err(Answer::Limited { retry_after_ms: retry_after_ms(&response) }),
            StatusCode::FORBIDDEN => Err(Answer::Forbidden),
            _ => Err(Answer::Failed),
        }
    }

    fn report(&self, ask: Ask, answer: Answer, note: Option<Note>) {
        let now_ms = clock::now_ms();
        let what = match ask {
            Ask::Pointer => "sequence.json".to_owned(),
            Ask::Document(number) | Ask::Rewritten(number) => format!("number {number}"),
        };
        if let Some(Note::Skipped(number)) = note {
            self.pulse.gaps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("R2Z2 number {number} never came and was passed over");
        }
        let Some(Note::Waiting(wait_ms)) = note else {
            if answer == Answer::Mismatch {
                tracing::warn!("R2Z2 {what} carries another number and was refused");
            }
            if let Ask::Document(number) = ask
                && answer != Answer::Missing
            {
                self.pulse.sequence.store(number, Ordering::Relaxed);
            }
            self.pulse.consecutive_errors.store(0, Ordering::Relaxed);
            self.pulse.last_success_ms.store(now_ms, Ordering::Relaxed);
            self.pulse.note(Doing::Following, now_ms);
            return;
        };
        self.pulse.errors.fetch_add(1, Ordering::Relaxed);
        let failures = self.pulse.consecutive_errors.fetch_add(1, Ordering::Relaxed) + 1;
        let why = match answer {
            Answer::Limited { .. } => "R2Z2 says too many requests (429)",
            Answer::Forbidden => "R2Z2 refuses us (403)",
            _ => "R2Z2 does not answer",
        };
        tracing::warn!("{why} at {what}; the next request follows in {wait_ms} ms");
        let open = answer == Answer::Forbidden || failures >= BREAKER_FAILURES;
        let why = why.to_owned();
        self.pulse.note(if open { Doing::BreakerOpen(why) } else { Doing::BackingOff(why) }, now_ms);
    }
}

/// The numbers beside the killmail; read apart from it, since they count even where the killmail is broken.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Numbers {
    sequence: Option<u64>,
    sequence_id: Option<u64>,
    sequence_updated: Option<u64>,
}

fn pointer(body: &[u8]) -> Option<u64> {
    let numbers: Numbers = serde_json::from_slice(body).ok()?;
    numbers.sequence.or(numbers.sequence_id)
}

fn document(body: &[u8], number: u64, zkb: ZkbRule) -> Got {
    let numbers: Numbers = serde_json::from_slice(body).unwrap_or_default();
    let answer = Answer::Document { updated: numbers.sequence_updated };
    let now_ms = clock::now_ms();
    if numbers.sequence_id.is_some_and(|id| id != number) {
        let raw = Bytes::copy_from_slice(body);
        let refused = Refused { reason: MISMATCH.to_owned(), killmail_id: None, source: NAME.to_owned(), raw, at_ms: now_ms };
        return Got { answer: Answer::Mismatch, killmail: None, refused: Some(refused) };
    }
    match package::take(body, Rule { origin: Origin::Live, age: AgeRule::ByUpload, zkb }, NAME, now_ms) {
        Ok(killmail) => Got { answer, killmail: Some(killmail), refused: None },
        Err(refused) if refused.reason == PLACEHOLDER => Got { answer: Answer::Hole, killmail: None, refused: Some(*refused) },
        Err(refused) => Got { answer, killmail: None, refused: Some(*refused) },
    }
}

/// `Retry-After` in milliseconds: seconds, or a date.
fn retry_after_ms(response: &Response) -> Option<u64> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let ms = match text.parse::<u64>() {
        Ok(secs) => secs.saturating_mul(1_000),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
            u64::try_from(at - clock::now_ms()).unwrap_or(0)
        }
    };
    Some(ms.min(RETRY_AFTER_MAX_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_pointer_are_read() {
        assert_eq!(pointer(br#"{"sequence": 900002}"#), Some(900_002));
        assert_eq!(pointer(br#"{"sequence_id": 7}"#), Some(7));
        assert_eq!(pointer(br#"{"other": 7}"#), None);
        assert_eq!(pointer(b"<html>"), None);
    }

    #[test]
    fn another_number_in_the_body_is_a_mismatch() {
        let got = document(br#"{"killmail_id":1,"sequence_id":8}"#, 7, ZkbRule::IfNewer);
        assert_eq!(got.answer, Answer::Mismatch);
        assert_eq!(got.refused.map(|r| r.reason).as_deref(), Some(MISMATCH));
    }

    #[test]
    fn a_broken_document_still_tells_of_the_rewritten_one() {
        let got = document(br#"{"killmail_id":1,"hash":"x","esi":{},"sequence_id":7,"sequence_updated":3}"#, 7, ZkbRule::IfNewer);
        assert_eq!(got.answer, Answer::Document { updated: Some(3) });
        assert!(got.killmail.is_none());
        assert!(got.refused.is_some());
    }

    #[test]
    fn the_place_survives_its_checkpoint() {
        let place = Place { next: Some(9), rewritten: vec![3, 4] };
        let bytes = serde_json::to_vec(&place).unwrap();
        assert_eq!(serde_json::from_slice::<Place>(&bytes).unwrap(), place);
    }
}
