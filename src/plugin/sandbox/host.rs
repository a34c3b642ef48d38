//! What a guest can call: the killmail now judged, history, static facts, the log.
//!
//! Every function answers about "the killmail now judged", so nothing is handed over that was not asked for.
//!
//! Must not know: where killmails come from; how many guests there are.

use std::result;
use std::sync::Arc;

use wasmtime::{Result, bail};

use crate::domain::entry::SharedEntry;
use crate::domain::term::Dimension;
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
use crate::plugin::sandbox::state::{Now, State};
use crate::universe;

/// Lists longer than this are the host's work: its time is not the guest's.
const LONG_LIST: usize = 1_000;

// Charges, nanoseconds of CPU time, taken before the work is done. Those of history were measured
// (`feed/history_cost`); what an answer takes beyond them is charged by whoever answers.
/// A question to history, whatever is in it.
const QUESTION: u64 = 1_000;
/// A term of a question.
const TERM: u64 = 500;
/// An id of a term, to be sorted and looked up.
const ID: u64 = 250;
/// An id of a list that the killmail's parties are held against.
const INVOLVED_ID: u64 = 40;
/// An attacker's row in all columns, written and handed over; an item's.
const ATTACKER: u64 = 100;
const ITEM: u64 = 60;
/// A row of one column, a label.
const CELL: u64 = 20;
const LABEL: u64 = 100;
/// The JSON of a killmail: whatever is in it, an attacker, an item.
const JSON: u64 = 10_000;
const JSON_ATTACKER: u64 = 2_000;
const JSON_ITEM: u64 = 500;
/// A jump that the search for a way may have to go; beyond so many the whole map has been seen.
const JUMP: u64 = 3_000;
const JUMPS_SEEN: u32 = 30;

impl State {
    fn judged(&self) -> Result<&SharedEntry> {
        self.now.as_ref().map(Now::entry).ok_or_else(|| wasmtime::Error::msg("no killmail is judged now"))
    }

    fn bound(&self) -> Result<Bound> {
        self.now
            .as_ref()
            .map(|now| now.bound)
            .ok_or_else(|| wasmtime::Error::msg("history may be asked in `evaluate` only"))
    }

    /// Attackers and items of the killmail now judged.
    fn size(&self) -> Result<(u64, u64)> {
        let killmail = &self.judged()?.killmail;
        Ok((killmail.attackers.len() as u64, convert::item_count(killmail)))
    }

    /// Takes off what is about to be done for the guest; `what` it asks for, where that is too much.
    fn charge(&mut self, nanos: u64, what: impl FnOnce() -> String) -> Result<()> {
        let charged = self.allowance.charge(nanos);
        self.allowed(charged, what)
    }

    fn allowed<T>(
        &mut self,
        answer: result::Result<T, Exhausted>,
        what: impl FnOnce() -> String,
    ) -> Result<T> {
        answer.map_err(|exhausted| {
            self.fault = Some(Fault::HostBudget);
            wasmtime::Error::msg(format!("{} takes {exhausted}", what()))
        })
    }

    /// Work done for the guest: its time is not the guest's, but it has a budget.
    fn work<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = billable_cpu();
        let answer = work(self);
        self.watch.host_cpu += billable_cpu().saturating_sub(before);
        if self.watch.host_cpu >= self.host_cpu_max {
            self.fault = Some(Fault::HostBudget);
            bail!(
                "asked the host for more than {} ms of work (plugin.host_cpu_ms)",
                self.host_cpu_max.as_millis()
            );
        }
        answer
    }

    /// A question to history of so many terms and ids.
    fn ask<T>(
        &mut self,
        (terms, ids): (usize, usize),
        question: impl FnOnce(&dyn History, Bound, &mut Allowance) -> result::Result<T, Exhausted>,
    ) -> Result<T> {
        let bound = self.bound()?;
        self.history_calls += 1;
        if self.history_calls > self.config.history_calls_max {
            self.fault = Some(Fault::HostBudget);
            bail!(
                "asked history more than {} questions (plugin.history_calls_max)",
                self.config.history_calls_max
            );
        }
        let what = || format!("a question of {terms} terms and {ids} ids");
        let nanos = (terms as u64).saturating_mul(TERM).saturating_add((ids as u64).saturating_mul(ID));
        self.charge(nanos.saturating_add(QUESTION), what)?;
        self.work(|state| {
            let outside = Arc::clone(&state.outside);
            let answer = question(&*outside.history, bound, &mut state.allowance);
            state.allowed(answer, what)
        })
    }

    fn ask_of_all<T>(
        &mut self,
        terms: Vec<Term>,
        (since, until): (i64, i64),
        question: impl FnOnce(
            &dyn History,
            &HistoryQuestion,
            Bound,
            &mut Allowance,
        ) -> result::Result<T, Exhausted>,
    ) -> Result<T> {
        let size = (terms.len(), terms.iter().map(|term| term.ids.len()).sum());
        self.ask(size, |history, bound, allowance| {
            question(history, &convert::history_query(terms, since, until), bound, allowance)
        })
    }
}

