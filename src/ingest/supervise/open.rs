//! Sources as the configuration names them, ready to run.
//!
//! Must not know: when they run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use crate::feed::Feed;
use crate::ingest::backoff::Waits;
use crate::ingest::bodies::esi::{self, Esi};
use crate::ingest::bodies::esi_limiter::Bucket;
use crate::ingest::client;
use crate::ingest::config::{self, Config};
use crate::ingest::fallback_config::{FallbackConfig, Kind, When};
use crate::ingest::r2z2::{self, Known, R2z2, feed_document};
use crate::ingest::redisq::{self, Redisq};
use crate::ingest::source::Source;
use crate::ingest::source_link::SourceLink;
use crate::ingest::websocket::{self, Websocket};
use crate::telemetry::source_status::SourceStatus;
use crate::{clock, tasks};

/// CCP's host wants a contact, too.
const REAL_ESI: &str = "evetech.net";

/// R2Z2, or a mirror of it; goes on where it stopped according to its checkpoint.
///
/// # Errors
/// Why it may not run or cannot begin, in words for people.
pub async fn r2z2(
    config: &Config,
    feed: &Arc<Feed>,
    source_status: Arc<SourceStatus>,
) -> Result<Source, String> {
    contact(config)?;
    let checkpoint = checkpoint(feed, r2z2::NAME).await?;
    follow(config, r2z2::NAME, known(feed), source_status, checkpoint)
}

async fn checkpoint(feed: &Arc<Feed>, place: &str) -> Result<Option<Vec<u8>>, String> {
    let (store, place) = (Arc::clone(feed.store()), place.to_owned());
    let checkpoint = tasks::blocking("read checkpoint", move || store.checkpoint(&place)).await;
    checkpoint.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// What is kept needs no healing.
fn known(feed: &Arc<Feed>) -> Known {
    let store = Arc::clone(feed.store());
    Known(Box::new(move |id| store.seq_of(id).is_some()))
}

fn follow(
    config: &Config,
    name: &str,
    known: Known,
    source_status: Arc<SourceStatus>,
    checkpoint: Option<Vec<u8>>,
) -> Result<Source, String> {
    let follower = r2z2::Config {
        name: name.to_owned(),
        base_url: config.r2z2_base_url.clone(),
        user_agent: client::user_agent(config.user_agent_contact.as_deref()),
        waits: config.waits(),
        wait_secs: config.r2z2_wait_secs,
        timeout_ms: config.timeout_ms,
        archive_timeout_ms: config.archive_timeout_ms,
        document_max_bytes: config.document_max_bytes,
    };
    let r2z2 = R2z2::new(follower, checkpoint.as_deref(), source_status, known)
        .map_err(|error| error.to_string())?;
    Ok(Source::R2z2(Box::new(r2z2)))
}

/// The name the place of a source beside the first is kept under.
#[must_use]
pub fn place(source: &FallbackConfig) -> String {
    format!("{}/{}", source.kind.word(), source.name())
}

/// A source beside the first.
///
/// # Errors
/// Why it may not run or cannot begin, in words for people.
pub async fn secondary(
    source: &FallbackConfig,
    config: &Config,
    feed: &Arc<Feed>,
    source_status: Arc<SourceStatus>,
) -> Result<Source, String> {
    let Kind::R2z2 = source.kind else {
        return other(source, config, &feed.epoch().to_string(), source_status);
    };
    let config = mirror(source, config)?;
    match source.when {
        When::Always => {
            contact(&config)?;
            // Before it had a name of its own, its place was kept under its kind.
            let by_kind = format!("{0}/{0}", source.kind.word());
            let checkpoint = match checkpoint(feed, &place(source)).await? {
                None if source.is_named_by_host() => checkpoint(feed, &by_kind).await?,
                found => found,
            };
            follow(&config, source.name(), known(feed), source_status, checkpoint)
        }
        When::Fallback => stand_in(source.name(), &config, feed, source_status).await,
    }
}

/// A source to be recorded, by its name: the first one, or one of the others. It begins where the source is
/// and remembers nothing.
///
/// # Errors
/// There is no such source; why it may not run or cannot begin, in words for people.
pub fn alone(name: &str, config: &Config) -> Result<Source, String> {
    let source_status = Arc::new(SourceStatus::default());
    let nothing_to_heal = || Known(Box::new(|_| true));
    if let Some(source) = config.sources.iter().find(|source| source.name() == name) {
        return match source.kind {
            Kind::R2z2 => contact(&mirror(source, config)?)
                .and_then(|config| follow(config, name, nothing_to_heal(), source_status, None)),
            Kind::Websocket | Kind::Redisq => {
                other(source, config, &format!("record-{}", clock::now_ms()), source_status)
            }
        };
    }
    if name != r2z2::NAME {
        return Err(format!("there is no source {name}"));
    }
    follow(contact(config)?, name, nothing_to_heal(), source_status, None)
}

/// The configuration with a mirror in the place of the first source; it must be as polite.
fn mirror(source: &FallbackConfig, config: &Config) -> Result<Config, String> {
    let r2z2_base_url = source.url.trim_end_matches('/').to_owned();
    let r2z2_wait_secs = source.wait_secs;
    let config = Config {
        source: config::Kind::R2z2,
        sources: vec![],
        r2z2_base_url,
        r2z2_wait_secs,
        ..config.clone()
    };
    let mistakes = config.mistakes();
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes.join("; ")) }
}

