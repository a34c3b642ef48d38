//! Whether the server is well: only the status counts for whoever asks automatically, the rest is for people.
//!
//! Must not know: how to make it well.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::clock::now_secs;
use crate::domain::term::Dimension;
use crate::feed::silence::{Silence, silence};
use crate::http::answer::error::Error;
use crate::http::answer::success::Json;
use crate::http::numbers::process::Process;
use crate::http::routes::health_config::Config;
use crate::http::state::HttpState;
use crate::tasks;
use crate::telemetry::fallback_status::FallbackSource;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::wire::{text, time};

/// `GET /ping`.
pub async fn ping() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "pong")
}

/// `GET /health/live`: the process answers.
pub async fn live() -> Json {
    Json::bare(&json!({ "status": "ok", "timestamp": time::iso_micros_now() }))
}

/// `GET /health/ready`: killmails come as they usually do, and can be kept.
pub async fn ready(State(door): State<Arc<HttpState>>) -> Result<Response, Error> {
    let feed = Arc::clone(&door.feed);
    let store =
        tasks::blocking("ready", move || (feed.store().failure(), feed.store().lack_of_space())).await;
    let (failure, lack) = store.map_err(|lost| Error::HealthCheck { reason: lost.to_string() })?;
    let source_status = door.feed.source_status();
    let (doing, _) = source_status.doing();
    let silence = silence(source_status, &door.config.health.limits(), now_secs());
    let why = match (failure, lack, off(&door, &doing), silence) {
        (Some(failure), ..) => Some(format!("the store only reads: {failure}")),
        _ if door.feed.is_closing() => Some("the server is stopping".to_owned()),
        (_, Some(lack), ..) => Some(lack),
        (_, _, Some(why), _) => Some(why),
        (.., Some(silence)) if silence.is_too_long() => {
            let Silence { secs, max_secs } = silence;
            Some(format!("no killmail for {secs} s, more than the {max_secs} s usual now"))
        }
        _ => None,
    };
    let body = json!({
        "ready": why.is_none(),
        "status": if why.is_none() { "ok" } else { "error" },
        "reason": why,
        "silent_seconds": silence.map(|silence| silence.secs),
        "silent_max_seconds": silence.map(|silence| silence.max_secs),
        "source": { "name": source_status.kind.lock().word(), "state": doing.word(), "reason": doing.reason() },
        "timestamp": time::iso_micros_now(),
    });
    let status = if why.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = Json(status, Bytes::from(text::json(&body))).into_response();
    if why.is_some() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    Ok(response)
}

/// Why no killmails can come: of the sources that should run none is usable.
fn off(door: &HttpState, doing: &Doing) -> Option<String> {
    let sources = door.feed.fallback_status().sources.read();
    let others: Vec<(String, Doing)> = sources
        .iter()
        .filter(|other| runs(other))
        .map(|other| (other.name.clone(), other.status.doing().0))
        .collect();
    none_usable(doing, &others)
}

/// Whether a source beside the first should run now; one that stands in for others only does while it is
/// asked to.
fn runs(other: &FallbackSource) -> bool {
    !other.fallback || other.active.load(Ordering::Relaxed)
}

/// Why neither the first source nor one beside it can bring anything; `None` where one can, or none is meant
/// to.
fn none_usable(first: &Doing, others: &[(String, Doing)]) -> Option<String> {
    let shut = |doing: &Doing| matches!(doing, Doing::Refused(_) | Doing::BreakerOpen(_));
    let is_off = |doing: &Doing| matches!(doing, Doing::Off | Doing::Finished);
    // Whoever stands beside another has to follow to count; the first is given its time.
    let usable =
        (!is_off(first) && !shut(first)) || others.iter().any(|(_, doing)| *doing == Doing::Following);
    if usable || !(shut(first) || others.iter().any(|(_, doing)| shut(doing))) {
        return None;
    }
    let told = |name: &str, doing: &Doing| match doing {
        Doing::Refused(why) => Some(format!("the source{name} is off: {why}")),
        Doing::BreakerOpen(why) => Some(format!("the source{name} keeps away from the other side: {why}")),
        Doing::BackingOff(why) => Some(format!("the source{name} waits after a failure: {why}")),
        _ => None,
    };
    let all = told("", first)
        .into_iter()
        .chain(others.iter().filter_map(|(name, doing)| told(&format!(" {name}"), doing)));
    Some(all.collect::<Vec<_>>().join("; "))
}

