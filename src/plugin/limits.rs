//! Every limit a guest lives under, each with its unit and its reason; and the limiter that watches memory and tables.
//!
//! Must not know: what a guest does with what it may have.

use serde::{Deserialize, Serialize};
use wasmtime::{Error, ResourceLimiter, Result, bail};

use crate::domain::verdict::Fault;

/// The limits of guests. Each can be set; the defaults suit a server of two cores that takes uploads from people it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// CPU time of one `evaluate`, milliseconds (10): a killmail a second reaches thousands of subscriptions. Host work is counted apart.
    pub evaluate_cpu_ms: u64,
    /// CPU time to instantiate and configure, milliseconds (100): done once for each subscription's configuration.
    pub configure_cpu_ms: u64,
    /// Wall time of any call, milliseconds (5,000): the backstop where the thread gets no CPU at all.
    pub call_wall_ms: u64,
    /// CPU time of the host's work for one call (history, large lists), milliseconds (50): it is not the guest's, but it is asked for.
    pub host_cpu_ms: u64,
    /// Questions to history in one call (1,000): each may touch a bitmap for every id named.
    pub history_calls_max: u32,
    /// Memory of one instance, all its memories summed, bytes (64 MiB). Python and JavaScript guests need 16 to 40 MiB.
    pub memory_bytes: usize,
    /// Elements of one table (20,000): the pool reserves room for as many.
    pub table_elements_max: usize,
    /// Core instances in one component (200): the largest known guest (Python) has 38.
    pub core_instances_max: usize,
    /// Memories in one component (16), see `core_instances_max`.
    pub memories_max: usize,
    /// Tables in one component (64), see `core_instances_max`.
    pub tables_max: usize,
    /// Handles to host things (streams) one instance may hold (256): an instance lives long, so a leak must end.
    pub handles_max: usize,
    /// Stack of a guest, bytes (512 KiB): ends runaway recursion well before the thread's own stack.
    pub stack_bytes: usize,
    /// Data a guest may hand over in one call of or to the host, bytes (4 MiB).
    pub hostcall_bytes: usize,
    /// Annotations of one verdict, bytes (64 KiB): they travel with every copy of the killmail.
    pub verdict_bytes: usize,
    /// One line of log, bytes (1 KiB); the rest is cut.
    pub log_line_bytes: usize,
    /// Lines of log in one call (20); more are left out and counted.
    pub log_lines_per_call: u32,
    /// Log of one plugin with one configuration in a minute, bytes (64 KiB); more is left out and counted.
    pub log_bytes_per_minute: usize,
    /// An upload, bytes (4 MiB). Python and the larger JavaScript guests need 20 MiB.
    pub upload_bytes: usize,
    /// A configuration, bytes (8 KiB): it stands in a URL.
    pub config_bytes: usize,
    /// Ids a plugin may name as its interest (100,000): they go into the bell's index.
    pub interest_ids_max: usize,
    /// Functions of a component (20,000): 400 KB of empty ones took 4.4 s and 573 MB to compile.
    pub functions_max: usize,
    /// One function's body, bytes (256 KiB): compile time grows faster than the body.
    pub body_bytes_max: usize,
    /// Targets of one `br_table` (10,000), for the same reason.
    pub br_table_targets_max: u32,
    /// Pairs of plugin and configuration in use at once (1,000): each may keep two warm instances.
    pub evaluators_max: usize,
    /// Such pairs for one client address (16); kept by the doors.
    pub evaluators_per_address_max: usize,
    /// Unused pairs are let go after this, seconds (60): a client that comes right back finds it warm.
    pub evaluator_idle_secs: u64,
    /// Threads that judge (0: one for each core, at least two so that one busy guest does not hold up all).
    pub workers: usize,
    /// Pages of live killmails waiting for one thread (1,024); readers wait beyond it.
    pub queue_live_max: usize,
    /// Pages of history waiting for one thread (64); readers wait beyond it.
    pub queue_history_max: usize,
    /// Verdicts remembered for one pair (2,048): equal pairs judge a live killmail once.
    pub memo_entries: usize,
    /// Annotations remembered for one pair, bytes (1 MiB).
    pub memo_bytes: usize,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Default for Config {
    fn default() -> Self {
        Self {
            evaluate_cpu_ms: 10,
            configure_cpu_ms: 100,
            call_wall_ms: 5_000,
            host_cpu_ms: 50,
            history_calls_max: 1_000,
            memory_bytes: 64 * MIB,
            table_elements_max: 20_000,
            core_instances_max: 200,
            memories_max: 16,
            tables_max: 64,
            handles_max: 256,
            stack_bytes: 512 * KIB,
            hostcall_bytes: 4 * MIB,
            verdict_bytes: 64 * KIB,
            log_line_bytes: KIB,
            log_lines_per_call: 20,
            log_bytes_per_minute: 64 * KIB,
            upload_bytes: 4 * MIB,
            config_bytes: 8 * KIB,
            interest_ids_max: 100_000,
            functions_max: 20_000,
            body_bytes_max: 256 * KIB,
            br_table_targets_max: 10_000,
            evaluators_max: 1_000,
            evaluators_per_address_max: 16,
            evaluator_idle_secs: 60,
            workers: 0,
            queue_live_max: 1_024,
            queue_history_max: 64,
            memo_entries: 2_048,
            memo_bytes: MIB,
        }
    }
}

impl Config {
    /// How many threads judge.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from).max(2),
            n => n,
        }
    }
}

/// Watches what one instance takes; the first excess is remembered as its fault.
#[derive(Debug)]
pub struct Limiter {
    memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements_max: usize,
    core_instances_max: usize,
    memories_max: usize,
    tables_max: usize,
    /// What was exceeded, if anything was.
    pub exceeded: Option<Fault>,
}

impl Limiter {
    /// A limiter for a new instance.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            memory_bytes: 0,
            memory_bytes_max: config.memory_bytes,
            table_elements_max: config.table_elements_max,
            core_instances_max: config.core_instances_max,
            memories_max: config.memories_max,
            tables_max: config.tables_max,
            exceeded: None,
        }
    }

    /// Bytes of all memories together.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let sum = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if sum > self.memory_bytes_max {
            self.exceeded = Some(Fault::Memory);
            bail!("asks for {sum} bytes of memory; it may have {}", self.memory_bytes_max);
        }
        if let Some(max) = maximum.filter(|max| desired > *max) {
            self.exceeded = Some(Fault::Memory);
            bail!("asks for {desired} bytes in one memory; it may have {max}");
        }
        self.memory_bytes = sum;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        self.exceeded = Some(Fault::Memory);
        Err(error.context("memory could not grow"))
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if desired > self.table_elements_max {
            self.exceeded = Some(Fault::Table);
            bail!("asks for a table of {desired} elements; it may have {}", self.table_elements_max);
        }
        if let Some(max) = maximum.filter(|max| desired > *max) {
            self.exceeded = Some(Fault::Table);
            bail!("asks for a table of {desired} elements; it said at most {max}");
        }
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<()> {
        self.exceeded = Some(Fault::Table);
        Err(error.context("a table could not grow"))
    }

    fn instances(&self) -> usize {
        self.core_instances_max
    }

    fn tables(&self) -> usize {
        self.tables_max
    }

    fn memories(&self) -> usize {
        self.memories_max
    }
}
