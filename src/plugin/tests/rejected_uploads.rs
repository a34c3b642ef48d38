//! Uploads that cannot be used: each refusal has its reason and says what is wrong.
//!
//! Must not know: how an upload is scanned.

use crate::plugin::error::Refusal;
use crate::plugin::judging::run::Instance;
use crate::plugin::limits::Config;
use crate::plugin::tests::guests::{self, KEEP, Text};
use crate::plugin::tests::support;

/// Uploads these bytes: the reason and the text of the refusal.
fn refused(bytes: &[u8]) -> (&'static str, String) {
    let engine = support::engine(Config::default());
    let refusal = engine.compile(bytes).expect_err("it is refused");
    (refusal.reason(), refusal.to_string())
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text is a component")
}

#[test]
fn bytes_that_are_not_a_component_are_refused() {
    let whole = guests::evaluating(KEEP);
    for (bytes, words) in [
        (&b""[..], "empty"),
        (&b"#!/bin/sh\necho hello"[..], "it is text"),
        (&b"(module)"[..], "WebAssembly text"),
        (&b"\xff\xfe\x00\x01"[..], "does not begin"),
        (&whole[..whole.len() / 2], "cut off"),
        (&whole[..6], "cut off"),
        (&b"\0asm\x77\x00\x00\x00"[..], "byte"),
    ] {
        let (reason, text) = refused(bytes);
        assert_eq!(reason, "not_wasm", "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let engine = support::engine(Config::default());
    let whole = guests::evaluating(KEEP);
    for len in (0..whole.len()).step_by(37) {
        let refusal = engine.compile(&whole[..len]).expect_err("it is cut off");
        assert!(matches!(refusal.reason(), "not_wasm" | "missing_export" | "compile"), "{len}: {refusal}");
    }
}

#[test]
fn a_manifest_names_the_configuration_for_the_trial() {
    let engine = support::engine(Config::default());
    let with = |manifest: &str| guests::with_manifest(guests::evaluating(KEEP), manifest);
    for (manifest, config) in [
        (r#"{"default_config":{"a":[1]}}"#, Some(r#"{"a":[1]}"#)),
        (r#"{"default_config": {}, "more": "is passed over"}"#, Some("{}")),
        ("{}", None),
    ] {
        let component = engine.compile(&with(manifest)).expect("it compiles");
        assert_eq!(component.default_config(), config, "{manifest}");
    }
    assert_eq!(engine.compile(&guests::evaluating(KEEP)).expect("it compiles").default_config(), None);
    let long = format!("{{\"default_config\":\"{}\"}}", "x".repeat(9_000));
    for (manifest, words) in [
        ("text", "not a JSON object"),
        ("[]", "not a JSON object"),
        (&long, "plugin.config_bytes"),
        (&" ".repeat(70_000), "70000 bytes"),
    ] {
        let (reason, text) = refused(&with(manifest));
        assert_eq!(reason, "configure", "{text}");
        assert!(text.contains("killstream:manifest") && text.contains(words), "{text}");
    }
}

#[test]
fn a_missing_export_is_named() {
    let guest = "killstream:plugin/guest@1.0.0-rc.1";
    let bare = wat::parse_str(guests::module(&Text::default())).unwrap();
    let other_world = component(
        r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f"))) (instance $run (export "run" (func $f)))
            (export "wasi:cli/run@0.2.0" (instance $run)))"#,
    );
    for bytes in [bare, other_world.clone(), component("(component)")] {
        let (reason, text) = refused(&bytes);
        assert_eq!(reason, "missing_export", "{text}");
        assert!(text.contains(guest), "{text}");
    }
    assert!(refused(&other_world).1.contains("wasi:cli/run@0.2.0"));
}

#[test]
fn an_unknown_import_is_named() {
    let text = r#"(component
        (import "acme:tools/bell@1.0.0" (instance (export "ring" (func))))
        (instance $guest)
        (export "killstream:plugin/guest@1.0.0-rc.1" (instance $guest)))"#;
    let (reason, text) = refused(&component(text));
    assert_eq!(reason, "unknown_import", "{text}");
    assert!(text.contains("`acme:tools/bell@1.0.0`"), "{text}");

    for (module, name) in [("wasi_snapshot_preview1", "fd_write"), ("env", "abort")] {
        let head = format!(r#"(import "{module}" "{name}" (func (param i32 i32 i32 i32) (result i32)))"#);
        let (reason, text) = refused(&guests::guest(&Text { head: &head, ..Text::default() }));
        assert_eq!(reason, "unknown_import", "{text}");
        assert!(
            text.contains(&format!("{module}.{name}")) && text.contains("--target wasm32-wasip2"),
            "{text}"
        );
    }
}

#[test]
fn components_that_compile_too_long_are_refused_before_compiling() {
    let functions = guests::guest(&Text { head: &"(func)".repeat(100_001), ..Text::default() });
    let body = guests::evaluating(&format!("{} (i32.const 64)", "(drop (i32.const 1))".repeat(700_000)));
    let table = guests::evaluating(&format!(
        "(block $out (br_table {} (i32.const 0))) (i32.const 64)",
        "$out ".repeat(20_002)
    ));
    for (bytes, words) in [(functions, "functions"), (body, "bytes"), (table, "br_table")] {
        let (reason, text) = refused(&bytes);
        assert_eq!(reason, "too_complex", "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn an_upload_over_the_limit_is_refused_with_the_limit() {
    let engine =
        support::engine(Config { upload_bytes: 100, scripting_upload_bytes: 200, ..Config::default() });
    let refusal = engine.compile(&guests::evaluating(KEEP)).expect_err("it is refused");
    assert!(matches!(refusal, Refusal::TooLarge { max: 200, .. }), "{refusal}");
    assert!(refusal.to_string().contains("plugin.scripting_upload_bytes"), "{refusal}");
}

#[test]
fn a_guest_that_fails_to_start_is_refused_with_its_word() {
    for (head, word) in [
        ("(func $start unreachable) (start $start)", "trap"),
        ("(func $start (loop $again (br $again))) (start $start)", "deadline"),
        ("(memory $big 3000)", "plugin.scripting_memory_bytes"),
        ("(func $start (call $start)) (start $start)", "stack"),
        ("(table 200000 funcref)", "plugin.scripting_table_elements_max"),
    ] {
        let (reason, text) = refused(&guests::guest(&Text { head, ..Text::default() }));
        assert_eq!(reason, if word == "deadline" { word } else { "instantiate" }, "{head}: {text}");
        assert!(text.contains(word), "{head}: {text}");
    }
}

#[test]
fn a_feature_that_is_off_does_not_compile() {
    for head in ["(memory $shared 1 1 shared)", "(memory $wide i64 1)", "(tag $oops)"] {
        let (reason, text) = refused(&guests::guest(&Text { head, ..Text::default() }));
        assert_eq!(reason, "compile", "{head}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_configuration_comes_back_in_the_guests_words() {
    let engine = support::engine(Config::default());
    // err("no such field"), at 128: the result contains an f64, so its payload begins at offset 8.
    let head = r#"(data (i32.const 128) "\01\00\00\00\00\00\00\00\00\04\00\00\0d\00\00\00") (data (i32.const 1024) "no such field")"#;
    let bytes = guests::guest(&Text { head, configure: "(i32.const 128)", ..Text::default() });
    let guest = engine.compile(&bytes).unwrap();
    let refusal = engine.evaluator(&guest, "{}", Instance::Warm).await.expect_err("it is refused");
    assert_eq!((refusal.reason(), refusal.to_string().as_str()), ("configure", "no such field"));
    let loops =
        guests::guest(&Text { configure: "(loop $again (br $again)) unreachable", ..Text::default() });
    let guest = engine.compile(&loops).unwrap();
    let refusal = engine.evaluator(&guest, "{}", Instance::Warm).await.expect_err("it is refused");
    assert_eq!(refusal.reason(), "deadline");
    assert!(refusal.to_string().contains("plugin.configure_cpu_ms"), "{refusal}");
    assert_eq!(guest.counts().instances, 3, "one at the upload, and the call was made twice");
    assert!(engine.evaluator(&guest, "{}", Instance::Fresh).await.is_err());
    assert_eq!(guest.counts().instances, 3, "it is remembered");
}
