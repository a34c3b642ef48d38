//! `/metrics`: the older service's JSON, and the same house in numbers for Prometheus.
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
use crate::http::answer::negotiation::names;
use crate::http::answer::success::Json;
use crate::http::numbers::process::Process;
use crate::http::request::parameters::Pairs;
use crate::http::state::HttpState;
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

/// `GET /metrics`: text for those who name it, JSON for everyone else.
pub async fn metrics(
    State(door): State<Arc<HttpState>>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, Error> {
    let dialect = if names(&headers, "application/openmetrics-text") {
        Dialect::OpenMetrics
    } else if names(&headers, "text/plain") || pairs.get("format") == Some("prometheus") {
        Dialect::Prometheus
    } else {
        let body = tasks::blocking("metrics", move || body(&door)).await.map_err(Error::failed)?;
        return Ok(Json::bare(&body).into_response());
    };
    text(door, dialect).await
}

/// `GET /metrics/prometheus`.
pub async fn prometheus(State(door): State<Arc<HttpState>>, headers: HeaderMap) -> Result<Response, Error> {
    let open = names(&headers, "application/openmetrics-text");
    text(door, if open { Dialect::OpenMetrics } else { Dialect::Prometheus }).await
}

async fn text(door: Arc<HttpState>, dialect: Dialect) -> Result<Response, Error> {
    let text = tasks::blocking("metrics", move || written(&door, dialect)).await.map_err(Error::failed)?;
    Ok(([(CONTENT_TYPE, dialect.media_type())], text).into_response())
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn body(door: &HttpState) -> Value {
    let stats = door.feed.store().stats();
    let process = Process::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    json!({
        "timestamp": time::iso_micros_now(),
        "components": {
            "cache": {
                "size": stats.killmails,
                "memory_bytes": stats.index_bytes,
                "operations": { "hits": get(&door.hits), "misses": get(&door.misses), "writes": door.feed.head().0, "deletes": 0 },
            },
            "application": {
                "memory": { "total_mb": process.memory_mb(), "processes_mb": process.memory_mb(), "ets_mb": 0.0 },
                "processes": { "count": process.threads, "limit": 0 },
                "schedulers": { "online": cores, "available": cores },
                "rate_limiter": limiter(door),
                "unreadable_fields": door.feed.unreadable().counts(),
            },
            "subscriptions": {
                "character_subscriptions": dimension(door, Dimension::Character, "characters"),
                "system_subscriptions": dimension(door, Dimension::System, "systems"),
            },
        },
    })
}

/// We ask one source at its own pace and nobody else: there is no bucket of tokens, and nothing waits.
fn limiter(door: &HttpState) -> Value {
    let source_status = door.feed.source_status();
    let (doing, _) = source_status.doing();
    let state = if matches!(doing, Doing::BreakerOpen(_)) { "open" } else { "closed" };
    json!({
        "smart_rate_limiting_enabled": false,
        "request_coalescing_enabled": false,
        "smart_rate_limiter": {
            "mode": "simple", "esi_tokens": 0, "zkb_tokens": 0, "queue_size": 0, "pending_requests": 0, "current_tokens": 0,
            "circuit_state": state, "failure_count": get(&source_status.consecutive_errors), "detected_window_ms": 0,
        },
        "request_coalescer": { "pending_requests": 0, "total_requesters": 0 },
    })
}

fn dimension(door: &HttpState, kind: Dimension, ids: &str) -> Value {
    let lines = door.feed.registry().readers();
    let sizes: Vec<usize> = lines
        .iter()
        .filter_map(|line| line.subscription().filter.ids(kind).map(|set| set.as_slice().len()))
        .collect();
    json!({ "count": sizes.len(), ids: sizes.iter().sum::<usize>() })
}

fn written(door: &HttpState, dialect: Dialect) -> String {
    let mut text = Exposition::new(dialect);
    text.gauges("build_info", "Always 1.", "version", [(env!("CARGO_PKG_VERSION"), 1)]);
    text.gauge("uptime_seconds", "Time since the server started.", door.uptime_secs());
    let process = Process::now();
    text.gauge("process_resident_memory_bytes", "Resident memory.", process.memory_bytes);
    text.gauge("process_threads", "Threads.", process.threads);
    text.gauge("process_open_files", "Open files and sockets.", process.files);
    text.gauge("process_max_files", "Files and sockets that may be open at a time.", process.files_max);
    text.gauge("connections_open", "Connections open.", door.connections.open());
    text.counter(
        "connections_refused_total",
        "Connections refused at the limit of open files.",
        door.connections.refused(),
    );
    let connections = &door.connections;
    text.counter(
        "connections_evicted_total",
        "Idle connections closed to make room for another.",
        connections.evicted(),
    );
    text.counter(
        "connections_timed_out_total",
        "Connections closed because no request came or none became whole.",
        connections.late(),
    );
    text.counter(
        "connections_stalled_total",
        "Connections cut off because the client took nothing of its answer.",
        connections.stalled(),
    );
    text.gauge(
        "requests_in_flight_bytes",
        "Bytes of bodies and long headers in memory.",
        door.in_flight.used(),
    );
    text.counter(
        "requests_in_flight_refused_total",
        "Requests refused because these bytes were too many.",
        door.in_flight.refused(),
    );
    memory(door, &mut text);
    motion(door, &mut text);
    judgment(door, &mut text);
    source(door, &mut text);
    others(door, &mut text);
    doors(door, &mut text);
    text.done()
}

fn memory(door: &HttpState, text: &mut Exposition) {
    let store = door.feed.store();
    let stats = store.stats();
    text.gauge("store_killmails", "Killmails kept.", stats.killmails);
    text.gauge("store_head", "The newest number in the log.", store.head().0);
    text.gauge("store_systems", "Solar systems with killmails.", stats.systems);
    text.gauge("store_terms", "Terms in the index.", stats.terms);
    text.gauge("store_index_bytes", "Memory the index takes, about.", stats.index_bytes);
    text.gauge("store_disk_bytes", "Disk space the store takes.", stats.disk_bytes);
    text.gauge("store_tail_entries", "Newest log entries in memory.", stats.tail_entries);
    text.gauge("store_has_space", "1 unless the disk is too full to write.", u8::from(store.has_space()));
    text.counter("store_revised_total", "Killmails whose content was renewed.", stats.revised);
    text.counter("store_conflicts_total", "Killmails that contradicted the stored ones.", stats.conflicts);
    text.counter("store_scrubbed_total", "Records looked at for damage.", stats.scrubbed);
    text.gauge("store_damaged_records", "Records found damaged by that.", stats.damaged);
    text.counters("store_refused_total", "Documents refused, by reason.", "reason", store.refused_counts());
}

fn motion(door: &HttpState, text: &mut Exposition) {
    let (feed, counters) = (&door.feed, door.feed.counters());
    text.gauge("feed_head", "The newest number announced to readers.", feed.head().0);
    text.gauge("feed_readers", "Open readers.", feed.registry().len());
    text.gauge("feed_bell_bytes", "Memory the bell takes, about.", feed.wakeups().bytes());
    text.gauge("feed_filters_bytes", "What counts of the filters in use.", feed.filters().bytes());
    text.gauge(
        "feed_filters_max_bytes",
        "What the filters in use may take together.",
        feed.filters().max_bytes(),
    );
    text.counter(
        "feed_filters_refused_total",
        "Filters refused because there was no room.",
        feed.filters().refused(),
    );
    text.counter("feed_announced_total", "Killmails announced to readers.", get(&counters.announced));
    text.counter("feed_woken_total", "Readers woken for a killmail.", get(&counters.woken));
    text.counter("feed_rung_total", "The old name of feed_woken_total.", get(&counters.woken));
    text.counter("feed_delivered_total", "Killmails handed to doors, live.", get(&counters.delivered));
    text.counter("feed_preloaded_total", "Killmails handed to doors by preloads.", get(&counters.preloaded));
    text.counter("feed_pages_total", "Pages taken from the log.", get(&counters.pages));
    text.counter("feed_faults_total", "Plugin faults that readers saw.", get(&counters.faults));
    text.counters(
        "unreadable_fields_total",
        "Killmails with a field that could not be read and counts as unknown.",
        "field",
        feed.unreadable().counts(),
    );
    text.counter("wire_encodings_total", "Killmails encoded to JSON.", encodings());
}

fn judgment(door: &HttpState, text: &mut Exposition) {
    let plugins = door.feed.plugins();
    let (all, each) = (plugins.engine().counts(), plugins.counts());
    let of = |count: fn(&Counts) -> u64| {
        each.iter().map(move |(name, counts)| (name.as_str(), count(counts))).collect::<Vec<_>>()
    };
    text.counters("plugin_calls_total", "Calls of `evaluate`.", "plugin", of(|counts| counts.calls));
    text.counters("plugin_keeps_total", "Calls that kept the killmail.", "plugin", of(|counts| counts.keeps));
    text.counters("plugin_drops_total", "Calls that dropped it.", "plugin", of(|counts| counts.drops));
    text.counters(
        "plugin_faulty_total",
        "Calls that ended in a fault.",
        "plugin",
        of(|counts| counts.faults.values().sum()),
    );
    text.counters("plugin_faults_total", "Faults of all plugins, by word.", "fault", all.faults);
    text.counter(
        "plugin_remembered_total",
        "Killmails answered from an equal pair's verdict.",
        all.remembered,
    );
    text.counter("plugin_passed_over_total", "Killmails outside a plugin's interest.", all.passed_over);
    text.counter(
        "plugin_faults_at_rest_total",
        "Killmails answered with a fault because the plugin's pair rests.",
        all.at_rest,
    );
    text.gauge(
        "plugin_resting",
        "Pairs of plugin and configuration that rest.",
        plugins.engine().resting_count(),
    );
    text.gauge(
        "plugin_trials_waiting",
        "Configurations waiting to be made ready.",
        plugins.engine().trials_waiting(),
    );
    waiting(plugins.engine(), text);
    text.counter("plugin_log_lines_cut_total", "Lines of plugins' log cut or left out.", all.log_lines_cut);
    text.gauge(
        "plugin_evaluators",
        "Pairs of plugin and configuration kept ready.",
        plugins.engine().evaluators_kept(),
    );
    plugin_memory(plugins.engine().capacity(), text);
}

fn plugin_memory(capacity: &Capacity, text: &mut Exposition) {
    let evaluators = Class::ALL.map(|class| (class.word(), capacity.evaluators(class).0));
    text.gauges("plugin_evaluators_by_class", "The same by the class of the component.", "class", evaluators);
    text.gauge(
        "plugin_memory_bytes",
        "Memory of all guests and loaded components.",
        capacity.memory().used(),
    );
    text.gauge(
        "plugin_memory_components_bytes",
        "The part of it that loaded components take.",
        capacity.component_memory().used(),
    );
    let scripting = capacity.scripting_memory();
    text.gauge(
        "plugin_memory_scripting_bytes",
        "The part of it that the class scripting takes.",
        scripting.used(),
    );
    text.gauge(
        "plugin_memory_scripting_max_bytes",
        "What the class scripting may have of it.",
        scripting.max(),
    );
    text.counter(
        "plugin_memory_scripting_refused_total",
        "Requests refused because the class scripting had all of it.",
        scripting.refused(),
    );
    text.counter(
        "plugin_memory_address_refused_total",
        "Requests refused because one client address had all that it may have.",
        capacity.refused_to_payers(),
    );
    text.gauge("plugin_memory_max_bytes", "What guests may have together.", capacity.memory().max());
    text.counter(
        "plugin_memory_refused_total",
        "Requests for memory refused because guests had all of it.",
        capacity.memory().refused(),
    );
}

fn waiting(engine: &Engine, text: &mut Exposition) {
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
        "Uploads waiting, by their size and for what.",
        "lane",
        each(|load| load.waiting),
    );
    text.gauges(
        "plugin_uploads_under_way",
        "Uploads being worked on, the same.",
        "lane",
        each(|load| load.under_way),
    );
    let pages = engine.pages_waiting();
    text.gauges(
        "plugin_pages_waiting",
        "Pages waiting to be judged.",
        "of",
        [("live", pages.live), ("history", pages.past)],
    );
    text.gauge(
        "plugin_pages_held",
        "Those among them held back because pairs of their component keep failing.",
        pages.held,
    );
}

fn source(door: &HttpState, text: &mut Exposition) {
    let source_status = door.feed.source_status();
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
            "Time since a killmail last arrived, seconds.",
            now_secs() - last_ms / 1000,
        );
    }
    text.gauge("source_sequence", "The number last taken from the source.", get(&source_status.sequence));
    text.counter("source_received_total", "Killmails received.", get(&source_status.received));
    text.counter(
        "source_late_total",
        "Killmails received that were over an hour old.",
        get(&source_status.late),
    );
    text.counter(
        "source_skipped_total",
        "Killmails not stored: known, in conflict with a stored one, or too large.",
        get(&source_status.skipped),
    );
    text.counter("source_refused_total", "Documents refused.", get(&source_status.refused));
    text.counter("source_gaps_total", "Numbers of the feed that were missing.", get(&source_status.missing));
    text.gauge(
        "source_gap_numbers",
        "Missing numbers that are still looked for.",
        source_status.still_missing_count(),
    );
    text.counter(
        "source_healed_total",
        "Missing numbers that were recovered or given up.",
        get(&source_status.recovered),
    );
    text.counter(
        "source_backfilled_total",
        "Killmails recovered from archives.",
        get(&source_status.backfilled),
    );
    text.counter("source_requests_total", "Requests sent.", get(&source_status.requests));
    text.counter("source_errors_total", "Requests that failed.", get(&source_status.errors));
    text.counter("source_timeouts_total", "Requests that timed out.", get(&source_status.timeouts));
}

