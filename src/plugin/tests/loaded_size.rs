//! Measures the memory of loaded components, which must not exceed what they are charged for: `cargo test --lib
//! -- --ignored loaded --nocapture --test-threads=1`. With `KILLSTREAM_GUESTS` (see
//! `tests/clients/plugins/build`), also those of JavaScript and Python.
//!
//! Must not know: what the figures are used for.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::plugin::build::compile;
use crate::plugin::build::compile::UploadId;
use crate::plugin::component_info::ComponentInfo;
use crate::plugin::error::Refusal;
use crate::plugin::history::NoHistory;
use crate::plugin::judging::run::{Instance, Run};
use crate::plugin::limits::Config;
use crate::plugin::resources::capacity::InstanceAllocation;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::state::HostServices;
use crate::plugin::scan;
use crate::plugin::tests::guests::{self, Text};
use crate::plugin::tests::support::{self, killmail};

/// Copies of each component that are loaded.
const COPIES: u64 = 8;

fn setup() -> Setup {
    let outside = HostServices { history: Arc::new(NoHistory), json: |_| Bytes::from_static(b"{}") };
    Setup::new(Config::default(), outside, InstanceAllocation::OnDemand).expect("the engine starts")
}

/// A value of the process's status, bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is listed");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

/// Bytes that the allocator has handed out.
#[expect(unsafe_code, reason = "only the allocator knows how much it has handed out")]
fn heap() -> u64 {
    // SAFETY: the call only reads.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}

/// The mappings of this file: for each access mode the size, the resident part, and what of that is not a
/// page of the file, KiB.
fn mapped(file: &Path) -> String {
    let maps = fs::read_to_string("/proc/self/smaps").expect("it is there");
    let (mut text, mut ours) = (String::new(), false);
    for line in maps.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if !first.ends_with(':') {
            ours = line.ends_with(&*file.to_string_lossy());
            if ours {
                let _ = write!(text, "\n      {}", line.split(' ').nth(1).unwrap_or_default());
            }
        } else if ours && ["Size:", "Rss:", "Anonymous:"].contains(&first) {
            let _ = write!(text, " {first} {}", line.split_whitespace().nth(1).unwrap_or_default());
        }
    }
    text
}

/// Compiles it into a file and returns its description.
fn compiled_to(file: &Path, bytes: &[u8]) -> Result<ComponentInfo, Refusal> {
    let setup = setup();
    let about = scan::scan(bytes, &setup.config)?.about;
    let compiled = compile::compile(&setup, bytes)?;
    fs::write(file, compile::serialize(&compiled)?).expect("it is written");
    Ok(compile::check_linkage(
        &setup,
        &compiled,
        UploadId { digest: "", size_bytes: bytes.len() },
        Arc::default(),
    )
    .map_or(about, |component| component.about().clone()))
}

/// Asserts that its heap memory is within the estimate.
fn measure(name: &str, bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, size_bytes) = (dir.path().join("code"), bytes.len());
    let about = match compiled_to(&file, bytes) {
        Ok(about) => about,
        Err(refusal) => return println!("{name}: {refusal}"),
    };
    let file_bytes = fs::metadata(&file).expect("it is there").len();
    // One engine for each, so that none reuses what another has registered.
    let setups: Vec<Setup> = (0..COPIES).map(|_| setup()).collect();
    let load = |setup: &Setup| {
        let charge = compile::charge_memory(setup, &about, file_bytes).expect("there is memory");
        let compiled = compile::load(setup, about.clone(), &file, charge).expect("it loads");
        let component =
            compile::check_linkage(setup, &compiled, UploadId { digest: "", size_bytes }, Arc::default());
        (compiled, component)
    };
    let before = (heap(), status("RssFile:"));
    let loaded: Vec<_> = setups.iter().map(load).collect();
    let taken = heap().saturating_sub(before.0) / COPIES;
    let shared = status("RssFile:").saturating_sub(before.1) / COPIES;
    println!(
        "{name}: {size_bytes} bytes, code {file_bytes}, image {}; loaded takes {taken}, {shared} mapped; estimated {} (x{:.1}), charged {}",
        about.image_bytes,
        about.heap_bytes,
        about.heap_bytes as f64 / taken.max(1) as f64,
        about.loaded_bytes(file_bytes)
    );
    drop(loaded);
    assert!(taken <= about.heap_bytes, "{name}: {taken} bytes taken, {} estimated", about.heap_bytes);
}

fn repeated(count: usize, each: impl Fn(usize) -> String) -> String {
    (0..count).map(each).collect::<Vec<_>>().join("\n")
}

fn guest(head: &str) -> Vec<u8> {
    guests::guest(&Text { head, ..Text::default() })
}

