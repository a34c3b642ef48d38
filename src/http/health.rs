//! Whether the server is well: only the status counts for whoever asks automatically, the rest is for people.
//!
//! Must not know: how to make it well.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::term::Kind;
use crate::feed::pulse::{Doing, Pulse};
use crate::http::Door;
use crate::http::answer::{Json, unix_now};
use crate::http::error::Error;
use crate::http::process::Process;
use crate::tasks;
use crate::wire::time;

/// When the server calls itself unwell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The source may keep away from the other side for so long before the server is unhealthy, seconds.
    pub breaker_open_secs: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { breaker_open_secs: 600 }
    }
}

/// `GET /ping`.
pub async fn ping() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "pong")
}

/// `GET /health/live`: the process answers.
pub async fn live() -> Json {
    Json::bare(&json!({ "status": "ok", "timestamp": time::iso_micros_now() }))
}

/// `GET /health` and `/api/health`.
pub async fn health(State(door): State<Arc<Door>>) -> Result<Json, Error> {
    let judged = judge(door.feed.pulse(), &door.config.health);
    let looked = tasks::blocking("health", move || body(&door, judged)).await;
    let body = looked.map_err(|lost| Error::HealthCheck { reason: lost.to_string() })?;
    let status = if judged == Judged::Error { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    Ok(Json(status, Bytes::from(body.to_string())))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    Ok,
    Degraded,
    Error,
}

fn judge(pulse: &Pulse, config: &Config) -> Judged {
    let (doing, since_ms) = pulse.doing();
    match doing {
        Doing::BreakerOpen(_) if unix_now() - since_ms / 1000 >= i64::try_from(config.breaker_open_secs).unwrap_or(i64::MAX) => {
            Judged::Error
        }
        Doing::BreakerOpen(_) | Doing::BackingOff(_) | Doing::NoSpace(_) | Doing::Refused(_) => Judged::Degraded,
        Doing::Off | Doing::Following | Doing::Finished => Judged::Ok,
    }
}

fn body(door: &Door, judged: Judged) -> Value {
    let word = match judged {
        Judged::Ok => "ok",
        Judged::Degraded => "degraded",
        Judged::Error => "error",
    };
    let pulse = door.feed.pulse();
    json!({
        "healthy": judged != Judged::Error,
        "status": word,
        "details": details(door, pulse),
        "timestamp": time::iso_micros_now(),
        "circuit_breaker": breaker(pulse, &door.config.health),
        "connection_monitor": connections(door, pulse),
    })
}

fn details(door: &Door, pulse: &Pulse) -> Value {
    let stats = door.feed.store().stats();
    let process = Process::now();
    let (doing, since_ms) = pulse.doing();
    let characters = dimension(door, Kind::Character, "character_count");
    let systems = dimension(door, Kind::System, "system_count");
    json!({
        "cache": { "size": stats.killmails, "memory_bytes": stats.index_bytes, "hit_rate": door.hit_rate(), "namespace_stats": {} },
        "application": {
            "memory_mb": process.memory_mb(),
            "process_count": process.threads,
            "uptime_seconds": door.uptime_secs(),
            "version": env!("CARGO_PKG_VERSION"),
        },
        "storage": { "killmails": stats.killmails, "disk_bytes": stats.disk_bytes, "has_space": door.feed.store().has_space() },
        "source": {
            "name": *pulse.source.lock(),
            "state": doing.word(),
            "reason": doing.reason(),
            "since": (since_ms > 0).then(|| time::iso_micros(since_ms)),
            "sequence": pulse.sequence.load(Ordering::Relaxed),
        },
        "character_subscriptions": characters,
        "system_subscriptions": systems,
        "unknown": { "character_subscriptions": characters, "system_subscriptions": systems },
    })
}

/// Readers that name ids of this dimension. `last_update` is when the newest of them opened.
fn dimension(door: &Door, kind: Kind, count: &str) -> Value {
    let (mut subscriptions, mut ids, mut newest) = (0_u64, 0, None);
    for line in door.feed.registry().lines() {
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

fn breaker(pulse: &Pulse, config: &Config) -> Value {
    let (doing, since_ms) = pulse.doing();
    let open = matches!(doing, Doing::BreakerOpen(_));
    let state = match doing {
        Doing::BreakerOpen(_) => "open",
        Doing::BackingOff(_) => "half_open",
        Doing::Refused(_) => "unknown",
        _ => "closed",
    };
    json!({
        "circuit_state": state,
        "consecutive_errors": pulse.consecutive_errors.load(Ordering::Relaxed),
        "max_consecutive_errors": 10,
        "circuit_opened_at": open.then(|| time::iso_micros(since_ms)),
        "circuit_reset_timeout_ms": config.breaker_open_secs.saturating_mul(1000),
        "last_updated": if since_ms > 0 { since_ms } else { unix_now() * 1000 },
    })
}

fn connections(door: &Door, pulse: &Pulse) -> Value {
    let now = unix_now();
    let success = match pulse.last_success_ms.load(Ordering::Relaxed) / 1000 {
        0 => door.started_at(),
        at => at,
    };
    let errors = pulse.errors.load(Ordering::Relaxed);
    let timeouts = pulse.timeouts.load(Ordering::Relaxed);
    let (doing, _) = pulse.doing();
    let reasons = doing.reason().map_or_else(|| json!({}), |reason| json!({ reason: pulse.consecutive_errors.load(Ordering::Relaxed) }));
    json!({
        "consecutive_timeout_errors": if timeouts > 0 { pulse.consecutive_errors.load(Ordering::Relaxed).min(timeouts) } else { 0 },
        "consecutive_connection_failures": pulse.consecutive_errors.load(Ordering::Relaxed),
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
        let pulse = Pulse::default();
        assert_eq!(judge(&pulse, &Config::default()), Judged::Ok);
        pulse.note(Doing::BreakerOpen("403".to_owned()), unix_now() * 1000);
        assert_eq!(judge(&pulse, &Config::default()), Judged::Degraded);
        assert_eq!(judge(&pulse, &Config { breaker_open_secs: 0 }), Judged::Error);
        pulse.note(Doing::Following, 0);
        assert_eq!(judge(&pulse, &Config { breaker_open_secs: 0 }), Judged::Ok);
    }
}
