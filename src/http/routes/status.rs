//! `/status`: the members of the older service, with real values.
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
use crate::http::stream::stream_limits::StreamCounts;
use crate::plugin::build::queue::QueueLoad;
use crate::plugin::class::Class;
use crate::plugin::engine::Engine;
use crate::store::Stats;
use crate::tasks;
use crate::telemetry::source_status::SourceStatus;
use crate::wire::time;

/// Stands for "never".
const NEVER_SECS: i64 = 999_999;

/// `GET /status`; `?debug=dashboard` responds with the data of the dashboard of the older service.
pub async fn status(State(state): State<Arc<HttpState>>, pairs: Pairs) -> Result<Json, Error> {
    let body = if pairs.get("debug") == Some("dashboard") { dashboard_json } else { status_json };
    let body = tasks::blocking("status", move || body(&state)).await.map_err(Error::failed)?;
    Ok(Json::bare(&body))
}

fn dashboard_json(state: &HttpState) -> Value {
    let process = Process::read();
    let system = system_json(state, &process);
    json!({
        "template_values": {
            "memory_mb": process.memory_mb(),
            "process_count": process.threads,
            "hit_rate": state.hit_rate(),
            "cache_size": state.store.stats().killmails,
        },
        "raw_health": health::check(state).1,
        "unified_status": { "system_memory": system["memory"], "system_processes": system["processes"] },
    })
}

