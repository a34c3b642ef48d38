//! Shared helpers of the engine tests: an engine, killmails, one call.
//!
//! Must not know: what is tested.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::domain::entry::{Entry, Origin, SharedEntry};
use crate::domain::facts::{Columns, Facts, Places};
use crate::domain::id::Seq;
use crate::domain::killmail::{Attacker, Killmail, Victim};
use crate::domain::term::Dimension;
use crate::plugin::engine::Engine;
use crate::plugin::history::NoHistory;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::run::{Answer, Instance, Run};
use crate::plugin::limits::Config;

/// An engine without history.
pub fn engine(config: Config) -> Arc<Engine> {
    Engine::new(config, Arc::new(NoHistory), |entry| {
        Bytes::from(format!("{{\"killmail_id\":{}}}", entry.killmail.killmail_id))
    })
    .expect("the engine starts")
}

/// An evaluator of these bytes with the configuration `{}`.
pub async fn evaluator(engine: &Engine, bytes: &[u8]) -> Evaluator {
    let component = engine.compile(bytes).expect("it compiles");
    engine.evaluator(&component, "{}", Instance::Warm).await.expect("it takes `{}`")
}

/// Judges one killmail.
pub async fn judge(engine: &Engine, evaluator: &Evaluator, id: u32) -> Answer {
    engine.evaluate(evaluator, vec![killmail(id)], Run::Live).await.remove(0)
}

/// A killmail of two attackers, in alliances 1 and 2; the second had the final blow.
pub fn killmail(id: u32) -> SharedEntry {
    let attacker = |alliance: u32, final_blow: bool| Attacker {
        character_id: Some(90_000_000 + alliance),
        alliance_id: Some(alliance),
        final_blow,
        ..Attacker::default()
    };
    let killmail = Killmail {
        killmail_id: id,
        time: 1_600_000_000 + i64::from(id),
        solar_system_id: 30_000_142,
        victim: Victim { character_id: Some(95_000_000), ship_type_id: Some(670), ..Victim::default() },
        attackers: vec![attacker(1, false), attacker(2, true)],
        ..Killmail::default()
    };
    let column = |alliances: &[u32]| {
        let mut columns = Columns::default();
        columns.set(Dimension::Alliance, alliances.to_vec());
        columns.set(Dimension::Character, alliances.iter().map(|a| 90_000_000 + a).collect());
        columns
    };
    let facts = Facts {
        killmail_id: id,
        time: killmail.time,
        places: Places::default().with(Dimension::System, 30_000_142),
        attackers: column(&[1, 2]),
        final_blow: column(&[2]),
        attacker_count: 2,
        ..Facts::default()
    };
    Arc::new(Entry {
        seq: Seq(u64::from(id)),
        rev: 0,
        origin: Origin::Live,
        received_at_ms: 0,
        uploaded_at: None,
        age_secs: 0,
        killmail,
        facts,
        json: OnceLock::new(),
    })
}
