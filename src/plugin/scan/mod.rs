//! Checks uploaded bytes before any compiler sees them: whether they are WebAssembly at all, whether they
//! import only what is provided, and whether they are small enough to compile quickly. The class follows from
//! the result.
//!
//! Whatever multiplies (instances of instances, targets times values) is counted by its product, in one pass
//! whose time and memory are proportional to the number of bytes.
//!
//! Must not know: what the code does.

mod component_size;
mod core_module;
mod cost_estimate;
pub(crate) mod imports;
mod instance_counts;
mod scanner;

use serde_json::{Map, Value};
use wasmparser::{BinaryReaderError, Chunk, Parser, Payload, SectionLimited};

use crate::plugin::component_info::ComponentInfo;
use crate::plugin::error::Refusal;
use crate::plugin::limits::Config;
use crate::plugin::scan::scanner::Scanner;

/// What the scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanResult {
    /// A component rather than a core module.
    pub is_component: bool,
    /// What is stored beside the compiled code.
    pub about: ComponentInfo,
    /// Estimated work to compile it, in about microseconds.
    pub work: u64,
}

/// The custom section with the manifest, in the component or in a core module within it: a JSON object that
/// may have the member `default_config`.
const MANIFEST_SECTION: &str = "killstream:manifest";
/// The longest manifest, bytes.
const MANIFEST_MAX_BYTES: usize = 64 << 10;
/// The largest section of types, bytes; toolchains write about ten thousand bytes.
const TYPES_MAX_BYTES: u64 = 2 << 20;

/// Scans an upload.
///
/// # Errors
/// `TooLarge`; `NotWasm` if it is something else or truncated; `UnknownImport` and `MissingExport` if it
/// imports or exports something else; `TooComplex` and `Instantiate` if it exceeds a limit of its class.
pub fn scan(bytes: &[u8], limits: &Config) -> Result<ScanResult, Refusal> {
    let (max, setting) = limits.upload_max();
    if bytes.len() > max {
        return Err(Refusal::TooLarge { bytes: bytes.len(), max, setting: setting.to_owned() });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(Refusal::NotWasm(describe_first_bytes(bytes)));
    }
    imports::check_imports(bytes)?;
    let mut about = ComponentInfo::default();
    let mut custom = |name: &str, data: &[u8]| {
        if name == MANIFEST_SECTION {
            let config = default_config(data, limits)?;
            about.default_config = config.or(about.default_config.take());
        }
        Ok(())
    };
    let size = Scanner::new(limits, bytes.len()).scan(bytes, &mut custom)?;
    imports::check_exports(bytes)?;
    about.class = size.class(limits)?;
    about.core_instances = saturate_u32(size.core_instances);
    about.memories = saturate_u32(size.memories);
    about.tables = saturate_u32(size.tables);
    about.heap_bytes = size.heap_bytes();
    about.image_bytes = size.image_bytes;
    Ok(ScanResult { is_component: Parser::is_component(bytes), about, work: size.work })
}

fn saturate_u32(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Visits the sections of the outermost component or module, but not what is inside the components, modules
/// and functions within it.
///
/// # Errors
/// `NotWasm`, or what `visit` refuses.
pub fn visit_outermost<'b>(
    bytes: &'b [u8],
    mut visit: impl FnMut(Payload<'b>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    loop {
        let chunk = parser.parse(rest, true).map_err(|error| refusal_from(&error, bytes.len()))?;
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
        visit(payload)?;
    }
}

/// The default configuration that a manifest names, as the text that the plugin gets.
fn default_config(manifest: &[u8], limits: &Config) -> Result<Option<String>, Refusal> {
    let refusal = |why: String, limit: Option<usize>| Refusal::Configure {
        message: format!("the section `{MANIFEST_SECTION}` {why}"),
        limit: limit.map(|limit| limit as u64),
    };
    if manifest.len() > MANIFEST_MAX_BYTES {
        let why = format!("has {} bytes; at most {MANIFEST_MAX_BYTES}", manifest.len());
        return Err(refusal(why, Some(MANIFEST_MAX_BYTES)));
    }
    let manifest: Map<String, Value> = serde_json::from_slice(manifest)
        .map_err(|error| refusal(format!("is not a JSON object: {error}"), None))?;
    let Some(config) = manifest.get("default_config") else { return Ok(None) };
    let (text, max) = (config.to_string(), limits.config_bytes);
    if text.len() > max {
        let why =
            format!("names a configuration of {} bytes; at most {max} (plugin.config_bytes)", text.len());
        return Err(refusal(why, Some(max)));
    }
    Ok(Some(text))
}

/// Limits the size of a section of types. Types are read one by one, but each may be as large as the section,
/// and takes many times its bytes in memory.
///
/// # Errors
/// `TooComplex` if it is larger than the sections of any toolchain.
pub fn check_type_section<T>(section: &SectionLimited<'_, T>) -> Result<(), Refusal> {
    let range = section.range();
    let bytes = range.end.saturating_sub(range.start);
    if bytes > TYPES_MAX_BYTES {
        let message = format!("types of {bytes} bytes in one section; at most {TYPES_MAX_BYTES}");
        return Err(Refusal::TooComplex { message, limit: Some(TYPES_MAX_BYTES) });
    }
    Ok(())
}

/// The refusal for a parser error in an upload of `len` bytes.
#[must_use]
pub fn refusal_from(error: &BinaryReaderError, len: usize) -> Refusal {
    if is_nested_too_deep(error) {
        let message = format!("component types nested too deep to be read ({})", error.message());
        return Refusal::TooComplex { message, limit: None };
    }
    if is_unexpected_end(error) || error.offset() >= len as u64 {
        return Refusal::NotWasm(format!("it is cut off after {len} bytes ({})", error.message()));
    }
    Refusal::NotWasm(format!("{} at byte {}", error.message(), error.offset()))
}

/// wasmparser does not expose the kind of an error. Tests of truncated and of too deeply nested uploads pin
/// the texts.
fn is_nested_too_deep(error: &BinaryReaderError) -> bool {
    error.message().contains("nesting is too deep")
}

/// See [`is_nested_too_deep`].
fn is_unexpected_end(error: &BinaryReaderError) -> bool {
    error.message().contains("unexpected end")
}

fn describe_first_bytes(bytes: &[u8]) -> String {
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
