//! The figures of a component that decide its class, or that it is too much for any.
//!
//! Must not know: how they are found.

use crate::plugin::class::Class;
use crate::plugin::error::Refusal;
use crate::plugin::limits::{ClassLimits, Config};
use crate::plugin::scan::cost::Cost;

/// What is counted. What an instance has is counted as often as it is made, whatever makes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes as uploaded.
    pub bytes: u64,
    /// Functions in all core modules.
    pub functions: u64,
    /// Bytes of the largest function's body.
    pub body_bytes: u64,
    /// Locals of the function that has most.
    pub locals: u64,
    /// The deepest nesting of blocks in a function.
    pub depth: u64,
    /// The deepest nesting of loops in a function.
    pub loop_depth: u64,
    /// Targets of the largest `br_table`.
    pub targets: u64,
    /// Types, in core modules and in components, those within other types too.
    pub types: u64,
    /// Imports, exports, aliases, conversions and instances: as written, and again as often as they are made.
    pub items: u64,
    /// Core instances of one instance.
    pub core_instances: u64,
    /// Memories of one instance.
    pub memories: u64,
    /// Tables of one instance.
    pub tables: u64,
    /// Bytes of memory that one instance begins with.
    pub memory_bytes: u64,
    /// Elements of the largest table.
    pub table_elements: u64,
    /// Bytes of memory images, over all core modules.
    pub image_bytes: u64,
    /// Estimated work of compiling the costliest function.
    pub function_work: u64,
    /// Estimated work of compiling it.
    pub work: u64,
    /// Core modules and components within, as written.
    pub modules: u64,
    /// Bytes of the sections that define types.
    pub type_bytes: u64,
    /// Bytes of the sections that fill tables.
    pub element_bytes: u64,
    /// Bytes of all other sections but those of code and data: names, and what is done with them.
    pub other_bytes: u64,
}

/// One figure beside its limit.
struct Measure {
    value: u64,
    max: u64,
    what: &'static str,
    setting: &'static str,
    word: Word,
}

/// How the excess of a figure is told.
enum Word {
    Large,
    Complex,
    Start,
}

impl Figures {
    /// Adds a function.
    pub fn function(&mut self, bytes: u64, cost: &Cost) {
        self.body_bytes = self.body_bytes.max(bytes);
        self.locals = self.locals.max(cost.locals);
        self.depth = self.depth.max(cost.depth);
        self.loop_depth = self.loop_depth.max(cost.loop_depth);
        self.targets = self.targets.max(cost.targets);
        self.function_work = self.function_work.max(cost.units());
        self.work = self.work.saturating_add(cost.units());
    }

    /// The first class it fits. Figures only grow, so that a part of them may be asked for, too.
    ///
    /// # Errors
    /// It fits none: what is too much for the larger class, with the setting.
    pub fn class(&self, limits: &Config) -> Result<Class, Refusal> {
        let fits = |class: &Class| self.excess(&limits.class_limits(*class)).is_none();
        if let Some(class) = Class::ALL.into_iter().find(fits) {
            return Ok(class);
        }
        let bounds = limits.class_limits(Class::Scripting);
        match self.excess(&bounds) {
            Some(over) => Err(over.refusal(&bounds)),
            None => Ok(Class::Scripting),
        }
    }

    /// Memory that the compiled component takes beside its code, estimated from above, bytes.
    /// `plugin/tests/loaded` measures it.
    #[must_use]
    pub const fn heap_bytes(&self) -> u64 {
        const BASE: u64 = 32 << 10;
        const MODULE: u64 = 1_500;
        const ITEM: u64 = 150;
        const TYPE: u64 = 800;
        const FUNCTION: u64 = 64;
        const TYPE_BYTE: u64 = 50;
        const ELEMENT_BYTE: u64 = 4;
        const OTHER_BYTE: u64 = 2;
        BASE.saturating_add(self.modules.saturating_mul(MODULE))
            .saturating_add(self.items.saturating_mul(ITEM))
            .saturating_add(self.types.saturating_mul(TYPE))
            .saturating_add(self.functions.saturating_mul(FUNCTION))
            .saturating_add(self.type_bytes.saturating_mul(TYPE_BYTE))
            .saturating_add(self.element_bytes.saturating_mul(ELEMENT_BYTE))
            .saturating_add(self.other_bytes.saturating_mul(OTHER_BYTE))
    }

    fn excess(&self, bounds: &ClassLimits) -> Option<Measure> {
        self.measures(bounds).into_iter().find(|measure| measure.value > measure.max)
    }

    fn measures(&self, bounds: &ClassLimits) -> [Measure; 17] {
        let of = |word, value, max, what, setting| Measure { value, max, what, setting, word };
        let size = |max: usize| max as u64;
        let complex = |value, max: usize, what, setting| of(Word::Complex, value, size(max), what, setting);
        let start = |value, max: usize, what, setting| of(Word::Start, value, size(max), what, setting);
        [
            of(Word::Large, self.bytes, size(bounds.upload_bytes), "bytes", "upload_bytes"),
            complex(self.functions, bounds.functions_max, "functions", "functions_max"),
            complex(self.body_bytes, bounds.body_bytes_max, "bytes in one function", "body_bytes_max"),
            complex(self.locals, bounds.locals_max, "locals in one function", "locals_max"),
            complex(
                self.depth,
                bounds.block_depth_max,
                "blocks within one another in one function",
                "block_depth_max",
            ),
            complex(
                self.loop_depth,
                bounds.loop_depth_max,
                "loops within one another in one function",
                "loop_depth_max",
            ),
            complex(
                self.targets,
                bounds.br_table_targets_max as usize,
                "targets in one br_table",
                "br_table_targets_max",
            ),
            complex(self.types, bounds.types_max, "types", "types_max"),
            complex(self.items, bounds.items_max, ITEMS, "items_max"),
            complex(
                self.core_instances,
                bounds.core_instances_max,
                "core instances in one instance of it",
                "core_instances_max",
            ),
            complex(self.memories, bounds.memories_max, "memories in one instance of it", "memories_max"),
            complex(self.tables, bounds.tables_max, "tables in one instance of it", "tables_max"),
            complex(
                self.image_bytes,
                bounds.image_bytes,
                "bytes of memory that its data fills",
                "image_bytes",
            ),
            of(
                Word::Complex,
                self.function_work,
                bounds.function_work_max,
                FUNCTION_WORK,
                "function_work_max",
            ),
            of(
                Word::Complex,
                self.work,
                bounds.compile_work_max,
                "units of work to compile it, as estimated",
                "compile_work_max",
            ),
            start(self.memory_bytes, bounds.memory_bytes, "bytes of memory", "memory_bytes"),
            start(
                self.table_elements,
                bounds.table_elements_max,
                "elements in one table",
                "table_elements_max",
            ),
        ]
    }
}

const FUNCTION_WORK: &str = "units of work to compile one function, as estimated";
const ITEMS: &str = "imports, exports, aliases, conversions and instances, counted as often as they are made";

impl Measure {
    fn refusal(&self, bounds: &ClassLimits) -> Refusal {
        let Self { value, max, what, setting, word } = self;
        let setting = format!("{}{setting}", bounds.prefix);
        match word {
            Word::Large => Refusal::TooLarge { bytes: bytes(*value), max: bytes(*max), setting },
            Word::Complex => Refusal::TooComplex {
                message: format!("{value} {what}; at most {max} ({setting})"),
                limit: Some(*max),
            },
            Word::Start => {
                Refusal::Instantiate(format!("it begins with {value} {what}; at most {max} ({setting})"))
            }
        }
    }
}

fn bytes(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
