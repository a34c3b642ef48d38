//! Tests plugins in ordinary `cargo test`: a [`Stage`] implements the host functions from killmails
//! and facts you give it. It differs from the server: nothing is limited, nothing is fast.
//!
//! ```
//! use killstream_plugin::{Killmail, Plugin, Verdict, testing::{Stage, configure}};
//!
//! #[derive(serde::Deserialize)]
//! struct Second;
//!
//! impl Plugin for Second {
//!     fn evaluate(&self, killmail: &Killmail) -> Result<Verdict, String> {
//!         let last = killstream_plugin::history::last_seen(
//!             killstream_plugin::Kind::System, killstream_plugin::Role::Any, killmail.system);
//!         Ok(Verdict::keep_if(last.is_some()))
//!     }
//! }
//!
//! let plugin: Second = configure("null").expect("accepted");
//! let mut stage = Stage::default();
//! let one = serde_json::json!({"killmail_id": 1, "solar_system_id": 30000142, "attackers": [], "victim": {}});
//! let two = serde_json::json!({"killmail_id": 2, "solar_system_id": 30000142, "attackers": [], "victim": {}});
//! assert_eq!(stage.judge(&plugin, &one), Ok(Verdict::Drop));
//! assert_eq!(stage.judge(&plugin, &two), Ok(Verdict::Keep));
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use crate::{Interest, Killmail, Plugin, Verdict};

pub(crate) mod answers;
mod record;
mod vectors;

use record::Record;
pub use vectors::replay;

/// The data behind the host functions. Killmails evaluated here become its history.
#[derive(Debug, Clone, Default)]
pub struct Stage {
    /// Type id -> group and category.
    pub types: BTreeMap<u32, (u32, u32)>,
    /// Solar system id -> constellation, region and true security.
    pub systems: BTreeMap<u32, (u32, u32, f64)>,
    /// Id -> name, for ids of any kind.
    pub names: BTreeMap<u32, String>,
    /// Two solar systems -> stargate jumps; looked up in the same order.
    pub jumps: BTreeMap<(u32, u32), u32>,
    /// Two solar systems -> light years; looked up in the same order.
    pub light_years: BTreeMap<(u32, u32), f64>,
    history: Vec<Rc<Record>>,
    now: Option<Rc<Record>>,
}

/// Reads a configuration as the plugin does on the server.
pub fn configure<P: Plugin>(config: &str) -> Result<P, String> {
    crate::guest::read(config)
}

impl Stage {
    /// Evaluates a killmail (ESI's JSON, with `zkb` if there is one) and adds it to the history.
    ///
    /// # Panics
    ///
    /// If the plugin keeps a killmail outside its interest, which the server would never pass to it.
    pub fn judge<P: Plugin>(&mut self, plugin: &P, killmail: &Value) -> Result<Verdict, String> {
        let record = Rc::new(Record::read(killmail));
        self.now = Some(record.clone());
        let verdict = self.clone().perform(|| plugin.evaluate(&Killmail::new(record.summary(self))));
        let wanted = self.is_of_interest(&plugin.interest());
        assert!(wanted || !matches!(verdict, Ok(Verdict::Keep | Verdict::KeepWith(_))), "kept outside its interest: {}", record.id);
        self.now = None;
        self.history.push(record);
        verdict
    }

    fn is_of_interest(&self, interest: &Interest) -> bool {
        let Some(now) = &self.now else { return false };
        let summary = now.summary(self);
        (interest.any_of.is_empty() || interest.any_of.iter().any(|term| now.matches(self, term)))
            && (interest.min_value <= 0.0 || summary.total_value >= interest.min_value)
            && summary.attacker_count >= interest.min_attackers
            && (interest.max_attackers == 0 || summary.attacker_count <= interest.max_attackers)
            && summary.traits.contains(interest.having)
            && !summary.traits.intersects(interest.lacking)
    }

    /// Runs code with this stage behind the host functions.
    fn perform<T>(self, run: impl FnOnce() -> T) -> T {
        STAGE.with(|stage| *stage.borrow_mut() = Some(self));
        let outcome = run();
        STAGE.with(|stage| *stage.borrow_mut() = None);
        outcome
    }
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// Queries the current stage; without one (in `check`, `interest`) there is no killmail and no history.
fn ask<T>(question: impl FnOnce(&Stage) -> T) -> T {
    STAGE.with(|stage| question(stage.borrow().as_ref().unwrap_or(&Stage::default())))
}
