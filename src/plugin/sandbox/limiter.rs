//! Limits the memory and the tables of one instance, and charges them to the budget that all guests share.
//!
//! Must not know: what a guest does with its memory.

use wasmtime::{Error, ResourceLimiter, Result, bail};

use crate::domain::verdict::Fault;
use crate::plugin::error::Refusal;
use crate::plugin::limits::ClassLimits;
use crate::plugin::resources::charge::Charge;

/// Memory that an element of a table takes, bytes: a pointer.
const TABLE_ELEMENT_BYTES: usize = 8;

/// A limit that an instance exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// The fault it counts as.
    pub fault: Fault,
    /// The limit, bytes or elements; `None` if it was not the instance's own limit.
    pub limit: Option<u64>,
}

/// Limits one instance. The first limit it exceeds is kept as its fault. Its memory is given back when the
/// instance is dropped.
pub struct Limiter {
    memory_bytes: usize,
    table_elements: usize,
    bounds: ClassLimits,
    charge: Charge,
    /// The limit that was exceeded, if any.
    pub exceeded: Option<Exceeded>,
    /// The refusal, if the budget shared with other guests ran out rather than the instance's own limit.
    pub out_of_budget: Option<Refusal>,
}

impl Limiter {
    /// A limiter for a new instance.
    #[must_use]
    pub const fn new(bounds: ClassLimits, charge: Charge) -> Self {
        Self { memory_bytes: 0, table_elements: 0, bounds, charge, exceeded: None, out_of_budget: None }
    }

    /// Bytes of all memories and tables together.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.memory_bytes.saturating_add(self.table_elements.saturating_mul(TABLE_ELEMENT_BYTES)) as u64
    }

    const fn exceed(&mut self, fault: Fault, limit: usize) {
        self.exceeded = Some(Exceeded { fault, limit: Some(limit as u64) });
    }

    /// Charges what memories and tables take now.
    fn charge(&mut self) -> Result<()> {
        let bytes = self.bytes();
        let Err(refusal) = self.charge.grow_to(bytes) else { return Ok(()) };
        self.exceeded = Some(Exceeded { fault: Fault::Memory, limit: None });
        let message = format!("asks for {bytes} bytes of memory; {refusal}");
        self.out_of_budget = Some(refusal);
        bail!("{message}");
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let sum = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if sum > self.bounds.memory_bytes {
            self.exceed(Fault::Memory, self.bounds.memory_bytes);
            bail!(
                "asks for {sum} bytes of memory; it may have {} ({}memory_bytes)",
                self.bounds.memory_bytes,
                self.bounds.prefix
            );
        }
        if let Some(max) = maximum.filter(|max| desired > *max) {
            self.exceed(Fault::Memory, max);
            bail!("asks for {desired} bytes in one memory; it may have {max}");
        }
        self.memory_bytes = sum;
        self.charge()?;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        self.exceeded = Some(Exceeded { fault: Fault::Memory, limit: None });
        Err(error.context("memory could not grow"))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let elements_max = self.bounds.table_elements_max;
        if desired > elements_max {
            self.exceed(Fault::Table, elements_max);
            bail!(
                "asks for a table of {desired} elements; it may have {elements_max} ({}table_elements_max)",
                self.bounds.prefix
            );
        }
        if let Some(max) = maximum.filter(|max| desired > *max) {
            self.exceed(Fault::Table, max);
            bail!("asks for a table of {desired} elements; it declared at most {max}");
        }
        self.table_elements = self.table_elements.saturating_add(desired.saturating_sub(current));
        self.charge()?;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<()> {
        self.exceeded = Some(Exceeded { fault: Fault::Table, limit: None });
        Err(error.context("a table could not grow"))
    }

    fn instances(&self) -> usize {
        self.bounds.core_instances_max
    }

    fn tables(&self) -> usize {
        self.bounds.tables_max
    }

    fn memories(&self) -> usize {
        self.bounds.memories_max
    }
}
