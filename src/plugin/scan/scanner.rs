//! Measures an upload in one pass.
//!
//! Must not know: which class follows from the size.

use wasmparser::{
    CanonicalFunction, ComponentType, ComponentTypeDeclaration, CompositeInnerType, CoreType, DataKind,
    Encoding, FromReader, FunctionBody, InstanceTypeDeclaration, Parser, Payload, SectionLimited, SubType,
    TypeSectionReader,
};

use crate::plugin::error::Refusal;
use crate::plugin::limits::Config;
use crate::plugin::scan::component_size::ComponentSize;
use crate::plugin::scan::core_module::CoreModule;
use crate::plugin::scan::instance_counts::{self, ComponentScope, InstanceCounts};
use crate::plugin::scan::{check_type_section, cost_estimate, imports, refusal_from};

/// The deepest nesting of components and core modules; toolchains use four levels.
const DEPTH_MAX: usize = 16;
/// The deepest nesting of component types; toolchains use three levels. The parser itself allows 100.
const TYPE_DEPTH_MAX: u64 = 16;
/// The default size of a page of memory, bytes, as a power of two.
const PAGE_LOG2: u32 = 16;
/// Work for a type of a core module (compiled code needs a trampoline for it), and for each of its parameters
/// and results.
const TYPE_WORK: u64 = 50;
const VALUE_WORK: u64 = 5;
/// Work for a function lowered from a component to a core module.
const LOWERED_WORK: u64 = 400;
/// The section in which toolchains describe the world a core module was made for. It contains a component.
const WORLD_SECTION: &str = "component-type";

/// Called with the name and the content of each custom section.
pub type CustomSections<'a, 'b> = &'a mut dyn FnMut(&str, &'b [u8]) -> Result<(), Refusal>;

/// What is being read.
enum Frame {
    Module(Box<CoreModule>),
    Component(Box<ComponentScope>),
}

/// Measures one upload.
pub struct Scanner<'a> {
    limits: &'a Config,
    len: usize,
    size: ComponentSize,
    frames: Vec<Frame>,
    locals_max: u64,
    work_max: u64,
}

impl<'a> Scanner<'a> {
    /// A scanner for an upload of `len` bytes.
    #[must_use]
    pub fn new(limits: &'a Config, len: usize) -> Self {
        let widest = limits.function_limits_max();
        let size = ComponentSize { bytes: len as u64, ..ComponentSize::default() };
        Self { limits, len, size, frames: Vec::new(), locals_max: widest.0, work_max: widest.1 }
    }

