//! Every limit a guest lives under, each with its unit and its reason.
//!
//! Must not know: what a guest does with what it may have.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::plugin::class::Class;

/// The limits of guests. Each can be set; the defaults suit a server of two cores that takes uploads from
/// people it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// CPU time of one `evaluate`, milliseconds (10): a killmail a second reaches thousands of subscriptions.
    /// Host work is counted apart.
    pub evaluate_cpu_ms: u64,
    /// CPU time to instantiate and configure, milliseconds (100): done once for each subscription's
    /// configuration.
    pub configure_cpu_ms: u64,
    /// Wall time of any call, milliseconds (5,000): the backstop where the thread gets no CPU at all.
    pub call_wall_ms: u64,
    /// CPU time of the host's work for one call (history, large lists), milliseconds (50): it is not the
    /// guest's, but it is asked for.
    pub host_cpu_ms: u64,
    /// Questions to history in one call (1,000): each may touch a bitmap for every id named.
    pub history_calls_max: u32,
    /// Memory of one instance, all its memories summed, bytes (64 MiB).
    pub memory_bytes: usize,
    /// Elements of one table (20,000): the pool reserves room for as many.
    pub table_elements_max: usize,
    /// Core instances in one component (200): what Rust and C make has fewer than ten.
    pub core_instances_max: usize,
    /// Memories in one component (16), see `core_instances_max`.
    pub memories_max: usize,
    /// Tables in one component (64), see `core_instances_max`.
    pub tables_max: usize,
    /// Handles to host things (streams) one instance may hold (256): an instance lives long, so a leak must
    /// end.
    pub handles_max: usize,
    /// Stack of a guest, bytes (512 KiB): ends runaway recursion well before the thread's own stack.
    pub stack_bytes: usize,
    /// Data a guest may hand over in one call of or to the host, bytes (4 MiB).
    pub hostcall_bytes: usize,
    /// Annotations of one verdict, bytes (64 KiB): they travel with every copy of the killmail.
    pub verdict_bytes: usize,
    /// A text of a guest in an answer or with a fault, bytes (1 KiB): an error it returns, the words of a
    /// trap. The rest is cut.
    pub text_bytes: usize,
    /// One line of log, bytes (1 KiB); the rest is cut.
    pub log_line_bytes: usize,
    /// Lines of log in one call (20); more are left out and counted.
    pub log_lines_per_call: u32,
    /// Log of one plugin in a minute, whatever its configurations, bytes (64 KiB); a line counts with 400
    /// bytes for what stands around its text. More is left out and counted.
    pub log_bytes_per_minute: usize,
    /// A component of the class `small`, bytes (4 MiB).
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
    /// Locals of one function (5,000), parameters among them, for the same reason.
    pub locals_max: usize,
    /// Blocks within one another in one function (500): 20,000 loops within one another compiled for two
    /// minutes.
    pub block_depth_max: usize,
    /// Loops within one another in one function (64): some 130 with 500 locals compiled for 13 s, twice as
    /// many for minutes.
    pub loop_depth_max: usize,
    /// Types of a component, in its core modules too (10,000): 50,000 compiled for 6.7 s.
    pub types_max: usize,
    /// Imports, exports, aliases, conversions and instances of a component (20,000): as written, and again as
    /// often as instances within instances make them.
    pub items_max: usize,
    /// Bytes of memory that data fills at the beginning, over all core modules (16 MiB): each is kept as an
    /// image.
    pub image_bytes: usize,
    /// Estimated work to compile one function (1,000,000), as `compile_work_max`: the memory it takes is free
    /// again after it.
    pub function_work_max: u64,
    /// Estimated work to compile a component (3,000,000), about a microsecond or 50 bytes of the compiler's
    /// each. Beside the code it counts what takes more than linear time: values carried by branches, loops,
    /// calls of the runtime, locals and operands that live across many blocks.
    pub compile_work_max: u64,
    /// A component of the class `scripting`, bytes (32 MiB): componentize-js makes 12 MB, componentize-py 18
    /// MB. Whatever exceeds one of the limits above is of this class.
    pub scripting_upload_bytes: usize,
    /// As `evaluate_cpu_ms`, for the class `scripting` (50): Python reads the JSON of a fight of a thousand
    /// in 30.
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
    /// As `body_bytes_max`, for the class `scripting` (2 MiB): the largest body of componentize-py has
    /// 426,843 bytes.
    pub scripting_body_bytes_max: usize,
    /// As `br_table_targets_max`, for the class `scripting` (20,000): the largest of componentize-py has
    /// 3,202.
    pub scripting_br_table_targets_max: u32,
    /// As `locals_max`, for the class `scripting` (5,000): the largest known function has 271.
    pub scripting_locals_max: usize,
    /// As `block_depth_max`, for the class `scripting` (2,500): componentize-py has 782.
    pub scripting_block_depth_max: usize,
    /// As `loop_depth_max`, for the class `scripting` (64): componentize-qjs has 21.
    pub scripting_loop_depth_max: usize,
    /// As `types_max`, for the class `scripting` (10,000): componentize-py makes 1,792.
    pub scripting_types_max: usize,
    /// As `items_max`, for the class `scripting` (45,000): componentize-py makes 14,654.
    pub scripting_items_max: usize,
    /// As `image_bytes`, for the class `scripting` (64 MiB): componentize-py fills 12 MiB.
    pub scripting_image_bytes: usize,
    /// As `function_work_max`, for the class `scripting` (6,000,000): componentize-js takes under two
    /// million.
    pub scripting_function_work_max: u64,
    /// As `compile_work_max`, for the class `scripting` (125,000,000): componentize-js takes 40 million.
    pub scripting_compile_work_max: u64,
    /// The program that compiles and tries uploads, apart from the server (empty: the one that runs). It gets
    /// the hidden command `compile-plugin`.
    pub compile_program: PathBuf,
    /// How far the compiling process stands back when others want the CPU: the system's niceness, 0 to 19
    /// (19).
    pub compile_nice: u8,
    /// CPU time to look a component through before it is compiled, seconds (5): good ones take milliseconds.
    pub scan_cpu_secs: u64,
    /// Components up to so many bytes have a lane of their own (1 MiB), so that they never wait for a large
    /// one.
    pub compile_small_bytes: usize,
    /// CPU time to compile and try such a component, seconds (20).
    pub compile_small_cpu_secs: u64,
    /// Address space that may take, bytes (1 GiB).
    pub compile_small_memory_bytes: u64,
    /// CPU time to compile and try a larger component, seconds (180).
    pub compile_large_cpu_secs: u64,
    /// Address space that may take, bytes (3 GiB).
    pub compile_large_memory_bytes: u64,
    /// Compiled code on disk, bytes (4 GiB): beyond it that of versions that are not active goes, and is made
    /// again when it is asked for.
    pub compiled_max_bytes: u64,
    /// Uploads of up to `compile_small_bytes` on their way at a time, being sent or waiting to be compiled
    /// (16), and three quarters as many larger ones.
    pub uploads_max: usize,
    /// For tests and tools without a program at hand: compile in this process, without any of the above.
    #[serde(skip)]
    pub compile_here: bool,
    /// Memory of all guests together, bytes (0: a quarter of what the machine, or the control group the
    /// server runs in, has). Memories count as large as they are, tables with 8 bytes an element, a loaded
    /// component with what it takes.
    pub guests_memory_bytes: u64,
    /// What those of the class `scripting` may have of it, bytes (0: three quarters), so that they never push
    /// out all others.
    pub scripting_guests_memory_bytes: u64,
    /// Places for core instances of small components (16,000). An evaluator holds as many as two instances of
    /// its component have, from its beginning.
    pub pool_core_instances: u32,
    /// Places for memories of small components (4,000), see `pool_core_instances`; each reserves address
    /// space, `memory_bytes` of it.
    pub pool_memories: u32,
    /// Places for tables of small components (8,000), see `pool_core_instances`.
    pub pool_tables: u32,
    /// Pairs of plugin and configuration in use at once (1,000): each may keep two warm instances.
    pub evaluators_max: usize,
    /// Those among them whose component is of the class `scripting` (64): each takes tens of megabytes.
    pub scripting_evaluators_max: usize,
    /// Such pairs for one client address (16); kept by the doors.
    pub evaluators_per_address_max: usize,
    /// Unused pairs are let go after this, seconds (60): a client that comes right back finds it warm.
    pub evaluator_idle_secs: u64,
    /// CPU time of one trial of a configuration, milliseconds (10,000): some 600 calls.
    pub trial_cpu_ms: u64,
    /// CPU time that configuring and trying takes of each judging thread in a second, at most, milliseconds
    /// (250; 0: any): pages go on meanwhile.
    pub trials_cpu_ms_per_sec: u64,
    /// Configurations waiting to be tried (256); who brings more hears 503.
    pub trials_waiting_max: usize,
    /// Outcomes of configurations remembered (4,096), refusals too, so that each is tried once.
    pub outcomes_max: usize,
    /// Refusals are remembered for so long, seconds (60); what passed is as long as somebody has the
    /// component, and at least so long.
    pub outcome_secs: u64,
    /// Faults after which a pair of plugin and configuration rests: its killmails are then answered with the
    /// last fault, without a call (5; 0: none rests).
    pub rest_faults: usize,
    /// They count within so long, seconds (60).
    pub rest_window_secs: u64,
    /// CPU time a pair may take within as long beyond its turns of 2 ms while others wait, milliseconds
    /// (5,000; 0: any); more, and it rests.
    pub rest_excess_ms: u64,
    /// The first rest, seconds (30). A call shows whether it was enough; else the next is twice as long.
    pub rest_secs: u64,
    /// The longest rest, seconds (3,600).
    pub rest_max_secs: u64,
    /// Calls that have to go well until a pair counts as one that works (20); twice as many after each fault
    /// beyond its turn of 2 ms, up to 32 times.
    pub proof_calls: u32,
    /// CPU time beyond their turns that calls ending in a fault may take of a second for all pairs of one
    /// component together, milliseconds (10; 0: any). Beyond it the pairs that do not count as working wait,
    /// and once it was `rest_faults` calls each rests after its first.
    pub faults_cpu_ms_per_sec: u64,
    /// Threads that judge (0: one for each core, at least two so that one busy guest does not hold up all).
    pub workers: usize,
    /// Pages of live killmails waiting for one plugin (1,024), and as many of pairs that do not count as
    /// working; readers wait beyond it.
    pub queue_live_max: usize,
    /// Pages of history waiting for one plugin (64), and as many of pairs that do not count as working;
    /// readers wait beyond it.
    pub queue_history_max: usize,
    /// Verdicts remembered for one pair (2,048): equal pairs judge a live killmail once.
    pub memo_entries: usize,
    /// Annotations remembered for one pair, bytes (1 MiB).
    pub memo_bytes: usize,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The defaults, as the fields tell them.
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
    faults_cpu_ms_per_sec: 10,
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
    /// How many threads judge.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from).max(2),
            n => n,
        }
    }

    /// What a component of this class may have.
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

    /// Locals of a function and work to compile it beyond which it is of no class.
    #[must_use]
    pub fn function_limits_max(&self) -> (u64, u64) {
        let locals = self.locals_max.max(self.scripting_locals_max);
        (locals as u64, self.function_work_max.max(self.scripting_function_work_max))
    }

    /// The largest upload of any class, bytes, and the setting that says so.
    #[must_use]
    pub const fn upload_max(&self) -> (usize, &'static str) {
        if self.scripting_upload_bytes > self.upload_bytes {
            (self.scripting_upload_bytes, "plugin.scripting_upload_bytes")
        } else {
            (self.upload_bytes, "plugin.upload_bytes")
        }
    }
}

