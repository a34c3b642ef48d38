//! Short uploads that ask for a lot of work. Each is refused with the limit, before a compiler sees it and in
//! well under a second.
//!
//! Must not know: how anything is counted.

use std::time::{Duration, Instant};

use crate::plugin::class::Class;
use crate::plugin::limits::Config;
use crate::plugin::scan::{self, ScanResult};
use crate::plugin::tests::guests::{self, KEEP};

/// Scans a component of this text, with the export of a plugin.
fn scanned(text: &str) -> Result<ScanResult, (&'static str, String)> {
    scan_with_limits(&encoded(text), &Config::default())
}

fn encoded(text: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {text} (instance $guest) (export "killstream:plugin/guest@1.0.0-rc.1" (instance $guest)))"#
    );
    wat::parse_str(text).expect("the text is a component")
}

fn scan_with_limits(bytes: &[u8], limits: &Config) -> Result<ScanResult, (&'static str, String)> {
    let begun = Instant::now();
    let seen = scan::scan(bytes, limits).map_err(|refusal| (refusal.reason(), refusal.to_string()));
    assert!(begun.elapsed() < Duration::from_millis(900), "it took {:?}", begun.elapsed());
    seen
}

/// Asserts that it is refused for this reason and with these texts.
fn refused(text: &str, reason: &str, words: &[&str]) {
    let (word, text) = scanned(text).expect_err("it is refused");
    assert_eq!(word, reason, "{text}");
    for part in words {
        assert!(text.contains(part), "{text}");
    }
}

/// A component with one function of this code.
fn function(head: &str, code: &str) -> String {
    format!("(core module {head} (func (param i32) {code}))")
}

/// Nested components, each of which instantiates the previous one `each` times.
fn levels(first: &str, levels: usize, each: usize) -> String {
    let mut text = format!("(component $c0 {first})");
    for level in 1..=levels {
        let made = format!("(instance (instantiate $c{}))", level - 1).repeat(each);
        text = format!(
            "{text} (component $c{level} (alias outer 1 $c{} (component $c{})) {made})",
            level - 1,
            level - 1
        );
    }
    format!("{text} (instance (instantiate $c{levels}))")
}

const MODULE: &str = "(core module $m (memory 1) (table 1 funcref)) (core instance (instantiate $m))";

#[test]
fn instances_count_as_often_as_they_are_made() {
    refused(&levels(MODULE, 8, 8), "too_complex", &["at most", "(plugin.scripting_items_max)"]);
    refused(&levels("", 12, 60), "too_complex", &["plugin.scripting_items_max"]);
    refused(
        &levels(MODULE, 4, 8),
        "too_complex",
        &["4096 core instances", "at most 400 (plugin.scripting_core_instances_max)"],
    );
    let seen = scanned(&levels(MODULE, 2, 2)).expect("four are few");
    assert_eq!((seen.about.core_instances, seen.about.memories, seen.about.tables), (4, 4, 4));
    assert_eq!(seen.about.class, Class::Small);
    let seen = scanned(&levels("", 3, 3)).expect("27 of nothing are few");
    assert_eq!(seen.about.core_instances, 0);
}

#[test]
fn memory_counts_as_often_as_it_is_made() {
    let large = "(core module $m (memory 320)) (core instance (instantiate $m))";
    refused(
        &levels(large, 1, 8),
        "instantiate",
        &["begins with 167772160 bytes of memory", "(plugin.scripting_memory_bytes)"],
    );
    assert_eq!(
        scanned(&levels(large, 1, 4)).expect("80 MiB are fine for scripting").about.class,
        Class::Scripting
    );
    assert_eq!(scanned(&levels(large, 1, 3)).expect("60 MiB are fine").about.class, Class::Small);
}

