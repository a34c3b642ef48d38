//! The house without its front door: store, engine, feed, routes. The server listens for it; commands on a
//! free data folder ask it directly.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::request::Parts;
use bytes::Bytes;
use tokio_stream::StreamExt;
use tower::ServiceExt;

use crate::budget::Budget;
use crate::config::Config;
use crate::domain::entry::{Entry, Origin, SharedEntry};
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;
use crate::feed::Feed;
use crate::http::request::address;
use crate::http::request::connections::Connections;
use crate::ingest::config::{self as ingest, Kind};
use crate::ingest::replay::{self, Replay};
use crate::ingest::source::Source;
use crate::ingest::supervise::open;
use crate::plugin::engine::Engine;
use crate::plugins::Plugins;
use crate::plugins::plugin_history::StoreHistory;
use crate::server::{Error, token};
use crate::store::Store;
use crate::store::facts::facts;
use crate::telemetry::source_status::Doing;
use crate::wire::read::package;
use crate::{clock, http, phoenix, sample, tasks, wire};

/// Every so many killmails of the sample one is tried: 127 of them judge in a blink, and even a guest that
/// uses up its time on each is refused within seconds.
const TRIAL_STEP: usize = 31;

/// Everything but sockets.
pub struct App {
    feed: Arc<Feed>,
    router: Router,
    channels: Arc<phoenix::ChannelState>,
    token: String,
    in_flight: Arc<Budget>,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl App {
    /// Opens the store and puts everything on top of it. Whoever listens counts connections there.
    ///
    /// # Errors
    /// The store is damaged or in use, the token cannot be made, the engine does not run here.
    pub async fn open(config: Config, connections: Arc<Connections>) -> Result<Self, Error> {
        let data_dir = config.server.data_dir.clone();
        let store_config = config.store.clone();
        let open = move || Store::open(store_config, wire::killmail::encode);
        let store = tasks::blocking("open store", open).await??;
        let token = match config.server.api_token.clone() {
            Some(token) => token,
            None => {
                let told = |source| Error::Token { data_dir: data_dir.display().to_string(), source };
                let (token, made) = token::of(&data_dir).map_err(told)?;
                if made {
                    tracing::warn!(
                        "a token for those who may write was made: {}",
                        token::path(&data_dir).display()
                    );
                }
                token
            }
        };
        let history = Arc::new(StoreHistory::new(&store));
        let engine = Engine::new(config.plugin, history, wire::killmail::json)?;
        let kept = Arc::clone(&store);
        let plugins = tasks::blocking("open plugins", move || Plugins::open(kept, engine, trial())).await??;
        plugins.prepare();
        let feed = Feed::start(store, plugins, config.feed)?;
        let proxies = config.http.trusted_proxies.clone();
        let whence = Box::new(move |parts: &Parts| phoenix::Caller {
            address: address::of(parts, &proxies),
            judged: address::caller(parts, &proxies),
        });
        let channels = phoenix::ChannelState::new(Arc::clone(&feed), config.channels, whence);
        let (started, kept, others) = (SystemTime::now(), token.clone(), channels.router());
        let in_flight = Arc::new(Budget::new(config.http.in_flight_max_bytes));
        let bytes = Arc::clone(&in_flight);
        let state = http::state::State {
            config: config.http,
            feed: Arc::clone(&feed),
            token,
            started,
            connections,
            in_flight: bytes,
            others,
        };
        Ok(Self { router: http::router(state), feed, channels, token: kept, in_flight })
    }

    /// The log in motion.
    #[must_use]
    pub const fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// The door of channels.
    #[must_use]
    pub const fn channels(&self) -> &Arc<phoenix::ChannelState> {
        &self.channels
    }

    /// The bytes of requests that are in memory.
    #[must_use]
    pub const fn in_flight(&self) -> &Arc<Budget> {
        &self.in_flight
    }

    /// All routes.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The token of those who may write.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Asks the API without a socket, as the administrator.
    ///
    /// # Errors
    /// The request is malformed, or the answer is longer than memory should hold.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Answer, axum::Error> {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let request = request.body(Body::from(body)).map_err(axum::Error::new)?;
        let response = self.router().oneshot(request).await.map_err(axum::Error::new)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let mut pieces = response.into_body().into_data_stream();
        // Each piece is copied and let go: an answer that is made while it is taken waits for that.
        while let Some(piece) = pieces.next().await {
            body.extend_from_slice(&piece?);
        }
        Ok(Answer { status, body: body.into() })
    }

    /// Lets go of everything; returns when the data folder is free for others, or after the grace period.
    pub async fn release(self, grace: Duration) {
        let store = Arc::downgrade(self.feed.store());
        self.feed.close();
        drop(self);
        let released = async {
            while store.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(grace, released).await.is_err() {
            tracing::warn!("the store is still in use after {} ms", grace.as_millis());
        }
    }
}

/// The killmails uploads are tried on: a cut through the bundled sample, of every form, small and large. They
/// stand before the log, so that history has nothing to tell of them, whatever is published meanwhile.
#[must_use]
pub fn trial() -> Vec<SharedEntry> {
    let documents =
        sample::lines().step_by(TRIAL_STEP).filter_map(|line| package::parse(line.as_bytes()).ok()?.killmail);
    let entry = |killmail: Killmail| Entry {
        seq: Seq::ZERO,
        rev: 0,
        origin: Origin::Backfill,
        received_at_ms: 0,
        uploaded_at: None,
        age_secs: 0,
        facts: facts(&killmail),
        killmail,
        json: OnceLock::new(),
    };
    documents.map(|killmail| Arc::new(entry(killmail))).collect()
}

/// The source the configuration asks for. One that may not run or cannot begin is said in the log and in
/// `/health`; the server runs without it.
pub async fn source(config: &ingest::Config, feed: &Arc<Feed>) -> Source {
    let word = config.first();
    *feed.source_status().source.lock() = word;
    let made = match config.source {
        Kind::R2z2 => open::r2z2(config, feed, Arc::clone(feed.source_status())).await,
        Kind::Replay => {
            let replay = replay::Config {
                paths: config.replay.clone(),
                speed: config.replay_speed,
                rebase: config.replay_rebase,
            };
            Replay::new(replay)
                .map(|replay| Source::Replay(Box::new(replay)))
                .map_err(|error| error.to_string())
        }
        Kind::None => Ok(Source::None),
    };
    made.unwrap_or_else(|why| {
        tracing::error!("source {word} stays off: {why}");
        feed.source_status().note(Doing::Refused(why), clock::now_ms());
        Source::None
    })
}
