//! The host functions of the stage, with the signatures of the bindings.

pub(crate) mod killmail {
    use crate::testing::record::{Participant, Record};
    use crate::testing::{Stage, ask};
    use crate::{AttackerColumns, IskValues, ItemColumns, Kind, Point, Role};
    use serde_json::Value;

    pub fn attackers() -> AttackerColumns {
        let column = |of| column(of, Role::Attacker);
        now(|_, record| {
            let rows = record.participants(Role::Attacker);
            AttackerColumns {
                characters: column(Kind::Character),
                corporations: column(Kind::Corporation),
                alliances: column(Kind::Alliance),
                factions: column(Kind::Faction),
                ships: column(Kind::Ship),
                weapons: column(Kind::Weapon),
                damage: rows.iter().map(|row| row.number("damage_done")).collect(),
                security: rows.iter().map(|row| row.security()).collect(),
                final_blow: rows.iter().position(|row| Participant::is_final_blow(row)).map(|row| row as u32),
            }
        })
    }

    pub fn items() -> ItemColumns {
        let mut columns = ItemColumns {
            type_ids: Vec::new(),
            slots: Vec::new(),
            destroyed: Vec::new(),
            dropped: Vec::new(),
            singletons: Vec::new(),
            depth: Vec::new(),
        };
        now(|_, record| walk(&record.json["victim"]["items"], 0, &mut columns));
        columns
    }

    fn walk(items: &Value, depth: u8, columns: &mut ItemColumns) {
        for item in items.as_array().into_iter().flatten() {
            let number = |field: &str| item[field].as_u64().unwrap_or(0);
            columns.type_ids.push(number("item_type_id") as u32);
            columns.slots.push(number("flag") as u32);
            columns.destroyed.push(number("quantity_destroyed"));
            columns.dropped.push(number("quantity_dropped"));
            columns.singletons.push(number("singleton") as u8);
            columns.depth.push(depth);
            walk(&item["items"], depth.saturating_add(1), columns);
        }
    }

    pub fn values() -> IskValues {
        now(|_, record| IskValues {
            fitted: record.isk("fittedValue"),
            dropped: record.isk("droppedValue"),
            destroyed: record.isk("destroyedValue"),
            total: record.isk("totalValue"),
        })
    }

    pub fn position() -> Option<Point> {
        now(|_, record| {
            let position = &record.json["victim"]["position"];
            Some(Point { x: position["x"].as_f64()?, y: position["y"].as_f64()?, z: position["z"].as_f64()? })
        })
    }

    pub fn labels() -> Vec<String> {
        now(|_, record| record.labels())
    }

    pub fn column(of: Kind, role: Role) -> Vec<u32> {
        now(|stage, record| record.column(stage, of, role))
    }

    pub fn involves(of: Kind, role: Role, ids: &[u32]) -> bool {
        now(|stage, record| record.involves(stage, of, role, ids))
    }

    pub fn json() -> String {
        now(|_, record| record.json.to_string())
    }

    fn now<T>(question: impl FnOnce(&Stage, &Record) -> T) -> T {
        ask(|stage| question(stage, stage.now.as_ref().expect("no killmail is being judged")))
    }
}

pub(crate) mod history {
    use crate::history::{Query, Totals};
    use crate::testing::record::Record;
    use crate::testing::{Stage, ask};
    use crate::{Kind, Role, Term};

    pub fn count(query: Query) -> u64 {
        count_all(&[Term::new(query.of, query.role, [query.id])], query.since, query.until)
    }

    pub fn count_all(terms: &[Term], since: i64, until: i64) -> u64 {
        select(terms, since, until, |found| found.count() as u64)
    }

    pub fn summarize(terms: &[Term], since: i64, until: i64) -> Totals {
        select(terms, since, until, |found| {
            let found: Vec<_> = found.collect();
            Totals {
                killmails: found.len() as u64,
                value: found.iter().map(|record| record.isk("totalValue")).sum(),
                first: found.iter().map(|record| record.time).min(),
                last: found.iter().map(|record| record.time).max(),
            }
        })
    }

    pub fn last_seen(of: Kind, role: Role, id: u32) -> Option<i64> {
        select(&[Term::new(of, role, [id])], 0, 0, |found| found.map(|record| record.time).max())
    }

    fn select<T>(terms: &[Term], since: i64, until: i64, sum_up: impl FnOnce(&mut dyn Iterator<Item = &Record>) -> T) -> T {
        ask(|stage| {
            let now = stage.now.as_ref().expect("no killmail is being judged");
            let in_time = |record: &Record| (since == 0 || record.time >= since) && (until == 0 || record.time < until);
            let matches = |record: &Record| record.id < now.id && in_time(record) && all(stage, record, terms);
            sum_up(&mut stage.history.iter().map(AsRef::as_ref).filter(|record| matches(record)))
        })
    }

    fn all(stage: &Stage, record: &Record, terms: &[Term]) -> bool {
        terms.iter().all(|term| record.matches(stage, term))
    }
}

pub(crate) mod universe {
    use crate::Kind;
    use crate::testing::ask;

    pub fn name(_: Kind, id: u32) -> Option<String> {
        ask(|stage| stage.names.get(&id).cloned())
    }

    pub fn group(type_id: u32) -> u32 {
        ask(|stage| stage.types.get(&type_id).map_or(0, |(group, _)| *group))
    }

    pub fn category(type_id: u32) -> u32 {
        ask(|stage| stage.types.get(&type_id).map_or(0, |(_, category)| *category))
    }

    pub fn constellation(system: u32) -> u32 {
        ask(|stage| stage.systems.get(&system).map_or(0, |place| place.0))
    }

    pub fn region(system: u32) -> u32 {
        ask(|stage| stage.systems.get(&system).map_or(0, |place| place.1))
    }

    pub fn security(system: u32) -> Option<f64> {
        ask(|stage| stage.systems.get(&system).map(|place| place.2))
    }

    pub fn jumps(a: u32, b: u32, max: u32) -> Option<u32> {
        ask(|stage| stage.jumps.get(&(a, b)).copied().filter(|jumps| *jumps <= max))
    }

    pub fn light_years(a: u32, b: u32) -> Option<f64> {
        ask(|stage| stage.light_years.get(&(a, b)).copied())
    }
}

pub(crate) mod log {
    use crate::bindings::killstream::plugin::log::Level;

    pub fn log(level: Level, message: &str) {
        eprintln!("{level:?}: {message}");
    }
}
