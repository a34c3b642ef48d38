//! The three example plugins as they are built, in the engine, against their vectors and the bundled sample.
//! Below the doors: named here are the engine, the store's facts and the wire's readers.

use std::sync::{Arc, Mutex, OnceLock};

use killstream::domain::entry::{Entry, Origin, SharedEntry};
use killstream::domain::facts::Facts;
use killstream::domain::filter::{Filter, RoleClause};
use killstream::domain::id::Seq;
use killstream::domain::term::{Dimension, Role};
use killstream::domain::verdict::Verdict;
use killstream::plugin::engine::Engine;
use killstream::plugin::history::{Allowance, Bound, Exhausted, History, HistoryQuestion, Totals};
use killstream::plugin::judging::run::{Instance, Run};
use killstream::plugin::limits::Config;
use killstream::plugin::sandbox::component::Component;
use killstream::store::facts::facts;
use killstream::wire;
use serde_json::Value;

const GATECAMP: &[u8] = include_bytes!("../../plugins/prebuilt/gatecamp.wasm");
const HIGH_VALUE: &[u8] = include_bytes!("../../plugins/prebuilt/high-value.wasm");
const WATCHLIST: &[u8] = include_bytes!("../../plugins/prebuilt/watchlist.wasm");

/// A history of a few killmails, answered by looking at each.
#[derive(Default)]
struct Past(Mutex<Vec<(Seq, Facts)>>);

impl Past {
    fn matching(&self, query: &HistoryQuestion, bound: Bound) -> Vec<Facts> {
        let filter =
            Filter { each: query.terms.clone(), since: query.since, until: query.until, ..Filter::default() };
        let past = self.0.lock().unwrap();
        let seen = past.iter().filter(|(seq, facts)| *seq <= bound.head && facts.killmail_id < bound.below);
        seen.filter(|(_, facts)| filter.accepts(facts)).map(|(_, facts)| facts.clone()).collect()
    }
}

impl History for Past {
    fn count(&self, query: &HistoryQuestion, bound: Bound, _: &mut Allowance) -> Result<u64, Exhausted> {
        Ok(self.matching(query, bound).len() as u64)
    }

    fn totals(&self, query: &HistoryQuestion, bound: Bound, _: &mut Allowance) -> Result<Totals, Exhausted> {
        let found = self.matching(query, bound);
        Ok(Totals {
            killmails: found.len() as u64,
            value: found.iter().filter_map(|f| f.total_value).sum(),
            first: found.iter().map(|f| f.time).min(),
            last: found.iter().map(|f| f.time).max(),
        })
    }

    fn last_seen(
        &self,
        term: &RoleClause,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<Option<i64>, Exhausted> {
        let query = HistoryQuestion { terms: vec![term.clone()], ..HistoryQuestion::default() };
        self.totals(&query, bound, allowance).map(|totals| totals.last)
    }
}

fn engine() -> (Arc<Engine>, Arc<Past>) {
    let past = Arc::new(Past::default());
    let history: Arc<dyn History> = past.clone();
    (Engine::new(Config::default(), history, wire::killmail::json).unwrap(), past)
}

/// The component kept in the repository, or the one just rebuilt where `KILLSTREAM_REBUILT_PLUGINS` names its
/// folder.
fn component(engine: &Engine, name: &str) -> Component {
    if let Some(folder) = std::env::var_os("KILLSTREAM_REBUILT_PLUGINS") {
        let path = std::path::Path::new(&folder).join(format!("{name}.wasm"));
        return engine
            .compile(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
            .unwrap();
    }
    engine.compile(prebuilt(name)).unwrap()
}

/// The component kept in the repository.
fn prebuilt(name: &str) -> &'static [u8] {
    match name {
        "gatecamp" => GATECAMP,
        "high-value" => HIGH_VALUE,
        "watchlist" => WATCHLIST,
        other => panic!("there is no plugin {other}"),
    }
}

fn entry(seq: u64, document: &str) -> SharedEntry {
    let killmail = wire::read::package::parse(document.as_bytes()).unwrap().killmail.unwrap();
    Arc::new(Entry {
        seq: Seq(seq),
        rev: 0,
        origin: Origin::Live,
        received_at_ms: killmail.time * 1000,
        uploaded_at: None,
        age_secs: 0,
        facts: facts(&killmail),
        killmail,
        json: OnceLock::new(),
    })
}

fn sample() -> Vec<SharedEntry> {
    (1..).zip(killstream::sample::lines()).map(|(seq, line)| entry(seq, &line)).collect()
}

/// Replays a file of vectors on the built component.
async fn replay(vectors: &str) {
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let says = vectors["says"].as_str().unwrap();
    let (engine, past) = engine();
    let component = component(&engine, vectors["plugin"].as_str().unwrap());
    let evaluator =
        engine.evaluator(&component, &vectors["config"].to_string(), Instance::Warm).await.unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    for (seq, case) in (1..).zip(cases) {
        let entry = entry(seq, &case["killmail"].to_string());
        past.0.lock().unwrap().push((entry.seq, entry.facts.clone()));
        let id = entry.killmail.killmail_id;
        let verdict = engine.evaluate(&evaluator, vec![entry], Run::Live).await.remove(0);
        let verdict =
            verdict.unwrap_or_else(|fault| panic!("{says}: killmail {id} ended in the fault {fault}"));
        let found = match verdict {
            Verdict::Drop => Value::from("drop"),
            Verdict::Keep => Value::from("keep"),
            Verdict::KeepWith(json) => serde_json::from_str(&json).unwrap(),
        };
        assert_eq!(found, case["expect"], "{says}: killmail {id}");
    }
    assert!(!cases.is_empty());
}

macro_rules! vectors {
    ($($name:ident: $file:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            replay(include_str!(concat!("../../plugins/vectors/", $file, ".json"))).await;
        }
    )*};
}

