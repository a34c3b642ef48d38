//! The numbers of `/status`, under the names of the older service, with real values.
//!
//! Must not know: who counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use serde_json::{Value, json};

use crate::clock::now_secs;
use crate::domain::term::Dimension;
use crate::feed::registry::Transport;
use crate::http::answer::error::Error;
use crate::http::answer::success::Json;
use crate::http::numbers::process::Process;
use crate::http::request::parameters::Pairs;
use crate::http::routes::health;
use crate::http::state::HttpState;
use crate::plugin::build::queue::QueueLoad;
use crate::plugin::class::Class;
use crate::plugin::engine::Engine;
use crate::store::Stats;
use crate::tasks;
use crate::telemetry::source_status::SourceStatus;
use crate::wire::time;

/// What "never" is in seconds.
const NEVER_SECS: i64 = 999_999;

/// `GET /status`; `?debug=dashboard` gives what the older service drew its dashboard from.
pub async fn status(State(door): State<Arc<HttpState>>, pairs: Pairs) -> Result<Json, Error> {
    let body = if pairs.get("debug") == Some("dashboard") { dashboard } else { body };
    let body = tasks::blocking("status", move || body(&door)).await.map_err(Error::failed)?;
    Ok(Json::bare(&body))
}

fn dashboard(door: &HttpState) -> Value {
    let process = Process::now();
    let system = system(door, &process);
    json!({
        "template_values": {
            "memory_mb": process.memory_mb(),
            "process_count": process.threads,
            "hit_rate": door.hit_rate(),
            "cache_size": door.feed.store().stats().killmails,
        },
        "raw_health": health::look(door).1,
        "unified_status": { "system_memory": system["memory"], "system_processes": system["processes"] },
    })
}

