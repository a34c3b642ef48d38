//! `/metrics`: the JSON of the older service, and the metrics of this server for Prometheus.
//!
//! Must not know: who counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::clock::now_secs;
use crate::domain::term::Dimension;
use crate::http::answer::error::Error;
use crate::http::answer::exposition::{Dialect, Exposition};
use crate::http::answer::negotiation::names_media_type;
use crate::http::answer::success::Json;
use crate::http::numbers::process::Process;
use crate::http::request::parameters::Pairs;
use crate::http::state::HttpState;
use crate::http::stream::stream_limits::StreamCounts;
use crate::plugin::build::queue::QueueLoad;
use crate::plugin::class::Class;
use crate::plugin::counters::Counts;
use crate::plugin::engine::Engine;
use crate::plugin::resources::capacity::Capacity;
use crate::tasks;
use crate::telemetry::fallback_status::FallbackSource;
use crate::telemetry::source_status::Doing;
use crate::wire::killmail::encodings;
use crate::wire::time;

/// `GET /metrics`: text for clients whose `Accept` names it, JSON for all others.
pub async fn metrics(
    State(state): State<Arc<HttpState>>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, Error> {
    let dialect = if names_media_type(&headers, "application/openmetrics-text") {
        Dialect::OpenMetrics
    } else if names_media_type(&headers, "text/plain") || pairs.get("format") == Some("prometheus") {
        Dialect::Prometheus
    } else {
        let body = tasks::blocking("metrics", move || metrics_json(&state)).await.map_err(Error::failed)?;
        return Ok(Json::bare(&body).into_response());
    };
    respond_text(state, dialect).await
}

/// `GET /metrics/prometheus`.
pub async fn prometheus(State(state): State<Arc<HttpState>>, headers: HeaderMap) -> Result<Response, Error> {
    let open = names_media_type(&headers, "application/openmetrics-text");
    respond_text(state, if open { Dialect::OpenMetrics } else { Dialect::Prometheus }).await
}

async fn respond_text(state: Arc<HttpState>, dialect: Dialect) -> Result<Response, Error> {
    let text =
        tasks::blocking("metrics", move || exposition(&state, dialect)).await.map_err(Error::failed)?;
    Ok(([(CONTENT_TYPE, dialect.media_type())], text).into_response())
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn metrics_json(state: &HttpState) -> Value {
    let stats = state.store.stats();
    let process = Process::read();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    json!({
        "timestamp": time::iso_micros_now(),
        "components": {
            "cache": {
                "size": stats.killmails,
                "memory_bytes": stats.index_bytes,
                "operations": { "hits": load(&state.killmail_hits), "misses": load(&state.killmail_misses), "writes": state.feed.head().0, "deletes": 0 },
            },
            "application": {
                "memory": { "total_mb": process.memory_mb(), "processes_mb": process.memory_mb(), "ets_mb": 0.0 },
                "processes": { "count": process.threads, "limit": 0 },
                "schedulers": { "online": cores, "available": cores },
                "rate_limiter": rate_limiter_json(state),
                "unreadable_fields": state.telemetry.unreadable.counts(),
            },
            "subscriptions": {
                "character_subscriptions": dimension_json(state, Dimension::Character, "characters"),
                "system_subscriptions": dimension_json(state, Dimension::System, "systems"),
            },
        },
    })
}

/// There is no rate limiter as in the older service: the source is polled at its own rate, and nothing is
/// queued.
fn rate_limiter_json(state: &HttpState) -> Value {
    let source_status = &state.telemetry.source_status;
    let (doing, _) = source_status.doing();
    let circuit_state = if matches!(doing, Doing::BreakerOpen(_)) { "open" } else { "closed" };
    json!({
        "smart_rate_limiting_enabled": false,
        "request_coalescing_enabled": false,
        "smart_rate_limiter": {
            "mode": "simple", "esi_tokens": 0, "zkb_tokens": 0, "queue_size": 0, "pending_requests": 0, "current_tokens": 0,
            "circuit_state": circuit_state, "failure_count": load(&source_status.consecutive_errors), "detected_window_ms": 0,
        },
        "request_coalescer": { "pending_requests": 0, "total_requesters": 0 },
    })
}

fn dimension_json(state: &HttpState, dimension: Dimension, ids: &str) -> Value {
    let readers = state.feed.registry().readers();
    let sizes: Vec<usize> = readers
        .iter()
        .filter_map(|reader| reader.subscription().filter.ids(dimension).map(|set| set.as_slice().len()))
        .collect();
    json!({ "count": sizes.len(), ids: sizes.iter().sum::<usize>() })
}

fn exposition(state: &HttpState, dialect: Dialect) -> String {
    let mut text = Exposition::new(dialect);
    text.gauges("build_info", "Always 1.", "version", [(env!("CARGO_PKG_VERSION"), 1)]);
    text.gauge("uptime_seconds", "Time since the server started.", state.uptime_secs());
    let process = Process::read();
    text.gauge("process_resident_memory_bytes", "Resident memory.", process.memory_bytes);
    text.gauge("process_threads", "Threads.", process.threads);
    text.gauge("process_open_files", "Open files and sockets.", process.files);
    text.gauge("process_max_files", "Files and sockets that may be open at a time.", process.files_max);
    text.gauge("connections_open", "Connections open.", state.connections.open());
    text.counter(
        "connections_refused_total",
        "Connections refused at the limit.",
        load(&state.connections.refused),
    );
    let connections = &state.connections;
    text.counter(
        "connections_evicted_total",
        "Idle connections closed to make room for others.",
        load(&connections.evicted),
    );
    text.counter(
        "connections_timed_out_total",
        "Connections closed because no request arrived or it was not complete in time.",
        load(&connections.timed_out),
    );
    text.counter(
        "connections_stalled_total",
        "Connections closed because the client read nothing of its response.",
        load(&connections.stalled),
    );
    text.gauge(
        "requests_in_flight_bytes",
        "Bytes of bodies and long headers in memory.",
        state.in_flight.used(),
    );
    text.counter(
        "requests_in_flight_refused_total",
        "Requests refused at the limit on these bytes.",
        state.in_flight.refused(),
    );
    store(state, &mut text);
    feed(state, &mut text);
    plugins(state, &mut text);
    source(state, &mut text);
    other_sources(state, &mut text);
    transports(state, &mut text);
    text.finish()
}

fn store(state: &HttpState, text: &mut Exposition) {
    let store = &state.store;
    let stats = store.stats();
    text.gauge("store_killmails", "Killmails stored.", stats.killmails);
    text.gauge("store_head", "The newest number in the log.", store.head().0);
    text.gauge("store_systems", "Solar systems with killmails.", stats.systems);
    text.gauge("store_terms", "Terms in the index.", stats.terms);
    text.gauge("store_index_bytes", "Memory of the index, approximately.", stats.index_bytes);
    text.gauge("store_disk_bytes", "Disk space of the store.", stats.disk_bytes);
    text.gauge("store_tail_entries", "Newest log entries in memory.", stats.tail_entries);
    text.gauge("store_has_space", "1 unless the disk is too full to write.", u8::from(store.has_space()));
    text.counter("store_revised_total", "Killmails whose content was revised.", stats.revised);
    text.counter("store_conflicts_total", "Killmails in conflict with the stored ones.", stats.conflicts);
    text.counter("store_scrubbed_total", "Records checked for damage.", stats.scrubbed);
    text.gauge("store_damaged_records", "Records found damaged by these checks.", stats.damaged);
    text.counters("store_refused_total", "Documents refused, by reason.", "reason", store.refused_counts());
}

fn feed(state: &HttpState, text: &mut Exposition) {
    let (feed, counters) = (&state.feed, state.feed.counters());
    text.gauge("feed_head", "The newest number announced to readers.", feed.head().0);
    text.gauge("feed_readers", "Open readers.", feed.registry().len());
    text.gauge("feed_bell_bytes", "Memory of the wakeups, approximately.", feed.wakeups().bytes());
    text.gauge("feed_filters_bytes", "Memory counted for the filters in use.", feed.filters().bytes());
    text.gauge("feed_filters_max_bytes", "The limit on it.", feed.filters().max_bytes());
    text.counter("feed_filters_refused_total", "Filters refused at that limit.", feed.filters().refused());
    text.counter("feed_announced_total", "Killmails announced to readers.", load(&counters.announced));
    text.counter("feed_woken_total", "Readers woken for a killmail.", load(&counters.woken));
    text.counter("feed_rung_total", "The old name of feed_woken_total.", load(&counters.woken));
    text.counter("feed_delivered_total", "Live killmails delivered to readers.", load(&counters.delivered));
    text.counter(
        "feed_preloaded_total",
        "Killmails delivered to readers by preloads.",
        load(&counters.preloaded),
    );
    text.counter("feed_pages_total", "Pages read from the log.", load(&counters.pages));
    text.counter("feed_faults_total", "Plugin faults in readers.", load(&counters.faults));
    text.counters(
        "unreadable_fields_total",
        "Killmails with a field that could not be read and counts as unknown.",
        "field",
        state.telemetry.unreadable.counts(),
    );
    text.counter("wire_encodings_total", "Killmails encoded to JSON.", encodings());
}

fn plugins(state: &HttpState, text: &mut Exposition) {
    let plugins = &state.plugins;
    let (all, each) = (plugins.engine().counts(), plugins.counts());
    let of = |count: fn(&Counts) -> u64| {
        each.iter().map(move |(name, counts)| (name.as_str(), count(counts))).collect::<Vec<_>>()
    };
    text.counters("plugin_calls_total", "Calls of `evaluate`.", "plugin", of(|counts| counts.calls));
    text.counters("plugin_keeps_total", "Calls that kept the killmail.", "plugin", of(|counts| counts.keeps));
    text.counters(
        "plugin_drops_total",
        "Calls that dropped the killmail.",
        "plugin",
        of(|counts| counts.drops),
    );
    text.counters(
        "plugin_faulty_total",
        "Calls that ended in a fault.",
        "plugin",
        of(|counts| counts.faults.values().sum()),
    );
    text.counters("plugin_faults_total", "Faults of all plugins, by word.", "fault", all.faults);
    text.counter(
        "plugin_remembered_total",
        "Killmails with the remembered verdict of an equal pair.",
        all.remembered,
    );
    text.counter("plugin_passed_over_total", "Killmails outside a plugin's interest.", all.passed_over);
    text.counter(
        "plugin_faults_at_rest_total",
        "Killmails that got a fault because the pair of plugin and configuration rests.",
        all.at_rest,
    );
    text.gauge(
        "plugin_resting",
        "Pairs of plugin and configuration that rest.",
        plugins.engine().quarantined_count(),
    );
    text.gauge(
        "plugin_trials_waiting",
        "Configurations waiting to be prepared.",
        plugins.engine().setups_waiting(),
    );
    plugin_queues(plugins.engine(), text);
    text.counter(
        "plugin_log_lines_cut_total",
        "Lines of the plugins' logs that were cut or left out.",
        all.log_lines_cut,
    );
    text.gauge(
        "plugin_evaluators",
        "Pairs of plugin and configuration that are loaded.",
        plugins.engine().evaluators_kept(),
    );
    plugin_memory(plugins.engine().capacity(), text);
}

fn plugin_memory(capacity: &Capacity, text: &mut Exposition) {
    let evaluators = Class::ALL.map(|class| (class.word(), capacity.evaluators(class).0));
    text.gauges("plugin_evaluators_by_class", "The same by the class of the component.", "class", evaluators);
    text.gauge(
        "plugin_memory_bytes",
        "Memory of all instances and loaded components.",
        capacity.memory().used(),
    );
    text.gauge(
        "plugin_memory_components_bytes",
        "The part of it for loaded components.",
        capacity.component_memory().used(),
    );
    let scripting = capacity.scripting_memory();
    text.gauge("plugin_memory_scripting_bytes", "The part of it for the class scripting.", scripting.used());
    text.gauge("plugin_memory_scripting_max_bytes", "The limit for the class scripting.", scripting.max());
    text.counter(
        "plugin_memory_scripting_refused_total",
        "Requests refused at the limit for the class scripting.",
        scripting.refused(),
    );
    text.counter(
        "plugin_memory_address_refused_total",
        "Requests refused at the limit for one client address.",
        capacity.address_refusals(),
    );
    text.gauge("plugin_memory_max_bytes", "The limit for all plugins.", capacity.memory().max());
    text.counter(
        "plugin_memory_refused_total",
        "Requests for memory refused at the limit for all plugins.",
        capacity.memory().refused(),
    );
}

fn plugin_queues(engine: &Engine, text: &mut Exposition) {
    let loads = engine.builder().loads();
    let each = |count: fn(QueueLoad) -> usize| {
        loads.iter().flat_map(move |of| {
            [
                (format!("{} scan", of.size), count(of.scan)),
                (format!("{} compile", of.size), count(of.compile)),
            ]
        })
    };
    text.gauges(
        "plugin_uploads_waiting",
        "Uploads waiting, by size and by step.",
        "lane",
        each(|load| load.waiting),
    );
    text.gauges(
        "plugin_uploads_under_way",
        "Uploads being processed, by size and by step.",
        "lane",
        each(|load| load.under_way),
    );
    let pages = engine.pages_waiting();
    text.gauges(
        "plugin_pages_waiting",
        "Pages waiting for a plugin.",
        "of",
        [("live", pages.live), ("history", pages.history)],
    );
    text.gauge(
        "plugin_pages_held",
        "Those of them that are held back because pairs of their component keep failing.",
        pages.held,
    );
}

fn source(state: &HttpState, text: &mut Exposition) {
    let source_status = &state.telemetry.source_status;
    let (doing, _) = source_status.doing();
    text.gauges(
        "source_up",
        "1 while the source follows its feed.",
        "source",
        [(source_status.kind.lock().word(), u8::from(doing == Doing::Following))],
    );
    text.gauges("source_state", "1 for the state the source is in.", "state", [(doing.word(), 1)]);
    let last_ms = source_status.last_killmail_ms.load(Ordering::Relaxed);
    if last_ms > 0 {
        text.gauge(
            "source_last_killmail_seconds",
            "Time since the last killmail.",
            now_secs() - last_ms / 1000,
        );
    }
    text.gauge("source_sequence", "The last number taken from the source.", load(&source_status.sequence));
    text.counter("source_received_total", "Killmails received.", load(&source_status.received));
    text.counter(
        "source_late_total",
        "Killmails received that were over an hour old.",
        load(&source_status.late),
    );
    text.counter(
        "source_skipped_total",
        "Killmails not stored: known, in conflict with a stored one, or too large.",
        load(&source_status.skipped),
    );
    text.counter("source_refused_total", "Documents refused.", load(&source_status.refused));
    text.counter("source_gaps_total", "Numbers of the feed that were missing.", load(&source_status.missing));
    text.gauge(
        "source_gap_numbers",
        "Missing numbers that are still looked for.",
        source_status.still_missing_count(),
    );
    text.counter(
        "source_healed_total",
        "Missing numbers that were recovered or given up.",
        load(&source_status.recovered),
    );
    text.counter(
        "source_backfilled_total",
        "Killmails recovered from archives.",
        load(&source_status.backfilled),
    );
    text.counter("source_requests_total", "Requests sent.", load(&source_status.requests));
    text.counter("source_errors_total", "Requests that failed.", load(&source_status.errors));
    text.counter("source_timeouts_total", "Requests that timed out.", load(&source_status.timeouts));
}

fn other_sources(state: &HttpState, text: &mut Exposition) {
    let fallback_status = &state.telemetry.fallback_status;
    let sources = fallback_status.sources.read().clone();
    let of = |value: fn(&FallbackSource) -> u64| {
        sources.iter().map(|other| (other.name.as_str(), value(other))).collect::<Vec<_>>()
    };
    let is_active_fallback =
        |other: &FallbackSource| u64::from(other.fallback && other.active.load(Ordering::Relaxed));
    text.gauge(
        "source_fallback_active",
        "1 while a fallback source stands in for the first.",
        sources.iter().map(|o| is_active_fallback(o)).sum::<u64>().min(1),
    );
    text.gauges(
        "source_other_active",
        "1 while this source beside the first runs.",
        "source",
        of(|o| u64::from(o.active.load(Ordering::Relaxed))),
    );
    text.gauges(
        "source_other_up",
        "1 while this source follows its feed.",
        "source",
        of(|o| u64::from(o.status.doing().0 == Doing::Following)),
    );
    text.counters(
        "source_fallback_switches_total",
        "How often this source began to stand in.",
        "source",
        of(|o| load(&o.switches)),
    );
    text.counters(
        "source_other_received_total",
        "Killmails received from this source.",
        "source",
        of(|o| load(&o.status.received)),
    );
    text.gauge("fetch_waiting", "Bodies waiting to be fetched.", load(&fallback_status.fetch_waiting));
    text.counter("esi_requests_total", "Requests sent to ESI.", load(&fallback_status.esi.sent));
    text.counter(
        "esi_errors_total",
        "Requests to ESI that returned no body.",
        load(&fallback_status.esi.failed),
    );
    text.counter("fetch_bodies_total", "Bodies fetched.", load(&fallback_status.fetched));
    text.counter(
        "fetch_failures_total",
        "Failed attempts to fetch a body.",
        load(&fallback_status.fetch_failures),
    );
    text.counter("fetch_given_up_total", "Bodies given up.", load(&fallback_status.fetch_given_up));
}

fn transports(state: &HttpState, text: &mut Exposition) {
    let StreamCounts { basic, enhanced, opened, refused } = state.streams.counts();
    text.gauges("sse_connections", "Open streams.", "kind", [("basic", basic), ("enhanced", enhanced)]);
    text.counter("sse_opened_total", "Streams opened.", opened);
    text.counter("sse_refused_total", "Streams refused at a limit.", refused);
    text.counter("sse_events_total", "Events sent on streams.", load(&state.stream_events));
    let webhooks = state.webhooks.counters();
    text.gauge("webhook_subscriptions", "Webhooks.", state.webhooks.count());
    text.counter("webhook_delivered_total", "Killmails delivered to webhooks.", load(&webhooks.delivered));
    text.counter("webhook_failures_total", "Requests of webhooks that failed.", load(&webhooks.failed));
    text.counter(
        "webhook_disabled_total",
        "Webhooks disabled because their endpoint failed.",
        load(&webhooks.disabled),
    );
    let channels = &state.telemetry.channel_counters;
    text.gauge("channels_connections", "Open WebSockets.", channels.open());
    text.gauge("channels_joined", "Topics joined now.", channels.subscribed());
    text.counter("channels_opened_total", "WebSockets opened.", load(&channels.opened));
    text.counter(
        "channels_refused_total",
        "WebSockets refused: at a limit, or from an origin that is not allowed.",
        load(&channels.refused),
    );
    text.counter("channels_joins_total", "Joins accepted.", load(&channels.joined));
    text.counter("channels_joins_refused_total", "Joins refused.", load(&channels.join_refused));
    text.counters(
        "channels_killmails_total",
        "Killmails pushed on channels.",
        "part",
        [("live", load(&channels.pushed)), ("preload", load(&channels.preloaded))],
    );
    text.counter("channels_counts_total", "Counts pushed on channels.", load(&channels.counts));
    text.counter(
        "killmail_memory_hits_total",
        "Killmails by id found in memory.",
        load(&state.killmail_hits),
    );
    text.counter(
        "killmail_memory_misses_total",
        "Killmails by id that were not in memory.",
        load(&state.killmail_misses),
    );
}