vectors! {
    gatecamp_default: "gatecamp-default";
    gatecamp_tight: "gatecamp-tight";
    high_value_default: "high-value-default";
    high_value_capitals: "high-value-capitals";
    high_value_structures: "high-value-structures";
    watchlist_any: "watchlist-any";
    watchlist_attacker: "watchlist-attacker";
    watchlist_final_blow: "watchlist-final-blow";
    watchlist_victim: "watchlist-victim";
}

/// Law 7: live one by one, again as pages of history on another instance, backwards and fresh, the verdicts
/// are the same.
#[tokio::test(flavor = "multi_thread")]
async fn law_7_same_in_same_out() {
    let (engine, past) = engine();
    let sample = sample();
    past.0.lock().unwrap().extend(sample.iter().take(500).map(|e| (e.seq, e.facts.clone())));
    let some: Vec<SharedEntry> = sample.into_iter().take(500).collect();
    for (name, config) in [
        ("gatecamp", "{\"kills\":2}"),
        ("high-value", "{\"min_isk\":0}"),
        ("watchlist", "{\"corporations\":[98650301],\"alliances\":[498125261]}"),
    ] {
        let component = component(&engine, name);
        engine.try_sample(&component, config, &some[..100]).unwrap();
        let warm = engine.evaluator(&component, config, Instance::Warm).await.unwrap();
        let fresh = engine.evaluator(&component, config, Instance::Fresh).await.unwrap();
        let run = Run::History { head: Seq(u64::MAX) };
        let mut live = Vec::new();
        for entry in &some {
            live.extend(engine.evaluate(&warm, vec![entry.clone()], Run::Live).await);
        }
        let mut backward: Vec<_> = some.clone();
        backward.reverse();
        let mut back = engine.evaluate(&warm, backward, run).await;
        back.reverse();
        assert_eq!(live, back, "{name}: live and history");
        assert_eq!(live, engine.evaluate(&fresh, some.clone(), run).await, "{name}: warm and fresh");
        assert!(live.iter().all(Result::is_ok), "{name}");
        assert!(live.iter().any(|a| matches!(a, Ok(Verdict::KeepWith(_)))), "{name} keeps some");
        assert!(live.contains(&Ok(Verdict::Drop)) || name == "high-value", "{name} drops some");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_interest_evaluate_runs_only_for_its_killmails() {
    let (engine, _) = engine();
    let component = component(&engine, "watchlist");
    let alliance = 498_125_261;
    let watch = engine
        .evaluator(&component, &format!("{{\"alliances\":[{alliance}]}}"), Instance::Warm)
        .await
        .unwrap();
    assert!(watch.interest().is_some());
    let sample = sample();
    let concerned = |facts: &Facts| facts.ids(Dimension::Alliance, Role::Any).any(|id| id == alliance);
    let theirs = sample.iter().filter(|e| concerned(&e.facts)).count() as u64;
    let all = sample.len() as u64;
    let answers = engine.evaluate(&watch, sample, Run::Live).await;
    assert_eq!(answers.iter().filter(|a| matches!(a, Ok(Verdict::KeepWith(_)))).count() as u64, theirs);
    let counts = component.counts();
    assert_eq!((counts.calls, counts.passed_over), (theirs, all - theirs));
    assert!(theirs > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_refused_in_the_plugins_words() {
    let (engine, _) = engine();
    let watchlist = component(&engine, "watchlist");
    let refusal = engine.evaluator(&watchlist, "{}", Instance::Warm).await.unwrap_err();
    assert_eq!(refusal.reason(), "configure");
    assert!(refusal.to_string().contains("characters"), "{refusal}");
}

#[test]
fn the_prebuilt_components_are_those_of_the_list() {
    let sums = include_str!("../../plugins/prebuilt/SHA256SUMS");
    let (engine, _) = engine();
    for name in ["gatecamp", "high-value", "watchlist"] {
        let digest = engine.compile(prebuilt(name)).unwrap().digest().to_owned();
        assert!(sums.contains(&digest), "{name}: {digest}");
    }
}
