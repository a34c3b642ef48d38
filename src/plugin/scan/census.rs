//! One pass over everything in an upload, counting.
//!
//! Must not know: which class follows from the figures.

use wasmparser::{
    CanonicalFunction, ComponentType, ComponentTypeDeclaration, CompositeInnerType, CoreType, DataKind,
    Encoding, FromReader, FunctionBody, InstanceTypeDeclaration, Operator, Parser, Payload, SectionLimited,
    SubType, TypeRef, TypeSectionReader,
};

use crate::plugin::error::Refusal;
use crate::plugin::limits::Config;
use crate::plugin::scan::cost::{self, Types};
use crate::plugin::scan::figures::Figures;
use crate::plugin::scan::made::{self, Made, Scope};
use crate::plugin::scan::{check_types, imports, malformed};

/// Components and core modules within one another; toolchains use four levels.
const DEPTH_MAX: usize = 16;
/// Component types within one another; toolchains use three levels. The reader itself goes 100 deep at most.
const TYPE_DEPTH_MAX: u64 = 16;
/// A page of memory where a module says nothing else, bytes, as a power of two.
const PAGE_LOG2: u32 = 16;
/// Work for a type of a core module (a way in and out of compiled code), and for each of its parameters and
/// results.
const TYPE_WORK: u64 = 50;
const VALUE_WORK: u64 = 5;
/// Work for a function converted from one component to another.
const LOWERED_WORK: u64 = 400;
/// The section in which toolchains describe the world a core module was made for: it holds a component.
const WORLD_SECTION: &str = "component-type";

/// What is done with custom sections: their names and contents.
pub type Custom<'a, 'b> = &'a mut dyn FnMut(&str, &'b [u8]) -> Result<(), Refusal>;

/// What is being read.
enum Frame {
    Module(Box<Module>),
    Component(Box<Scope>),
}

/// A core module that is being read.
#[derive(Default)]
struct Module {
    types: Types,
    made: Made,
    /// Functions whose code was read, and those imported.
    read: usize,
    imported: usize,
    /// Bytes of each memory at the beginning, imported ones among them as 0.
    memories: Vec<u64>,
    /// For each memory, the bytes from the first one that data fills to the last.
    filled: Vec<Option<(u64, u64)>>,
}

/// The pass.
pub struct Census<'a> {
    limits: &'a Config,
    len: usize,
    figures: Figures,
    frames: Vec<Frame>,
    locals_max: u64,
    work_max: u64,
}

impl<'a> Census<'a> {
    /// Of an upload of so many bytes.
    #[must_use]
    pub fn new(limits: &'a Config, len: usize) -> Self {
        let widest = limits.function_limits_max();
        let figures = Figures { bytes: len as u64, ..Figures::default() };
        Self { limits, len, figures, frames: Vec::new(), locals_max: widest.0, work_max: widest.1 }
    }

