//! The bell's reverse index, under the load upstream's published figures were taken with: which subscriptions
//! does this concern?
//!
//! 2,000 subscriptions of 1-10 systems and 5,000 of 1-20 characters. Beside upstream's figures stands, in the
//! same run, `HashMap<Term, HashSet<u64>>`.

mod support;

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::time::{Duration, Instant};

use killstream::domain::filter::{IdSet, IdsIn};
use killstream::domain::term::{Dimension, Term};
use killstream::feed::wakeups::{ReaderId, Wakeups};
use killstream::sample::rng::Dice;
use support::Ledger;

const BY_SYSTEM: u32 = 2_000;
const BY_CHARACTER: u32 = 5_000;
const SYSTEMS: u32 = 5_000;
const CHARACTERS: u32 = 50_000;

/// What upstream publishes: lookup by system, by character, batch of characters, bulk add per subscription;
/// nanoseconds.
const SYSTEM_NANOS: f64 = 8_320.0;
const CHARACTER_NANOS: f64 = 7_640.0;
const BATCH_NANOS: f64 = 20_520.0;
const ADD_NANOS: f64 = 13_150.0;
/// And its memory per index, bytes.
const INDEX_BYTES: f64 = 0.13 * 1024.0 * 1024.0;

fn system(n: u32) -> Term {
    Term { dimension: Dimension::System, id: 30_000_000 + n }
}

fn character(n: u32) -> Term {
    Term { dimension: Dimension::Character, id: 90_000_000 + n * 13 }
}

fn some(dice: &mut Dice, most: u32, of: u32, term: fn(u32) -> Term) -> Vec<Term> {
    let mut terms: Vec<Term> = (0..1 + dice.below(most)).map(|_| term(dice.below(of))).collect();
    terms.sort_unstable();
    terms.dedup();
    terms
}

/// What one subscription wants: as the baseline takes it, and as a filter has it.
#[derive(Clone)]
struct Wanted {
    terms: Vec<Term>,
    ids: [IdsIn; 1],
}

impl Wanted {
    /// Terms of one dimension.
    fn new(terms: Vec<Term>) -> Self {
        let ids = IdSet::new(terms.iter().map(|term| term.id).collect());
        Self { ids: [IdsIn { dimension: terms[0].dimension, ids }], terms }
    }
}

fn subscriptions() -> Vec<Wanted> {
    let mut dice = Dice::new(7);
    let systems: Vec<_> = (0..BY_SYSTEM).map(|_| Wanted::new(some(&mut dice, 10, SYSTEMS, system))).collect();
    let characters: Vec<_> =
        (0..BY_CHARACTER).map(|_| Wanted::new(some(&mut dice, 20, CHARACTERS, character))).collect();
    [systems, characters].concat()
}

fn hung(subscriptions: &[Wanted]) -> Wakeups {
    let wakeups = Wakeups::default();
    for wanted in subscriptions {
        let (reader_id, _) = wakeups.register();
        wakeups.watch(reader_id, Some(&wanted.ids));
    }
    wakeups
}

type Plain = HashMap<Term, HashSet<u64>>;

fn plain(subscriptions: &[Wanted]) -> Plain {
    let mut plain = Plain::new();
    for (number, wanted) in (0_u64..).zip(subscriptions) {
        for term in &wanted.terms {
            plain.entry(*term).or_default().insert(number);
        }
    }
    plain
}

fn lookup(plain: &Plain, terms: &[Term]) -> HashSet<u64> {
    terms.iter().filter_map(|term| plain.get(term)).flatten().copied().collect()
}

