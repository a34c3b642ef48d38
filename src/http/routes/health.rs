//! Health of the server. Monitors look at the status code only; the body is for people.
//!
//! Must not know: how to recover.

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
use crate::http::answer::error::Error;
use crate::http::answer::success::Json;
use crate::http::numbers::process::Process;
use crate::http::routes::health_config::Config;
use crate::http::state::HttpState;
use crate::tasks;
use crate::telemetry::fallback_status::FallbackSource;
use crate::telemetry::silence::{Silence, silence};
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::wire::{text, time};

pub async fn ping() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "pong")
}

/// `GET /health/live`: the process responds.
pub async fn live() -> Json {
    Json::bare(&json!({ "status": "ok", "timestamp": time::iso_micros_now() }))
}

/// `GET /health/ready`: killmails arrive at the usual rate and can be stored.
pub async fn ready(State(state): State<Arc<HttpState>>) -> Result<Response, Error> {
    let store = Arc::clone(&state.store);
    let checked = tasks::blocking("ready", move || (store.failure(), store.lack_of_space())).await;
    let (failure, no_space) = checked.map_err(|lost| Error::HealthCheck { reason: lost.to_string() })?;
    let source_status = &state.telemetry.source_status;
    let (doing, _) = source_status.doing();
    let silence = silence(source_status, &state.config.health.limits(), now_secs());
    let reason = match (failure, no_space, no_source_reason(&state, &doing), silence) {
        (Some(failure), ..) => Some(format!("the store is read-only: {failure}")),
        _ if state.feed.is_closing() => Some("the server is stopping".to_owned()),
        (_, Some(no_space), ..) => Some(no_space),
        (_, _, Some(reason), _) => Some(reason),
        (.., Some(silence)) if silence.is_too_long() => {
            let Silence { secs, max_secs } = silence;
            Some(format!("no killmail for {secs} s, more than the usual {max_secs} s at this hour"))
        }
        _ => None,
    };
    let body = json!({
        "ready": reason.is_none(),
        "status": if reason.is_none() { "ok" } else { "error" },
        "reason": reason,
        "silent_seconds": silence.map(|silence| silence.secs),
        "silent_max_seconds": silence.map(|silence| silence.max_secs),
        "source": { "name": source_status.kind.lock().word(), "state": doing.word(), "reason": doing.reason() },
        "timestamp": time::iso_micros_now(),
    });
    let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = Json(status, Bytes::from(text::json(&body))).into_response();
    if reason.is_some() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    Ok(response)
}

/// Why no killmails can arrive: none of the sources that should run is usable.
fn no_source_reason(state: &HttpState, doing: &Doing) -> Option<String> {
    let sources = state.telemetry.fallback_status.sources.read();
    let others: Vec<(String, Doing)> = sources
        .iter()
        .filter(|other| should_run(other))
        .map(|other| (other.name.clone(), other.status.doing().0))
        .collect();
    no_usable_source(doing, &others)
}

/// Whether a source beside the main one should run now; a fallback does so only while it is active.
fn should_run(other: &FallbackSource) -> bool {
    !other.fallback || other.active.load(Ordering::Relaxed)
}

/// Why neither the main source nor another can deliver killmails; `None` if one can, or if none is
/// configured.
fn no_usable_source(first: &Doing, others: &[(String, Doing)]) -> Option<String> {
    let is_shut = |doing: &Doing| matches!(doing, Doing::Refused(_) | Doing::BreakerOpen(_));
    let is_off = |doing: &Doing| matches!(doing, Doing::Off | Doing::Finished);
    // Another source has to be following to count; the main one may still be starting.
    let usable =
        (!is_off(first) && !is_shut(first)) || others.iter().any(|(_, doing)| *doing == Doing::Following);
    if usable || !(is_shut(first) || others.iter().any(|(_, doing)| is_shut(doing))) {
        return None;
    }
    let reason = |name: &str, doing: &Doing| match doing {
        Doing::Refused(why) => Some(format!("the source{name} is off: {why}")),
        Doing::BreakerOpen(why) => Some(format!("the source{name} has its breaker open: {why}")),
        Doing::BackingOff(why) => Some(format!("the source{name} is backing off after a failure: {why}")),
        _ => None,
    };
    let all = reason("", first)
        .into_iter()
        .chain(others.iter().filter_map(|(name, doing)| reason(&format!(" {name}"), doing)));
    Some(all.collect::<Vec<_>>().join("; "))
}

