//! What every part of the engine needs to create and run instances: the settings, a wasmtime engine for each
//! class, and what guests may import.
//!
//! A component compiled by one process can be loaded by another with the same setup. How memory is allocated
//! makes no difference to that.
//!
//! Must not know: which components there are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::plugin::class::Class;
use crate::plugin::error::{EngineError, error_chain};
use crate::plugin::limits::{ClassLimits, Config};
use crate::plugin::resources::capacity::{Capacity, InstanceAllocation};
use crate::plugin::sandbox::bindings::Plugin;
use crate::plugin::sandbox::state::{HostServices, State};
use crate::plugin::sandbox::wasi;

/// Instances that belong to no evaluator: what this process compiles itself is instantiated once.
const TRIAL_INSTANCES: u32 = 4;

/// What every part of the engine needs to create and run instances.
pub struct Setup {
    /// The settings of plugins.
    pub config: Arc<Config>,
    /// What the host provides to guests.
    pub services: Arc<HostServices>,
    /// The budgets that all guests share.
    pub capacity: Arc<Capacity>,
    small: ClassEngine,
    scripting: ClassEngine,
}

/// What components of one class are compiled and run with.
pub struct ClassEngine {
    /// Compiles components and allocates the memory of instances.
    pub engine: wasmtime::Engine,
    /// What guests may import.
    pub linker: Linker<State>,
}

impl Setup {
    /// Sets up both classes.
    ///
    /// # Errors
    /// The system refuses what the compiler or the memory of instances needs.
    pub fn new(
        config: Config,
        services: HostServices,
        memory: InstanceAllocation,
    ) -> Result<Self, EngineError> {
        let class_engine = |class| {
            ClassEngine::new(&config, class, memory).map_err(|error| EngineError::Engine(error_chain(&error)))
        };
        let (small, scripting) = (class_engine(Class::Small)?, class_engine(Class::Scripting)?);
        let capacity = Arc::new(Capacity::new(&config, memory));
        Ok(Self { config: Arc::new(config), services: Arc::new(services), capacity, small, scripting })
    }

    /// What components of this class are compiled and run with.
    #[must_use]
    pub const fn class_engine(&self, class: Class) -> &ClassEngine {
        match class {
            Class::Small => &self.small,
            Class::Scripting => &self.scripting,
        }
    }

    /// A hash of what compiled code depends on besides the component, 16 hex digits.
    #[must_use]
    pub fn compatibility(&self) -> String {
        let mut hasher = DefaultHasher::new();
        for class in Class::ALL {
            self.class_engine(class).engine.precompile_compatibility_hash().hash(&mut hasher);
            // Components accepted under other limits are checked again. How long guests may run does not
            // affect their code.
            ClassLimits { evaluate_cpu_ms: 0, configure_cpu_ms: 0, ..self.config.class_limits(class) }
                .hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    /// The engines, to interrupt what runs in them, without keeping them alive.
    #[must_use]
    pub fn weak(&self) -> [EngineWeak; 2] {
        Class::ALL.map(|class| self.class_engine(class).engine.weak())
    }
}

impl ClassEngine {
    fn new(config: &Config, class: Class, memory: InstanceAllocation) -> wasmtime::Result<Self> {
        let engine = new_engine(config, class, memory)?;
        let linker = new_linker(&engine)?;
        Ok(Self { engine, linker })
    }
}

fn new_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    Plugin::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// The wasmtime engine of a class. Small components get their memory from a pool, or without one if the
/// address space does not allow it (then creating instances takes longer).
fn new_engine(
    limits: &Config,
    class: Class,
    memory: InstanceAllocation,
) -> wasmtime::Result<wasmtime::Engine> {
    let on_demand = engine_config(limits, class);
    if class == Class::Scripting || memory == InstanceAllocation::OnDemand {
        return wasmtime::Engine::new(&on_demand);
    }
    let mut settings = on_demand.clone();
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool_config(limits)));
    wasmtime::Engine::new(&settings).or_else(|error| {
        tracing::warn!(
            "plugins run without a pool of instances, so creating them takes longer: {}",
            error_chain(&error)
        );
        wasmtime::Engine::new(&on_demand)
    })
}

/// The engine's settings: the same behaviour on every machine, no experimental features, no threads.
fn engine_config(limits: &Config, class: Class) -> wasmtime::Config {
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

/// Space for what evaluators reserve, and for the instances that try a component. It takes only address space
/// until it is used.
fn pool_config(limits: &Config) -> PoolingAllocationConfig {
    let count_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let instances = count_u32(limits.evaluators_max).saturating_mul(2).saturating_add(TRIAL_INSTANCES);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(
            limits
                .pool_core_instances
                .saturating_add(count_u32(limits.core_instances_max).saturating_mul(TRIAL_INSTANCES)),
        )
        .total_memories(
            limits
                .pool_memories
                .saturating_add(count_u32(limits.memories_max).saturating_mul(TRIAL_INSTANCES)),
        )
        .total_tables(
            limits.pool_tables.saturating_add(count_u32(limits.tables_max).saturating_mul(TRIAL_INSTANCES)),
        )
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements_max)
        .max_memories_per_module(count_u32(limits.memories_max))
        .max_tables_per_module(count_u32(limits.tables_max))
        .linear_memory_keep_resident(64 * 1024)
        .table_keep_resident(16 * 1024);
    pool
}