fn others(door: &HttpState, text: &mut Exposition) {
    let others = door.feed.fallback_status();
    let sources = others.sources.read().clone();
    let of = |value: fn(&FallbackSource) -> u64| {
        sources.iter().map(|other| (other.name.as_str(), value(other))).collect::<Vec<_>>()
    };
    let stands_in =
        |other: &FallbackSource| u64::from(other.fallback && other.active.load(Ordering::Relaxed));
    text.gauge(
        "source_fallback_active",
        "1 while a fallback source stands in for the first.",
        sources.iter().map(|o| stands_in(o)).sum::<u64>().min(1),
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
        of(|o| get(&o.switches)),
    );
    text.counters(
        "source_other_received_total",
        "Killmails received from this source.",
        "source",
        of(|o| get(&o.status.received)),
    );
    text.gauge("fetch_waiting", "Bodies still to be fetched.", get(&others.fetch_waiting));
    text.counter("esi_requests_total", "Requests sent to ESI.", get(&others.esi.sent));
    text.counter("esi_errors_total", "Requests to ESI that brought no body.", get(&others.esi.failed));
    text.counter("fetch_bodies_total", "Bodies fetched.", get(&others.fetched));
    text.counter("fetch_failures_total", "Failed tries to fetch a body.", get(&others.fetch_failures));
    text.counter("fetch_given_up_total", "Bodies given up.", get(&others.fetch_given_up));
}

