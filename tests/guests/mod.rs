//! Test guests as text: small core modules into which the contract's world is written, as `wit-bindgen` would
//! do.
//!
//! Must not know: what tests do with them.

use wit_component::StringEncoding;
use wit_parser::Resolve;

/// The contract, as published.
const CONTRACT: &str = include_str!("../../wit/plugin.wit");

/// The parts of a guest in WebAssembly text; `configure` and `evaluate` are function bodies.
pub struct Text<'a> {
    /// Imports and definitions of the module.
    pub head: &'a str,
    /// `configure`: gets pointer `$config` and `$config_len`, and returns the address of its answer.
    pub configure: &'a str,
    /// `evaluate`: gets `$id`, `$time`, `$system` .. `$traits`, and returns the address of its answer.
    pub evaluate: &'a str,
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self { head: "", configure: TAKE_ALL, evaluate: KEEP }
    }
}

/// An answer of `configure`: every killmail is of interest.
pub const TAKE_ALL: &str = "(i32.const 0)";
/// An answer of `evaluate`: drop.
pub const DROP: &str = "(i32.const 0)";
/// An answer of `evaluate`: keep.
pub const KEEP: &str = "(i32.const 64)";

/// A guest with this `evaluate` and the default `configure`.
pub fn evaluating(evaluate: &str) -> Vec<u8> {
    guest(&Text { evaluate, ..Text::default() })
}

/// A guest whose `evaluate` keeps with this JSON.
pub fn keep_with(json: &str) -> Vec<u8> {
    let text: String = json.bytes().map(|b| format!("\\{b:02x}")).collect();
    // `ok`, `keep-with`, pointer 1024, length.
    let head = format!(
        r#"(data (i32.const 128) "\00\00\00\00\02\00\00\00\00\04\00\00{}") (data (i32.const 1024) "{text}")"#,
        bytes(u32::try_from(json.len()).expect("a short text"))
    );
    guest(&Text { head: &head, evaluate: "(i32.const 128)", ..Text::default() })
}

/// A core module for the world `plugin`.
pub fn guest(text: &Text<'_>) -> Vec<u8> {
    with_world(&module(text))
}

/// The module's text. Its memory has an `ok(none)` or `ok(drop)` at 0 and an `ok(keep)` at 64. The host
/// writes from 8,192 on.
pub fn module(Text { head, configure, evaluate }: &Text<'_>) -> String {
    let (imports, rest): (Vec<&str>, Vec<&str>) =
        head.lines().partition(|line| line.trim_start().starts_with("(import"));
    let (imports, rest) = (imports.join("\n"), rest.join("\n"));
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 4)
            (global $top (mut i32) (i32.const 8192))
            (data (i32.const 64) "\00\00\00\00\01")
            {rest}
            (func (export "cabi_realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (global.set $top (i32.add (local.get $at) (local.get $len)))
                (if (i32.gt_u (global.get $top) (i32.const 131072)) (then
                    (local.set $at (i32.const 8192))
                    (global.set $top (i32.add (local.get $at) (local.get $len)))))
                (local.get $at))
            (func (export "killstream:plugin/guest@1.0.0-rc.1#configure")
                (param $config i32) (param $config_len i32) (result i32)
                {configure})
            (func (export "killstream:plugin/guest@1.0.0-rc.1#evaluate")
                (param $id i64) (param $time i64) (param $system i32) (param $region i32)
                (param $victim_character i32) (param $victim_corporation i32) (param $victim_alliance i32)
                (param $victim_ship i32) (param $victim_ship_group i32)
                (param $final_character i32) (param $final_corporation i32) (param $final_alliance i32)
                (param $attackers i32) (param $points i32) (param $value f64) (param $traits i32) (result i32)
                {evaluate})
        )"#
    )
}

/// Encodes a module's text and writes the contract's world into it.
pub fn with_world(module: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(module).expect("the text is a module");
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", CONTRACT).expect("the contract is WIT");
    let world = resolve.select_world(&[package], Some("plugin")).expect("the contract has the world");
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8, false)
        .expect("the world fits");
    bytes
}

/// Adds a manifest to a module.
pub fn with_manifest(mut module: Vec<u8>, manifest: &str) -> Vec<u8> {
    let name = "killstream:manifest";
    let mut section = vec![u8::try_from(name.len()).expect("a short name")];
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(manifest.as_bytes());
    module.push(0);
    let mut rest = section.len();
    while rest >= 0x80 {
        module.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    module.push(rest as u8);
    module.extend(section);
    module
}

/// A number as text of a data segment.
pub fn bytes(number: u32) -> String {
    number.to_le_bytes().iter().map(|b| format!("\\{b:02x}")).collect()
}

/// A world with the interfaces that language runtimes write their errors to.
const WITH_STDIO: &str = "
    package test:stdio;
    world guest {
        include killstream:plugin/plugin@1.0.0-rc.1;
        import wasi:cli/stdout@0.2.3;
        import wasi:cli/stderr@0.2.3;
        import wasi:io/streams@0.2.3;
    }
    package wasi:io@0.2.3 {
        interface error { resource error; }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
        }
    }
    package wasi:cli@0.2.3 {
        interface stdout { use wasi:io/streams@0.2.3.{output-stream}; get-stdout: func() -> output-stream; }
        interface stderr { use wasi:io/streams@0.2.3.{output-stream}; get-stderr: func() -> output-stream; }
    }";
const STDIO: &str = r#"(import "wasi:cli/stdout@0.2.3" "get-stdout" (func $stdout (result i32)))
    (import "wasi:cli/stderr@0.2.3" "get-stderr" (func $stderr (result i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
    (import "wasi:io/streams@0.2.3" "[resource-drop]output-stream" (func $close (param i32)))"#;

/// A guest with functions `$out` and `$err` that write a text of at most 2,000 bytes to stdout and one of at
/// most 4,000 to stderr.
pub fn writing(out: &str, err: &str, text: &Text<'_>) -> Vec<u8> {
    let data = |text: &str| text.bytes().map(|b| format!("\\{b:02x}")).collect::<String>();
    let function = |name: &str, stream: &str, at: u32, length: usize| {
        format!(
            "(func ${name} (local $stream i32) (local.set $stream (call ${stream}))
                (call $write (local.get $stream) (i32.const {at}) (i32.const {length}) (i32.const 256))
                (call $close (local.get $stream)))"
        )
    };
    let (say_out, say_err) =
        (function("out", "stdout", 1024, out.len()), function("err", "stderr", 4096, err.len()));
    let (out, err, head) = (data(out), data(err), text.head);
    let head = format!(
        r#"{STDIO}
        (data (i32.const 1024) "{out}") (data (i32.const 4096) "{err}")
        {say_out} {say_err} {head}"#
    );
    let mut bytes = wat::parse_str(module(&Text { head: &head, ..*text })).expect("the text is a module");
    let mut resolve = Resolve::default();
    resolve.push_str("plugin.wit", CONTRACT).expect("the contract is WIT");
    let package = resolve.push_str("guest.wit", WITH_STDIO).expect("it is WIT");
    let world = resolve.select_world(&[package], Some("guest")).expect("the package has the world");
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8, false)
        .expect("the world fits");
    bytes
}
