//! The cost of a plugin's verdict: a filter that reads the summary, and one that reads every attacker, with 1,
//! 100 and 1,000 attackers.
//!
//! Baselines in the same run: the same filter in native Rust, and the usual design of plugin systems: JSON bytes
//! are copied into a core module that parses them, once only the fields it reads, once all of it into types.
//! Pages of 64 go through the engine's queue like those of readers, as history so that no verdict is
//! remembered.

mod support;

use std::sync::Arc;
use std::time::Instant;

use killstream::domain::entry::{Page, SharedEntry};
use killstream::domain::id::Seq;
use killstream::domain::killmail::{Attacker, Killmail};
use killstream::domain::verdict::Verdict;
use killstream::plugin::engine::Engine;
use killstream::plugin::history::NoHistory;
use killstream::plugin::judging::evaluator::Evaluator;
use killstream::plugin::judging::run::{Instance, Run};
use killstream::plugin::limits::Config;
use killstream::sample::generate::{Made, Recipe};
use killstream::wire::killmail::json;
use support::{Ledger, entry};
use tokio::runtime::{Builder, Runtime};
use wasmtime::{Instance as CoreInstance, Linker, Memory, Module, Store, TypedFunc};

static FILTER: &[u8] = include_bytes!("../plugins/prebuilt/bench-filter.wasm");
static JSON: &[u8] = include_bytes!("../plugins/prebuilt/bench-json.wasm");

/// Killmails per page, as readers send them.
const PAGE: usize = 64;
/// Killmails of a page so long that the round trip to the worker thread is negligible.
const LONG_PAGE: usize = 1_024;
/// Items of the median killmail.
const ITEMS: usize = 15;
const ATTACKERS: [u32; 3] = [1, 100, 1_000];
const WATCHED: u32 = 100;
const MIN_ISK: f64 = 1e6;

/// A killmail with this many attackers, none of them watched, of sufficient value, and with as many items as
/// the median.
fn crowd(count: u32, id: u32) -> Killmail {
    let mut made = Recipe { seed: u64::from(id), killmails: 1_000, ..Recipe::default() }.generate();
    let median = |made: &Made| made.killmail.victim.items.as_ref().is_some_and(|items| items.len() == ITEMS);
    let model = made.find(median).expect("one of many").killmail;
    let one = model.attackers[0].clone();
    let attackers = (0..count)
        .map(|n| Attacker { character_id: Some(95_000_000 + n * 7), final_blow: n == 0, ..one.clone() })
        .collect::<Vec<_>>();
    let mut killmail = Killmail { killmail_id: id, attackers, ..model };
    killmail.zkb.get_or_insert_default().total_value = Some(2e9);
    killmail
}

fn page(attackers: u32, killmails: usize) -> Page {
    let model = crowd(attackers, 1);
    Arc::new(
        (0..killmails as u32)
            .map(|n| entry(u64::from(n) + 1, Killmail { killmail_id: 137_000_000 + n, ..model.clone() }))
            .collect(),
    )
}

fn watched() -> Vec<u32> {
    (0..WATCHED).map(|n| 95_000_003 + n * 70).collect()
}

fn config(scan: bool, ask: bool) -> String {
    let characters = if scan { watched() } else { Vec::new() };
    // More than the killmail's value, so that the cheap filter drops what the others drop.
    let min_isk = if scan { MIN_ISK } else { 3e9 };
    format!(r#"{{"min_isk":{min_isk},"characters":{characters:?},"ask":{ask}}}"#)
}

/// The engine under test.
struct Components {
    runtime: Runtime,
    engine: Arc<Engine>,
}

impl Components {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let engine = Engine::new(Config::default(), Arc::new(NoHistory), json).expect("an engine");
        Self { runtime, engine }
    }

    fn evaluator(&self, config: &str) -> Evaluator {
        let component = self.engine.compile(FILTER).expect("it compiles");
        self.runtime
            .block_on(self.engine.evaluator(&component, config, Instance::Warm))
            .expect("it accepts the configuration")
    }

    fn judge(&self, evaluator: &Evaluator, page: &Page) -> usize {
        let answers = self.runtime.block_on(self.engine.evaluate(
            evaluator,
            Arc::clone(page),
            Run::History { head: Seq(1_000) },
        ));
        answers.iter().filter(|answer| matches!(answer, Ok(Verdict::Drop))).count()
    }
}

/// The core module that parses JSON.
struct Core {
    store: Store<()>,
    memory: Memory,
    room: TypedFunc<u32, u32>,
    evaluate: TypedFunc<(), i32>,
}

