//! Opens sources as the configuration describes them.
//!
//! Must not know: when they run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use crate::ingest::backoff::Waits;
use crate::ingest::bodies::esi::{self, Esi};
use crate::ingest::bodies::esi_limiter::Bucket;
use crate::ingest::client;
use crate::ingest::config::Config;
use crate::ingest::fallback_config::{FallbackConfig, When, cannot_run_beside};
use crate::ingest::r2z2::{self, IsStored, R2z2, feed_document};
use crate::ingest::redisq::{self, Redisq};
use crate::ingest::replay::{self, Replay};
use crate::ingest::source::Source;
use crate::ingest::source_link::SourceLink;
use crate::ingest::websocket::{self, Websocket};
use crate::store::Store;
use crate::telemetry::source_kind::SourceKind;
use crate::telemetry::source_status::SourceStatus;
use crate::{clock, tasks};

/// CCP's host requires a contact as well.
const REAL_ESI: &str = "evetech.net";

/// Opens the first source. R2Z2 continues from its checkpoint.
///
/// # Errors
/// Why it may not run or cannot start, as a message for the operator.
pub async fn open_first(
    config: &Config,
    store: &Arc<Store>,
    status: Arc<SourceStatus>,
) -> Result<Source, String> {
    match config.source {
        SourceKind::R2z2 => {
            require_contact(config)?;
            let checkpoint = read_checkpoint(store, r2z2::NAME).await?;
            open_r2z2(config, r2z2::NAME, is_stored(store), status, checkpoint)
        }
        SourceKind::Replay => open_replay(config),
        SourceKind::None => Ok(Source::None),
        kind @ (SourceKind::Websocket | SourceKind::Redisq) => {
            Err(format!("a {} cannot be the first source", kind.word()))
        }
    }
}

/// Opens a source beside the first one.
///
/// # Errors
/// Why it may not run or cannot start, as a message for the operator.
pub async fn open_fallback(
    source: &FallbackConfig,
    config: &Config,
    store: &Arc<Store>,
    status: Arc<SourceStatus>,
) -> Result<Source, String> {
    match source.kind {
        SourceKind::R2z2 => open_mirror(source, config, store, status).await,
        SourceKind::Websocket => Ok(open_websocket(source, config, status)),
        SourceKind::Redisq => open_redisq(source, config, &store.epoch().to_string(), status),
        kind @ (SourceKind::Replay | SourceKind::None) => Err(cannot_run_beside(kind)),
    }
}

/// Opens a source for recording, by name: the first one or a fallback. It starts at the head of the source
/// and keeps no checkpoint.
///
/// # Errors
/// There is no source of that name, or why it may not run or cannot start.
pub fn open_for_recording(name: &str, config: &Config) -> Result<Source, String> {
    let status = Arc::new(SourceStatus::default());
    // Nothing is stored, so nothing is recovered either.
    let all_stored = || IsStored(Box::new(|_| true));
    let Some(source) = config.sources.iter().find(|source| source.name() == name) else {
        if name != r2z2::NAME {
            return Err(format!("there is no source {name}"));
        }
        return open_r2z2(require_contact(config)?, name, all_stored(), status, None);
    };
    match source.kind {
        SourceKind::R2z2 => {
            open_r2z2(require_contact(&mirror_config(source, config)?)?, name, all_stored(), status, None)
        }
        SourceKind::Websocket => Ok(open_websocket(source, config, status)),
        SourceKind::Redisq => open_redisq(source, config, &format!("record-{}", clock::now_ms()), status),
        kind @ (SourceKind::Replay | SourceKind::None) => Err(cannot_run_beside(kind)),
    }
}

/// The name under which a fallback source keeps its checkpoint.
#[must_use]
pub fn checkpoint_name(source: &FallbackConfig) -> String {
    format!("{}/{}", source.kind.word(), source.name())
}

