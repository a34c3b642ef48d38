//! Members of killmails that could not be read: counted by field, and logged once an hour per field with an
//! example.
//!
//! Must not know: which source sent them, where the counts are shown.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::domain::killmail::Killmail;
use crate::domain::merge::members::{Part, any_unreadable, each_unreadable};

/// The minimum time between two log lines about the same field.
const LOG_EVERY_MS: i64 = 3_600_000;
/// The length of an example, characters.
const EXAMPLE_MAX: usize = 60;

/// Counts of killmails by unreadable field, since the start.
#[derive(Debug, Default)]
pub struct Unreadable(Mutex<BTreeMap<String, Field>>);

#[derive(Debug, Default, Clone, Copy)]
struct Field {
    killmails: u64,
    logged_ms: Option<i64>,
}

/// The unreadable members of some killmails, collected before these are handed over.
#[derive(Debug, Default)]
pub struct Found(Vec<Finding>);

#[derive(Debug, PartialEq, Eq)]
struct Finding {
    killmail_id: u32,
    field: String,
    example: String,
}

impl Found {
    /// Collects the unreadable members of these killmails.
    pub fn collect<'a>(killmails: impl Iterator<Item = &'a Killmail>) -> Self {
        let mut found = Vec::new();
        for killmail in killmails.filter(|killmail| any_unreadable(killmail)) {
            let mut fields: HashMap<String, String> = HashMap::new();
            each_unreadable(killmail, &mut |part, name, raw| {
                fields
                    .entry(field_name(part, name))
                    .or_insert_with(|| raw.to_string().chars().take(EXAMPLE_MAX).collect());
            });
            found.extend(fields.into_iter().map(|(field, example)| Finding {
                killmail_id: killmail.killmail_id,
                field,
                example,
            }));
        }
        Self(found)
    }
}

/// The name of a field, for counting. All unknown members of a part count as one field, so that a sender
/// cannot create any number of fields.
fn field_name(part: Part, name: Option<&str>) -> String {
    let name = name.unwrap_or("other");
    match part {
        Part::Killmail => name.to_owned(),
        Part::Victim => format!("victim.{name}"),
        Part::Attacker => format!("attackers.{name}"),
        Part::Item => format!("items.{name}"),
        Part::Zkb => format!("zkb.{name}"),
    }
}

impl Unreadable {
    /// Counts what was found in killmails that were stored, and logs the fields that were not logged within
    /// the last hour.
    pub fn note(&self, found: &Found, now_ms: i64) {
        for Finding { killmail_id, field, example } in self.count(found, now_ms) {
            tracing::warn!(
                killmail.id = killmail_id,
                "{field} of killmail {killmail_id} cannot be read and counts as unknown: {example}; this is logged once an hour, and \
                 killstream_unreadable_fields_total counts all"
            );
        }
    }

    /// How many killmails had each field unreadable.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().iter().map(|(field, counted)| (field.clone(), counted.killmails)).collect()
    }

    /// Counts, and returns what to log.
    fn count<'a>(&self, found: &'a Found, now_ms: i64) -> Vec<&'a Finding> {
        let mut to_log = Vec::new();
        let mut fields = self.0.lock();
        for finding in &found.0 {
            let field = fields.entry(finding.field.clone()).or_default();
            field.killmails += 1;
            if field.logged_ms.is_none_or(|at| now_ms - at >= LOG_EVERY_MS) {
                field.logged_ms = Some(now_ms);
                to_log.push(finding);
            }
        }
        to_log
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::killmail::Attacker;
    use crate::domain::zkb::Zkb;

    fn killmail(id: u32) -> Killmail {
        let mut attacker = Attacker::default();
        attacker.unreadable.insert("damage_done", json!("x".repeat(100)));
        let mut zkb = Zkb::default();
        zkb.unreadable.insert("points", json!(1.5));
        zkb.unreadable.insert("unheard of", json!(1));
        zkb.unreadable.insert("never seen", json!(2));
        Killmail { killmail_id: id, attackers: vec![attacker; 3], zkb: Some(zkb), ..Killmail::default() }
    }

    #[test]
    fn each_field_counts_once_per_killmail() {
        let unreadable = Unreadable::default();
        unreadable.note(&Found::collect([killmail(1), Killmail::default(), killmail(2)].iter()), 0);
        let counts: Vec<(String, u64)> = unreadable.counts().into_iter().collect();
        assert_eq!(
            counts,
            [("attackers.damage_done", 2), ("zkb.other", 2), ("zkb.points", 2)]
                .map(|(field, n)| (field.to_owned(), n))
        );
    }

    #[test]
    fn each_field_is_logged_once_an_hour() {
        let unreadable = Unreadable::default();
        let logged = |id, now_ms| {
            let found = Found::collect([killmail(id)].iter());
            let mut fields: Vec<String> =
                unreadable.count(&found, now_ms).iter().map(|finding| finding.field.clone()).collect();
            fields.sort_unstable();
            fields
        };
        let all = ["attackers.damage_done", "zkb.other", "zkb.points"].map(str::to_owned).to_vec();
        assert_eq!((logged(1, 5), logged(2, 5), logged(3, 3_600_004)), (all.clone(), Vec::new(), Vec::new()));
        assert_eq!(logged(4, 3_600_005), all);
        assert_eq!(
            Found::collect([killmail(1)].iter()).0.iter().map(|finding| finding.example.len()).max(),
            Some(EXAMPLE_MAX)
        );
    }
}
