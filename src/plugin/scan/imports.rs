//! Checks the names an upload imports and exports before any compiler sees it. Whether the server provides
//! all of it is known within microseconds, and the message can name the tool that made the upload.
//!
//! Must not know: how anything is provided.

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternalKind, ComponentFuncType,
    ComponentOuterAliasKind, ComponentType, ComponentTypeRef, InstanceTypeDeclaration, Parser, Payload,
    TypeBounds,
};

use crate::plugin::error::Refusal;
use crate::plugin::scan::{check_type_section, refusal_from, visit_outermost};

/// The version of the contract, as in `wit/`.
pub const VERSION: &str = "1.0.0-rc.1";
/// What a plugin must export.
pub const GUEST: &str = "killstream:plugin/guest@1.0.0-rc.1";

/// The contract's package.
const PACKAGE: &str = "killstream:plugin/";
/// The interfaces of the contract that plugins may import, with their functions, as in `wit/`.
pub const PROVIDED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("killmail", &["attackers", "items", "values", "position", "labels", "column", "involves", "json"]),
    ("history", &["count", "count-all", "summarize", "last-seen"]),
    (
        "universe",
        &["name", "group", "category", "constellation", "region", "security", "jumps", "light-years"],
    ),
    ("log", &["log"]),
];
/// Advice for something that is not a plugin.
const HOW_TO_BUILD: &str = "in Rust: `crate-type = [\"cdylib\"]`, `killstream_plugin::export!(YourType)`, and \
     `cargo build --release --target wasm32-wasip2`; in other languages, build a component for the world `killstream:plugin/plugin`";
/// The section in which toolchains describe the world a core module was made for.
const WORLD_SECTION: &str = "component-type";
const NO_WORLD: &str = "this is a core module without a `component-type` section, so it does not export";
/// Advice about the async ABI, and about WASI 0.3, which needs it.
const BUILD_SYNC: &str = "build for WASI 0.2 and without async (componentize-qjs: build with `--sync`)";

/// What an imported instance contains.
#[derive(Debug, Default)]
struct ImportedInstance<'b> {
    functions: Vec<&'b str>,
    /// It also contains a resource or another instance, so that the function names alone do not decide.
    has_more: bool,
}

/// The names of the outermost component or module.
#[derive(Debug, Default)]
struct Names<'b> {
    /// For each type index, its content if it is the type of an instance.
    types: Vec<Option<ImportedInstance<'b>>>,
    exports: Vec<&'b str>,
    /// Imports of a component that nobody provides, with advice.
    unknown: Vec<(&'b str, String)>,
    /// The first import of a core module that no component can provide, as module and name.
    core_import: Option<(&'b str, &'b str)>,
    has_world: bool,
}

/// Checks what a component or core module imports.
///
/// # Errors
/// `UnknownImport` with advice, `NotWasm`.
pub fn check_imports(bytes: &[u8]) -> Result<(), Refusal> {
    let names = Names::read(bytes)?;
    if let Some((_, what)) = names.unknown.first() {
        let unknown: Vec<&str> = names.unknown.iter().map(|(name, _)| *name).collect();
        return Err(Refusal::UnknownImport(format!(
            "the component imports {}; {what}",
            list_names(&unknown)
        )));
    }
    let Some((module, name)) = names.core_import else { return Ok(()) };
    let origin = if module == "env" {
        ", which is not provided to plugins"
    } else {
        " of WASI preview 1, which is not provided"
    };
    Err(Refusal::UnknownImport(format!(
        "the core module imports `{module}.{name}`{origin}; build with `--target wasm32-wasip2`"
    )))
}

/// Checks what a component exports, or whether a core module says it was made for a world that exports it.
///
/// # Errors
/// `MissingExport` with advice, `NotWasm`.
pub fn check_exports(bytes: &[u8]) -> Result<(), Refusal> {
    let names = Names::read(bytes)?;
    if !Parser::is_component(bytes) {
        return if names.has_world {
            Ok(())
        } else {
            Err(Refusal::MissingExport(format!("{NO_WORLD} `{GUEST}`; {HOW_TO_BUILD}")))
        };
    }
    if names.exports.contains(&GUEST) {
        return Ok(());
    }
    let found = match names.exports.as_slice() {
        [] => "it exports nothing, as a library without `export!` does".to_owned(),
        some => format!("it exports {}", list_names(some)),
    };
    Err(Refusal::MissingExport(format!("the component does not export `{GUEST}`; {found}; {HOW_TO_BUILD}")))
}

/// Checks a canonical function: those of the async ABI are not provided.
///
/// # Errors
/// `UnknownImport` with advice.
pub fn check_conversion(function: &CanonicalFunction) -> Result<(), Refusal> {
    let asynchronous = |options: &[CanonicalOption]| {
        options.iter().any(|option| matches!(option, CanonicalOption::Async | CanonicalOption::Callback(_)))
    };
    let name = match function {
        CanonicalFunction::Lift { options, .. } if asynchronous(options) => "an asynchronous `canon lift`",
        CanonicalFunction::Lower { options, .. } if asynchronous(options) => "an asynchronous `canon lower`",
        CanonicalFunction::Lift { .. }
        | CanonicalFunction::Lower { .. }
        | CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => return Ok(()),
        CanonicalFunction::TaskCancel => "`task.cancel`",
        CanonicalFunction::TaskReturn { .. } => "`task.return`",
        CanonicalFunction::ContextGet { .. } => "`context.get`",
        CanonicalFunction::ContextSet { .. } => "`context.set`",
        CanonicalFunction::SubtaskCancel { .. } => "`subtask.cancel`",
        CanonicalFunction::SubtaskDrop => "`subtask.drop`",
        CanonicalFunction::WaitableSetNew
        | CanonicalFunction::WaitableSetWait { .. }
        | CanonicalFunction::WaitableSetPoll { .. }
        | CanonicalFunction::WaitableSetDrop
        | CanonicalFunction::WaitableJoin => "`waitable-set`",
        _ => "streams, futures or threads",
    };
    Err(Refusal::UnknownImport(format!(
        "the component uses {name} of the async ABI, which is not provided; {BUILD_SYNC}"
    )))
}

