//! Where in a configuration file each setting stands.
//!
//! Must not know: what the settings mean.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// A configuration file.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// Lines of settings and sections, by name.
#[derive(Debug, Default)]
pub struct Places {
    file: String,
    /// From the section (empty: none) and the key (empty: the section itself).
    lines: BTreeMap<(String, String), usize>,
}

impl Places {
    /// Of a file, as far as it is TOML.
    #[must_use]
    pub fn of(file: File<'_>) -> Self {
        let mut lines = BTreeMap::new();
        let Ok(table) = DeTable::parse(file.text) else { return Self::default() };
        let line = |at: usize| file.text[..at].matches('\n').count() + 1;
        // Keys of a list of tables stand under the list's name, whatever section it is in.
        let mut lists = BTreeMap::new();
        let mut list = |name: &str, value: &DeValue<'_>| {
            let DeValue::Array(tables) = value else { return };
            let tables = tables
                .iter()
                .filter_map(|one| if let DeValue::Table(keys) = one.get_ref() { Some(keys) } else { None });
            for key in tables.flat_map(|keys| keys.keys()) {
                lists
                    .entry((name.to_owned(), key.get_ref().to_string()))
                    .or_insert_with(|| line(key.span().start));
            }
        };
        for (name, value) in table.get_ref() {
            let section = name.get_ref().to_string();
            list(&section, value.get_ref());
            if let DeValue::Table(inner) = value.get_ref() {
                for (key, value) in inner {
                    list(key.get_ref(), value.get_ref());
                    lines.insert((section.clone(), key.get_ref().to_string()), line(key.span().start));
                }
                lines.insert((section, String::new()), line(name.span().start));
            } else {
                lines.insert((String::new(), section), line(name.span().start));
            }
        }
        lines.extend(lists);
        Self { file: file.name.to_owned(), lines }
    }

    /// Where a setting stands, in words to be put behind a message; empty where that is not known.
    #[must_use]
    pub fn told(&self, section: &str, key: &str) -> String {
        let short = || self.lines.get(&(String::new(), key.to_owned()));
        match self.lines.get(&(section.to_owned(), key.to_owned())).or_else(short) {
            Some(line) => format!(" ({}, line {line})", self.file),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_on_lines() {
        let text =
            "# one\nport = 1\nsources = []\n\n[http]\ncached_max = 5\nsystems_max = 6\n\n[[more]]\nx = 1\n";
        let places = Places::of(File { name: "a.toml", text });
        assert_eq!(places.told("", "port"), " (a.toml, line 2)");
        assert_eq!(places.told("ingest", "sources"), " (a.toml, line 3)");
        assert_eq!(places.told("http", "systems_max"), " (a.toml, line 7)");
        assert_eq!(places.told("http", ""), " (a.toml, line 5)");
        assert_eq!(places.told("http", "none"), "");
    }
}
