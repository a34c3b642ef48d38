//! Imports of components: those that are provided, those that are linked but denied, and those that are
//! refused with a fix.
//!
//! Must not know: how imports are linked.

use wit_component::StringEncoding;
use wit_parser::{Resolve, WorldItem};

use crate::domain::verdict::Fault;
use crate::plugin::judging::run::{Instance, Run};
use crate::plugin::limits::Config;
use crate::plugin::scan::imports;
use crate::plugin::tests::guests::{self, TAKE_ALL, Text};
use crate::plugin::tests::support;

const GUEST: &str = r#"(instance $guest) (export "killstream:plugin/guest@1.0.0-rc.1" (instance $guest))"#;

/// Checks the imports of a component with these parts: the reason and the text of a refusal.
fn checked(parts: &str) -> Result<(), (&'static str, String)> {
    let bytes = wat::parse_str(format!("(component {parts} {GUEST})")).expect("the text is a component");
    imports::check_imports(&bytes).map_err(|refusal| (refusal.reason(), refusal.to_string()))
}

#[test]
fn the_provided_functions_are_those_of_the_contract() {
    let mut resolve = Resolve::default();
    let package =
        resolve.push_str("plugin.wit", include_str!("../../../wit/plugin.wit")).expect("the contract is WIT");
    let version = resolve.packages[package].name.version.as_ref().expect("it has a version");
    assert_eq!(version.to_string(), imports::VERSION);
    let world = resolve.select_world(&[package], Some("plugin")).expect("the contract has the world");
    let mut contract: Vec<(String, Vec<String>)> = resolve.worlds[world]
        .imports
        .values()
        .filter_map(|item| match item {
            WorldItem::Interface { id, .. } => {
                let interface = &resolve.interfaces[*id];
                Some((interface.name.clone()?, interface.functions.keys().cloned().collect()))
            }
            _ => None,
        })
        .collect();
    let mut ours: Vec<(String, Vec<String>)> = imports::PROVIDED
        .iter()
        .map(|(name, functions)| {
            ((*name).to_owned(), functions.iter().map(|name| (*name).to_owned()).collect())
        })
        .collect();
    contract.sort();
    ours.sort();
    assert_eq!(ours, contract);
}