fn status_json(state: &HttpState) -> Value {
    let stats = state.store.stats();
    let process = Process::read();
    let source_status = &state.telemetry.source_status;
    json!({
        "metrics": {
            "system": system_json(state, &process),
            "websocket": websocket_json(state),
            "processing": processing_json(source_status),
            "storage": {
                "killmails_count": stats.killmails,
                "systems_count": stats.systems,
                "scrubbed_records": stats.scrubbed,
                "damaged_records": stats.damaged,
            },
            "api": { "zkillboard": source_requests_json(state, source_status), "esi": esi_requests_json(state) },
            "sse": sse_json(state),
            "filters": {
                "bytes": state.feed.filters().bytes(),
                "max_bytes": state.feed.filters().max_bytes(),
                "refused_total": state.feed.filters().refused(),
            },
            "plugins": plugins_json(state),
            "parser_stats": parser_stats_json(state, source_status),
        },
        "summary": summary_json(state, source_status, &stats, &process),
        "timestamp": time::iso_micros_now(),
    })
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn system_json(state: &HttpState, process: &Process) -> Value {
    json!({
        "memory": { "total": process.memory_bytes, "processes": process.memory_bytes, "atom": 0, "binary": 0 },
        "processes": { "count": process.threads, "limit": 0 },
        "ports": { "count": process.files, "limit": process.files_max },
        "connections": { "open": state.connections.open(), "max": state.connections.max(), "refused_total": load(&state.connections.refused) },
        "schedulers": cores(),
        "run_queue": 0,
        "ets_tables": 0,
        "uptime_seconds": state.uptime_secs(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "rates")]
fn websocket_json(state: &HttpState) -> Value {
    let started = time::iso_micros(state.started_at() * 1000);
    let channels = &state.telemetry.channel_counters;
    let (realtime, preload, opened) =
        (load(&channels.pushed), load(&channels.preloaded), load(&channels.opened));
    let readers = state.feed.registry().readers();
    let states =
        readers.iter().map(|reader| reader.state()).filter(|state| state.through == Transport::Websocket);
    let sizes = states.map(|state| {
        [Dimension::System, Dimension::Character]
            .map(|dimension| state.subscription.filter.ids(dimension).map_or(0, |ids| ids.as_slice().len()))
    });
    let (active, systems, characters) = sizes
        .fold((0_u32, 0, 0), |(n, s, c), [systems, characters]| (n + 1_u32, s + systems, c + characters));
    let two_decimals = |number: f64| (number * 100.0).round() / 100.0;
    json!({
        "kills_sent": { "realtime": realtime, "preload": preload, "total": realtime + preload },
        "connections": { "active": channels.open(), "total_connected": opened, "total_disconnected": load(&channels.closed) },
        "subscriptions": {
            "active": active,
            "total_added": load(&channels.joined),
            "total_removed": load(&channels.left),
            "total_systems": systems,
            "total_characters": characters,
        },
        "rates": {
            "kills_per_minute": state.rates.pushed_per_minute(),
            "connections_per_minute": state.rates.opened_per_minute(),
            "average_systems_per_subscription": two_decimals(systems as f64 / f64::from(active.max(1))),
        },
        "uptime_seconds": state.uptime_secs(),
        "started_at": started,
        "last_reset": started,
        "timestamp": time::iso_micros_now(),
    })
}

fn processing_json(source_status: &SourceStatus) -> Value {
    let ago = match source_status.last_killmail_ms.load(Ordering::Relaxed) {
        0 => NEVER_SECS,
        at_ms => now_secs() - at_ms / 1000,
    };
    let received = load(&source_status.received);
    json!({
        "redisq_received": received,
        "redisq_last_killmail_ago_seconds": ago,
        "killmails_received": received,
        "last_killmail_ago_seconds": ago,
        "processing_lag_seconds": lag_secs(source_status),
        "gaps": gaps_json(source_status),
    })
}

/// Missing numbers of the source, until they are recovered or given up.
fn gaps_json(source_status: &SourceStatus) -> Value {
    let open = source_status.still_missing.lock().clone();
    let readers: Vec<Value> = open
        .iter()
        .map(|gap| json!({ "first": gap.first, "last": gap.last, "numbers": gap.numbers, "since": time::iso_micros(gap.since_ms) }))
        .collect();
    json!({
        "open_numbers": open.iter().map(|gap| gap.numbers).sum::<u64>(),
        "open": readers,
        "passed_over_total": load(&source_status.missing),
        "healed_total": load(&source_status.recovered),
        "backfilled_total": load(&source_status.backfilled),
    })
}

/// The age of the last killmail when it arrived, seconds.
fn lag_secs(source_status: &SourceStatus) -> i64 {
    match source_status.last_killmail_time.load(Ordering::Relaxed) {
        0 => 0,
        time => (source_status.last_killmail_ms.load(Ordering::Relaxed) / 1000 - time).max(0),
    }
}

fn source_requests_json(state: &HttpState, source_status: &SourceStatus) -> Value {
    let requests = load(&source_status.requests);
    json!({
        "total_requests": requests,
        "requests_per_minute": state.rates.requests_per_minute(),
        "error_count": load(&source_status.errors),
        "avg_duration_ms": load(&source_status.request_ms).checked_div(requests).unwrap_or(0),
    })
}

/// Requests for the bodies of killmails that sources only reference.
fn esi_requests_json(state: &HttpState) -> Value {
    let requests = &state.telemetry.fallback_status.esi;
    let sent = load(&requests.sent);
    json!({
        "total_requests": sent,
        "requests_per_minute": state.rates.esi_requests_per_minute(),
        "error_count": load(&requests.failed),
        "avg_duration_ms": load(&requests.took_ms).checked_div(sent).unwrap_or(0),
    })
}

fn sse_json(state: &HttpState) -> Value {
    let StreamCounts { basic, enhanced, opened, refused } = state.streams.counts();
    json!({
        "events_sent_total": load(&state.stream_events),
        "connections_active": basic + enhanced,
        "basic_active": basic,
        "enhanced_active": enhanced,
        "opened_total": opened,
        "refused_total": refused,
    })
}

/// What plugins use of their shared limits.
fn plugins_json(state: &HttpState) -> Value {
    let engine = state.plugins.engine();
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
        "waiting": plugin_queues_json(engine),
    })
}

/// What waits for a plugin thread.
fn plugin_queues_json(engine: &Engine) -> Value {
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

/// What became of the killmails that arrived since the start, including those from archives; bodies still to
/// be fetched are not counted.
fn parser_stats_json(state: &HttpState, source_status: &SourceStatus) -> Value {
    let (stored, skipped, failed) =
        (load(&source_status.stored), load(&source_status.skipped), load(&source_status.refused));
    json!({
        "stored": stored,
        "skipped": skipped,
        "failed": failed,
        "total_processed": stored + skipped + failed,
        "unreadable_fields": state.telemetry.unreadable.counts(),
        "last_reset": time::iso_micros(state.started_at() * 1000),
    })
}

#[expect(clippy::cast_precision_loss, reason = "hours with two decimals")]
fn summary_json(state: &HttpState, source_status: &SourceStatus, stats: &Stats, process: &Process) -> Value {
    let readers = state.feed.registry().readers();
    json!({
        "api_requests_per_minute": state.rates.requests_per_minute(),
        "active_subscriptions": readers.len(),
        "killmails_stored": stats.killmails,
        "cache_hit_rate": state.hit_rate(),
        "memory_usage_mb": process.memory_mb(),
        "uptime_hours": (state.uptime_secs() as f64 / 36.0).round() / 100.0,
        "processing_lag_seconds": lag_secs(source_status),
        "active_preload_tasks": 0,
        "systems_watched": readers.iter().filter_map(|reader| reader.subscription().filter.ids(Dimension::System).map(|ids| ids.as_slice().len())).sum::<usize>(),
    })
}
