//! The size of a component, which decides its class, or that it is too large for any class.
//!
//! Must not know: how it is measured.

use crate::plugin::class::Class;
use crate::plugin::error::Refusal;
use crate::plugin::limits::{ClassLimits, Config};
use crate::plugin::scan::cost_estimate::CompileCost;

/// The size of a component. What an instance has is counted as often as it is instantiated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ComponentSize {
    /// Bytes as uploaded.
    pub bytes: u64,
    /// Functions in all core modules.
    pub functions: u64,
    /// Bytes of the largest function body.
    pub body_bytes: u64,
    /// Most locals in one function.
    pub locals: u64,
    /// The deepest nesting of blocks in a function.
    pub depth: u64,
    /// The deepest nesting of loops in a function.
    pub loop_depth: u64,
    /// Targets of the largest `br_table`.
    pub targets: u64,
    /// Types in core modules and components, including nested ones.
    pub types: u64,
    /// Imports, exports, aliases, conversions and instances: as written, and again as often as they are
    /// instantiated.
    pub items: u64,
    pub core_instances: u64,
    /// Memories of one instance.
    pub memories: u64,
    /// Tables of one instance.
    pub tables: u64,
    /// Initial bytes of memory of one instance.
    pub memory_bytes: u64,
    /// Elements of the largest table.
    pub table_elements: u64,
    /// Bytes of memory images, over all core modules.
    pub image_bytes: u64,
    /// Estimated work to compile the most expensive function.
    pub function_work: u64,
    /// Estimated work to compile all of it.
    pub work: u64,
    /// Core modules and components within, as written.
    pub modules: u64,
    /// Bytes of the sections that define types.
    pub type_bytes: u64,
    /// Bytes of the sections that fill tables.
    pub element_bytes: u64,
    /// Bytes of all other sections except code and data, such as names.
    pub other_bytes: u64,
}

/// A value and its limit.
struct Measure {
    value: u64,
    max: u64,
    what: &'static str,
    setting: &'static str,
    kind: RefusalKind,
}

/// The kind of refusal if a value exceeds its limit.
enum RefusalKind {
    TooLarge,
    TooComplex,
    Instantiate,
}

impl ComponentSize {
    pub fn add_function(&mut self, bytes: u64, cost: &CompileCost) {
        self.body_bytes = self.body_bytes.max(bytes);
        self.locals = self.locals.max(cost.locals);
        self.depth = self.depth.max(cost.depth);
        self.loop_depth = self.loop_depth.max(cost.loop_depth);
        self.targets = self.targets.max(cost.targets);
        self.function_work = self.function_work.max(cost.units());
        self.work = self.work.saturating_add(cost.units());
    }

    /// The first class it fits into. Sizes only grow, so this may be asked before everything is counted.
    ///
    /// # Errors
    /// It fits into none: what is too much for the larger class, with the setting.
    pub fn class(&self, limits: &Config) -> Result<Class, Refusal> {
        let fits = |class: &Class| self.excess(&limits.class_limits(*class)).is_none();
        if let Some(class) = Class::ALL.into_iter().find(fits) {
            return Ok(class);
        }
        let bounds = limits.class_limits(Class::Scripting);
        match self.excess(&bounds) {
            Some(measure) => Err(measure.refusal(&bounds)),
            None => Ok(Class::Scripting),
        }
    }

    /// An upper estimate of the memory that the compiled component takes besides its code, bytes.
    /// `plugin/tests/loaded_size` measures it.
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
        let measure = |kind, value, max, what, setting| Measure { value, max, what, setting, kind };
        let size = |max: usize| max as u64;
        let complex = |value, max: usize, what, setting| {
            measure(RefusalKind::TooComplex, value, size(max), what, setting)
        };
        let start = |value, max: usize, what, setting| {
            measure(RefusalKind::Instantiate, value, size(max), what, setting)
        };
        [
            measure(RefusalKind::TooLarge, self.bytes, size(bounds.upload_bytes), "bytes", "upload_bytes"),
            complex(self.functions, bounds.functions_max, "functions", "functions_max"),
            complex(self.body_bytes, bounds.body_bytes_max, "bytes in one function", "body_bytes_max"),
            complex(self.locals, bounds.locals_max, "locals in one function", "locals_max"),
            complex(self.depth, bounds.block_depth_max, "nested blocks in one function", "block_depth_max"),
            complex(self.loop_depth, bounds.loop_depth_max, "nested loops in one function", "loop_depth_max"),
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
            measure(
                RefusalKind::TooComplex,
                self.function_work,
                bounds.function_work_max,
                FUNCTION_WORK,
                "function_work_max",
            ),
            measure(
                RefusalKind::TooComplex,
                self.work,
                bounds.compile_work_max,
                "estimated units of work to compile it",
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

const FUNCTION_WORK: &str = "estimated units of work to compile one function";
const ITEMS: &str = "imports, exports, aliases, conversions and instances, counted as often as they are made";

impl Measure {
    fn refusal(&self, bounds: &ClassLimits) -> Refusal {
        let Self { value, max, what, setting, kind } = self;
        let setting = format!("{}{setting}", bounds.prefix);
        match kind {
            RefusalKind::TooLarge => {
                Refusal::TooLarge { bytes: saturate_usize(*value), max: saturate_usize(*max), setting }
            }
            RefusalKind::TooComplex => Refusal::TooComplex {
                message: format!("{value} {what}; at most {max} ({setting})"),
                limit: Some(*max),
            },
            RefusalKind::Instantiate => Refusal::Instantiate {
                message: format!("it begins with {value} {what}; at most {max} ({setting})"),
                limit: Some(*max),
            },
        }
    }
}

fn saturate_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