#[test]
fn provided_imports_are_accepted() {
    for name in [
        "killstream:plugin/history@1.0.0-rc.1",
        "wasi:cli/environment@0.2.0",
        "wasi:http/types@0.2.10",
        "wasi:sockets/tcp@0.2.9",
        "wasi:unheard/of@0.2.99",
    ] {
        let function = if name.contains("history") { "count" } else { "f" };
        checked(&format!(r#"(import "{name}" (instance (export "{function}" (func))))"#)).expect(name);
    }
    // A package of types needs nothing at run time.
    let words = r#"(import "acme:tools/words@1.0.0" (instance (type $word string) (export "word" (type (eq $word)))))"#;
    checked(words).expect("types are no functions");
}

#[test]
fn unknown_imports_are_refused_with_a_fix() {
    for (import, words) in [
        (
            r#""acme:tools/bell@1.0.0" (instance (export "ring" (func)))"#,
            ["`acme:tools/bell@1.0.0`", "remove it from the world"],
        ),
        (r#""ring" (func)"#, ["`ring`", "remove it from the world"]),
        (
            r#""wasi:http/handler@0.3.0" (instance (export "f" (func)))"#,
            ["`wasi:http/handler@0.3.0`", "--sync"],
        ),
        (
            r#""wasi:cli/stdin@0.1.0" (instance (export "f" (func)))"#,
            ["`wasi:cli/stdin@0.1.0`", "--target wasm32-wasip2"],
        ),
        (
            r#""killstream:plugin/log@1.0.0-rc.1" (instance (export "shout" (func)))"#,
            ["no function `shout`", "1.0.0-rc.1"],
        ),
        (
            r#""killstream:plugin/log@2.0.0" (instance (export "log" (func)))"#,
            ["has version 1.0.0-rc.1", "wit/plugin.wit"],
        ),
        (
            r#""killstream:plugin/weather@1.0.0-rc.1" (instance (export "f" (func)))"#,
            ["no interface `weather`", "1.0.0-rc.1"],
        ),
    ] {
        let (reason, text) = checked(&format!("(import {import})")).expect_err("it is refused");
        assert_eq!(reason, "unknown_import", "{text}");
        for part in words {
            assert!(text.contains(part), "{text}");
        }
    }
    let six: String = (0..6)
        .map(|n| format!(r#"(import "acme:tools/bell{n}@1.0.0" (instance (export "ring" (func))))"#))
        .collect();
    assert!(checked(&six).expect_err("it is refused").1.contains("and 1 more"));
}

#[test]
fn the_async_abi_is_refused_with_a_fix() {
    let engine = support::engine(Config::default());
    for part in
        ["(core func (canon task.cancel))", "(core func (canon waitable-set.new))", "(type (func async))"]
    {
        let bytes = wat::parse_str(format!("(component (component {part}) {GUEST})"))
            .expect("the text is a component");
        let refusal = engine.compile(&bytes).expect_err("it is refused");
        assert_eq!(refusal.reason(), "unknown_import", "{part}: {refusal}");
        assert!(refusal.to_string().contains("componentize-qjs: build with `--sync`"), "{part}: {refusal}");
    }
}

/// What a runtime might import from WASI: less than there is, and `later`, which no version has.
const WASI: &str = "
    package test:guest;
    world guest {
        include killstream:plugin/plugin@1.0.0-rc.1;
        import wasi:http/types@0.2.10;
        import wasi:sockets/tcp@0.2.9;
        import wasi:io/streams@0.2.9;
    }
    package wasi:io@0.2.9 {
        interface streams { resource output-stream; later: func(); }
    }
    package wasi:http@0.2.10 {
        interface types { use wasi:io/streams@0.2.9.{output-stream}; resource fields; send: func(body: option<output-stream>) -> fields; }
    }
    package wasi:sockets@0.2.9 {
        interface tcp { resource socket; bind: func() -> socket; }
    }";
const HEAD: &str = r#"(import "wasi:http/types@0.2.10" "send" (func $send (param i32 i32) (result i32)))
    (import "wasi:sockets/tcp@0.2.9" "bind" (func $bind (result i32)))
    (import "wasi:io/streams@0.2.9" "later" (func $later))"#;

/// A guest whose `configure` is this code, for a world with more of WASI.
fn wanting_wasi(configure: &str) -> Vec<u8> {
    of_that_world(&Text { head: HEAD, configure, ..Text::default() })
}

fn of_that_world(text: &Text<'_>) -> Vec<u8> {
    let module = guests::module(text);
    let mut bytes = wat::parse_str(module).expect("the text is a module");
    let mut resolve = Resolve::default();
    resolve.push_str("plugin.wit", include_str!("../../../wit/plugin.wit")).expect("the contract is WIT");
    let package = resolve.push_str("guest.wit", WASI).expect("it is WIT");
    let world = resolve.select_world(&[package], Some("guest")).expect("there is the world");
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8, false)
        .expect("the world fits");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn http_and_sockets_are_linked_and_denied() {
    let engine = support::engine(Config::default());
    for (call, name) in [
        ("(drop (call $send (i32.const 0) (i32.const 0)))", "wasi:http/types@0.2.10#send"),
        ("(drop (call $bind))", "wasi:sockets/tcp@0.2.9#bind"),
        ("(call $later)", "wasi:io/streams@0.2.9#later"),
    ] {
        let component = engine.compile(&wanting_wasi(&format!("{call} {TAKE_ALL}"))).expect("it is accepted");
        let refusal = engine.evaluator(&component, "{}", Instance::Warm).await.expect_err("it traps");
        let text = refusal.to_string();
        assert!(
            text.contains("the fault trap") && text.contains(&format!("`{name}` is denied to plugins")),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_call_is_named_however_deep_it_was_made() {
    let engine = support::engine(Config::default());
    // Function names so long that they fill a message before the cause.
    let wide = "x".repeat(90);
    let head = format!(
        "{HEAD}
        (func ${wide} (param i64)
            (if (i64.eqz (local.get 0)) (then (drop (call $bind))))
            (call ${wide} (i64.sub (local.get 0) (i64.const 1))))"
    );
    let evaluate = format!("(call ${wide} (i64.const 40)) (i32.const 64)");
    let evaluator = support::evaluator(
        &engine,
        &of_that_world(&Text { head: &head, evaluate: &evaluate, ..Text::default() }),
    )
    .await;
    let answer = engine.judge(&evaluator, vec![support::killmail(1)], Run::Live).await.remove(0);
    let failure = answer.expect_err("it is denied");
    assert_eq!(failure.fault, Fault::Trap);
    assert!(failure.message.starts_with("`wasi:sockets/tcp@0.2.9#bind` is denied to plugins; "), "{failure}");
    assert!(failure.message.len() <= 1_024 && failure.message.contains(&wide), "{failure}");
}
