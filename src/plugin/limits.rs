//! Every limit that applies to guests, with its unit and its reason.
//!
//! Must not know: what a guest does within its limits.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::plugin::class::Class;

/// The settings `plugin.*`. The defaults suit a server with two cores that accepts uploads from people its
/// operator knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// CPU time of one `evaluate` call, milliseconds (10): one killmail a second can reach thousands of
    /// subscriptions. Work of the host is counted separately.
    pub evaluate_cpu_ms: u64,
    /// CPU time to instantiate and configure, milliseconds (100): done once per configuration.
    pub configure_cpu_ms: u64,
    /// Wall-clock time of any call, milliseconds (5,000): the backstop when the thread gets no CPU at all.
    pub call_wall_ms: u64,
    /// CPU time the host may spend on one call (history, large lists), milliseconds (50): it is not the
    /// guest's own time, but the guest asks for it.
    pub host_cpu_ms: u64,
    /// History queries in one call (1,000): each may touch one bitmap per id it names.
    pub history_calls_max: u32,
    /// Memory of one instance, all its linear memories together, bytes (64 MiB).
    pub memory_bytes: usize,
    /// Elements of one table (20,000): the pool reserves room for that many.
    pub table_elements_max: usize,
    /// Core instances in one component (200): components made from Rust or C have fewer than ten.
    pub core_instances_max: usize,
    /// Memories in one component (16), see `core_instances_max`.
    pub memories_max: usize,
    /// Tables in one component (64), see `core_instances_max`.
    pub tables_max: usize,
    /// Handles to host resources (streams) that one instance may hold (256): an instance lives long, so leaks
    /// must be stopped.
    pub handles_max: usize,
    /// Stack of a guest, bytes (512 KiB): ends runaway recursion well before the thread's own stack
    /// overflows.
    pub stack_bytes: usize,
    /// Data that a guest may pass in one call from or to the host, bytes (4 MiB).
    pub hostcall_bytes: usize,
    /// Annotations of one verdict, bytes (64 KiB): they travel with every copy of the killmail.
    pub verdict_bytes: usize,
    /// Text from a guest in a response or with a fault, bytes (1 KiB): an error it returns, the message of a
    /// trap. Longer text is cut.
    pub text_bytes: usize,
    /// One log line, bytes (1 KiB). A longer line is cut.
    pub log_line_bytes: usize,
    /// Log lines in one call (20). Further lines are dropped and counted.
    pub log_lines_per_call: u32,
    /// Log output of one plugin per minute, over all its configurations, bytes (64 KiB). Each line counts 400
    /// bytes more than its text, for what the log adds to it. Lines over the limit are dropped and counted.
    pub log_bytes_per_minute: usize,
    /// Size of a component of the class `small`, bytes (4 MiB).
    pub upload_bytes: usize,
    /// Size of a configuration, bytes (8 KiB): it is sent in a URL.
    pub config_bytes: usize,
    /// Ids that a plugin may name as its interest (100,000): they are added to the index that wakes readers.
    pub interest_ids_max: usize,
    /// Functions of a component (20,000): 400 KB of empty ones took 4.4 s and 573 MB to compile.
    pub functions_max: usize,
    /// Body of one function, bytes (256 KiB): compile time grows faster than the body.
    pub body_bytes_max: usize,
    /// Targets of one `br_table` (10,000), for the same reason.
    pub br_table_targets_max: u32,
    /// Locals of one function (5,000), including parameters, for the same reason.
    pub locals_max: usize,
    /// Nesting depth of blocks in one function (500): 20,000 nested loops took two minutes to compile.
    pub block_depth_max: usize,
    /// Nesting depth of loops in one function (64): about 130 with 500 locals took 13 s to compile, twice as
    /// many took minutes.
    pub loop_depth_max: usize,
    /// Types of a component, including those of its core modules (10,000): 50,000 took 6.7 s to compile.
    pub types_max: usize,
    /// Imports, exports, aliases, conversions and instances of a component (20,000): those in the file, and
    /// those that nested instantiation multiplies.
    pub items_max: usize,
    /// Memory that data segments initialize, over all core modules, bytes (16 MiB): each is kept as an image.
    pub image_bytes: usize,
    /// Estimated work to compile one function (1,000,000), in the units of `compile_work_max`. The memory for
    /// it is freed after the function.
    pub function_work_max: u64,
    /// Estimated work to compile a component (3,000,000). One unit is about one microsecond or 50 bytes of
    /// the compiler's memory. Beside the code, the estimate covers what takes more than linear time: values
    /// carried by branches, loops, calls into the runtime, locals and operands that live across many blocks.
    pub compile_work_max: u64,
    /// Size of a component of the class `scripting`, bytes (32 MiB): componentize-js makes 12 MB,
    /// componentize-py 18 MB. A component that exceeds one of the limits above is of this class.
    pub scripting_upload_bytes: usize,
    /// As `evaluate_cpu_ms`, for the class `scripting` (50): Python takes 30 to parse the JSON of a killmail
    /// with a thousand attackers.
    pub scripting_evaluate_cpu_ms: u64,
    /// As `configure_cpu_ms`, for the class `scripting` (500).
    pub scripting_configure_cpu_ms: u64,
    /// As `memory_bytes`, for the class `scripting` (128 MiB).
    pub scripting_memory_bytes: usize,
    /// As `table_elements_max`, for the class `scripting` (100,000).
    pub scripting_table_elements_max: usize,
    /// As `core_instances_max`, for the class `scripting` (400): componentize-py makes 38.
    pub scripting_core_instances_max: usize,
    /// As `memories_max`, for the class `scripting` (16): componentize-qjs makes three.
    pub scripting_memories_max: usize,
    /// As `tables_max`, for the class `scripting` (64): componentize-qjs makes three.
    pub scripting_tables_max: usize,
    /// As `functions_max`, for the class `scripting` (50,000): componentize-py makes 13,517.
    pub scripting_functions_max: usize,
    /// As `body_bytes_max`, for the class `scripting` (2 MiB): the largest body from componentize-py has
    /// 426,843 bytes.
    pub scripting_body_bytes_max: usize,
    /// As `br_table_targets_max`, for the class `scripting` (20,000): the largest from componentize-py has
    /// 3,202.
    pub scripting_br_table_targets_max: u32,
    /// As `locals_max`, for the class `scripting` (5,000): the largest known function has 271.
    pub scripting_locals_max: usize,
    /// As `block_depth_max`, for the class `scripting` (2,500): componentize-py reaches 782.
    pub scripting_block_depth_max: usize,
    /// As `loop_depth_max`, for the class `scripting` (64): componentize-qjs reaches 21.
    pub scripting_loop_depth_max: usize,
    /// As `types_max`, for the class `scripting` (10,000): componentize-py makes 1,792.
    pub scripting_types_max: usize,
    /// As `items_max`, for the class `scripting` (45,000): componentize-py makes 14,654.
    pub scripting_items_max: usize,
    /// As `image_bytes`, for the class `scripting` (64 MiB): componentize-py fills 12 MiB.
    pub scripting_image_bytes: usize,
    /// As `function_work_max`, for the class `scripting` (6,000,000): componentize-js takes less than two
    /// million.
    pub scripting_function_work_max: u64,
    /// As `compile_work_max`, for the class `scripting` (125,000,000): componentize-js takes 40 million.
    pub scripting_compile_work_max: u64,
    /// The program that compiles and tries uploads in a separate process (empty: the running one). It is
    /// started with the hidden command `compile-plugin`.
    pub compile_program: PathBuf,
    /// Niceness of the compiling process, 0 to 19 (19): how far it yields the CPU to other processes.
    pub compile_nice: u8,
    /// CPU time to scan a component before it is compiled, seconds (5): valid ones take milliseconds.
    pub scan_cpu_secs: u64,
    /// Components up to this size, bytes (1 MiB), are compiled in a separate lane, so that they never wait
    /// for a large one.
    pub compile_small_bytes: usize,
    /// CPU time to compile and try a component in that lane, seconds (20).
    pub compile_small_cpu_secs: u64,
    /// Address space for compiling and trying it, bytes (1 GiB).
    pub compile_small_memory_bytes: u64,
    /// CPU time to compile and try a larger component, seconds (180).
    pub compile_large_cpu_secs: u64,
    /// Address space for compiling and trying it, bytes (3 GiB).
    pub compile_large_memory_bytes: u64,
    /// Compiled code on disk, bytes (4 GiB). Above it, the code of versions that are not active is deleted;
    /// it is compiled again when needed.
    pub compiled_max_bytes: u64,
    /// Uploads of up to `compile_small_bytes` in progress at a time, being received or waiting to be compiled
    /// (16), and three quarters as many larger ones.
    pub uploads_max: usize,
    /// For tests and tools without a program at hand: compile in this process, without the limits above.
    #[serde(skip)]
    pub compile_here: bool,
    /// Memory of all guests together, bytes (0: a quarter of the memory of the machine, or of the control
    /// group the server runs in). Linear memories count with their current size, tables with 8 bytes per
    /// element, a loaded component with what it takes.
    pub guests_memory_bytes: u64,
    /// The part of it that the class `scripting` may use, bytes (0: three quarters), so that it never
    /// displaces all others.
    pub scripting_guests_memory_bytes: u64,
    /// Slots for core instances of small components (16,000). An evaluator reserves the slots of two
    /// instances when it is created.
    pub pool_core_instances: u32,
    /// Slots for memories of small components (4,000), see `pool_core_instances`. Each reserves
    /// `memory_bytes` of address space.
    pub pool_memories: u32,
    /// Slots for tables of small components (8,000), see `pool_core_instances`.
    pub pool_tables: u32,
    /// Pairs of plugin and configuration in use at a time (1,000): each may keep two warm instances.
    pub evaluators_max: usize,
    /// How many of them may be of the class `scripting` (64): each takes tens of megabytes.
    pub scripting_evaluators_max: usize,
    /// Pairs per client address (16). The transports enforce it.
    pub evaluators_per_address_max: usize,
    /// Unused pairs are evicted after this time, seconds (60): a client that reconnects soon finds its pair
    /// warm.
    pub evaluator_idle_secs: u64,
    /// CPU time of one trial of a configuration, milliseconds (10,000): about 600 calls.
    pub trial_cpu_ms: u64,
    /// CPU time per second that configuring and trials may take of each worker thread, milliseconds (250; 0:
    /// no limit), so that pages continue in the meantime.
    pub trials_cpu_ms_per_sec: u64,
    /// Configurations waiting to be set up (256). Further requests get a 503.
    pub trials_waiting_max: usize,
    /// Outcomes of configurations that are remembered (4,096), including refusals, so that each is tried
    /// once.
    pub outcomes_max: usize,
    /// How long a refusal is remembered, seconds (60). A passed trial is remembered at least as long, and for
    /// as long as the component is loaded.
    pub outcome_secs: u64,
    /// Faults after which a pair of plugin and configuration rests: its killmails then get the last fault
    /// without a call (5; 0: no pair rests).
    pub rest_faults: usize,
    /// The window in which these faults count, seconds (60).
    pub rest_window_secs: u64,
    /// CPU time that a pair may take in that window beyond its time slices of 2 ms while others wait,
    /// milliseconds (5,000; 0: no limit). A pair that takes more rests.
    pub rest_excess_ms: u64,
    /// Length of the first rest, seconds (30). After it, one call shows whether the pair works again;
    /// otherwise it rests for twice as long.
    pub rest_secs: u64,
    /// Length of the longest rest, seconds (3,600).
    pub rest_max_secs: u64,
    /// Successful calls after which a pair is proven (20). The number doubles with each fault that takes
    /// longer than the time slice of 2 ms, up to 32 times the setting.
    pub proof_calls: u32,
    /// CPU time per second beyond their time slices that calls ending in a fault may take for all pairs of
    /// one component together, milliseconds (10; 0: no limit). Above it, unproven pairs wait, and after
    /// `rest_faults` such calls each unproven pair rests after its first one.
    pub faults_cpu_ms_per_sec: u64,
    /// Worker threads (0: one per core, at least two so that one busy guest does not block everything).
    pub workers: usize,
    /// Pages of live killmails waiting for one plugin (1,024), and as many again for its unproven pairs.
    /// Readers wait when the queue is full.
    pub queue_live_max: usize,
    /// Pages of history waiting for one plugin (64), and as many again for its unproven pairs. Readers wait
    /// when the queue is full.
    pub queue_history_max: usize,
    /// Verdicts remembered per pair (2,048): equal pairs evaluate a live killmail once.
    pub memo_entries: usize,
    /// Annotations remembered per pair, bytes (1 MiB).
    pub memo_bytes: usize,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const DEFAULT: Config = Config {
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
    text_bytes: KIB,
    log_line_bytes: KIB,
    log_lines_per_call: 20,
    log_bytes_per_minute: 64 * KIB,
    upload_bytes: 4 * MIB,
    config_bytes: 8 * KIB,
    interest_ids_max: 100_000,
    functions_max: 20_000,
    body_bytes_max: 256 * KIB,
    br_table_targets_max: 10_000,
    locals_max: 5_000,
    block_depth_max: 500,
    loop_depth_max: 64,
    types_max: 10_000,
    items_max: 20_000,
    image_bytes: 16 * MIB,
    function_work_max: 1_000_000,
    compile_work_max: 3_000_000,
    scripting_upload_bytes: 32 * MIB,
    scripting_evaluate_cpu_ms: 50,
    scripting_configure_cpu_ms: 500,
    scripting_memory_bytes: 128 * MIB,
    scripting_table_elements_max: 100_000,
    scripting_core_instances_max: 400,
    scripting_memories_max: 16,
    scripting_tables_max: 64,
    scripting_functions_max: 50_000,
    scripting_body_bytes_max: 2 * MIB,
    scripting_br_table_targets_max: 20_000,
    scripting_locals_max: 5_000,
    scripting_block_depth_max: 2_500,
    scripting_loop_depth_max: 64,
    scripting_types_max: 10_000,
    scripting_items_max: 45_000,
    scripting_image_bytes: 64 * MIB,
    scripting_function_work_max: 6_000_000,
    scripting_compile_work_max: 125_000_000,
    compile_program: PathBuf::new(),
    compile_nice: 19,
    compile_small_bytes: MIB,
    scan_cpu_secs: 5,
    compile_small_cpu_secs: 20,
    compile_small_memory_bytes: 1 << 30,
    compile_large_cpu_secs: 180,
    compile_large_memory_bytes: 3 << 30,
    compiled_max_bytes: 4 << 30,
    uploads_max: 16,
    compile_here: false,
    guests_memory_bytes: 0,
    scripting_guests_memory_bytes: 0,
    pool_core_instances: 16_000,
    pool_memories: 4_000,
    pool_tables: 8_000,
    evaluators_max: 1_000,
    scripting_evaluators_max: 64,
    evaluators_per_address_max: 16,
    evaluator_idle_secs: 60,
    trial_cpu_ms: 10_000,
    trials_cpu_ms_per_sec: 250,
    trials_waiting_max: 256,
    outcomes_max: 4_096,
    outcome_secs: 60,
    rest_faults: 5,
    rest_window_secs: 60,
    rest_excess_ms: 5_000,
    rest_secs: 30,
    rest_max_secs: 3_600,
    proof_calls: 20,
    faults_cpu_ms_per_sec: 4,
    workers: 0,
    queue_live_max: 1_024,
    queue_history_max: 64,
    memo_entries: 2_048,
    memo_bytes: MIB,
};