fn body(door: &HttpState) -> Value {
    let stats = door.feed.store().stats();
    let process = Process::now();
    let source_status = door.feed.source_status();
    json!({
        "metrics": {
            "system": system(door, &process),
            "websocket": websocket(door),
            "processing": processing(source_status),
            "storage": {
                "killmails_count": stats.killmails,
                "systems_count": stats.systems,
                "scrubbed_records": stats.scrubbed,
                "damaged_records": stats.damaged,
            },
            "api": { "zkillboard": api(door, source_status), "esi": esi(door) },
            "sse": sse(door),
            "filters": {
                "bytes": door.feed.filters().bytes(),
                "max_bytes": door.feed.filters().max_bytes(),
                "refused_total": door.feed.filters().refused(),
            },
            "plugins": plugins(door),
            "parser_stats": parser(door, source_status),
        },
        "summary": summary(door, source_status, &stats, &process),
        "timestamp": time::iso_micros_now(),
    })
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn system(door: &HttpState, process: &Process) -> Value {
    json!({
        "memory": { "total": process.memory_bytes, "processes": process.memory_bytes, "atom": 0, "binary": 0 },
        "processes": { "count": process.threads, "limit": 0 },
        "ports": { "count": process.files, "limit": process.files_max },
        "connections": { "open": door.connections.open(), "max": door.connections.max(), "refused_total": door.connections.refused() },
        "schedulers": cores(),
        "run_queue": 0,
        "ets_tables": 0,
        "uptime_seconds": door.uptime_secs(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "rates")]
fn websocket(door: &HttpState) -> Value {
    let started = time::iso_micros(door.started_at() * 1000);
    let traffic = door.feed.channel_counters();
    let (realtime, preload, opened) = (get(&traffic.pushed), get(&traffic.preloaded), get(&traffic.opened));
    let lines = door.feed.registry().readers();
    let now = lines.iter().map(|line| line.state()).filter(|now| now.through == Transport::Websocket);
    let sizes = now.map(|now| {
        [Dimension::System, Dimension::Character]
            .map(|kind| now.subscription.filter.ids(kind).map_or(0, |ids| ids.as_slice().len()))
    });
    let (active, systems, characters) = sizes
        .fold((0_u32, 0, 0), |(n, s, c), [systems, characters]| (n + 1_u32, s + systems, c + characters));
    let two_digits = |number: f64| (number * 100.0).round() / 100.0;
    json!({
        "kills_sent": { "realtime": realtime, "preload": preload, "total": realtime + preload },
        "connections": { "active": traffic.open(), "total_connected": opened, "total_disconnected": get(&traffic.closed) },
        "subscriptions": {
            "active": active,
            "total_added": get(&traffic.joined),
            "total_removed": get(&traffic.left),
            "total_systems": systems,
            "total_characters": characters,
        },
        "rates": {
            "kills_per_minute": door.rates.pushed_per_minute(&door.feed),
            "connections_per_minute": door.rates.opened_per_minute(&door.feed),
            "average_systems_per_subscription": two_digits(systems as f64 / f64::from(active.max(1))),
        },
        "uptime_seconds": door.uptime_secs(),
        "started_at": started,
        "last_reset": started,
        "timestamp": time::iso_micros_now(),
    })
}

fn processing(source_status: &SourceStatus) -> Value {
    let ago = match source_status.last_killmail_ms.load(Ordering::Relaxed) {
        0 => NEVER_SECS,
        at_ms => now_secs() - at_ms / 1000,
    };
    let received = get(&source_status.received);
    json!({
        "redisq_received": received,
        "redisq_last_killmail_ago_seconds": ago,
        "killmails_received": received,
        "last_killmail_ago_seconds": ago,
        "processing_lag_seconds": lag_secs(source_status),
        "gaps": gaps(source_status),
    })
}

/// What the source owes: numbers that never came, until they are healed.
fn gaps(source_status: &SourceStatus) -> Value {
    let open = source_status.still_missing.lock().clone();
    let lines: Vec<Value> = open
        .iter()
        .map(|gap| json!({ "first": gap.first, "last": gap.last, "numbers": gap.numbers, "since": time::iso_micros(gap.since_ms) }))
        .collect();
    json!({
        "open_numbers": open.iter().map(|gap| gap.numbers).sum::<u64>(),
        "open": lines,
        "passed_over_total": get(&source_status.missing),
        "healed_total": get(&source_status.recovered),
        "backfilled_total": get(&source_status.backfilled),
    })
}

/// How old the killmail that came last was when it came, seconds.
fn lag_secs(source_status: &SourceStatus) -> i64 {
    match source_status.last_killmail_time.load(Ordering::Relaxed) {
        0 => 0,
        time => (source_status.last_killmail_ms.load(Ordering::Relaxed) / 1000 - time).max(0),
    }
}

fn api(door: &HttpState, source_status: &SourceStatus) -> Value {
    let requests = get(&source_status.requests);
    json!({
        "total_requests": requests,
        "requests_per_minute": door.rates.requests_per_minute(&door.feed),
        "error_count": get(&source_status.errors),
        "avg_duration_ms": get(&source_status.request_ms).checked_div(requests).unwrap_or(0),
    })
}

/// Requests for bodies that sources only named.
fn esi(door: &HttpState) -> Value {
    let requests = &door.feed.fallback_status().esi;
    let sent = get(&requests.sent);
    json!({
        "total_requests": sent,
        "requests_per_minute": door.rates.esi_requests_per_minute(&door.feed),
        "error_count": get(&requests.failed),
        "avg_duration_ms": get(&requests.took_ms).checked_div(sent).unwrap_or(0),
    })
}

fn sse(door: &HttpState) -> Value {
    let (basic, enhanced, opened, refused) = door.slots.counts();
    json!({
        "events_sent_total": get(&door.events),
        "connections_active": basic + enhanced,
        "basic_active": basic,
        "enhanced_active": enhanced,
        "opened_total": opened,
        "refused_total": refused,
    })
}

/// What guests take of what they share.
fn plugins(door: &HttpState) -> Value {
    let engine = door.feed.plugins().engine();
    let capacity = engine.capacity();
    let evaluators = Class::ALL.map(|class| {
        let (kept, max) = capacity.evaluators(class);
        (class.word().to_owned(), json!({ "kept": kept, "max": max }))
    });
    json!({
        "bytes": capacity.memory().used(),
        "max_bytes": capacity.memory().max(),
        "refused_total": capacity.memory().refused(),
        "component_bytes": capacity.component_memory().used(),
        "scripting": {
            "bytes": capacity.scripting_memory().used(),
            "max_bytes": capacity.scripting_memory().max(),
            "refused_total": capacity.scripting_memory().refused(),
        },
        "address_refused_total": capacity.address_refusals(),
        "evaluators": Value::Object(evaluators.into_iter().collect()),
        "resting": engine.quarantined_count(),
        "compile_large_memory_bytes": engine.builder().large_memory_bytes(),
        "waiting": plugins_waiting(engine),
    })
}

/// What of plugins waits for its turn.
fn plugins_waiting(engine: &Engine) -> Value {
    let load = |load: QueueLoad| json!({ "waiting": load.waiting, "under_way": load.under_way });
    let loads = engine
        .builder()
        .loads()
        .map(|of| (of.size.to_owned(), json!({ "scan": load(of.scan), "compile": load(of.compile) })));
    let pages = engine.pages_waiting();
    json!({
        "uploads": Value::Object(loads.into_iter().collect()),
        "configurations": engine.setups_waiting(),
        "pages": { "live": pages.live, "history": pages.history, "held": pages.held },
    })
}

/// What became of the killmails that came since the start, those filled in from archives too; bodies still to
/// be fetched are not counted.
fn parser(door: &HttpState, source_status: &SourceStatus) -> Value {
    let (stored, skipped, failed) =
        (get(&source_status.stored), get(&source_status.skipped), get(&source_status.refused));
    json!({
        "stored": stored,
        "skipped": skipped,
        "failed": failed,
        "total_processed": stored + skipped + failed,
        "unreadable_fields": door.feed.unreadable().counts(),
        "last_reset": time::iso_micros(door.started_at() * 1000),
    })
}

#[expect(clippy::cast_precision_loss, reason = "hours with two digits")]
fn summary(door: &HttpState, source_status: &SourceStatus, stats: &Stats, process: &Process) -> Value {
    let lines = door.feed.registry().readers();
    json!({
        "api_requests_per_minute": door.rates.requests_per_minute(&door.feed),
        "active_subscriptions": lines.len(),
        "killmails_stored": stats.killmails,
        "cache_hit_rate": door.hit_rate(),
        "memory_usage_mb": process.memory_mb(),
        "uptime_hours": (door.uptime_secs() as f64 / 36.0).round() / 100.0,
        "processing_lag_seconds": lag_secs(source_status),
        "active_preload_tasks": 0,
        "systems_watched": lines.iter().filter_map(|line| line.subscription().filter.ids(Dimension::System).map(|ids| ids.as_slice().len())).sum::<usize>(),
    })
}