fn doors(door: &HttpState, text: &mut Exposition) {
    let (basic, enhanced, opened, refused) = door.slots.counts();
    text.gauges("sse_connections", "Open streams.", "kind", [("basic", basic), ("enhanced", enhanced)]);
    text.counter("sse_opened_total", "Streams opened.", opened);
    text.counter("sse_refused_total", "Streams refused for want of a slot.", refused);
    text.counter("sse_events_total", "Events sent on streams.", get(&door.events));
    let traffic = door.feed.channel_counters();
    text.gauge("channels_connections", "Open WebSockets.", traffic.open());
    text.gauge("channels_joined", "Topics joined now.", traffic.subscribed());
    text.counter("channels_opened_total", "WebSockets opened.", get(&traffic.opened));
    text.counter(
        "channels_refused_total",
        "WebSockets refused: too many, or of an origin that may not.",
        get(&traffic.refused),
    );
    text.counter("channels_joins_total", "Joins accepted.", get(&traffic.joined));
    text.counter("channels_joins_refused_total", "Joins refused.", get(&traffic.join_refused));
    text.counters(
        "channels_killmails_total",
        "Killmails pushed on channels.",
        "part",
        [("live", get(&traffic.pushed)), ("preload", get(&traffic.preloaded))],
    );
    text.counter("channels_counts_total", "Counts pushed on channels.", get(&traffic.counts));
    text.counter("killmail_memory_hits_total", "Killmails by id answered from memory.", get(&door.hits));
    text.counter(
        "killmail_memory_misses_total",
        "Killmails by id that were not in memory.",
        get(&door.misses),
    );
}