/// `GET /health` and `/api/health`.
pub async fn health(State(state): State<Arc<HttpState>>) -> Result<Json, Error> {
    let checked = tasks::blocking("health", move || check(&state));
    let (status, body) = checked.await.map_err(|lost| Error::HealthCheck { reason: lost.to_string() })?;
    Ok(Json(status, Bytes::from(text::json(&body))))
}

/// Checks the health; returns the status and the body of the response. Blocks for a moment.
pub fn check(state: &HttpState) -> (StatusCode, Value) {
    let (failure, no_space) = (state.store.failure(), state.store.lack_of_space());
    // Read once, so that the state and its reason belong together.
    let now = state.telemetry.source_status.doing();
    let health = match assess(&now, failure.as_deref(), &state.config.health) {
        // Damaged records are not served; all others are.
        Health::Ok
            if no_space.is_some()
                || state.store.damaged() > 0
                || refuses_everything(state)
                || no_source_reason(state, &now.0).is_some() =>
        {
            Health::Degraded
        }
        health => health,
    };
    let status = if health == Health::Error { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, health_json(state, health, &now, Storage { failure, no_space }))
}

/// Whether a source has every document refused.
fn refuses_everything(state: &HttpState) -> bool {
    let max = state.config.health.refused_documents;
    let is_long = |source_status: &SourceStatus| max > 0 && source_status.refused_run.lock().count >= max;
    is_long(&state.telemetry.source_status)
        || state.telemetry.fallback_status.sources.read().iter().any(|other| is_long(&other.status))
}

/// The last documents of a source that were refused in a row: why, and how many.
fn refused_run_json(source_status: &SourceStatus) -> Value {
    let run = source_status.refused_run.lock();
    if run.count == 0 { Value::Null } else { json!({ "reason": run.reason, "documents": run.count }) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Ok,
    Degraded,
    Error,
}

/// Why the store cannot be written to, if it cannot.
struct Storage {
    failure: Option<String>,
    no_space: Option<String>,
}

/// What the source is doing, and since when, unix milliseconds.
type Now = (Doing, i64);

fn assess((doing, since_ms): &Now, failure: Option<&str>, config: &Config) -> Health {
    match doing {
        _ if failure.is_some() => Health::Error,
        Doing::BreakerOpen(_)
            if now_secs() - since_ms / 1000
                >= i64::try_from(config.breaker_open_secs).unwrap_or(i64::MAX) =>
        {
            Health::Error
        }
        Doing::BreakerOpen(_) | Doing::BackingOff(_) | Doing::NoSpace(_) | Doing::Refused(_) => {
            Health::Degraded
        }
        Doing::Off | Doing::Following | Doing::Finished => Health::Ok,
    }
}

fn health_json(state: &HttpState, health: Health, now: &Now, storage: Storage) -> Value {
    let word = match health {
        Health::Ok => "ok",
        Health::Degraded => "degraded",
        Health::Error => "error",
    };
    let source_status = &state.telemetry.source_status;
    json!({
        "healthy": health != Health::Error,
        "status": word,
        "details": details_json(state, now, storage),
        "timestamp": time::iso_micros_now(),
        "circuit_breaker": breaker_json(source_status, now, &state.config.health),
        "connection_monitor": connection_monitor_json(state, source_status),
    })
}

fn details_json(state: &HttpState, (doing, since_ms): &Now, Storage { failure, no_space }: Storage) -> Value {
    let source_status = &state.telemetry.source_status;
    let stats = state.store.stats();
    let process = Process::read();
    let characters = dimension_json(state, Dimension::Character, "character_count");
    let systems = dimension_json(state, Dimension::System, "system_count");
    json!({
        "cache": { "size": stats.killmails, "memory_bytes": stats.index_bytes, "hit_rate": state.hit_rate(), "namespace_stats": {} },
        "application": {
            "memory_mb": process.memory_mb(),
            "process_count": process.threads,
            "uptime_seconds": state.uptime_secs(),
            "version": env!("CARGO_PKG_VERSION"),
        },
        "storage": {
            "killmails": stats.killmails,
            "disk_bytes": stats.disk_bytes,
            "has_space": no_space.is_none(),
            "no_space": no_space,
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
            "refused_in_a_row": refused_run_json(source_status),
            "fallback": active_fallback(state),
        },
        "sources": state.telemetry.fallback_status.sources.read().iter().map(|other| other_source_json(other)).collect::<Vec<_>>(),
        "character_subscriptions": characters,
        "system_subscriptions": systems,
        "unknown": { "character_subscriptions": characters, "system_subscriptions": systems },
    })
}

/// The name of the fallback that is active, if one is.
fn active_fallback(state: &HttpState) -> Option<String> {
    let sources = state.telemetry.fallback_status.sources.read();
    sources
        .iter()
        .find(|other| other.fallback && other.active.load(Ordering::Relaxed))
        .map(|other| other.name.clone())
}

fn other_source_json(other: &FallbackSource) -> Value {
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
        "refused_in_a_row": refused_run_json(&other.status),
    })
}