impl Default for Config {
    fn default() -> Self {
        DEFAULT
    }
}

impl Config {
    /// The number of worker threads: the setting, or one per core and at least two.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from).max(2),
            n => n,
        }
    }

    /// The limits that differ between the classes, for a component of this class.
    #[must_use]
    pub const fn class_limits(&self, class: Class) -> ClassLimits {
        match class {
            Class::Small => ClassLimits {
                prefix: "plugin.",
                upload_bytes: self.upload_bytes,
                evaluate_cpu_ms: self.evaluate_cpu_ms,
                configure_cpu_ms: self.configure_cpu_ms,
                memory_bytes: self.memory_bytes,
                table_elements_max: self.table_elements_max,
                core_instances_max: self.core_instances_max,
                memories_max: self.memories_max,
                tables_max: self.tables_max,
                functions_max: self.functions_max,
                body_bytes_max: self.body_bytes_max,
                br_table_targets_max: self.br_table_targets_max,
                locals_max: self.locals_max,
                block_depth_max: self.block_depth_max,
                loop_depth_max: self.loop_depth_max,
                types_max: self.types_max,
                items_max: self.items_max,
                image_bytes: self.image_bytes,
                function_work_max: self.function_work_max,
                compile_work_max: self.compile_work_max,
            },
            Class::Scripting => ClassLimits {
                prefix: "plugin.scripting_",
                upload_bytes: self.scripting_upload_bytes,
                evaluate_cpu_ms: self.scripting_evaluate_cpu_ms,
                configure_cpu_ms: self.scripting_configure_cpu_ms,
                memory_bytes: self.scripting_memory_bytes,
                table_elements_max: self.scripting_table_elements_max,
                core_instances_max: self.scripting_core_instances_max,
                memories_max: self.scripting_memories_max,
                tables_max: self.scripting_tables_max,
                functions_max: self.scripting_functions_max,
                body_bytes_max: self.scripting_body_bytes_max,
                br_table_targets_max: self.scripting_br_table_targets_max,
                locals_max: self.scripting_locals_max,
                block_depth_max: self.scripting_block_depth_max,
                loop_depth_max: self.scripting_loop_depth_max,
                types_max: self.scripting_types_max,
                items_max: self.scripting_items_max,
                image_bytes: self.scripting_image_bytes,
                function_work_max: self.scripting_function_work_max,
                compile_work_max: self.scripting_compile_work_max,
            },
        }
    }

    /// The most locals a function may have and the most work it may take to compile, whatever the class.
    #[must_use]
    pub fn function_limits_max(&self) -> (u64, u64) {
        let locals = self.locals_max.max(self.scripting_locals_max);
        (locals as u64, self.function_work_max.max(self.scripting_function_work_max))
    }

    /// The largest upload of any class, bytes, and the name of the setting.
    #[must_use]
    pub const fn upload_max(&self) -> (usize, &'static str) {
        if self.scripting_upload_bytes > self.upload_bytes {
            (self.scripting_upload_bytes, "plugin.scripting_upload_bytes")
        } else {
            (self.upload_bytes, "plugin.upload_bytes")
        }
    }
}

