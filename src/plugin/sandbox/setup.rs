//! What every part of the engine needs to make and run instances: the limits, the compilers of both classes,
//! what guests may import.
//!
//! A component compiled by one process is loaded by another that was set up alike; how memory is had makes no
//! difference to that.
//!
//! Must not know: which components there are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::plugin::class::Class;
use crate::plugin::error::{Error, causes};
use crate::plugin::limits::{ClassLimits, Config};
use crate::plugin::resources::capacity::{Capacity, InstanceAllocation};
use crate::plugin::sandbox::bindings::Plugin;
use crate::plugin::sandbox::state::{Outside, State};
use crate::plugin::sandbox::wasi;

/// Instances that are no evaluator's: what this process compiles itself is instantiated once.
const TRIED_AT_ONCE: u32 = 4;

/// What every part of the engine needs to make and run instances.
pub struct Setup {
    /// The limits.
    pub config: Arc<Config>,
    /// What guests may ask.
    pub outside: Arc<Outside>,
    /// What all guests share.
    pub capacity: Arc<Capacity>,
    small: World,
    scripting: World,
}

/// What components of one class are compiled and run with.
pub struct World {
    /// The compiler and its memory.
    pub wasm: wasmtime::Engine,
    /// What guests may import.
    pub linker: Linker<State>,
}

impl Setup {
    /// Sets up both classes.
    ///
    /// # Errors
    /// The system refuses what the compiler or the memory of instances need.
    pub fn new(config: Config, outside: Outside, memory: InstanceAllocation) -> Result<Self, Error> {
        let world = |class| World::new(&config, class, memory).map_err(|error| Error::Engine(causes(&error)));
        let (small, scripting) = (world(Class::Small)?, world(Class::Scripting)?);
        let capacity = Arc::new(Capacity::new(&config, memory));
        Ok(Self { config: Arc::new(config), outside: Arc::new(outside), capacity, small, scripting })
    }

    /// What components of this class are compiled and run with.
    #[must_use]
    pub const fn world(&self, class: Class) -> &World {
        match class {
            Class::Small => &self.small,
            Class::Scripting => &self.scripting,
        }
    }

    /// Names what compiled code depends on beside the component, in 16 hex digits.
    #[must_use]
    pub fn compatibility(&self) -> String {
        let mut hasher = DefaultHasher::new();
        for class in Class::ALL {
            self.world(class).wasm.precompile_compatibility_hash().hash(&mut hasher);
            // What was let in by other limits is looked at anew; how long guests may run is no matter of
            // their code.
            ClassLimits { evaluate_cpu_ms: 0, configure_cpu_ms: 0, ..self.config.class_limits(class) }
                .hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    /// The compilers, to interrupt what runs in them, without keeping them alive.
    #[must_use]
    pub fn weak(&self) -> [EngineWeak; 2] {
        Class::ALL.map(|class| self.world(class).wasm.weak())
    }
}

impl World {
    fn new(config: &Config, class: Class, memory: InstanceAllocation) -> wasmtime::Result<Self> {
        let wasm = compiler(config, class, memory)?;
        let linker = linked(&wasm)?;
        Ok(Self { wasm, linker })
    }
}

fn linked(wasm: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(wasm);
    Plugin::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// The compiler of a class. Small components get their memory from a pool; without one where the address
/// space does not allow it (instances then take longer to make).
fn compiler(limits: &Config, class: Class, memory: InstanceAllocation) -> wasmtime::Result<wasmtime::Engine> {
    let plain = tuned(limits, class);
    if class == Class::Scripting || memory == InstanceAllocation::OnDemand {
        return wasmtime::Engine::new(&plain);
    }
    let mut settings = plain.clone();
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    wasmtime::Engine::new(&settings).or_else(|error| {
        tracing::warn!("no pool of instances for plugins: {}", causes(&error));
        wasmtime::Engine::new(&plain)
    })
}

/// The compiler's settings: one behaviour on every machine, nothing that is still being worked out, no way to
/// make threads.
fn tuned(limits: &Config, class: Class) -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(limits.stack_bytes)
        .async_stack_size(limits.stack_bytes * 2)
        .memory_reservation(limits.class_limits(class).memory_bytes as u64)
        .memory_reservation_for_growth(0)
        .memory_guard_size(64 * 1024)
        .memory_init_cow(true)
        .wasm_multi_memory(true)
        .wasm_tail_call(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false);
    config
}

/// Places for what evaluators reserve, and for the instances that are made to try a component. Address space
/// only, until it is used.
fn pool(limits: &Config) -> PoolingAllocationConfig {
    let most = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let instances = most(limits.evaluators_max).saturating_mul(2).saturating_add(TRIED_AT_ONCE);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(
            limits
                .pool_core_instances
                .saturating_add(most(limits.core_instances_max).saturating_mul(TRIED_AT_ONCE)),
        )
        .total_memories(
            limits.pool_memories.saturating_add(most(limits.memories_max).saturating_mul(TRIED_AT_ONCE)),
        )
        .total_tables(
            limits.pool_tables.saturating_add(most(limits.tables_max).saturating_mul(TRIED_AT_ONCE)),
        )
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements_max)
        .max_memories_per_module(most(limits.memories_max))
        .max_tables_per_module(most(limits.tables_max))
        .linear_memory_keep_resident(64 * 1024)
        .table_keep_resident(16 * 1024);
    pool
}
