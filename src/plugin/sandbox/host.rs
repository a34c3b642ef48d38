//! The functions that a guest can import: the killmail being evaluated, history, static data, the log.
//!
//! Killmail functions answer about the killmail being evaluated and copy only what the guest asks for.
//!
//! Must not know: where killmails come from, how many guests there are.

use std::result;
use std::sync::Arc;

use wasmtime::{Result, bail};

use crate::domain::entry::SharedEntry;
use crate::domain::verdict::Fault;
use crate::plugin::history::{Allowance, Bound, Exhausted, History, HistoryQuestion};
use crate::plugin::resources::cpu_clock::billable_cpu;
use crate::plugin::sandbox::bindings::killstream::plugin::types;
use crate::plugin::sandbox::bindings::killstream::plugin::types::{
    AttackerColumns, EveId, IskValues, ItemColumns, Kind as WitKind, Point, Role as WitRole, Term,
};
use crate::plugin::sandbox::bindings::killstream::plugin::{
    history, killmail, log, universe as wit_universe,
};
use crate::plugin::sandbox::convert;
use crate::plugin::sandbox::state::{CurrentKillmail, State};
use crate::universe;

/// Longer lists are searched on the host's time, not the guest's.
const LONG_LIST: usize = 1_000;

// Charges, nanoseconds of CPU time, taken before the work is done. Those of history were measured
// (`plugins/history_cost`). Whoever answers a question charges what the answer takes beyond them.
/// A question to history, whatever it contains.
const QUESTION: u64 = 1_000;
/// A term of a question.
const TERM: u64 = 500;
/// An id of a term, to be sorted and looked up.
const ID: u64 = 250;
/// An id of a list that is compared with the killmail's participants.
const INVOLVED_ID: u64 = 40;
/// An attacker's row in all columns, written and copied to the guest; an item's row.
const ATTACKER: u64 = 100;
const ITEM: u64 = 60;
/// A row of one column; a label.
const CELL: u64 = 20;
const LABEL: u64 = 100;
/// The JSON of a killmail: the base, each attacker, each item.
const JSON: u64 = 10_000;
const JSON_ATTACKER: u64 = 2_000;
const JSON_ITEM: u64 = 500;
/// A jump that a route search may have to go. Beyond `JUMPS_SEEN` jumps it has seen the whole map.
const JUMP: u64 = 3_000;
const JUMPS_SEEN: u32 = 30;

/// The size of a question to history, which decides its charge.
#[derive(Clone, Copy)]
struct QuestionSize {
    terms: usize,
    ids: usize,
}

impl QuestionSize {
    const ONE_ID: Self = Self { terms: 1, ids: 1 };
}

/// A question in the contract's types. It is converted only after it was charged.
struct TermsQuestion {
    terms: Vec<Term>,
    /// Unix seconds; 0 is no bound.
    since: i64,
    until: i64,
}

/// Numbers of rows of the killmail being evaluated.
struct RowCounts {
    attackers: u64,
    items: u64,
}

impl State {
    fn current_entry(&self) -> Result<&SharedEntry> {
        self.current
            .as_ref()
            .map(CurrentKillmail::entry)
            .ok_or_else(|| wasmtime::Error::msg("no killmail is being evaluated"))
    }

    fn history_bound(&self) -> Result<Bound> {
        self.current
            .as_ref()
            .map(|current| current.bound)
            .ok_or_else(|| wasmtime::Error::msg("history is only available in `evaluate`"))
    }

    fn row_counts(&self) -> Result<RowCounts> {
        let killmail = &self.current_entry()?.killmail;
        Ok(RowCounts { attackers: killmail.attackers.len() as u64, items: convert::item_count(killmail) })
    }

    /// Charges work before it is done; `what` describes it if it is too much.
    fn charge(&mut self, nanos: u64, what: impl FnOnce() -> String) -> Result<()> {
        let charged = self.allowance.charge(nanos);
        self.fault_if_exhausted(charged, what)
    }