fn other(
    source: &FallbackConfig,
    config: &Config,
    store: &str,
    source_status: Arc<SourceStatus>,
) -> Result<Source, String> {
    let user_agent = client::user_agent(config.user_agent_contact.as_deref());
    let (url, timeout) =
        (source.url.trim_end_matches('/').to_owned(), Duration::from_millis(config.timeout_ms));
    let link = SourceLink::new(source.name().to_owned(), source.kind.word(), waits(config), source_status);
    let document_max_bytes = config.document_max_bytes;
    if source.kind == Kind::Websocket {
        let (topics, ping) = (source.topics.clone(), Duration::from_millis(config.websocket_ping_ms));
        let config = websocket::Config {
            url: source.url.clone(),
            user_agent,
            topics,
            timeout,
            ping,
            document_max_bytes,
        };
        return Ok(Source::Websocket(Box::new(Websocket::new(config, link))));
    }
    let queue_id = source.queue_id.clone().unwrap_or_else(|| format!("killstream-{store}"));
    let (pace, wait_secs) = (Duration::from_millis(config.redisq_pace_ms), config.redisq_wait_secs);
    let config = redisq::Config { url, user_agent, queue_id, wait_secs, pace, timeout, document_max_bytes };
    let redisq = Redisq::new(config, link).map_err(|error| error.to_string())?;
    Ok(Source::Redisq(Box::new(redisq)))
}

/// zKillboard's own host wants to know whom to reach.
fn contact(config: &Config) -> Result<&Config, String> {
    if config.is_real_host() && config.user_agent_contact.is_none() {
        return Err("USER_AGENT_CONTACT is not set; zKillboard wants to know whom to reach".to_owned());
    }
    Ok(config)
}

/// A mirror that stands in: what it had long before is of no use now, but what came while nobody followed
/// anything is.
async fn stand_in(
    name: &str,
    config: &Config,
    feed: &Arc<Feed>,
    source_status: Arc<SourceStatus>,
) -> Result<Source, String> {
    contact(config)?;
    let begin =
        begin(config, &source_status).await.map(|next| json!({ "next": next }).to_string().into_bytes());
    follow(config, name, known(feed), source_status, begin)
}

/// A number some way before the head of a mirror whose file is there; `None` if the mirror does not answer,
/// which its follower will see.
async fn begin(config: &Config, source_status: &SourceStatus) -> Option<u64> {
    let user_agent = client::user_agent(config.user_agent_contact.as_deref());
    let client =
        client::new(&user_agent, &config.r2z2_base_url, Duration::from_millis(config.timeout_ms)).ok()?;
    source_status.requests.fetch_add(1, Ordering::Relaxed);
    let response =
        client::get(&client, &format!("{}/ephemeral/sequence.json", config.r2z2_base_url)).await.ok()?;
    let pointer = feed_document::pointer(&client::body(response, config.document_max_bytes).await.ok()?)?;
    for back in [config.fallback_overlap_numbers, config.fallback_overlap_numbers / 4] {
        let number = pointer.saturating_sub(back).max(1);
        tokio::time::sleep(Duration::from_millis(config.r2z2_pace_ms)).await;
        source_status.requests.fetch_add(1, Ordering::Relaxed);
        let response =
            client::get(&client, &format!("{}/ephemeral/{number}.json", config.r2z2_base_url)).await.ok()?;
        if response.status().is_success()
            && feed_document::is_document(&client::body(response, config.document_max_bytes).await.ok()?)
        {
            return Some(number);
        }
    }
    Some(pointer)
}

/// ESI, for bodies.
///
/// # Errors
/// Why it may not be asked, in words for people.
pub fn esi(config: &Config) -> Result<Esi, String> {
    let host = config
        .esi_base_url
        .split("://")
        .last()
        .unwrap_or_default()
        .split(['/', ':'])
        .next()
        .unwrap_or_default();
    if host.to_ascii_lowercase().ends_with(REAL_ESI) && config.user_agent_contact.is_none() {
        return Err("USER_AGENT_CONTACT is not set; CCP wants to know whom to reach".to_owned());
    }
    let bucket = Bucket {
        tokens: config.esi_tokens,
        window_ms: config.esi_window_secs.saturating_mul(1_000),
        spare_percent: config.esi_spare_percent,
    };
    let config = esi::Config {
        base_url: config.esi_base_url.clone(),
        user_agent: client::user_agent(config.user_agent_contact.as_deref()),
        compatibility_date: config.esi_compatibility_date.clone(),
        timeout_ms: config.timeout_ms,
        body_max_bytes: config.document_max_bytes,
        bucket,
    };
    Esi::new(config).map_err(|error| error.to_string())
}

fn waits(config: &Config) -> Waits {
    Waits {
        limited: Duration::from_millis(config.r2z2_limited_ms),
        forbidden: Duration::from_millis(config.r2z2_forbidden_ms),
        failed: Duration::from_millis(config.r2z2_failed_ms),
    }
}