    /// Counts all there is, and gives the custom sections to `custom`.
    ///
    /// # Errors
    /// Bytes that cannot be read, what is too much for any class, or what `custom` refuses.
    pub fn take<'b>(mut self, bytes: &'b [u8], custom: Custom<'_, 'b>) -> Result<Figures, Refusal> {
        self.read(bytes, custom)?;
        Ok(self.figures)
    }

    fn read<'b>(&mut self, bytes: &'b [u8], custom: Custom<'_, 'b>) -> Result<(), Refusal> {
        let outside = self.frames.len();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(|error| malformed(&error, self.len))? {
                Payload::Version { encoding, .. } => self.begin(encoding)?,
                Payload::End(_) => {
                    self.end(outside);
                    self.figures.class(self.limits)?;
                }
                Payload::CustomSection(section) => {
                    custom(section.name(), section.data())?;
                    if section.name().starts_with(WORLD_SECTION) && section.data().starts_with(b"\0asm") {
                        // The encoder reads it as a component; so do we, once.
                        if self.frames.len() > 1 || outside > 0 {
                            continue;
                        }
                        self.read(section.data(), &mut |_, _| Ok(()))?;
                    }
                }
                other => self.section(other)?,
            }
        }
        if self.frames.len() != outside {
            return Err(Refusal::NotWasm(format!("it is cut off after {} bytes", self.len)));
        }
        Ok(())
    }

    fn begin(&mut self, encoding: Encoding) -> Result<(), Refusal> {
        self.frames.push(match encoding {
            Encoding::Module => Frame::Module(Box::default()),
            Encoding::Component => Frame::Component(Box::default()),
        });
        self.figures.modules = self.figures.modules.saturating_add(1);
        // Each takes an index of the component around it.
        self.items(1)?;
        let depth = self.frames.len();
        if depth > DEPTH_MAX {
            let message = format!("components within one another, {depth} deep; at most {DEPTH_MAX}");
            return Err(Refusal::TooComplex { message, limit: Some(DEPTH_MAX as u64) });
        }
        Ok(())
    }

    fn end(&mut self, outside: usize) {
        let Some(frame) = self.frames.pop() else { return };
        let outermost = self.frames.len() == outside;
        let made = match &frame {
            Frame::Module(module) => {
                self.figures.image_bytes = self.figures.image_bytes.saturating_add(module.image_bytes());
                Made { core_instances: 1, ..module.made }
            }
            Frame::Component(scope) => scope.made,
        };
        if outermost {
            let figures = &mut self.figures;
            figures.core_instances = figures.core_instances.saturating_add(made.core_instances);
            figures.memories = figures.memories.saturating_add(made.memories);
            figures.tables = figures.tables.saturating_add(made.tables);
            figures.memory_bytes = figures.memory_bytes.saturating_add(made.memory_bytes);
            figures.items = figures.items.saturating_add(made.items);
            figures.work = figures.work.saturating_add(made.lowered.saturating_mul(LOWERED_WORK));
        } else if let Some(Frame::Component(outer)) = self.frames.last_mut() {
            match frame {
                Frame::Module(_) => outer.module(made),
                Frame::Component(_) => outer.component(made),
            }
        }
    }

    fn section(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        self.weigh(&payload);
        match self.frames.last() {
            Some(Frame::Module(_)) => self.of_module(payload),
            _ => self.of_component(payload),
        }
    }

    fn weigh(&mut self, payload: &Payload<'_>) {
        let Some((_, range)) = payload.as_section() else { return };
        let bytes = range.end.saturating_sub(range.start);
        let figures = &mut self.figures;
        match payload {
            Payload::TypeSection(_) | Payload::ComponentTypeSection(_) | Payload::CoreTypeSection(_) => {
                figures.type_bytes = figures.type_bytes.saturating_add(bytes);
            }
            Payload::ElementSection(_) => figures.element_bytes = figures.element_bytes.saturating_add(bytes),
            // Code and data stay in the file; what is within others counts by itself.
            Payload::CodeSectionStart { .. } | Payload::DataSection(_) => {}
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {}
            _ => figures.other_bytes = figures.other_bytes.saturating_add(bytes),
        }
    }

    fn module(&mut self) -> Option<&mut Module> {
        match self.frames.last_mut() {
            Some(Frame::Module(module)) => Some(module),
            _ => None,
        }
    }

    fn scope(&mut self) -> Option<&mut Scope> {
        match self.frames.last_mut() {
            Some(Frame::Component(scope)) => Some(scope),
            _ => None,
        }
    }

    fn of_module(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(section) => self.types(section)?,
            Payload::ImportSection(section) => {
                self.items(section.count())?;
                for import in section.into_imports() {
                    let ty = import.map_err(|error| malformed(&error, self.len))?.ty;
                    if let Some(module) = self.module() {
                        module.import(&ty);
                    }
                }
            }
            Payload::FunctionSection(section) => {
                self.figures.functions = self.figures.functions.saturating_add(u64::from(section.count()));
                self.figures.class(self.limits)?;
                self.each(section, |census, ty| {
                    if let Some(module) = census.module() {
                        module.types.functions.push(ty);
                    }
                    Ok(())
                })?;
            }
            Payload::MemorySection(section) => {
                self.items(section.count())?;
                self.each(section, |census, memory| {
                    if let Some(module) = census.module() {
                        let page = memory.page_size_log2.unwrap_or(PAGE_LOG2).min(PAGE_LOG2);
                        module.memory(memory.initial.saturating_mul(1 << page));
                    }
                    Ok(())
                })?;
            }
            Payload::TableSection(section) => {
                self.items(section.count())?;
                self.each(section, |census, table| {
                    census.figures.table_elements = census.figures.table_elements.max(table.ty.initial);
                    if let Some(module) = census.module() {
                        module.made.tables += 1;
                    }
                    Ok(())
                })?;
            }
            Payload::GlobalSection(section) => self.items(section.count())?,
            Payload::ExportSection(section) => self.items(section.count())?,
            Payload::ElementSection(section) => self.items(section.count())?,
            Payload::DataSection(section) => {
                self.items(section.count())?;
                self.each(section, |census, data| {
                    if let (Some(module), DataKind::Active { memory_index, offset_expr }) =
                        (census.module(), data.kind)
                    {
                        let first = offset_expr.get_operators_reader().read();
                        module.fill(memory_index, first.ok(), data.data.len() as u64);
                    }
                    Ok(())
                })?;
            }
            Payload::CodeSectionEntry(body) => self.body(&body)?,
            _ => {}
        }
        Ok(())
    }

    fn types(&mut self, section: TypeSectionReader<'_>) -> Result<(), Refusal> {
        check_types(&section)?;
        self.count_types(u64::from(section.count()))?;
        self.each(section, |census, group| {
            let types = group.into_types();
            census.count_types((types.len() as u64).saturating_sub(1))?;
            for ty in types {
                census.figures.work = census.figures.work.saturating_add(type_work(&ty));
                if let Some(module) = census.module() {
                    module.types.types.push(ty);
                }
            }
            census.figures.class(census.limits).map(|_| ())
        })
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> Result<(), Refusal> {
        let (locals_max, work_max, len) = (self.locals_max, self.work_max, self.len);
        let Some(module) = self.module() else { return Ok(()) };
        let function = module.imported + module.read;
        module.read += 1;
        let range = body.range();
        let bytes = range.end.saturating_sub(range.start);
        let cost = cost::of(body, &module.types, function, locals_max, work_max)
            .map_err(|error| malformed(&error, len))?;
        self.figures.function(bytes, &cost);
        self.figures.class(self.limits).map(|_| ())
    }

    fn of_component(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::InstanceSection(section) => {
                self.made(section.count())?;
                self.each(section, |census, instance| {
                    census.scope().map_or(Ok(()), |scope| scope.instance(&instance))
                })
            }
            Payload::ComponentInstanceSection(section) => {
                self.made(section.count())?;
                self.each(section, |census, instance| {
                    census.scope().map_or(Ok(()), |scope| scope.component_instance(&instance))
                })
            }
            Payload::ComponentAliasSection(section) => {
                self.made(section.count())?;
                self.each(section, |census, alias| {
                    let mut scopes: Vec<&mut Scope> = census.frames.iter_mut().filter_map(scope_of).collect();
                    made::alias(&mut scopes, &alias);
                    Ok(())
                })
            }
            Payload::ComponentImportSection(section) => {
                self.made(section.count())?;
                self.each(section, |census, import| {
                    if let Some(scope) = census.scope() {
                        scope.import(&import);
                    }
                    Ok(())
                })
            }
            Payload::ComponentExportSection(section) => {
                self.made(section.count())?;
                self.each(section, |census, export| {
                    if let Some(scope) = census.scope() {
                        scope.export(&export);
                    }
                    Ok(())
                })
            }
            Payload::ComponentCanonicalSection(section) => {
                self.made(section.count())?;
                self.each(section, |census, function| {
                    imports::check_conversion(&function)?;
                    if let (Some(scope), CanonicalFunction::Lower { .. }) = (census.scope(), &function) {
                        scope.made.lowered += 1;
                    }
                    Ok(())
                })
            }
            Payload::ComponentTypeSection(section) => {
                check_types(&section)?;
                self.count_types(u64::from(section.count()))?;
                self.each(section, |census, ty| census.component_type(&ty))
            }
            Payload::CoreTypeSection(section) => {
                check_types(&section)?;
                self.count_types(u64::from(section.count()))?;
                self.each(section, |census, ty| census.core_type(&ty))
            }
            _ => Ok(()),
        }
    }

    fn component_type(&mut self, ty: &ComponentType<'_>) -> Result<(), Refusal> {
        let within = within(ty, 1)?;
        self.count_types(within)
    }

    fn core_type(&mut self, ty: &CoreType<'_>) -> Result<(), Refusal> {
        self.count_types(within_core(ty))
    }

    fn each<'b, T: FromReader<'b>>(
        &mut self,
        section: SectionLimited<'b, T>,
        mut take: impl FnMut(&mut Self, T) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        for item in section {
            let item = item.map_err(|error| malformed(&error, self.len))?;
            take(self, item)?;
        }
        Ok(())
    }

    fn count_types(&mut self, count: u64) -> Result<(), Refusal> {
        self.figures.types = self.figures.types.saturating_add(count);
        self.figures.class(self.limits).map(|_| ())
    }

    /// Items as written.
    fn items(&mut self, count: u32) -> Result<(), Refusal> {
        self.figures.items = self.figures.items.saturating_add(u64::from(count));
        self.figures.class(self.limits).map(|_| ())
    }

    /// Items as written, and as each instance of the component makes them.
    fn made(&mut self, count: u32) -> Result<(), Refusal> {
        if let Some(scope) = self.scope() {
            scope.items(u64::from(count));
        }
        self.items(count)
    }
}

