//! A fake R2Z2 that misbehaves: refusals, failures, slow and broken responses, files that are published late or
//! never. It also serves the archives of days.
//!
//! Must not know: what happens to its responses.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract;
use axum::http::{Response, StatusCode, Uri};
use killstream::sample::rng::Dice;
use killstream::tasks;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::soak::truth::{Archived, FIRST, Publication, Rewrite, Step};

/// Share of requests that fail.
const FAULTS: f64 = 0.006;
/// How many of the newest files still exist.
const FILES: u64 = 60_000;
/// How many days of archives still exist.
const DAYS: i64 = 6;
/// `sequence.json` is behind by up to this many numbers.
const LAG: u64 = 51;
/// Delay of a slow response: longer than the server's timeout in this test.
pub const SLOW: Duration = Duration::from_millis(1_500);
const DAY_SECS: i64 = 86_400;
const HALF_PAST_SIX_SECS: i64 = 23_400;

#[derive(Debug)]
struct State {
    files: BTreeMap<u64, String>,
    archives: BTreeMap<i64, BTreeMap<u64, (Archived, Publication)>>,
    served: HashSet<u64>,
    newest_served: u64,
    next: u64,
    at: i64,
    dice: Dice,
    /// Requests for files that do not exist.
    missed: u64,
    faults: u64,
    requests: u64,
}

/// The fake upstream.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Mutex<State>>);

impl Upstream {
    /// Starts to serve an empty feed. Returns its address too.
    pub async fn start(seed: u64) -> io::Result<(Self, SocketAddr)> {
        let (files, archives, served) = (BTreeMap::new(), BTreeMap::new(), HashSet::new());
        let (dice, next) = (Dice::new(seed), FIRST);
        let state = State {
            files,
            archives,
            served,
            newest_served: 0,
            next,
            at: 0,
            dice,
            missed: 0,
            faults: 0,
            requests: 0,
        };
        let upstream = Self(Arc::new(Mutex::new(state)));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(respond).with_state(upstream.clone());
        drop(tasks::spawn("soak-upstream", async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the fake feed ended: {error}");
            }
        }));
        Ok((upstream, address))
    }

    /// Publishes the number of a step, with its file unless that is delayed or missing.
    pub fn publish(&self, step: Step) {
        let mut state = self.0.lock();
        let Step { number, text, at, publication, archived, rewrites } = step;
        (state.next, state.at) = (number + 1, at);
        state.archives.entry(archived.day).or_default().insert(number, (archived, publication));
        if publication == Publication::InOrder {
            state.files.insert(number, text);
        }
        if let Some(Rewrite { number, text, at_first }) = rewrites {
            let text = if state.served.contains(&number) { text } else { at_first };
            state.files.insert(number, text);
        }
        let (files, days) = (number.saturating_sub(FILES), at / DAY_SECS - DAYS);
        state.files = state.files.split_off(&files);
        state.archives = state.archives.split_off(&days);
    }

    /// Advances the time without killmails until all archives exist.
    pub fn finish_days(&self) {
        self.0.lock().at += 2 * DAY_SECS;
    }

    /// Publishes the delayed file of a number.
    pub fn deliver(&self, number: u64, text: String) {
        self.0.lock().files.insert(number, text);
    }

    /// Requests so far for files that do not exist. While it grows, the follower has caught up.
    pub fn missed(&self) -> u64 {
        self.0.lock().missed
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        self.0.lock().next
    }

    /// Number of requests, and of those that failed on purpose.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.requests, state.faults)
    }
}

async fn respond(extract::State(upstream): extract::State<Upstream>, uri: Uri) -> Response<Body> {
    let (text, fault) = {
        let mut state = upstream.0.lock();
        state.requests += 1;
        let faulty = state.dice.chance(FAULTS);
        let fault = faulty.then(|| state.dice.below(100));
        state.faults += u64::from(faulty);
        // A failed request does not count as served.
        (if faulty { None } else { state.text_of(uri.path()) }, fault)
    };
    let response = |status: u16, body: Vec<u8>| {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        response
    };
    match (fault, text) {
        (None, Some(text)) => response(200, text.into_bytes()),
        (None, None) => response(404, Vec::new()),
        (Some(0..5), _) => {
            let mut response = response(429, Vec::new());
            response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("1"));
            response
        }
        (Some(5..20), _) => response(429, Vec::new()),
        (Some(20..35), _) => response(403, Vec::new()),
        (Some(35..45), _) => {
            tokio::time::sleep(SLOW).await;
            response(200, Vec::new())
        }
        (Some(45..60), _) => response(200, b"<html>come back later</html>".to_vec()),
        (Some(60..75), _) => {
            let mut response = response(200, truncated_gzip());
            response.headers_mut().insert("content-encoding", axum::http::HeaderValue::from_static("gzip"));
            response
        }
        (Some(which), _) => response([500, 502, 503][which as usize % 3], Vec::new()),
    }
}

/// A truncated gzip stream.
fn truncated_gzip() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(&[b'{'; 4000]);
    let mut whole = encoder.finish().unwrap_or_default();
    whole.truncate(whole.len() / 2);
    whole
}

impl State {
    fn text_of(&mut self, path: &str) -> Option<String> {
        if path == "/ephemeral/sequence.json" {
            let pointer = self.next.saturating_sub(1 + self.next % LAG).max(FIRST);
            return Some(format!("{{\"sequence\":{pointer}}}"));
        }
        let name = path.strip_suffix(".json")?;
        if let Some(number) = name.strip_prefix("/ephemeral/").and_then(|number| number.parse().ok()) {
            let text = self.files.get(&number).cloned();
            if text.is_some() {
                self.served.insert(number);
                self.newest_served = self.newest_served.max(number);
            } else {
                self.missed += 1;
            }
            return text;
        }
        let raw = name.strip_prefix("/history/raw/");
        let day = day_of(raw.or_else(|| name.strip_prefix("/history/"))?)?;
        if self.at < (day + 1) * DAY_SECS + HALF_PAST_SIX_SECS {
            return None;
        }
        let numbers = || self.archives.get(&day).into_iter().flatten();
        // A delayed file that the server is still waiting for must arrive as a file, so that its killmail is live.
        if numbers().any(|(number, (_, publication))| {
            *publication == Publication::Delayed
                && *number < self.newest_served
                && !self.served.contains(number)
        }) {
            return None;
        }
        // An archive has what was published when it was made: here, files already served or never published.
        let is_archived = |number: &u64, publication: Publication| {
            self.served.contains(number)
                || (publication == Publication::Never && *number < self.newest_served)
        };
        let archived = numbers().filter(|(number, (_, publication))| is_archived(number, *publication));
        let line = |archived: &Archived| match raw {
            Some(_) => format!("\"{}\":{}", archived.id, archived.body),
            None => format!("\"{}\":\"{}\"", archived.id, archived.hash),
        };
        let lines: Vec<String> = archived.map(|(_, (archived, _))| line(archived)).collect();
        Some(format!("{{{}}}", lines.join(",")))
    }
}

fn day_of(name: &str) -> Option<i64> {
    let date = jiff::civil::Date::strptime("%Y%m%d", name).ok()?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(midnight.as_second().div_euclid(DAY_SECS))
}
