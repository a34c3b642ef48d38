//! Settings and sections that were renamed. The old name still works in a file, and the log reports it once at
//! start.
//!
//! To rename a setting, rename the field of its struct and its line in `killstream.toml`, and add a line here.
//!
//! Must not know: what the settings mean.

use toml::{Table, Value};

use crate::config::locations::Locations;

/// Every renamed setting (`section.key`, or `key` before the first section) and section (`section`).
pub const RENAMED: &[Renamed] = &[
    Renamed { old: "ingest.r2z2_ghost_ms", new: "ingest.r2z2_missing_ms" },
    Renamed { old: "sse.parked_bytes", new: "sse.batch_cache_bytes" },
];

/// One renamed setting or section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renamed {
    /// Its former name.
    pub old: &'static str,
    /// Its name now.
    pub new: &'static str,
}

/// Moves every value under an old name to the current one, in the parsed file and in the locations of its
/// lines. Returns the old names that were used.
pub fn apply(
    renamed: &'static [Renamed],
    table: &mut Table,
    locations: &mut Locations,
    errors: &mut Vec<String>,
) -> Vec<&'static Renamed> {
    let mut used = Vec::new();
    for one in renamed {
        let Some(value) = remove(table, one.old) else { continue };
        let location = locations.of_name(one.old);
        if insert(table, one.new, value) {
            locations.rename(one.old, one.new);
        } else {
            errors.push(format!("{} is now {}; both are set{location}", one.old, one.new));
        }
        used.push(one);
    }
    used
}

fn remove(table: &mut Table, name: &str) -> Option<Value> {
    match name.split_once('.') {
        Some((section, key)) => table.get_mut(section)?.as_table_mut()?.remove(key),
        None => table.remove(name),
    }
}

/// Returns `false` if the name has a value already. A section is merged key by key.
fn insert(table: &mut Table, name: &str, value: Value) -> bool {
    let (table, key) = match name.split_once('.') {
        Some((section, key)) => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            let Some(section) = section.as_table_mut() else { return false };
            (section, key)
        }
        None => (table, name),
    };
    match (table.get_mut(key), value) {
        (None, value) => {
            table.insert(key.to_owned(), value);
            true
        }
        (Some(Value::Table(present)), Value::Table(moved)) => {
            let is_free = moved.keys().all(|key| !present.contains_key(key));
            present.extend(moved);
            is_free
        }
        (Some(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{File, sections};

    const PLANTED: &[Renamed] = &[
        Renamed { old: "ingest.waited_ms", new: "ingest.wait_ms" },
        Renamed { old: "web", new: "http" },
        Renamed { old: "folder", new: "data_dir" },
        Renamed { old: "ingest.space_ms", new: "store.space_ms" },
    ];

    fn applied(text: &str) -> (Table, Locations, Vec<&'static str>, Vec<String>) {
        let mut table = text.parse().unwrap();
        let mut locations = Locations::of(File { name: "a.toml", text });
        let mut errors = Vec::new();
        let used = apply(PLANTED, &mut table, &mut locations, &mut errors);
        (table, locations, used.iter().map(|one| one.old).collect(), errors)
    }

    #[test]
    fn old_names_stand_for_the_new_ones() {
        let text = "folder = 'x'\n[ingest]\nwaited_ms = 5\nspace_ms = 6\n[web]\ncached_max = 7\n";
        let (table, locations, used, errors) = applied(text);
        let expected =
            "data_dir = 'x'\n[ingest]\nwait_ms = 5\n[store]\nspace_ms = 6\n[http]\ncached_max = 7\n";
        assert_eq!(table, expected.parse().unwrap());
        assert_eq!((used.len(), errors), (4, vec![]));
        for (section, key, location) in [
            ("", "data_dir", " (a.toml, line 1, as folder)"),
            ("ingest", "wait_ms", " (a.toml, line 3, as ingest.waited_ms)"),
            ("store", "space_ms", " (a.toml, line 4, as ingest.space_ms)"),
            ("http", "cached_max", " (a.toml, line 6, as web.cached_max)"),
        ] {
            assert_eq!(locations.describe(section, key), location);
        }
    }

    #[test]
    fn current_names_are_left_alone() {
        let text = "[ingest]\nwait_ms = 5\n[http]\n";
        let (table, _, used, errors) = applied(text);
        assert_eq!((table, used, errors), (text.parse().unwrap(), vec![], vec![]));
    }

    #[test]
    fn both_names_are_an_error() {
        let (_, _, used, errors) = applied("[ingest]\nwaited_ms = 5\nwait_ms = 6\n");
        assert_eq!(used, ["ingest.waited_ms"]);
        assert_eq!(errors, ["ingest.waited_ms is now ingest.wait_ms; both are set (a.toml, line 2)"]);
        let (table, _, _, errors) = applied("[web]\na = 1\n[http]\nb = 2\n");
        assert_eq!((table["http"].as_table().unwrap().len(), errors), (2, vec![]), "different keys merge");
        let (_, _, _, errors) = applied("[web]\na = 1\n[http]\na = 2\n");
        assert_eq!(errors, ["web is now http; both are set (a.toml, line 1)"]);
    }

    #[test]
    fn every_new_name_exists() {
        let sections = sections();
        for Renamed { old, new } in RENAMED {
            let (section, key) = new.split_once('.').unwrap_or(("", new));
            let exists = |(name, keys): &(&str, Vec<String>)| {
                *name == *new || (*name == section && keys.iter().any(|known| known == key))
            };
            assert!(sections.iter().any(exists), "{old} is renamed to {new}, which does not exist");
        }
    }
}