/// Subscriptions with ids of this dimension. `last_update` is when the newest of them was opened.
fn dimension_json(state: &HttpState, dimension: Dimension, count: &str) -> Value {
    let (mut subscriptions, mut ids, mut newest) = (0_u64, 0, None);
    for reader in state.feed.registry().readers() {
        if let Some(set) = reader.subscription().filter.ids(dimension) {
            subscriptions += 1;
            ids += set.as_slice().len();
            newest = newest.max(Some(reader.opened_at_ms));
        }
    }
    let last = newest.map_or_else(|| "never".to_owned(), time::iso_micros);
    let mut value = json!({ "subscription_count": subscriptions, "memory_bytes": ids * size_of::<u32>(), "last_update": last });
    value[count] = json!(ids);
    value
}

fn breaker_json(source_status: &SourceStatus, (doing, since_ms): &Now, config: &Config) -> Value {
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

fn connection_monitor_json(state: &HttpState, source_status: &SourceStatus) -> Value {
    let now = now_secs();
    let success = match source_status.last_success_ms.load(Ordering::Relaxed) / 1000 {
        0 => state.started_at(),
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
        "last_recycled_at": state.started_at(),
        "total_timeouts": timeouts,
        "total_connection_failures": errors,
        "recycled_count": 0,
        "time_since_success": now - success,
        "time_since_recycled": now - state.started_at(),
        "failure_reasons": reasons,
        "conn_max_idle_time": 90_000,
        "recycle_interval": 300,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_breaker_degrades_and_later_fails() {
        let at_once = Config { breaker_open_secs: 0, ..Config::default() };
        let source_status = SourceStatus::default();
        assert_eq!(assess(&source_status.doing(), None, &Config::default()), Health::Ok);
        source_status.note(Doing::BreakerOpen("403".to_owned()), now_secs() * 1000);
        assert_eq!(assess(&source_status.doing(), None, &Config::default()), Health::Degraded);
        assert_eq!(assess(&source_status.doing(), None, &at_once), Health::Error);
        source_status.note(Doing::BreakerOpen("403 again".to_owned()), (now_secs() + 500) * 1000);
        source_status.note(Doing::Following, 0);
        assert_eq!(assess(&source_status.doing(), None, &at_once), Health::Ok);
        source_status.note(Doing::BreakerOpen("403".to_owned()), (now_secs() - 601) * 1000);
        assert_eq!(
            assess(&source_status.doing(), None, &Config::default()),
            Health::Error,
            "after ten minutes"
        );
    }

    #[test]
    fn without_a_usable_source_there_is_a_reason() {
        let breaker_open = || Doing::BreakerOpen("403".to_owned());
        let beside = |doing| vec![("spare".to_owned(), doing)];
        assert_eq!(no_usable_source(&Doing::Off, &[]), None, "none is configured");
        assert_eq!(no_usable_source(&Doing::Finished, &[]), None);
        assert_eq!(no_usable_source(&Doing::Off, &beside(Doing::Following)), None);
        assert_eq!(no_usable_source(&breaker_open(), &beside(Doing::Following)), None);
        assert_eq!(no_usable_source(&Doing::Following, &beside(breaker_open())), None);
        let reason = no_usable_source(&Doing::Off, &beside(breaker_open()));
        assert_eq!(reason.as_deref(), Some("the source spare has its breaker open: 403"));
        let reason = no_usable_source(&Doing::Refused("no contact".to_owned()), &beside(breaker_open()));
        assert_eq!(
            reason.as_deref(),
            Some("the source is off: no contact; the source spare has its breaker open: 403")
        );
    }

    #[test]
    fn only_a_failed_store_or_an_open_breaker_is_unhealthy() {
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
                assess(&source_status.doing(), None, &Config::default()),
                Health::Error,
                "{:?}",
                source_status.doing()
            );
            assert_eq!(assess(&source_status.doing(), Some("disk"), &Config::default()), Health::Error);
        }
    }
}