impl Core {
    fn new(config: &str) -> Self {
        let engine = wasmtime::Engine::default();
        let module = Module::new(&engine, JSON).expect("it compiles");
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&module).expect("unknown imports become traps");
        let mut store = Store::new(&engine, ());
        let instance: CoreInstance = linker.instantiate(&mut store, &module).expect("it starts");
        if let Ok(begin) = instance.get_typed_func::<(), ()>(&mut store, "_initialize") {
            begin.call(&mut store, ()).expect("it initializes");
        }
        let memory = instance.get_memory(&mut store, "memory").expect("a memory");
        let room = instance.get_typed_func(&mut store, "room").expect("room");
        let configure: TypedFunc<(), i32> =
            instance.get_typed_func(&mut store, "configure").expect("configure");
        let evaluate = instance.get_typed_func(&mut store, "evaluate").expect("evaluate");
        let mut core = Self { store, memory, room, evaluate };
        core.write(config.as_bytes());
        assert_eq!(
            configure.call(&mut core.store, ()).expect("it answers"),
            1,
            "the configuration is accepted"
        );
        core
    }

    fn write(&mut self, bytes: &[u8]) {
        let at = self.room.call(&mut self.store, bytes.len() as u32).expect("room");
        self.memory.write(&mut self.store, at as usize, bytes).expect("it fits");
    }

    fn judge(&mut self, json: &[u8]) -> i32 {
        self.write(json);
        self.evaluate.call(&mut self.store, ()).expect("it answers")
    }
}

fn native(entry: &SharedEntry, min_isk: f64, watched: &[u32]) -> bool {
    let valued = entry.facts.total_value.is_some_and(|isk| isk >= min_isk);
    let mut ids = entry.killmail.attackers.iter().filter_map(|a| a.character_id);
    valued && (watched.is_empty() || ids.any(|id| watched.binary_search(&id).is_ok()))
}

fn main() {
    let mut ledger = Ledger::new("evaluate");
    let components = Components::new();
    for attackers in ATTACKERS {
        let page = page(attackers, PAGE);
        let texts: Vec<_> = page.iter().map(|entry| json(entry)).collect();
        for (name, scan) in [("cheap", false), ("scan", true)] {
            let evaluator = components.evaluator(&config(scan, false));
            assert_eq!(components.judge(&evaluator, &page), PAGE, "all are dropped");
            each(&mut ledger, &format!("{name}, {attackers}"), || components.judge(&evaluator, &page));
            if scan {
                let asking = components.evaluator(&config(true, true));
                assert_eq!(components.judge(&asking, &page), PAGE, "all are dropped");
                each(&mut ledger, &format!("ask, {attackers}"), || components.judge(&asking, &page));
            }
            let mut core = Core::new(&config(scan, false).replace(r#","ask":false"#, ""));
            assert!(texts.iter().all(|text| core.judge(text) == 0), "all are dropped");
            each(&mut ledger, &format!("JSON, {name}, {attackers}"), || {
                texts.iter().map(|text| core.judge(text)).sum::<i32>()
            });
            let mut typed = Core::new(&config(scan, false).replace(r#""ask":false"#, r#""whole":true"#));
            assert!(texts.iter().all(|text| typed.judge(text) == 0), "all are dropped");
            each(&mut ledger, &format!("typed JSON, {name}, {attackers}"), || {
                texts.iter().map(|text| typed.judge(text)).sum::<i32>()
            });
            let (min_isk, watched) = if scan { (MIN_ISK, watched()) } else { (3e9, Vec::new()) };
            each(&mut ledger, &format!("native, {name}, {attackers}"), || {
                page.iter().filter(|e| native(e, min_isk, &watched)).count()
            });
        }
    }
    alone(&mut ledger, &components);
    ledger.table();
    for attackers in ATTACKERS {
        for name in ["cheap", "scan"] {
            let ours = format!("{name}, {attackers}");
            ledger.ratio(&ours, &format!("JSON, {name}, {attackers}"));
            ledger.ratio(&ours, &format!("typed JSON, {name}, {attackers}"));
            ledger.ratio(&ours, &format!("native, {name}, {attackers}"));
        }
        ledger.ratio(&format!("ask, {attackers}"), &format!("JSON, scan, {attackers}"));
    }
    ledger.ratio("cheap, 1, long page", "JSON, cheap, 1");
    ledger.ratio("cheap, 1, long page", "typed JSON, cheap, 1");
    ledger.alone("one killmail, live, there and back", |_| "a page of one, not remembered".to_owned());
}

/// Measures a page and divides by its killmails.
fn each<T>(ledger: &mut Ledger, id: &str, mut work: impl FnMut() -> T) {
    ledger.timed(id, |iterations| {
        let begun = Instant::now();
        for _ in 0..iterations {
            std::hint::black_box(work());
        }
        begun.elapsed() / PAGE as u32
    });
}

/// The cost of a page with a single killmail including the round trip to the worker thread, and that of a long
/// page, where it is negligible.
fn alone(ledger: &mut Ledger, components: &Components) {
    let evaluator = components.evaluator(&config(false, false));
    let page = page(1, LONG_PAGE);
    let one: Page = Arc::new(page[..1].to_vec());
    ledger.measure("one killmail, live, there and back", || components.judge(&evaluator, &one));
    ledger.timed("cheap, 1, long page", |iterations| {
        let begun = Instant::now();
        for _ in 0..iterations {
            std::hint::black_box(components.judge(&evaluator, &page));
        }
        begun.elapsed() / LONG_PAGE as u32
    });
}