async fn read_checkpoint(store: &Arc<Store>, name: &str) -> Result<Option<Vec<u8>>, String> {
    let (store, name) = (Arc::clone(store), name.to_owned());
    let checkpoint = tasks::blocking("read checkpoint", move || store.checkpoint(&name)).await;
    checkpoint.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn is_stored(store: &Arc<Store>) -> IsStored {
    let store = Arc::clone(store);
    IsStored(Box::new(move |id| store.seq_of(id).is_some()))
}

fn open_r2z2(
    config: &Config,
    name: &str,
    is_stored: IsStored,
    status: Arc<SourceStatus>,
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
    let r2z2 =
        R2z2::new(follower, checkpoint.as_deref(), status, is_stored).map_err(|error| error.to_string())?;
    Ok(Source::R2z2(Box::new(r2z2)))
}

async fn open_mirror(
    source: &FallbackConfig,
    config: &Config,
    store: &Arc<Store>,
    status: Arc<SourceStatus>,
) -> Result<Source, String> {
    let config = mirror_config(source, config)?;
    require_contact(&config)?;
    let checkpoint = match source.when {
        When::Always => {
            // Before sources were named by their host, the checkpoint was kept under the kind.
            let named_by_kind = format!("{0}/{0}", source.kind.word());
            match read_checkpoint(store, &checkpoint_name(source)).await? {
                None if source.is_named_by_host() => read_checkpoint(store, &named_by_kind).await?,
                found => found,
            }
        }
        // What the mirror had long ago is not needed, but what arrived during the outage is.
        When::Fallback => number_before_head(&config, &status)
            .await
            .map(|next| json!({ "next": next }).to_string().into_bytes()),
    };
    open_r2z2(&config, source.name(), is_stored(store), status, checkpoint)
}

/// The configuration with a mirror in place of the first source; it must keep the same minimum waits.
fn mirror_config(source: &FallbackConfig, config: &Config) -> Result<Config, String> {
    let config = Config {
        source: SourceKind::R2z2,
        sources: vec![],
        r2z2_base_url: source.url.trim_end_matches('/').to_owned(),
        r2z2_wait_secs: source.wait_secs,
        ..config.clone()
    };
    let errors = config.validate();
    if errors.is_empty() { Ok(config) } else { Err(errors.join("; ")) }
}

/// A number some way before the head of a mirror whose file exists; `None` if the mirror does not respond,
/// which its follower will report.
async fn number_before_head(config: &Config, status: &SourceStatus) -> Option<u64> {
    let user_agent = client::user_agent(config.user_agent_contact.as_deref());
    let timeout = Duration::from_millis(config.timeout_ms);
    let client = client::new(&user_agent, &config.r2z2_base_url, timeout).ok()?;
    status.requests.fetch_add(1, Ordering::Relaxed);
    let url = format!("{}/ephemeral/sequence.json", config.r2z2_base_url);
    let response = client::get(&client, &url).await.ok()?;
    let head = feed_document::pointer(&client::body(response, config.document_max_bytes).await.ok()?)?;
    for back in [config.fallback_overlap_numbers, config.fallback_overlap_numbers / 4] {
        let number = head.saturating_sub(back).max(1);
        tokio::time::sleep(Duration::from_millis(config.r2z2_pace_ms)).await;
        status.requests.fetch_add(1, Ordering::Relaxed);
        let url = format!("{}/ephemeral/{number}.json", config.r2z2_base_url);
        let response = client::get(&client, &url).await.ok()?;
        if response.status().is_success()
            && feed_document::is_document(&client::body(response, config.document_max_bytes).await.ok()?)
        {
            return Some(number);
        }
    }
    Some(head)
}

fn open_websocket(source: &FallbackConfig, config: &Config, status: Arc<SourceStatus>) -> Source {
    let websocket = websocket::Config {
        url: source.url.clone(),
        user_agent: client::user_agent(config.user_agent_contact.as_deref()),
        topics: source.topics.clone(),
        timeout: Duration::from_millis(config.timeout_ms),
        ping: Duration::from_millis(config.websocket_ping_ms),
        document_max_bytes: config.document_max_bytes,
    };
    Source::Websocket(Box::new(Websocket::new(websocket, link(source, config, status))))
}

/// Opens a queue; unless configured, `owner` becomes part of the id the queue remembers us by.
fn open_redisq(
    source: &FallbackConfig,
    config: &Config,
    owner: &str,
    status: Arc<SourceStatus>,
) -> Result<Source, String> {
    let queue = redisq::Config {
        url: source.url.trim_end_matches('/').to_owned(),
        user_agent: client::user_agent(config.user_agent_contact.as_deref()),
        queue_id: source.queue_id.clone().unwrap_or_else(|| format!("killstream-{owner}")),
        wait_secs: config.redisq_wait_secs,
        pace: Duration::from_millis(config.redisq_pace_ms),
        timeout: Duration::from_millis(config.timeout_ms),
        document_max_bytes: config.document_max_bytes,
    };
    let redisq = Redisq::new(queue, link(source, config, status)).map_err(|error| error.to_string())?;
    Ok(Source::Redisq(Box::new(redisq)))
}

fn link(source: &FallbackConfig, config: &Config, status: Arc<SourceStatus>) -> SourceLink {
    let waits = Waits {
        limited_ms: config.r2z2_limited_ms,
        forbidden_ms: config.r2z2_forbidden_ms,
        failed_ms: config.r2z2_failed_ms,
    };
    SourceLink::new(source.name().to_owned(), source.kind, waits, status)
}

fn open_replay(config: &Config) -> Result<Source, String> {
    let replay = replay::Config {
        paths: config.replay.clone(),
        speed: config.replay_speed,
        rebase: config.replay_rebase,
    };
    let replay = Replay::new(replay).map_err(|error| error.to_string())?;
    Ok(Source::Replay(Box::new(replay)))
}

/// zKillboard's own host asks for a contact in the `User-Agent`.
fn require_contact(config: &Config) -> Result<&Config, String> {
    if config.is_real_host() && config.user_agent_contact.is_none() {
        return Err("USER_AGENT_CONTACT is not set; zKillboard requires a contact".to_owned());
    }
    Ok(config)
}

/// Opens the client for bodies from ESI.
///
/// # Errors
/// Why ESI may not be called, as a message for the operator.
pub fn open_esi(config: &Config) -> Result<Esi, String> {
    let host = client::host(&config.esi_base_url);
    if host.to_ascii_lowercase().ends_with(REAL_ESI) && config.user_agent_contact.is_none() {
        return Err("USER_AGENT_CONTACT is not set; CCP requires a contact".to_owned());
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