/// Components that take much memory for their size, with what each took when measured, bytes.
fn greedy() -> Vec<(&'static str, u64, Vec<u8>)> {
    let long = "x".repeat(150);
    let names = repeated(19_000, |n| format!("(export \"{long}{n}\" (func $f))"));
    let places = repeated(19_000, |n| format!("$f{n}"));
    let functions = repeated(19_000, |n| format!("(func $f{n})"));
    // Each is a different type, from the bits of its number.
    let values =
        |n: usize| (0..14).map(|bit| if n >> bit & 1 == 0 { "i32 " } else { "i64 " }).collect::<String>();
    let many = " i32".repeat(90);
    let record = |n: usize| {
        format!(
            "(type (record (field \"a{n}\" string) (field \"b\" u32))) (export \"t{n}\" (type {}))",
            n * 2
        )
    };
    vec![
        ("ordinary", 19_660, guest("")),
        (
            "19,000 exports",
            4_024_724,
            guest(&repeated(19_000, |n| format!("(global (export \"g{n}\") i32 (i32.const 1))"))),
        ),
        ("19,000 exports of long names", 5_466_856, guest(&format!("(func $f) {names}"))),
        ("19,000 functions", 474_750, guest(&repeated(19_000, |_| "(func)".to_owned()))),
        (
            "19,000 functions in a table",
            1_006_776,
            guest(&format!("{functions} (table 19000 funcref) (elem (i32.const 0) func {places})")),
        ),
        (
            "9,000 types",
            11_094_316,
            guest(&repeated(9_000, |n| format!("(type (func (param {})))", values(n)))),
        ),
        (
            "5,000 long types",
            27_733_794,
            guest(&repeated(5_000, |n| format!("(type (func (param {}{many})))", values(n)))),
        ),
        ("3,000 component types", 1_798_924, component(&repeated(3_000, record))),
        ("900 modules", 774_232, component(&repeated(900, |_| "(core module)".to_owned()))),
    ]
}

/// Checks the estimate against recorded figures; [`loaded_components_take_no_more_than_estimated`] measures
/// again.
#[test]
fn the_estimate_is_above_what_was_measured() {
    for (name, measured, bytes) in greedy() {
        let estimated = scan::scan(&bytes, &Config::default()).expect("it may be loaded").about.heap_bytes;
        assert!(estimated >= measured, "{name}: {estimated} bytes estimated, {measured} measured");
        assert!(
            name != "ordinary" || estimated < 512 << 10,
            "an ordinary one is charged with {estimated} bytes"
        );
    }
}

#[test]
#[ignore = "measures the heap of the whole process: to be run alone"]
fn loaded_components_take_no_more_than_estimated() {
    for (name, _, bytes) in greedy() {
        measure(name, &bytes);
    }
    measure(
        "1,000,000 null elements",
        &guest(&format!("(elem funcref {})", "(ref.null func)".repeat(1_000_000))),
    );
    measure(
        "10,000 data segments",
        &guest(&repeated(10_000, |n| format!("(data (i32.const {}) \"x\")", 70_000 + n * 2))),
    );
    measure(
        "dense image of 15 MiB",
        &guest(&format!("(memory $m 250) (data (memory $m) (i32.const 0) \"{}\")", "x".repeat(15 << 20))),
    );
}

/// A component of this text with the export of a plugin, but an empty one: it can be loaded, but not
/// instantiated.
fn component(text: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {text} (instance $guest) (export "killstream:plugin/guest@1.0.0-rc.1" (instance $guest)))"#
    );
    wat::parse_str(text).expect("the text is a component")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures the heap of the whole process: to be run alone"]
async fn loaded_scripting_guests_take_no_more_than_estimated() {
    let Ok(folder) = std::env::var("KILLSTREAM_GUESTS") else {
        return println!("KILLSTREAM_GUESTS is not set");
    };
    for name in ["js", "python"] {
        let bytes = fs::read(Path::new(&folder).join(format!("{name}.wasm"))).expect("it is built");
        measure(name, &bytes);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("code");
        let about = compiled_to(&file, &bytes).expect("it compiles");
        let engine = support::engine(Config { guests_memory_bytes: 1 << 30, ..Config::default() });
        let charge =
            engine.charge(&about, fs::metadata(&file).expect("it is there").len()).expect("there is memory");
        let component = engine
            .load(UploadId { digest: "0", size_bytes: bytes.len() }, about, &file, charge)
            .expect("it loads");
        println!(
            "  {name}: charged with {} for the component; the file is mapped so:{}",
            component.charged_bytes(),
            mapped(&file)
        );
        let before = (status("RssAnon:"), status("RssFile:"), engine.capacity().memory().used());
        let mut all = Vec::new();
        for n in 0..4 {
            let config = format!("{{\"n\":{n}}}");
            match engine.evaluator(&component, &config, Instance::Warm).await {
                Ok(evaluator) => all.push(evaluator),
                Err(refusal) => println!("  {name}: {refusal}"),
            }
        }
        for evaluator in &all {
            drop(engine.evaluate(evaluator, (1..=100).map(killmail).collect::<Vec<_>>(), Run::Live).await);
        }
        println!(
            "  {name}: {} evaluators take {} and {} mapped, charged {}; the file then:{}",
            all.len(),
            status("RssAnon:").saturating_sub(before.0),
            status("RssFile:").saturating_sub(before.1),
            engine.capacity().memory().used() - before.2,
            mapped(&file)
        );
    }
}
