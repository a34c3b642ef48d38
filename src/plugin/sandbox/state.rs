//! What the host keeps for one instance: the killmail being evaluated, its stopwatch, its limits, its log.
//!
//! Must not know: how instances are made or shared.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::domain::entry::{Entry, Page, SharedEntry};
use crate::domain::safe_text::sanitize;
use crate::domain::verdict::Fault;
use crate::plugin::history::{Allowance, Bound, History};
use crate::plugin::limits::{self, Config};
use crate::plugin::resources::charge::Charge;
use crate::plugin::resources::cpu_clock::Stopwatch;
use crate::plugin::sandbox::bindings::killstream::plugin::log::Level;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::limiter::Limiter;
use crate::plugin::sandbox::stdio::{Stdio, StdioLimits, Stream};

/// What the host provides to guests.
pub struct HostServices {
    /// The killmails that came before.
    pub history: Arc<dyn History>,
    /// The canonical JSON of an entry.
    pub json: fn(&Entry) -> Bytes,
}

impl std::fmt::Debug for HostServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostServices")
    }
}

/// The killmail being evaluated.
pub struct CurrentKillmail {
    page: Page,
    at: usize,
    /// The part of history that the guest may see.
    pub bound: Bound,
}

impl CurrentKillmail {
    /// The killmail's entry.
    #[must_use]
    pub fn entry(&self) -> &SharedEntry {
        &self.page[self.at]
    }
}

/// The host's side of one instance.
pub struct State {
    /// The killmail being evaluated; `None` while configuring.
    pub current: Option<CurrentKillmail>,
    /// Measures the time of the current call.
    pub stopwatch: Stopwatch,
    /// Copied to `stopwatch` when `evaluate` is called.
    evaluate_stopwatch: Stopwatch,
    /// Copied to `stopwatch` when `configure` is called.
    configure_stopwatch: Stopwatch,
    /// The work that the host may still do in this call, counted by what the guest asks for.
    pub allowance: Allowance,
    /// The CPU time that work may take, for machines that are slower than the charges assume.
    pub host_cpu_max: Duration,
    /// Questions to history in this call.
    pub history_calls: u32,
    /// The fault of this call, if the host noticed one.
    pub fault: Option<Fault>,
    /// Limits memory and tables.
    pub limiter: Limiter,
    /// The settings of plugins.
    pub config: Arc<Config>,
    /// What the host provides to guests.
    pub services: Arc<HostServices>,
    /// Collects what the guest writes to stdout and stderr.
    pub stdio: Stdio,
    /// The state of the seeded random number generator.
    pub random: u64,
    component: Component,
    wasi: WasiCtx,
    table: ResourceTable,
    log_lines: u32,
}

impl State {
    /// The state of a new instance of `component`, whose memory is charged to `charge`.
    #[must_use]
    pub fn new(
        config: &Arc<Config>,
        services: &Arc<HostServices>,
        component: &Component,
        charge: Charge,
    ) -> Self {
        let bounds = config.class_limits(component.class());
        let configuring = Stopwatch::new(bounds.configure_cpu_ms, config.call_wall_ms);
        let mut table = ResourceTable::new();
        table.set_max_capacity(config.handles_max);
        let stdio = Stdio::new(StdioLimits {
            lines: config.log_lines_per_call as usize,
            // One more byte, so that a line that is too long is seen to be cut.
            line_bytes: config.log_line_bytes.saturating_add(1),
            tail_bytes: config.text_bytes,
        });
        let wasi =
            WasiCtx::builder().stdout(stdio.stream(Stream::Out)).stderr(stdio.stream(Stream::Err)).build();
        Self {
            current: None,
            stopwatch: configuring,
            evaluate_stopwatch: Stopwatch::new(bounds.evaluate_cpu_ms, config.call_wall_ms),
            configure_stopwatch: configuring,
            allowance: allowance(config),
            host_cpu_max: Duration::from_millis(config.host_cpu_ms),
            history_calls: 0,
            fault: None,
            limiter: Limiter::new(bounds, charge),
            config: Arc::clone(config),
            services: Arc::clone(services),
            random: 0,
            component: component.clone(),
            stdio,
            wasi,
            table,
            log_lines: 0,
        }
    }

    /// Prepares for a call of `evaluate`.
    pub fn begin_evaluate(&mut self, page: &Page, at: usize, bound: Bound) {
        self.stopwatch = self.evaluate_stopwatch;
        self.allowance = allowance(&self.config);
        self.history_calls = 0;
        self.log_lines = 0;
        self.stdio.reset();
        self.random = u64::from(page[at].killmail.killmail_id);
        self.current = Some(CurrentKillmail { page: Arc::clone(page), at, bound });
    }

    /// Prepares for a call of `configure`.
    pub fn begin_configure(&mut self) {
        self.stopwatch = self.configure_stopwatch;
        self.allowance = allowance(&self.config);
        self.log_lines = 0;
        self.stdio.reset();
        self.random = 0;
        self.current = None;
    }

    /// The limits of the component's class.
    #[must_use]
    pub fn bounds(&self) -> limits::ClassLimits {
        self.config.class_limits(self.component.class())
    }

    /// Ends a call: what it wrote to stdout and stderr goes to the server's log, within the limits.
    pub fn end_call(&mut self) {
        self.current = None;
        let Some(output) = self.stdio.take_output() else { return };
        for (stream, line) in output.lines {
            let level = if stream == Stream::Err { Level::Warn } else { Level::Info };
            self.write_log(level, &String::from_utf8_lossy(&line));
        }
        self.component.counters().record_log_lines_cut(output.dropped_lines);
    }

    /// Writes a line of the guest to the server's log, within the limits. An error counts as written to
    /// stderr, too.
    pub fn log_line(&mut self, level: Level, message: &str) {
        if level == Level::Error {
            self.stdio.add_to_stderr_tail(message);
        }
        self.write_log(level, message);
    }

    fn write_log(&mut self, level: Level, message: &str) {
        self.log_lines = self.log_lines.saturating_add(1);
        let line = sanitize(message, self.config.log_line_bytes);
        let fits = self.log_lines <= self.config.log_lines_per_call && self.may_log(&line);
        if !fits || line.len() < message.len() {
            self.component.counters().record_log_lines_cut(1);
        }
        if !fits {
            return;
        }
        let (id, digest) = (self.component.label(), self.component.digest());
        match level {
            Level::Trace => {
                tracing::trace!(plugin.id = id, plugin.digest = digest, "plugin {id} says: {line}")
            }
            Level::Debug => {
                tracing::debug!(plugin.id = id, plugin.digest = digest, "plugin {id} says: {line}")
            }
            Level::Info => tracing::info!(plugin.id = id, plugin.digest = digest, "plugin {id} says: {line}"),
            Level::Warn => tracing::warn!(plugin.id = id, plugin.digest = digest, "plugin {id} says: {line}"),
            Level::Error => {
                tracing::error!(plugin.id = id, plugin.digest = digest, "plugin {id} says: {line}")
            }
        }
    }

    fn may_log(&self, line: &str) -> bool {
        self.component.counters().try_log(line.len(), self.config.log_bytes_per_minute)
    }
}

const fn allowance(config: &Config) -> Allowance {
    Allowance::new(config.host_cpu_ms.saturating_mul(1_000_000))
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