    fn fault_if_exhausted<T>(
        &mut self,
        answer: result::Result<T, Exhausted>,
        what: impl FnOnce() -> String,
    ) -> Result<T> {
        answer.map_err(|exhausted| {
            self.fault = Some(Fault::HostBudget);
            wasmtime::Error::msg(format!("{} takes {exhausted}", what()))
        })
    }

    /// Does work for the guest that does not count as the guest's own CPU time but has a budget of its own.
    fn run_counted<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = billable_cpu();
        let answer = work(self);
        self.stopwatch.host_cpu += billable_cpu().saturating_sub(before);
        if self.stopwatch.host_cpu >= self.host_cpu_max {
            self.fault = Some(Fault::HostBudget);
            bail!(
                "asked the host for more than {} ms of work (plugin.host_cpu_ms)",
                self.host_cpu_max.as_millis()
            );
        }
        answer
    }

    fn ask_history<T>(
        &mut self,
        size: QuestionSize,
        question: impl FnOnce(&dyn History, Bound, &mut Allowance) -> result::Result<T, Exhausted>,
    ) -> Result<T> {
        let bound = self.history_bound()?;
        self.history_calls += 1;
        if self.history_calls > self.config.history_calls_max {
            self.fault = Some(Fault::HostBudget);
            bail!(
                "asked history more than {} questions (plugin.history_calls_max)",
                self.config.history_calls_max
            );
        }
        let QuestionSize { terms, ids } = size;
        let what = || format!("a question of {terms} terms and {ids} ids");
        let nanos = (terms as u64).saturating_mul(TERM).saturating_add((ids as u64).saturating_mul(ID));
        self.charge(nanos.saturating_add(QUESTION), what)?;
        self.run_counted(|state| {
            let services = Arc::clone(&state.services);
            let answer = question(&*services.history, bound, &mut state.allowance);
            state.fault_if_exhausted(answer, what)
        })
    }

    fn ask_history_terms<T>(
        &mut self,
        asked: TermsQuestion,
        question: impl FnOnce(
            &dyn History,
            &HistoryQuestion,
            Bound,
            &mut Allowance,
        ) -> result::Result<T, Exhausted>,
    ) -> Result<T> {
        let TermsQuestion { terms, since, until } = asked;
        let size = QuestionSize { terms: terms.len(), ids: terms.iter().map(|term| term.ids.len()).sum() };
        self.ask_history(size, |history, bound, allowance| {
            question(history, &convert::history_question(terms, since, until), bound, allowance)
        })
    }
}

impl types::Host for State {}

impl killmail::Host for State {
    fn attackers(&mut self) -> Result<AttackerColumns> {
        let RowCounts { attackers, .. } = self.row_counts()?;
        self.charge(attackers.saturating_mul(ATTACKER), || format!("columns of {attackers} attackers"))?;
        Ok(convert::attackers(&self.current_entry()?.killmail))
    }

    fn items(&mut self) -> Result<ItemColumns> {
        let RowCounts { items, .. } = self.row_counts()?;
        self.charge(items.saturating_mul(ITEM), || format!("columns of {items} items"))?;
        Ok(convert::items(&self.current_entry()?.killmail))
    }

    fn values(&mut self) -> Result<IskValues> {
        Ok(convert::values(&self.current_entry()?.killmail))
    }

    fn position(&mut self) -> Result<Option<Point>> {
        Ok(self.current_entry()?.killmail.victim.position.map(|p| Point { x: p.x, y: p.y, z: p.z }))
    }

    fn labels(&mut self) -> Result<Vec<String>> {
        let labels = self.current_entry()?.facts.labels.len() as u64;
        self.charge(labels.saturating_mul(LABEL), || format!("a list of {labels} labels"))?;
        Ok(self.current_entry()?.facts.labels.clone())
    }

    fn column(&mut self, of: WitKind, role: WitRole) -> Result<Vec<EveId>> {
        let RowCounts { attackers, .. } = self.row_counts()?;
        self.charge(attackers.saturating_mul(CELL), || format!("a column of {attackers} attackers"))?;
        Ok(convert::column(self.current_entry()?, convert::dimension(of), convert::role(role)))
    }