/// Checks the type of a function.
///
/// # Errors
/// `UnknownImport` with advice, if it is async.
pub fn check_function_type(function: &ComponentFuncType<'_>) -> Result<(), Refusal> {
    if function.async_ {
        return Err(Refusal::UnknownImport(format!(
            "the component has an `async` function, and the async ABI is not provided; {BUILD_SYNC}"
        )));
    }
    Ok(())
}

/// The interface of WASI 0.2 that a name stands for, such as `io/streams`; `None` if it is something else.
#[must_use]
pub fn wasi_interface(name: &str) -> Option<&str> {
    let (interface, version) = name.strip_prefix("wasi:")?.split_once('@')?;
    let patch = version.strip_prefix("0.2.")?;
    patch.bytes().all(|digit| digit.is_ascii_digit()).then_some(interface)
}

impl<'b> Names<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, Refusal> {
        let mut names = Self::default();
        visit_outermost(bytes, |payload| names.section(payload, bytes.len()))?;
        Ok(names)
    }

    fn section(&mut self, payload: Payload<'b>, len: usize) -> Result<(), Refusal> {
        let unreadable = |error| refusal_from(&error, len);
        match payload {
            Payload::ComponentTypeSection(section) => {
                check_type_section(&section)?;
                for ty in section {
                    self.types.push(imported_instance(&ty.map_err(unreadable)?));
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    let is_type = matches!(
                        alias.map_err(unreadable)?,
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Type, .. }
                            | ComponentAlias::Outer { kind: ComponentOuterAliasKind::Type, .. }
                    );
                    if is_type {
                        self.types.push(None);
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import.map_err(unreadable)?;
                    self.import(import.name.name, &import.ty);
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export.map_err(unreadable)?;
                    self.exports.push(export.name.name);
                    if export.kind == ComponentExternalKind::Type {
                        self.types.push(None);
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(unreadable)?;
                    if self.core_import.is_none()
                        && (import.module.starts_with("wasi_") || import.module == "env")
                    {
                        self.core_import = Some((import.module, import.name));
                    }
                }
            }
            Payload::CustomSection(section) => self.has_world |= section.name().starts_with(WORLD_SECTION),
            _ => {}
        }
        Ok(())
    }

    fn import(&mut self, name: &'b str, ty: &ComponentTypeRef) {
        let nothing = ImportedInstance::default();
        let imported = match ty {
            ComponentTypeRef::Type(_) => {
                self.types.push(None);
                return;
            }
            ComponentTypeRef::Instance(index) => {
                self.types.get(*index as usize).and_then(Option::as_ref).unwrap_or(&nothing)
            }
            _ => return self.unknown.push((name, advice(name))),
        };
        if let Some(rest) = name.strip_prefix(PACKAGE) {
            if let Some(what) = missing_in_contract(rest, imported) {
                self.unknown.push((name, what));
            }
        } else if wasi_interface(name).is_none() && (imported.has_more || !imported.functions.is_empty()) {
            self.unknown.push((name, advice(name)));
        }
    }
}

fn imported_instance<'b>(ty: &ComponentType<'b>) -> Option<ImportedInstance<'b>> {
    let ComponentType::Instance(declared) = ty else { return None };
    let mut imported = ImportedInstance::default();
    for declaration in declared {
        let InstanceTypeDeclaration::Export { name, ty } = declaration else { continue };
        match ty {
            ComponentTypeRef::Func(_) => imported.functions.push(name.name),
            ComponentTypeRef::Type(TypeBounds::Eq(_)) => {}
            _ => imported.has_more = true,
        }
    }
    Some(imported)
}

/// What the server's version of the contract lacks, if anything.
fn missing_in_contract(rest: &str, imported: &ImportedInstance<'_>) -> Option<String> {
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    let Some((_, functions)) = PROVIDED.iter().find(|(name, _)| *name == interface) else {
        return Some(format!(
            "this server's version of the contract, {VERSION}, has no interface `{interface}`"
        ));
    };
    if !is_compatible(version) {
        return Some(format!(
            "this server has version {VERSION} of the contract; build against its `wit/plugin.wit`"
        ));
    }
    let unknown = imported.functions.iter().find(|name| !functions.contains(*name));
    unknown.map(|name| {
        format!(
            "this server's version of the contract, {VERSION}, has no function `{name}` in this interface"
        )
    })
}

/// Whether something made for this version of the contract runs with the server's. A release candidate is
/// only compatible with itself.
fn is_compatible(version: &str) -> bool {
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    let is_final = |version: &str| !version.contains('-');
    version == VERSION || (is_final(version) && is_final(VERSION) && major(version) == major(VERSION))
}

/// Advice about an import that nobody provides.
fn advice(name: &str) -> String {
    let version = name.split_once('@').map_or("", |(_, version)| version);
    if name.starts_with("wasi:") && version.starts_with("0.3") {
        return format!("WASI 0.3 is not provided, 0.2 is; {BUILD_SYNC}");
    }
    if name.starts_with("wasi:") {
        return "only WASI 0.2 is provided; build for it (in Rust: `--target wasm32-wasip2`)".to_owned();
    }
    format!(
        "it is not provided; a plugin may import the interfaces of `{PACKAGE}` and of WASI 0.2, so remove it from the world it is built for"
    )
}

fn list_names(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
