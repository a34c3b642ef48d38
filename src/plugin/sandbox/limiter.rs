//! Watches the memory and the tables of one instance, and has them charged to what all guests share.
//!
//! Must not know: what a guest does with what it may have.

use wasmtime::{Error, ResourceLimiter, Result, bail};

use crate::domain::verdict::Fault;
use crate::plugin::error::Refusal;
use crate::plugin::limits::ClassLimits;
use crate::plugin::resources::charge::Charge;

/// An element of a table takes so much memory, bytes: a pointer.
const TABLE_ELEMENT_BYTES: usize = 8;

/// Watches what one instance takes; the first excess is remembered as its fault. What was taken is given back
/// with the instance.
pub struct Limiter {
    memory_bytes: usize,
    table_elements: usize,
    bounds: ClassLimits,
    charge: Charge,
    /// What was exceeded, if anything was.
    pub exceeded: Option<Fault>,
    /// It was not this instance that took too much: what it shares with others is used up.
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

    /// Charges what memories and tables take now.
    fn charge(&mut self) -> Result<()> {
        let bytes = self.bytes();
        let Err(refusal) = self.charge.grow_to(bytes) else { return Ok(()) };
        self.exceeded = Some(Fault::Memory);
        let told = format!("asks for {bytes} bytes of memory; {refusal}");
        self.out_of_budget = Some(refusal);
        bail!("{told}");
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let sum = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if sum > self.bounds.memory_bytes {
            self.exceeded = Some(Fault::Memory);
            bail!(
                "asks for {sum} bytes of memory; it may have {} ({}memory_bytes)",
                self.bounds.memory_bytes,
                self.bounds.prefix
            );
        }
        if let Some(max) = maximum.filter(|max| desired > *max) {
            self.exceeded = Some(Fault::Memory);
            bail!("asks for {desired} bytes in one memory; it may have {max}");
        }
        self.memory_bytes = sum;
        self.charge()?;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        self.exceeded = Some(Fault::Memory);
        Err(error.context("memory could not grow"))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let elements_max = self.bounds.table_elements_max;
        if desired > elements_max {
            self.exceeded = Some(Fault::Table);
            bail!(
                "asks for a table of {desired} elements; it may have {elements_max} ({}table_elements_max)",
                self.bounds.prefix
            );
        }
        if let Some(max) = maximum.filter(|max| desired > *max) {
            self.exceeded = Some(Fault::Table);
            bail!("asks for a table of {desired} elements; it said at most {max}");
        }
        self.table_elements = self.table_elements.saturating_add(desired.saturating_sub(current));
        self.charge()?;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<()> {
        self.exceeded = Some(Fault::Table);
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