    fn involves(&mut self, of: WitKind, role: WitRole, ids: Vec<EveId>) -> Result<bool> {
        let (dimension, role) = (convert::dimension(of), convert::role(role));
        self.charge((ids.len() as u64).saturating_mul(INVOLVED_ID), || {
            format!("a list of {} ids", ids.len())
        })?;
        if ids.len() <= LONG_LIST {
            return Ok(convert::involves(&self.current_entry()?.facts, dimension, role, &ids));
        }
        self.run_counted(|state| Ok(convert::involves(&state.current_entry()?.facts, dimension, role, &ids)))
    }

    fn json(&mut self) -> Result<String> {
        let RowCounts { attackers, items } = self.row_counts()?;
        let nanos = attackers
            .saturating_mul(JSON_ATTACKER)
            .saturating_add(items.saturating_mul(JSON_ITEM))
            .saturating_add(JSON);
        self.charge(nanos, || format!("the JSON of {attackers} attackers and {items} items"))?;
        self.run_counted(|state| {
            let json = (state.services.json)(state.current_entry()?);
            Ok(String::from_utf8_lossy(&json).into_owned())
        })
    }
}

impl history::Host for State {
    fn count(&mut self, query: history::Query) -> Result<u64> {
        self.ask_history(QuestionSize::ONE_ID, |history, bound, allowance| {
            history.count(&one_term(&query), bound, allowance)
        })
    }

    fn count_all(&mut self, terms: Vec<Term>, since: i64, until: i64) -> Result<u64> {
        self.ask_history_terms(TermsQuestion { terms, since, until }, |history, query, bound, allowance| {
            history.count(query, bound, allowance)
        })
    }

    fn summarize(&mut self, terms: Vec<Term>, since: i64, until: i64) -> Result<history::Totals> {
        let totals = self
            .ask_history_terms(TermsQuestion { terms, since, until }, |history, query, bound, allowance| {
                history.totals(query, bound, allowance)
            });
        totals.map(convert::totals)
    }

    fn last_seen(&mut self, of: WitKind, role: WitRole, id: EveId) -> Result<Option<i64>> {
        self.ask_history(QuestionSize::ONE_ID, |history, bound, allowance| {
            history.last_seen(&convert::role_clause(of, role, vec![id]), bound, allowance)
        })
    }
}

fn one_term(query: &history::Query) -> HistoryQuestion {
    let term = Term { of: query.of, role: query.role, ids: vec![query.id] };
    convert::history_question(vec![term], query.since, query.until)
}

impl wit_universe::Host for State {
    fn name(&mut self, of: WitKind, id: EveId) -> Result<Option<String>> {
        Ok(convert::name(convert::dimension(of), id).map(str::to_owned))
    }

    fn group(&mut self, type_id: EveId) -> Result<EveId> {
        Ok(universe::group_of(type_id).unwrap_or(0))
    }

    fn category(&mut self, type_id: EveId) -> Result<EveId> {
        Ok(universe::group_of(type_id).and_then(universe::category_of_group).unwrap_or(0))
    }

    fn constellation(&mut self, system: EveId) -> Result<EveId> {
        Ok(universe::system(system).map_or(0, |s| s.constellation_id))
    }

    fn region(&mut self, system: EveId) -> Result<EveId> {
        Ok(universe::system(system).map_or(0, |s| s.region_id))
    }

    fn security(&mut self, system: EveId) -> Result<Option<f64>> {
        Ok(universe::system(system).map(|s| f64::from(s.security)))
    }

    fn jumps(&mut self, a: EveId, b: EveId, max: u32) -> Result<Option<u32>> {
        self.charge(u64::from(max.min(JUMPS_SEEN)).saturating_mul(JUMP), || {
            format!("a route of up to {max} jumps")
        })?;
        self.run_counted(|_| Ok(universe::jumps(a, b, max)))
    }

    fn light_years(&mut self, a: EveId, b: EveId) -> Result<Option<f64>> {
        Ok(universe::light_years(a, b))
    }
}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) -> Result<()> {
        self.log_line(level, &message);
        Ok(())
    }
}
