//! Watches the memory and the tables of one instance.
//!
//! Must not know: what a guest does with what it may have.

use wasmtime::{Error, ResourceLimiter, Result, bail};

use crate::domain::verdict::Fault;
use crate::plugin::limits::Bounds;

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
    pub const fn new(bounds: &Bounds) -> Self {
        Self {
            memory_bytes: 0,
            memory_bytes_max: bounds.memory_bytes,
            table_elements_max: bounds.table_elements_max,
            core_instances_max: bounds.core_instances_max,
            memories_max: bounds.memories_max,
            tables_max: bounds.tables_max,
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
