//! A look at uploaded bytes before any compiler sees them: is it WebAssembly at all, and is it of a size that compiles quickly.
//!
//! Must not know: what the code does.

use serde_json::{Map, Value};
use wasmparser::{BinaryReaderError, Encoding, FunctionBody, Operator, Parser, Payload};

use crate::plugin::component::About;
use crate::plugin::error::Refusal;
use crate::plugin::limits::Config;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// A component, not a core module.
    pub is_component: bool,
    /// A core module that says which world it was made for.
    pub has_world: bool,
    /// What is to be kept beside its code.
    pub about: About,
}

/// The custom section with the manifest, in the component or in a core module within: a JSON object, `default_config` among its members.
const MANIFEST_SECTION: &str = "killstream:manifest";
/// The longest manifest, bytes.
const MANIFEST_MAX_BYTES: usize = 64 << 10;

/// Nesting of components and modules; toolchains use three levels.
const DEPTH_MAX: usize = 16;
/// Items of one kind in all (types, instances, imports): a component of hundreds of these is not made by any toolchain.
const ITEMS_MAX: u32 = 100_000;

#[derive(Default)]
struct Tally {
    functions: usize,
    instances: u32,
    items: u32,
}

/// Reads the bytes through.
///
/// # Errors
/// `TooLarge`, `NotWasm` where they are something else or end too early, `TooComplex` where a limit is exceeded.
pub fn scan(bytes: &[u8], limits: &Config) -> Result<Seen, Refusal> {
    let (max, setting) = limits.upload_max();
    if bytes.len() > max {
        return Err(Refusal::TooLarge { bytes: bytes.len(), max, setting: setting.to_owned() });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(Refusal::NotWasm(first_words(bytes)));
    }
    let mut seen = Seen { is_component: false, has_world: false, about: About::default() };
    let mut tally = Tally::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| malformed(&error, bytes.len()))?;
        match payload {
            Payload::Version { encoding, .. } => {
                if depth == 0 {
                    seen.is_component = encoding == Encoding::Component;
                }
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Refusal::TooComplex(format!("components nested {depth} deep; at most {DEPTH_MAX}")));
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 1 && section.name().starts_with("component-type") => seen.has_world = true,
            Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                let named = default_config(section.data(), limits)?;
                seen.about.default_config = named.or(seen.about.default_config);
            }
            other => count(&other, &mut tally, limits, bytes.len())?,
        }
    }
    if depth != 0 {
        return Err(Refusal::NotWasm(format!("it is cut off after {} bytes", bytes.len())));
    }
    Ok(seen)
}

/// The configuration a manifest names, as the text a plugin gets.
fn default_config(manifest: &[u8], limits: &Config) -> Result<Option<String>, Refusal> {
    let wrong = |why: String| Refusal::Configure(format!("the section `{MANIFEST_SECTION}` {why}"));
    if manifest.len() > MANIFEST_MAX_BYTES {
        return Err(wrong(format!("has {} bytes; at most {MANIFEST_MAX_BYTES}", manifest.len())));
    }
    let manifest: Map<String, Value> = serde_json::from_slice(manifest).map_err(|error| wrong(format!("is no JSON object: {error}")))?;
    let Some(config) = manifest.get("default_config") else { return Ok(None) };
    let text = config.to_string();
    if text.len() > limits.config_bytes {
        return Err(wrong(format!("names a configuration of {} bytes; at most {} (plugin.config_bytes)", text.len(), limits.config_bytes)));
    }
    Ok(Some(text))
}

fn count(payload: &Payload<'_>, tally: &mut Tally, limits: &Config, len: usize) -> Result<(), Refusal> {
    match payload {
        Payload::CodeSectionStart { count, .. } => {
            tally.functions = tally.functions.saturating_add(*count as usize);
            if tally.functions > limits.functions_max {
                return Err(Refusal::TooComplex(format!(
                    "{} functions; at most {} (plugin.functions_max)",
                    tally.functions, limits.functions_max
                )));
            }
        }
        Payload::CodeSectionEntry(body) => check_body(body, limits, len)?,
        Payload::InstanceSection(section) => add(&mut tally.instances, section.count(), limits)?,
        Payload::ComponentInstanceSection(section) => add(&mut tally.items, section.count(), limits)?,
        Payload::ComponentTypeSection(section) => add_items(tally, section.count())?,
        Payload::CoreTypeSection(section) => add_items(tally, section.count())?,
        Payload::ComponentAliasSection(section) => add_items(tally, section.count())?,
        Payload::ComponentCanonicalSection(section) => add_items(tally, section.count())?,
        _ => {}
    }
    Ok(())
}

fn add(instances: &mut u32, count: u32, limits: &Config) -> Result<(), Refusal> {
    *instances = instances.saturating_add(count);
    // Every instance of a core module has an instance of its imports beside it.
    let max = u32::try_from(limits.core_instances_max).unwrap_or(u32::MAX).saturating_mul(2);
    if *instances > max {
        return Err(Refusal::TooComplex(format!("{instances} core instances; at most {max} (plugin.core_instances_max)")));
    }
    Ok(())
}

fn add_items(tally: &mut Tally, count: u32) -> Result<(), Refusal> {
    tally.items = tally.items.saturating_add(count);
    if tally.items > ITEMS_MAX {
        return Err(Refusal::TooComplex(format!("{} types, aliases and conversions; at most {ITEMS_MAX}", tally.items)));
    }
    Ok(())
}

fn check_body(body: &FunctionBody<'_>, limits: &Config, len: usize) -> Result<(), Refusal> {
    let range = body.range();
    let size = range.end.saturating_sub(range.start);
    if size > limits.body_bytes_max as u64 {
        return Err(Refusal::TooComplex(format!("a function of {size} bytes; at most {} (plugin.body_bytes_max)", limits.body_bytes_max)));
    }
    let mut operators = body.get_operators_reader().map_err(|error| malformed(&error, len))?;
    while !operators.eof() {
        let Operator::BrTable { targets } = operators.read().map_err(|error| malformed(&error, len))? else { continue };
        if targets.len() > limits.br_table_targets_max {
            return Err(Refusal::TooComplex(format!(
                "a br_table of {} targets; at most {} (plugin.br_table_targets_max)",
                targets.len(),
                limits.br_table_targets_max
            )));
        }
    }
    Ok(())
}

/// The first import of WASI preview 1 in a core module.
#[must_use]
pub fn preview1_import(module: &[u8]) -> Option<String> {
    for payload in Parser::new(0).parse_all(module).map_while(Result::ok) {
        let Payload::ImportSection(section) = payload else { continue };
        for import in section.into_imports().map_while(Result::ok) {
            if import.module.starts_with("wasi_") {
                return Some(format!("{}.{}", import.module, import.name));
            }
        }
    }
    None
}

fn malformed(error: &BinaryReaderError, len: usize) -> Refusal {
    if error.message().contains("unexpected end") || error.offset() >= len as u64 {
        return Refusal::NotWasm(format!("it is cut off after {len} bytes ({})", error.message()));
    }
    Refusal::NotWasm(format!("{} at byte {}", error.message(), error.offset()))
}

fn first_words(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "the upload is empty".to_owned();
    }
    match std::str::from_utf8(&bytes[..bytes.len().min(512)]) {
        Ok(text) if text.trim_start().starts_with('(') => "it is WebAssembly text; encode it first (wasm-tools parse)".to_owned(),
        Ok(_) => "it is text".to_owned(),
        Err(_) => "it does not begin with the bytes 00 61 73 6d".to_owned(),
    }
}