    /// Measures the upload, and passes each custom section to `custom`.
    ///
    /// # Errors
    /// Bytes that cannot be parsed, what is too much for any class, or what `custom` refuses.
    pub fn scan<'b>(
        mut self,
        bytes: &'b [u8],
        custom: CustomSections<'_, 'b>,
    ) -> Result<ComponentSize, Refusal> {
        self.read(bytes, custom)?;
        Ok(self.size)
    }

    fn read<'b>(&mut self, bytes: &'b [u8], custom: CustomSections<'_, 'b>) -> Result<(), Refusal> {
        let depth_before = self.frames.len();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(|error| refusal_from(&error, self.len))? {
                Payload::Version { encoding, .. } => self.begin(encoding)?,
                Payload::End(_) => {
                    self.end(depth_before);
                    self.size.class(self.limits)?;
                }
                Payload::CustomSection(section) => {
                    custom(section.name(), section.data())?;
                    if section.name().starts_with(WORLD_SECTION) && section.data().starts_with(b"\0asm") {
                        // The encoder reads it as a component, so it is measured as one, but only once.
                        if self.frames.len() > 1 || depth_before > 0 {
                            continue;
                        }
                        self.read(section.data(), &mut |_, _| Ok(()))?;
                    }
                }
                other => self.section(other)?,
            }
        }
        if self.frames.len() != depth_before {
            return Err(Refusal::NotWasm(format!("it is cut off after {} bytes", self.len)));
        }
        Ok(())
    }

    fn begin(&mut self, encoding: Encoding) -> Result<(), Refusal> {
        self.frames.push(match encoding {
            Encoding::Module => Frame::Module(Box::default()),
            Encoding::Component => Frame::Component(Box::default()),
        });
        self.size.modules = self.size.modules.saturating_add(1);
        // Each takes an index of the component around it.
        self.count_items(1)?;
        let depth = self.frames.len();
        if depth > DEPTH_MAX {
            let message = format!("components nested {depth} deep; at most {DEPTH_MAX}");
            return Err(Refusal::TooComplex { message, limit: Some(DEPTH_MAX as u64) });
        }
        Ok(())
    }

    fn end(&mut self, depth_before: usize) {
        let Some(frame) = self.frames.pop() else { return };
        let outermost = self.frames.len() == depth_before;
        let counts = match &frame {
            Frame::Module(module) => {
                self.size.image_bytes = self.size.image_bytes.saturating_add(module.image_bytes());
                InstanceCounts { core_instances: 1, ..module.counts }
            }
            Frame::Component(scope) => scope.counts,
        };
        if outermost {
            let size = &mut self.size;
            size.core_instances = size.core_instances.saturating_add(counts.core_instances);
            size.memories = size.memories.saturating_add(counts.memories);
            size.tables = size.tables.saturating_add(counts.tables);
            size.memory_bytes = size.memory_bytes.saturating_add(counts.memory_bytes);
            size.items = size.items.saturating_add(counts.items);
            size.work = size.work.saturating_add(counts.lowered.saturating_mul(LOWERED_WORK));
        } else if let Some(Frame::Component(outer)) = self.frames.last_mut() {
            match frame {
                Frame::Module(_) => outer.add_module(counts),
                Frame::Component(_) => outer.add_component(counts),
            }
        }
    }

    fn section(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        self.count_section_bytes(&payload);
        match self.frames.last() {
            Some(Frame::Module(_)) => self.module_section(payload),
            _ => self.component_section(payload),
        }
    }

    fn count_section_bytes(&mut self, payload: &Payload<'_>) {
        let Some((_, range)) = payload.as_section() else { return };
        let bytes = range.end.saturating_sub(range.start);
        let size = &mut self.size;
        match payload {
            Payload::TypeSection(_) | Payload::ComponentTypeSection(_) | Payload::CoreTypeSection(_) => {
                size.type_bytes = size.type_bytes.saturating_add(bytes);
            }
            Payload::ElementSection(_) => size.element_bytes = size.element_bytes.saturating_add(bytes),
            // Code and data stay in the file; modules and components within are measured on their own.
            Payload::CodeSectionStart { .. } | Payload::DataSection(_) => {}
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {}
            _ => size.other_bytes = size.other_bytes.saturating_add(bytes),
        }
    }

    fn current_module(&mut self) -> Option<&mut CoreModule> {
        match self.frames.last_mut() {
            Some(Frame::Module(module)) => Some(module),
            _ => None,
        }
    }

    fn current_scope(&mut self) -> Option<&mut ComponentScope> {
        match self.frames.last_mut() {
            Some(Frame::Component(scope)) => Some(scope),
            _ => None,
        }
    }

    fn module_section(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(section) => self.module_types(section)?,
            Payload::ImportSection(section) => {
                self.count_items(section.count())?;
                for import in section.into_imports() {
                    let ty = import.map_err(|error| refusal_from(&error, self.len))?.ty;
                    if let Some(module) = self.current_module() {
                        module.add_import(&ty);
                    }
                }
            }
            Payload::FunctionSection(section) => {
                self.size.functions = self.size.functions.saturating_add(u64::from(section.count()));
                self.size.class(self.limits)?;
                self.for_each(section, |scanner, ty| {
                    if let Some(module) = scanner.current_module() {
                        module.types.functions.push(ty);
                    }
                    Ok(())
                })?;
            }
            Payload::MemorySection(section) => {
                self.count_items(section.count())?;
                self.for_each(section, |scanner, memory| {
                    if let Some(module) = scanner.current_module() {
                        let page = memory.page_size_log2.unwrap_or(PAGE_LOG2).min(PAGE_LOG2);
                        module.add_memory(memory.initial.saturating_mul(1 << page));
                    }
                    Ok(())
                })?;
            }
            Payload::TableSection(section) => {
                self.count_items(section.count())?;
                self.for_each(section, |scanner, table| {
                    scanner.size.table_elements = scanner.size.table_elements.max(table.ty.initial);
                    if let Some(module) = scanner.current_module() {
                        module.counts.tables += 1;
                    }
                    Ok(())
                })?;
            }
            Payload::GlobalSection(section) => self.count_items(section.count())?,
            Payload::ExportSection(section) => self.count_items(section.count())?,
            Payload::ElementSection(section) => self.count_items(section.count())?,
            Payload::DataSection(section) => {
                self.count_items(section.count())?;
                self.for_each(section, |scanner, data| {
                    if let (Some(module), DataKind::Active { memory_index, offset_expr }) =
                        (scanner.current_module(), data.kind)
                    {
                        let first = offset_expr.get_operators_reader().read();
                        module.add_data(memory_index, first.ok(), data.data.len() as u64);
                    }
                    Ok(())
                })?;
            }
            Payload::CodeSectionEntry(body) => self.function_body(&body)?,
            _ => {}
        }
        Ok(())
    }

    fn module_types(&mut self, section: TypeSectionReader<'_>) -> Result<(), Refusal> {
        check_type_section(&section)?;
        self.count_types(u64::from(section.count()))?;
        self.for_each(section, |scanner, group| {
            let types = group.into_types();
            scanner.count_types((types.len() as u64).saturating_sub(1))?;
            for ty in types {
                scanner.size.work = scanner.size.work.saturating_add(type_work(&ty));
                if let Some(module) = scanner.current_module() {
                    module.types.types.push(ty);
                }
            }
            scanner.size.class(scanner.limits).map(|_| ())
        })
    }

    fn function_body(&mut self, body: &FunctionBody<'_>) -> Result<(), Refusal> {
        let (locals_max, work_max, len) = (self.locals_max, self.work_max, self.len);
        let Some(module) = self.current_module() else { return Ok(()) };
        let function = module.imported + module.bodies_read;
        module.bodies_read += 1;
        let range = body.range();
        let bytes = range.end.saturating_sub(range.start);
        let cost = cost_estimate::estimate(body, &module.types, function, locals_max, work_max)
            .map_err(|error| refusal_from(&error, len))?;
        self.size.add_function(bytes, &cost);
        self.size.class(self.limits).map(|_| ())
    }

    fn component_section(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::InstanceSection(section) => {
                self.count_made_items(section.count())?;
                self.for_each(section, |scanner, instance| {
                    scanner.current_scope().map_or(Ok(()), |scope| scope.add_instance(&instance))
                })
            }
            Payload::ComponentInstanceSection(section) => {
                self.count_made_items(section.count())?;
                self.for_each(section, |scanner, instance| {
                    scanner.current_scope().map_or(Ok(()), |scope| scope.add_component_instance(&instance))
                })
            }
            Payload::ComponentAliasSection(section) => {
                self.count_made_items(section.count())?;
                self.for_each(section, |scanner, alias| {
                    let mut scopes: Vec<&mut ComponentScope> =
                        scanner.frames.iter_mut().filter_map(scope_of).collect();
                    instance_counts::add_alias(&mut scopes, &alias);
                    Ok(())
                })
            }
            Payload::ComponentImportSection(section) => {
                self.count_made_items(section.count())?;
                self.for_each(section, |scanner, import| {
                    if let Some(scope) = scanner.current_scope() {
                        scope.add_import(&import);
                    }
                    Ok(())
                })
            }
            Payload::ComponentExportSection(section) => {
                self.count_made_items(section.count())?;
                self.for_each(section, |scanner, export| {
                    if let Some(scope) = scanner.current_scope() {
                        scope.add_export(&export);
                    }
                    Ok(())
                })
            }
            Payload::ComponentCanonicalSection(section) => {
                self.count_made_items(section.count())?;
                self.for_each(section, |scanner, function| {
                    imports::check_conversion(&function)?;
                    if let (Some(scope), CanonicalFunction::Lower { .. }) =
                        (scanner.current_scope(), &function)
                    {
                        scope.counts.lowered += 1;
                    }
                    Ok(())
                })
            }
            Payload::ComponentTypeSection(section) => {
                check_type_section(&section)?;
                self.count_types(u64::from(section.count()))?;
                self.for_each(section, |scanner, ty| scanner.component_type(&ty))
            }
            Payload::CoreTypeSection(section) => {
                check_type_section(&section)?;
                self.count_types(u64::from(section.count()))?;
                self.for_each(section, |scanner, ty| scanner.core_type(&ty))
            }
            _ => Ok(()),
        }
    }

    fn component_type(&mut self, ty: &ComponentType<'_>) -> Result<(), Refusal> {
        let nested = nested_types(ty, 1)?;
        self.count_types(nested)
    }

    fn core_type(&mut self, ty: &CoreType<'_>) -> Result<(), Refusal> {
        self.count_types(nested_core_types(ty))
    }

    fn for_each<'b, T: FromReader<'b>>(
        &mut self,
        section: SectionLimited<'b, T>,
        mut visit: impl FnMut(&mut Self, T) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        for item in section {
            let item = item.map_err(|error| refusal_from(&error, self.len))?;
            visit(self, item)?;
        }
        Ok(())
    }

    fn count_types(&mut self, count: u64) -> Result<(), Refusal> {
        self.size.types = self.size.types.saturating_add(count);
        self.size.class(self.limits).map(|_| ())
    }

    /// Counts items once, as written.
    fn count_items(&mut self, count: u32) -> Result<(), Refusal> {
        self.size.items = self.size.items.saturating_add(u64::from(count));
        self.size.class(self.limits).map(|_| ())
    }

    /// Counts items as written, and again for each instance of the component.
    fn count_made_items(&mut self, count: u32) -> Result<(), Refusal> {
        if let Some(scope) = self.current_scope() {
            scope.add_items(u64::from(count));
        }
        self.count_items(count)
    }
}

