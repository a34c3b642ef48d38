//! Law 7 (same input, same output) for the charges of questions to history: the charge and the answer stay
//! the same, whatever was added since the question was first asked. A fault that depends on when a killmail
//! was evaluated would make verdicts unrepeatable.
//!
//! Must not know: how an answer is found, or what it is charged for.

use bytes::Bytes;

use crate::domain::entry::Origin;
use crate::domain::filter::{IdSet, RoleClause};
use crate::domain::killmail::Killmail;
use crate::domain::term::{Dimension, Role};
use crate::plugin::history::{Allowance, Bound, History, HistoryQuestion};
use crate::plugins::plugin_history::StoreHistory;
use crate::sample::generate::Recipe;
use crate::store::Store;
use crate::store::config::Config;
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};

/// Allowances of one call, nanoseconds: enough for all, too little for some, and too little for most
/// questions.
const ALLOWANCES: [u64; 4] = [50_000_000, 2_000_000, 100_000, 15_000];

fn term(dimension: Dimension, role: Role, ids: &[u32]) -> RoleClause {
    RoleClause { dimension, role, ids: IdSet::new(ids.to_vec()) }
}

/// Questions a plugin may ask about this killmail: with few and many ids, with ids that only occur later,
/// with roles, and within time ranges.
fn questions(about: &Killmail, later: &Killmail) -> Vec<HistoryQuestion> {
    let systems: Vec<u32> = (30_000_000..30_006_000).collect();
    let ships: Vec<u32> = (500..700).chain(11_000..12_500).collect();
    let characters: Vec<u32> =
        [about, later].into_iter().flat_map(|k| k.attackers.iter().filter_map(|a| a.character_id)).collect();
    let (system, ship) = (about.solar_system_id, about.victim.ship_type_id.unwrap_or(670));
    let terms = [
        vec![],
        vec![term(Dimension::System, Role::Any, &[system])],
        vec![term(Dimension::System, Role::Any, &[later.solar_system_id])],
        vec![term(Dimension::System, Role::Any, &systems)],
        vec![term(Dimension::ShipType, Role::Any, &[670])],
        vec![term(Dimension::ShipType, Role::Any, &[ship]), term(Dimension::System, Role::Any, &systems)],
        vec![term(Dimension::ShipType, Role::Any, &[670]), term(Dimension::System, Role::Any, &[system])],
        vec![
            term(Dimension::Character, Role::Any, &characters),
            term(Dimension::ShipType, Role::Any, &ships),
        ],
        vec![term(Dimension::ShipType, Role::Victim, &[ship])],
        vec![term(Dimension::ShipType, Role::Any, &[])],
    ];
    let day = Some(about.time - 86_400);
    let times = [
        (None, None),
        (day, None),
        (day, Some(about.time)),
        (Some(about.time - 7_200), Some(about.time - 1_800)),
    ];
    let within = |terms: &Vec<RoleClause>| {
        times.map(|(since, until)| HistoryQuestion { terms: terms.clone(), since, until })
    };
    terms.iter().flat_map(within).collect()
}

/// The answer to each question with each allowance, and what is left of the allowance.
fn answer_all(
    history: &StoreHistory,
    questions: &[HistoryQuestion],
    bound: Bound,
) -> Vec<(Option<u64>, u64)> {
    let mut answers = Vec::new();
    for (query, max) in questions.iter().flat_map(|query| ALLOWANCES.map(|max| (query, max))) {
        let mut allowance = Allowance::new(max);
        let count = history.count(query, bound, &mut allowance).ok();
        answers.push((count, allowance.remaining()));
        let totals = history.totals(query, bound, &mut allowance).ok();
        answers.push((totals.map(|totals| totals.killmails), allowance.remaining()));
        if let [term] = &query.terms[..] {
            let seen = history.last_seen(term, bound, &mut allowance).ok().flatten();
            answers.push((seen.map(i64::unsigned_abs), allowance.remaining()));
        }
    }
    answers
}

#[test]
fn law_7_a_question_is_charged_the_same_whenever_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::open(Config { dir: dir.path().to_owned(), ..Config::default() }, |_| Bytes::new()).unwrap();
    let history = StoreHistory::new(&store);
    // A third of the killmails arrive hours or days after others with higher ids.
    let recipe = Recipe { killmails: 9_000, days: 3.0, late: 0.3, revised: 0.0, ..Recipe::default() };
    let made: Vec<_> = recipe.generate().collect();
    let last = made.last().unwrap().killmail.clone();
    let mut before = Vec::new();
    for made in made.chunks(750) {
        let batch = made.iter().map(|made| Incoming {
            killmail: made.killmail.clone(),
            origin: Origin::Live,
            received_at_ms: (made.uploaded_at + 3) * 1000,
            uploaded_at: Some(made.uploaded_at),
            age: AgeRule::ByUpload,
            zkb: ZkbRule::IfNewer,
        });
        store.append(batch.collect(), None).unwrap();
        let newest = &made[made.len() - 1].killmail;
        let questions = questions(newest, &last);
        let bound = Bound { below: newest.killmail_id, head: store.head() };
        let answers = answer_all(&history, &questions, bound);
        before.push((questions, bound, answers));
    }
    let all_answers = || before.iter().flat_map(|(_, _, answers)| answers);
    assert!(
        all_answers().any(|(answer, _)| answer.is_some_and(|count| count > 500))
            && all_answers().any(|(answer, _)| answer.is_none())
    );
    for (questions, bound, answers) in &before {
        let now = answer_all(&history, questions, *bound);
        for (at, (then, now)) in answers.iter().zip(&now).enumerate() {
            assert_eq!(
                then, now,
                "answer {at} about the killmails before {} up to {}",
                bound.below, bound.head
            );
        }
    }
}
