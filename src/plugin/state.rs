//! What the host keeps for one instance: the killmail now judged, its time, its limits, its log.
//!
//! Must not know: how instances are made or shared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::domain::entry::{Entry, Page, SharedEntry};
use crate::domain::verdict::Fault;
use crate::plugin::bindings::killstream::plugin::log::Level;
use crate::plugin::class::Class;
use crate::plugin::clock::Stopwatch;
use crate::plugin::counters::Counters;
use crate::plugin::history::{Bound, History};
use crate::plugin::limiter::Limiter;
use crate::plugin::limits::Config;

/// What guests may ask of the rest of the house.
pub struct Outside {
    /// The killmails before.
    pub history: Arc<dyn History>,
    /// The canonical JSON of an entry.
    pub json: fn(&Entry) -> Bytes,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outside")
    }
}

/// The killmail now judged.
pub struct Now {
    page: Page,
    at: usize,
    /// What may be seen of history.
    pub bound: Bound,
}

impl Now {
    /// The killmail.
    #[must_use]
    pub fn entry(&self) -> &SharedEntry {
        &self.page[self.at]
    }
}

/// The host's side of one instance.
pub struct State {
    /// The killmail now judged; `None` while configuring.
    pub now: Option<Now>,
    /// The time of the call.
    pub watch: Stopwatch,
    /// That of one which is about to judge.
    judging: Stopwatch,
    /// What the host may spend on the call.
    pub host_cpu_max: Duration,
    /// Questions asked of history in the call.
    pub history_calls: u32,
    /// What the call did wrong, where the host saw it.
    pub fault: Option<Fault>,
    /// Memory and tables.
    pub limiter: Limiter,
    /// The limits.
    pub config: Arc<Config>,
    /// The rest of the house.
    pub outside: Arc<Outside>,
    /// The state of the seeded random numbers.
    pub random: u64,
    digest: Arc<str>,
    counters: Arc<Counters>,
    wasi: WasiCtx,
    table: ResourceTable,
    log_lines: u32,
    log_minute: (Instant, usize),
}

impl State {
    /// The state of a new instance of this component.
    #[must_use]
    pub fn new(config: &Arc<Config>, class: Class, outside: &Arc<Outside>, digest: &Arc<str>, counters: &Arc<Counters>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(config.handles_max);
        Self {
            now: None,
            watch: Stopwatch::new(config.configure_cpu_ms, config.call_wall_ms),
            judging: Stopwatch::new(config.evaluate_cpu_ms, config.call_wall_ms),
            host_cpu_max: Duration::from_millis(config.host_cpu_ms),
            history_calls: 0,
            fault: None,
            limiter: Limiter::new(&config.bounds(class)),
            config: Arc::clone(config),
            outside: Arc::clone(outside),
            random: 0,
            digest: Arc::clone(digest),
            counters: Arc::clone(counters),
            wasi: WasiCtx::builder().build(),
            table,
            log_lines: 0,
            log_minute: (Instant::now(), 0),
        }
    }

    /// Makes ready for one judgment.
    pub fn judge(&mut self, page: &Page, at: usize, bound: Bound) {
        self.watch = self.judging;
        self.history_calls = 0;
        self.log_lines = 0;
        self.random = u64::from(page[at].killmail.killmail_id);
        self.now = Some(Now { page: Arc::clone(page), at, bound });
    }

    /// Makes ready for `configure`.
    pub fn configure(&mut self) {
        self.watch = Stopwatch::new(self.config.configure_cpu_ms, self.config.call_wall_ms);
        self.log_lines = 0;
        self.random = 0;
        self.now = None;
    }

    /// Writes a line of the guest's into our log, as far as it may.
    pub fn say(&mut self, level: Level, message: &str) {
        self.log_lines = self.log_lines.saturating_add(1);
        let line = clean(message, self.config.log_line_bytes);
        let fits = self.log_lines <= self.config.log_lines_per_call && self.fits_minute(line.len());
        if !fits || line.len() < message.len() {
            self.counters.log_line_cut();
        }
        if !fits {
            return;
        }
        let digest = &*self.digest;
        match level {
            Level::Trace => tracing::trace!(plugin.digest = digest, "plugin says: {line}"),
            Level::Debug => tracing::debug!(plugin.digest = digest, "plugin says: {line}"),
            Level::Info => tracing::info!(plugin.digest = digest, "plugin says: {line}"),
            Level::Warn => tracing::warn!(plugin.digest = digest, "plugin says: {line}"),
            Level::Error => tracing::error!(plugin.digest = digest, "plugin says: {line}"),
        }
    }

    fn fits_minute(&mut self, bytes: usize) -> bool {
        let (since, said) = &mut self.log_minute;
        if since.elapsed() >= Duration::from_secs(60) {
            (*since, *said) = (Instant::now(), 0);
        }
        *said = said.saturating_add(bytes);
        *said <= self.config.log_bytes_per_minute
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// At most so many bytes, without control characters: a terminal must not be steered by a guest.
fn clean(message: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    for letter in message.chars().filter(|letter| !letter.is_control()) {
        if line.len() + letter.len_utf8() > bytes_max {
            break;
        }
        line.push(letter);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_are_taken_out() {
        assert_eq!(clean("a\x1b[31mred\r\n\u{9b}b", 100), "a[31mredb");
    }

    #[test]
    fn long_lines_are_cut_between_letters() {
        assert_eq!(clean("éé", 3), "é");
    }
}