/// What a component of one class may have; the fields are those of [`Config`]. They are written out there
/// once for each class, since serde cannot both flatten a struct and refuse settings it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassLimits {
    /// What stands before the names of these settings.
    pub prefix: &'static str,
    /// Its size, bytes.
    pub upload_bytes: usize,
    /// CPU time of one `evaluate`, milliseconds.
    pub evaluate_cpu_ms: u64,
    /// CPU time to instantiate and configure, milliseconds.
    pub configure_cpu_ms: u64,
    /// All memories of an instance, bytes.
    pub memory_bytes: usize,
    /// Elements of a table.
    pub table_elements_max: usize,
    /// Core instances.
    pub core_instances_max: usize,
    /// Memories.
    pub memories_max: usize,
    /// Tables.
    pub tables_max: usize,
    /// Functions.
    pub functions_max: usize,
    /// A function's body, bytes.
    pub body_bytes_max: usize,
    /// Targets of a `br_table`.
    pub br_table_targets_max: u32,
    /// Locals of a function.
    pub locals_max: usize,
    /// Blocks within one another.
    pub block_depth_max: usize,
    /// Loops within one another.
    pub loop_depth_max: usize,
    /// Types.
    pub types_max: usize,
    /// Imports, exports, aliases, conversions and instances.
    pub items_max: usize,
    /// Memory that data fills, bytes.
    pub image_bytes: usize,
    /// Estimated work to compile a function.
    pub function_work_max: u64,
    /// Estimated work to compile it.
    pub compile_work_max: u64,
}