impl types::Host for State {}

impl killmail::Host for State {
    fn attackers(&mut self) -> Result<AttackerColumns> {
        let (attackers, _) = self.size()?;
        self.charge(attackers.saturating_mul(ATTACKER), || format!("columns of {attackers} attackers"))?;
        Ok(convert::attackers(&self.judged()?.killmail))
    }

    fn items(&mut self) -> Result<ItemColumns> {
        let (_, items) = self.size()?;
        self.charge(items.saturating_mul(ITEM), || format!("columns of {items} items"))?;
        Ok(convert::items(&self.judged()?.killmail))
    }

    fn values(&mut self) -> Result<IskValues> {
        Ok(convert::values(&self.judged()?.killmail))
    }

    fn position(&mut self) -> Result<Option<Point>> {
        Ok(self.judged()?.killmail.victim.position.map(|p| Point { x: p.x, y: p.y, z: p.z }))
    }

    fn labels(&mut self) -> Result<Vec<String>> {
        let labels = self.judged()?.facts.labels.len() as u64;
        self.charge(labels.saturating_mul(LABEL), || format!("a list of {labels} labels"))?;
        Ok(self.judged()?.facts.labels.clone())
    }

    fn column(&mut self, of: WitKind, role: WitRole) -> Result<Vec<EveId>> {
        let (attackers, _) = self.size()?;
        self.charge(attackers.saturating_mul(CELL), || format!("a column of {attackers} attackers"))?;
        Ok(convert::column(self.judged()?, convert::kind(of), convert::role(role)))
    }

    fn involves(&mut self, of: WitKind, role: WitRole, ids: Vec<EveId>) -> Result<bool> {
        let (kind, role) = (convert::kind(of), convert::role(role));
        self.charge((ids.len() as u64).saturating_mul(INVOLVED_ID), || {
            format!("a list of {} ids", ids.len())
        })?;
        if ids.len() <= LONG_LIST {
            return Ok(convert::involves(&self.judged()?.facts, kind, role, &ids));
        }
        self.work(|state| Ok(convert::involves(&state.judged()?.facts, kind, role, &ids)))
    }

    fn json(&mut self) -> Result<String> {
        let (attackers, items) = self.size()?;
        let nanos = attackers
            .saturating_mul(JSON_ATTACKER)
            .saturating_add(items.saturating_mul(JSON_ITEM))
            .saturating_add(JSON);
        self.charge(nanos, || format!("the JSON of {attackers} attackers and {items} items"))?;
        self.work(|state| {
            let json = (state.outside.json)(state.judged()?);
            Ok(String::from_utf8_lossy(&json).into_owned())
        })
    }
}

impl history::Host for State {
    fn count(&mut self, query: history::Query) -> Result<u64> {
        self.ask((1, 1), |history, bound, allowance| history.count(&one_term(&query), bound, allowance))
    }

    fn count_all(&mut self, terms: Vec<Term>, since: i64, until: i64) -> Result<u64> {
        self.ask_of_all(terms, (since, until), |history, query, bound, allowance| {
            history.count(query, bound, allowance)
        })
    }

    fn summarize(&mut self, terms: Vec<Term>, since: i64, until: i64) -> Result<history::Totals> {
        let totals = self.ask_of_all(terms, (since, until), |history, query, bound, allowance| {
            history.totals(query, bound, allowance)
        });
        totals.map(convert::totals)
    }

    fn last_seen(&mut self, of: WitKind, role: WitRole, id: EveId) -> Result<Option<i64>> {
        self.ask((1, 1), |history, bound, allowance| {
            history.last_seen(&convert::wanted(of, role, vec![id]), bound, allowance)
        })
    }
}

fn one_term(query: &history::Query) -> HistoryQuestion {
    let term = Term { of: query.of, role: query.role, ids: vec![query.id] };
    convert::history_query(vec![term], query.since, query.until)
}

impl wit_universe::Host for State {
    fn name(&mut self, of: WitKind, id: EveId) -> Result<Option<String>> {
        let name = match convert::kind(of) {
            Dimension::ShipType | Dimension::WeaponType => universe::type_name(id),
            Dimension::ShipGroup => universe::group_name(id),
            Dimension::System => universe::system(id).map(|s| s.name),
            Dimension::Constellation => universe::constellation_name(id),
            Dimension::Region => universe::region_name(id),
            // Killmails carry no names of parties yet, and a guest hears no others: names change.
            Dimension::Character | Dimension::Corporation | Dimension::Alliance | Dimension::Faction => None,
        };
        Ok(name.map(str::to_owned))
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
            format!("a way of up to {max} jumps")
        })?;
        self.work(|_| Ok(universe::jumps(a, b, max)))
    }

    fn light_years(&mut self, a: EveId, b: EveId) -> Result<Option<f64>> {
        Ok(universe::light_years(a, b))
    }
}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) -> Result<()> {
        self.say(level, &message);
        Ok(())
    }
}