fn main() {
    let mut ledger = Ledger::new("subscribe");
    let subscriptions = subscriptions();
    let (wakeups, plain) = (hung(&subscriptions), plain(&subscriptions));
    lookups(&mut ledger, &wakeups, &plain);
    adding(&mut ledger, &subscriptions);
    ledger.table();
    ledger.against("by system", "upstream by system", SYSTEM_NANOS);
    ledger.against("by character", "upstream by character", CHARACTER_NANOS);
    ledger.against("10 characters", "upstream's batch", BATCH_NANOS);
    ledger.against("bulk add, per subscription", "upstream's bulk add", ADD_NANOS);
    for name in
        ["by system", "by character", "10 characters", "50 characters", "100 characters", "500 characters"]
    {
        ledger.ratio(name, &format!("plain {name}"));
    }
    ledger.ratio("bulk add, per subscription", "plain bulk add, per subscription");
    ledger.alone("add and take away", |_| "one subscription of 20 characters".to_owned());
    sizes(&subscriptions);
}

fn lookups(ledger: &mut Ledger, wakeups: &Wakeups, plain: &Plain) {
    let mut dice = Dice::new(8);
    let batches = |dice: &mut Dice, count: u32, of: u32, term: fn(u32) -> Term| -> Vec<Vec<Term>> {
        (0..512).map(|_| (0..count).map(|_| term(dice.below(of))).collect()).collect()
    };
    let asked = [
        ("by system", batches(&mut dice, 1, SYSTEMS, system)),
        ("by character", batches(&mut dice, 1, CHARACTERS, character)),
        ("10 characters", batches(&mut dice, 10, CHARACTERS, character)),
        ("50 characters", batches(&mut dice, 50, CHARACTERS, character)),
        ("100 characters", batches(&mut dice, 100, CHARACTERS, character)),
        ("500 characters", batches(&mut dice, 500, CHARACTERS, character)),
    ];
    let mut found: Vec<ReaderId> = Vec::new();
    for (name, batches) in &asked {
        for batch in batches {
            wakeups.find(batch.iter().copied(), &mut found);
            let known: HashSet<u64> = found.iter().map(|reader_id| u64::from(*reader_id)).collect();
            assert_eq!(known, lookup(plain, batch), "{name}");
        }
        let mut at = 0;
        ledger.measure(name, || {
            at = (at + 1) % batches.len();
            wakeups.find(batches[at].iter().copied(), &mut found);
            found.len()
        });
        let mut at = 0;
        ledger.measure(&format!("plain {name}"), || {
            at = (at + 1) % batches.len();
            lookup(plain, &batches[at]).len()
        });
    }
}

fn adding(ledger: &mut Ledger, subscriptions: &[Wanted]) {
    let per = |took: Duration| took / u32::try_from(subscriptions.len()).unwrap_or(1);
    ledger.timed("bulk add, per subscription", |iterations| {
        let took = (0..iterations).map(|_| {
            let begun = Instant::now();
            let wakeups = hung(subscriptions);
            let took = begun.elapsed();
            black_box(wakeups.len());
            took
        });
        per(took.sum())
    });
    ledger.timed("plain bulk add, per subscription", |iterations| {
        let took = (0..iterations).map(|_| {
            let begun = Instant::now();
            let plain = plain(subscriptions);
            let took = begun.elapsed();
            black_box(plain.len());
            took
        });
        per(took.sum())
    });
    let wakeups = hung(subscriptions);
    let mut dice = Dice::new(9);
    let wanted = Wanted::new((0..20).map(|_| character(dice.below(CHARACTERS))).collect());
    ledger.measure("add and take away", || {
        let (reader_id, _) = wakeups.register();
        wakeups.watch(reader_id, Some(&wanted.ids));
        wakeups.unwatch(reader_id, Some(&wanted.ids));
        wakeups.unregister(reader_id);
    });
}

/// Memory of an index of systems and one of characters.
fn sizes(subscriptions: &[Wanted]) {
    let (systems, characters) = subscriptions.split_at(BY_SYSTEM as usize);
    for (name, part) in [("systems", systems), ("characters", characters)] {
        let bytes = hung(part).bytes();
        let pairs: usize = part.iter().map(|wanted| wanted.terms.len()).sum();
        println!(
            "index of {name}: {bytes} bytes, {} subscriptions, {pairs} pairs, {:.1} bytes a pair; upstream says {INDEX_BYTES:.0} bytes an index",
            part.len(),
            bytes as f64 / pairs as f64
        );
    }
}