fn scope_of(frame: &mut Frame) -> Option<&mut ComponentScope> {
    match frame {
        Frame::Component(scope) => Some(scope),
        Frame::Module(_) => None,
    }
}

fn type_work(ty: &SubType) -> u64 {
    let values = match &ty.composite_type.inner {
        CompositeInnerType::Func(function) => function.params().len() + function.results().len(),
        _ => 0,
    };
    TYPE_WORK + VALUE_WORK * values as u64
}

/// The number of types within a component type.
fn nested_types(ty: &ComponentType<'_>, depth: u64) -> Result<u64, Refusal> {
    if depth > TYPE_DEPTH_MAX {
        let message = format!("component types nested more than {TYPE_DEPTH_MAX} deep");
        return Err(Refusal::TooComplex { message, limit: Some(TYPE_DEPTH_MAX) });
    }
    let mut count = 0_u64;
    match ty {
        ComponentType::Component(declared) => {
            for declaration in declared {
                count += 1;
                match declaration {
                    ComponentTypeDeclaration::Type(ty) => {
                        count = count.saturating_add(nested_types(ty, depth + 1)?)
                    }
                    ComponentTypeDeclaration::CoreType(ty) => {
                        count = count.saturating_add(nested_core_types(ty))
                    }
                    _ => {}
                }
            }
        }
        ComponentType::Instance(declared) => {
            for declaration in declared {
                count += 1;
                match declaration {
                    InstanceTypeDeclaration::Type(ty) => {
                        count = count.saturating_add(nested_types(ty, depth + 1)?)
                    }
                    InstanceTypeDeclaration::CoreType(ty) => {
                        count = count.saturating_add(nested_core_types(ty))
                    }
                    _ => {}
                }
            }
        }
        ComponentType::Func(function) => imports::check_function_type(function)?,
        _ => {}
    }
    Ok(count)
}

/// The number of declarations within a core type of a component.
fn nested_core_types(ty: &CoreType<'_>) -> u64 {
    match ty {
        CoreType::Module(declared) => declared.len() as u64,
        CoreType::Rec(group) => group.types().len() as u64,
    }
}