/// `GET /health` and `/api/health`.
pub async fn health(State(door): State<Arc<HttpState>>) -> Result<Json, Error> {
    let looked = tasks::blocking("health", move || look(&door));
    let (status, body) = looked.await.map_err(|lost| Error::HealthCheck { reason: lost.to_string() })?;
    Ok(Json(status, Bytes::from(text::json(&body))))
}

/// The health now, with the status of its answer. Blocks for a moment.
pub fn look(door: &HttpState) -> (StatusCode, Value) {
    let (failure, lack) = (door.feed.store().failure(), door.feed.store().lack_of_space());
    // Read once: the word and what it is about must be of one moment.
    let now = door.feed.source_status().doing();
    let judged = match judge(&now, failure.as_deref(), &door.config.health) {
        // What is damaged is not served; the rest is.
        Judged::Ok
            if lack.is_some()
                || door.feed.store().damaged() > 0
                || refuses(door)
                || off(door, &now.0).is_some() =>
        {
            Judged::Degraded
        }
        judged => judged,
    };
    let status = if judged == Judged::Error { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, body(door, judged, &now, Storage { failure, lack }))
}

/// Whether everything a source brings is refused.
fn refuses(door: &HttpState) -> bool {
    let most = door.config.health.refused_documents;
    let is_long = |source_status: &SourceStatus| most > 0 && source_status.refused_run.lock().count >= most;
    is_long(door.feed.source_status())
        || door.feed.fallback_status().sources.read().iter().any(|other| is_long(&other.status))
}

