//! Refusals that are about a limit give it as `limit`, beside the text that names its setting.
//!
//! Must not know: where a refusal is made.

use crate::plugin::judging::run::Instance;
use crate::plugin::limits::Config;
use crate::plugin::tests::guests::{self, Text};
use crate::plugin::tests::support;

const RECURSE: &str = "(func $deep (param i64) (call $deep (local.get 0)) (call $deep (local.get 0)))";

#[test]
fn a_refusal_to_instantiate_names_its_limit() {
    let limits = Config::default();
    let recurse = format!("{RECURSE} (func $start (call $deep (i64.const 1))) (start $start)");
    let grow = "(func $start (drop (memory.grow (i32.const 60000)))) (start $start)";
    for (head, limit) in [
        (recurse.as_str(), Some(limits.stack_bytes)),
        (grow, Some(limits.memory_bytes)),
        ("(memory $big 3000)", Some(limits.scripting_memory_bytes)),
        ("(table 200000 funcref)", Some(limits.scripting_table_elements_max)),
        ("(func $start unreachable) (start $start)", None),
    ] {
        let engine = support::engine(limits.clone());
        let bytes = guests::guest(&Text { head, ..Text::default() });
        let refusal = engine.compile(&bytes).expect_err("it is refused");
        let limit = limit.map(|limit| limit as u64);
        assert_eq!((refusal.reason(), refusal.limit()), ("instantiate", limit), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_a_configuration_names_its_limit() {
    let limits = Config { interest_ids_max: 2, ..Config::default() };
    // `ok(some(interest))` whose only term, at 512, names three ids.
    let interest = format!(
        r#"(data (i32.const 256) "\00\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00{}{}")
           (data (i32.const 512) "\00\00\00\00{}{}") (data (i32.const 600) "\01\00\00\00\02\00\00\00\03\00\00\00")"#,
        guests::bytes(512),
        guests::bytes(1),
        guests::bytes(600),
        guests::bytes(3),
    );
    for (head, configure, config, limit) in [
        (RECURSE, "(call $deep (i64.const 1)) (i32.const 0)", "{}", Some(limits.stack_bytes)),
        ("", "(drop (memory.grow (i32.const 60000))) (i32.const 0)", "{}", Some(limits.memory_bytes)),
        ("", "unreachable", "{}", None),
        (&interest, "(i32.const 256)", "{}", Some(limits.interest_ids_max)),
        ("", guests::TAKE_ALL, &" ".repeat(limits.config_bytes + 1), Some(limits.config_bytes)),
    ] {
        let engine = support::engine(limits.clone());
        let bytes = guests::guest(&Text { head, configure, ..Text::default() });
        let component = engine.compile(&bytes).expect("it compiles");
        let refusal = engine.evaluator(&component, config, Instance::Warm).await.expect_err("it is refused");
        let limit = limit.map(|limit| limit as u64);
        assert_eq!((refusal.reason(), refusal.limit()), ("configure", limit), "{refusal}");
    }
    let manifest = format!("{{\"default_config\":\"{}\"}}", "x".repeat(limits.config_bytes));
    let bytes = guests::with_manifest(guests::evaluating(guests::KEEP), &manifest);
    let refusal = support::engine(limits.clone()).compile(&bytes).expect_err("it is refused");
    assert_eq!((refusal.reason(), refusal.limit()), ("configure", Some(limits.config_bytes as u64)));
}
