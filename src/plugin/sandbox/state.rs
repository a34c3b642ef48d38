//! What the host keeps for one instance: the killmail now judged, its time, its limits, its log.
//!
//! Must not know: how instances are made or shared.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::domain::entry::{Entry, Page, SharedEntry};
use crate::domain::legible::legible;
use crate::domain::verdict::Fault;
use crate::plugin::history::{Allowance, Bound, History};
use crate::plugin::limits::{self, Config};
use crate::plugin::resources::charge::Charge;
use crate::plugin::resources::cpu_clock::Stopwatch;
use crate::plugin::sandbox::bindings::killstream::plugin::log::Level;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::limiter::Limiter;
use crate::plugin::sandbox::stdio;
use crate::plugin::sandbox::stdio::{Stdio, Stream};

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
    /// That of one which is about to configure.
    configuring: Stopwatch,
    /// What the host may still do for the call, by what it is asked.
    pub allowance: Allowance,
    /// What that may cost by the clock: where a machine is slower than the charges say.
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
    /// What it writes to stdout and stderr.
    pub stdio: Stdio,
    /// The state of the seeded random numbers.
    pub random: u64,
    component: Component,
    wasi: WasiCtx,
    table: ResourceTable,
    log_lines: u32,
}

impl State {
    /// The state of a new instance of this component, whose memory is charged to `charge`.
    #[must_use]
    pub fn new(config: &Arc<Config>, outside: &Arc<Outside>, component: &Component, charge: Charge) -> Self {
        let bounds = config.class_limits(component.class());
        let configuring = Stopwatch::new(bounds.configure_cpu_ms, config.call_wall_ms);
        let mut table = ResourceTable::new();
        table.set_max_capacity(config.handles_max);
        let stdio = Stdio::new(stdio::CaptureLimits {
            lines: config.log_lines_per_call as usize,
            // One more, so that a longer line is seen to be cut.
            line_bytes: config.log_line_bytes.saturating_add(1),
            end_bytes: config.text_bytes,
        });
        let wasi =
            WasiCtx::builder().stdout(stdio.stream(Stream::Out)).stderr(stdio.stream(Stream::Err)).build();
        Self {
            now: None,
            watch: configuring,
            judging: Stopwatch::new(bounds.evaluate_cpu_ms, config.call_wall_ms),
            configuring,
            allowance: allowance(config),
            host_cpu_max: Duration::from_millis(config.host_cpu_ms),
            history_calls: 0,
            fault: None,
            limiter: Limiter::new(bounds, charge),
            config: Arc::clone(config),
            outside: Arc::clone(outside),
            random: 0,
            component: component.clone(),
            stdio,
            wasi,
            table,
            log_lines: 0,
        }
    }

    /// Makes ready for one judgment.
    pub fn judge(&mut self, page: &Page, at: usize, bound: Bound) {
        self.watch = self.judging;
        self.allowance = allowance(&self.config);
        self.history_calls = 0;
        self.log_lines = 0;
        self.stdio.begin();
        self.random = u64::from(page[at].killmail.killmail_id);
        self.now = Some(Now { page: Arc::clone(page), at, bound });
    }

    /// Makes ready for `configure`.
    pub fn configure(&mut self) {
        self.watch = self.configuring;
        self.allowance = allowance(&self.config);
        self.log_lines = 0;
        self.stdio.begin();
        self.random = 0;
        self.now = None;
    }

    /// The limits of its class.
    #[must_use]
    pub fn bounds(&self) -> limits::ClassLimits {
        self.config.class_limits(self.component.class())
    }

    /// The call is over: what it wrote to stdout and stderr goes into our log, as far as it may.
    pub fn end_call(&mut self) {
        self.now = None;
        let Some(written) = self.stdio.take() else { return };
        for (stream, line) in written.lines {
            let level = if stream == Stream::Err { Level::Warn } else { Level::Info };
            self.write(level, &String::from_utf8_lossy(&line));
        }
        self.component.counters().record_log_lines_cut(written.left_out);
    }

    /// Writes a line of the guest's into our log, as far as it may. What it says of an error counts as
    /// written to stderr, too.
    pub fn say(&mut self, level: Level, message: &str) {
        if level == Level::Error {
            self.stdio.note(message);
        }
        self.write(level, message);
    }

    fn write(&mut self, level: Level, message: &str) {
        self.log_lines = self.log_lines.saturating_add(1);
        let line = legible(message, self.config.log_line_bytes);
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
