//! What is counted of one core module while it is read.
//!
//! Must not know: limits, or the component around it.

use wasmparser::{Operator, TypeRef};

use crate::plugin::scan::cost_estimate::ModuleTypes;
use crate::plugin::scan::instance_counts::InstanceCounts;

/// A core module being read.
#[derive(Default)]
pub struct CoreModule {
    pub types: ModuleTypes,
    pub counts: InstanceCounts,
    /// Functions whose code was read, and those that were imported.
    pub bodies_read: usize,
    pub imported: usize,
    /// Initial bytes of each memory; imported ones count as 0.
    memories: Vec<u64>,
    /// For each memory, the range of bytes that data fills.
    filled: Vec<Option<(u64, u64)>>,
}

impl CoreModule {
    pub fn add_import(&mut self, ty: &TypeRef) {
        match ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                self.types.functions.push(*index);
                self.imported += 1;
            }
            TypeRef::Memory(_) => self.memories.push(0),
            _ => {}
        }
    }

    pub fn add_memory(&mut self, bytes: u64) {
        self.counts.memories += 1;
        self.counts.memory_bytes = self.counts.memory_bytes.saturating_add(bytes);
        self.memories.push(bytes);
    }

    /// Records that data is written at the offset that `place` gives; without a constant offset, it may be
    /// anywhere.
    pub fn add_data(&mut self, memory: u32, place: Option<Operator<'_>>, len: u64) {
        let Some(&bytes) = self.memories.get(memory as usize) else { return };
        let (from, to) = match place {
            Some(Operator::I32Const { value }) => {
                (u64::from(value.cast_unsigned()), u64::from(value.cast_unsigned()).saturating_add(len))
            }
            _ => (0, bytes),
        };
        self.filled.resize(self.memories.len(), None);
        let filled = &mut self.filled[memory as usize];
        let (first, last) = filled.unwrap_or((from, to));
        *filled = Some((first.min(from), last.max(to)));
    }

    pub fn image_bytes(&self) -> u64 {
        let image = |(filled, bytes): (&Option<(u64, u64)>, &u64)| {
            filled.map_or(0, |(first, last)| last.saturating_sub(first).min(*bytes))
        };
        self.filled.iter().zip(&self.memories).map(image).fold(0, u64::saturating_add)
    }
}
