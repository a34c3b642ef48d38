//! A look at uploaded bytes before any compiler sees them: are they WebAssembly at all, do they ask only for
//! what is provided, and are they of a size that compiles quickly. The class follows from what is found.
//!
//! Whatever multiplies (instances of instances, targets times values) is counted by what it multiplies to, in
//! one pass that takes time and memory in proportion to the bytes.
//!
//! Must not know: what the code does.

mod census;
mod cost;
mod figures;
pub mod imports;
mod made;

use serde_json::{Map, Value};
use wasmparser::{BinaryReaderError, Chunk, Parser, Payload, SectionLimited};

use crate::plugin::component_info::ComponentInfo;
use crate::plugin::error::Refusal;
use crate::plugin::limits::Config;
use crate::plugin::scan::census::Census;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// A component, not a core module.
    pub is_component: bool,
    /// What is to be kept beside its code.
    pub about: ComponentInfo,
    /// Estimated work of compiling it, about microseconds.
    pub work: u64,
}

/// The custom section with the manifest, in the component or in a core module within: a JSON object,
/// `default_config` among its members.
const MANIFEST_SECTION: &str = "killstream:manifest";
/// The longest manifest, bytes.
const MANIFEST_MAX_BYTES: usize = 64 << 10;
/// The largest section of types, bytes; toolchains make some ten thousand bytes.
const TYPES_MAX_BYTES: u64 = 2 << 20;

/// Reads the bytes through.
///
/// # Errors
/// `TooLarge`, `NotWasm` where they are something else or end too early, `UnknownImport` and `MissingExport`
/// where they ask for or give something else, `TooComplex` and `Instantiate` where a limit of the class is
/// exceeded.
pub fn scan(bytes: &[u8], limits: &Config) -> Result<Seen, Refusal> {
    let (max, setting) = limits.upload_max();
    if bytes.len() > max {
        return Err(Refusal::TooLarge { bytes: bytes.len(), max, setting: setting.to_owned() });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(Refusal::NotWasm(first_words(bytes)));
    }
    imports::check_imports(bytes)?;
    let mut about = ComponentInfo::default();
    let mut custom = |name: &str, data: &[u8]| {
        if name == MANIFEST_SECTION {
            let named = default_config(data, limits)?;
            about.default_config = named.or(about.default_config.take());
        }
        Ok(())
    };
    let figures = Census::new(limits, bytes.len()).take(bytes, &mut custom)?;
    imports::check_exports(bytes)?;
    about.class = figures.class(limits)?;
    about.core_instances = few(figures.core_instances);
    about.memories = few(figures.memories);
    about.tables = few(figures.tables);
    about.heap_bytes = figures.heap_bytes();
    about.image_bytes = figures.image_bytes;
    Ok(Seen { is_component: Parser::is_component(bytes), about, work: figures.work })
}

fn few(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The sections of the outermost component or module, without what is in the components, modules and
/// functions within.
///
/// # Errors
/// `NotWasm`, or what `take` refuses.
pub fn outermost<'b>(
    bytes: &'b [u8],
    mut take: impl FnMut(Payload<'b>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    loop {
        let chunk = parser.parse(rest, true).map_err(|error| malformed(&error, bytes.len()))?;
        let Chunk::Parsed { consumed, payload } = chunk else { return Ok(()) };
        rest = rest.get(consumed..).unwrap_or_default();
        let skipped = match &payload {
            Payload::ModuleSection { unchecked_range: within, .. }
            | Payload::ComponentSection { unchecked_range: within, .. } => {
                within.end.saturating_sub(within.start)
            }
            Payload::CodeSectionStart { size, .. } => {
                parser.skip_section();
                u64::from(*size)
            }
            Payload::End(_) => return Ok(()),
            _ => 0,
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        rest = rest
            .get(skipped..)
            .ok_or_else(|| Refusal::NotWasm(format!("it is cut off after {} bytes", bytes.len())))?;
        take(payload)?;
    }
}

/// The configuration a manifest names, as the text a plugin gets.
fn default_config(manifest: &[u8], limits: &Config) -> Result<Option<String>, Refusal> {
    let wrong = |why: String| Refusal::Configure(format!("the section `{MANIFEST_SECTION}` {why}"));
    if manifest.len() > MANIFEST_MAX_BYTES {
        return Err(wrong(format!("has {} bytes; at most {MANIFEST_MAX_BYTES}", manifest.len())));
    }
    let manifest: Map<String, Value> =
        serde_json::from_slice(manifest).map_err(|error| wrong(format!("is no JSON object: {error}")))?;
    let Some(config) = manifest.get("default_config") else { return Ok(None) };
    let text = config.to_string();
    if text.len() > limits.config_bytes {
        return Err(wrong(format!(
            "names a configuration of {} bytes; at most {} (plugin.config_bytes)",
            text.len(),
            limits.config_bytes
        )));
    }
    Ok(Some(text))
}

/// The types of a section are read one by one, but each may be as large as the section and takes many times
/// its bytes.
///
/// # Errors
/// `TooComplex`, where it is larger than those of any toolchain.
pub fn check_types<T>(section: &SectionLimited<'_, T>) -> Result<(), Refusal> {
    let range = section.range();
    let bytes = range.end.saturating_sub(range.start);
    if bytes > TYPES_MAX_BYTES {
        let message = format!("types of {bytes} bytes in one section; at most {TYPES_MAX_BYTES}");
        return Err(Refusal::TooComplex { message, limit: Some(TYPES_MAX_BYTES) });
    }
    Ok(())
}

/// What a reader's error means for an upload of so many bytes.
#[must_use]
pub fn malformed(error: &BinaryReaderError, len: usize) -> Refusal {
    if error.message().contains("nesting is too deep") {
        let message =
            format!("component types within one another, too deep to be read ({})", error.message());
        return Refusal::TooComplex { message, limit: None };
    }
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
        Ok(text) if text.trim_start().starts_with('(') => {
            "it is WebAssembly text; encode it first (wasm-tools parse)".to_owned()
        }
        Ok(_) => "it is text".to_owned(),
        Err(_) => "it does not begin with the bytes 00 61 73 6d".to_owned(),
    }
}