#[test]
fn instantiating_an_import_is_refused() {
    let imports_a_module = r#"(component $c (import "m" (core module $m)) (core instance (instantiate $m)))"#;
    let imports_a_component = r#"(component $c (import "c" (component $d)) (instance (instantiate $d)))"#;
    let takes_from_an_instance = r#"(component $c (component $d) (export "d" (component $d)))
        (instance $i (instantiate $c)) (alias export $i "d" (component $d)) (instance (instantiate $d))"#;
    for text in [imports_a_module, imports_a_component, takes_from_an_instance] {
        refused(text, "too_complex", &["cannot be counted"]);
    }
    // Passing one on is harmless.
    scanned(r#"(component $c (import "m" (core module)))"#).expect("it is not instantiated");
}

#[test]
fn nested_types_are_limited() {
    for (depth, fine) in [(10, true), (20, false), (1_250, false), (100_000, false)] {
        // As text, this would be nested too deeply for the encoder.
        let mut bytes = encoded("");
        let mut types: Vec<u8> = [0x41, 0x01, 0x01].repeat(depth);
        types.splice(0..0, [0x01]);
        types.extend([0x41, 0x00]);
        push_section(&mut bytes, 7, &types);
        match scan_with_limits(&bytes, &Config::default()) {
            Ok(_) => assert!(fine, "{depth}"),
            Err((reason, text)) => {
                assert_eq!(reason, "too_complex", "{depth}: {text}");
                assert!(!fine && text.contains("component types nested"), "{depth}: {text}");
            }
        }
        // The same in the section that a toolchain adds to a core module.
        let mut world = b"\x0ecomponent-type".to_vec();
        world.extend(bytes);
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        push_section(&mut module, 0, &world);
        assert_eq!(scan_with_limits(&module, &Config::default()).is_ok(), fine, "{depth}");
    }
}

fn push_section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    bytes.push(id);
    let mut rest = content.len();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes.extend_from_slice(content);
}

#[test]
fn many_types_are_refused() {
    let types = |count| "(type (func (param i32)))".repeat(count);
    refused(
        &format!("(core module {})", types(50_000)),
        "too_complex",
        &["50000 types", "at most 10000 (plugin.scripting_types_max)"],
    );
    refused(
        &"(type (tuple u8))".repeat(50_000),
        "too_complex",
        &["50000 types", "plugin.scripting_types_max"],
    );
    let within = format!("(type (instance {}))", "(type (tuple u8))".repeat(20_000));
    refused(&within, "too_complex", &["types", "plugin.scripting_types_max"]);
}

#[test]
fn nested_blocks_and_loops_are_refused() {
    let nested = |block: &str, depth| function("", &format!("{}{}", block.repeat(depth), ")".repeat(depth)));
    refused(
        &nested("(loop ", 20_000),
        "too_complex",
        &["nested blocks", "(plugin.scripting_block_depth_max)"],
    );
    refused(
        &nested("(loop ", 65),
        "too_complex",
        &["65 nested loops", "at most 64 (plugin.scripting_loop_depth_max)"],
    );
    scanned(&nested("(loop ", 64)).expect("64 compile quickly");
    scanned(&nested("(block ", 2_000)).expect("2,000 compile quickly");
}

#[test]
fn many_loops_and_calls_are_refused() {
    let work = &["units of work to compile one function", "(plugin.scripting_function_work_max)"];
    refused(&function("", &"(loop (br_if 0 (local.get 0)))".repeat(20_000)), "too_complex", work);
    let call = "(call_indirect (type $t) (local.get 0))";
    refused(&function("(table 1 funcref) (type $t (func))", &call.repeat(40_000)), "too_complex", work);
    refused(
        &function("(memory 1)", &"(drop (memory.grow (local.get 0)))".repeat(20_000)),
        "too_complex",
        work,
    );
    let wide = format!("(type $t (func (param {0}) (result {0})))", "i32 ".repeat(1_000));
    let calls =
        format!("{} {} {}", "(i32.const 1)".repeat(1_000), "(call 0)".repeat(1_000), "drop ".repeat(1_000));
    refused(&function(&format!("{wide} (func (type $t) unreachable)"), &calls), "too_complex", work);
}

#[test]
fn values_carried_by_blocks_and_branches_are_refused() {
    let work = &["estimated units of work to compile one function", "(plugin.scripting_function_work_max)"];
    let many = "i32 ".repeat(1_000);
    let ones = "(i32.const 1)".repeat(1_000);
    let ty = format!("(type $t (func (param {many}) (result {many})))");
    let blocks = format!(
        "{ones} {} {}",
        "(block (type $t) (br_if 0 (local.get 0)))".repeat(9_000),
        "drop ".repeat(1_000)
    );
    refused(&function(&ty, &blocks), "too_complex", work);
    // A table over as many blocks as there are values in each.
    let ty = format!("(type $t (func (result {many})))");
    let labels: String = (0..1_000).map(|label| format!("{label} ")).collect();
    let table = format!("{ones} (local.get 0) (br_table {labels} 0)").repeat(8);
    let nested = format!(
        "{} {table} {} {}",
        "(block (type $t)".repeat(1_000),
        ")".repeat(1_000),
        "drop ".repeat(1_000)
    );
    refused(&function(&ty, &nested), "too_complex", work);
}