/// What a source brought last was refused: why, and how often in a row.
fn refused_run(source_status: &SourceStatus) -> Value {
    let run = source_status.refused_run.lock();
    if run.count == 0 { Value::Null } else { json!({ "reason": run.reason, "documents": run.count }) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    Ok,
    Degraded,
    Error,
}

/// Why the store cannot be written, where it cannot.
struct Storage {
    failure: Option<String>,
    lack: Option<String>,
}

/// What the source is doing, and since when, unix milliseconds.
type Now = (Doing, i64);

fn judge((doing, since_ms): &Now, failure: Option<&str>, config: &Config) -> Judged {
    match doing {
        _ if failure.is_some() => Judged::Error,
        Doing::BreakerOpen(_)
            if now_secs() - since_ms / 1000
                >= i64::try_from(config.breaker_open_secs).unwrap_or(i64::MAX) =>
        {
            Judged::Error
        }
        Doing::BreakerOpen(_) | Doing::BackingOff(_) | Doing::NoSpace(_) | Doing::Refused(_) => {
            Judged::Degraded
        }
        Doing::Off | Doing::Following | Doing::Finished => Judged::Ok,
    }
}

fn body(door: &HttpState, judged: Judged, now: &Now, storage: Storage) -> Value {
    let word = match judged {
        Judged::Ok => "ok",
        Judged::Degraded => "degraded",
        Judged::Error => "error",
    };
    let source_status = door.feed.source_status();
    json!({
        "healthy": judged != Judged::Error,
        "status": word,
        "details": details(door, now, storage),
        "timestamp": time::iso_micros_now(),
        "circuit_breaker": breaker(source_status, now, &door.config.health),
        "connection_monitor": connections(door, source_status),
    })
}

fn details(door: &HttpState, (doing, since_ms): &Now, Storage { failure, lack }: Storage) -> Value {
    let source_status = door.feed.source_status();
    let stats = door.feed.store().stats();
    let process = Process::now();
    let characters = dimension(door, Dimension::Character, "character_count");
    let systems = dimension(door, Dimension::System, "system_count");
    json!({
        "cache": { "size": stats.killmails, "memory_bytes": stats.index_bytes, "hit_rate": door.hit_rate(), "namespace_stats": {} },
        "application": {
            "memory_mb": process.memory_mb(),
            "process_count": process.threads,
            "uptime_seconds": door.uptime_secs(),
            "version": env!("CARGO_PKG_VERSION"),
        },
        "storage": {
            "killmails": stats.killmails,
            "disk_bytes": stats.disk_bytes,
            "has_space": lack.is_none(),
            "no_space": lack,
            "damaged_records": stats.damaged,
            "failure": failure,
        },
        "source": {
            "name": source_status.kind.lock().word(),
            "state": doing.word(),
            "reason": doing.reason(),
            "since": (*since_ms > 0).then(|| time::iso_micros(*since_ms)),
            "sequence": source_status.sequence.load(Ordering::Relaxed),
            "open_gap_numbers": source_status.still_missing_count(),
            "refused_in_a_row": refused_run(source_status),
            "fallback": standing_in(door),
        },
        "sources": door.feed.fallback_status().sources.read().iter().map(|other| of_other(other)).collect::<Vec<_>>(),
        "character_subscriptions": characters,
        "system_subscriptions": systems,
        "unknown": { "character_subscriptions": characters, "system_subscriptions": systems },
    })
}

/// The name of the source that stands in for the first, if one does.
fn standing_in(door: &HttpState) -> Option<String> {
    let sources = door.feed.fallback_status().sources.read();
    sources
        .iter()
        .find(|other| other.fallback && other.active.load(Ordering::Relaxed))
        .map(|other| other.name.clone())
}

fn of_other(other: &FallbackSource) -> Value {
    let (doing, _) = other.status.doing();
    let since_ms = other.since_ms.load(Ordering::Relaxed);
    json!({
        "name": other.name,
        "kind": other.kind,
        "when": if other.fallback { "fallback" } else { "always" },
        "active": other.active.load(Ordering::Relaxed),
        "since": (since_ms > 0).then(|| time::iso_micros(since_ms)),
        "state": doing.word(),
        "reason": doing.reason(),
        "received": other.status.received.load(Ordering::Relaxed),
        "refused_in_a_row": refused_run(&other.status),
    })
}

/// Readers that name ids of this dimension. `last_update` is when the newest of them opened.
fn dimension(door: &HttpState, kind: Dimension, count: &str) -> Value {
    let (mut subscriptions, mut ids, mut newest) = (0_u64, 0, None);
    for line in door.feed.registry().readers() {
        if let Some(set) = line.subscription().filter.ids(kind) {
            subscriptions += 1;
            ids += set.as_slice().len();
            newest = newest.max(Some(line.opened_at_ms));
        }
    }
    let last = newest.map_or_else(|| "never".to_owned(), time::iso_micros);
    let mut told = json!({ "subscription_count": subscriptions, "memory_bytes": ids * size_of::<u32>(), "last_update": last });
    told[count] = json!(ids);
    told
}

fn breaker(source_status: &SourceStatus, (doing, since_ms): &Now, config: &Config) -> Value {
    let open = matches!(doing, Doing::BreakerOpen(_));
    let state = match doing {
        Doing::BreakerOpen(_) => "open",
        Doing::BackingOff(_) => "half_open",
        Doing::Refused(_) => "unknown",
        _ => "closed",
    };
    json!({
        "circuit_state": state,
        "consecutive_errors": source_status.consecutive_errors.load(Ordering::Relaxed),
        "max_consecutive_errors": 10,
        "circuit_opened_at": open.then(|| time::iso_micros(*since_ms)),
        "circuit_reset_timeout_ms": config.breaker_open_secs.saturating_mul(1000),
        "last_updated": if *since_ms > 0 { *since_ms } else { now_secs() * 1000 },
    })
}

fn connections(door: &HttpState, source_status: &SourceStatus) -> Value {
    let now = now_secs();
    let success = match source_status.last_success_ms.load(Ordering::Relaxed) / 1000 {
        0 => door.started_at(),
        at => at,
    };
    let errors = source_status.errors.load(Ordering::Relaxed);
    let timeouts = source_status.timeouts.load(Ordering::Relaxed);
    let (doing, _) = source_status.doing();
    let reasons = doing.reason().map_or_else(
        || json!({}),
        |reason| json!({ reason: source_status.consecutive_errors.load(Ordering::Relaxed) }),
    );
    json!({
        "consecutive_timeout_errors": if timeouts > 0 { source_status.consecutive_errors.load(Ordering::Relaxed).min(timeouts) } else { 0 },
        "consecutive_connection_failures": source_status.consecutive_errors.load(Ordering::Relaxed),
        "last_successful_request": success,
        "last_recycled_at": door.started_at(),
        "total_timeouts": timeouts,
        "total_connection_failures": errors,
        "recycled_count": 0,
        "time_since_success": now - success,
        "time_since_recycled": now - door.started_at(),
        "failure_reasons": reasons,
        "conn_max_idle_time": 90_000,
        "recycle_interval": 300,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_breaker_degrades_and_after_its_time_fails() {
        let at_once = Config { breaker_open_secs: 0, ..Config::default() };
        let source_status = SourceStatus::default();
        assert_eq!(judge(&source_status.doing(), None, &Config::default()), Judged::Ok);
        source_status.note(Doing::BreakerOpen("403".to_owned()), now_secs() * 1000);
        assert_eq!(judge(&source_status.doing(), None, &Config::default()), Judged::Degraded);
        assert_eq!(judge(&source_status.doing(), None, &at_once), Judged::Error);
        source_status.note(Doing::BreakerOpen("403 again".to_owned()), (now_secs() + 500) * 1000);
        source_status.note(Doing::Following, 0);
        assert_eq!(judge(&source_status.doing(), None, &at_once), Judged::Ok);
        source_status.note(Doing::BreakerOpen("403".to_owned()), (now_secs() - 601) * 1000);
        assert_eq!(
            judge(&source_status.doing(), None, &Config::default()),
            Judged::Error,
            "after ten minutes"
        );
    }

    #[test]
    fn without_a_usable_source_nothing_can_come() {
        let shut = || Doing::BreakerOpen("403".to_owned());
        let beside = |doing| vec![("spare".to_owned(), doing)];
        assert_eq!(none_usable(&Doing::Off, &[]), None, "none is meant to run");
        assert_eq!(none_usable(&Doing::Finished, &[]), None);
        assert_eq!(none_usable(&Doing::Off, &beside(Doing::Following)), None);
        assert_eq!(none_usable(&shut(), &beside(Doing::Following)), None);
        assert_eq!(none_usable(&Doing::Following, &beside(shut())), None);
        let told = none_usable(&Doing::Off, &beside(shut()));
        assert_eq!(told.as_deref(), Some("the source spare keeps away from the other side: 403"));
        let told = none_usable(&Doing::Refused("no contact".to_owned()), &beside(shut()));
        assert_eq!(
            told.as_deref(),
            Some("the source is off: no contact; the source spare keeps away from the other side: 403")
        );
    }

    #[test]
    fn nothing_else_but_a_failed_store_is_unhealthy() {
        let source_status = SourceStatus::default();
        let why = || "x".to_owned();
        for doing in [
            Doing::Off,
            Doing::Refused(why()),
            Doing::BackingOff(why()),
            Doing::NoSpace(why()),
            Doing::Finished,
        ] {
            source_status.note(doing, 1);
            assert_ne!(
                judge(&source_status.doing(), None, &Config::default()),
                Judged::Error,
                "{:?}",
                source_status.doing()
            );
            assert_eq!(judge(&source_status.doing(), Some("disk"), &Config::default()), Judged::Error);
        }
    }
}