/// The limits of one class. The fields repeat those of [`Config`], which lists them once for each class:
/// serde cannot both flatten a struct and reject unknown settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassLimits {
    /// Prefix of the names of these settings.
    pub prefix: &'static str,
    /// Size of the component, bytes.
    pub upload_bytes: usize,
    /// CPU time of one `evaluate` call, milliseconds.
    pub evaluate_cpu_ms: u64,
    /// CPU time to instantiate and configure, milliseconds.
    pub configure_cpu_ms: u64,
    /// All linear memories of an instance, bytes.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements_max: usize,
    /// Core instances.
    pub core_instances_max: usize,
    /// Memories.
    pub memories_max: usize,
    /// Tables.
    pub tables_max: usize,
    /// Functions.
    pub functions_max: usize,
    /// Body of one function, bytes.
    pub body_bytes_max: usize,
    /// Targets of one `br_table`.
    pub br_table_targets_max: u32,
    /// Locals of one function.
    pub locals_max: usize,
    /// Nesting depth of blocks.
    pub block_depth_max: usize,
    /// Nesting depth of loops.
    pub loop_depth_max: usize,
    /// Types.
    pub types_max: usize,
    /// Imports, exports, aliases, conversions and instances.
    pub items_max: usize,
    /// Memory that data segments initialize, bytes.
    pub image_bytes: usize,
    /// Estimated work to compile one function.
    pub function_work_max: u64,
    /// Estimated work to compile the component.
    pub compile_work_max: u64,
}
