//! A fake R2Z2 that misbehaves: refusals, failures, slow and broken answers, files that come late or never,
//! and archives of days.
//!
//! Must not know: what becomes of its answers.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode, Uri};
use killstream::sample::rng::Dice;
use killstream::tasks;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::soak::truth::{FIRST, Filed, Rewrite, Step, Way};

/// Share of requests that go wrong.
const FAULTS: f64 = 0.006;
/// Numbers behind the newest whose files are still there.
const FILES: u64 = 60_000;
/// Days whose archives are still there.
const DAYS: i64 = 6;
/// `sequence.json` lags behind by up to so many numbers.
const LAG: u64 = 51;
/// An answer held back for longer than anyone waits here.
pub const SLOW: Duration = Duration::from_millis(1_500);
const DAY_SECS: i64 = 86_400;
const HALF_PAST_SIX_SECS: i64 = 23_400;

#[derive(Debug)]
struct Shelf {
    files: BTreeMap<u64, String>,
    archives: BTreeMap<i64, BTreeMap<u64, (Filed, Way)>>,
    served: HashSet<u64>,
    newest_served: u64,
    next: u64,
    at: i64,
    dice: Dice,
    /// Requests of files that were not there.
    missed: u64,
    faults: u64,
    requests: u64,
}

/// The fake.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Mutex<Shelf>>);

impl Upstream {
    /// An empty feed; gives the address.
    pub async fn start(seed: u64) -> io::Result<(Self, SocketAddr)> {
        let (files, archives, served) = (BTreeMap::new(), BTreeMap::new(), HashSet::new());
        let (dice, next) = (Dice::new(seed), FIRST);
        let shelf = Shelf {
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
        let upstream = Self(Arc::new(Mutex::new(shelf)));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(upstream.clone());
        drop(tasks::spawn("soak-upstream", async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the fake feed ended: {error}");
            }
        }));
        Ok((upstream, address))
    }

    /// Gives out the number of a step, with its file if that comes in turn.
    pub fn publish(&self, step: Step) {
        let mut shelf = self.0.lock();
        let Step { number, text, at, way, filed, rewrites } = step;
        (shelf.next, shelf.at) = (number + 1, at);
        shelf.archives.entry(filed.day).or_default().insert(number, (filed, way));
        if way == Way::InTurn {
            shelf.files.insert(number, text);
        }
        if let Some(Rewrite { number, text, at_first }) = rewrites {
            let text = if shelf.served.contains(&number) { text } else { at_first };
            shelf.files.insert(number, text);
        }
        let (files, days) = (number.saturating_sub(FILES), at / DAY_SECS - DAYS);
        shelf.files = shelf.files.split_off(&files);
        shelf.archives = shelf.archives.split_off(&days);
    }

    /// Time goes on without killmails until all archives are made.
    pub fn rest(&self) {
        self.0.lock().at += 2 * DAY_SECS;
    }

    /// The file of a number whose turn is long over.
    pub fn deliver(&self, number: u64, text: String) {
        self.0.lock().files.insert(number, text);
    }

    /// Requests so far of files that were not there: the follower has nothing else to do.
    pub fn missed(&self) -> u64 {
        self.0.lock().missed
    }

    /// The number that comes next.
    pub fn next(&self) -> u64 {
        self.0.lock().next
    }

    /// Requests, and those that went wrong on purpose.
    pub fn counts(&self) -> (u64, u64) {
        let shelf = self.0.lock();
        (shelf.requests, shelf.faults)
    }
}

async fn answer(State(upstream): State<Upstream>, uri: Uri) -> Response<Body> {
    let (text, fault) = {
        let mut shelf = upstream.0.lock();
        shelf.requests += 1;
        let faulty = shelf.dice.chance(FAULTS);
        let fault = faulty.then(|| shelf.dice.below(100));
        shelf.faults += u64::from(faulty);
        // What goes wrong is not served.
        (if faulty { None } else { shelf.answer(uri.path()) }, fault)
    };
    let of = |status: u16, body: Vec<u8>| {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        response
    };
    match (fault, text) {
        (None, Some(text)) => of(200, text.into_bytes()),
        (None, None) => of(404, Vec::new()),
        (Some(0..5), _) => {
            let mut response = of(429, Vec::new());
            response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("1"));
            response
        }
        (Some(5..20), _) => of(429, Vec::new()),
        (Some(20..35), _) => of(403, Vec::new()),
        (Some(35..45), _) => {
            tokio::time::sleep(SLOW).await;
            of(200, Vec::new())
        }
        (Some(45..60), _) => of(200, b"<html>come back later</html>".to_vec()),
        (Some(60..75), _) => {
            let mut response = of(200, cut());
            response.headers_mut().insert("content-encoding", axum::http::HeaderValue::from_static("gzip"));
            response
        }
        (Some(which), _) => of([500, 502, 503][which as usize % 3], Vec::new()),
    }
}

/// A gzip text that ends in the middle.
fn cut() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(&[b'{'; 4000]);
    let mut whole = encoder.finish().unwrap_or_default();
    whole.truncate(whole.len() / 2);
    whole
}

impl Shelf {
    fn answer(&mut self, path: &str) -> Option<String> {
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
        // Who still waits for a file should have it as a file: its killmail is live then.
        if numbers().any(|(number, (_, way))| {
            *way == Way::Delayed && *number < self.newest_served && !self.served.contains(number)
        }) {
            return None;
        }
        // An archive has what was published when it was made: here, what was given out, or never will be.
        let there = |number: &u64, way: Way| {
            self.served.contains(number) || (way == Way::Never && *number < self.newest_served)
        };
        let filed = numbers().filter(|(number, (_, way))| there(number, *way));
        let line = |filed: &Filed| match raw {
            Some(_) => format!("\"{}\":{}", filed.id, filed.body),
            None => format!("\"{}\":\"{}\"", filed.id, filed.hash),
        };
        let lines: Vec<String> = filed.map(|(_, (filed, _))| line(filed)).collect();
        Some(format!("{{{}}}", lines.join(",")))
    }
}

fn day_of(name: &str) -> Option<i64> {
    let date = jiff::civil::Date::strptime("%Y%m%d", name).ok()?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(midnight.as_second().div_euclid(DAY_SECS))
}
