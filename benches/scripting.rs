//! The cost of a verdict in JavaScript and Python, compared with Rust in the same run: a filter that reads the
//! summary, one that asks the host about every attacker (`involves`), one that parses the killmail's JSON and
//! adds an annotation.
//!
//! The components are built by their toolchains (`tests/clients/plugins/build DIR`, default flags) and found in
//! `KILLSTREAM_GUESTS=DIR`. Without them only Rust is measured, and the output says so. Pages of 64 go through
//! the engine's queue as history, so that no verdict is remembered.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use killstream::domain::entry::Page;
use killstream::domain::id::Seq;
use killstream::domain::killmail::{Attacker, Killmail};
use killstream::plugin::engine::Engine;
use killstream::plugin::history::NoHistory;
use killstream::plugin::judging::evaluator::Evaluator;
use killstream::plugin::judging::run::{Instance, Run};
use killstream::plugin::limits::Config;
use killstream::sample::generate::Recipe;
use killstream::wire::killmail::json;
use support::{Ledger, entry};
use tokio::runtime::{Builder, Runtime};

static RUST: &[u8] = include_bytes!("../plugins/prebuilt/bench-filter.wasm");

const PAGE: usize = 64;
const ATTACKERS: [u32; 3] = [1, 100, 1_000];
const LANGUAGES: [&str; 2] = ["js", "python"];
const FILTERS: [(&str, &str); 3] = [
    ("cheap", r#"{"min_value":3e9}"#),
    ("involves", r#"{"mode":"involves","ids":[1,2,3,4,5,6,7,8,9,10]}"#),
    ("json", r#"{"mode":"json"}"#),
];

fn page(attackers: u32) -> Page {
    let model =
        Recipe { seed: 7, killmails: 1, ..Recipe::default() }.generate().next().expect("one").killmail;
    let one = model.attackers[0].clone();
    let many = (0..attackers)
        .map(|n| Attacker { character_id: Some(95_000_000 + n), final_blow: n == 0, ..one.clone() })
        .collect();
    let mut killmail = Killmail { attackers: many, ..model };
    killmail.zkb.get_or_insert_default().total_value = Some(2e9);
    Arc::new(
        (0..PAGE as u32)
            .map(|n| entry(u64::from(n) + 1, Killmail { killmail_id: 137_000_000 + n, ..killmail.clone() }))
            .collect(),
    )
}

struct Guests {
    runtime: Runtime,
    engine: Arc<Engine>,
}

impl Guests {
    fn evaluator(&self, component: &[u8], config: &str) -> Evaluator {
        let component = self.engine.compile(component).expect("it compiles");
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
        assert!(answers.iter().all(Result::is_ok), "{:?}", answers[0]);
        answers.len()
    }
}

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let guests = Guests {
        runtime,
        engine: Engine::new(Config::default(), Arc::new(NoHistory), json).expect("an engine"),
    };
    let folder = std::env::var("KILLSTREAM_GUESTS").ok();
    if folder.is_none() {
        println!(
            "KILLSTREAM_GUESTS is not set to a folder with js.wasm and python.wasm: measuring only Rust"
        );
    }
    let mut ledger = Ledger::new("scripting");
    let rust = [
        ("cheap", r#"{"min_isk":3e9,"characters":[],"ask":false}"#),
        ("involves", r#"{"min_isk":1e6,"characters":[1,2,3,4,5,6,7,8,9,10],"ask":true}"#),
    ];
    for attackers in ATTACKERS {
        let page = page(attackers);
        for (filter, config) in rust {
            let evaluator = guests.evaluator(RUST, config);
            each(&mut ledger, &format!("rust, {filter}, {attackers}"), || guests.judge(&evaluator, &page));
        }
    }
    for language in LANGUAGES {
        let Some(component) = folder
            .as_ref()
            .and_then(|folder| std::fs::read(Path::new(folder).join(format!("{language}.wasm"))).ok())
        else {
            continue;
        };
        for (filter, config) in FILTERS {
            let evaluator = guests.evaluator(&component, config);
            for attackers in ATTACKERS {
                let page = page(attackers);
                each(&mut ledger, &format!("{language}, {filter}, {attackers}"), || {
                    guests.judge(&evaluator, &page)
                });
            }
        }
    }
    ledger.table();
    for (filter, _) in FILTERS {
        for attackers in ATTACKERS {
            for language in LANGUAGES {
                let like = if filter == "json" { "cheap" } else { filter };
                ledger.ratio(
                    &format!("{language}, {filter}, {attackers}"),
                    &format!("rust, {like}, {attackers}"),
                );
            }
        }
    }
}

/// Measures a page and divides by its killmails.
fn each(ledger: &mut Ledger, id: &str, mut work: impl FnMut() -> usize) {
    ledger.timed(id, |iterations| {
        let begun = Instant::now();
        for _ in 0..iterations {
            std::hint::black_box(work());
        }
        begun.elapsed() / PAGE as u32
    });
}
