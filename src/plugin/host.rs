//! What a guest can call: the killmail now judged, history, static facts, the log.
//!
//! Every function answers about "the killmail now judged", so nothing is handed over that was not asked for.
//!
//! Must not know: where killmails come from; how many guests there are.

use wasmtime::{Result, bail};

use crate::domain::entry::SharedEntry;
use crate::domain::term::Kind;
use crate::domain::verdict::Fault;
use crate::plugin::bindings::killstream::plugin::types::{
    AttackerColumns, EveId, IskValues, ItemColumns, Kind as WitKind, Point, Role as WitRole, Term,
};
use crate::plugin::bindings::killstream::plugin::{history, killmail, log, types, universe as wit_universe};
use crate::plugin::clock::thread_cpu;
use crate::plugin::convert;
use crate::plugin::history::{Bound, HistoryQuery};
use crate::plugin::state::{Now, State};
use crate::universe;

/// Lists longer than this are the host's work, charged to the host's budget.
const LONG_LIST: usize = 1_000;

impl State {
    fn judged(&self) -> Result<&SharedEntry> {
        self.now.as_ref().map(Now::entry).ok_or_else(|| wasmtime::Error::msg("no killmail is judged now"))
    }

    fn bound(&self) -> Result<Bound> {
        self.now.as_ref().map(|now| now.bound).ok_or_else(|| wasmtime::Error::msg("history may be asked in `evaluate` only"))
    }

    /// Work done for the guest: its time is not the guest's, but it has a budget.
    fn work<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = thread_cpu();
        let answer = work(self);
        self.watch.host_cpu += thread_cpu().saturating_sub(before);
        if self.watch.host_cpu >= self.host_cpu_max {
            self.fault = Some(Fault::HostBudget);
            bail!("asked the host for more than {} ms of work", self.host_cpu_max.as_millis());
        }
        answer
    }

    fn ask<T>(&mut self, question: impl FnOnce(&Self, Bound) -> T) -> Result<T> {
        let bound = self.bound()?;
        self.history_calls += 1;
        if self.history_calls > self.config.history_calls_max {
            self.fault = Some(Fault::HostBudget);
            bail!("asked history more than {} questions", self.config.history_calls_max);
        }
        self.work(|state| Ok(question(state, bound)))
    }
}

impl types::Host for State {}

impl killmail::Host for State {
    fn attackers(&mut self) -> Result<AttackerColumns> {
        Ok(convert::attackers(&self.judged()?.killmail))
    }

    fn items(&mut self) -> Result<ItemColumns> {
        Ok(convert::items(&self.judged()?.killmail))
    }

    fn values(&mut self) -> Result<IskValues> {
        Ok(convert::values(&self.judged()?.killmail))
    }

    fn position(&mut self) -> Result<Option<Point>> {
        Ok(self.judged()?.killmail.victim.position.map(|p| Point { x: p.x, y: p.y, z: p.z }))
    }

    fn labels(&mut self) -> Result<Vec<String>> {
        Ok(self.judged()?.facts.labels.clone())
    }

    fn column(&mut self, of: WitKind, role: WitRole) -> Result<Vec<EveId>> {
        Ok(convert::column(self.judged()?, convert::kind(of), convert::role(role)))
    }

    fn involves(&mut self, of: WitKind, role: WitRole, ids: Vec<EveId>) -> Result<bool> {
        let (kind, role) = (convert::kind(of), convert::role(role));
        if ids.len() <= LONG_LIST {
            return Ok(convert::involves(&self.judged()?.facts, kind, role, &ids));
        }
        self.work(|state| Ok(convert::involves(&state.judged()?.facts, kind, role, &ids)))
    }

    fn json(&mut self) -> Result<String> {
        self.work(|state| {
            let json = (state.outside.json)(state.judged()?);
            Ok(String::from_utf8_lossy(&json).into_owned())
        })
    }
}

impl history::Host for State {
    fn count(&mut self, query: history::Query) -> Result<u64> {
        let query = one_term(&query);
        self.ask(|state, bound| state.outside.history.count(&query, bound))
    }

    fn count_all(&mut self, terms: Vec<Term>, since: i64, until: i64) -> Result<u64> {
        let query = convert::history_query(terms, since, until);
        self.ask(|state, bound| state.outside.history.count(&query, bound))
    }

    fn summarize(&mut self, terms: Vec<Term>, since: i64, until: i64) -> Result<history::Totals> {
        let query = convert::history_query(terms, since, until);
        self.ask(|state, bound| convert::totals(state.outside.history.totals(&query, bound)))
    }

    fn last_seen(&mut self, of: WitKind, role: WitRole, id: EveId) -> Result<Option<i64>> {
        let term = convert::wanted(of, role, vec![id]);
        self.ask(|state, bound| state.outside.history.last_seen(&term, bound))
    }
}

fn one_term(query: &history::Query) -> HistoryQuery {
    let term = Term { of: query.of, role: query.role, ids: vec![query.id] };
    convert::history_query(vec![term], query.since, query.until)
}

impl wit_universe::Host for State {
    fn name(&mut self, of: WitKind, id: EveId) -> Result<Option<String>> {
        let name = match convert::kind(of) {
            Kind::ShipType | Kind::WeaponType => universe::type_name(id),
            Kind::ShipGroup => universe::group_name(id),
            Kind::System => universe::system(id).map(|s| s.name),
            Kind::Constellation => universe::constellation_name(id),
            Kind::Region => universe::region_name(id),
            // Killmails carry no names of parties yet, and a guest hears no others: names change.
            Kind::Character | Kind::Corporation | Kind::Alliance | Kind::Faction => None,
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