impl Module {
    fn import(&mut self, ty: &TypeRef) {
        match ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                self.types.functions.push(*index);
                self.imported += 1;
            }
            TypeRef::Memory(_) => self.memories.push(0),
            _ => {}
        }
    }

    fn memory(&mut self, bytes: u64) {
        self.made.memories += 1;
        self.made.memory_bytes = self.made.memory_bytes.saturating_add(bytes);
        self.memories.push(bytes);
    }

    /// Data goes to the place that this operator gives; where it gives none, anywhere.
    fn fill(&mut self, memory: u32, place: Option<Operator<'_>>, len: u64) {
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

    fn image_bytes(&self) -> u64 {
        let image = |(filled, bytes): (&Option<(u64, u64)>, &u64)| {
            filled.map_or(0, |(first, last)| last.saturating_sub(first).min(*bytes))
        };
        self.filled.iter().zip(&self.memories).map(image).fold(0, u64::saturating_add)
    }
}

fn scope_of(frame: &mut Frame) -> Option<&mut Scope> {
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

/// The types within a component type.
fn within(ty: &ComponentType<'_>, depth: u64) -> Result<u64, Refusal> {
    if depth > TYPE_DEPTH_MAX {
        let message = format!("component types within one another, more than {TYPE_DEPTH_MAX} deep");
        return Err(Refusal::TooComplex { message, limit: Some(TYPE_DEPTH_MAX) });
    }
    let mut count = 0_u64;
    match ty {
        ComponentType::Component(declared) => {
            for declaration in declared {
                count += 1;
                match declaration {
                    ComponentTypeDeclaration::Type(ty) => {
                        count = count.saturating_add(within(ty, depth + 1)?)
                    }
                    ComponentTypeDeclaration::CoreType(ty) => count = count.saturating_add(within_core(ty)),
                    _ => {}
                }
            }
        }
        ComponentType::Instance(declared) => {
            for declaration in declared {
                count += 1;
                match declaration {
                    InstanceTypeDeclaration::Type(ty) => count = count.saturating_add(within(ty, depth + 1)?),
                    InstanceTypeDeclaration::CoreType(ty) => count = count.saturating_add(within_core(ty)),
                    _ => {}
                }
            }
        }
        ComponentType::Func(function) => imports::check_function(function)?,
        _ => {}
    }
    Ok(count)
}

/// The declarations within a core type of a component.
fn within_core(ty: &CoreType<'_>) -> u64 {
    match ty {
        CoreType::Module(declared) => declared.len() as u64,
        CoreType::Rec(group) => group.types().len() as u64,
    }
}