#[test]
fn locals_and_operands_over_many_blocks_are_refused() {
    let work = &["plugin.scripting_function_work_max"];
    let set: String =
        (1..5_000).map(|local| format!("(local.set {local} (i32.load (local.get 0)))")).collect();
    let used: String =
        (1..5_000).map(|local| format!("(i32.store (local.get 0) (local.get {local}))")).collect();
    let declared = format!("(local {})", "i32 ".repeat(4_999));
    let blocks = "(block (br_if 0 (local.get 0)))".repeat(100_000);
    refused(&function("(memory 1)", &format!("{declared} {set} {blocks} {used}")), "too_complex", work);
    let looped = format!("{declared} {}{used}{}", "(loop ".repeat(60), "(br_if 0 (local.get 0)))".repeat(60));
    refused(&function("(memory 1)", &looped), "too_complex", work);
    let operands = "(memory.grow (i32.const 0))".repeat(20_000);
    refused(
        &function("(memory 1)", &format!("{operands} {blocks} {}", "drop ".repeat(20_000))),
        "too_complex",
        work,
    );
    refused(
        &function("", "(local i32)".repeat(6_000).as_str()),
        "too_complex",
        &["6001 locals in one function", "plugin.scripting_locals_max"],
    );
}

#[test]
fn locals_that_tables_of_branches_carry_are_refused() {
    let set: String = (1..=50)
        .map(|local| format!("(local.set {local} (i32.add (local.get {local}) (i32.const 1)))"))
        .collect();
    let labels: String = (1..2_000).map(|label| format!("{label} ")).collect();
    let tables =
        format!("{set} (block (br_if 0 (local.get 0)) (br_table {labels} 1 (local.get 0)))").repeat(20);
    let blocks =
        format!("(local {}) {} {tables} {}", "i32 ".repeat(50), "(block ".repeat(2_000), ")".repeat(2_000));
    refused(
        &function("", &blocks),
        "too_complex",
        &["units of work to compile one function", "(plugin.scripting_function_work_max)"],
    );
}

#[test]
fn declarations_count_too() {
    let limits = Config { items_max: 100, scripting_items_max: 1_000, ..Config::default() };
    for text in ["(core module)".repeat(1_001), format!("(core module {})", "(memory 0)".repeat(1_001))] {
        let (reason, text) = scan_with_limits(&encoded(&text), &limits).expect_err("it is refused");
        assert_eq!(reason, "too_complex", "{text}");
        assert!(text.contains("at most 1000 (plugin.scripting_items_max)"), "{text}");
    }
    let deep = (0..20).fold(String::new(), |within, _| format!("(component {within})"));
    refused(&deep, "too_complex", &["components nested"]);
}

#[test]
fn memory_images_are_counted_together() {
    let image = r#"(core module (memory 256) (data (i32.const 0) "a") (data (i32.const 16777215) "z"))"#;
    refused(
        &image.repeat(400),
        "too_complex",
        &["bytes of memory that its data fills", "(plugin.scripting_image_bytes)"],
    );
    assert_eq!(scanned(image).expect("one is fine").about.class, Class::Small);
    assert_eq!(scanned(&image.repeat(3)).expect("three are fine").about.class, Class::Scripting);
}

#[test]
fn an_ordinary_guest_is_far_from_every_limit() {
    let seen = scan_with_limits(&guests::evaluating(KEEP), &Config::default()).expect("it is fine");
    assert_eq!((seen.about.class, seen.about.core_instances, seen.about.memories), (Class::Small, 1, 1));
    assert!(seen.work * 100 < Config::default().compile_work_max, "{}", seen.work);
}

#[test]
fn corrupted_bytes_can_be_scanned() {
    let whole = encoded(&format!(
        "{} {}",
        levels(MODULE, 2, 2),
        function("(memory 1)", "(loop (br_if 0 (local.get 0)))")
    ));
    for at in 8..whole.len() {
        for byte in [0x00, 0x7f, 0xff, whole[at] ^ 1, whole[at].wrapping_add(1)] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            // Refused or not, the scan ends.
            let _ = scan_with_limits(&bytes, &Config::default());
        }
    }
}
